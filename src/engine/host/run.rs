//! Running a program on the host: each call gets its slices of the arena, disjoint by construction.
use super::{Host, split};
use crate::Result;
use crate::engine::Bindings;
use crate::engine::bind::{Bound, fetched, unreached, wrong};
use crate::graph::{Call, Home, Id, Program};
use crate::ops::{Cotangent, Pass};
use crate::tensor::View;
use std::ops::Range;

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
        let Bound { tangents, cotangents, inputs, input_tangents, seed } =
            Bound::new(p, with, |v| self.check(v, 0, 0))?;
        let mut gradient = cotangents.map_or_else(Vec::new, |v| std::mem::take(&mut self.vectors[v.0]));
        if !with.accumulate && cotangents.is_some() {
            unreached(p, &self.layout).into_iter().for_each(|range| gradient[range].fill(0.0));
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
            Pass::Dual => {
                let mut written = written.into_iter().map(|(_, s)| s);
                let y = written.next().unwrap_or_default();
                let saved = call.saved.and_then(|_| written.next()).unwrap_or_default();
                let mut dy = written.next();
                let dx: Vec<Option<&[f32]>> = call.dx.iter().map(|d| d.map(read)).collect();
                if self.poison {
                    [Some(&mut *y), Some(&mut *saved), dy.as_deref_mut()]
                        .into_iter()
                        .flatten()
                        .for_each(|to| to.fill(f32::NAN));
                }
                call.op.forward(&x, y, saved);
                if let Some(dy) = dy {
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
        let id = fetched(p, name)?;
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
