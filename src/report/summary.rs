//! What a long vector is boiled down to before it is recorded: histograms of weights, quantiles of distances.
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Counts of weights in equal bins over `low..=high`, before and after, on the same bins.
///
/// Exact zeros are in no bin: after pruning their spike would hide everything else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    pub low: f64,
    pub high: f64,
    pub before: Vec<u64>,
    pub after: Vec<u64>,
}

impl Histogram {
    /// Bins that span the non-zero weights of both vectors; numbers that are not finite are counted nowhere.
    pub fn of(before: &[f32], after: &[f32], bins: usize) -> Self {
        let bins = bins.max(1);
        let counted = |value: &&f32| value.is_finite() && **value != 0.0;
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for &value in before.iter().chain(after).filter(counted) {
            low = low.min(f64::from(value));
            high = high.max(f64::from(value));
        }
        if low > high {
            return Self { low: 0.0, high: 0.0, before: vec![0; bins], after: vec![0; bins] };
        }
        if low == high {
            (low, high) = (low - 0.5 * low.abs(), high + 0.5 * high.abs());
        }
        let count = |values: &[f32]| {
            let mut counts = vec![0; bins];
            for &value in values.iter().filter(counted) {
                let bin = (f64::from(value) - low) / (high - low) * bins as f64;
                counts[(bin as usize).min(bins - 1)] += 1;
            }
            counts
        };
        Self { low, high, before: count(before), after: count(after) }
    }
}

/// A distribution in five numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub mean: f64,
    pub median: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Quantiles {
    /// Quantiles interpolate linearly between neighbours (NumPy's default). `what` names the values in an error.
    ///
    /// # Errors
    /// No values, or one that is not finite.
    pub fn of(what: &str, values: &[f64]) -> Result<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(first), Some(&max)) = (sorted.first(), sorted.last()) else {
            return Err(Error::data(what, "no values to take quantiles of", "give at least one example"));
        };
        // Of all that is not finite, total order leaves something at one of the two ends.
        if !first.is_finite() || !max.is_finite() {
            return Err(Error::not_finite(what, "a value", "check the networks and the data for NaN"));
        }
        let at = |share: f64| {
            let position = share * (sorted.len() - 1) as f64;
            let below = position as usize;
            let above = (below + 1).min(sorted.len() - 1);
            sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
        };
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        Ok(Self { mean, median: at(0.5), p90: at(0.9), p99: at(0.99), max })
    }
}
