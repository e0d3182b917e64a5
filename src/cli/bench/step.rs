//! `fipk bench step`: the step of a path on this machine, phase by phase, to hold against other programs.
use super::super::device::{Place, Purpose, Which, memory_of, open_engine};
use super::super::globals::Context;
use super::super::model::Model;
use super::super::output::facts;
use crate::data::{Batch, Input, Targets, Values};
use crate::engine::{Bindings, Clip, Criterion, Data, Mask, Optimizer, Pattern, Pull, Score, Selected, Update, Vector};
use crate::fip::recipe::Objective;
use crate::fip::runner::{Runner, shape};
use crate::graph::{Mode, Program, Wrt};
use crate::params::Roles;
use crate::report::Table;
use crate::rng::Rng;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::time::Instant;

/// One sparsification step, and a forward, a J v and a Jᵀ u of the same model
///
/// Times are medians in milliseconds over different batches in turn. project_update is the exact choice of what is
/// pruned, and the fused update with its norms: what PyTorch does by kthvalue, masks, a norm and AdamW.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk bench step --model minilm-sst2 --batch 16 --tokens 64 --teacher forward --json
  fipk bench step --model bert-sst2 --batch 32 --tokens 128 --device cuda:0 --dtype bf16")]
pub struct Args {
    /// Folder with config.json and safetensors, or a Hugging Face id in the local cache
    #[arg(long, value_name = "DIR|ID")]
    model: String,
    /// Samples a batch
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Tokens a sample; images have none
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// Where the anchor's logits come from: kept from an earlier epoch, or computed in the step
    #[arg(long, value_enum, default_value_t = Teacher::Cached)]
    teacher: Teacher,
    /// Share of the prunable weights that is drawn to zero
    #[arg(long, default_value_t = 0.6)]
    sparsity: f64,
    /// Steps to time, after two that are not
    #[arg(long, default_value_t = 10)]
    steps: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Teacher {
    Cached,
    Forward,
}

/// Different batches, taken in turn.
const BATCHES: usize = 4;
const WARM_UP: usize = 2;

pub fn run(args: &Args, context: &Context) -> Result<()> {
    if args.batch == 0 || args.tokens == 0 || args.steps == 0 || !(0.0..1.0).contains(&args.sparsity) {
        return Err(Error::usage(
            "bench step",
            "a size of 0, or a sparsity outside 0..1",
            "give positive sizes and a share",
        ));
    }
    let place = Place::of(context, Purpose::Run)?;
    let free = || if let Which::Cuda(_) = place.device { memory_of(place.device) } else { None };
    let before = free();
    let mut bench = Bench::new(args, place, context.seed.unwrap_or(0))?;
    let mut result = bench.steps(args)?;
    // Of the step alone: the passes below are another matter.
    result.insert("peak_rss_mib".into(), json!(peak_rss_mib()));
    if let (Some(before), Some(after)) = (before, free()) {
        // An engine keeps what it once took.
        result.insert("peak_device_mib".into(), json!((before.saturating_sub(after) >> 20) as f64));
    }
    result.insert("device".into(), json!(bench.runner.engine.describe()));
    result.extend(bench.passes(args.steps)?);
    result.insert("threads".into(), json!(rayon::current_num_threads()));
    let rows: Vec<(&str, String)> = result.iter().map(|(k, v)| (k.as_str(), v.to_string())).collect();
    let table: Table = facts(&rows);
    context.output.result(&Value::Object(result.clone()), &[table])
}

struct Bench {
    runner: Runner,
    batches: Vec<Batch>,
    teacher: Vec<Vec<f32>>,
    w: Vector,
    g: Vector,
    m: Vector,
    v: Vector,
    dense: Vector,
    mask: Mask,
}

/// The median of times in milliseconds.
fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).map_or(0.0, |t| (t * 1e3).round() / 1e3)
}

impl Bench {
    fn new(args: &Args, place: Place, seed: u64) -> Result<Self> {
        let model = Model::open(&args.model)?;
        let layout = model.layout(&Roles::default())?;
        let weights = model.network.load(&model.folder, &layout, None)?;
        let mut engine = open_engine(place, layout)?;
        let [w, g, m, v, dense] = [engine.zeros()?, engine.zeros()?, engine.zeros()?, engine.zeros()?, engine.zeros()?];
        engine.write(w, 0, &weights)?;
        engine.write(dense, 0, &weights)?;
        drop(weights);
        let mask = engine.mask()?;
        let mut rng = Rng::new(seed, 0);
        let batches: Vec<Batch> = (0..BATCHES).map(|_| random(&model, args.batch, args.tokens, &mut rng)).collect();
        let mut runner = Runner::new(engine, model.network, Objective::default());
        let teacher = batches.iter().map(|b| runner.logits(dense, b)).collect::<Result<_>>()?;
        Ok(Self { runner, batches, teacher, w, g, m, v, dense, mask })
    }

