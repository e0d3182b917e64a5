//! y[b, s] = x[b, s] + table[s]: learned positions, x [B, S, H] and table [P, H] (or [1, P, H]) with P >= S.
use super::device::packs;
use super::sum_rows::sum_rows;
use super::{Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads, rows_per_task};
use crate::dual::Dual;
use crate::gpu::{Args, Ptr, Queue};
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

/// Inputs: x, table. Rows of the table beyond S take no part.
#[derive(Debug)]
pub struct AddPosition;

/// As `PositionArgs` in kernels/embedding.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PositionArgs {
    x: Ptr,
    table: Ptr,
    y: Ptr,
    batch: u64,
    used: u64,
    packs: u64,
}
impl Args for PositionArgs {}
const _: () = assert!(size_of::<PositionArgs>() == 48);

/// [`spread`] on a device.
fn spread_cuda(x: Option<&DeviceTensor>, table: &DeviceTensor, y: &DeviceTensor, queue: &Queue) -> crate::Result<()> {
    let (dtype, batch, used) = (y.dtype, y.shape[0], y.shape[1] * y.shape[2]);
    let x = x.map_or(Ok(Ptr::NULL), |x| x.stored(dtype, "add_position", "x"))?;
    let table = table.stored(dtype, "add_position", "table")?;
    let packs = packs(dtype, used, &[x, table, y.at]).into();
    let args = PositionArgs { x, table, y: y.at, batch: batch as u64, used: used as u64, packs };
    let grid = [queue.blocks(used, 2048), batch.clamp(1, 65_535) as u32];
    queue.launch(&format!("add_position_forward_{}", dtype.suffix()), grid, 256, 0, &args)
}

/// Row r of y = row r of x (if any) + row r mod `s` of `table`, rows of `h`.
fn spread(x: Option<&[f32]>, table: &[f32], s: usize, h: usize, y: &mut [f32]) {
    let rows = rows_per_task(h);
    y.par_chunks_mut(h * rows).enumerate().for_each(|(task, y)| {
        for (i, y) in y.chunks_mut(h).enumerate() {
            let r = task * rows + i;
            y.copy_from_slice(&table[r % s * h..][..h]);
            if let Some(x) = x {
                y.iter_mut().zip(&x[r * h..]).for_each(|(y, x)| *y += x);
            }
        }
    });
}

impl Op for AddPosition {
    fn name(&self) -> &'static str {
        "add_position"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        let &[&[_, s, h], &[p, width] | &[1, p, width]] = x else {
            return Err(format!("wants x [B, S, H], table [P, H]; got {x:?}"));
        };
        if h != width {
            return Err(format!("x is {h} wide, the table of positions {width}"));
        }
        if s > p {
            return Err(format!("{s} tokens, but the table has {p} positions"));
        }
        Ok(x[0].to_vec())
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let (n, used) = (numel(x[0]) as u64, x[0][1..].iter().product::<usize>() as u64);
        let each = if pass == Pass::Dual { 2 } else { 1 };
        Cost { flops: each * n, bytes: each * 4 * (2 * n + used) }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let used = x[0].shape[1] * x[0].shape[2];
        for (i, y) in y.iter_mut().enumerate() {
            *y = x[0].data[i] + x[1].data[i % used];
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        spread(Some(x[0].data), x[1].data, x[0].shape[1], x[0].shape[2], y);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match (dx[0], dx[1]) {
            (dx, Some(d_table)) => spread(dx, d_table, x[0].shape[1], x[0].shape[2], dy),
            (Some(dx), None) => dy.copy_from_slice(dx),
            (None, None) => dy.fill(0.0),
        }
    }
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let (s, h) = (x[0].shape[1], x[0].shape[2]);
        if let Some(g) = &mut gx[0] {
            let (add, part) = (g.add, h * rows_per_task(h));
            g.data.par_chunks_mut(part).zip(gy.par_chunks(part)).for_each(|(g, gy)| {
                if add { g.iter_mut().zip(gy).for_each(|(g, v)| *g += v) } else { g.copy_from_slice(gy) }
            });
        }
        if let Some(g) = &mut gx[1] {
            let add = g.add;
            g.data.par_chunks_mut(h).enumerate().for_each(|(at, g)| {
                if !add {
                    g.fill(0.0);
                }
                if at < s {
                    let samples = gy.chunks(s * h).map(|gy| &gy[at * h..]);
                    samples.for_each(|gy| g.iter_mut().zip(gy).for_each(|(g, v)| *g += v));
                }
            });
        }
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        match pass {
            Pass::Forward => spread_cuda(Some(&io.x[0]), &io.x[1], &io.y, queue),
            Pass::Jvp => match (&io.dx[0], &io.dx[1]) {
                (dx, Some(d_table)) => spread_cuda(dx.as_ref(), d_table, &io.dy()?, queue),
                (Some(dx), None) => io.dy()?.copy_from(dx, queue),
                (None, None) => io.dy()?.zero(queue),
            },
            Pass::Vjp => {
                let gy = io.dy()?;
                if let Some(g) = &io.gx[0] {
                    g.receive(&gy, queue)?;
                }
                let Some(g) = &io.gx[1] else { return Ok(()) };
                let (batch, used) = (gy.shape[0], gy.shape[1] * gy.shape[2]);
                if !g.add && g.to.numel() > used {
                    g.to.zero(queue)?; // positions that no sample reaches
                }
                sum_rows(&gy, batch, used, g, queue)
            }
            Pass::Dual => super::in_turn(self, io, queue),
        }
    }
}
