//! Running a program on the host: each call gets its slices of the arena, disjoint by construction.
use super::{Host, split};
use crate::engine::{Bindings, Data};
use crate::graph::{Call, Home, Id, Program};
use crate::ops::{Cotangent, Pass};
use crate::params::Layout;
use crate::tensor::{Element, View, numel};
use crate::{Error, Result};
use std::ops::Range;

fn wrong(place: impl Into<String>, what: impl Into<String>) -> Error {
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

/// Everything a call may read that no call writes.
struct Outside<'a> {
    params: &'a [f32],
    tangents: &'a [f32],
    inputs: Vec<&'a [f32]>,
    input_tangents: Vec<&'a [f32]>,
    seed: &'a [f32],
}

impl Host {
    pub(super) fn execute(&mut self, program: usize, with: &Bindings) -> Result<()> {
        let p = self.programs.get(program).ok_or_else(|| wrong("program", "not loaded"))?;
        let need = |name: &str, v: Option<super::Vector>, wanted: bool| match (wanted, v) {
            (true, None) => Err(wrong(name, "this program needs a vector bound here")),
            (_, v) => Ok(v),
        };
        let has = |f: fn(&Home) -> bool| p.buffers.iter().any(|b| f(&b.home));
        let tangents = need("tangents", with.tangents, has(|h| matches!(h, Home::Tangent(_))))?;
        let cotangents = need("cotangents", with.cotangents, has(|h| matches!(h, Home::Cotangent(_))))?;
        for v in [Some(with.params), tangents, cotangents].into_iter().flatten() {
            self.check(v, 0, 0)?;
        }
        let one = [1.0];
        let seed = bind_seed(p, with, &one)?;
        let inputs = bind_inputs(p, with)?;
        let input_tangents = bind_input_tangents(p, with)?;
        check_indices(p, &inputs)?;

        let mut gradient = match cotangents {
            Some(v) if v == with.params || Some(v) == tangents => {
                return Err(wrong("cotangents", "bound to a vector that is read"));
            }
            Some(v) => std::mem::take(&mut self.vectors[v.0]),
            None => Vec::new(),
        };
        if !with.accumulate && cotangents.is_some() {
            for &param in &p.unreached {
                let span = self.layout.offset(param);
                let len = self.layout.spans().iter().find(|s| s.at == span).map_or(0, |s| s.len);
                gradient[span..span + len].fill(0.0);
            }
        }
        let mut arena = std::mem::take(&mut self.arena);
        if arena.len() < p.arena {
            arena = vec![0.0; p.arena];
        }
        if self.poison {
            arena.fill(f32::NAN);
        }
        let outside = Outside {
            params: &self.vectors[with.params.0],
            tangents: tangents.map_or(&[], |v| &self.vectors[v.0]),
            inputs,
            input_tangents,
            seed,
        };
        for call in &p.calls {
            self.call(p, call, &outside, &mut arena, &mut gradient, with.accumulate);
        }
        self.arena = arena;
        if let Some(v) = cotangents {
            self.vectors[v.0] = gradient;
        }
        self.last = Some(program);
        Ok(())
    }

