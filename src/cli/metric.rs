//! `fipk metric`: the spectrum of the metric that a network pulls back from its outputs.
use super::device::{Place, Purpose};
use super::flags::one_of;
use super::globals::Context;
use super::model::Model;
use super::output::facts;
use crate::data::{self, Spec};
use crate::engine::{Engine, Vector};
use crate::fip::observed::Observed;
use crate::geometry::lanczos::{Eigenpairs, Search};
use crate::geometry::spectrum::marchenko_pastur::MarchenkoPastur;
use crate::geometry::spectrum::{self, Density, effective_rank, participation, shares};
use crate::geometry::{Map, OnEngine, OutputMetric, Space};
use crate::params::atomic::Folder;
use crate::params::{Role, Roles};
use crate::report::numbers::{duration, grouped, number, percent};
use crate::report::{Progress, Table};
use crate::{Error, Result};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

mod files;
mod plots;

/// Look at the metric of weight space: eigenvalues, their density, the invariant dimensions
///
/// The metric g = (1/N) Jᵀ H J says how far outputs move, to second order, when weights move; directions whose
/// eigenvalue is near 0 leave the network as it is. It is never formed: the largest eigenvalues come from Lanczos' process
/// on products with J and Jᵀ, all of them (--exact) from the matrix of N m outputs, their density (--density) from
/// stochastic Lanczos quadrature. m counts outputs; N examples, or for a masked language model attended tokens.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk metric --model lenet/model --data 'mnist:MNIST?limit=400' --exact --out spectrum
  fipk metric --model bert-sst2 --data 'glue/sst2:SST-2?limit=64' --top 20 --density
  fipk metric --model lenet/model --data 'mnist:MNIST?limit=64' --top 5 --vectors --out top

The vectors are safetensors that `fipk jvp --tangents` and `fipk geodesic --direction` read.")]
pub struct Args {
    /// Folder with config.json and safetensors, or a Hugging Face id in the local cache
    #[arg(long, value_name = "DIR|ID")]
    model: String,
    /// Data whose outputs are looked at, as KIND:PATH?key=value; the held-out split unless ?split= names another
    #[arg(long, value_name = "SPEC")]
    data: String,
    /// How many of the largest eigenvalues
    #[arg(long, value_name = "K", default_value_t = 20)]
    top: usize,
    /// All eigenvalues, from the matrix of outputs: at most 4096 of them, examples times outputs of each
    #[arg(long)]
    exact: bool,
    /// Estimate the density of all eigenvalues, and how many lie below --epsilon
    #[arg(long)]
    density: bool,
    /// How a change of logits is measured: euclidean, or fisher (H = diag q − q qᵀ of the softmax)
    #[arg(long, value_name = "METRIC", default_value = "euclidean", value_parser = output_metric())]
    output_metric: OutputMetric,
    /// Directions with an eigenvalue below this count as invariant
    #[arg(long, value_name = "E", default_value_t = 1e-3)]
    epsilon: f64,
    /// Of an eigenvalue's residual, relative to the largest eigenvalue
    #[arg(long, value_name = "T", default_value_t = 1e-5)]
    tolerance: f64,
    /// The most products with the metric that Lanczos' process takes
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    products: u32,
    /// Random starts of the density, and random vectors behind the shares of layers
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    probes: u32,
    /// Products for each random start of the density
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Write the eigenvectors of --top too, a file each, into --out
    #[arg(long, requires = "out")]
    vectors: bool,
    /// Folder for metric.json, plots and vectors
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace a folder that is there
    #[arg(long, requires = "out")]
    overwrite: bool,
    /// Examples in a batch
    #[arg(long, value_name = "EXAMPLES", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Most tokens of a text, special ones included; longer ones are cut
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = clap::value_parser!(u32).range(3..))]
    max_length: u32,
}

/// The words that `--output-metric` takes.
pub(super) fn output_metric() -> impl clap::builder::TypedValueParser<Value = OutputMetric> {
    one_of::<OutputMetric>(&["euclidean", "fisher"])
}

