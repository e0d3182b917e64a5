//! forward, jvp and vjp: a model at the inputs of one safetensors file, block by block of rows.
use super::device::{Place, Purpose};
use super::globals::Context;
use super::model::Model;
use crate::data::Values;
use crate::engine::{Data, Engine, Loaded, Vector};
use crate::graph::{Graph, Kind, Mode, Program, Wrt};
use crate::models::{Network, Pixels, Sample};
use crate::params::save::{self, Data as Stored, Tensor};
use crate::params::weights::{Dtype, TensorInfo, Weights};
use crate::params::{Layout, Roles};
use crate::tensor::{Element, Shape, numel};
use crate::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct PassFlags {
    /// Folder with config.json and safetensors, or a Hugging Face id in the local cache
    #[arg(long, value_name = "DIR|ID")]
    pub model: String,
    /// Safetensors with input_ids, attention_mask, token_type_ids (int32 or int64) or pixel_values (f32), a row a
    /// sample; without a mask all tokens count, without types all are 0
    #[arg(long, value_name = "FILE")]
    pub inputs: PathBuf,
    /// Safetensors to write; replaced if it exists
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Tokens in a block, or values of images: bounds the memory of a pass.
const BLOCK: usize = 1 << 13;

/// A model on an engine, with its inputs.
pub struct Session {
    pub engine: Box<dyn Engine>,
    pub weights: Vector,
    network: Network,
    inputs: Inputs,
    programs: HashMap<usize, Loaded>,
    /// Of the logits of all rows.
    pub shape: Shape,
}

impl Session {
    /// # Errors
    /// Of the model; [`Error::Data`] for inputs that are missing, of another type or shape, or out of range.
    pub fn open(flags: &PassFlags, context: &Context) -> Result<Self> {
        let model = Model::open(&flags.model)?;
        let layout = model.layout(&Roles::default())?;
        let network = model.network.clone();
        let inputs = read_inputs(&flags.inputs, &network)?;
        let (engine, weights) = model.engine(Place::of(context, Purpose::Look)?, layout)?;
        let graph = network.graph(1, inputs.sample)?;
        let mut shape = graph.tensor(graph.mark("logits")?).shape.clone();
        shape[0] = inputs.rows;
        Ok(Self { engine, weights, network, inputs, programs: HashMap::new(), shape })
    }

    pub fn layout(&self) -> &Layout {
        self.engine.layout()
    }

    /// Runs `visit` on every block of rows, in order, with the program for it and its inputs.
    pub fn blocks(
        &mut self,
        mode: Mode,
        mut visit: impl FnMut(&mut dyn Engine, Loaded, Range<usize>, &[(&str, Data)]) -> Result<()>,
    ) -> Result<()> {
        let each = match self.inputs.sample {
            Sample::Tokens(n) => n,
            // An image weighs about as much as the patches of 4 x 4 that it has.
            Sample::Image { height, width } => (height * width).div_ceil(16),
        };
        let size = (BLOCK / each).max(1);
        for start in (0..self.inputs.rows).step_by(size) {
            let block = start..(start + size).min(self.inputs.rows);
            let program = match self.programs.get(&block.len()) {
                Some(&program) => program,
                None => {
                    let graph = self.network.graph(block.len(), self.inputs.sample)?;
                    let wrt = if mode == Mode::Forward { Wrt::default() } else { Wrt::params() };
                    let program = self.engine.load(Program::compile(&graph, mode, &wrt, "logits")?)?;
                    *self.programs.entry(block.len()).or_insert(program)
                }
            };
            let inputs: Vec<(&str, Data)> = self
                .inputs
                .values
                .iter()
                .map(|(name, values)| {
                    let data = match values {
                        Values::Real(v) => Data::Real(&v[part(v.len(), self.inputs.rows, &block)]),
                        Values::Index(v) => Data::Index(&v[part(v.len(), self.inputs.rows, &block)]),
                    };
                    (name.as_str(), data)
                })
                .collect();
            visit(&mut *self.engine, program, block, &inputs)?;
        }
        Ok(())
    }

    /// Where the logits of a block lie among those of all rows.
    pub fn logits_of(&self) -> impl Fn(&Range<usize>) -> Range<usize> + use<> {
        let (len, rows) = (numel(&self.shape), self.inputs.rows);
        move |block| part(len, rows, block)
    }
}

fn part(len: usize, rows: usize, block: &Range<usize>) -> Range<usize> {
    let each = len / rows;
    block.start * each..block.end * each
}

/// A network's inputs by name.
struct Inputs {
    values: Vec<(String, Values)>,
    rows: usize,
    sample: Sample,
}

fn read_inputs(path: &Path, network: &Network) -> Result<Inputs> {
    let file = Weights::open_file(path)?;
    let graph = network.graph(1, network.sample())?;
    let (first, shape) = leading(path, &file, &graph)?;
    let (rows, sample) = match network.max_tokens() {
        Some(limit) => {
            let &[rows, tokens] = &shape[..] else {
                return Err(bad(path, first, format!("wanted [rows, tokens], got {shape:?}")));
            };
            if tokens > limit {
                return Err(bad(path, first, format!("{tokens} tokens, but the model has {limit} positions")));
            }
            (rows, Sample::Tokens(tokens))
        }
        // An image of another size than the network's own says so by its axes.
        None => match (network.pixels(), &shape[..]) {
            (Some(Pixels::Image { .. }), &[rows, _, height, width]) => (rows, Sample::Image { height, width }),
            _ => (shape.first().copied().unwrap_or(0), network.sample()),
        },
    };
    let tokens = sample.tokens();
    if rows == 0 || tokens == 0 || numel(shape) == 0 {
        return Err(bad(path, first, format!("wanted at least one row of one token, got {shape:?}")));
    }
    let graph = network.graph(1, sample)?;
    let limits: HashMap<_, _> = network.index_limits().into_iter().collect();
    let mut inputs: Vec<(String, Values)> = Vec::new();
    for &input in &graph.inputs {
        let t = graph.tensor(input);
        let name = t.name.as_str();
        let wanted: Shape = match t.element {
            Element::Index => vec![rows, tokens],
            Element::Real => vec![rows, t.numel()],
        };
        let values = match (t.element, file.info(name)) {
            (Element::Real, Some(info)) => {
                // [rows, 28, 28] and [rows, 1, 28, 28] are [rows, 784] too.
                if numel(&info.shape) != numel(&wanted) || info.shape.first() != Some(&rows) {
                    return Err(bad(path, name, format!("wanted {wanted:?}, got {:?}", info.shape)));
                }
                let mut values = vec![0.0; numel(&wanted)];
                file.read(name, &info.shape, &mut values)?;
                Values::Real(values)
            }
            (Element::Index, Some(info)) if info.shape == wanted => {
                Values::Index(indices(path, &file, name, info, limits.get(name).copied())?)
            }
            (Element::Index, Some(info)) => {
                return Err(bad(path, name, format!("wanted {wanted:?}, got {:?}", info.shape)));
            }
            (_, None) if name == "attention_mask" => Values::Index(vec![1; rows * tokens]),
            (_, None) => Values::Index(vec![0; rows * tokens]),
        };
        inputs.push((name.to_string(), values));
    }
    for name in file.names().filter(|name| !inputs.iter().any(|(known, _)| known == name)) {
        tracing::warn!("{}: the model takes no '{name}'; left aside", path.display());
    }
    Ok(Inputs { values: inputs, rows, sample })
}

/// The input that must be there, and its shape.
fn leading<'f>(path: &Path, file: &'f Weights, graph: &Graph) -> Result<(&'static str, &'f Shape)> {
    let tokens = graph.inputs.iter().any(|&v| graph.tensor(v).name == "input_ids");
    let name = if tokens { "input_ids" } else { "pixel_values" };
    let names = || file.names().take(8).collect::<Vec<_>>().join(", ");
    let info = file.info(name).ok_or_else(|| bad(path, name, format!("no such tensor; the file has {}", names())))?;
    Ok((name, &info.shape))
}

