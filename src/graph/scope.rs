//! The builder. Its calls do not fail one by one: the first error is kept, with its place in the network,
//! and [`build`] returns it, so that a model reads as the network and not as its error handling.
use super::{Graph, Kind, Param, Source, Tensor, Value};
use crate::ops::{
    Activation, Add, AddPosition, Attention, AveragePool, BatchNorm, Conv2d, CrossEntropy, Distance, Embedding,
    Flatten, Interpolate, LayerNorm, Linear, MaxPool, Mean, Moment, Op, Patches, Prepend, SelectToken, SquaredError,
    Windows,
};
use crate::tensor::{Element, Shape};
use crate::{Error, Result};
use std::cell::RefCell;
use std::sync::Arc;

#[derive(Default)]
struct State {
    graph: Graph,
    error: Option<Error>,
}

/// A place in the module tree, as a path in Hugging Face's names.
pub struct Scope<'g> {
    state: &'g RefCell<State>,
    path: String,
    head: bool,
    batch_statistics: bool,
}

/// Build a graph: `model` makes calls on the root scope and marks what may be differentiated or fetched.
///
/// # Errors
/// The first shape that did not fit, with its op and place.
pub fn build(model: impl FnOnce(&Scope)) -> Result<Graph> {
    let state = RefCell::default();
    model(&Scope { state: &state, path: String::new(), head: false, batch_statistics: false });
    let State { graph, error } = state.into_inner();
    error.map_or(Ok(graph), Err)
}

