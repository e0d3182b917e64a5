//! `fipk geodesic`: the path of constant output speed from a network, beside the straight one and the null one.
use super::device::{Place, Purpose};
use super::globals::Context;
use super::metric::output_metric;
use super::model::Model;
use super::output::facts;
use super::{stop, tensors};
use crate::data::{self, Spec};
use crate::fip::geodesics::{Found, Look, Plan, Walk, walk};
use crate::fip::observed::Observed;
use crate::fip::path::Origin;
use crate::geometry::geodesic::Control;
use crate::geometry::{Accuracy, OnEngine, OutputMetric, Space};
use crate::models::Head;
use crate::params::Roles;
use crate::params::atomic::{Folder, write_file};
use crate::report::Table;
use crate::report::numbers::{grouped, number, percent};
use crate::report::plots::{Line, LinePlot, Series};
use crate::{Error, Result};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Walk a geodesic of the metric from a network: outputs change at constant speed (equation 5)
///
/// From the network in the given direction, the geodesic bends so that the outputs on the data keep the speed they start with;
/// the straight line and a null path (each step through (I + g/μ)⁻¹) of the same start are walked beside it. All
/// networks are stored, as paths that `fipk path` reads.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk geodesic --model lenet/model --data 'mnist:MNIST?limit=64' --length 0.2 --out walk
  fipk metric --model lenet/model --data 'mnist:MNIST?limit=64' --vectors --top 3 --out top
  fipk geodesic --model lenet/model --data 'mnist:MNIST?limit=64' --direction top/eigenvector-01.safetensors --out walk
  fipk path pca walk/geodesic walk/line walk/null --out pca.svg")]
pub struct Args {
    /// Folder with config.json and safetensors, or a Hugging Face id in the local cache
    #[arg(long, value_name = "DIR|ID")]
    model: String,
    /// Data whose outputs are looked at, as KIND:PATH?key=value; the held-out split unless ?split= names another
    #[arg(long, value_name = "SPEC")]
    data: String,
    /// Where to: random (by --seed), or a safetensors file with a tensor a parameter
    #[arg(long, value_name = "random|FILE", default_value = "random")]
    direction: String,
    /// Of the straight line, relative to the norm of the weights
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    length: f64,
    /// Networks stored after the start, on each path
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    points: u32,
    /// What is added to the metric where it is solved with, over its largest eigenvalue: directions below it count as flat
    #[arg(long, value_name = "SHARE", default_value_t = 1e-6)]
    damping: f64,
    /// The most products with the metric for one acceleration
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    products: u32,
    /// Of the residual that an acceleration may leave, relative to the second-order change of the outputs that it takes back:
    /// that share of what a straight line's speed would do stays
    #[arg(long, value_name = "T", default_value_t = 1e-3)]
    solve_tolerance: f64,
    /// The largest relative change of the outputs' speed in a step, before it is put back; a step that changes more is cut and
    /// taken again
    #[arg(long, value_name = "SHARE", default_value_t = 1e-2)]
    step_change: f64,
    /// How a change of logits is measured: euclidean, or fisher
    #[arg(long, value_name = "METRIC", default_value = "euclidean", value_parser = output_metric())]
    output_metric: OutputMetric,
    /// Folder for the paths, geodesic.json and plots
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace a folder that is there
    #[arg(long)]
    overwrite: bool,
    /// Examples in a batch
    #[arg(long, value_name = "EXAMPLES", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Most tokens of a text, special ones included; longer ones are cut
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = clap::value_parser!(u32).range(3..))]
    max_length: u32,
}

impl Args {
    fn check(&self) -> Result<()> {
        let flags = [
            ("--length", self.length),
            ("--damping", self.damping),
            ("--solve-tolerance", self.solve_tolerance),
            ("--step-change", self.step_change),
        ];
        for (flag, got) in flags {
            if !(got > 0.0 && got.is_finite()) {
                return Err(Error::usage(flag, format!("{got} makes no sense"), "give a number above 0"));
            }
        }
        Ok(())
    }

