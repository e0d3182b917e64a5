//! A static graph: built once by [`Scope`], compiled to a [`Program`] a mode, planned into one arena.
use crate::ops::{Cost, Op, Pass};
use crate::tensor::{Element, Shape, numel};
use crate::{Error, Result};
use std::sync::Arc;

mod dump;
mod fuse;
mod plan;
mod program;
mod scope;
pub use plan::{Placed, place};
pub use program::{Buffer, Call, Home, Id, Lowering, Mode, Program, Wrt};
pub use scope::{Scope, build};

/// A handle to a tensor of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(pub(crate) usize);

/// What a parameter is to the network: what is pruned by default, and what weight decay leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A weight matrix or convolution kernel of the body: prunable by default (METHOD, algorithm 2).
    Weight,
    /// A weight matrix of the task head (pooler, classifier, masked-LM transform).
    Head,
    /// Word, position and type embeddings.
    Embedding,
    /// Scale of a normalisation.
    Norm,
    /// Any bias, a normalisation's included.
    Bias,
    /// A running average of a batch normalisation: read like a parameter, never differentiated, trained or pruned.
    Statistic,
}

/// A parameter by Hugging Face's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub name: String,
    pub shape: Shape,
    pub kind: Kind,
    /// Other names of the same parameter (tied weights).
    pub aliases: Vec<String>,
}

/// Where a tensor comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The n-th input.
    Input(usize),
    /// The n-th parameter.
    Param(usize),
    Node {
        op: Arc<dyn Op>,
        args: Vec<Value>,
    },
}

#[derive(Clone, Debug)]
pub struct Tensor {
    /// An input's or a parameter's name; for a node, its scope and op.
    pub name: String,
    pub shape: Shape,
    pub element: Element,
    pub source: Source,
}

impl Tensor {
    pub fn numel(&self) -> usize {
        numel(&self.shape)
    }
}

/// The network as a list of tensors in topological order.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub tensors: Vec<Tensor>,
    pub params: Vec<Param>,
    /// Names of the inputs, in order, with their tensors.
    pub inputs: Vec<Value>,
    /// Tensors that can be differentiated and fetched, by name.
    pub marks: Vec<(String, Value)>,
}

impl Graph {
    pub fn tensor(&self, value: Value) -> &Tensor {
        &self.tensors[value.0]
    }

    /// The tensor marked `name`.
    ///
    /// # Errors
    /// [`Error::Graph`] if there is none: names what there is.
    pub fn mark(&self, name: &str) -> Result<Value> {
        self.marks.iter().find(|(n, _)| n == name).map(|&(_, v)| v).ok_or_else(|| Error::Graph {
            op: "mark",
            place: name.to_string(),
            what: format!(
                "not an output of this graph; it has {:?}",
                self.marks.iter().map(|m| &m.0).collect::<Vec<_>>()
            ),
        })
    }

    /// FLOPs and bytes of one forward pass over all nodes.
    pub fn cost(&self) -> Cost {
        let mut total = Cost::default();
        for t in &self.tensors {
            if let Source::Node { op, args } = &t.source {
                let shapes: Vec<&[usize]> = args.iter().map(|a| self.tensors[a.0].shape.as_slice()).collect();
                total += op.cost(Pass::Forward, &shapes);
            }
        }
        total
    }
}