    fn call(&self, p: &Program, call: &Call, out: &Outside, arena: &mut [f32], gradient: &mut [f32], accumulate: bool) {
        // Slices of the arena and of the gradient, in the order of their offsets.
        let mut work: Vec<(Range<usize>, Id)> = Vec::new();
        let mut grad: Vec<(Range<usize>, Id)> = Vec::new();
        for id in call.reads().into_iter().chain(call.writes()) {
            let len = p.buffers[id].numel();
            match p.buffers[id].home {
                Home::Work(at) => work.push((at..at + len, id)),
                Home::Cotangent(param) => {
                    let at = self.layout.offset(param);
                    grad.push((at..at + len, id));
                }
                _ => {}
            }
        }
        let mut parts = Parts::default();
        for (list, memory) in [(&mut work, arena), (&mut grad, gradient)] {
            list.sort_by_key(|(r, id)| (r.start, r.end, *id)); // an empty one before what starts there too
            list.dedup();
            parts.ids.extend(list.iter().map(|(_, id)| *id));
            parts.slices.extend(split(memory, list.iter().map(|(r, _)| r.clone())).into_iter().map(Some));
        }

        let mut written: Vec<(Id, &mut [f32])> = Vec::new();
        for id in call.writes() {
            let slice = parts.take(id);
            written.push((id, slice));
        }
        let read = |id: Id| -> &[f32] {
            let b = &p.buffers[id];
            let len = b.numel();
            match b.home {
                Home::Input(nth) => out.inputs[nth],
                Home::InputTangent(nth) => out.input_tangents[nth],
                Home::Param(nth) => &out.params[self.layout.offset(nth)..][..len],
                Home::Tangent(nth) => &out.tangents[self.layout.offset(nth)..][..len],
                Home::Seed => out.seed,
                Home::Work(_) | Home::Cotangent(_) => parts.get(id),
            }
        };
        let x: Vec<View> = (0..call.x.len())
            .map(|i| View {
                data: if call.reads_input(i) { read(call.x[i]) } else { &[] },
                shape: &p.buffers[call.x[i]].shape,
            })
            .collect();
        let y: &[f32] = if call.reads_output() { read(call.y) } else { &[] };
        match call.pass {
            Pass::Forward => {
                let mut written = written.into_iter().map(|(_, s)| s);
                let (y, saved) = (written.next().unwrap_or_default(), written.next().unwrap_or_default());
                if self.poison {
                    y.fill(f32::NAN);
                    saved.fill(f32::NAN);
                }
                call.op.forward(&x, y, saved);
            }
            Pass::Jvp => {
                let dx: Vec<Option<&[f32]>> = call.dx.iter().map(|d| d.map(read)).collect();
                let saved = call.saved.map_or(&[][..], read);
                for (_, dy) in written {
                    if self.poison {
                        dy.fill(f32::NAN);
                    }
                    call.op.jvp(&x, y, saved, &dx, dy);
                }
            }
            Pass::Vjp => {
                let (saved, gy) = (call.saved.map_or(&[][..], read), call.dy.map_or(&[][..], read));
                let mut written = written.into_iter();
                let mut gx: Vec<Option<Cotangent>> = Vec::with_capacity(call.gx.len());
                for target in &call.gx {
                    gx.push(target.and_then(|(id, add)| {
                        let (_, data) = written.next()?;
                        let add = add || (accumulate && matches!(p.buffers[id].home, Home::Cotangent(_)));
                        if self.poison && !add {
                            data.fill(f32::NAN);
                        }
                        Some(Cotangent { data, add })
                    }));
                }
                call.op.vjp(&x, y, saved, gy, &mut gx);
            }
        }
    }

    pub(super) fn fetched(&self, program: usize, name: &str) -> Result<Vec<f32>> {
        let p = self.programs.get(program).filter(|_| self.last == Some(program));
        let p = p.ok_or_else(|| wrong(name, "this program is not the one that ran last"))?;
        let id = match name {
            "output" => Some(p.output),
            "tangent" => p.d_output,
            _ => p.fetches.iter().find(|f| f.0 == name).map(|f| f.1),
        };
        let id = id.ok_or_else(|| wrong(name, "the program leaves nothing of this name"))?;
        match p.buffers[id].home {
            Home::Work(at) => Ok(self.arena[at..at + p.buffers[id].numel()].to_vec()),
            home => Err(wrong(name, format!("lives outside the program, at {home:?}"))),
        }
    }
}

/// Disjoint slices by buffer; those that are written are taken out.
#[derive(Default)]
struct Parts<'a> {
    ids: Vec<Id>,
    slices: Vec<Option<&'a mut [f32]>>,
}

impl<'a> Parts<'a> {
    fn take(&mut self, id: Id) -> &'a mut [f32] {
        let at = self.ids.iter().position(|&i| i == id);
        at.and_then(|at| self.slices[at].take()).unwrap_or_default()
    }
    fn get(&self, id: Id) -> &[f32] {
        let at = self.ids.iter().position(|&i| i == id);
        at.and_then(|at| self.slices[at].as_deref()).unwrap_or_default()
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
    let indexed = |c: &&Call| c.pass == Pass::Forward && c.x.iter().any(|&id| p.buffers[id].element == Element::Index);
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

fn bind_seed<'a>(p: &Program, with: &Bindings<'a>, one: &'a [f32; 1]) -> Result<&'a [f32]> {
    let Some(b) = p.buffers.iter().find(|b| b.home == Home::Seed) else { return Ok(&[]) };
    match (with.seed, b.numel()) {
        (Some(seed), n) if seed.len() == n => Ok(seed),
        (None, 1) => Ok(one),
        (seed, n) => {
            Err(wrong("seed", format!("wanted {n} numbers {:?}, got {}", b.shape, seed.map_or(0, <[f32]>::len))))
        }
    }
}
