//! Running a program on a device: one upload of what comes from outside, then a launch or a few for each call. Nothing
//! waits until something is read.
use super::{Arena, Cuda, Last, Stored};
use crate::engine::bind::{Bound, fetched, unreached, wrong};
use crate::engine::{Bindings, Vector};
use crate::gpu::{Dtype, Ptr, Queue};
use crate::graph::{Call, Home, Id};
use crate::ops::{DeviceCotangent, DeviceIo, DeviceTensor, Pass};
use crate::tensor::{Element, numel};
use crate::{Error, Result};
use half::bf16;

/// Every bit set: NaN in f32 and in bf16.
const NAN: u32 = u32::MAX;

/// A program and the vectors it runs on: with the same ones, the same launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub program: usize,
    params: usize,
    tangents: Option<usize>,
    cotangents: Option<usize>,
    accumulate: bool,
}

impl Cuda {
    pub(super) fn execute(&mut self, program: usize, with: &Bindings) -> Result<()> {
        let target = self.prepare(program, with)?;
        self.enqueue(&target)?;
        self.last = Some(Last { program, scalars: Vec::new() });
        Ok(())
    }

    /// Check what is bound, make room, and put on the device what the launches will read.
    pub(super) fn prepare(&mut self, program: usize, with: &Bindings) -> Result<Target> {
        let p = self.programs.get(program).ok_or_else(|| wrong("program", "not loaded"))?;
        let bound = Bound::new(&p.program, with, |v| self.check(v, 0, 0))?;
        let staged = stage(p, &bound);
        let id = |v: Option<Vector>| v.map(|v| v.0);
        let (tangents, cotangents) = (id(bound.tangents), id(bound.cotangents));
        self.last = None;
        self.make_room(program)?;
        for v in [Some(with.params.0), tangents].into_iter().flatten() {
            self.refresh(v)?;
        }
        if let Some(g) = cotangents {
            self.vectors[g].stale();
        }
        if !staged.is_empty() {
            self.device.upload(self.outside.at(), &staged)?;
        }
        Ok(Target { program, params: with.params.0, tangents, cotangents, accumulate: with.accumulate })
    }

    /// Arenas for the largest of the programs that have run, this one with them: one that finds no room leaves it to
    /// others.
    fn make_room(&mut self, program: usize) -> Result<()> {
        let s = &self.programs[program].storage;
        let sizes = [s.activations(), s.inputs(), s.scratch()];
        let arenas = [&mut self.work, &mut self.outside, &mut self.scratch];
        let fits = arenas.into_iter().zip(sizes).try_fold(false, |moved, (a, n)| Ok(a.fit(&self.device, n)? || moved));
        if fits.as_ref().map_or(true, |&moved| moved) {
            // What was recorded has the old addresses.
            self.recordings.clear();
        }
        fits.map(drop).map_err(|error| self.no_room(error, sizes.iter().sum()))
    }

    /// Lets go of all arenas, so that an error tells what is free for all three together.
    fn no_room(&mut self, error: Error, wanted: usize) -> Error {
        let Error::Memory { place, hint, .. } = error else { return error };
        [&mut self.work, &mut self.outside, &mut self.scratch].into_iter().for_each(Arena::clear);
        match self.device.memory() {
            Ok((free, _)) => Error::Memory { place, wanted, free, hint },
            Err(other) => other,
        }
    }

    /// Queue the launches of a program: they depend on its target and the arenas alone.
    pub(super) fn enqueue(&self, target: &Target) -> Result<()> {
        let p = &self.programs[target.program];
        if let (Some(g), false) = (target.cotangents, target.accumulate) {
            for span in unreached(&p.program, &self.layout) {
                self.device.fill(self.vectors[g].f32(span.start), 0, span.len())?;
            }
        }
        if self.poison {
            self.spoil_arena(&self.work)?;
        }
        p.program.calls.iter().try_for_each(|call| self.call(p, call, target))
    }

    fn call(&self, p: &Stored, call: &Call, target: &Target) -> Result<()> {
        let tensor = |id: Id| self.tensor(p, id, target);
        // What a pass may not read has no address.
        let shown =
            |id: Id, shown: bool| DeviceTensor { at: if shown { tensor(id).at } else { Ptr::NULL }, ..tensor(id) };
        let x: Vec<DeviceTensor> = (0..call.x.len()).map(|i| shown(call.x[i], call.reads_input(i))).collect();
        let dx: Vec<Option<DeviceTensor>> = match call.pass.takes_tangents() {
            true => call.dx.iter().map(|d| d.map(tensor)).collect(),
            false => Vec::new(),
        };
        let cotangent = |&(id, add): &(Id, bool)| {
            let add = add || (target.accumulate && matches!(p.program.buffers[id].home, Home::Cotangent(_)));
            DeviceCotangent { to: tensor(id), add }
        };
        let gx: Vec<Option<DeviceCotangent>> = call.gx.iter().map(|g| g.as_ref().map(cotangent)).collect();
        let io = DeviceIo {
            x: &x,
            y: shown(call.y, call.pass.gives_output() || call.reads_output()),
            saved: call.saved.map_or(Ptr::NULL, |id| tensor(id).at),
            kept: call.saved.map_or(Ptr::NULL, |id| self.kept(p, id)),
            dx: &dx,
            dy: call.dy.filter(|_| call.pass != Pass::Forward).map(tensor),
            gx: &gx,
        };
        if self.poison {
            self.spoil(p, call, target)?;
        }
        call.op.cuda(call.pass, &io, &Queue { tf32: self.tf32, ..Queue::new(&*self.device, self.scratch.at()) })
    }

