//! A budget for the drift of outputs, and a certificate of what a network's drift was measured to be: statistics over
//! held-out examples, which promise nothing about other ones.
use super::evaluate::{Apart, KINDS};
use crate::ops::Distance;
use crate::rng::Rng;
use serde::Serialize;
use std::collections::BTreeMap;

mod binomial;
mod budget;
mod certificate;
mod half;
pub use budget::{Budget, Limit, Measure, Of};
pub use certificate::{Certificate, SecondOrder, Subject, second_order};
pub use half::{Half, Part};

/// Fewer examples than this say too little for a bootstrap to be believed.
pub const FEWEST: usize = 50;
/// Resamples behind an interval, and the share of them that lies in it.
pub const DRAWS: usize = 1000;
pub const LEVEL: f64 = 0.95;
/// The random stream of the resamples; the stream above it is that of the halves.
const STREAM: u64 = 0xD21F7;

/// What a measure was, and where its interval of [`LEVEL`] lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub value: f64,
    /// Of flips, Clopper and Pearson's; of distances, by the percentiles of [`DRAWS`] resamples of the examples. For a largest value it is as wide as the sample shows,
    /// and says nothing of what lies beyond.
    pub low: f64,
    pub high: f64,
}

/// A limit, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    pub limit: Limit,
    pub estimate: Estimate,
    /// Whether the value keeps the limit, and whether all of its interval does. NaN keeps none.
    pub kept: bool,
    pub surely: bool,
}

/// The mean or a quantile of values in order, smallest first; linear between neighbours, as NumPy has it. NaN for none, or
/// where one is not a number.
fn of(sorted: &[f64], which: Of) -> f64 {
    let share = match which {
        Of::Mean => return sorted.iter().sum::<f64>() / sorted.len() as f64,
        Of::Median => 0.5,
        Of::P90 => 0.9,
        Of::P99 => 0.99,
        Of::Max => 1.0,
    };
    quantile(sorted, share)
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    // In total order what is not a number stands at one of the two ends.
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return f64::NAN };
    if first.is_nan() || last.is_nan() {
        return f64::NAN;
    }
    let position = share * (sorted.len() - 1) as f64;
    let below = position as usize;
    let above = (below + 1).min(sorted.len() - 1);
    match below == above {
        true => sorted[below],
        false => sorted[below] + (position - below as f64) * (sorted[above] - sorted[below]),
    }
}

/// Of the values of examples, with its interval.
fn estimate(values: &[f64], which: Of, seed: u64) -> Estimate {
    let in_order = |mut x: Vec<f64>| {
        x.sort_by(f64::total_cmp);
        x
    };
    let value = of(&in_order(values.to_vec()), which);
    if !value.is_finite() {
        return Estimate { value, low: value, high: value };
    }
    // The same resamples of examples for every measure of one seed.
    let mut rng = Rng::new(seed, STREAM);
    let mut draw = || {
        let drawn = (0..values.len()).map(|_| values[rng.below(values.len())]).collect();
        of(&if which == Of::Mean { drawn } else { in_order(drawn) }, which)
    };
    let drawn = in_order((0..DRAWS).map(|_| draw()).collect());
    let tail = 0.5 * (1.0 - LEVEL);
    Estimate { value, low: quantile(&drawn, tail), high: quantile(&drawn, 1.0 - tail) }
}

/// Of shares in 0..=1, exactly: resamples of a sample without a flip have none either, however few examples there are.
fn share(values: &[f64]) -> Estimate {
    let count: f64 = values.iter().sum();
    let value = count / values.len() as f64;
    if !value.is_finite() {
        return Estimate { value, low: value, high: value };
    }
    let (low, high) = binomial::interval(count, values.len(), LEVEL);
    Estimate { value, low, high }
}

/// What the examples say of a measure.
pub fn measured(apart: &Apart, measure: Measure, seed: u64) -> Estimate {
    match measure {
        Measure::Flips => share(apart.flips.as_deref().unwrap_or(&[])),
        Measure::Distance(kind, which) => estimate(apart.of(kind), which, seed),
    }
}

/// Hold a budget against the examples.
pub fn hold(budget: &Budget, apart: &Apart, seed: u64) -> Vec<Held> {
    let each = |limit: &Limit| {
        let estimate = measured(apart, limit.measure, seed);
        Held {
            limit: limit.clone(),
            estimate,
            // Written so that NaN keeps nothing.
            kept: estimate.value <= limit.most,
            surely: estimate.value <= limit.most && estimate.high <= limit.most,
        }
    };
    budget.limits().iter().map(each).collect()
}

/// A distance's quantiles with their intervals, by name.
fn quantiles(apart: &Apart, seed: u64) -> BTreeMap<String, BTreeMap<&'static str, Estimate>> {
    let all = [Of::Mean, Of::Median, Of::P90, Of::P99, Of::Max];
    let each = |kind: &Distance| {
        let found = all.map(|which| (which.as_str(), measured(apart, Measure::Distance(*kind, which), seed)));
        (kind.to_string(), found.into_iter().collect())
    };
    KINDS.iter().map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_the_mean_as_often_as_they_say() {
        // 200 samples of 60 exponential numbers, whose mean is 1: an interval of 95 % misses it in 5 % of them, a few more
        // for so small and skewed a sample.
        let mut rng = Rng::new(3, 0);
        let mut held = 0;
        for sample in 0..200 {
            let values: Vec<f64> = (0..60).map(|_| -(1.0 - f64::from(rng.uniform())).ln()).collect();
            let found = estimate(&values, Of::Mean, sample);
            assert!(found.low <= found.value && found.value <= found.high, "{found:?}");
            held += usize::from(found.low <= 1.0 && 1.0 <= found.high);
        }
        assert!((176..=198).contains(&held), "{held} of 200");
    }

    #[test]
    fn no_flip_among_few_examples_keeps_no_small_limit() {
        let flips = |n: usize| Apart { flips: Some(vec![0.0; n]), ..Apart::default() };
        let budget: Budget = "flips<=0.5%".parse().unwrap();
        for (n, surely) in [(1, false), (100, false), (700, false), (800, true)] {
            let held = &hold(&budget, &flips(n), 0)[0];
            assert!(held.kept && held.surely == surely && held.estimate.value == 0.0, "{n}: {held:?}");
        }
    }

    #[test]
    fn quantiles_are_between_neighbours_and_nan_keeps_nothing() {
        let values = [4.0, 1.0, 3.0, 2.0, 0.0];
        let value = |which| estimate(&values, which, 0).value;
        assert_eq!((value(Of::Mean), value(Of::Median), value(Of::Max)), (2.0, 2.0, 4.0));
        assert!((value(Of::P90) - 3.6).abs() <= 1e-12, "{}", value(Of::P90));
        let budget: Budget = "kl<=1e300, flips<=100%".parse().unwrap();
        for broken in [vec![0.0, f64::NAN], vec![0.0, -f64::NAN], vec![], vec![f64::INFINITY, 0.0]] {
            let apart =
                Apart { distances: std::array::from_fn(|_| broken.clone()), flips: Some(broken), examples: vec![] };
            assert!(hold(&budget, &apart, 0).iter().all(|h| !h.kept && !h.surely), "{apart:?}");
        }
        let apart = Apart { distances: std::array::from_fn(|_| vec![0.5; 9]), flips: None, examples: vec![] };
        let held = hold(&budget, &apart, 0);
        assert!(held[0].surely && !held[1].kept, "{held:?}");
    }
}
