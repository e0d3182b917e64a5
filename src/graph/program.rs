//! A graph compiled for one mode: a flat list of calls on buffers. Differentiation ends here.
use super::fuse::fuse;
use super::{Graph, Kind, Source, Value, plan};
use crate::ops::{Cost, Op, Pass};
use crate::tensor::{Element, Shape, numel};
use crate::{Error, Result};
use std::sync::Arc;

/// What a program computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// y.
    Forward,
    /// y and J v in one pass.
    Tangent,
    /// y and Jᵀ u.
    Reverse,
}

/// What a program differentiates with respect to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wrt {
    /// The parameters that a layout trains (see [`Wrt::params`]); statistics are none of them.
    pub params: bool,
    /// Names of parameters that are left out.
    pub frozen: Vec<String>,
    /// Names of real inputs.
    pub inputs: Vec<String>,
}

impl Wrt {
    /// With respect to every parameter.
    pub fn params() -> Self {
        Self { params: true, ..Self::default() }
    }
    /// With respect to the inputs of these names alone.
    pub fn inputs(names: &[&str]) -> Self {
        Self { inputs: names.iter().map(|n| n.to_string()).collect(), ..Self::default() }
    }
}

/// Where a buffer lives. Vectors of weight space are flat; a parameter's place in them is its layout's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    Input(usize),
    /// A direction in an input.
    InputTangent(usize),
    Param(usize),
    /// A direction in weight space, at a parameter.
    Tangent(usize),
    /// A gradient in weight space, at a parameter.
    Cotangent(usize),
    /// The cotangent u of the output, as the caller gave it.
    Seed,
    /// An offset in the arena, given by the planner.
    Work(usize),
}

#[derive(Clone, Debug)]
pub struct Buffer {
    pub shape: Shape,
    pub element: Element,
    pub home: Home,
    /// The tensor it belongs to, and what of it this is.
    pub name: String,
}

impl Buffer {
    pub fn numel(&self) -> usize {
        numel(&self.shape)
    }
}

/// An index into [`Program::buffers`].
pub type Id = usize;

/// One pass of one op on buffers.
#[derive(Clone, Debug)]
pub struct Call {
    pub op: Arc<dyn Op>,
    pub name: String,
    pub pass: Pass,
    pub x: Vec<Id>,
    pub y: Id,
    pub saved: Option<Id>,
    pub dx: Vec<Option<Id>>,
    /// The output's tangent (jvp) or cotangent (vjp).
    pub dy: Option<Id>,
    /// The cotangents to write, and whether each is added to.
    pub gx: Vec<Option<(Id, bool)>>,
}

impl Call {
    /// Whether this call reads input `i` (a reverse pass reads only what its op names).
    pub fn reads_input(&self, i: usize) -> bool {
        self.pass != Pass::Vjp || self.op.reverse_reads().inputs.contains(&i)
    }
    pub fn reads_output(&self) -> bool {
        match self.pass {
            Pass::Forward | Pass::Dual => false,
            Pass::Jvp => true,
            Pass::Vjp => self.op.reverse_reads().output,
        }
    }
    /// Every buffer the call reads.
    pub fn reads(&self) -> Vec<Id> {
        let mut ids: Vec<Id> = (0..self.x.len()).filter(|&i| self.reads_input(i)).map(|i| self.x[i]).collect();
        if self.reads_output() {
            ids.push(self.y);
        }
        match self.pass {
            Pass::Forward => {}
            Pass::Dual => ids.extend(self.dx.iter().flatten()),
            Pass::Jvp => {
                ids.extend(self.saved);
                ids.extend(self.dx.iter().flatten());
            }
            Pass::Vjp => {
                ids.extend(self.saved);
                ids.extend(self.dy);
            }
        }
        ids
    }
    /// Every buffer the call writes (or adds to).
    pub fn writes(&self) -> Vec<Id> {
        match self.pass {
            Pass::Forward => std::iter::once(self.y).chain(self.saved).collect(),
            Pass::Jvp => self.dy.into_iter().collect(),
            Pass::Vjp => self.gx.iter().flatten().map(|g| g.0).collect(),
            Pass::Dual => std::iter::once(self.y).chain(self.saved).chain(self.dy).collect(),
        }
    }
}

