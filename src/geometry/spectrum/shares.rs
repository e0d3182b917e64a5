//! How much of the metric's trace lies in which part of weight space.
use crate::Result;
use crate::engine::Vector;
use crate::geometry::gram::Gram;
use crate::geometry::map::OutputMetric;
use crate::geometry::network::{OnEngine, Samples};
use crate::geometry::space::Space;
use std::ops::Range;

/// E ‖x‖² over each of `ranges`, for x = (1/√N) Jᵀ A u with `probes` random u: an unbiased estimate of Σ g_ii there, since
/// E u uᵀ = I (Hutchinson 1990, with normal numbers). One product with Jᵀ a probe.
///
/// # Errors
/// What the map says.
pub fn traces<S: Samples>(
    map: &mut OnEngine<S>,
    w: &Vector,
    kind: OutputMetric,
    ranges: &[Range<usize>],
    probes: usize,
    seed: u64,
) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; ranges.len()];
    let mut gram = Gram::new(map, w, kind)?;
    let (mut u, mut x) = (gram.zeros()?, gram.map().zeros()?);
    for probe in 0..probes {
        // Streams beside those of the quadrature's starts.
        gram.normal(seed, (1 << 32) + probe as u64, &mut u)?;
        gram.pull(&u, &mut x)?;
        for (sum, range) in sums.iter_mut().zip(ranges) {
            *sum += gram.map().engine().dot(x, x, range.clone())? / probes as f64;
        }
    }
    gram.map().recycle(x);
    Ok(sums)
}