    fn asked(&self, seed: u64) -> toml::Table {
        let pairs: [(&str, toml::Value); 13] = [
            ("verb", "geodesic".into()),
            ("model", self.model.as_str().into()),
            ("data", self.data.as_str().into()),
            ("direction", self.direction.as_str().into()),
            ("length", self.length.into()),
            ("points", i64::from(self.points).into()),
            ("damping", self.damping.into()),
            ("products", i64::from(self.products).into()),
            ("solve_tolerance", self.solve_tolerance.into()),
            ("step_change", self.step_change.into()),
            ("output_metric", self.output_metric.as_str().into()),
            ("max_length", i64::from(self.max_length).into()),
            ("seed", (seed as i64).into()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    args.check()?;
    let stop = stop::on_interrupt()?;
    let spec: Spec = args.data.parse()?;
    let model = Model::open(&args.model)?;
    let seed = context.seed.unwrap_or(0);
    let data = data::load(&spec, "test", &model.reading(args.max_length as usize, seed)?)?;
    let observed = Observed::new(&model.network, &*data, args.batch as usize)?;
    let layout = model.layout(&Roles::default())?;
    let (mut engine, w) = model.engine(Place::of(context, Purpose::Look)?, layout.clone())?;
    let mut direction = engine.zeros()?;
    if args.direction != "random" {
        engine.write(direction, 0, &tensors::read_direction(Path::new(&args.direction), &layout)?)?;
    }
    let folder = Folder::create(&args.out, args.overwrite)?;
    folder.write("config.toml", |w| write!(w, "{}", args.asked(seed)))?;
    let out = folder.commit()?;

    let mut map = OnEngine::new(&mut *engine, &observed)?;
    if args.direction == "random" {
        map.normal(seed, 0, &mut direction)?;
    }
    let plan = Plan {
        kind: args.output_metric,
        length: args.length,
        points: args.points as usize,
        damping: args.damping,
        accuracy: Accuracy { products: args.products as usize, tolerance: args.solve_tolerance },
        control: Control { speed: args.step_change, ..Control::default() },
        seed,
        classes: matches!(model.network.head, Head::Classification { .. } | Head::MaskedLm),
    };
    let origin =
        Origin { model: args.model.clone(), model_sha256: model.folder.fingerprint()?, data: args.data.clone(), seed };
    let speak = !context.output.quiet && !context.output.json;
    let mut tell = |name: &str, look: &Look| {
        if speak {
            let speed = look.speed.map(|s| format!(", speed {}", number(s))).unwrap_or_default();
            eprintln!("{name:8} {:.3}: drift {}{speed}", look.time, number(look.drift));
        }
    };
    let found = walk(&mut map, w, direction, &plan, (&out, &origin), stop, &mut tell)?;
    let text = serde_json::to_string_pretty(&found)
        .map_err(|e| Error::data("geodesic.json", e.to_string(), "take a shorter --length"))?;
    write_file(&out.join("geodesic.json"), |w| writeln!(w, "{text}"))?;
    for (name, svg) in [("speed.svg", speeds(&found)), ("drift.svg", drifts(&found))] {
        let svg = svg.svg((720, 400))?;
        write_file(&out.join(name), |w| w.write_all(svg.as_bytes()))?;
    }
    context.output.remark(format!("wrote {}", out.display()));
    context.output.result(&json!({ "out": out, "found": found }), &[summary(&found), table(&found)])
}

fn summary(found: &Found) -> Table {
    facts(&[
        ("largest eigenvalue", number(found.largest_eigenvalue)),
        ("damping", number(found.damping)),
        (
            "steps",
            format!("{}, {} of them forced; {} refused", grouped(found.steps as u64), found.forced, found.refused),
        ),
        ("accelerations", grouped(found.accelerations as u64)),
        ("products with the metric", grouped(found.products as u64)),
    ])
}

fn table(found: &Found) -> Table {
    let row = |walk: &Walk| {
        let (last, gap) = (walk.looks.last(), "-".to_string());
        vec![
            walk.name.to_string(),
            number(walk.length),
            last.map_or(gap.clone(), |l| number(l.from_start)),
            last.map_or(gap.clone(), |l| number(l.drift)),
            last.and_then(|l| l.kl).map_or(gap.clone(), number),
            last.and_then(|l| l.flips).map_or(gap.clone(), percent),
            walk.speed_change.map_or(gap, percent),
        ]
    };
    let columns = ["path", "length", "from start", "drift", "KL", "flips", "change of speed"];
    Table {
        title: "Where the paths end".into(),
        columns: columns.map(String::from).to_vec(),
        rows: found.walks.iter().map(row).collect(),
    }
}

fn speeds(found: &Found) -> LinePlot {
    let points = |w: &Walk| w.looks.iter().filter_map(|l| Some((l.time, l.speed?))).collect::<Vec<_>>();
    let walks = found.walks.iter().filter(|w| w.speed_change.is_some());
    LinePlot {
        x_label: "time".into(),
        y_label: "speed of the outputs".into(),
        series: walks.map(|w| series(w, points(w))).collect(),
        ..LinePlot::default()
    }
}

fn drifts(found: &Found) -> LinePlot {
    let points = |w: &Walk| w.looks.iter().skip(1).map(|l| (l.from_start, l.drift)).collect();
    LinePlot {
        x_label: "distance in weights from the start".into(),
        y_label: "drift of the outputs".into(),
        log_y: true,
        series: found.walks.iter().map(|w| series(w, points(w))).collect(),
        ..LinePlot::default()
    }
}

/// The line is dashed: a short geodesic lies all but on it.
fn series(walk: &Walk, points: Vec<(f64, f64)>) -> Series {
    let line = if walk.name == "line" { Line::Dashed } else { Line::Solid };
    Series { line, ..Series::new(walk.name, points) }
}
