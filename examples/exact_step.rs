//! A step towards the network without its smallest weights, three ways: straight, by equation 4, by equation 3. All are
//! of the same length; what differs is how far the outputs move.
//!
//! ```text
//! cargo run --release --example exact_step                                  # a small network of its own, on drawn digits
//! cargo run --release --example exact_step -- MODEL 'mnist:DIR?limit=64'    # a Hugging Face folder, on its data
//! ```
use fipk::Result;
use fipk::engine::{Criterion, Pattern, Score};
use fipk::fip::observed::Observed;
use fipk::geometry::step::{Goal, exact, null};
use fipk::geometry::{Accuracy, Map, OnEngine, OutputMetric, Pullback, Space};
use fipk::ops::Distance;
use fipk::ops::distance::row;

mod common;

fn main() -> Result<()> {
    let mut at = common::start("digits:64?seed=1")?;
    let w = at.w;

    // The gradient of ½ ‖w − w_p‖², with w_p the projection to 50 % zeros: the weights that it sets to zero.
    let pull = at.engine.zeros()?;
    let mask = at.engine.mask()?;
    let how = Criterion { pattern: Pattern::Global, score: Score::Magnitude, sparsity: 0.5 };
    at.engine.select(w, &how, None, mask)?;
    at.engine.copy(w, pull)?;
    at.engine.project(pull, mask)?;
    at.engine.scale(-1.0, pull)?;
    at.engine.axpy(1.0, w, pull)?;

    let observed = Observed::new(&at.network, &*at.data, 32)?;
    let mut map = OnEngine::new(&mut *at.engine, &observed)?;
    let length = map.norm(&pull)?;
    let (metric, accuracy) = (OutputMetric::Fisher, Accuracy { tolerance: 1e-4, products: 200 });
    println!("w is {length:.4} away from its projection to 50 % zeros; steps of that length:\n");

    // All the way in one step. β weighs the way against the outputs; μ says what counts as flat.
    let mut straight = map.copied(&pull)?;
    map.scale(-1.0, &mut straight)?;
    let goal = Goal { beta: 1e-2, epsilon: length * length, accuracy, seed: 0 };
    let bent = exact(&mut map, &w, metric, &pull, &goal)?;
    let flat = null(&mut map, &w, metric, &straight, bent.mu, length * length, accuracy)?;

    let before = map.value(&w)?;
    let width = map.width();
    for (name, psi) in [("straight", &straight), ("exact", &bent.psi), ("null", &flat.psi)] {
        let predicted = 0.5 * Pullback::new(&mut map, &w, metric)?.squared(psi)?;
        let mut moved = map.copied(&w)?;
        map.axpy(1.0, psi, &mut moved)?;
        let after = map.value(&moved)?;
        let single = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let rows = after.chunks(width).zip(before.chunks(width));
        let kl = rows.map(|(z, t)| row(Distance::Kl, &single(z), &single(t))).sum::<f64>() / map.samples() as f64;
        let gone = -map.dot(&pull, psi)? / (length * length);
        println!("{name:9} {:5.1} % of the way there, KL {kl:.3e}, to second order {predicted:.3e}", 100.0 * gone);
        map.recycle(moved);
    }
    println!("\nμ {:.3e}, residual {:.1e}, {} products with the metric", bent.mu, bent.residual, bent.products);
    Ok(())
}
