//! The fused step on the host: gradient, moments, weights, pull, mask, norms and the census of magnitudes in
//! one pass; 28 bytes a parameter move (w, g, m, v read, w, m, v written) and one bit of mask.
use super::{Host, split};
use crate::engine::constants::Constants;
use crate::engine::select::magnitude_bits;
use crate::engine::{Census, Counted, Optimizer, Update, Updated};
use crate::ops::simd;
use crate::params::{Role, Span};
use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;

/// Elements a word of the mask covers; the loops run over this many lanes.
const LANES: usize = 32;

/// (w, m, v) after the optimizer's step on gradient g.
trait Rule: Copy + Sync {
    fn step(self, c: &Constants, w: f32, g: f32, m: f32, v: f32) -> (f32, f32, f32);
}

#[derive(Clone, Copy)]
struct AdamW;
#[derive(Clone, Copy)]
struct Adam;
#[derive(Clone, Copy)]
struct Sgd;

#[inline(always)]
fn adam(c: &Constants, w: f32, g: f32, m: f32, v: f32) -> (f32, f32, f32) {
    let m = c.beta1 * m + (1.0 - c.beta1) * g;
    let v = c.beta2 * v + (1.0 - c.beta2) * g * g;
    (w - c.rate * (m * c.correct1) / (v.sqrt() * c.correct2 + c.epsilon), m, v)
}
impl Rule for AdamW {
    #[inline(always)]
    fn step(self, c: &Constants, w: f32, g: f32, m: f32, v: f32) -> (f32, f32, f32) {
        adam(c, w - c.rate * c.decay * w, g, m, v)
    }
}
impl Rule for Adam {
    #[inline(always)]
    fn step(self, c: &Constants, w: f32, g: f32, m: f32, v: f32) -> (f32, f32, f32) {
        adam(c, w, g + c.decay * w, m, v)
    }
}
impl Rule for Sgd {
    #[inline(always)]
    fn step(self, c: &Constants, w: f32, g: f32, m: f32, v: f32) -> (f32, f32, f32) {
        let m = c.beta1 * m + (g + c.decay * w);
        (w - c.rate * m, m, v)
    }
}

/// A word's worth of numbers.
type Lanes = [f32; LANES];

/// One word's worth of weights. Adds to the new squares of all and of the pruned, lane by lane.
///
/// Works on copies: arrays that nothing else points to are what becomes vector code.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // four vectors, their constants and their sums
fn word(
    rule: impl Rule,
    c: &Constants,
    bits: u32,
    w: &mut Lanes,
    g: &Lanes,
    m: &mut Lanes,
    v: &mut Lanes,
    sums: &mut [Lanes; 2],
) {
    let (mut nw, mut nm, mut nv, [mut all, mut gone]) = (*w, *m, *v, *sums);
    for i in 0..LANES {
        let pruned = (bits >> i & 1) as f32;
        let gradient = g[i] * c.scale + pruned * c.pull * nw[i];
        let (x, new_m, new_v) = rule.step(c, nw[i], gradient, nm[i], nv[i]);
        let size = x.abs() - pruned * c.shrink;
        // A NaN fails the comparison and stays.
        let x = if size < 0.0 { 0.0 } else { size.copysign(x) };
        let keep = 1.0 - pruned * (1.0 - c.keep);
        nw[i] = x * keep;
        nm[i] = new_m * keep;
        nv[i] = new_v * keep;
        all[i] += nw[i] * nw[i];
        gone[i] += pruned * nw[i] * nw[i];
    }
    (*w, *m, *v, *sums) = (nw, nm, nv, [all, gone]);
}

/// A block of one span: (Σ w², Σ over pruned of w²).
#[inline(always)]
fn block(
    rule: impl Rule,
    c: &Constants,
    words: &[u32],
    w: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) -> (f64, f64) {
    let mut sums = [[0.0f32; LANES]; 2];
    let ((w, w_end), (g, g_end)) = (w.as_chunks_mut(), g.as_chunks());
    let ((m, m_end), (v, v_end)) = (m.as_chunks_mut(), v.as_chunks_mut());
    let mut bits = words.iter().copied().chain(std::iter::repeat(0));
    for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
        word(rule, c, bits.next().unwrap_or(0), w, g, m, v, &mut sums);
    }
    if !w_end.is_empty() {
        // The last word, in arrays of its full length.
        let n = w_end.len();
        let pad = |x: &[f32]| {
            let mut out = [0.0; LANES];
            out[..n].copy_from_slice(x);
            out
        };
        let (mut lw, lg, mut lm, mut lv) = (pad(w_end), pad(g_end), pad(m_end), pad(v_end));
        let mut tail = [[0.0f32; LANES]; 2];
        word(rule, c, bits.next().unwrap_or(0), &mut lw, &lg, &mut lm, &mut lv, &mut tail);
        // Behind the end stands 0 / 0 where epsilon is 0.
        for (sums, tail) in sums.iter_mut().zip(tail) {
            sums[..n].iter_mut().zip(tail).for_each(|(s, t)| *s += t);
        }
        w_end.copy_from_slice(&lw[..n]);
        m_end.copy_from_slice(&lm[..n]);
        v_end.copy_from_slice(&lv[..n]);
    }
    let total = |s: &Lanes| s.iter().map(|&x| f64::from(x)).sum();
    (total(&sums[0]), total(&sums[1]))
}

