//! Drift of a network's outputs at the same distance in weights: null steps (equation 3) towards a sparser network and
//! nowhere in particular, beside random directions, the straight line and the optimizer's undirected path.
//!
//! ```text
//! cargo run --release --example drift -- --model MODEL --data 'mnist:DIR?split=train&limit=400' \
//!     --held-out 'mnist:DIR?limit=2000' --distances 0.02,0.05,0.1 --json drift.json
//! ```
//!
//! The metric is that of `--data`; `--held-out` took no part in it. All ways are looked at where they are exactly as far from
//! the start as the others. The optimizer's way is algorithm 3's: a random kick, then Adam on the distance of the outputs
//! to those at the start, which is drawn back to the same distance in weights after every step; it takes as many steps on all
//! of `--data` as the null way beside it took products with the metric, which cost a little more.
use clap::Parser;
use fipk::data::{Batches, Dataset, Targets};
use fipk::engine::{Criterion, Engine, Mask, Optimizer, Pattern, Pull, Score, Update, Vector};
use fipk::fip::metrics::argmax;
use fipk::fip::observed::Observed;
use fipk::geometry::lanczos::{Search, largest};
use fipk::geometry::step::null;
use fipk::geometry::{Accuracy, Damped, Gram, Kept, Map, Metric, OnEngine, OutputMetric, Space};
use fipk::models::{Network, Sample};
use fipk::ops::Distance;
use fipk::ops::distance::row;
use fipk::{Error, Result};
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

#[allow(dead_code, reason = "each example uses a part of it")]
mod common;

#[derive(Parser)]
struct Args {
    /// A Hugging Face folder, or one of fipk's own, with a classification head
    #[arg(long)]
    model: String,
    /// What the metric is made from
    #[arg(long)]
    data: String,
    /// What it never sees
    #[arg(long)]
    held_out: String,
    /// Distances in weights from the start, over the norm of the weights
    #[arg(long, value_delimiter = ',', default_value = "0.02,0.05,0.1")]
    distances: Vec<f64>,
    /// Null steps between two of them
    #[arg(long, default_value_t = 1)]
    substeps: usize,
    /// Zeros of the sparser network that a null path goes to, over the prunable weights
    #[arg(long, default_value_t = 0.9)]
    sparsity: f64,
    /// Random directions
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Adam's rates, over the kick's size a coordinate: a path each
    #[arg(long, value_delimiter = ',', default_value = "0.03,0.1,0.3")]
    rates: Vec<f64>,
    /// Measure a change of logits by their softmax, not as it is
    #[arg(long)]
    fisher: bool,
    /// What is added to the metric in a null step, over its largest eigenvalue
    #[arg(long, default_value_t = 1e-4)]
    damping: f64,
    /// The most products with the metric in a null step
    #[arg(long, default_value_t = 150)]
    products: usize,
    /// Leave out the null path that takes drift back after every step
    #[arg(long)]
    no_correction: bool,
    /// Examples in a batch
    #[arg(long, default_value_t = 50)]
    batch: usize,
    /// Where to write all of it
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What the outputs on a data set did.
#[derive(Serialize)]
struct Drift {
    kl: f64,
    /// Mean over examples and logits of the squared difference.
    squared: f64,
    flips: f64,
    accuracy: f64,
}

/// A network at one distance along one way.
#[derive(Serialize)]
struct Row {
    way: String,
    distance: f64,
    data: Drift,
    held_out: Drift,
    /// What is left of the way to the sparser network, over all of it.
    left: f64,
    /// Products with the metric, or gradients, of all of the way so far.
    products: usize,
}

/// Examples in the order their outputs come in, with what the outputs were at the start.
struct Side<'a> {
    observed: Observed<'a>,
    labels: Vec<usize>,
    start: Vec<f64>,
}