fn indices(path: &Path, file: &Weights, name: &str, info: &TensorInfo, limit: Option<usize>) -> Result<Vec<i32>> {
    let bytes = file.bytes(name).unwrap_or_default();
    let wide: Vec<i64> = match info.dtype {
        Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        Dtype::I32 => bytes.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
        Dtype::U8 | Dtype::BOOL => bytes.iter().map(|&b| i64::from(b)).collect(),
        other => return Err(bad(path, name, format!("wanted int64 or int32, got {other}"))),
    };
    let limit = limit.unwrap_or(i32::MAX as usize).min(i32::MAX as usize) as i64;
    match wide.iter().position(|&v| v < 0 || v >= limit) {
        Some(at) => Err(bad(path, name, format!("wanted numbers in 0..{limit}, got {} at index {at}", wide[at]))),
        None => Ok(wide.into_iter().map(|v| v as i32).collect()),
    }
}

fn bad(path: &Path, name: &str, what: String) -> Error {
    let hint = "inputs carry Hugging Face's names, one row a sample";
    Error::data(format!("{}: tensor '{name}'", path.display()), what, hint)
}

/// The tensor "logits" of `path`, of exactly this shape.
pub fn read_logits(path: &Path, shape: &[usize]) -> Result<Vec<f32>> {
    let mut values = vec![0.0; numel(shape)];
    Weights::open_file(path)?.read("logits", shape, &mut values)?;
    Ok(values)
}

/// A vector of weight space by the parameters' names; those that are missing are zero.
pub fn read_direction(path: &Path, layout: &Layout) -> Result<Vec<f32>> {
    let file = Weights::open_file(path)?;
    let mut values = vec![0.0; layout.len()];
    let mut seen: Vec<usize> = Vec::new();
    for name in file.names() {
        let what = |what: &str| {
            Error::data(format!("{}: tensor '{name}'", path.display()), what, "name the model's parameters")
        };
        let span = layout.span(name).ok_or_else(|| what("the model has no such parameter"))?;
        if seen.contains(&span.at) {
            return Err(what("is tied to another one of this file"));
        }
        if span.kind == Kind::Statistic {
            return Err(what("is a running average, which no direction moves"));
        }
        seen.push(span.at);
        file.read(name, &span.shape, &mut values[span.range()])?;
    }
    Ok(values)
}

/// A vector of weight space by the parameters' names, without running averages, which lie in it and which nothing moves.
pub fn by_name<'a>(layout: &'a Layout, values: &'a [f32]) -> Vec<(&'a str, &'a [usize], &'a [f32])> {
    let spans = layout.spans().iter().filter(|s| s.kind != Kind::Statistic);
    spans.map(|s| (s.name.as_str(), s.shape.as_slice(), &values[s.range()])).collect()
}

/// Writes f32 tensors.
pub fn write(path: &Path, tensors: &[(&str, &[usize], &[f32])]) -> Result<()> {
    let tensors: Vec<Tensor> = tensors
        .iter()
        .map(|(name, shape, data)| Tensor {
            name: name.to_string(),
            info: TensorInfo { dtype: Dtype::F32, shape: shape.to_vec() },
            data: Stored::Real(data),
        })
        .collect();
    save::write_file(path, &tensors, &[("format".to_string(), "pt".to_string())].into())
}
