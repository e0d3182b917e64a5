//! `fipk plan`: what a run takes of a device's memory, and which batch would fit.
use super::device::{Numbers, Place, Purpose, Which, memory_of};
use super::flags::set;
use super::globals::Context;
use super::model::Model;
use super::output::{facts, print};
use super::project::missing;
use super::settings::Settings;
use crate::Result;
use crate::engine::Dtype;
use crate::fip::memory::{Footprint, Needs};
use crate::fip::objective;
use crate::fip::recipe::Method;
use crate::fip::step::StepKind;
use crate::graph::{Lowering, Mode, Program, Wrt};
use crate::models::Sample;
use crate::params::Role;
use crate::report::numbers::{bytes, grouped};
use serde_json::{Map, Value, json};

/// Say what a run needs of a device's memory before it starts, and which batch would fit
///
/// Counts what `fipk sparsify` (or `train`) of this model keeps on the device: weights, gradient, moments, masks, and
/// what the programs for logits and for the gradient need. No device is needed to ask: --memory says how much a device
/// has. What the CUDA driver takes for itself, some hundred MiB, is not counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk plan --model bert-sst2 --batch 32 --tokens 128
  fipk plan --model bert-sst2 --step exact
  fipk plan --model bert-sst2 --batch 512 --tokens 512 --dtype bf16 --memory 80GiB --json
  fipk plan --model bert-sst2 --calls tangent --lowered")]
pub struct Args {
    /// Folder with config.json and safetensors, or a Hugging Face id in the local cache
    #[arg(long, value_name = "DIR|ID")]
    model: Option<String>,
    /// What the run does [default: fip]
    #[arg(long, value_name = "METHOD", value_parser = super::flags::method())]
    method: Option<Method>,
    /// What the path's steps are solved by; with exact and null the metric's vectors and programs are counted too
    /// [default: gradient]
    #[arg(long, value_name = "KIND", value_parser = super::flags::one_of::<StepKind>(&["gradient", "exact", "null"]))]
    step: Option<StepKind>,
    /// Examples in a batch [default: 16; 64 for an mlp]
    #[arg(long, value_name = "EXAMPLES", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Tokens of a text; images have none [default: 128]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    tokens: Option<u32>,
    /// Training examples, whose dense logits are kept in main memory [default: 0]
    #[arg(long, value_name = "EXAMPLES")]
    examples: Option<u64>,
    /// A device with so much memory, as 80GiB or 24GB, in place of the one that is there [default: what is free]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<usize>,
    /// Print the calls of a program in place of all that: of logits, of their tangent, or of the objective's gradient
    #[arg(long, value_name = "PROGRAM", value_enum)]
    calls: Option<Calls>,
    /// The calls as a CUDA device makes them, neighbours fused unless FIPK_FUSE=0, in place of those of the CPU
    #[arg(long, requires = "calls")]
    lowered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Calls {
    Forward,
    Tangent,
    Reverse,
}

/// The program of a run's batch.
fn program(calls: Calls, needs: &Needs) -> Result<Program> {
    let (r, rows) = (needs.recipe, needs.recipe.budget.batch);
    let frozen = || needs.layout.with_role(Role::Frozen).map(|s| s.name.clone()).collect();
    let logits = |mode, wrt: Wrt| Program::compile(&needs.network.graph(rows, needs.sample)?, mode, &wrt, "logits");
    match calls {
        Calls::Forward => logits(Mode::Forward, Wrt::default()),
        Calls::Tangent => logits(Mode::Tangent, Wrt { frozen: frozen(), ..Wrt::params() }),
        Calls::Reverse => {
            let graph = objective::graph(needs.network, &r.objective, rows, needs.sample)?;
            objective::reverse(&graph, needs.layout)
        }
    }
}

fn print_calls(calls: Calls, lowered: bool, needs: &Needs, context: &Context) -> Result<()> {
    let mut program = program(calls, needs)?;
    if lowered {
        program = program.lowered(Lowering::device())?;
    }
    let text = program.to_string();
    let mut lines = text.lines();
    let (first, calls) = (lines.next().unwrap_or_default(), lines.collect::<Vec<_>>());
    let mode = first.split(':').next();
    match context.output.json {
        true => context
            .output
            .result(&json!({ "mode": mode, "lowered": lowered, "arena_floats": program.arena, "calls": calls }), &[]),
        false => print(text.trim_end()),
    }
}

/// `80GiB`, `24GB`, `512MiB`, or bytes.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit: f64 = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" => 1024.0,
        "mib" => 1048576.0,
        "gib" => 1073741824.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err("wanted a size, as 80GiB or 24GB".into()),
    };
    let value = digits.parse::<f64>().ok().filter(|v| v.is_finite() && *v > 0.0);
    value.map(|v| (v * unit) as usize).ok_or_else(|| "wanted a size, as 80GiB or 24GB".into())
}