    /// One step on what is chosen by now.
    fn update(&self, step: usize, chosen: &Selected) -> Update {
        let bits = |x: f32| (chosen.threshold * x).to_bits();
        Update {
            optimizer: Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.01 },
            step: step as u64 + 1,
            learning_rate: 2e-5,
            gradient_scale: 1.0,
            w: self.w,
            g: self.g,
            m: self.m,
            v: Some(self.v),
            mask: Some(self.mask),
            pull: Pull::Gradient { coefficient: 1.0 / chosen.pruned_squares.sqrt().max(1e-30) as f32 },
            census: Some((bits(0.99), bits(1.01))),
        }
    }

    fn teacher(&mut self, how: Teacher, step: usize) -> Result<Vec<f32>> {
        match how {
            Teacher::Cached => Ok(self.teacher[step % BATCHES].clone()),
            Teacher::Forward => self.runner.logits(self.dense, &self.batches[step % BATCHES]),
        }
    }

    /// The whole step as a run makes it; then, in steps of their own, its phases, each waited for.
    fn steps(&mut self, args: &Args) -> Result<Map<String, Value>> {
        let how = Criterion { pattern: Pattern::Global, score: Score::Magnitude, sparsity: args.sparsity };
        let (mut whole, mut times): (Vec<f64>, [Vec<f64>; 5]) = Default::default();
        let mut census = None;
        for step in 0..args.steps + WARM_UP {
            let clock = Instant::now();
            let chosen = self.runner.engine.select(self.w, &how, census.take(), self.mask)?;
            let teacher = self.teacher(args.teacher, step)?;
            let (update, clip) = (self.update(step, &chosen), Clip { mean: 1.0, limit: 0.0 });
            let batch = &self.batches[step % BATCHES];
            let (_, stepped) = self.runner.step(batch, Some(teacher), false, &update, &clip)?;
            census = stepped.updated.census;
            if step >= WARM_UP {
                whole.push(clock.elapsed().as_secs_f64() * 1e3);
            }
        }
        for step in 0..args.steps + WARM_UP {
            let mut clock = Instant::now();
            let mut lap = || {
                let t = clock.elapsed().as_secs_f64() * 1e3;
                clock = Instant::now();
                t
            };
            let chosen = self.runner.engine.select(self.w, &how, census.take(), self.mask)?;
            let select = lap();
            let teacher = self.teacher(args.teacher, step)?;
            let teacher_forward = lap();
            self.runner.gradient(self.w, self.g, &self.batches[step % BATCHES], Some(teacher), false)?;
            let gradient = lap();
            census = self.runner.engine.update(&self.update(step, &chosen))?.census;
            let updated = lap();
            if step >= WARM_UP {
                let each = [select, teacher_forward, gradient, updated, select + updated];
                times.iter_mut().zip(each).for_each(|(all, t)| all.push(t));
            }
        }
        let names = ["select_ms", "teacher_ms", "forward_backward_ms", "update_ms", "project_update_ms"];
        let phases = names.iter().zip(times).map(|(name, t)| (name.to_string(), json!(median(t))));
        Ok(std::iter::once(("step_ms".to_string(), json!(median(whole)))).chain(phases).collect())
    }

    /// Forward alone, J v and Jᵀ u.
    fn passes(&mut self, steps: usize) -> Result<Map<String, Value>> {
        let (rows, sample) = shape(&self.batches[0]);
        let graph = self.runner.network.graph(rows, sample)?;
        let mut out = Map::new();
        for (name, mode) in [("forward_ms", Mode::Forward), ("vjp_ms", Mode::Reverse), ("jvp_ms", Mode::Tangent)] {
            let wrt = if mode == Mode::Forward { Wrt::default() } else { Wrt::params() };
            let program = self.runner.engine.load(Program::compile(&graph, mode, &wrt, "logits")?)?;
            let seed = vec![1.0; self.teacher[0].len()];
            let mut times = Vec::new();
            for step in 0..steps + WARM_UP {
                let inputs: Vec<(&str, Data)> = self.batches[step % BATCHES]
                    .inputs
                    .iter()
                    .map(|i| match &i.values {
                        Values::Real(v) => (i.name, Data::Real(v)),
                        Values::Index(v) => (i.name, Data::Index(v)),
                    })
                    .collect();
                let with = Bindings {
                    tangents: Some(self.m),
                    cotangents: Some(self.g),
                    seed: Some(&seed),
                    ..Bindings::new(self.w, &inputs)
                };
                let clock = Instant::now();
                self.runner.engine.run(program, &with)?;
                // Devices are waited for by reading from them.
                self.runner.engine.read(self.m, 0, &mut [0.0])?;
                if step >= WARM_UP {
                    times.push(clock.elapsed().as_secs_f64() * 1e3);
                }
            }
            out.insert(name.into(), json!(median(times)));
        }
        Ok(out)
    }
}

/// A batch of random tokens, all attended, or of random pixels.
fn random(model: &Model, rows: usize, tokens: usize, rng: &mut Rng) -> Batch {
    let index = |name, values| Input { name, shape: vec![rows, tokens], values: Values::Index(values) };
    let limits = model.network.index_limits();
    let inputs = if let Some(pixels) = model.network.pixels() {
        let values = (0..rows * pixels.count()).map(|_| rng.normal()).collect();
        vec![Input { name: "pixel_values", shape: pixels.shape(rows), values: Values::Real(values) }]
    } else {
        let of = |(name, limit): (&'static str, usize)| {
            let values = (0..rows * tokens).map(|_| match name {
                "attention_mask" => 1,
                "token_type_ids" => 0,
                _ => rng.below(limit) as i32,
            });
            let values = values.collect();
            index(name, values)
        };
        limits.into_iter().map(of).collect()
    };
    Batch { examples: (0..rows).collect(), rows, inputs, targets: Targets::Classes(vec![0; rows]) }
}

/// The largest the process has been, as Linux counts it; 0 where that cannot be read.
fn peak_rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib: Option<f64> = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    kib.map_or(0.0, |k| (k / 1024.0).round())
}
