//! A whole step as one recorded unit: the program, the norm of its gradient, clipping and the fused update. What differs
//! from step to step lies in memory, so the same launches are replayed (docs/decisions/0010).
use super::run::Target;
use super::update::{At, Knobs, MARKS};
use super::{Cuda, Last, Stored};
use crate::engine::{Bindings, Clip, Optimizer, Stepped, Update, Updated, Vector};
use crate::gpu::{Dtype, Ptr};
use crate::graph::Id;
use crate::{Error, Result};
use std::mem::{Discriminant, discriminant};

/// With the same one, a step has the same launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    target: Target,
    rule: Discriminant<Optimizer>,
    /// w, g, m, v and the mask.
    vectors: [Option<usize>; 5],
    shadowed: bool,
}

impl Cuda {
    pub(super) fn fused(&mut self, u: &Update) -> Result<Updated> {
        let at = self.places(u)?;
        self.flat.write_knobs(&Knobs::new(u))?;
        self.flat.queue_update(&u.optimizer, &at)?;
        self.moved(u);
        Ok(self.flat.read_updated()?.0)
    }

    pub(super) fn stepped(&mut self, program: usize, with: &Bindings, u: &Update, clip: &Clip) -> Result<Stepped> {
        self.places(u)?;
        let target = self.prepare(program, with)?;
        // A shadow that was made just now.
        let at = self.places(u)?;
        self.flat.write_knobs(&Knobs::new(u).clipped(clip.mean, clip.limit))?;
        let vectors = [Some(u.w.0), Some(u.g.0), Some(u.m.0), u.v.map(|v| v.0), u.mask.map(|m| m.0)];
        let key = Key { target, rule: discriminant(&u.optimizer), vectors, shadowed: !at.shadow.is_null() };
        let marks = marks(&self.programs[program]);
        let recorded = match self.recordings.get(&key) {
            Some(&recorded) => recorded,
            None => {
                let this = &*self;
                let recorded = this.device.record(&mut || {
                    this.enqueue(&target)?;
                    this.flat.queue_norm(at.g)?;
                    this.flat.queue_update(&u.optimizer, &at)?;
                    let work = this.work.at();
                    let mark = |(nth, &(_, from)): (usize, &(Id, usize))| {
                        this.device.copy(this.flat.mark(nth), work.offset(from), 4)
                    };
                    marks.iter().enumerate().try_for_each(mark)
                })?;
                self.recordings.insert(key, recorded);
                recorded
            }
        };
        self.device.replay(recorded)?;
        self.moved(u);
        let (updated, squares, values) = self.flat.read_step(marks.len())?;
        let scalars = marks.iter().map(|m| m.0).zip(values).collect();
        self.last = Some(Last { program, scalars });
        Ok(Stepped { updated, gradient_norm: clip.of(squares).0 })
    }

    /// Where the vectors of an update lie, all of them there and each another.
    fn places(&self, u: &Update) -> Result<At> {
        let wrong = |place: String, what: String| Error::Graph { op: "update", place, what };
        if u.v.is_none() && u.optimizer.second_moments() {
            return Err(wrong("v".into(), format!("{:?} needs a vector of second moments", u.optimizer)));
        }
        let mask = u.mask.map_or(Ok(Ptr::NULL), |m| self.mask_at(m))?;
        let all: Vec<Vector> = [Some(u.w), Some(u.g), Some(u.m), u.v].into_iter().flatten().collect();
        let there = all.iter().all(|v| v.0 < self.vectors.len());
        if !there || (1..all.len()).any(|i| all[..i].contains(&all[i])) {
            let ids: Vec<usize> = all.iter().map(|v| v.0).collect();
            return Err(wrong(format!("vectors {ids:?}"), "they must be there and differ".into()));
        }
        let of = |v: Vector| self.vectors[v.0].f32(0);
        let second = u.v.filter(|_| u.optimizer.second_moments());
        Ok(At {
            w: of(u.w),
            g: of(u.g),
            m: of(u.m),
            v: second.map_or(Ptr::NULL, of),
            shadow: self.vectors[u.w.0].shadow.as_ref().map_or(Ptr::NULL, crate::gpu::Memory::at),
            mask,
        })
    }

    /// The weights moved with their shadow, but for what is frozen, which did not move; the moments have none.
    fn moved(&mut self, u: &Update) {
        for v in [Some(u.m), u.v].into_iter().flatten() {
            self.vectors[v.0].fresh = false;
        }
    }
}

/// The marks of one number, with their offsets among the activations: what a step reads along. Of very many, the rest is
/// fetched.
fn marks(p: &Stored) -> Vec<(Id, usize)> {
    let mut all: Vec<(Id, usize)> = Vec::new();
    for &(_, id) in &p.program.fetches {
        let single = p.program.buffers[id].numel() == 1 && p.storage.dtype(id) == Dtype::F32;
        if let (true, Some(at)) = (single, p.storage.work(id)) {
            all.push((id, at));
        }
    }
    all.truncate(MARKS);
    all
}
