//! Neighbours in a graph that can be one op: fewer launches on a device, and less that goes through memory. Before
//! differentiation, so that the reverse pass and the tangent are those of the one op (docs/decisions/0015).
//!
//! ```text
//! add, layer norm               the norm of a sum
//! linear, add                   a product that ends in its residual
//! linear (, add), activation
//! (convolution,) batch norm (, add), ReLU      on the host
//! ```
//!
//! What lies between must be read by the second op alone, and not be marked: nobody else may see it.
use super::{Graph, Lowering, Source, Value};
use crate::ops::{
    Activation, Add, AddLayerNorm, BatchNorm, Conv2d, FusedLinear, LayerNorm, Linear, Op, RectifiedBatchNorm,
    RectifiedConv,
};
use std::any::Any;
use std::sync::Arc;

/// The same computation; tensors keep their numbers. Those that nothing reads any more stay, and are in no program.
pub(super) fn fuse(graph: &Graph, how: Lowering) -> Graph {
    let readers = readers(graph);
    let mut fused = graph.clone();
    for at in 0..fused.tensors.len() {
        let place = Place { graph: &fused, readers: &readers, at };
        let fewer = || place.norm().or_else(|| place.residual()).or_else(|| place.activation());
        let found = how.fuse.then(fewer).flatten().or_else(|| how.rectify.then(|| place.rectified()).flatten());
        if let Some((op, args)) = found {
            fused.tensors[at].source = Source::Node { op, args };
        }
    }
    fused
}

/// Of each tensor that is unmarked and read once, the tensor that is made of it. Fusing changes none of these numbers:
/// what the first op read, the one in its place reads, and as often.
fn readers(graph: &Graph) -> Vec<Option<usize>> {
    let mut all: Vec<Vec<usize>> = vec![Vec::new(); graph.tensors.len()];
    for (i, t) in graph.tensors.iter().enumerate() {
        if let Source::Node { args, .. } = &t.source {
            args.iter().for_each(|a| all[a.0].push(i));
        }
    }
    graph.marks.iter().for_each(|(_, v)| all[v.0].clear());
    all.into_iter().map(|of| if let [one] = of[..] { Some(one) } else { None }).collect()
}

type Fused = Option<(Arc<dyn Op>, Vec<Value>)>;

/// A tensor of the graph, which may be made by one op with what it is made of.
struct Place<'g> {
    graph: &'g Graph,
    readers: &'g [Option<usize>],
    at: usize,
}

impl<'g> Place<'g> {
    /// The op behind a tensor, if it is a `T`, and what it reads.
    fn node<T: Op>(&self, at: usize) -> Option<(&'g T, &'g [Value])> {
        let Source::Node { op, args } = &self.graph.tensors[at].source else { return None };
        let op: &dyn Any = &**op;
        op.downcast_ref().map(|op| (op, &args[..]))
    }

    /// The same of what goes into this place and nowhere else.
    fn inner<T: Op>(&self, value: Value) -> Option<(&'g T, &'g [Value])> {
        if self.readers[value.0] == Some(self.at) { self.node(value.0) } else { None }
    }

    /// The norm of a sum of two, where neither is a parameter: a parameter's cotangent has a type of its own.
    fn norm(&self) -> Fused {
        let (&LayerNorm { eps }, &[x, w, b]) = self.node(self.at)? else { return None };
        let (Add, &[x1, x2]) = self.inner(x)? else { return None };
        let param = |v: Value| matches!(self.graph.tensors[v.0].source, Source::Param(_));
        let one = x1 == x2 || param(x1) || param(x2);
        (!one).then(|| (Arc::new(AddLayerNorm { eps }) as Arc<dyn Op>, vec![x1, x2, w, b]))
    }

    /// A linear map and what is added to it, unless a norm takes the sum: with that one it has its cotangent for less.
    fn residual(&self) -> Fused {
        let (Add, &[a, b]) = self.node(self.at)? else { return None };
        let next = self.readers[self.at].map(|at| Self { at, ..*self });
        if next.is_some_and(|next| next.norm().is_some()) {
            return None;
        }
        let of = |map: Value, other: Value| self.inner::<Linear>(map).map(|(_, args)| [args, &[other]].concat());
        let args = of(a, b).or_else(|| of(b, a))?;
        Some((Arc::new(FusedLinear { activation: None, residual: true }), args))
    }

    /// A ReLU of a batch norm, or of the sum of one and anything else.
    fn rectified(&self) -> Fused {
        let (Activation::Relu, &[z]) = self.node(self.at)? else { return None };
        let of = |place: &Self, norm: Value, residual: Option<Value>| {
            let (&BatchNorm { eps }, args) = place.inner(norm)?;
            let convolved = Self { at: norm.0, ..*self }.convolved(eps, args, residual);
            convolved.or_else(|| {
                let op = RectifiedBatchNorm { eps, residual: residual.is_some() };
                Some((Arc::new(op) as Arc<dyn Op>, args.iter().copied().chain(residual).collect()))
            })
        };
        of(self, z, None).or_else(|| {
            let (Add, &[a, b]) = self.inner(z)? else { return None };
            let sum = Self { at: z.0, ..*self };
            of(&sum, a, Some(b)).or_else(|| of(&sum, b, Some(a)))
        })
    }

    /// The same of a batch norm, at this place, with the convolution that it is of. Statistics of that convolution would
    /// read it too.
    fn convolved(&self, eps: f32, norm: &[Value], residual: Option<Value>) -> Fused {
        let [x, statistics @ ..] = norm else { return None };
        let (&conv, args) = self.inner::<Conv2d>(*x)?;
        if conv.groups != 1 || residual == Some(args[0]) {
            return None;
        }
        let op = RectifiedConv { conv, eps, bias: args.len() == 3, residual: residual.is_some() };
        Some((Arc::new(op), args.iter().chain(statistics).copied().chain(residual).collect()))
    }

    fn activation(&self) -> Fused {
        let (&f, &[z]) = self.node::<Activation>(self.at)? else { return None };
        let with = |residual: bool, args: &[Value]| {
            let op = FusedLinear { activation: Some(f), residual };
            Some((Arc::new(op) as Arc<dyn Op>, args.to_vec()))
        };
        if let Some((_, args)) = self.inner::<Linear>(z) {
            return with(false, args);
        }
        match self.inner::<FusedLinear>(z) {
            Some((FusedLinear { activation: None, residual }, args)) => with(*residual, args),
            _ => None,
        }
    }
}