/// What an engine has of a program before it runs it: fewer and larger calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lowering {
    /// Neighbours as one op, where there is such a one and nobody else sees what lies between.
    pub fuse: bool,
    /// Batch norms with the ReLU behind them, and what is added between: the host alone has passes for that.
    pub rectify: bool,
    /// Forward and jvp of an op as one call, where the op has that ([`Op::dual`]).
    pub dual: bool,
}

impl Lowering {
    /// The calls as they are compiled.
    pub const NONE: Self = Self { fuse: false, rectify: false, dual: false };
    /// All that devices have kernels for.
    pub const ALL: Self = Self { fuse: true, dual: true, ..Self::NONE };
    /// What is faster on the host. Its matrix products leave nothing for an epilogue to save.
    pub const HOST: Self = Self { rectify: true, ..Self::NONE };

    /// What engines of devices take: everything, unless the environment says `FIPK_FUSE=0`.
    pub fn device() -> Self {
        if unfused() { Self::NONE } else { Self::ALL }
    }

    /// What the host takes, likewise.
    pub fn host() -> Self {
        if unfused() { Self::NONE } else { Self::HOST }
    }
}

fn unfused() -> bool {
    std::env::var("FIPK_FUSE").is_ok_and(|value| value == "0")
}

/// What a program was compiled from, so that an engine can have it made anew its own way.
#[derive(Debug)]
struct Origin {
    graph: Graph,
    wrt: Wrt,
    of: String,
}

#[derive(Clone, Debug)]
pub struct Program {
    pub mode: Mode,
    pub calls: Vec<Call>,
    pub buffers: Vec<Buffer>,
    /// Floats of arena.
    pub arena: usize,
    pub output: Id,
    /// J v (Tangent) or the seed u (Reverse); `None` where nothing asked for is reached.
    pub d_output: Option<Id>,
    /// What can be read after a run: marks, and `grad.<input>` for inputs differentiated in reverse.
    pub fetches: Vec<(String, Id)>,
    /// Names of the inputs by number; those the program does not read need not be given.
    pub inputs: Vec<(String, Option<Id>)>,
    /// Parameters whose cotangent no call writes: it is zero.
    pub unreached: Vec<usize>,
    lowering: Lowering,
    origin: Arc<Origin>,
}

impl Program {
    /// Compile the part of `graph` that the mark `of` depends on.
    ///
    /// # Errors
    /// A mark, an input or a parameter of `wrt` that the graph does not have.
    pub fn compile(graph: &Graph, mode: Mode, wrt: &Wrt, of: &str) -> Result<Self> {
        let origin = Arc::new(Origin { graph: graph.clone(), wrt: wrt.clone(), of: of.into() });
        Self::compile_as(graph, mode, &origin, Lowering::NONE)
    }

