//! What is written down of a network's drift: measured on held-out examples, beside what the metric predicts.
use super::{Budget, Estimate, Held, hold, measured, quantiles};
use super::{DRAWS, LEVEL, Measure};
use crate::engine::{Engine, Vector};
use crate::fip::evaluate::Apart;
use crate::geometry::{Batch, Kept, OnEngine, OutputMetric, Pullback, Samples};
use crate::graph::Graph;
use crate::ops::Distance;
use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;

const STATEMENT: &str = "Statistical, not a guarantee: what was measured on the held-out examples that had no part in the choice of \
                         the sparsity. It speaks of inputs drawn like them, within the intervals, and of no single input. The \
                         interval of flips (Clopper and Pearson) holds the value of the population in at least 95 of 100 \
                         such samples. The others are bootstrapped: a mean's holds it in about 95 of 100, less often where \
                         a few examples have most of the drift, and less often still for extreme quantiles; of a largest \
                         value it says nothing beyond the sample. Each interval is of its own limit, not of all at once.";

/// ½ Δᵀ g Δ of the whole way Δ = w − w_dense, the metric taken at the dense network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Predicted {
    pub predicted: f64,
    /// The mean distance that the metric is the second order of, over the same positions.
    pub measured: f64,
    /// Measured over predicted: near 1 where the way is short enough for the second order to say something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// By both output metrics.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SecondOrder {
    /// Against the Kullback-Leibler divergence; none for a network that gives one number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fisher: Option<f64>,
    /// Against half the squared distance.
    pub euclidean: f64,
}

/// One batch of samples.
struct One<'a, S>(&'a S, usize);

impl<S: Samples> Samples for One<'_, S> {
    type Shape = S::Shape;
    fn len(&self) -> usize {
        1
    }
    fn get(&self, _: usize) -> Result<Batch<S::Shape>> {
        self.0.get(self.1)
    }
    fn graph(&self, shape: S::Shape) -> Result<Graph> {
        self.0.graph(shape)
    }
}

/// The second-order drift of the way from `dense` to `w` on the samples, a mean over rows that count. Batch after batch:
/// no more outputs than those of one are held.
///
/// # Errors
/// [`Error::NotFinite`]; what engine and data say.
pub fn second_order<S: Samples>(
    engine: &mut dyn Engine,
    samples: &S,
    (dense, w): (Vector, Vector),
    classes: bool,
) -> Result<SecondOrder> {
    let way = engine.zeros()?;
    engine.copy(w, way)?;
    engine.axpy(-1.0, dense, way)?;
    let (mut kept, mut rows, mut fisher, mut euclidean) = (Kept::default(), 0.0, 0.0, 0.0);
    for nth in 0..samples.len() {
        let counted = samples.get(nth)?.counted() as f64;
        if counted == 0.0 {
            continue;
        }
        let one = One(samples, nth);
        let mut map = OnEngine::with(&mut *engine, &one, kept)?;
        let mut of = |kind| Ok::<_, Error>(0.5 * counted * Pullback::new(&mut map, &dense, kind)?.squared(&way)?);
        euclidean += of(OutputMetric::Euclidean)?;
        if classes {
            fisher += of(OutputMetric::Fisher)?;
        }
        (kept, rows) = (map.keep(), rows + counted);
    }
    let mean = |sum: f64| match (sum / rows).is_finite() {
        true => Ok(sum / rows),
        false => Err(Error::not_finite("drift", "the second-order drift", "look at the weights and the data")),
    };
    let fisher = if classes { Some(mean(fisher)?) } else { None };
    Ok(SecondOrder { fisher, euclidean: mean(euclidean)? })
}

/// How the intervals of distances were made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Bootstrap {
    draws: usize,
    level: f64,
    seed: u64,
}

/// `drift.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    statement: &'static str,
    pub budget: Budget,
    /// Whether every limit is kept by the measured value, on the certificate's examples.
    pub kept: bool,
    pub limits: Vec<Held>,
    /// Zeros over the prunable weights.
    pub sparsity: f64,
    /// Held-out examples that the sparsity was chosen by, and those that were measured here.
    examples_of_the_choice: usize,
    examples: usize,
    measured: BTreeMap<String, BTreeMap<&'static str, Estimate>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flips: Option<Estimate>,
    second_order: BTreeMap<&'static str, Predicted>,
    bootstrap: Bootstrap,
    seed: u64,
    pub dense_sha256: String,
    pub sparse_sha256: String,
    pub data: String,
    pub data_fingerprint: String,
    version: &'static str,
}

/// Which networks and data a certificate is of.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    pub dense_sha256: String,
    pub sparse_sha256: String,
    pub data: String,
    pub data_fingerprint: String,
    pub sparsity: f64,
    pub seed: u64,
    pub examples_of_the_choice: usize,
}

impl Certificate {
    /// From what was measured on the certificate's examples.
    pub fn new(budget: &Budget, apart: &Apart, predicted: SecondOrder, of: Subject) -> Self {
        let seed = of.seed;
        let limits = hold(budget, apart, seed);
        let found = quantiles(apart, seed);
        let pair = |predicted: f64, kind: Distance| {
            let measured = apart.mean(kind);
            Predicted { predicted, measured, ratio: (predicted > 0.0).then(|| measured / predicted) }
        };
        let mut second_order = BTreeMap::from([("euclidean", pair(predicted.euclidean, Distance::Euclidean))]);
        second_order.extend(predicted.fisher.map(|p| ("fisher", pair(p, Distance::Kl))));
        Self {
            statement: STATEMENT,
            budget: budget.clone(),
            kept: limits.iter().all(|l| l.kept),
            limits,
            sparsity: of.sparsity,
            examples_of_the_choice: of.examples_of_the_choice,
            examples: apart.len(),
            flips: apart.flips.is_some().then(|| measured(apart, Measure::Flips, seed)),
            measured: found,
            second_order,
            bootstrap: Bootstrap { draws: DRAWS, level: LEVEL, seed },
            seed,
            dense_sha256: of.dense_sha256,
            sparse_sha256: of.sparse_sha256,
            data: of.data,
            data_fingerprint: of.data_fingerprint,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}