/// A batch in words.
fn shape(rows: usize, sample: Sample) -> String {
    match sample {
        Sample::Tokens(tokens) => format!("{rows} x {tokens} tokens"),
        Sample::Image { height, width } => format!("{rows} x {height} x {width} pixels"),
    }
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    let of_file = Settings::of_file(context)?;
    let name =
        args.model.clone().or(of_file.model).ok_or_else(|| missing("--model", "a folder or a Hugging Face id"))?;
    let model = Model::open(&name)?;
    let batch = args.batch.map(|n| n as usize);
    let config = &model.network.config;
    let quiet = Context { device: Some(Which::Cpu), dtype: None, ..context.clone() };
    let mut recipe = Settings::resolve(&quiet, Some(config), args.method, None, batch)?.recipe();
    set(&mut recipe.step.kind, args.step);
    recipe.check()?;
    let layout = model.layout(&recipe.roles)?;
    let sample = match model.network.max_tokens() {
        Some(limit) => Sample::Tokens(args.tokens.map_or(of_file.max_length, |n| n as usize).min(limit)),
        None => model.network.sample(),
    };
    let (device, dtype) = place(args, context)?;
    let needs = Needs { network: &model.network, layout: &layout, recipe: &recipe, sample, dtype };
    if let Some(calls) = args.calls {
        return print_calls(calls, args.lowered, &needs, context);
    }
    let found = needs.of(recipe.budget.batch)?;
    let room = match args.memory {
        Some(bytes) => Some(("given", bytes)),
        None => memory_of(device).map(|bytes| ("free", bytes)),
    };
    let fits = room.map(|(_, bytes)| needs.largest(bytes)).transpose()?;
    let kept = args.examples.unwrap_or(0) as usize * model.network.head.outputs() * 4;
    let object = json!({
        "model": name,
        "device": device.to_string(),
        "dtype": numbers(dtype),
        "batch": recipe.budget.batch,
        "tokens": sample.tokens(),
        "step": recipe.step.kind,
        "bytes": found.parts.iter().map(|(what, n)| (what.replace(' ', "_"), json!(n))).collect::<Map<_, _>>(),
        "activations_by_program": found.programs.iter().map(|(what, n)| (what.to_string(), json!(n))).collect::<Map<_, _>>(),
        "total": found.total(),
        "teacher_logits_in_main_memory": kept,
        "room": room.map(|r| r.1),
        "fits": room.map(|r| found.total() <= r.1),
        "largest_batch": fits.flatten().map_or(Value::Null, |n| json!(n)),
    });
    let mut rows =
        vec![("device", format!("{device}, {}", numbers(dtype))), ("batch", shape(recipe.budget.batch, sample))];
    if recipe.step.in_metric() && recipe.method == Method::Fip {
        let step = &recipe.step;
        let (kind, products) = (step.kind.as_str(), step.products);
        let over = if step.metric_batches == 1 { "a batch".into() } else { format!("{} batches", step.metric_batches) };
        rows.push(("step", format!("{kind}: at most {products} products with the metric of {over}")));
    }
    rows.extend(told(&found));
    if kept > 0 {
        rows.push(("teacher logits", format!("{} of main memory", bytes(kept as u64))));
    }
    if let (Some((how, room)), Some(fits)) = (room, fits) {
        let verdict = if found.total() <= room { "it fits" } else { "it does not fit" };
        rows.push(("memory", format!("{} {how}: {verdict}", bytes(room as u64))));
        rows.push(("largest batch", fits.map_or("none".into(), |n| grouped(n as u64))));
    }
    context.output.result(&object, &[facts(&rows)])
}

/// The device asked about and what it would compute in; it need not be there.
fn place(args: &Args, context: &Context) -> Result<(Which, Option<Dtype>)> {
    let device = match (context.device, args.memory.is_some() || context.dtype.is_some()) {
        (Some(device), _) if device != Which::Auto => device,
        // Sizes and types are asked of a device.
        (_, true) => Which::Cuda(0),
        _ => Place::settle(None, None, Purpose::Run)?.device,
    };
    match device {
        Which::Auto | Which::Cpu => Ok((Place::settle(Some(device), context.dtype, Purpose::Run)?.device, None)),
        device => Ok((device, Some(context.dtype.unwrap_or(Numbers::Bf16).stored()))),
    }
}

fn numbers(dtype: Option<Dtype>) -> &'static str {
    dtype.map_or("f32", Dtype::suffix)
}

fn told(found: &Footprint) -> Vec<(&'static str, String)> {
    let [(a, of_a), (b, of_b)] = found.programs;
    let mut rows: Vec<(&str, String)> = found.parts.iter().map(|&(what, n)| (what, bytes(n as u64))).collect();
    if let Some(row) = rows.iter_mut().find(|r| r.0 == "activations") {
        row.1 += &format!(" ({a} {}, {b} {})", bytes(of_a as u64), bytes(of_b as u64));
    }
    rows.retain(|r| r.1 != bytes(0));
    rows.push(("total", bytes(found.total() as u64)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("80GiB"), Ok(80 << 30));
        assert_eq!(size("1.5 GB"), Ok(1_500_000_000));
        assert_eq!(size("4096"), Ok(4096));
        for text in ["", "GiB", "-1GiB", "80 giraffes", "NaN", "inf"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
