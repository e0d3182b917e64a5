//! What the report shows, worked out from the events: words, numbers and pictures, ready for the template.
mod figures;
mod sections;

use super::numbers::{count, duration, grouped, number, percent};
use super::record::{Drift, End, Eval, Event, Layer, Network, Record, Start, Step, Table};
use super::tables;
use crate::Result;
use figures::{figures, filters, histograms, kept};
use sections::{drift_view, evals, grid, layer_row, tiles};
use serde::Serialize;

#[derive(Serialize)]
pub struct View {
    pub title: String,
    pub status: String,
    /// `good`, `bad` or `open`: the badge's colour.
    pub status_class: &'static str,
    pub message: String,
    pub command: String,
    pub facts: Vec<(&'static str, String)>,
    pub tiles: Vec<Tile>,
    pub warnings: Vec<String>,
    pub tables: Vec<Grid>,
    pub figures: Vec<Figure>,
    pub evals: Option<Grid>,
    pub drifts: Vec<DriftView>,
    pub kept: Option<Figure>,
    pub filters: Option<Figure>,
    pub layers: Vec<LayerRow>,
    pub histograms: Vec<Figure>,
    pub histograms_left_out: usize,
    pub config: String,
    pub version: String,
}

#[derive(Serialize)]
pub struct Tile {
    label: String,
    value: String,
    note: String,
}

#[derive(Serialize)]
pub struct Figure {
    title: String,
    note: String,
    svg: String,
}

#[derive(Serialize)]
pub struct Grid {
    title: String,
    columns: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Serialize)]
struct Cell {
    text: String,
    number: bool,
}

#[derive(Serialize)]
pub struct LayerRow {
    name: String,
    shape: String,
    parameters: String,
    zeros: String,
    sparsity: String,
    /// The bar's length in per cent.
    width: f64,
    prunable: bool,
}

#[derive(Serialize)]
pub struct DriftView {
    line: String,
    grid: Grid,
}

/// The events, sorted by kind.
#[derive(Default)]
struct Run<'a> {
    start: Option<&'a Start>,
    steps: Vec<&'a Step>,
    evals: Vec<&'a Eval>,
    layers: Vec<&'a Layer>,
    drifts: Vec<&'a Drift>,
    tables: Vec<&'a Table>,
    warnings: Vec<&'a str>,
    end: Option<&'a End>,
    seconds: f64,
}

impl<'a> Run<'a> {
    fn of(records: &'a [Record]) -> Self {
        let mut run = Self::default();
        for record in records {
            run.seconds = run.seconds.max(record.seconds);
            match &record.event {
                // A resumed run is still the run that was first asked for.
                Event::Start(start) => run.start = run.start.or(Some(start)),
                Event::Step(step) => run.steps.push(step),
                Event::Eval(eval) => run.evals.push(eval),
                Event::Layer(layer) => run.layers.push(layer),
                Event::Drift(drift) => run.drifts.push(drift),
                Event::Table(table) => run.tables.push(table),
                Event::Warning(warning) => run.warnings.push(&warning.message),
                Event::End(end) => run.end = Some(end),
            }
        }
        run
    }

    /// The last evaluation of a network, on the given split if one is given.
    fn last(&self, network: Network, split: Option<&str>) -> Option<&'a Eval> {
        let fits = |eval: &&&Eval| eval.network == network && split.is_none_or(|split| eval.split == split);
        self.evals.iter().rev().find(fits).copied()
    }

    /// The network whose numbers count: the stored one, else where the path stands.
    fn outcome(&self) -> Option<&'a Eval> {
        self.last(Network::Final, None).or_else(|| self.last(Network::Projected, None))
    }
}

impl View {
    pub fn new(records: &[Record], config: &str, title: &str) -> Result<Self> {
        let run = Run::of(records);
        let start = run.start.cloned().unwrap_or_default();
        let (status, status_class) = match run.end {
            None => ("in progress".to_string(), "open"),
            Some(end) if end.status == "done" => (end.status.clone(), "good"),
            Some(end) if end.status == "interrupted" => (end.status.clone(), "open"),
            Some(end) => (end.status.clone(), "bad"),
        };
        let facts = [
            ("Method", start.method.clone()),
            ("Steps", start.step.clone()),
            ("Model", start.model.clone()),
            ("New head", start.head.clone()),
            ("Data", start.data.clone()),
            ("Image size", start.image_size.clone()),
            ("Device", device(&start)),
            ("Seed", if run.start.is_some() { start.seed.to_string() } else { String::new() }),
        ];
        let histograms = histograms(&run)?;
        let with_histogram = run.layers.iter().filter(|layer| layer.histogram.is_some()).count();
        Ok(Self {
            title: title.to_string(),
            status,
            status_class,
            message: run.end.map(|end| end.message.clone()).unwrap_or_default(),
            command: start.command.clone(),
            facts: facts.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
            tiles: tiles(&run),
            warnings: run.warnings.iter().map(|message| message.to_string()).collect(),
            tables: run.tables.iter().map(|table| grid(table)).collect(),
            figures: figures(&run)?,
            evals: evals(&run),
            drifts: run.drifts.iter().map(|drift| drift_view(drift)).collect(),
            kept: kept(&run)?,
            filters: filters(&run)?,
            layers: run.layers.iter().map(|layer| layer_row(layer)).collect(),
            histograms_left_out: with_histogram - histograms.len(),
            histograms,
            config: config.trim().to_string(),
            version: start.version,
        })
    }
}

fn device(start: &Start) -> String {
    match start.threads {
        0 => start.device.clone(),
        1 => format!("{}, 1 thread", start.device),
        n => format!("{}, {n} threads", start.device),
    }
}

/// The metric that names the run's quality, the first of these that was measured.
fn headline(eval: &Eval) -> Option<&'static str> {
    ["accuracy", "matthews", "pearson", "spearman", "f1", "perplexity", "loss"]
        .into_iter()
        .find(|name| eval.metrics.contains_key(*name))
}

/// Metrics that are shares, shown in per cent.
fn is_share(metric: &str) -> bool {
    matches!(metric, "accuracy" | "f1")
}

fn metric_name(metric: &str) -> String {
    match metric {
        "f1" => "F1".into(),
        "matthews" => "Matthews correlation".into(),
        "pearson" => "Pearson correlation".into(),
        "spearman" => "Spearman correlation".into(),
        other => capitalised(other),
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn metric_value(metric: &str, value: f64) -> String {
    if is_share(metric) { percent(value) } else { number(value) }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
