//! x [N, ..] as [N, k]: the same numbers, a row a sample.
use super::{CHUNK, Cost, Cotangent, DeviceIo, Op, Pass, Reads};
use crate::dual::Dual;
use crate::gpu::Queue;
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

#[derive(Debug)]
pub struct Flatten;

impl Op for Flatten {
    fn name(&self) -> &'static str {
        "flatten"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match *x {
            [&[n, ref rest @ ..]] => Ok(vec![n, numel(rest)]),
            _ => Err(format!("wants x [N, ..]; got {x:?}")),
        }
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        Cost { flops: 0, bytes: pass.count() * 8 * numel(x[0]) as u64 }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        y.copy_from_slice(x[0].data);
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        y.copy_from_slice(x[0].data);
    }
    fn jvp(&self, _: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match dx[0] {
            Some(dx) => dy.copy_from_slice(dx),
            None => dy.fill(0.0),
        }
    }
    fn vjp(&self, _: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let Some(Cotangent { data, add }) = &mut gx[0] else { return };
        if !*add {
            return data.copy_from_slice(gy);
        }
        data.par_chunks_mut(CHUNK).zip(gy.par_chunks(CHUNK)).for_each(|(g, gy)| {
            g.iter_mut().zip(gy).for_each(|(g, v)| *g += v);
        });
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        match pass {
            Pass::Forward => io.y.copy_from(&io.x[0], queue),
            Pass::Jvp => match &io.dx[0] {
                Some(dx) => io.dy()?.copy_from(dx, queue),
                None => io.dy()?.zero(queue),
            },
            Pass::Dual => super::in_turn(self, io, queue),
            Pass::Vjp => match &io.gx[0] {
                Some(g) => g.receive(&io.dy()?, queue),
                None => Ok(()),
            },
        }
    }
}