impl<'a> Side<'a> {
    fn new(network: &'a Network, data: &'a dyn Dataset, rows: usize, spec: &str) -> Result<Self> {
        let mut labels = Vec::new();
        for batch in Batches::in_order(data, rows)? {
            let batch = batch?;
            let Targets::Classes(classes) = &batch.targets else {
                return Err(Error::usage(spec, "its targets are no classes", "give data with a class an example"));
            };
            labels.extend(classes.iter().take(batch.examples.len()).map(|&c| c as usize));
        }
        Ok(Self { observed: Observed::new(network, data, rows)?, labels, start: Vec::new() })
    }
}

struct Lab<'a> {
    engine: Box<dyn Engine>,
    sides: [Side<'a>; 2],
    kept: Kept<(usize, Sample)>,
    kind: OutputMetric,
    w: Vector,
    /// Of the start, and of what it loses on the way to the sparser network.
    size: f64,
    way: f64,
    mask: Mask,
    mu: f64,
    accuracy: Accuracy,
    rows: Vec<Row>,
}

impl Lab<'_> {
    /// Something done with the network over a side's data.
    fn on<T>(&mut self, side: usize, f: impl FnOnce(&mut OnEngine<Observed>) -> Result<T>) -> Result<T> {
        let mut map = OnEngine::with(&mut *self.engine, &self.sides[side].observed, std::mem::take(&mut self.kept))?;
        let done = f(&mut map);
        self.kept = map.keep();
        done
    }

    /// Leave a vector to whoever wants one next.
    fn free(&mut self, v: Vector) -> Result<()> {
        self.on(0, |map| {
            map.recycle(v);
            Ok(())
        })
    }

    /// w − w_p: what a projection would take.
    fn lost(&mut self, w: Vector) -> Result<Vector> {
        let (lost, mask) = (self.on(0, |map| map.copied(&w))?, self.mask);
        self.engine.project(lost, mask)?;
        self.engine.scale(-1.0, lost)?;
        self.engine.axpy(1.0, w, lost)?;
        Ok(lost)
    }

    fn look(&mut self, way: &str, distance: f64, w: Vector, products: usize) -> Result<()> {
        let single = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let mut found = Vec::new();
        for side in 0..2 {
            let (z, width) = self.on(side, |map| Ok((map.value(&w)?, map.width())))?;
            let Side { start, labels, .. } = &self.sides[side];
            let rows = || z.chunks(width).zip(start.chunks(width)).map(|(z, t)| (single(z), single(t)));
            let n = labels.len() as f64;
            let drift = Drift {
                kl: rows().map(|(z, t)| row(Distance::Kl, &z, &t)).sum::<f64>() / n,
                squared: z.iter().zip(start).map(|(z, t)| (z - t).powi(2)).sum::<f64>() / z.len() as f64,
                flips: rows().filter(|(z, t)| argmax(z) != argmax(t)).count() as f64 / n,
                accuracy: rows().zip(labels).filter(|((z, _), y)| argmax(z) == **y).count() as f64 / n,
            };
            if !(drift.kl.is_finite() && drift.squared.is_finite()) {
                let place = format!("{way} at {distance}");
                return Err(Error::not_finite(place, "the drift of an output", "give smaller --distances"));
            }
            found.push(drift);
        }
        let lost = self.lost(w)?;
        let left = self.on(0, |map| {
            let norm = map.norm(&lost)?;
            map.recycle(lost);
            Ok(norm)
        })? / self.way;
        let (Some(held_out), Some(data)) = (found.pop(), found.pop()) else { return Ok(()) };
        println!(
            "{way:34} {distance:7.3}  {:9.3e} {:9.3e} {:7.2}   {:9.3e} {:9.3e} {:7.2}   {:6.1} {products:8}",
            data.kl,
            data.squared,
            100.0 * data.accuracy,
            held_out.kl,
            held_out.squared,
            100.0 * held_out.accuracy,
            100.0 * left,
        );
        self.rows.push(Row { way: way.into(), distance, data, held_out, left, products });
        Ok(())
    }

    /// Straight on in one direction.
    fn straight(&mut self, way: &str, distances: &[f64], direction: Vector) -> Result<()> {
        let (w, size) = (self.w, self.size);
        for &distance in distances {
            let at = self.on(0, |map| {
                let (mut at, length) = (map.copied(&w)?, map.norm(&direction)?);
                map.axpy(distance * size / length, &direction, &mut at)?;
                Ok(at)
            })?;
            self.look(way, distance, at, 0)?;
            self.free(at)?;
        }
        Ok(())
    }

    /// Null steps: towards the sparser network, or on from `along`. With `corrected` each is followed by a Newton step that takes
    /// back what the outputs have drifted. Returns the products of every step.
    fn null(
        &mut self,
        way: &str,
        radii: &[(f64, bool)],
        mut along: Option<Vector>,
        corrected: bool,
    ) -> Result<Vec<usize>> {
        let (start, size, kind, mu, accuracy) = (self.w, self.size, self.kind, self.mu, self.accuracy);
        let mut w = self.on(0, |map| map.copied(&start))?;
        let mut products = Vec::new();
        for &(distance, stop) in radii {
            let direction = match along {
                Some(along) => along,
                None => {
                    let lost = self.lost(w)?;
                    self.engine.scale(-1.0, lost)?;
                    lost
                }
            };
            let goes_on = along.is_some();
            let z0 = &self.sides[0].start.clone();
            let (psi, taken) = self.on(0, |map| {
                let step = null(map, &w, kind, &direction, mu, 1.0, accuracy)?;
                map.recycle(direction);
                stretch(map, &start, &step.psi, distance * size, &mut w)?;
                let mut taken = step.products;
                if corrected {
                    taken += correct(map, &mut w, kind, z0, mu, accuracy)?;
                    draw_to(map, &start, distance * size, &mut w)?;
                }
                Ok((step.psi, taken))
            })?;
            products.push(taken);
            along = match goes_on {
                true => Some(psi),
                false => self.free(psi).map(|()| None)?,
            };
            if stop {
                self.look(way, distance, w, products.iter().sum())?;
            }
        }
        self.free(w)?;
        Ok(products)
    }

    /// A kick, then so many of Adam's steps on the distance of the outputs to the start's, at every radius.
    fn optimizer(&mut self, way: &str, radii: &[(f64, bool)], along: Vector, steps: &[usize], rate: f64) -> Result<()> {
        let (start, size, kind) = (self.w, self.size, self.kind);
        let z0 = self.sides[0].start.clone();
        let mut w = self.on(0, |map| map.copied(&start))?;
        let (mut before, mut taken) = (0.0, 0);
        for (&(distance, stop), &steps) in radii.iter().zip(steps) {
            self.on(0, |map| {
                // The kick goes on in the direction the path has taken so far.
                let mut kick = map.copied(&along)?;
                if before > 0.0 {
                    map.copy(&w, &mut kick)?;
                    map.axpy(-1.0, &start, &mut kick)?;
                }
                let length = map.norm(&kick)?;
                map.scale(1.0 / length, &mut kick)?;
                stretch(map, &start, &kick, distance * size, &mut w)?;
                map.recycle(kick);
                let largest = rate * (distance - before) * size / (map.dim() as f64).sqrt();
                let [mut g, m, v] = [map.zeros()?, map.zeros()?, map.zeros()?];
                for step in 0..steps {
                    let residual = residual(kind, &map.value(&w)?, &z0, map.width());
                    map.jtu(&w, &residual, &mut g)?;
                    let update = Update {
                        optimizer: Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.0 },
                        step: step as u64 + 1,
                        learning_rate: (largest * (1.0 - step as f64 / steps as f64)) as f32,
                        gradient_scale: 1.0,
                        w,
                        g,
                        m,
                        v: Some(v),
                        mask: None,
                        pull: Pull::None,
                        census: None,
                    };
                    map.engine().update(&update)?;
                    draw_to(map, &start, distance * size, &mut w)?;
                }
                [g, m, v].into_iter().for_each(|x| map.recycle(x));
                Ok(())
            })?;
            (before, taken) = (distance, taken + steps);
            if stop {
                self.look(way, distance, w, taken)?;
            }
        }
        self.free(w)
    }
}

