//! The geometry of weight space against dense matrices in f64, on networks that are small enough for them.
#[path = "geometry/exact.rs"]
mod exact;
#[path = "geometry/geodesics.rs"]
mod geodesics;
#[path = "geometry/metric.rs"]
mod metric;
#[path = "geometry/spectra.rs"]
mod spectra;
#[path = "geometry/steps.rs"]
mod steps;
