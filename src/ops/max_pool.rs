//! y = the largest over each window of the planes of x [N, C, H, W]; of equal ones the first, row by row, as PyTorch
//! chooses. Padding is never chosen.
use super::pool::Pool;
use super::window::{Window, Windows};
use super::{Cost, Cotangent, DeviceIo, Op, Pass, Reads};
use crate::dual::Dual;
use crate::gpu::Queue;
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool {
    pub windows: Windows,
}

impl MaxPool {
    fn grid(&self, shape: &[usize]) -> [Vec<Window>; 2] {
        [0, 1].map(|axis| self.windows.along(axis, shape[2 + axis]).unwrap_or_default())
    }
}

/// The place in a plane of the largest element of a window; a NaN counts as the largest, as in PyTorch.
fn largest<T: Copy>(x: &[T], width: usize, r: &Window, c: &Window, value: impl Fn(T) -> f64) -> usize {
    let mut best = r.start * width + c.start;
    for i in r.start..r.end {
        for at in i * width + c.start..i * width + c.end {
            let v = value(x[at]);
            if v > value(x[best]) || v.is_nan() {
                best = at;
            }
        }
    }
    best
}

/// out = x at the places that the forward pass chose.
fn gather(x: &[f32], area: usize, saved: &[f32], to: usize, out: &mut [f32]) {
    let planes = out.par_chunks_mut(to).zip(saved.par_chunks(to)).zip(x.par_chunks(area));
    planes.with_min_len((16_384 / area).max(1)).for_each(|((out, saved), x)| {
        out.iter_mut().zip(saved).for_each(|(y, at)| *y = x[at.to_bits() as usize]);
    });
}

/// Pixels of a plane of the input, and of the output.
fn areas(x: &[View], y: usize) -> (usize, usize) {
    let shape = x[0].shape;
    ((shape[2] * shape[3]).max(1), (y / (shape[0] * shape[1]).max(1)).max(1))
}

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        self.windows.output(x)
    }
    /// The place in its plane of each element chosen, as the bits of a whole number.
    fn saved(&self, x: &[&[usize]]) -> usize {
        self.output(x).map_or(0, |y| numel(&y))
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let (n, y) = (numel(x[0]) as u64, self.output(x).map_or(0, |y| numel(&y)) as u64);
        match pass {
            Pass::Forward => Cost { flops: n, bytes: 4 * (n + 2 * y) },
            Pass::Jvp => Cost { flops: 0, bytes: 12 * y },
            Pass::Dual => self.cost(Pass::Forward, x) + self.cost(Pass::Jvp, x),
            Pass::Vjp => Cost { flops: y, bytes: 4 * (n + 2 * y) },
        }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let ([rows, columns], [height, width]) = (self.grid(x[0].shape), [x[0].shape[2], x[0].shape[3]]);
        for (at, y) in y.iter_mut().enumerate() {
            let plane = &x[0].data[at / (rows.len() * columns.len()) * height * width..][..height * width];
            let (r, c) = (&rows[at / columns.len() % rows.len()], &columns[at % columns.len()]);
            *y = plane[largest(plane, width, r, c, |x: Dual| x.re)];
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], saved: &mut [f32]) {
        let ([rows, columns], width) = (self.grid(x[0].shape), x[0].shape[3]);
        let (area, to) = areas(x, y.len());
        let planes = y.par_chunks_mut(to).zip(saved.par_chunks_mut(to)).zip(x[0].data.par_chunks(area));
        planes.with_min_len((16_384 / area).max(1)).for_each(|((y, saved), x)| {
            for (i, r) in rows.iter().enumerate() {
                for (j, c) in columns.iter().enumerate() {
                    let at = largest(x, width, r, c, f64::from);
                    (y[i * columns.len() + j], saved[i * columns.len() + j]) = (x[at], f32::from_bits(at as u32));
                }
            }
        });
    }
    fn jvp(&self, x: &[View], _: &[f32], saved: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let (area, to) = areas(x, dy.len());
        match dx[0] {
            Some(dx) => gather(dx, area, saved, to, dy),
            None => dy.fill(0.0),
        }
    }
    fn vjp(&self, x: &[View], _: &[f32], saved: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let (area, to) = areas(x, gy.len());
        let Some(Cotangent { data, add }) = &mut gx[0] else { return };
        let add = *add;
        let planes = data.par_chunks_mut(area).zip(gy.par_chunks(to)).zip(saved.par_chunks(to));
        planes.with_min_len((16_384 / area).max(1)).for_each(|((gx, gy), saved)| {
            if !add {
                gx.fill(0.0);
            }
            gy.iter().zip(saved).for_each(|(g, at)| gx[at.to_bits() as usize] += g);
        });
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        let (op, windows, x, y) = (self.name(), &self.windows, io.x[0].shape, io.y.shape);
        let pool = Pool { op, windows, count_padding: false, x, y, chosen: io.saved };
        match pass {
            Pass::Forward => pool.launch("forward", &io.x[0], &io.y, None, queue),
            Pass::Jvp => match &io.dx[0] {
                Some(dx) => pool.launch("jvp", dx, &io.dy()?, None, queue),
                None => io.dy()?.zero(queue),
            },
            Pass::Dual => super::in_turn(self, io, queue),
            Pass::Vjp => match &io.gx[0] {
                Some(g) => pool.launch("vjp", &io.dy()?, &g.to, Some(g.add), queue),
                None => Ok(()),
            },
        }
    }
}
