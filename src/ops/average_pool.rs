//! y = the mean over each window of the planes of x [N, C, H, W]; over whole planes: global average pooling.
use super::pool::Pool;
use super::window::{Window, Windows};
use super::{Cost, Cotangent, DeviceIo, Op, Pass, Reads};
use crate::dual::Dual;
use crate::gpu::{Ptr, Queue};
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AveragePool {
    pub windows: Windows,
    /// Whether the mean is over a window's padding too (PyTorch's `count_include_pad`).
    pub count_padding: bool,
}

/// The windows of both axes.
struct Grid {
    rows: Vec<Window>,
    columns: Vec<Window>,
    from: [usize; 2],
}

impl AveragePool {
    /// Over whole planes: [N, C, 1, 1].
    pub const GLOBAL: Self = Self { windows: Windows::Adaptive { to: [1, 1] }, count_padding: false };

    fn grid(&self, shape: &[usize]) -> Grid {
        let from = [shape[2], shape[3]];
        let along = |axis: usize| self.windows.along(axis, from[axis]).unwrap_or_default();
        Grid { rows: along(0), columns: along(1), from }
    }

    fn weight(&self, r: &Window, c: &Window) -> f32 {
        let size = match self.count_padding {
            true => r.whole * c.whole,
            false => (r.end - r.start) * (c.end - c.start),
        };
        1.0 / size.max(1) as f32
    }

    /// The means of every plane.
    fn mean(&self, x: &[f32], shape: &[usize], y: &mut [f32]) {
        let g = self.grid(shape);
        let (area, to) = ((g.from[0] * g.from[1]).max(1), (g.rows.len() * g.columns.len()).max(1));
        y.par_chunks_mut(to).zip(x.par_chunks(area)).with_min_len((16_384 / area).max(1)).for_each(|(y, x)| {
            let mut y = y.iter_mut();
            for r in &g.rows {
                for (c, y) in g.columns.iter().zip(&mut y) {
                    let rows = (r.start..r.end).map(|i| sum(&x[i * g.from[1]..][c.start..c.end]));
                    *y = rows.sum::<f32>() * self.weight(r, c);
                }
            }
        });
    }
}

/// Lanes first, so that long rows lose no digits.
fn sum(x: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut lanes = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail: f32 = chunks.remainder().iter().sum();
    for x in chunks {
        lanes.iter_mut().zip(x).for_each(|(s, x)| *s += x);
    }
    lanes.iter().sum::<f32>() + tail
}

impl Op for AveragePool {
    fn name(&self) -> &'static str {
        "average_pool"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        self.windows.output(x)
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let (n, y) = (numel(x[0]) as u64, self.output(x).map_or(0, |y| numel(&y)) as u64);
        Cost { flops: pass.count() * n, bytes: pass.count() * 4 * (n + y) }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let g = self.grid(x[0].shape);
        let (height, width) = (g.rows.len(), g.columns.len());
        for (at, y) in y.iter_mut().enumerate() {
            let (plane, r, c) = (at / (height * width), &g.rows[at / width % height], &g.columns[at % width]);
            let mut sum = Dual::ZERO;
            for i in r.start..r.end {
                for j in c.start..c.end {
                    sum += x[0].data[(plane * g.from[0] + i) * g.from[1] + j];
                }
            }
            let size = match self.count_padding {
                true => r.whole * c.whole,
                false => (r.end - r.start) * (c.end - c.start),
            };
            *y = sum / Dual::constant(size as f64);
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        self.mean(x[0].data, x[0].shape, y);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match dx[0] {
            Some(dx) => self.mean(dx, x[0].shape, dy),
            None => dy.fill(0.0),
        }
    }
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let Some(Cotangent { data, add }) = &mut gx[0] else { return };
        let (g, add) = (self.grid(x[0].shape), *add);
        let (area, to) = ((g.from[0] * g.from[1]).max(1), (g.rows.len() * g.columns.len()).max(1));
        let planes = data.par_chunks_mut(area).zip(gy.par_chunks(to)).with_min_len((16_384 / area).max(1));
        planes.for_each(|(gx, gy)| {
            if !add {
                gx.fill(0.0);
            }
            let mut gy = gy.iter();
            for r in &g.rows {
                for (c, gy) in g.columns.iter().zip(&mut gy) {
                    let v = gy * self.weight(r, c);
                    for i in r.start..r.end {
                        gx[i * g.from[1]..][c.start..c.end].iter_mut().for_each(|g| *g += v);
                    }
                }
            }
        });
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        let (op, windows, x, y) = (self.name(), &self.windows, io.x[0].shape, io.y.shape);
        let pool = Pool { op, windows, count_padding: self.count_padding, x, y, chosen: Ptr::NULL };
        match pass {
            Pass::Forward => pool.launch("forward", &io.x[0], &io.y, None, queue),
            Pass::Jvp => match &io.dx[0] {
                Some(dx) => pool.launch("forward", dx, &io.dy()?, None, queue),
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
