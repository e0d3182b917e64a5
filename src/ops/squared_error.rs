//! Squared error: y = Σ_r w_r ‖z_r − t_r‖² / C, z and t [.., C], weights [..] -> [1]. With w = 1/N it is the
//! mean over all elements, as regression heads are trained in `transformers`.
use super::{Cost, Cotangent, DeviceIo, Op, Pass, Reads, row_loss};
use crate::dual::Dual;
use crate::gpu::Queue;
use crate::tensor::{Shape, View, numel};

/// Inputs: prediction, target, weights. A row of weight 0 adds exactly nothing. The weights are constants.
#[derive(Debug)]
pub struct SquaredError;

impl Op for SquaredError {
    fn name(&self) -> &'static str {
        "squared_error"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match x {
            [z, t, weights] if z == t && row_loss::fits(z, weights) => Ok(vec![1]),
            _ => Err(format!("wants prediction [.., C], target [.., C], weights [..]; got {x:?}")),
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
        Cost { flops: 3 * n, bytes: if pass == Pass::Forward { 8 } else { 16 } * n }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let (_, c) = x[0].rows_cols();
        y[0] = Dual::ZERO;
        for (i, (z, t)) in x[0].data.iter().zip(x[1].data).enumerate() {
            let w = x[2].data[i / c];
            if w.re != 0.0 {
                y[0] += w * (*z - *t) * (*z - *t) / Dual::constant(c as f64);
            }
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        let (_, c) = x[0].rows_cols();
        y[0] = row_loss::sum(&x[2], c, |r| differences(x, r).map(|d| d * d).sum::<f64>() / c as f64);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let (_, c) = x[0].rows_cols();
        let [dz, dt, None] = dx else { return dy.fill(f32::NAN) };
        let tangent = |d: &Option<&[f32]>, i: usize| d.map_or(0.0, |d| f64::from(d[i]));
        dy[0] = row_loss::sum(&x[2], c, |r| {
            let along =
                differences(x, r).enumerate().map(|(k, d)| d * (tangent(dz, r * c + k) - tangent(dt, r * c + k)));
            2.0 * along.sum::<f64>() / c as f64
        });
    }
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let (_, c) = x[0].rows_cols();
        for (i, sign) in [(0, 2.0), (1, -2.0)] {
            if let Some(g) = &mut gx[i] {
                row_loss::gradient(&x[2], c, gy, g, |r, slope| {
                    slope.iter_mut().zip(differences(x, r)).for_each(|(s, d)| *s = sign * d / c as f64);
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
        row_loss::pair_cuda("squared_error", ("squared_error", 0), pass, io, queue)
    }
}

/// z − t along row r.
fn differences<'a>(x: &[View<'a>], r: usize) -> impl Iterator<Item = f64> + use<'a> {
    let (_, c) = x[0].rows_cols();
    let (z, t) = (&x[0].data[r * c..][..c], &x[1].data[r * c..][..c]);
    z.iter().zip(t).map(|(&z, &t)| f64::from(z) - f64::from(t))
}
