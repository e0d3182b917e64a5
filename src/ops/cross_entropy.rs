//! Cross-entropy: y = Σ_r w_r (log Σ_k exp z_rk − z_r,label), z [.., C], labels [..], weights [..] -> \[1\].
use super::{Cost, Cotangent, DeviceIo, Op, Pass, Reads, row_loss, rows_per_task};
use crate::dual::Dual;
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::tensor::{Element, Shape, View, rows_cols};
use crate::{Error, Result};
use rayon::prelude::*;

/// Inputs: logits, labels (indices), weights. A row of weight 0 adds exactly nothing, whatever its label or
/// logits; the label of any other is in 0..C. The weights are constants.
#[derive(Debug)]
pub struct CrossEntropy;

/// As `CrossEntropyArgs` in kernels/loss.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct CrossEntropyArgs {
    z: Ptr,
    labels: Ptr,
    weights: Ptr,
    saved: Ptr,
    dz: Ptr,
    gy: Ptr,
    out: Ptr,
    rows: u64,
    cols: u64,
    add: u64,
}
impl Args for CrossEntropyArgs {}
const _: () = assert!(size_of::<CrossEntropyArgs>() == 80);

/// Whether every label that counts is one of `classes`.
///
/// # Errors
/// [`Error::Data`] naming the first label that is not, and its row.
pub fn check(labels: &[i32], weights: &[f32], classes: usize) -> Result<()> {
    let outside = |label: i32| usize::try_from(label).map_or(true, |y| y >= classes);
    match labels.iter().zip(weights).position(|(&y, &w)| w != 0.0 && outside(y)) {
        None => Ok(()),
        Some(row) => Err(Error::data(
            format!("label of row {row}"),
            format!("wanted 0 to {}, got {}", classes.saturating_sub(1), labels[row]),
            "the model's number of labels must cover those of the data",
        )),
    }
}

/// Saved a row: the largest logit m, and log Σ exp(z − m). Apart, as their sum would round away the second.
const SAVED: usize = 2;