/// w += t ψ with the t > 0 that makes ‖w − start‖ = radius, for a ψ of length 1.
fn stretch<M: Map>(map: &mut M, start: &M::Vector, psi: &M::Vector, radius: f64, w: &mut M::Vector) -> Result<()> {
    let mut away = map.copied(w)?;
    map.axpy(-1.0, start, &mut away)?;
    let (along, far) = (map.dot(&away, psi)?, map.dot(&away, &away)?);
    map.recycle(away);
    map.axpy((along * along + radius * radius - far).sqrt() - along, psi, w)
}

/// w on the ray from the start through w, at the given distance.
fn draw_to<M: Map>(map: &mut M, start: &M::Vector, radius: f64, w: &mut M::Vector) -> Result<()> {
    map.axpy(-1.0, start, w)?;
    let length = map.norm(w)?;
    map.scale(radius / length, w)?;
    map.axpy(1.0, start, w)
}

/// The gradient, with respect to the outputs, of the distance that the metric is the second order of.
fn residual(kind: OutputMetric, z: &[f64], start: &[f64], width: usize) -> Vec<f64> {
    let n = (z.len() / width) as f64;
    let soft = |x: &[f64]| -> Vec<f64> {
        if kind == OutputMetric::Euclidean {
            return x.to_vec();
        }
        let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = x.iter().map(|x| (x - top).exp()).sum();
        x.iter().map(|x| (x - top).exp() / total).collect()
    };
    let rows = z.chunks(width).zip(start.chunks(width));
    rows.flat_map(|(z, t)| soft(z).into_iter().zip(soft(t)).map(move |(p, q)| (p - q) / n)).collect()
}

