//! The spectrum in pictures: eigenvalues by rank, and their density over decades.
use super::Found;
use crate::Result;
use crate::geometry::spectrum::marchenko_pastur::MarchenkoPastur;
use crate::report::plots::{Line, LinePlot, Series};

const SIZE: (u32, u32) = (720, 400);
/// Of the smoothing, in decades.
const WIDTH: f64 = 0.08;

pub fn all(found: &Found) -> Result<Vec<(&'static str, String)>> {
    let mut plots = Vec::new();
    let values: Vec<f64> = match found.exact.is_empty() {
        true => found.largest.iter().map(|e| e.value).collect(),
        false => found.exact.clone(),
    };
    if !values.is_empty() {
        plots.push(("spectrum.svg", ranks(&values, found.invariant.epsilon).svg(SIZE)?));
    }
    if !found.weighed.is_empty() {
        plots.push(("density.svg", density(&found.weighed, found.marchenko_pastur).svg(SIZE)?));
    }
    Ok(plots)
}

fn ranks(values: &[f64], epsilon: f64) -> LinePlot {
    let points: Vec<(f64, f64)> = values.iter().enumerate().map(|(i, &v)| ((i + 1) as f64, v)).collect();
    let last = points.len() as f64;
    let mut eigenvalues = Series::new("eigenvalues", points);
    eigenvalues.markers = values.len() <= 60;
    let mut threshold = Series::new("invariant below", vec![(1.0, epsilon), (last, epsilon)]);
    threshold.line = Line::Dashed;
    threshold.color = Some(6);
    LinePlot {
        x_label: "rank".into(),
        y_label: "eigenvalue of the metric".into(),
        log_y: true,
        series: vec![eigenvalues, threshold],
        ..LinePlot::default()
    }
}

/// Dimensions per decade, smoothed by a Gaussian of [`WIDTH`] decades.
fn density(nodes: &[(f64, f64)], law: Option<MarchenkoPastur>) -> LinePlot {
    let top = nodes.iter().map(|n| n.0).fold(0.0, f64::max);
    // What f32 products cannot tell from zero is left out.
    let positive: Vec<(f64, f64)> = nodes.iter().filter(|n| n.0 > top * 1e-8).map(|n| (n.0.log10(), n.1)).collect();
    let low = positive.iter().map(|n| n.0).fold(f64::INFINITY, f64::min) - 4.0 * WIDTH;
    let high = top.log10() + 4.0 * WIDTH;
    let at = |i: u32| low + (high - low) * f64::from(i) / 400.0;
    let bell = |x: f64| (-0.5 * x * x).exp() / (std::f64::consts::TAU.sqrt() * WIDTH);
    let smooth = |x: f64| positive.iter().map(|&(v, weight)| weight * bell((x - v) / WIDTH)).sum::<f64>();
    let mut series = vec![Series::new("eigenvalues", (0..=400).map(|i| (at(i), smooth(at(i)))).collect())];
    if let Some(law) = law {
        // Above a ratio of 1 the law has the rest of its mass at 0.
        let count = nodes.iter().map(|n| n.1).sum::<f64>() / law.ratio.max(1.0);
        let (from, to) = law.edges();
        let edge = |i: u32| (from.max(to * 1e-8) * (to / from.max(to * 1e-8)).powf(f64::from(i) / 400.0)).min(to);
        // Per decade: dλ = λ ln 10 d(log₁₀ λ).
        let points = (0..=400).map(edge).map(|x| (x.log10(), count * law.density(x) * x * std::f64::consts::LN_10));
        let mut overlay = Series::new("Marchenko-Pastur, fitted", points.collect());
        overlay.line = Line::Dashed;
        series.push(overlay);
    }
    LinePlot {
        x_label: "log10 of the eigenvalue".into(),
        y_label: "dimensions per decade".into(),
        series,
        ..LinePlot::default()
    }
}
