//! Mean, or biased variance, of each channel of x [N, C, ..]: \[C\]. What a batch normalisation in training divides by.
use super::channels::{Sum, planes, scratch, spread, sums, total, variance};
use super::planes::{Planes, sum2};
use super::{Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads, simd};
use crate::dual::Dual;
use crate::gpu::{Dtype, Ptr, Queue};
use crate::tensor::{Shape, View, numel};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Mean,
    /// (1/n) Σ (x − mean)².
    Variance,
}

impl Moment {
    fn planes(x: &[View]) -> Planes {
        Planes::of(x[0].shape).unwrap_or(Planes { batch: 0, channels: 1, area: 1 })
    }
}

/// The mean of each channel of `x`.
fn means(p: Planes, x: &[f32]) -> Vec<f64> {
    let sums = p.sums(|_, plane| {
        let x = p.plane(x, plane);
        sum2(x, x, |x, _| [x, 0.0])
    });
    sums.iter().map(|s| s[0] / p.count() as f64).collect()
}

impl Op for Moment {
    fn name(&self) -> &'static str {
        match self {
            Self::Mean => "channel_mean",
            Self::Variance => "channel_variance",
        }
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match *x {
            [&[_, c, ..]] => Ok(vec![c]),
            _ => Err(format!("wants x [N, C, ..]; got {x:?}")),
        }
    }
    /// The means that a variance is about, and after them what they lose as f32: of two numbers far from zero but near each
    /// other, x less a rounded mean would be mostly rounding.
    fn saved(&self, x: &[&[usize]]) -> usize {
        if *self == Self::Variance { 2 * x[0][1] } else { 0 }
    }
    fn reverse_reads(&self) -> Reads {
        if *self == Self::Variance { Reads::inputs(&[0]) } else { Reads::NOTHING }
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let n = numel(x[0]) as u64;
        match (self, pass) {
            (_, Pass::Dual) => self.cost(Pass::Forward, x) + self.cost(Pass::Jvp, x),
            (Self::Mean, _) => Cost { flops: n, bytes: 4 * n },
            (Self::Variance, Pass::Forward) => Cost { flops: 4 * n, bytes: 8 * n },
            (Self::Variance, _) => Cost { flops: 3 * n, bytes: 8 * n },
        }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let Some(p) = Planes::of(x[0].shape) else { return };
        let n = Dual::constant(p.count() as f64);
        for (c, y) in y.iter_mut().enumerate() {
            let all = || (0..p.batch).flat_map(move |b| p.plane(x[0].data, b * p.channels + c));
            let mean = all().fold(Dual::ZERO, |s, x| s + *x) / n;
            *y = match self {
                Self::Mean => mean,
                Self::Variance => all().fold(Dual::ZERO, |s, x| s + (*x - mean) * (*x - mean)) / n,
            };
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], saved: &mut [f32]) {
        let (p, x) = (Self::planes(x), x[0].data);
        let means = means(p, x);
        if *self == Self::Mean {
            y.iter_mut().zip(means).for_each(|(y, m)| *y = m as f32);
            return;
        }
        let (high, low) = saved.split_at_mut(means.len());
        for ((high, low), mean) in high.iter_mut().zip(low).zip(&means) {
            *high = *mean as f32;
            *low = (mean - f64::from(*high)) as f32;
        }
        // What the mean loses as an f32 comes off again: Σ (x − m)² − n (mean − m)².
        let sums = p.sums(|c, plane| {
            let (x, mean) = (p.plane(x, plane), means[c] as f32);
            sum2(x, x, |x, _| [(x - mean) * (x - mean), x - mean])
        });
        let n = p.count() as f64;
        for (y, [squares, rest]) in y.iter_mut().zip(sums) {
            *y = (squares / n - (rest / n) * (rest / n)) as f32;
        }
    }
    fn jvp(&self, x: &[View], _: &[f32], saved: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let (p, Some(dx)) = (Self::planes(x), dx[0]) else { return dy.fill(0.0) };
        match self {
            Self::Mean => dy.iter_mut().zip(means(p, dx)).for_each(|(dy, m)| *dy = m as f32),
            Self::Variance => {
                let sums = p.sums(|c, plane| {
                    let (mean, rest) = (saved[c], saved[p.channels + c]);
                    sum2(p.plane(x[0].data, plane), p.plane(dx, plane), |x, d| [(x - mean - rest) * d, 0.0])
                });
                dy.iter_mut().zip(sums).for_each(|(dy, s)| *dy = (2.0 * s[0] / p.count() as f64) as f32);
            }
        }
    }
    fn vjp(&self, x: &[View], _: &[f32], saved: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let (p, arch) = (Self::planes(x), simd());
        let Some(Cotangent { data, add }) = &mut gx[0] else { return };
        let add = *add;
        p.each(data, |c, plane, gx| {
            let each = gy[c] / p.count() as f32;
            match self {
                Self::Mean if add => gx.iter_mut().for_each(|g| *g += each),
                Self::Mean => gx.fill(each),
                Self::Variance => {
                    let (x, twice) = (p.plane(x[0].data, plane), 2.0 * each);
                    let (mean, rest) = (saved[c], saved[p.channels + c]);
                    arch.dispatch(
                        #[inline(always)]
                        || {
                            for (g, x) in gx.iter_mut().zip(x) {
                                // What is not added to may hold anything, a NaN too.
                                let old = if add { *g } else { 0.0 };
                                *g = twice.mul_add(x - mean - rest, old);
                            }
                        },
                    );
                }
            }
        });
    }
    /// Statistics keep their digits: what they are taken from is many numbers, and they are few.
    fn exact(&self) -> bool {
        true
    }
    fn scratch(&self, pass: Pass, x: &[&[usize]]) -> usize {
        if pass == Pass::Vjp { 0 } else { scratch(x[0]) }
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        match pass {
            Pass::Forward => self.forward_on(io, queue),
            Pass::Jvp => self.jvp_on(io, queue),
            Pass::Dual => super::in_turn(self, io, queue),
            Pass::Vjp => {
                let (gy, about) = (io.dy()?.stored(Dtype::F32, self.name(), "gy")?, about(io));
                let Some(gx) = &io.gx[0] else { return Ok(()) };
                spread((*self == Self::Variance).then_some((&io.x[0], about)), gy, gx, self.name(), queue)
            }
        }
    }
}