/// How many magnitudes lie below the bracket, and those inside it: a word of comparisons at a time.
fn census(w: &[f32], (low, high): (u32, u32)) -> (usize, Vec<u32>) {
    let (mut below, mut inside) = (0u32, Vec::new());
    simd().dispatch(
        #[inline(always)]
        || {
            for w in w.chunks(LANES) {
                let mut hits = 0u32;
                for (i, &x) in w.iter().enumerate() {
                    let magnitude = magnitude_bits(x);
                    below += u32::from(magnitude < low);
                    hits |= u32::from(magnitude >= low && magnitude <= high) << i;
                }
                while hits != 0 {
                    inside.push(magnitude_bits(w[hits.trailing_zeros() as usize]));
                    hits &= hits - 1;
                }
            }
        },
    );
    (below as usize, inside)
}

struct Done {
    squares: f64,
    prunable: bool,
    pruned: f64,
    census: Option<(usize, Vec<u32>)>,
}

impl Host {
    pub(super) fn fused(&mut self, u: &Update) -> Result<Updated> {
        match u.optimizer {
            Optimizer::AdamW { .. } => self.fused_by(AdamW, u),
            Optimizer::Adam { .. } => self.fused_by(Adam, u),
            Optimizer::Sgd { .. } => self.fused_by(Sgd, u),
        }
    }

    fn fused_by(&mut self, rule: impl Rule, u: &Update) -> Result<Updated> {
        let trained = |s: &&Span| s.role != Role::Frozen;
        let spans: Vec<Span> = self.layout.spans().iter().filter(trained).cloned().collect();
        let cut = |s: &Span| {
            let end = s.at + s.len;
            s.range().step_by(super::BLOCK).map(move |at| at..(at + super::BLOCK).min(end))
        };
        let blocks: Vec<(Range<usize>, &Span)> = spans.iter().flat_map(|s| cut(s).map(move |r| (r, s))).collect();
        let ranges = || blocks.iter().map(|b| b.0.clone());

        if u.v.is_none() && u.optimizer.second_moments() {
            let what = format!("{:?} needs a vector of second moments", u.optimizer);
            return Err(Error::Graph { op: "update", place: "v".into(), what });
        }
        u.mask.map_or(Ok(&[][..]), |m| self.words(m))?;
        let mut scratch = vec![0.0; if u.v.is_none() { self.layout.len() } else { 0 }];
        let words: &[u32] = u.mask.map_or(&[], |m| &self.masks[m.0]);
        let ids = [u.w.0, u.g.0, u.m.0, u.v.map_or(usize::MAX, |v| v.0)];
        let count = if u.v.is_some() { 4 } else { 3 };
        let clash = || Error::Graph {
            op: "update",
            place: format!("vectors {ids:?}"),
            what: "they must be there and differ".into(),
        };
        let (w, g, m, v) = if count == 4 {
            let [w, g, m, v] = self.vectors.get_disjoint_mut(ids).map_err(|_| clash())?;
            (w, g, m, v)
        } else {
            let [w, g, m] = self.vectors.get_disjoint_mut([ids[0], ids[1], ids[2]]).map_err(|_| clash())?;
            (w, g, m, &mut scratch)
        };
        let g: &[f32] = g;
        let arch = simd();
        let (w, m, v) = (split(w, ranges()), split(m, ranges()), split(v, ranges()));
        let tasks: Vec<_> = blocks.iter().zip(w).zip(m).zip(v).collect();
        let done: Vec<Done> = tasks
            .into_par_iter()
            .map(|((((range, span), w), m), v)| {
                let prunable = span.role == Role::Prunable;
                let words =
                    if prunable && !words.is_empty() { &words[range.start / 32..range.end.div_ceil(32)] } else { &[] };
                let c = Constants::new(u, span.decays());
                let (squares, pruned) = arch.dispatch(
                    #[inline(always)]
                    || block(rule, &c, words, w, &g[range.clone()], m, v),
                );
                let census = u.census.filter(|_| prunable).map(|bracket| census(w, bracket));
                Done { squares, prunable, pruned, census }
            })
            .collect();

        let mut out = Updated::default();
        let mut total = u.census.map(|bracket| Counted { bracket, below: 0, inside: Vec::new() });
        for d in done {
            out.squares += d.squares;
            out.pruned_squares += d.pruned;
            if d.prunable {
                out.prunable_squares += d.squares;
            }
            if let (Some(total), Some((below, inside))) = (&mut total, d.census) {
                total.below += below;
                total.inside.extend(inside);
            }
        }
        out.census = total.map(Census::Counted);
        Ok(out)
    }
}
