//! The exact interval of a share that was counted (Clopper and Pearson 1934): it stays honest where nothing was counted.

/// Halvings of an interval of probabilities: to the last bits of a share.
const HALVINGS: usize = 100;

/// P(X ≤ k) of a binomial X of `n` trials with probability `p`, 0 < p < 1.
fn at_most(k: usize, n: usize, p: f64) -> f64 {
    let (yes, no) = (p.ln(), (-p).ln_1p());
    let (mut choices, mut total) = (0.0, 0.0);
    for i in 0..=k {
        total += (choices + i as f64 * yes + (n - i) as f64 * no).exp();
        choices += ((n - i) as f64 / (i + 1) as f64).ln();
    }
    total
}

/// The p with P(X ≤ k) = `share`, which falls as p rises; k < n.
fn solve(k: usize, n: usize, share: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        *(if at_most(k, n, middle) > share { &mut low } else { &mut high }) = middle;
    }
    0.5 * (low + high)
}

/// Where the probability lies, in at least `level` of all samples: `count` of `n` were seen. A count between whole numbers,
/// of shares of examples, is rounded outwards: of all shares with one mean, 0 and 1 scatter most.
pub fn interval(count: f64, n: usize, level: f64) -> (f64, f64) {
    let tail = 0.5 * (1.0 - level);
    let (least, most) = (count.floor() as usize, (count.ceil() as usize).min(n));
    let low = if least == 0 { 0.0 } else { solve(least - 1, n, 1.0 - tail) };
    let high = if most == n { 1.0 } else { solve(most, n, tail) };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn intervals_have_their_closed_forms() {
        // Nothing seen: (1 − p)ⁿ = 0.025. All seen: the same from the other side.
        for n in [1, 10, 300] {
            let bound = 1.0 - 0.025f64.powf(1.0 / n as f64);
            let (low, high) = interval(0.0, n, 0.95);
            assert!(low == 0.0 && (high - bound).abs() <= 1e-12, "{n}: {high} {bound}");
            let (low, high) = interval(n as f64, n, 0.95);
            assert!(high == 1.0 && (low - (1.0 - bound)).abs() <= 1e-12, "{n}: {low}");
        }
        // One of two: 2p(1 − p) + (1 − p)² = 0.025 gives p² = 0.975.
        let (low, high) = interval(1.0, 2, 0.95);
        assert!((high - 0.975f64.sqrt()).abs() <= 1e-12 && (low - (1.0 - high)).abs() <= 1e-12, "{low} {high}");
        // Shares are rounded outwards.
        assert_eq!(interval(2.5, 40, 0.95), (interval(2.0, 40, 0.95).0, interval(3.0, 40, 0.95).1));
    }

    #[test]
    fn rare_events_are_held_as_often_as_is_said() {
        // 1 % in samples of 60: more than half of them have none.
        let mut rng = Rng::new(11, 0);
        let mut held = 0;
        for _ in 0..400 {
            let count = (0..60).filter(|_| rng.uniform() < 0.01).count();
            let (low, high) = interval(count as f64, 60, 0.95);
            held += usize::from(low <= 0.01 && 0.01 <= high);
        }
        assert!(held >= 376, "{held} of 400");
    }
}
