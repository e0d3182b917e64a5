//! Distances between two outputs (METHOD, "Output distances"): y = Σ_r w_r d(z_r, t_r), student z and teacher t
//! [.., C], weights [..] -> \[1\].
//!
//! p = softmax z and q = softmax t are only met as logarithms, in f64. Each d is exactly 0, with an exactly zero
//! gradient, at z = t, and keeps its digits near it: every sum there is one of squares, never a difference of
//! numbers close to 1.
use super::math::{beyond_linear, exp_f64 as exp};
use super::{Cost, Cotangent, DeviceIo, Op, Pass, Reads, row_loss, simd};
use crate::dual::Dual;
use crate::gpu::Queue;
use crate::tensor::{Shape, View, numel};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// As an op, its inputs are student, teacher and weights; a row of weight 0 adds exactly nothing, and the weights
/// are constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distance {
    /// ½ ‖z − t‖².
    Euclidean,
    /// −log Σ √(p q).
    Bhattacharyya,
    /// Σ q (log q − log p).
    Kl,
    /// 1 − Σ √(p q).
    Hellinger,
}

impl Distance {
    pub const ALL: [Self; 4] = [Self::Euclidean, Self::Bhattacharyya, Self::Kl, Self::Hellinger];

    /// The name that configurations and the command line use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Euclidean => "euclidean",
            Self::Bhattacharyya => "bhattacharyya",
            Self::Kl => "kl",
            Self::Hellinger => "hellinger",
        }
    }

    /// As `Kind` in kernels/distance.cu.
    const fn kind(self) -> u32 {
        match self {
            Self::Euclidean => 0,
            Self::Bhattacharyya => 1,
            Self::Kl => 2,
            Self::Hellinger => 3,
        }
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Distance {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|d| d.as_str() == name).ok_or_else(|| {
            Error::usage("distance", format!("there is no {name:?}"), "use euclidean, bhattacharyya, kl or hellinger")
        })
    }
}

/// Which of the two rows a gradient belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Student,
    Teacher,
}

/// d(z, t) of one row of logits each, of one length.
pub fn row(distance: Distance, z: &[f32], t: &[f32]) -> f64 {
    simd().dispatch(
        #[inline(always)]
        || {
            if distance == Distance::Euclidean {
                let half = sum(z.len(), |i| (f64::from(z[i]) - f64::from(t[i])).powi(2));
                return 0.5 * half;
            }
            let (p, q) = (log_softmax(z), log_softmax(t));
            match distance {
                Distance::Kl => kl(&p, &q),
                Distance::Hellinger => hellinger(&p, &q),
                Distance::Bhattacharyya | Distance::Euclidean => bhattacharyya(&p, &q),
            }
        },
    )
}

/// g = the gradient of [`row`] by the student's logits, or by the teacher's; all three of one length.
pub fn row_gradient(distance: Distance, side: Side, z: &[f32], t: &[f32], g: &mut [f64]) {
    simd().dispatch(
        #[inline(always)]
        || slopes(distance, side, z, t, g),
    );
}

#[inline(always)]
fn slopes(distance: Distance, side: Side, z: &[f32], t: &[f32], g: &mut [f64]) {
    if distance == Distance::Euclidean {
        let sign = if side == Side::Student { 1.0 } else { -1.0 };
        for (g, (&z, &t)) in g.iter_mut().zip(z.iter().zip(t)) {
            *g = sign * (f64::from(z) - f64::from(t));
        }
        return;
    }
    let (p, q) = (log_softmax(z), log_softmax(t));
    let pairs = g.iter_mut().zip(p.iter().zip(&q));
    match (distance, side) {
        (Distance::Kl, Side::Student) => {
            for (g, (&p, &q)) in pairs {
                *g = exp(p) - exp(q);
            }
        }
        (Distance::Kl, Side::Teacher) => {
            let kl = kl(&p, &q);
            for (g, (&p, &q)) in pairs {
                *g = exp(q) * ((q - p) - kl);
            }
        }
        // With r = √(p q) / Σ √(p q): −log Σ √(p q) has the slope ½ (p − r), and 1 − Σ √(p q) that times Σ √(p q).
        _ => {
            let b = bhattacharyya(&p, &q);
            let half = if distance == Distance::Hellinger { 0.5 * (-b).exp() } else { 0.5 };
            let own = if side == Side::Student { &p } else { &q };
            for ((g, &own), (&p, &q)) in g.iter_mut().zip(own).zip(p.iter().zip(&q)) {
                *g = half * (exp(own) - exp(0.5 * (p + q) + b));
            }
        }
    }
}

/// Sums that run side by side: two registers of AVX-512.
const LANES: usize = 16;

/// Σ f(i) for i < n, in interleaved sums that are added in a fixed order.
#[inline(always)]
fn sum(n: usize, f: impl Fn(usize) -> f64) -> f64 {
    let (mut sums, whole) = ([0.0; LANES], n / LANES * LANES);
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    let rest: f64 = (whole..n).fold(0.0, |s, i| s + f(i));
    sums.iter().sum::<f64>() + rest
}

/// z − log Σ exp z, shifted by the largest so that nothing overflows.
#[inline(always)]
fn log_softmax(z: &[f32]) -> Vec<f64> {
    let top = f64::from(z.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v)));
    let mut log_p: Vec<f64> = z.iter().map(|&v| f64::from(v) - top).collect();
    let log_sum = sum(log_p.len(), |i| exp(log_p[i])).ln();
    for v in &mut log_p {
        *v -= log_sum;
    }
    log_p
}

