//! Tensors [N, C, ..] seen as N · C planes: sums a channel, and maps with constants a channel.
use super::simd;
use crate::tensor::numel;
use rayon::prelude::*;

/// Samples, channels, and the pixels of one plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planes {
    pub batch: usize,
    pub channels: usize,
    pub area: usize,
}

/// Floats summed in f32 before they are added up in f64.
const RUN: usize = 512;
const LANES: usize = 16;

impl Planes {
    pub fn of(shape: &[usize]) -> Option<Self> {
        match *shape {
            [batch, channels, ref rest @ ..] => Some(Self { batch, channels, area: numel(rest) }),
            _ => None,
        }
    }

    /// Numbers a channel has.
    pub fn count(self) -> usize {
        self.batch * self.area
    }

    /// Planes a task takes: enough to pay for the hand-over, whatever the number of threads.
    fn per_task(self) -> usize {
        (16_384 / self.area.max(1)).max(1)
    }

    /// y[plane] = f(channel, plane, y[plane]) in parallel.
    pub fn each(self, y: &mut [f32], f: impl Fn(usize, usize, &mut [f32]) + Sync) {
        let (area, task) = (self.area.max(1), self.per_task());
        y.par_chunks_mut(area * task).enumerate().for_each(|(at, y)| {
            for (i, y) in y.chunks_mut(area).enumerate() {
                let plane = at * task + i;
                f(plane % self.channels, plane, y);
            }
        });
    }

    /// Two numbers a channel: the sums over its planes of what `f(channel, plane)` gives, in the planes' order.
    pub fn sums(self, f: impl Fn(usize, usize) -> [f64; 2] + Sync) -> Vec<[f64; 2]> {
        let planes = self.batch * self.channels;
        let task = self.per_task();
        let parts: Vec<[f64; 2]> =
            (0..planes).into_par_iter().with_min_len(task).map(|plane| f(plane % self.channels, plane)).collect();
        self.add_up(&parts)
    }

    /// Sums a plane added up a channel.
    pub fn add_up(self, parts: &[[f64; 2]]) -> Vec<[f64; 2]> {
        let mut sums = vec![[0.0; 2]; self.channels];
        for sample in parts.chunks(self.channels.max(1)) {
            for (sum, part) in sums.iter_mut().zip(sample) {
                sum[0] += part[0];
                sum[1] += part[1];
            }
        }
        sums
    }

    pub fn plane<T>(self, x: &[T], plane: usize) -> &[T] {
        &x[plane * self.area..][..self.area]
    }
}

/// Σ f(a_i, b_i) of two numbers each, in a fixed order: lanes of f32 over short runs, f64 over the runs.
pub(crate) fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> [f32; 2]) -> [f64; 2] {
    simd().dispatch(
        #[inline(always)]
        || {
            let mut total = [0.0f64; 2];
            for (a, b) in a.chunks(RUN).zip(b.chunks(RUN)) {
                let (mut first, mut second) = ([0.0f32; LANES], [0.0f32; LANES]);
                let (xs, ys) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
                let rest = xs.remainder().iter().zip(ys.remainder());
                for (x, y) in xs.zip(ys) {
                    for i in 0..LANES {
                        let [p, q] = f(x[i], y[i]);
                        first[i] += p;
                        second[i] += q;
                    }
                }
                for (i, (x, y)) in rest.enumerate() {
                    let [p, q] = f(*x, *y);
                    first[i] += p;
                    second[i] += q;
                }
                for i in 0..LANES {
                    total[0] += f64::from(first[i]);
                    total[1] += f64::from(second[i]);
                }
            }
            total
        },
    )
}
