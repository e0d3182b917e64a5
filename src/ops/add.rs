//! y = a + b, of one shape.
use super::{CHUNK, Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads};
use crate::dual::Dual;
use crate::gpu::{Args, Ptr, Queue};
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

#[derive(Debug)]
pub struct Add;

/// As `AddArgs` in kernels/pointwise.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct AddArgs {
    a: Ptr,
    b: Ptr,
    y: Ptr,
    n: u64,
}
impl Args for AddArgs {}
const _: () = assert!(size_of::<AddArgs>() == 32);

/// y = a + b, in parallel.
pub(super) fn sum(a: &[f32], b: &[f32], y: &mut [f32]) {
    let chunks = y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK));
    chunks.for_each(|((y, a), b)| {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    });
}

/// g (+)= v, in parallel.
pub(super) fn receive(v: &[f32], g: &mut Cotangent) {
    let add = g.add;
    g.data
        .par_chunks_mut(CHUNK)
        .zip(v.par_chunks(CHUNK))
        .for_each(|(g, v)| if add { g.iter_mut().zip(v).for_each(|(g, v)| *g += v) } else { g.copy_from_slice(v) });
}

/// y = a + b on a device, all stored as y is.
pub(super) fn sum_on(a: &DeviceTensor, b: &DeviceTensor, y: &DeviceTensor, queue: &Queue) -> crate::Result<()> {
    let (n, dtype) = (y.numel(), y.dtype);
    let (a, b) = (a.stored(dtype, "add", "a")?, b.stored(dtype, "add", "b")?);
    let args = AddArgs { a, b, y: y.at, n: n as u64 };
    queue.launch(&format!("add_forward_{}", dtype.suffix()), queue.blocks(n, 2048), 256, 0, &args)
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        if x[0] == x[1] { Ok(x[0].to_vec()) } else { Err(format!("{:?} and {:?} differ", x[0], x[1])) }
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let n = if pass == Pass::Dual { 2 } else { 1 } * numel(x[0]) as u64;
        Cost { flops: n, bytes: 12 * n }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        for (i, y) in y.iter_mut().enumerate() {
            *y = x[0].data[i] + x[1].data[i];
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        sum(x[0].data, x[1].data, y);
    }
    fn jvp(&self, _: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match (dx[0], dx[1]) {
            (Some(a), Some(b)) => sum(a, b, dy),
            (Some(d), None) | (None, Some(d)) => dy.copy_from_slice(d),
            (None, None) => dy.fill(0.0),
        }
    }
    fn vjp(&self, _: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        gx.iter_mut().flatten().for_each(|g| receive(gy, g));
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        match pass {
            Pass::Forward => sum_on(&io.x[0], &io.x[1], &io.y, queue),
            Pass::Jvp => match (&io.dx[0], &io.dx[1]) {
                (Some(a), Some(b)) => sum_on(a, b, &io.dy()?, queue),
                (Some(d), None) | (None, Some(d)) => io.dy()?.copy_from(d, queue),
                (None, None) => io.dy()?.zero(queue),
            },
            Pass::Vjp => {
                let gy = io.dy()?;
                io.gx.iter().flatten().try_for_each(|g| g.receive(&gy, queue))
            }
            Pass::Dual => super::in_turn(self, io, queue),
        }
    }
}
