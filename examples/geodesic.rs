//! A geodesic from a network in a random direction beside the straight line: the outputs keep their speed on the one and
//! not on the other.
//!
//! ```text
//! cargo run --release --example geodesic                                  # a small network of its own, on drawn digits
//! cargo run --release --example geodesic -- MODEL 'mnist:DIR?limit=16'    # a Hugging Face folder, on its data
//! ```
use fipk::Result;
use fipk::fip::observed::Observed;
use fipk::geometry::geodesic::{Control, Geodesic, speeds};
use fipk::geometry::lanczos::{Search, largest};
use fipk::geometry::{Accuracy, Gram, Map, OnEngine, OutputMetric, Space};

mod common;

fn main() -> Result<()> {
    let mut at = common::start("digits:8?seed=1")?;
    let observed = Observed::new(&at.network, &*at.data, 8)?;
    let mut map = OnEngine::new(&mut *at.engine, &observed)?;
    let metric = OutputMetric::Euclidean;

    // A random direction, a twentieth as long as the weights.
    let mut v = map.zeros()?;
    map.normal(7, 0, &mut v)?;
    let scale = 0.05 * map.norm(&at.w)? / map.norm(&v)?;
    map.scale(scale, &mut v)?;

    // The metric has directions of eigenvalue 0: what is added to it where it is solved with is relative to its largest.
    let search = Search { pairs: 1, tolerance: 1e-3, products: 40, seed: 0, precision: map.precision() };
    let top = largest(&mut Gram::new(&mut map, &at.w, metric)?, &search, |_| ())?.values[0];
    let accuracy = Accuracy { tolerance: 1e-5, products: 100 };
    let start = (map.copied(&at.w)?, map.copied(&v)?);
    let mut geodesic = Geodesic::new(&mut map, metric, start, 1e-3 * top, accuracy, 0.1)?;

    let mut line = map.copied(&at.w)?;
    println!("time   geodesic's speed   the line's");
    println!("{:4.2}  {:16.5}  {:11.5}", 0.0, geodesic.at.speed, geodesic.at.speed);
    for i in 1..=5 {
        let end = f64::from(i) / 5.0;
        while geodesic.at.time < end {
            geodesic.advance(&mut map, metric, accuracy, &Control::default(), end)?;
        }
        map.axpy(0.2, &v, &mut line)?;
        let (straight, _) = speeds(&mut map, &line, metric, &v)?;
        println!("{end:4.2}  {:16.5}  {straight:11.5}", geodesic.at.speed);
    }
    println!("{} steps, {} refused; {} products with the metric", geodesic.taken, geodesic.refused, geodesic.products);
    Ok(())
}
