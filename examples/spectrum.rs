//! The largest eigenvalues of the metric that a network pulls back from its outputs.
//!
//! ```text
//! cargo run --release --example spectrum                                  # a small network of its own, on drawn digits
//! cargo run --release --example spectrum -- MODEL 'mnist:DIR?limit=64'    # a Hugging Face folder, on its data
//! ```
use fipk::Result;
use fipk::fip::observed::Observed;
use fipk::geometry::lanczos::Search;
use fipk::geometry::{Map, OnEngine, OutputMetric, Space, spectrum};

mod common;

fn main() -> Result<()> {
    let mut at = common::start("digits:64?seed=1")?;
    // The network over the data, in batches of 32, is a map from weights to outputs; J v and Jᵀ u come from the engine.
    let observed = Observed::new(&at.network, &*at.data, 32)?;
    let mut map = OnEngine::new(&mut *at.engine, &observed)?;
    println!("{} weights, {} outputs of {} examples", map.dim(), map.width(), map.samples());

    // g = (1/N) Jᵀ J is never formed: Lanczos' process needs products with it alone.
    let search = Search { pairs: 10, tolerance: 1e-5, products: 200, seed: 0, precision: map.precision() };
    let found = spectrum::top(&mut map, &at.w, OutputMetric::Euclidean, &search, false, |_| ())?;
    for (i, (value, residual)) in found.values.iter().zip(&found.residuals).enumerate() {
        println!("{:2}  {value:12.6}  ± {residual:.1e}", i + 1);
    }
    println!("{} products with the metric, converged: {}", found.products, found.converged);
    Ok(())
}