/// softmax(z)_k from a row's saved numbers.
fn probability(z: f32, saved: &[f32]) -> f64 {
    (f64::from(z) - f64::from(saved[0]) - f64::from(saved[1])).exp()
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match x {
            [z, labels, weights] if row_loss::fits(z, labels) && row_loss::fits(z, weights) => Ok(vec![1]),
            _ => Err(format!("wants logits [.., C], labels [..], weights [..]; got {x:?}")),
        }
    }
    fn element(&self, i: usize) -> Element {
        if i == 1 { Element::Index } else { Element::Real }
    }
    fn check(&self, x: &[View]) -> Result<()> {
        check(x[1].indices(), x[2].data, rows_cols(x[0].shape).1)
    }
    fn saved(&self, x: &[&[usize]]) -> usize {
        SAVED * rows_cols(x[0]).0
    }
    fn reverse_reads(&self) -> Reads {
        Reads::inputs(&[0, 1, 2])
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let (rows, cols) = rows_cols(x[0]);
        let (n, per_row) = ((rows * cols) as u64, rows as u64);
        match pass {
            Pass::Forward => Cost { flops: 20 * n, bytes: 4 * (n + 4 * per_row) },
            Pass::Jvp | Pass::Vjp => Cost { flops: 20 * n, bytes: 4 * (2 * n + 4 * per_row) },
            Pass::Dual => self.cost(Pass::Forward, x) + self.cost(Pass::Jvp, x),
        }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let (_, c) = x[0].rows_cols();
        y[0] = Dual::ZERO;
        for (r, w) in x[2].data.iter().enumerate().filter(|(_, w)| w.re != 0.0) {
            let z = &x[0].data[r * c..][..c];
            y[0] += *w * (Dual::log_sum_exp(z) - z[x[1].data[r].re as usize]);
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], saved: &mut [f32]) {
        let (_, c) = x[0].rows_cols();
        let rows = rows_per_task(c);
        let (z, labels, weights) = (x[0].data, x[1].indices(), x[2].data);
        saved.par_chunks_mut(SAVED * rows).zip(z.par_chunks(c * rows)).zip(weights.par_chunks(rows)).for_each(
            |((saved, z), weights)| {
                for ((saved, z), &w) in saved.chunks_mut(SAVED).zip(z.chunks(c)).zip(weights) {
                    saved.fill(0.0);
                    if w != 0.0 {
                        let top = z.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
                        let sum: f64 = z.iter().map(|&v| (f64::from(v) - f64::from(top)).exp()).sum();
                        saved.copy_from_slice(&[top, sum.ln() as f32]);
                    }
                }
            },
        );
        y[0] = row_loss::sum(&x[2], c, |r| {
            let saved = &saved[SAVED * r..];
            f64::from(saved[0]) - f64::from(z[r * c..][..c][labels[r] as usize]) + f64::from(saved[1])
        });
    }
    fn jvp(&self, x: &[View], _: &[f32], saved: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let (_, c) = x[0].rows_cols();
        dy[0] = match dx {
            [_, _, Some(_)] => f32::NAN,
            [Some(dz), ..] => row_loss::sum(&x[2], c, |r| {
                let (z, dz, saved) = (&x[0].data[r * c..][..c], &dz[r * c..][..c], &saved[SAVED * r..]);
                let mean: f64 = z.iter().zip(dz).map(|(&z, &dz)| probability(z, saved) * f64::from(dz)).sum();
                mean - f64::from(dz[x[1].indices()[r] as usize])
            }),
            _ => 0.0,
        };
    }
    fn vjp(&self, x: &[View], _: &[f32], saved: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let (_, c) = x[0].rows_cols();
        if let Some(g) = &mut gx[0] {
            row_loss::gradient(&x[2], c, gy, g, |r, slope| {
                let (z, saved) = (&x[0].data[r * c..], &saved[SAVED * r..]);
                slope.iter_mut().zip(z).for_each(|(s, &z)| *s = probability(z, saved));
                slope[x[1].indices()[r] as usize] -= 1.0;
            });
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
        const NAME: &str = "cross_entropy";
        let (z, (rows, cols)) = (&io.x[0], io.x[0].rows_cols());
        let mut args = CrossEntropyArgs {
            z: z.at,
            labels: io.x[1].at,
            weights: io.x[2].stored(Dtype::F32, NAME, "weights")?,
            saved: io.saved,
            out: queue.scratch,
            rows: rows as u64,
            cols: cols as u64,
            ..bytemuck::Zeroable::zeroed()
        };
        match pass {
            Pass::Forward => {
                row_loss::launch("cross_entropy_forward", z, &args, queue)?;
                row_loss::sum_values(&io.y, rows, queue)
            }
            Pass::Jvp => {
                let dy = io.dy()?;
                match (&io.dx[0], &io.dx[2]) {
                    (_, Some(_)) => dy.fill(f32::NAN, queue),
                    (None, None) => dy.zero(queue),
                    (Some(dz), None) => {
                        args.dz = dz.stored(z.dtype, NAME, "dz")?;
                        row_loss::launch("cross_entropy_jvp", z, &args, queue)?;
                        row_loss::sum_values(&dy, rows, queue)
                    }
                }
            }
            Pass::Vjp => {
                if let Some(g) = &io.gx[0] {
                    (args.out, args.add) = (g.to.stored(z.dtype, NAME, "gz")?, g.add.into());
                    args.gy = io.dy()?.stored(Dtype::F32, NAME, "gy")?;
                    row_loss::launch("cross_entropy_vjp", z, &args, queue)?;
                }
                row_loss::no_derivative(io, queue)
            }
            Pass::Dual => super::in_turn(self, io, queue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_count_must_be_classes() {
        assert!(check(&[0, 2, -100], &[0.5, 0.5, 0.0], 3).is_ok());
        for (labels, want) in [([0, 3, 0], "got 3"), ([0, -100, 0], "got -100")] {
            let error = check(&labels, &[0.5, 0.5, 0.0], 3).map_err(|e| e.to_string());
            assert!(matches!(&error, Err(e) if e.contains(want) && e.contains("row 1")), "{error:?}");
        }
    }
}
