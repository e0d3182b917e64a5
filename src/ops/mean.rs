//! y = (a + b) / 2, of one shape: what two heads say together.
use super::{CHUNK, Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads};
use crate::dual::Dual;
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

/// Inputs: a, b.
#[derive(Clone, Copy, Debug)]
pub struct Mean;

/// As `HalfSumArgs` in kernels/patches.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct HalfSumArgs {
    a: Ptr,
    b: Ptr,
    y: Ptr,
    n: u64,
    add: u32,
    narrow: u32,
}
impl Args for HalfSumArgs {}
const _: () = assert!(size_of::<HalfSumArgs>() == 40);

/// y (+)= (a + b) / 2 on a device, where b may be zero; y in the type of a and b or in another.
fn half_sum(
    a: &DeviceTensor,
    b: Option<&DeviceTensor>,
    y: &DeviceTensor,
    add: bool,
    queue: &Queue,
) -> crate::Result<()> {
    let n = a.numel();
    let b = b.map_or(Ok(Ptr::NULL), |b| b.stored(a.dtype, "mean", "b"))?;
    let narrow = u32::from(y.dtype == Dtype::Bf16);
    let args = HalfSumArgs { a: a.at, b, y: y.at, n: n as u64, add: add.into(), narrow };
    queue.launch(&format!("half_sum_{}", a.dtype.suffix()), queue.blocks(n, 1024), 256, 0, &args)
}

impl Op for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        if x[0] == x[1] { Ok(x[0].to_vec()) } else { Err(format!("{:?} and {:?} differ", x[0], x[1])) }
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let n = pass.count() * numel(x[0]) as u64;
        Cost { flops: 2 * n, bytes: 12 * n }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        for (i, y) in y.iter_mut().enumerate() {
            *y = (x[0].data[i] + x[1].data[i]) / Dual::constant(2.0);
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        y.iter_mut().zip(x[0].data.iter().zip(x[1].data)).for_each(|(y, (a, b))| *y = 0.5 * (a + b));
    }
    fn jvp(&self, _: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match (dx[0], dx[1]) {
            (Some(a), Some(b)) => dy.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = 0.5 * (a + b)),
            (Some(d), None) | (None, Some(d)) => dy.iter_mut().zip(d).for_each(|(y, d)| *y = 0.5 * d),
            (None, None) => dy.fill(0.0),
        }
    }
    fn vjp(&self, _: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        for g in gx.iter_mut().flatten() {
            let add = g.add;
            g.data.par_chunks_mut(CHUNK).zip(gy.par_chunks(CHUNK)).for_each(|(g, gy)| {
                g.iter_mut().zip(gy).for_each(|(g, v)| *g = if add { *g + 0.5 * v } else { 0.5 * v });
            });
        }
    }
    fn widens(&self) -> bool {
        true
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        match pass {
            Pass::Forward => half_sum(&io.x[0], Some(&io.x[1]), &io.y, false, queue),
            Pass::Jvp => match (&io.dx[0], &io.dx[1]) {
                (Some(a), b) => half_sum(a, b.as_ref(), &io.dy()?, false, queue),
                (None, Some(b)) => half_sum(b, None, &io.dy()?, false, queue),
                (None, None) => io.dy()?.zero(queue),
            },
            Pass::Dual => super::in_turn(self, io, queue),
            Pass::Vjp => {
                let gy = io.dy()?;
                io.gx.iter().flatten().try_for_each(|g| half_sum(&gy, None, &g.to, g.add, queue))
            }
        }
    }
}
