//! What every engine asks of a program and of what is bound to it, before it runs a call.
use super::{Bindings, Data, Vector};
use crate::graph::{Call, Home, Id, Program};
use crate::params::Layout;
use crate::tensor::{Element, View, numel};
use crate::{Error, Result};
use std::ops::Range;

pub(super) fn wrong(place: impl Into<String>, what: impl Into<String>) -> Error {
    Error::Graph { op: "run", place: place.into(), what: what.into() }
}

/// A program's parameters must stand in the layout with their own shapes and in the graph's order.
pub(super) fn check(p: &Program, layout: &Layout) -> Result<()> {
    let have = layout.spans().len();
    for b in &p.buffers {
        if let Home::Param(nth) = b.home {
            let span = layout.span(&b.name).ok_or_else(|| wrong(&b.name, "the layout has no such parameter"))?;
            if span.shape != b.shape {
                return Err(wrong(&b.name, format!("wanted {:?} as in the layout, got {:?}", span.shape, b.shape)));
            }
            if nth >= have || layout.offset(nth) != span.at {
                return Err(wrong(&b.name, format!("parameter {nth} of the graph is another one of the layout")));
            }
        }
    }
    match p.unreached.iter().find(|&&nth| nth >= have) {
        Some(nth) => Err(wrong("parameters", format!("the graph has a number {nth}, the layout only {have}"))),
        None => Ok(()),
    }
}

/// What a run reads from outside, found to be what its program wants.
pub(super) struct Bound<'a> {
    pub tangents: Option<Vector>,
    pub cotangents: Option<Vector>,
    /// By number; indices as the words that hold them, empty for what the program does not read.
    pub inputs: Vec<&'a [f32]>,
    pub input_tangents: Vec<&'a [f32]>,
    pub seed: &'a [f32],
}

impl<'a> Bound<'a> {
    /// # Errors
    /// What [`super::Engine::run`] names; what `exists` says of a vector.
    pub fn new(p: &Program, with: &Bindings<'a>, exists: impl Fn(Vector) -> Result<()>) -> Result<Self> {
        let need = |name: &str, v: Option<Vector>, wanted: bool| match (wanted, v) {
            (true, None) => Err(wrong(name, "this program needs a vector bound here")),
            (_, v) => Ok(v),
        };
        let has = |f: fn(&Home) -> bool| p.buffers.iter().any(|b| f(&b.home));
        let tangents = need("tangents", with.tangents, has(|h| matches!(h, Home::Tangent(_))))?;
        let cotangents = need("cotangents", with.cotangents, has(|h| matches!(h, Home::Cotangent(_))))?;
        [Some(with.params), tangents, cotangents].into_iter().flatten().try_for_each(exists)?;
        let seed = bind_seed(p, with)?;
        let inputs = bind_inputs(p, with)?;
        let input_tangents = bind_input_tangents(p, with)?;
        check_indices(p, &inputs)?;
        if cotangents.is_some() && (cotangents == Some(with.params) || cotangents == tangents) {
            return Err(wrong("cotangents", "bound to a vector that is read"));
        }
        Ok(Self { tangents, cotangents, inputs, input_tangents, seed })
    }
}

/// Where a gradient stays zero, or as it was: the parameters that no call of the program writes.
pub(super) fn unreached(p: &Program, layout: &Layout) -> Vec<Range<usize>> {
    let span = |&param: &usize| {
        let at = layout.offset(param);
        layout.spans().iter().find(|s| s.at == at).map(|s| s.range())
    };
    p.unreached.iter().filter_map(span).collect()
}

/// The buffer that `fetch` reads by this name.
pub(super) fn fetched(p: &Program, name: &str) -> Result<Id> {
    let id = match name {
        "output" => Some(p.output),
        "tangent" => p.d_output,
        _ => p.fetches.iter().find(|f| f.0 == name).map(|f| f.1),
    };
    let id = id.ok_or_else(|| wrong(name, "the program leaves nothing of this name"))?;
    match p.buffers[id].home {
        Home::Work(_) => Ok(id),
        home => Err(wrong(name, format!("lives outside the program, at {home:?}"))),
    }
}

fn bind_inputs<'a>(p: &Program, with: &Bindings<'a>) -> Result<Vec<&'a [f32]>> {
    let bind = |(name, id): &(String, Option<Id>)| {
        let Some(id) = id else { return Ok(&[][..]) };
        let b = &p.buffers[*id];
        let found = with.inputs.iter().find(|(n, _)| n == name);
        let (_, data) = found.ok_or_else(|| wrong(name, format!("input {:?} is not given", b.shape)))?;
        let (data, element): (&'a [f32], _) = match data {
            Data::Real(d) => (d, Element::Real),
            Data::Index(d) => (bytemuck::cast_slice(d), Element::Index),
        };
        if element != b.element || data.len() != numel(&b.shape) {
            let what = format!("wanted {:?} {:?}, got {} numbers of {element:?}", b.element, b.shape, data.len());
            return Err(wrong(name, what));
        }
        Ok(data)
    };
    p.inputs.iter().map(bind).collect()
}

/// Every op that takes indices looks at those that come from outside.
fn check_indices(p: &Program, inputs: &[&[f32]]) -> Result<()> {
    let view = |&id: &Id| {
        let b = &p.buffers[id];
        let data = if let Home::Input(nth) = b.home { inputs[nth] } else { &[] };
        View { data, shape: &b.shape }
    };
    let indexed = |c: &&Call| c.pass.gives_output() && c.x.iter().any(|&id| p.buffers[id].element == Element::Index);
    p.calls.iter().filter(indexed).try_for_each(|c| c.op.check(&c.x.iter().map(view).collect::<Vec<_>>()))
}

fn bind_input_tangents<'a>(p: &Program, with: &Bindings<'a>) -> Result<Vec<&'a [f32]>> {
    let wanted = |nth: usize| p.buffers.iter().find(|b| b.home == Home::InputTangent(nth));
    let bind = |(nth, (name, _)): (usize, &(String, Option<Id>))| {
        let Some(b) = wanted(nth) else { return Ok(&[][..]) };
        let found = with.input_tangents.iter().find(|(n, d)| n == name && d.len() == b.numel());
        found.map(|f| f.1).ok_or_else(|| wrong(name, format!("a tangent {:?} is not given", b.shape)))
    };
    p.inputs.iter().enumerate().map(bind).collect()
}

fn bind_seed<'a>(p: &Program, with: &Bindings<'a>) -> Result<&'a [f32]> {
    let Some(b) = p.buffers.iter().find(|b| b.home == Home::Seed) else { return Ok(&[]) };
    match (with.seed, b.numel()) {
        (Some(seed), n) if seed.len() == n => Ok(seed),
        (None, 1) => Ok(&[1.0]),
        (seed, n) => {
            Err(wrong("seed", format!("wanted {n} numbers {:?}, got {}", b.shape, seed.map_or(0, <[f32]>::len))))
        }
    }
}