    /// The same computation with the calls that an engine asks for; inputs, parameters and what can be fetched stay.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn lowered(&self, how: Lowering) -> Result<Self> {
        let graph = &self.origin.graph;
        if how == self.lowering {
            return Ok(self.clone());
        }
        match how.fuse || how.rectify {
            true => Self::compile_as(&fuse(graph, how), self.mode, &self.origin, how),
            false => Self::compile_as(graph, self.mode, &self.origin, how),
        }
    }

    fn compile_as(graph: &Graph, mode: Mode, origin: &Arc<Origin>, how: Lowering) -> Result<Self> {
        let (wrt, of) = (&origin.wrt, &origin.of);
        let output = graph.mark(of)?;
        let needed = ancestors(graph, output);
        let reached = reached(graph, wrt, &needed)?;
        let mut c = Compiler { graph, mode, needed, reached, buffers: Vec::new() };

        let n = graph.tensors.len();
        let (mut primal, mut saved, mut d) = (vec![None; n], vec![None; n], vec![None; n]);
        for i in 0..n {
            if c.needed[i] {
                (primal[i], saved[i], d[i]) = (Some(c.primal(i)), c.saved(i), c.derivative(i, output));
            }
        }
        let mut calls = c.calls(&primal, &saved, &d);
        if how.dual {
            calls = duals(calls);
        }
        let marked = graph.marks.iter().filter_map(|(name, v)| Some((name.clone(), primal[v.0]?)));
        let mut fetches: Vec<(String, Id)> = marked.collect();
        if mode == Mode::Reverse {
            let grads =
                graph.inputs.iter().filter_map(|v| Some((format!("grad.{}", graph.tensors[v.0].name), d[v.0]?)));
            fetches.extend(grads);
        }
        let written: Vec<Home> = d.iter().flatten().map(|&id: &Id| c.buffers[id].home).collect();
        let unreached = (0..graph.params.len()).filter(|&p| !written.contains(&Home::Cotangent(p))).collect();
        let mut program = Program {
            mode,
            calls,
            output: primal[output.0].unwrap_or_default(),
            d_output: d[output.0],
            buffers: c.buffers,
            arena: 0,
            fetches,
            inputs: graph.inputs.iter().map(|v| (graph.tensors[v.0].name.clone(), primal[v.0])).collect(),
            unreached,
            lowering: how,
            origin: origin.clone(),
        };
        let placed = plan::place(&program, plan::ALIGN, |id| program.buffers[id].numel());
        for (b, at) in program.buffers.iter_mut().zip(placed.at) {
            b.home = at.map_or(b.home, Home::Work);
        }
        program.arena = placed.size;
        Ok(program)
    }

    /// FLOPs and bytes of one run, on paper.
    pub fn cost(&self) -> Cost {
        let mut total = Cost::default();
        for c in &self.calls {
            let shapes: Vec<&[usize]> = c.x.iter().map(|&id| self.buffers[id].shape.as_slice()).collect();
            total += c.op.cost(c.pass, &shapes);
        }
        total
    }
}

/// Which tensors `output` is computed from, itself included.
fn ancestors(graph: &Graph, output: Value) -> Vec<bool> {
    let mut needed = vec![false; graph.tensors.len()];
    needed[output.0] = true;
    for i in (0..=output.0).rev() {
        if let (true, Source::Node { args, .. }) = (needed[i], &graph.tensors[i].source) {
            args.iter().for_each(|a| needed[a.0] = true);
        }
    }
    needed
}

/// Which tensors depend on something differentiated: only those have a tangent or cotangent.
fn reached(graph: &Graph, wrt: &Wrt, needed: &[bool]) -> Result<Vec<bool>> {
    let missing = |place: &str, what: &str| Error::Graph { op: "compile", place: place.into(), what: what.into() };
    for name in &wrt.inputs {
        let found = graph.inputs.iter().find(|v| graph.tensors[v.0].name == *name);
        match found.map(|v| graph.tensors[v.0].element) {
            Some(Element::Real) => {}
            Some(Element::Index) => return Err(missing(name, "an input of indices has no derivative")),
            None => return Err(missing(name, "the graph has no input of this name to differentiate")),
        }
    }
    for name in &wrt.frozen {
        if !graph.params.iter().any(|p| p.name == *name) {
            return Err(missing(name, "the graph has no parameter of this name to freeze"));
        }
    }
    let mut reached = vec![false; graph.tensors.len()];
    for (i, t) in graph.tensors.iter().enumerate() {
        reached[i] = needed[i]
            && match &t.source {
                Source::Input(_) => wrt.inputs.contains(&t.name),
                Source::Param(nth) => {
                    wrt.params && graph.params[*nth].kind != Kind::Statistic && !wrt.frozen.contains(&t.name)
                }
                Source::Node { args, .. } => args.iter().any(|a| reached[a.0]),
            };
    }
    Ok(reached)
}

/// One call of each op's forward and the jvp that follows it, where the op has one.
fn duals(calls: Vec<Call>) -> Vec<Call> {
    let mut merged: Vec<Call> = Vec::with_capacity(calls.len());
    for call in calls {
        match merged.last_mut() {
            // A jvp stands behind its forward, and a tensor is written by one.
            Some(last) if call.pass == Pass::Jvp && last.y == call.y && call.op.dual() => {
                *last = Call { pass: Pass::Dual, ..call };
            }
            _ => merged.push(call),
        }
    }
    merged
}

