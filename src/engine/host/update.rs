//! The fused step on the host: gradient, moments, weights, pull, mask, norms and the census of magnitudes in
//! one pass; 28 bytes a parameter move (w, g, m, v read, w, m, v written) and one bit of mask.
use super::census::{Count, LANES, Word, lanes};
use super::{Host, split};
use crate::engine::constants::Constants;
use crate::engine::{Census, Counted, Optimizer, Update, Updated};
use crate::ops::{Vectorised, simd};
use crate::params::{Role, Span};
use crate::{Error, Result};
use pulp::Simd;
use rayon::prelude::*;
use std::ops::Range;

/// Each constant in all lanes of a register.
#[inline(always)]
fn splat<S: Simd>(s: S, c: &Constants<f32>) -> Constants<S::f32s> {
    Constants {
        scale: s.splat_f32s(c.scale),
        rate: s.splat_f32s(c.rate),
        pull: s.splat_f32s(c.pull),
        shrink: s.splat_f32s(c.shrink),
        keep: s.splat_f32s(c.keep),
        decay: s.splat_f32s(c.decay),
        decayed: s.splat_f32s(c.decayed),
        beta1: s.splat_f32s(c.beta1),
        beta2: s.splat_f32s(c.beta2),
        fresh1: s.splat_f32s(c.fresh1),
        fresh2: s.splat_f32s(c.fresh2),
        epsilon: s.splat_f32s(c.epsilon),
        length: s.splat_f32s(c.length),
        correct2: s.splat_f32s(c.correct2),
    }
}

/// w, m and v of the same elements.
type State<T> = (T, T, T);

/// The optimizer's step on gradient g.
trait Rule: Copy + Send + Sync {
    fn step<S: Simd>(self, s: S, c: &Constants<S::f32s>, state: State<S::f32s>, g: S::f32s) -> State<S::f32s>;
}

#[derive(Clone, Copy)]
struct AdamW;
#[derive(Clone, Copy)]
struct Adam;
#[derive(Clone, Copy)]
struct Sgd;

#[inline(always)]
fn adam<S: Simd>(s: S, c: &Constants<S::f32s>, (w, m, v): State<S::f32s>, g: S::f32s) -> State<S::f32s> {
    let m = s.mul_add_e_f32s(c.beta1, m, s.mul_f32s(c.fresh1, g));
    let v = s.mul_add_e_f32s(c.beta2, v, s.mul_f32s(s.mul_f32s(c.fresh2, g), g));
    let size = s.mul_add_e_f32s(s.sqrt_f32s(v), c.correct2, c.epsilon);
    (s.sub_f32s(w, s.div_f32s(s.mul_f32s(m, c.length), size)), m, v)
}
impl Rule for AdamW {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, c: &Constants<S::f32s>, (w, m, v): State<S::f32s>, g: S::f32s) -> State<S::f32s> {
        adam(s, c, (s.mul_f32s(c.decayed, w), m, v), g)
    }
}
impl Rule for Adam {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, c: &Constants<S::f32s>, (w, m, v): State<S::f32s>, g: S::f32s) -> State<S::f32s> {
        adam(s, c, (w, m, v), s.mul_add_e_f32s(c.decay, w, g))
    }
}
impl Rule for Sgd {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, c: &Constants<S::f32s>, (w, m, v): State<S::f32s>, g: S::f32s) -> State<S::f32s> {
        let m = s.mul_add_e_f32s(c.beta1, m, s.mul_add_e_f32s(c.decay, w, g));
        (s.sub_f32s(w, s.mul_f32s(c.rate, m)), m, v)
    }
}

/// A block of one span, in registers: left to itself, the compiler makes vectors of some of this loop, and shuffles
/// of the rest.
struct Block<'a, R> {
    rule: R,
    constants: &'a Constants<f32>,
    /// The mask's, or none.
    words: &'a [u32],
    w: &'a mut [f32],
    g: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    bracket: Option<(u32, u32)>,
}

/// What a block leaves: Σ w², Σ over pruned of w², and its share of the census.
struct Sums {
    all: f64,
    pruned: f64,
    count: Option<Count>,
}

/// Words whose squares are summed in f32, before they go into an f64.
const WORDS: usize = 32;