/// One of the largest eigenvalues.
#[derive(Clone, Debug, Serialize)]
struct Eigenvalue {
    value: f64,
    /// ‖g v − λ v‖ of its normalised eigenvector, as Lanczos' process bounds it.
    residual: f64,
}

/// The directions that leave outputs as they are.
#[derive(Clone, Debug, Serialize)]
struct Invariant {
    epsilon: f64,
    /// How many of the weights' dimensions have an eigenvalue below it, those that are zero for lack of outputs included.
    dimensions: f64,
    share: f64,
    /// `exact`, `counted` among the largest eigenvalues, `estimated` from the density, or `at most`.
    how: &'static str,
    /// Of an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    standard_error: Option<f64>,
}

/// A layer's part of the trace.
#[derive(Clone, Debug, Serialize)]
struct Share {
    name: String,
    trace: f64,
    share: f64,
}

/// What the verb found; `metric.json`.
#[derive(Clone, Debug, Serialize)]
struct Found {
    model: String,
    data: String,
    model_sha256: String,
    data_fingerprint: String,
    seed: u64,
    output_metric: &'static str,
    weights: usize,
    samples: usize,
    outputs: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    largest: Vec<Eigenvalue>,
    converged: bool,
    /// All eigenvalues of the matrix of outputs, largest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exact: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    density: Option<Density>,
    trace: f64,
    trace_how: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_rank: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    participation_ratio: Option<f64>,
    invariant: Invariant,
    #[serde(skip_serializing_if = "Option::is_none")]
    marchenko_pastur: Option<MarchenkoPastur>,
    /// (eigenvalue, dimensions), without those that are zero for lack of outputs: what the law is fitted to.
    #[serde(skip)]
    weighed: Vec<(f64, f64)>,
    layers: Vec<Share>,
    products: usize,
    seconds: f64,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    args.check()?;
    let clock = Instant::now();
    let spec: Spec = args.data.parse()?;
    let model = Model::open(&args.model)?;
    let seed = context.seed.unwrap_or(0);
    let data = data::load(&spec, "test", &model.reading(args.max_length as usize, seed)?)?;
    let out = args.out.as_ref().map(|out| Folder::create(out, args.overwrite)).transpose()?;
    // A row of J is an example's: batches of one waste nothing on others.
    let rows = if args.exact { 1 } else { args.batch as usize };
    let observed = Observed::new(&model.network, &*data, rows)?;
    let (mut engine, w) = model.engine(Place::of(context, Purpose::Look)?, model.layout(&Roles::default())?)?;
    let mut map = OnEngine::new(&mut *engine, &observed)?;
    let most = args.products + if args.density { args.probes.saturating_mul(args.steps) } else { 0 };
    let bar = Progress::of_products(u64::from(most), !context.output.quiet && !context.output.json);
    let looked = look(args, &mut map, w, seed, &bar);
    bar.finish();
    let (found, vectors) = looked?;
    let found = Found {
        model: args.model.clone(),
        data: args.data.clone(),
        model_sha256: model.folder.fingerprint()?,
        data_fingerprint: data.fingerprint(),
        seconds: clock.elapsed().as_secs_f64(),
        ..found
    };
    if let Some(folder) = out {
        let target = files::write(folder, &args.asked(seed), &found, &vectors, map.engine())?;
        context.output.remark(format!("wrote {}", target.display()));
    }
    context.output.result(&found, &found.tables())
}