/// w −= (1/√N) Jᵀ A (K + μI)⁻¹ (1/√N) Aᵀ (z − start): a step of Gauss and Newton back to the outputs at the start.
fn correct<M: Map>(
    map: &mut M,
    w: &mut M::Vector,
    kind: OutputMetric,
    start: &[f64],
    mu: f64,
    accuracy: Accuracy,
) -> Result<usize> {
    let (z, width, root) = (map.value(w)?, map.width(), (map.samples() as f64).sqrt());
    let mut c: Vec<f64> = z.iter().zip(start).map(|(z, t)| (z - t) / root).collect();
    Metric::new(kind, &z, width).factor_transposed(0, &mut c);
    let mut back = map.zeros()?;
    let products = {
        let mut gram = Gram::new(map, w, kind)?;
        let mut damped = Damped::new(&mut gram, c)?;
        damped.grow(&mut gram, accuracy.products, |damped| damped.residual(mu) <= accuracy.tolerance)?;
        let y = damped.solution(&mut gram, mu)?;
        gram.pull(&y, &mut back)?;
        damped.products()
    };
    map.axpy(-1.0, &back, w)?;
    map.recycle(back);
    Ok(products)
}

fn random<M: Map>(map: &mut M, seed: u64) -> Result<M::Vector> {
    let mut v = map.zeros()?;
    map.normal(seed, 0, &mut v)?;
    Ok(v)
}