/// Where the means that a variance is about are saved, and what they lose as f32.
fn about(io: &DeviceIo) -> [Ptr; 2] {
    let channels = io.x[0].shape[1];
    [io.saved, io.saved.offset(4 * channels)]
}

impl Moment {
    fn forward_on(&self, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        let (p, y) = (planes(&io.x[0], self.name())?, io.y.stored(Dtype::F32, self.name(), "y")?);
        let (once, n) = (1.0, p.count() as f64);
        sums(&Sum::Plain(&io.x[0]), self.name(), queue)?;
        if *self == Self::Mean {
            return total(p, (once, n), y, Ptr::NULL, false, queue);
        }
        let [mean, rest] = about(io);
        total(p, (once, n), mean, rest, false, queue)?;
        sums(&Sum::Squares(&io.x[0], mean), self.name(), queue)?;
        variance(p, y, queue)
    }

    fn jvp_on(&self, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        let dy: DeviceTensor = io.dy()?;
        let Some(dx) = &io.dx[0] else { return dy.zero(queue) };
        let (p, dy) = (planes(dx, self.name())?, dy.stored(Dtype::F32, self.name(), "dy")?);
        let (sum, factor) = match self {
            Self::Mean => (Sum::Plain(dx), 1.0),
            Self::Variance => (Sum::Products(&io.x[0], dx, about(io)), 2.0),
        };
        sums(&sum, self.name(), queue)?;
        total(p, (factor, p.count() as f64), dy, Ptr::NULL, false, queue)
    }
}