/// Σ q (log q − log p) as Σ (p − q − q log(p/q)), whose terms are all positive: Σ (p − q) is 0.
#[inline(always)]
fn kl(log_p: &[f64], log_q: &[f64]) -> f64 {
    let (p, q) = (&log_p[..log_q.len()], log_q);
    sum(q.len(), |i| {
        let (d, e) = (p[i] - q[i], exp(q[i]));
        // Where p/q is near 1, the series of e^d − 1 − d keeps the digits; far from it, it would not converge.
        let (near, far) = (e * (d * d * beyond_linear::<18>(d)), exp(p[i]) - e * (1.0 + d));
        if d.abs() < 1.0 { near } else { far }
    })
}

/// 1 − Σ √(p q) as ½ Σ (√p − √q)².
#[inline(always)]
fn hellinger(log_p: &[f64], log_q: &[f64]) -> f64 {
    let (p, q) = (&log_p[..log_q.len()], log_q);
    let squares = sum(q.len(), |i| {
        let difference = exp(0.5 * p[i]) - exp(0.5 * q[i]);
        difference * difference
    });
    0.5 * squares
}

/// −log Σ √(p q): from the Hellinger distance where the two are close, else by its definition.
#[inline(always)]
fn bhattacharyya(log_p: &[f64], log_q: &[f64]) -> f64 {
    let h = hellinger(log_p, log_q);
    if h < 0.5 {
        return -(-h).ln_1p();
    }
    let mean = |i: usize| 0.5 * (log_p[i] + log_q[i]);
    let top = (0..log_q.len()).map(mean).fold(f64::NEG_INFINITY, f64::max);
    -(sum(log_q.len(), |i| exp(mean(i) - top)).ln() + top)
}

impl Op for Distance {
    fn name(&self) -> &'static str {
        self.as_str()
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match x {
            [z, t, weights] if z == t && row_loss::fits(z, weights) => Ok(vec![1]),
            _ => Err(format!("wants student [.., C], teacher [.., C], weights [..]; got {x:?}")),
        }
    }
    fn reverse_reads(&self) -> Reads {
        Reads::inputs(&[0, 1, 2])
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        if pass == Pass::Dual {
            return self.cost(Pass::Forward, x) + self.cost(Pass::Jvp, x);
        }
        let n = numel(x[0]) as u64;
        let flops = if *self == Self::Euclidean { 3 } else { 60 };
        Cost { flops: flops * n, bytes: if pass == Pass::Forward { 8 } else { 16 } * n }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let (_, c) = x[0].rows_cols();
        let half = Dual::constant(0.5);
        let total = |terms: &[Dual]| terms.iter().fold(Dual::ZERO, |s, v| s + *v);
        y[0] = Dual::ZERO;
        for (r, w) in x[2].data.iter().enumerate().filter(|(_, w)| w.re != 0.0) {
            let (z, t) = (&x[0].data[r * c..][..c], &x[1].data[r * c..][..c]);
            let (lz, lt) = (Dual::log_sum_exp(z), Dual::log_sum_exp(t));
            let each =
                |f: &dyn Fn(Dual, Dual) -> Dual| -> Vec<Dual> { z.iter().zip(t).map(|(z, t)| f(*z, *t)).collect() };
            let roots = each(&|z, t| half * ((z - lz) + (t - lt)));
            let d = match self {
                Self::Euclidean => half * total(&each(&|z, t| (z - t) * (z - t))),
                Self::Bhattacharyya => -Dual::log_sum_exp(&roots),
                Self::Kl => total(&each(&|z, t| (t - lt).exp() * ((t - lt) - (z - lz)))),
                Self::Hellinger => Dual::ONE - Dual::log_sum_exp(&roots).exp(),
            };
            y[0] += *w * d;
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        let (_, c) = x[0].rows_cols();
        y[0] = row_loss::sum(&x[2], c, |r| row(*self, &x[0].data[r * c..][..c], &x[1].data[r * c..][..c]));
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let (_, c) = x[0].rows_cols();
        let &[dz, dt, None] = dx else { return dy.fill(f32::NAN) };
        dy[0] = row_loss::sum(&x[2], c, |r| {
            let mut slope = vec![0.0; c];
            [(Side::Student, dz), (Side::Teacher, dt)].iter().fold(0.0, |sum, (side, d)| {
                let Some(d) = d else { return sum };
                row_gradient(*self, *side, &x[0].data[r * c..][..c], &x[1].data[r * c..][..c], &mut slope);
                sum + slope.iter().zip(&d[r * c..]).map(|(s, &d)| s * f64::from(d)).sum::<f64>()
            })
        });
    }
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let (_, c) = x[0].rows_cols();
        for (i, side) in [(0, Side::Student), (1, Side::Teacher)] {
            if let Some(g) = &mut gx[i] {
                row_loss::gradient(&x[2], c, gy, g, |r, slope| {
                    row_gradient(*self, side, &x[0].data[r * c..][..c], &x[1].data[r * c..][..c], slope);
                });
            }
        }
        if let Some(g) = &mut gx[2] {
            g.data.fill(f32::NAN);
        }
    }
    fn exact(&self) -> bool {
        true
    }
    fn scratch(&self, pass: Pass, x: &[&[usize]]) -> usize {
        row_loss::scratch(pass, x[0])
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        row_loss::pair_cuda(self.as_str(), ("distance", self.kind()), pass, io, queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for d in Distance::ALL {
            assert_eq!(d.to_string().parse::<Distance>().ok(), Some(d));
            assert_eq!(serde_json::to_string(&d).ok(), Some(format!("\"{d}\"")));
            assert_eq!(serde_json::from_str::<Distance>(&format!("\"{d}\"")).ok(), Some(d));
        }
        let unknown = "cosine".parse::<Distance>().map_err(|e| (e.exit_code(), e.to_string()));
        assert!(matches!(&unknown, Err((2, e)) if e.contains("cosine") && e.contains("hellinger")), "{unknown:?}");
    }
}
