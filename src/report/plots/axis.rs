//! An axis, linear or logarithmic, with ticks at round numbers.
use crate::report::numbers;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use std::ops::Range;

/// A closed range that is never empty.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// Around all values, with `margin` (a share of the span) on both sides; values that the axis cannot show
    /// (not finite, or not positive on a logarithmic one) are passed over.
    pub fn around(values: impl Iterator<Item = f64>, log: bool, margin: f64) -> Self {
        let shown = values.filter(|&value| shows(log, value)).map(|value| if log { value.log10() } else { value });
        let (mut low, mut high) = shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let least = if log { 0.1 } else { (low.abs().max(high.abs()) * 1e-6).max(f64::MIN_POSITIVE) };
        if high - low < least {
            let room = if log { 0.5 } else { (low.abs() * 0.1).max(least) };
            let room = if room > 1e-300 { room } else { 1.0 };
            (low, high) = (low - room, high + room);
        }
        let room = (high - low) * margin;
        let back = |value: f64| if log { 10f64.powf(value) } else { value };
        Self { low: back(low - room), high: back(high + room), log }
    }

    /// The linear axis from `low` to `high`.
    pub fn exactly(low: f64, high: f64) -> Self {
        if high > low { Self { low, high, log: false } } else { Self::around([low].into_iter(), false, 0.0) }
    }

    /// The logarithmic axis from `low` > 0 to `high`.
    pub fn decades(low: f64, high: f64) -> Self {
        Self { low, high: high.max(low * 2.0), log: true }
    }

    /// Whether a value has a place on the axis or beside it.
    pub fn shows(&self, value: f64) -> bool {
        shows(self.log, value)
    }

    pub fn label(&self, at: f64) -> String {
        numbers::tick(at)
    }

    /// At most about `most` round numbers within the axis.
    pub fn ticks(&self, most: usize) -> Vec<f64> {
        let most = most.max(2);
        if !self.log {
            return linear(self.low, self.high, most);
        }
        let (from, to) = (self.low.log10().ceil() as i32, self.high.log10().floor() as i32);
        let decades = (to - from + 1).max(0) as usize;
        if decades >= 3 {
            let stride = decades.div_ceil(most).max(1);
            return (from..=to).step_by(stride).map(|exponent| 10f64.powi(exponent)).collect();
        }
        let multiples = |factors: &[f64]| -> Vec<f64> {
            let all = (from - 1..=to).flat_map(|exponent| factors.iter().map(move |f| f * 10f64.powi(exponent)));
            all.filter(|&at| (self.low..=self.high).contains(&at)).collect()
        };
        let ticks = [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]].map(multiples);
        match ticks.into_iter().find(|ticks| ticks.len() <= most) {
            Some(ticks) if ticks.len() >= 2 => ticks,
            _ => linear(self.low, self.high, most),
        }
    }
}

fn shows(log: bool, value: f64) -> bool {
    value.is_finite() && value.abs() < 1e100 && (!log || value > 1e-100)
}

/// Multiples of 1, 2 or 5 times a power of ten, at most `most` of them where possible.
fn linear(low: f64, high: f64, most: usize) -> Vec<f64> {
    let rough = (high - low) / most as f64;
    let unit = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * unit).into_iter().find(|&step| step >= rough * 0.999);
    let step = step.unwrap_or(rough);
    let first = (low / step - 1e-9).ceil();
    let count = (((high / step + 1e-9).floor() - first) as i64).clamp(0, 50);
    // Through the count of steps, so that 0.30000000000000004 reads 0.3 and zero is zero.
    (0..=count).map(|index| (first + index as f64) * step).collect()
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, &value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = match self.log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        // Clamped, so that a value far outside cannot leave the picture's numbers.
        from + (f64::from(to - from) * share.clamp(-1.0, 2.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.ticks(hint.max_num_points())
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(linear(0.0, 1.0, 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(Axis::exactly(-1.0, 1.0).ticks(4), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert_eq!(Axis::decades(0.5, 2e4).ticks(5), [1.0, 10.0, 100.0, 1e3, 1e4]);
        assert_eq!(Axis::decades(0.15, 0.9).ticks(5), [0.2, 0.5]);
    }

    #[test]
    fn degenerate_values_still_span_something() {
        let cases: [&[f64]; 5] = [&[], &[0.0], &[3.0, 3.0], &[f64::NAN, 1e-8], &[-5.0, f64::INFINITY]];
        for values in cases {
            for log in [false, true] {
                let axis = Axis::around(values.iter().copied(), log, 0.05);
                assert!(axis.high > axis.low && axis.low.is_finite() && axis.high.is_finite(), "{values:?} {axis:?}");
                let ticks = axis.ticks(5);
                assert!((1..=8).contains(&ticks.len()), "{values:?} {log} {axis:?} {ticks:?}");
            }
        }
    }
}