impl Scope<'_> {
    /// The module `name` inside this one.
    pub fn at(&self, name: impl AsRef<str>) -> Self {
        Self { path: self.name(name.as_ref()), ..self.here() }
    }

    /// The same place, with its weight matrices counted to the task head ([`Kind::Head`]).
    pub fn head(&self) -> Self {
        Self { head: true, ..self.here() }
    }

    /// The same place, where batch normalisations take the statistics of their batch (as they do in training) in place
    /// of the running ones, and mark them by the running ones' names.
    pub fn batch_statistics(&self) -> Self {
        Self { batch_statistics: true, ..self.here() }
    }

    fn here(&self) -> Self {
        Self { state: self.state, path: self.path.clone(), head: self.head, batch_statistics: self.batch_statistics }
    }

    fn name(&self, name: &str) -> String {
        match (self.path.is_empty(), name.is_empty()) {
            (true, _) => name.to_string(),
            (_, true) => self.path.clone(),
            _ => format!("{}.{name}", self.path),
        }
    }

    pub fn shape(&self, x: Value) -> Shape {
        self.state.borrow().graph.tensors[x.0].shape.clone()
    }

    /// The length of an axis, counted from the end if negative.
    pub fn dim(&self, x: Value, axis: isize) -> usize {
        let state = self.state.borrow();
        let shape = &state.graph.tensors[x.0].shape;
        let at = if axis < 0 { shape.len() as isize + axis } else { axis };
        usize::try_from(at).ok().and_then(|i| shape.get(i)).copied().unwrap_or(0)
    }

    fn push(&self, name: String, shape: Shape, element: Element, source: Source) -> Value {
        if shape.contains(&0) {
            self.fail("shape", name.clone(), format!("an axis of {shape:?} has no length"));
        }
        let graph = &mut self.state.borrow_mut().graph;
        graph.tensors.push(Tensor { name, shape, element, source });
        Value(graph.tensors.len() - 1)
    }

    fn fail(&self, op: &'static str, place: String, what: String) {
        self.state.borrow_mut().error.get_or_insert(Error::Graph { op, place, what });
    }

    /// A named input; the same name and shape twice is the same input.
    pub fn input(&self, name: &str, shape: &[usize], element: Element) -> Value {
        let found = {
            let graph = &self.state.borrow().graph;
            graph.inputs.iter().copied().find(|v| graph.tensors[v.0].name == name)
        };
        if let Some(value) = found {
            if self.state.borrow().graph.tensors[value.0].shape != shape {
                self.fail("input", name.to_string(), format!("declared twice, with another shape {shape:?}"));
            }
            return value;
        }
        let nth = self.state.borrow().graph.inputs.len();
        let value = self.push(name.to_string(), shape.to_vec(), element, Source::Input(nth));
        self.state.borrow_mut().graph.inputs.push(value);
        value
    }

    /// A parameter of this module. Weight matrices take [`Kind::Head`] inside [`Scope::head`].
    pub fn param(&self, name: &str, shape: &[usize], kind: Kind) -> Value {
        let name = self.name(name);
        let kind = if self.head && kind == Kind::Weight { Kind::Head } else { kind };
        if self.state.borrow().graph.params.iter().any(|p| p.name == name) {
            self.fail("param", name.clone(), "declared twice".to_string());
        }
        let nth = self.state.borrow().graph.params.len();
        let param = Param { name: name.clone(), shape: shape.to_vec(), kind, aliases: Vec::new() };
        self.state.borrow_mut().graph.params.push(param);
        self.push(name, shape.to_vec(), Element::Real, Source::Param(nth))
    }

    /// Another name, in this module, of a parameter that is there already.
    pub fn tie(&self, name: &str, param: Value) -> Value {
        let alias = self.name(name);
        let source = self.state.borrow().graph.tensors[param.0].source.clone();
        match source {
            Source::Param(nth) => self.state.borrow_mut().graph.params[nth].aliases.push(alias),
            _ => self.fail("tie", alias, "wanted a parameter to tie to, got another tensor".to_string()),
        }
        param
    }

    /// Let `value` be differentiated and fetched as `name`.
    pub fn mark(&self, name: &str, value: Value) {
        if self.state.borrow().graph.marks.iter().any(|m| m.0 == name) {
            self.fail("mark", name.to_string(), "marked twice".to_string());
        }
        self.state.borrow_mut().graph.marks.push((name.to_string(), value));
    }

    /// Apply an op.
    pub fn apply(&self, op: impl Op + 'static, args: &[Value]) -> Value {
        let (name, place) = (op.name(), self.path.clone());
        let (shape, wrong) = {
            let graph = &self.state.borrow().graph;
            let shapes: Vec<&[usize]> = args.iter().map(|a| graph.tensors[a.0].shape.as_slice()).collect();
            let wrong = args.iter().enumerate().find(|(i, a)| graph.tensors[a.0].element != op.element(*i));
            (op.output(&shapes), wrong.map(|(i, a)| (i, graph.tensors[a.0].element)))
        };
        if let Some((i, got)) = wrong {
            self.fail(name, place.clone(), format!("input {i} wants {:?} elements, got {got:?}", op.element(i)));
        }
        let shape = shape.unwrap_or_else(|what| {
            self.fail(name, place, what);
            // A stand-in, so that building goes on to its end; the error is returned there.
            args.first().map(|a| self.state.borrow().graph.tensors[a.0].shape.clone()).unwrap_or_default()
        });
        self.push(self.name(name), shape, Element::Real, Source::Node { op: Arc::new(op), args: args.to_vec() })
    }

    /// `name.weight` [n, k] and `name.bias` \[n\] on x [.., k].
    pub fn linear(&self, name: &str, x: Value, n: usize) -> Value {
        let s = self.at(name);
        let w = s.param("weight", &[n, self.dim(x, -1)], Kind::Weight);
        let b = s.param("bias", &[n], Kind::Bias);
        s.linear_by(x, w, b)
    }

    /// [`Scope::linear`] without a bias.
    pub fn linear_unbiased(&self, name: &str, x: Value, n: usize) -> Value {
        let w = self.at(name).param("weight", &[n, self.dim(x, -1)], Kind::Weight);
        self.at(name).apply(Linear, &[x, w])
    }

    /// x Wᵀ + b of parameters that are there already.
    pub fn linear_by(&self, x: Value, w: Value, b: Value) -> Value {
        self.apply(Linear, &[x, w, b])
    }

    /// `name.weight` [outputs, C/groups, kh, kw] and, where there is a bias, `name.bias` \[outputs\] on x [N, C, H, W].
    pub fn conv2d(&self, name: &str, x: Value, outputs: usize, kernel: [usize; 2], op: Conv2d, bias: bool) -> Value {
        let s = self.at(name);
        let w = s.param("weight", &[outputs, self.dim(x, 1) / op.groups.max(1), kernel[0], kernel[1]], Kind::Weight);
        let b = bias.then(|| s.param("bias", &[outputs], Kind::Bias));
        s.apply(op, &[x, w].into_iter().chain(b).collect::<Vec<_>>())
    }

    pub fn add(&self, a: Value, b: Value) -> Value {
        self.apply(Add, &[a, b])
    }

    /// `name.weight` \[n\] and `name.bias` \[n\] on the last axis of x [.., n].
    pub fn layer_norm(&self, name: &str, x: Value, eps: f32) -> Value {
        let (s, n) = (self.at(name), self.dim(x, -1));
        let w = s.param("weight", &[n], Kind::Norm);
        let b = s.param("bias", &[n], Kind::Bias);
        s.apply(LayerNorm { eps }, &[x, w, b])
    }

    /// `name.weight`, `bias` and the running averages `running_mean` and `running_var`, all \[C\], on x [N, C, ..].
    pub fn batch_norm(&self, name: &str, x: Value, eps: f32) -> Value {
        let (s, c) = (self.at(name), self.dim(x, 1));
        let w = s.param("weight", &[c], Kind::Norm);
        let b = s.param("bias", &[c], Kind::Bias);
        let running = ["running_mean", "running_var"].map(|name| (name, s.param(name, &[c], Kind::Statistic)));
        let moments = [Moment::Mean, Moment::Variance];
        let [mean, variance] = match self.batch_statistics {
            false => running.map(|r| r.1),
            true => [0, 1].map(|i| {
                let value = s.apply(moments[i], &[x]);
                s.mark(&s.name(running[i].0), value);
                value
            }),
        };
        s.apply(BatchNorm { eps }, &[x, mean, variance, w, b])
    }

    pub fn max_pool(&self, windows: Windows, x: Value) -> Value {
        self.apply(MaxPool { windows }, &[x])
    }

    pub fn average_pool(&self, op: AveragePool, x: Value) -> Value {
        self.apply(op, &[x])
    }

    /// [N, ..] as [N, k].
    pub fn flatten(&self, x: Value) -> Value {
        self.apply(Flatten, &[x])
    }

    /// q, k, v [B, S, H D] with their heads side by side, mask [B, S] (1: attend, 0: padding).
    pub fn attention(&self, heads: usize, q: Value, k: Value, v: Value, mask: Value) -> Value {
        self.apply(Attention { heads }, &[q, k, v, mask])
    }

    /// [`Scope::attention`] without padding.
    pub fn attention_to_all(&self, heads: usize, q: Value, k: Value, v: Value) -> Value {
        self.apply(Attention { heads }, &[q, k, v])
    }

    /// The convolution `name.weight` [hidden, C, p, q] and `name.bias` of images x [N, C, H, W] whose stride is its
    /// kernel: a row a patch, [N, (H/p) (W/q), hidden].
    pub fn patch_embedding(&self, name: &str, x: Value, (height, width): (usize, usize), hidden: usize) -> Value {
        let s = self.at(name);
        let w = s.param("weight", &[hidden, self.dim(x, 1), height, width], Kind::Weight);
        let b = s.param("bias", &[hidden], Kind::Bias);
        s.linear_by(s.apply(Patches { height, width }, &[x]), w, b)
    }

    /// Tokens [1, 1, H] before those of each sample of x [B, S, H].
    pub fn prepend(&self, tokens: &[Value], x: Value) -> Value {
        self.apply(Prepend, &[&[x], tokens].concat())
    }

    /// x [B, S, H] plus the first S rows of a table [1, P, H].
    pub fn add_positions_of(&self, x: Value, table: Value) -> Value {
        self.apply(AddPosition, &[x, table])
    }

    /// Position embeddings [1, P, H] for another grid of patches.
    pub fn interpolate(&self, how: Interpolate, table: Value) -> Value {
        self.apply(how, &[table])
    }

    /// (a + b) / 2.
    pub fn mean(&self, a: Value, b: Value) -> Value {
        self.apply(Mean, &[a, b])
    }

    pub fn activation(&self, f: Activation, x: Value) -> Value {
        self.apply(f, &[x])
    }

    /// `name.weight` [vocab, hidden] and its rows by ids [..]: [.., hidden].
    pub fn embedding(&self, name: &str, ids: Value, vocab: usize, hidden: usize) -> Value {
        let s = self.at(name);
        let table = s.param("weight", &[vocab, hidden], Kind::Embedding);
        s.lookup(ids, table)
    }

    /// Rows of a table [V, H] by ids [..]: [.., H].
    pub fn lookup(&self, ids: Value, table: Value) -> Value {
        self.apply(Embedding, &[ids, table])
    }

    /// x [B, S, H] plus the first S rows of `name.weight` [positions, H].
    pub fn add_position(&self, name: &str, x: Value, positions: usize) -> Value {
        let s = self.at(name);
        let table = s.param("weight", &[positions, self.dim(x, -1)], Kind::Embedding);
        s.apply(AddPosition, &[x, table])
    }

    /// Token `index` of each sequence: [B, S, H] to [B, H].
    pub fn select_token(&self, x: Value, index: usize) -> Value {
        self.apply(SelectToken { index }, &[x])
    }

    /// Σ_r w_r times row r's cross-entropy, of logits [.., C], labels [..] and constant weights [..]: \[1\].
    pub fn cross_entropy(&self, logits: Value, labels: Value, weights: Value) -> Value {
        self.apply(CrossEntropy, &[logits, labels, weights])
    }

    /// Σ_r w_r times row r's mean squared error, of two [.., C] and constant weights [..]: \[1\].
    pub fn squared_error(&self, prediction: Value, target: Value, weights: Value) -> Value {
        self.apply(SquaredError, &[prediction, target, weights])
    }

    /// Σ_r w_r times row r's distance, of two [.., C] and constant weights [..]: \[1\].
    pub fn distance(&self, kind: Distance, student: Value, teacher: Value, weights: Value) -> Value {
        self.apply(kind, &[student, teacher, weights])
    }
}
