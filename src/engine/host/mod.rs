//! The host engine: the CPU, and the embedded default. It is fast, and it judges every other engine.
//!
//! Every result is bit-identical for any number of threads: work is cut into blocks of fixed size, and
//! partial sums are added in the blocks' order.
use super::{Bindings, Census, Criterion, Engine, Loaded, Mask, Selected, Update, Updated, Vector, bind};
use crate::graph::{Lowering, Program};
use crate::ops::simd;
use crate::params::{Layout, Role};
use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;

mod census;
mod run;
mod select;
mod update;

/// Programs, vectors and masks in main memory, and one arena for all programs.
#[derive(Debug)]
pub struct Host {
    layout: Layout,
    vectors: Vec<Vec<f32>>,
    masks: Vec<Vec<u32>>,
    programs: Vec<Program>,
    arena: Vec<f32>,
    /// The last program that ran, and its seed: what `fetch` can read.
    last: Option<usize>,
    lowering: Lowering,
    poison: bool,
}

/// Floats a task takes of a whole-vector operation; a multiple of a mask word's 32.
pub(super) const BLOCK: usize = 16_384;

impl Host {
    pub fn new(layout: Layout) -> Self {
        let (vectors, masks, programs, arena) = Default::default();
        Self { layout, vectors, masks, programs, arena, last: None, lowering: Lowering::host(), poison: false }
    }

    /// Fill the arena, and every buffer that is about to be written, with NaN: a read of what nobody
    /// wrote shows at once. For tests.
    pub fn poisoned(mut self) -> Self {
        self.poison = true;
        self
    }

    /// Run programs with these calls, in place of what [`Lowering::host`] says.
    pub fn lowering(mut self, lowering: Lowering) -> Self {
        self.lowering = lowering;
        self
    }

    fn mask_words(&self) -> usize {
        self.layout.range(Role::Prunable).end.div_ceil(32)
    }

    fn check(&self, v: Vector, at: usize, len: usize) -> Result<()> {
        let what = match self.vectors.get(v.0).map(Vec::len) {
            Some(have) if at.checked_add(len).is_some_and(|end| end <= have) => return Ok(()),
            Some(have) => format!("{len} floats at {at} lie outside its {have}"),
            None => format!("this engine has {} vectors", self.vectors.len()),
        };
        Err(Error::Graph { op: "vector", place: format!("vector {}", v.0), what })
    }

    fn words(&self, m: Mask) -> Result<&[u32]> {
        self.masks.get(m.0).map(Vec::as_slice).ok_or_else(|| Error::Graph {
            op: "mask",
            place: format!("mask {}", m.0),
            what: format!("this engine has {} masks", self.masks.len()),
        })
    }

    /// Two vectors, the second to be changed.
    fn pair(&mut self, x: Vector, y: Vector) -> Result<(&[f32], &mut [f32])> {
        self.check(x, 0, 0)?;
        self.check(y, 0, 0)?;
        let [x, y] = self.vectors.get_disjoint_mut([x.0, y.0]).map_err(|_| Error::Graph {
            op: "vector",
            place: format!("vectors {} and {}", x.0, y.0),
            what: "the two must be there, and not be the same".into(),
        })?;
        Ok((x, y))
    }
}

/// The parts of `v` that `ranges` name; they are sorted and do not overlap.
pub(super) fn split<T>(v: &mut [T], ranges: impl Iterator<Item = Range<usize>>) -> Vec<&mut [T]> {
    let (mut rest, mut at) = (v, 0);
    ranges
        .map(|r| {
            let (_, tail) = std::mem::take(&mut rest).split_at_mut(r.start - at);
            let (part, tail) = tail.split_at_mut(r.len());
            (rest, at) = (tail, r.end);
            part
        })
        .collect()
}

/// A sum over lanes, then of lanes, in f64: fixed order, and vector code inside a dispatch.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0f64; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let tail: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    for (x, y) in xs.zip(ys) {
        for i in 0..LANES {
            sums[i] += f64::from(x[i]) * f64::from(y[i]);
        }
    }
    sums.iter().sum::<f64>() + tail
}