fn main() -> Result<()> {
    let (args, clock) = (Args::parse(), Instant::now());
    if args.distances.is_empty() || !args.distances.windows(2).all(|d| d[0] < d[1]) || args.distances[0] <= 0.0 {
        return Err(Error::usage("--distances", format!("{:?}", args.distances), "give some, rising, above 0"));
    }
    let specs = [(&*args.data, "train"), (&*args.held_out, "test")];
    let (network, weights, data) = common::stored(&args.model, &specs)?;
    let (mut engine, w) = common::on_host(&network, &weights)?;
    let mask = engine.mask()?;
    let how = Criterion { pattern: Pattern::Global, score: Score::Magnitude, sparsity: args.sparsity };
    engine.select(w, &how, None, mask)?;
    let side = |i: usize| Side::new(&network, &*data[i], args.batch, specs[i].0);
    let mut lab = Lab {
        engine,
        sides: [side(0)?, side(1)?],
        kept: Kept::default(),
        kind: if args.fisher { OutputMetric::Fisher } else { OutputMetric::Euclidean },
        w,
        size: 0.0,
        way: 0.0,
        mask,
        mu: 0.0,
        accuracy: Accuracy { tolerance: 1e-5, products: args.products },
        rows: Vec::new(),
    };
    for i in 0..2 {
        lab.sides[i].start = lab.on(i, |map| map.value(&w))?;
    }
    let kind = lab.kind;
    let (size, top, dim, outputs) = lab.on(0, |map| {
        let search = Search { pairs: 1, tolerance: 1e-3, products: 40, seed: 0, precision: map.precision() };
        let top = largest(&mut Gram::new(map, &w, kind)?, &search, |_| ())?.values[0];
        Ok((map.norm(&w)?, top, map.dim(), map.samples() * map.width()))
    })?;
    let lost = lab.lost(w)?;
    (lab.size, lab.mu, lab.way) = (size, args.damping * top, lab.on(0, |map| map.norm(&lost))?);
    println!("{dim} weights of norm {size:.4}, {outputs} outputs; the largest eigenvalue is {top:.4e}");
    println!("{:.3} of the norm away from its projection to {} zeros\n", lab.way / size, args.sparsity);
    let of = "KL    squared  accur.";
    println!(
        "{:34} {:>7}  {:>27}   {:>27}   {:>6} {:>8}",
        "", "", "on the metric's data", "held out", "% left", "passes"
    );
    println!("{:34} {:>7}  {of:>27}   {of:>27}", "way", "dist.");
    lab.look("start", 0.0, w, 0)?;

    for seed in 0..args.seeds {
        let v = lab.on(0, |map| random(map, seed))?;
        lab.straight(&format!("random, seed {seed}"), &args.distances, v)?;
        lab.free(v)?;
    }
    lab.engine.scale(-1.0, lost)?;
    lab.straight("straight to the sparser network", &args.distances, lost)?;

    // (distance, whether it is looked at), with steps between.
    let (mut radii, mut before) = (Vec::new(), 0.0);
    for &distance in &args.distances {
        let part = |i: usize| before + (distance - before) * i as f64 / args.substeps as f64;
        radii.extend((1..args.substeps).map(|i| (part(i), false)).chain([(distance, true)]));
        before = distance;
    }
    lab.null("null, to the sparser network", &radii, None, false)?;
    if !args.no_correction {
        lab.null("null, to the sparser, corrected", &radii, None, true)?;
    }
    let v = lab.on(0, |map| random(map, 0))?;
    let steps = lab.null("null, undirected", &radii, Some(v), false)?;
    for &rate in &args.rates {
        let v = lab.on(0, |map| random(map, 0))?;
        lab.optimizer(&format!("optimizer, undirected, rate {rate}"), &radii, v, &steps, rate)?;
    }

    let object = json!({
        "model": args.model, "data": args.data, "held_out": args.held_out, "output_metric": kind.as_str(),
        "distances": args.distances, "substeps": args.substeps, "sparsity": args.sparsity,
        "weights": dim, "norm": size, "outputs": outputs, "largest_eigenvalue": top, "damping": args.damping,
        "products": args.products, "to_sparser": lab.way / size, "rows": lab.rows,
        "seconds": clock.elapsed().as_secs_f64(),
    });
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{object:#}\n")).map_err(|e| {
            Error::usage("--json", format!("{}: {e}", path.display()), "name a file in a folder that is there")
        })?;
    }
    Ok(())
}