    /// NaN wherever the call must write and has no business to read.
    fn spoil(&self, p: &Stored, call: &Call, target: &Target) -> Result<()> {
        let adds = |id: Id| {
            let added = call.gx.iter().flatten().any(|&(g, add)| g == id && add);
            added || (target.accumulate && matches!(p.program.buffers[id].home, Home::Cotangent(_)))
        };
        call.writes().into_iter().filter(|&id| !adds(id)).try_for_each(|id| {
            let words = p.storage.bytes(id).div_ceil(4);
            self.device.fill(self.tensor(p, id, target).at, NAN, words)
        })?;
        self.spoil_arena(&self.scratch)
    }

    fn spoil_arena(&self, arena: &Arena) -> Result<()> {
        if arena.bytes() < 4 { Ok(()) } else { self.device.fill(arena.at(), NAN, arena.bytes() / 4) }
    }

    /// Where what is kept lies within what is saved, if it is.
    fn kept(&self, p: &Stored, saved: Id) -> Ptr {
        let place = p.storage.work(saved).zip(p.storage.kept(saved));
        place.map_or(Ptr::NULL, |(at, kept)| self.work.at().offset(at + kept))
    }

    fn tensor<'p>(&self, p: &'p Stored, id: Id, target: &Target) -> DeviceTensor<'p> {
        let (b, dtype) = (&p.program.buffers[id], p.storage.dtype(id));
        let inside = |base: Ptr, at: Option<usize>| at.map_or(Ptr::NULL, |at| base.offset(at));
        let of_vector = |v: Option<usize>, nth: usize| {
            v.map_or(Ptr::NULL, |v| self.vectors[v].stored(dtype, self.layout.offset(nth)))
        };
        let at = match b.home {
            Home::Input(_) | Home::InputTangent(_) | Home::Seed => inside(self.outside.at(), p.storage.outside(id)),
            Home::Param(nth) => of_vector(Some(target.params), nth),
            Home::Tangent(nth) => of_vector(target.tangents, nth),
            Home::Cotangent(nth) => of_vector(target.cotangents, nth),
            Home::Work(_) => inside(self.work.at(), p.storage.work(id)),
        };
        DeviceTensor { at, dtype, shape: &b.shape }
    }

    pub(super) fn fetched(&self, program: usize, name: &str) -> Result<Vec<f32>> {
        let last = self.last.as_ref().filter(|last| last.program == program);
        let (Some(last), Some(p)) = (last, self.programs.get(program)) else {
            return Err(wrong(name, "this program is not the one that ran last"));
        };
        let id = fetched(&p.program, name)?;
        if let Some(&(_, value)) = last.scalars.iter().find(|s| s.0 == id) {
            return Ok(vec![value]);
        }
        let at = p.storage.work(id).ok_or_else(|| wrong(name, "no call of the program writes it"))?;
        let mut raw = vec![0; p.storage.bytes(id)];
        self.device.download(self.work.at().offset(at), &mut raw)?;
        Ok(widened(&raw, p.storage.dtype(id)))
    }
}

/// The bytes of a run's inputs, their directions and the seed, as the device stores them.
fn stage(p: &Stored, bound: &Bound) -> Vec<u8> {
    let mut staged = vec![0u8; p.storage.inputs()];
    for (id, b) in p.program.buffers.iter().enumerate() {
        let data = match b.home {
            Home::Input(nth) => bound.inputs[nth],
            Home::InputTangent(nth) => bound.input_tangents[nth],
            Home::Seed => bound.seed,
            _ => continue,
        };
        let Some(at) = p.storage.outside(id) else { continue };
        let narrow = b.element == Element::Real && p.storage.dtype(id) == Dtype::Bf16;
        let to = &mut staged[at..][..p.storage.bytes(id)];
        if data.len() != numel(&b.shape) {
            continue; // an input that the program does not read
        }
        match narrow {
            false => to.copy_from_slice(bytemuck::cast_slice(data)),
            true => {
                to.as_chunks_mut().0.iter_mut().zip(data).for_each(|(to, &x)| *to = bf16::from_f32(x).to_le_bytes())
            }
        }
    }
    staged
}

/// Numbers that a device stored, as f32.
pub(super) fn widened(raw: &[u8], dtype: Dtype) -> Vec<f32> {
    match dtype {
        Dtype::F32 => raw.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::Bf16 => raw.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
    }
}