impl Args {
    /// What was asked, as `config.toml` keeps it.
    fn asked(&self, seed: u64) -> toml::Table {
        let pairs: [(&str, toml::Value); 14] = [
            ("verb", "metric".into()),
            ("model", self.model.as_str().into()),
            ("data", self.data.as_str().into()),
            ("top", (self.top as i64).into()),
            ("exact", self.exact.into()),
            ("density", self.density.into()),
            ("output_metric", self.output_metric.as_str().into()),
            ("epsilon", self.epsilon.into()),
            ("tolerance", self.tolerance.into()),
            ("products", i64::from(self.products).into()),
            ("probes", i64::from(self.probes).into()),
            ("steps", i64::from(self.steps).into()),
            ("max_length", i64::from(self.max_length).into()),
            ("seed", (seed as i64).into()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    fn check(&self) -> Result<()> {
        let rules = [
            ("--epsilon", self.epsilon > 0.0 && self.epsilon.is_finite(), self.epsilon),
            ("--tolerance", self.tolerance > 0.0 && self.tolerance < 1.0, self.tolerance),
        ];
        match rules.into_iter().find(|r| !r.1) {
            Some((flag, _, got)) => {
                let hint =
                    if flag == "--tolerance" { "give a number between 0 and 1" } else { "give a number above 0" };
                Err(Error::usage(flag, format!("{got} makes no sense"), hint))
            }
            None => Ok(()),
        }
    }
}

fn look<S: crate::geometry::Samples>(
    args: &Args,
    map: &mut OnEngine<S>,
    w: Vector,
    seed: u64,
    bar: &Progress,
) -> Result<(Found, Vec<Vector>)> {
    let kind = args.output_metric;
    let (weights, samples, width) = (map.dim(), map.samples(), map.width());
    let outputs = samples * width;
    let (mut products, kept) = (0, rows_kept(map.engine()));
    let exact = match args.exact {
        true => spectrum::all(map, &w, kind, kept)?,
        false => Vec::new(),
    };
    let search = Search {
        pairs: args.top,
        tolerance: args.tolerance,
        products: args.products as usize,
        seed,
        precision: map.precision(),
    };
    let told = |products: &mut usize| {
        *products += 1;
        bar.at(*products as u64);
    };
    let pairs = match args.top > 0 && (!args.exact || args.vectors) {
        true => spectrum::top(map, &w, kind, &search, args.vectors, |_| told(&mut products))?,
        false => Eigenpairs {
            values: exact.iter().take(args.top).copied().collect(),
            residuals: vec![0.0; exact.len().min(args.top)],
            vectors: Vec::new(),
            products: 0,
            converged: true,
        },
    };
    if !pairs.converged {
        tracing::warn!("the last of the largest eigenvalues have not converged; allow more with --products");
    }
    let density = match args.density {
        true => {
            let (probes, steps) = (args.probes as usize, args.steps as usize);
            Some(spectrum::density(map, &w, kind, probes, steps, seed, |_| told(&mut products))?)
        }
        false => None,
    };
    let layout = map.engine().layout().clone();
    let trained: Vec<_> = layout.spans().iter().filter(|s| s.role != Role::Frozen).collect();
    let ranges: Vec<_> = trained.iter().map(|s| s.range()).collect();
    let traces = shares::traces(map, &w, kind, &ranges, args.probes as usize, seed)?;
    let total: f64 = traces.iter().sum();
    let mut layers: Vec<Share> = (trained.iter().zip(&traces))
        .map(|(s, &trace)| Share { name: s.name.clone(), trace, share: trace / total.max(f64::MIN_POSITIVE) })
        .collect();
    layers.sort_by(|a, b| b.trace.total_cmp(&a.trace));
    let (trace, trace_how) = match &density {
        _ if args.exact => (exact.iter().sum(), "exact"),
        Some(d) => (d.moments()[0].0, "estimated"),
        None => (total, "estimated"),
    };
    if !trace.is_finite() {
        return Err(Error::not_finite("metric", "the trace", "look at the weights and the data"));
    }
    let weighed = weighed(&exact, density.as_ref(), weights.min(independent(kind, samples, width)));
    let floor = pairs.values.first().map_or(0.0, |v| v * map.precision());
    let found = Found {
        model: String::new(),
        data: String::new(),
        model_sha256: String::new(),
        data_fingerprint: String::new(),
        seed,
        output_metric: kind.as_str(),
        weights,
        samples,
        outputs: width,
        largest: pairs
            .values
            .iter()
            .zip(&pairs.residuals)
            // A product is no better than its numbers are.
            .map(|(&value, &residual)| Eigenvalue { value, residual: residual.max(floor) })
            .collect(),
        converged: pairs.converged,
        effective_rank: args.exact.then(|| effective_rank(&exact)),
        participation_ratio: match &density {
            _ if args.exact => Some(participation(&exact)),
            Some(d) => Some(d.moments()[0].0.powi(2) / d.moments()[1].0),
            None => None,
        },
        invariant: invariant(args.epsilon, weights, outputs, &exact, &pairs, density.as_ref()),
        marchenko_pastur: MarchenkoPastur::fit(&weighed),
        weighed,
        exact,
        density,
        trace,
        trace_how,
        layers,
        products,
        seconds: 0.0,
    };
    Ok((found, pairs.vectors))
}

/// How many of the outputs can change independently: to the Fisher metric a class fewer than there are.
fn independent(kind: OutputMetric, samples: usize, width: usize) -> usize {
    match kind {
        OutputMetric::Euclidean => samples * width,
        OutputMetric::Fisher => samples * (width - 1),
    }
}

/// The spectrum with the dimensions that each value stands for, at most `most` of them where it is exact.
fn weighed(exact: &[f64], density: Option<&Density>, most: usize) -> Vec<(f64, f64)> {
    match density {
        _ if !exact.is_empty() => exact.iter().take(most).map(|&v| (v, 1.0)).collect(),
        Some(density) => density.nodes.clone(),
        None => Vec::new(),
    }
}

/// How many rows of J are kept at a time: a gibibyte of them.
fn rows_kept(engine: &mut dyn Engine) -> usize {
    (1usize << 28).div_ceil(engine.layout().len().max(1))
}

fn invariant(
    epsilon: f64,
    weights: usize,
    outputs: usize,
    exact: &[f64],
    pairs: &Eigenpairs<Vector>,
    density: Option<&Density>,
) -> Invariant {
    let count = |values: &[f64]| values.iter().filter(|v| **v >= epsilon).count() as f64;
    let (n, largest) = (weights as f64, &pairs.values[..]);
    let (above, how, standard_error) = match density {
        _ if !exact.is_empty() => (count(exact), "exact", None),
        // Values that have not converged are bounds from below.
        _ if pairs.converged
            && (largest.last().is_some_and(|v| *v < epsilon) || largest.len() >= outputs.min(weights)) =>
        {
            (count(largest), "counted", None)
        }
        Some(d) => {
            let (mean, error) = d.at_least(epsilon);
            (mean, "estimated", Some(error))
        }
        None => (count(largest), "at most", None),
    };
    Invariant { epsilon, dimensions: n - above, share: (n - above) / n, how, standard_error }
}

impl Found {
    fn tables(&self) -> Vec<Table> {
        let invariant = &self.invariant;
        let error = invariant.standard_error.map(|e| format!(" ± {}", number(e))).unwrap_or_default();
        let mut rows = vec![
            ("weights", grouped(self.weights as u64)),
            ("outputs", format!("{} × {}", grouped(self.samples as u64), self.outputs)),
            ("trace", format!("{} ({})", number(self.trace), self.trace_how)),
        ];
        rows.extend(self.effective_rank.map(|r| ("effective rank", number(r))));
        rows.extend(self.participation_ratio.map(|r| ("participation ratio", number(r))));
        let dimensions = format!(
            "{}{error} of {} ({}), λ < {} ({})",
            grouped(invariant.dimensions.round() as u64),
            grouped(self.weights as u64),
            percent(invariant.share),
            number(invariant.epsilon),
            invariant.how
        );
        rows.push(("invariant dimensions", dimensions));
        rows.push(("products with the metric", grouped(self.products as u64)));
        rows.push(("time", duration(self.seconds)));
        let eigenvalue = |(i, e): (usize, &Eigenvalue)| vec![(i + 1).to_string(), number(e.value), number(e.residual)];
        let largest = Table {
            title: "Largest eigenvalues".into(),
            columns: ["", "eigenvalue", "residual"].map(String::from).to_vec(),
            rows: self.largest.iter().enumerate().map(eigenvalue).collect(),
        };
        let share = |s: &Share| vec![s.name.clone(), number(s.trace), percent(s.share)];
        let layers = Table {
            title: "Shares of the trace (estimated)".into(),
            columns: ["parameter", "trace", "share"].map(String::from).to_vec(),
            rows: self.layers.iter().take(20).map(share).collect(),
        };
        let tables = [facts(&rows), largest, layers];
        tables.into_iter().filter(|t| !t.rows.is_empty()).collect()
    }
}