struct Compiler<'g> {
    graph: &'g Graph,
    mode: Mode,
    needed: Vec<bool>,
    reached: Vec<bool>,
    buffers: Vec<Buffer>,
}

impl Compiler<'_> {
    fn buffer(&mut self, shape: &[usize], element: Element, home: Home, name: String) -> Id {
        self.buffers.push(Buffer { shape: shape.to_vec(), element, home, name });
        self.buffers.len() - 1
    }

    fn primal(&mut self, i: usize) -> Id {
        let t = &self.graph.tensors[i];
        let home = match t.source {
            Source::Input(nth) => Home::Input(nth),
            Source::Param(nth) => Home::Param(nth),
            Source::Node { .. } => Home::Work(0),
        };
        self.buffer(&t.shape, t.element, home, t.name.clone())
    }

    fn saved(&mut self, i: usize) -> Option<Id> {
        let t = &self.graph.tensors[i];
        let Source::Node { op, args } = &t.source else { return None };
        let shapes: Vec<&[usize]> = args.iter().map(|a| self.graph.tensors[a.0].shape.as_slice()).collect();
        let len = op.saved(&shapes);
        (len > 0).then(|| self.buffer(&[len], Element::Real, Home::Work(0), format!("saved.{}", t.name)))
    }

    /// The tangent or cotangent of tensor `i`: a zero one is never made.
    fn derivative(&mut self, i: usize, output: Value) -> Option<Id> {
        let t = &self.graph.tensors[i];
        if !self.reached[i] || self.mode == Mode::Forward {
            return None;
        }
        let home = match (&t.source, self.mode) {
            (Source::Param(nth), Mode::Tangent) => Home::Tangent(*nth),
            (Source::Param(nth), _) => Home::Cotangent(*nth),
            (Source::Input(nth), Mode::Tangent) => Home::InputTangent(*nth),
            (_, Mode::Reverse) if i == output.0 => Home::Seed,
            _ => Home::Work(0),
        };
        let what = if self.mode == Mode::Tangent { "tangent" } else { "grad" };
        Some(self.buffer(&t.shape, Element::Real, home, format!("{what}.{}", t.name)))
    }

    fn calls(&self, primal: &[Option<Id>], saved: &[Option<Id>], d: &[Option<Id>]) -> Vec<Call> {
        let call = |i: usize, pass| {
            let t = &self.graph.tensors[i];
            let Source::Node { op, args } = &t.source else { return None };
            Some(Call {
                op: op.clone(),
                name: t.name.clone(),
                pass,
                x: args.iter().map(|a| primal[a.0]).collect::<Option<_>>()?,
                y: primal[i]?,
                saved: saved[i],
                dx: args.iter().map(|a| d[a.0]).collect(),
                dy: d[i],
                gx: Vec::new(),
            })
        };
        let mut calls = Vec::new();
        for i in (0..primal.len()).filter(|&i| self.needed[i]) {
            calls.extend(call(i, Pass::Forward));
            if self.mode == Mode::Tangent && self.reached[i] {
                calls.extend(call(i, Pass::Jvp));
            }
        }
        if self.mode == Mode::Reverse {
            // The first vjp into a cotangent sets it, later ones add.
            let mut written = vec![false; primal.len()];
            for i in (0..primal.len()).rev().filter(|&i| self.reached[i]) {
                let (Some(mut c), Source::Node { args, .. }) = (call(i, Pass::Vjp), &self.graph.tensors[i].source)
                else {
                    continue;
                };
                let target = |a: &Value| d[a.0].map(|id| (id, std::mem::replace(&mut written[a.0], true)));
                c.gx = args.iter().map(target).collect();
                // An op that takes one tensor twice (x + x) is called once for each: a call writes no buffer twice.
                let twice = |k: &usize| args[..*k].contains(&args[*k]);
                let mut again = Vec::new();
                for k in (1..args.len()).filter(twice) {
                    let mut gx = vec![None; args.len()];
                    gx[k] = c.gx[k].take();
                    again.extend(gx[k].is_some().then(|| Call { gx, ..c.clone() }));
                }
                calls.push(c);
                calls.extend(again);
            }
        }
        calls
    }
}
