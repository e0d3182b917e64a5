//! What the losses share: Σ_r w_r ℓ_r over rows of scores, one constant weight w_r a row, summed in f64 in a
//! fixed order. A caller's weights say what the sum is: 1/N for N real rows makes a mean, 0 leaves padding out.
//!
//! The weights have no derivative: asked for one, a loss answers NaN, which no caller can overlook.
use super::{Cotangent, rows_per_task};
use crate::tensor::View;
use rayon::prelude::*;

/// The shape rule's part that concerns weights (and labels): `per_row` is `scores` [.., C] without its last axis.
pub(super) fn fits(scores: &[usize], per_row: &[usize]) -> bool {
    matches!(scores, [lead @ .., _] if lead == per_row)
}

/// Σ_r w_r f(r); a row of weight 0 is not looked at.
pub(super) fn sum(weights: &View, cols: usize, f: impl Fn(usize) -> f64 + Sync) -> f32 {
    let rows = rows_per_task(cols);
    let task = |(task, weights): (usize, &[f32])| {
        let rows = weights.iter().enumerate().filter(|(_, w)| **w != 0.0);
        rows.fold(0.0, |sum, (i, w)| sum + f64::from(*w) * f(task * rows_per_task(cols) + i))
    };
    let partial: Vec<f64> = weights.data.par_chunks(rows).enumerate().map(task).collect();
    partial.iter().fold(0.0, |sum, p| sum + p) as f32
}

/// Row r of g (+)= gy w_r f(r), where f fills a row with dℓ_r/dx_r; a row of weight 0 gets zeros (or nothing).
pub(super) fn gradient(
    weights: &View,
    cols: usize,
    gy: &[f32],
    g: &mut Cotangent,
    f: impl Fn(usize, &mut [f64]) + Sync,
) {
    let (rows, add, gy) = (rows_per_task(cols), g.add, f64::from(gy[0]));
    g.data.par_chunks_mut(rows * cols).zip(weights.data.par_chunks(rows)).enumerate().for_each(
        |(task, (g, weights))| {
            let mut slope = vec![0.0; cols];
            for (i, (g, &w)) in g.chunks_mut(cols).zip(weights).enumerate() {
                if w != 0.0 {
                    f(task * rows + i, &mut slope);
                    let scaled = slope.iter().map(|v| (gy * f64::from(w) * v) as f32);
                    g.iter_mut().zip(scaled).for_each(|(g, v)| *g = if add { *g + v } else { v });
                } else if !add {
                    g.fill(0.0);
                }
            }
        },
    );
}