impl<R: Rule> Vectorised for Block<'_, R> {
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Sums {
        let c = splat(s, self.constants);
        let zero = s.splat_f32s(0.0);
        let mut sums = Sums { all: 0.0, pruned: 0.0, count: self.bracket.map(|_| Count::default()) };
        let mut squares = [zero; 2];
        let ((w, w_end), (g, g_end)) = (self.w.as_chunks_mut::<LANES>(), self.g.as_chunks::<LANES>());
        let ((m, m_end), (v, v_end)) = (self.m.as_chunks_mut::<LANES>(), self.v.as_chunks_mut::<LANES>());
        for (nth, (((w, g), m), v)) in w.iter_mut().zip(g).zip(m).zip(v).enumerate() {
            word(s, self.rule, &c, self.words.get(nth).copied().unwrap_or(0), w, g, m, v, &mut squares);
            if let (Some(count), Some(bracket)) = (&mut sums.count, self.bracket) {
                count.add(s, w, LANES, bracket);
            }
            if nth % WORDS == WORDS - 1 {
                sums.add(s, &mut squares);
            }
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
            let bits = self.words.get(w.len()).copied().unwrap_or(0);
            // Behind the end stands 0 / 0 where epsilon is 0: these squares are added up one by one.
            word(s, self.rule, &c, bits, &mut lw, &lg, &mut lm, &mut lv, &mut [zero; 2]);
            for (i, &x) in lw[..n].iter().enumerate() {
                let square = f64::from(x) * f64::from(x);
                sums.all += square;
                sums.pruned += if bits >> i & 1 == 1 { square } else { 0.0 };
            }
            if let (Some(count), Some(bracket)) = (&mut sums.count, self.bracket) {
                count.add(s, &lw, n, bracket);
            }
            w_end.copy_from_slice(&lw[..n]);
            m_end.copy_from_slice(&lm[..n]);
            v_end.copy_from_slice(&lv[..n]);
        }
        sums.add(s, &mut squares);
        sums
    }
}

impl Sums {
    #[inline(always)]
    fn add<S: Simd>(&mut self, s: S, squares: &mut [S::f32s; 2]) {
        self.all += f64::from(s.reduce_sum_f32s(squares[0]));
        self.pruned += f64::from(s.reduce_sum_f32s(squares[1]));
        *squares = [s.splat_f32s(0.0); 2];
    }
}

/// One word's worth of weights. Adds to the new squares of all and of the pruned, lane by lane.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // four vectors, their constants and their sums
fn word<S: Simd>(
    s: S,
    rule: impl Rule,
    c: &Constants<S::f32s>,
    bits: u32,
    w: &mut Word,
    g: &Word,
    m: &mut Word,
    v: &mut Word,
    squares: &mut [S::f32s; 2],
) {
    let (zero, sign) = (s.splat_f32s(0.0), s.splat_f32s(-0.0));
    let (w, g) = (S::as_mut_simd_f32s(w).0, S::as_simd_f32s(g).0);
    let (m, v) = (S::as_mut_simd_f32s(m).0, S::as_mut_simd_f32s(v).0);
    for (nth, (((w, &g), m), v)) in w.iter_mut().zip(g).zip(m).zip(v).enumerate() {
        let pruned = lanes(s, bits, nth);
        let gradient = s.mul_add_e_f32s(g, c.scale, s.select_f32s(pruned, s.mul_f32s(c.pull, *w), zero));
        let (x, new_m, new_v) = rule.step(s, c, (*w, *m, *v), gradient);
        let size = s.sub_f32s(s.and_f32s(x, s.not_f32s(sign)), c.shrink);
        // A NaN fails the comparison and stays.
        let shrunk = s.select_f32s(s.less_than_f32s(size, zero), zero, s.or_f32s(size, s.and_f32s(x, sign)));
        let keep = |new, now| s.select_f32s(pruned, s.mul_f32s(new, c.keep), now);
        let x = keep(shrunk, x);
        (*w, *m, *v) = (x, keep(new_m, new_m), keep(new_v, new_v));
        squares[0] = s.mul_add_e_f32s(x, x, squares[0]);
        squares[1] = s.mul_add_e_f32s(x, s.select_f32s(pruned, x, zero), squares[1]);
    }
}

struct Done {
    prunable: bool,
    sums: Sums,
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
                let constants = &Constants::new(u, span.decays());
                let (g, bracket) = (&g[range.clone()], u.census.filter(|_| prunable));
                let sums = arch.run(Block { rule, constants, words, w, g, m, v, bracket });
                Done { prunable, sums }
            })
            .collect();

        let mut out = Updated::default();
        let mut total = u.census.map(|bracket| Counted { bracket, below: 0, inside: Vec::new() });
        for Done { prunable, sums } in done {
            out.squares += sums.all;
            out.pruned_squares += sums.pruned;
            if prunable {
                out.prunable_squares += sums.all;
            }
            if let (Some(total), Some(count)) = (&mut total, sums.count) {
                total.below += count.below;
                total.inside.extend(count.inside);
            }
        }
        out.census = total.map(Census::Counted);
        Ok(out)
    }
}