impl Engine for Host {
    fn describe(&self) -> String {
        format!("cpu ({} threads)", rayon::current_num_threads())
    }
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn zeros(&mut self) -> Result<Vector> {
        self.vectors.push(vec![0.0; self.layout.len()]);
        Ok(Vector(self.vectors.len() - 1))
    }
    fn write(&mut self, v: Vector, at: usize, data: &[f32]) -> Result<()> {
        self.check(v, at, data.len())?;
        self.vectors[v.0][at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
    fn read(&self, v: Vector, at: usize, data: &mut [f32]) -> Result<()> {
        self.check(v, at, data.len())?;
        data.copy_from_slice(&self.vectors[v.0][at..at + data.len()]);
        Ok(())
    }
    fn load(&mut self, program: Program) -> Result<Loaded> {
        bind::check(&program, &self.layout)?;
        self.programs.push(program.lowered(self.lowering)?);
        Ok(Loaded(self.programs.len() - 1))
    }
    fn run(&mut self, program: Loaded, with: &Bindings) -> Result<()> {
        self.execute(program.0, with)
    }
    fn fetch(&self, program: Loaded, name: &str) -> Result<Vec<f32>> {
        self.fetched(program.0, name)
    }
    fn copy(&mut self, x: Vector, y: Vector) -> Result<()> {
        let (x, y) = self.pair(x, y)?;
        y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| y.copy_from_slice(x));
        Ok(())
    }
    fn axpy(&mut self, a: f32, x: Vector, y: Vector) -> Result<()> {
        let (x, y) = self.pair(x, y)?;
        y.par_chunks_mut(BLOCK)
            .zip(x.par_chunks(BLOCK))
            .for_each(|(y, x)| y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x));
        Ok(())
    }
    fn scale(&mut self, a: f32, x: Vector) -> Result<()> {
        self.check(x, 0, 0)?;
        self.vectors[x.0].par_chunks_mut(BLOCK).for_each(|x| x.iter_mut().for_each(|x| *x *= a));
        Ok(())
    }
    fn dot(&self, x: Vector, y: Vector, range: Range<usize>) -> Result<f64> {
        self.check(x, range.start, range.len())?;
        self.check(y, range.start, range.len())?;
        let (x, y) = (&self.vectors[x.0][range.clone()], &self.vectors[y.0][range]);
        let part = |(x, y): (&[f32], &[f32])| {
            simd().dispatch(
                #[inline(always)]
                || dot(x, y),
            )
        };
        let parts: Vec<f64> = x.par_chunks(BLOCK).zip(y.par_chunks(BLOCK)).map(part).collect();
        Ok(parts.iter().sum())
    }
    fn mask(&mut self) -> Result<Mask> {
        self.masks.push(vec![0; self.mask_words()]);
        Ok(Mask(self.masks.len() - 1))
    }
    fn read_mask(&self, m: Mask) -> Result<Vec<u32>> {
        Ok(self.words(m)?.to_vec())
    }
    fn write_mask(&mut self, m: Mask, words: &[u32]) -> Result<()> {
        let have = self.words(m)?.len();
        if words.len() != have {
            let what = format!("wanted {have} words, got {}", words.len());
            return Err(Error::Graph { op: "mask", place: format!("mask {}", m.0), what });
        }
        self.masks[m.0].copy_from_slice(words);
        Ok(())
    }
    fn select(&mut self, w: Vector, how: &Criterion, census: Option<Census>, mask: Mask) -> Result<Selected> {
        self.check(w, 0, 0)?;
        self.words(mask)?;
        let mut words = std::mem::take(&mut self.masks[mask.0]);
        let found = select::select(&self.layout, &self.vectors[w.0], how, census, &mut words);
        self.masks[mask.0] = words;
        found
    }
    fn project(&mut self, w: Vector, mask: Mask) -> Result<()> {
        self.check(w, 0, 0)?;
        self.words(mask)?;
        let prunable = self.mask_words() * 32;
        let (w, words) = (&mut self.vectors[w.0], &self.masks[mask.0]);
        let end = prunable.min(w.len());
        w[..end].par_chunks_mut(BLOCK).zip(words.par_chunks(BLOCK / 32)).for_each(|(w, words)| {
            for (i, w) in w.iter_mut().enumerate() {
                if words[i / 32] >> (i % 32) & 1 == 1 {
                    *w = 0.0;
                }
            }
        });
        Ok(())
    }
    fn update(&mut self, step: &Update) -> Result<Updated> {
        self.fused(step)
    }
}
