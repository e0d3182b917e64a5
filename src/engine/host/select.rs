//! The exact choice of what is pruned, on the host: ties by index, the same bits on every device.
use super::census::{Count, LANES, Word, compare, lanes, score, scored};
use super::{BLOCK, dot, split};
use crate::Result;
use crate::engine::select::{Score, magnitude_bits};
use crate::engine::{Census, Counted, Criterion, Pattern, Selected};
use crate::ops::{Vectorised, simd};
use crate::params::{Layout, Role, Span};
use pulp::Simd;
use rayon::prelude::*;
use std::ops::Range;

/// Set `mask` (a bit a float of the prunable range) and say what was chosen.
pub(super) fn select(
    layout: &Layout,
    w: &[f32],
    how: &Criterion,
    census: Option<Census>,
    mask: &mut [u32],
) -> Result<Selected> {
    let spans: Vec<&Span> = layout.with_role(Role::Prunable).collect();
    how.check(layout)?;
    mask.fill(0);
    match how.pattern {
        Pattern::Global => {
            let blocks: Vec<Range<usize>> = spans.iter().flat_map(|s| cut(s.range())).collect();
            let k = how.count(spans.iter().map(|s| s.len).sum());
            let counted = match census {
                Some(Census::Counted(counted)) if how.score == Score::Magnitude => Some(counted),
                _ => None,
            };
            let sums = smallest(w, how.score, &blocks, k, counted, mask);
            if how.score == Score::Magnitude && k > 0 {
                return Ok(sums);
            }
        }
        Pattern::Layer => {
            for s in &spans {
                let blocks: Vec<Range<usize>> = cut(s.range()).collect();
                smallest(w, how.score, &blocks, how.count(s.len), None, mask);
            }
        }
        Pattern::Row => {
            for s in &spans {
                let (_, cols) = s.matrix();
                groups(w, how.score, s, cols, how.count(cols), mask);
            }
        }
        Pattern::NofM { n, m } => {
            for s in &spans {
                groups(w, how.score, s, m, how.count(m - n), mask);
            }
        }
        Pattern::Block { rows, cols } => blocks_of(w, how, &spans, (rows, cols), mask),
    }
    Ok(summary(w, &spans, mask))
}

fn cut(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(BLOCK).map(move |at| at..(at + BLOCK).min(end))
}

/// What one pass over a block leaves: its words of the mask, how many of its scores equal the k-th, the squares of
/// those below it and of all.
struct Marked<'m> {
    at: usize,
    words: &'m mut [u32],
    equal: usize,
    below: f64,
    all: f64,
}

/// Set the bits of the k smallest scores of all blocks together; of equal ones, the first by index. What it returns is
/// meant for scores that are magnitudes: it knows the largest and adds the squares up in the same pass.
fn smallest(
    w: &[f32],
    how: Score,
    blocks: &[Range<usize>],
    k: usize,
    counted: Option<Counted>,
    mask: &mut [u32],
) -> Selected {
    let mut out = Selected { pruned: k, threshold: 0.0, pruned_squares: 0.0, squares: 0.0 };
    if k == 0 {
        return out;
    }
    let (kth, below) = match counted.and_then(|c| from_census(c, k)) {
        Some(found) => found,
        None => kth(w, how, blocks, k),
    };
    let words = split(mask, blocks.iter().map(|b| b.start / 32..b.end.div_ceil(32)));
    let tasks: Vec<_> = words.into_par_iter().zip(blocks).collect();
    let mut marked: Vec<Marked> = tasks
        .into_par_iter()
        .map(|(words, block)| simd().run(Mark { how, kth, at: block.start, w: &w[block.clone()], words }))
        .collect();
    // Of the equal ones, the first by index fill up what is left.
    let mut left = k - below;
    out.threshold = f32::from_bits(kth);
    out.pruned_squares = left as f64 * f64::from(out.threshold).powi(2);
    for m in &mut marked {
        out.pruned_squares += m.below;
        out.squares += m.all;
        m.equal = m.equal.min(left);
        left -= m.equal;
    }
    marked.par_iter_mut().filter(|m| m.equal > 0).for_each(|m| {
        let ties = (m.at..).zip(&w[m.at..]).filter(|&(i, &w)| score(how, i, w) == kth).take(m.equal);
        ties.for_each(|(i, _)| m.words[(i - m.at) / 32] |= 1 << ((i - m.at) % 32));
    });
    out
}

/// Sets the bits of a block's scores below the k-th.
struct Mark<'w, 'm> {
    how: Score,
    kth: u32,
    at: usize,
    w: &'w [f32],
    words: &'m mut [u32],
}

impl<'m> Vectorised for Mark<'_, 'm> {
    type Output = Marked<'m>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Marked<'m> {
        let kth = s.splat_u32s(self.kth);
        let (mut equal, mut buffer) = (0, [0.0; LANES]);
        for (nth, (word, w)) in self.words.iter_mut().zip(self.w.chunks(LANES)).enumerate() {
            let x = scored(self.how, self.at + nth * LANES, w, &mut buffer);
            let here = u32::MAX >> (LANES - w.len());
            *word = compare(s, x, |m| s.less_than_u32s(m, kth)) & here;
            equal += (compare(s, x, |m| s.equal_u32s(m, kth)) & here).count_ones() as usize;
        }
        // A loop of its own, over what the cache holds: inside the one above it would not become vector code.
        let mut below = [0.0; 8];
        for (&word, w) in self.words.iter().zip(self.w.chunks(LANES)) {
            squares(&only(s, scored(Score::Magnitude, 0, w, &mut buffer), word), &mut below);
        }
        Marked { at: self.at, words: self.words, equal, below: below.iter().sum(), all: dot(self.w, self.w) }
    }
}

/// The numbers that a word's bits name; the rest are zeros.
#[inline(always)]
fn only<S: Simd>(s: S, x: &Word, bits: u32) -> Word {
    let mut out = [0.0; LANES];
    for (nth, (out, &x)) in S::as_mut_simd_f32s(&mut out).0.iter_mut().zip(S::as_simd_f32s(x).0).enumerate() {
        *out = s.select_f32s(lanes(s, bits, nth), x, *out);
    }
    out
}

/// Add squares to eight sums; a square of an f32 is exact in f64.
#[inline(always)]
fn squares(x: &Word, sums: &mut [f64; 8]) {
    for x in x.as_chunks::<8>().0 {
        for i in 0..8 {
            sums[i] += f64::from(x[i]) * f64::from(x[i]);
        }
    }
}

/// The k-th smallest of a census and how many are smaller, if it lies in the bracket.
fn from_census(mut census: Counted, k: usize) -> Option<(u32, usize)> {
    let nth = k.checked_sub(census.below + 1).filter(|&n| n < census.inside.len())?;
    let (smaller, &mut kth, _) = census.inside.select_nth_unstable(nth);
    let smaller = smaller.iter().filter(|&&s| s < kth).count();
    Some((kth, census.below + smaller))
}

/// The scores of a block that lie in a bracket.
struct Inside<'w> {
    how: Score,
    at: usize,
    w: &'w [f32],
    bracket: (u32, u32),
}

impl Vectorised for Inside<'_> {
    type Output = Vec<u32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<u32> {
        Count::of(s, self.how, self.at, self.w, self.bracket).inside
    }
}

/// The k-th smallest score and how many are smaller: a histogram of the leading 14 bits, then a choice
/// inside the one bucket that holds it.
fn kth(w: &[f32], how: Score, blocks: &[Range<usize>], k: usize) -> (u32, usize) {
    const SHIFT: u32 = 17;
    let count = |mut h: Vec<u32>, b: &Range<usize>| {
        b.clone().zip(&w[b.clone()]).for_each(|(i, &w)| h[(score(how, i, w) >> SHIFT) as usize] += 1);
        h
    };
    // Tasks large enough to pay for a histogram, and small enough for its counters.
    let tasks = blocks.par_iter().with_min_len(16).with_max_len(1 << 16);
    let parts: Vec<Vec<u32>> = tasks.fold(|| vec![0; 1 << (31 - SHIFT)], count).collect();
    let mut histogram = vec![0usize; 1 << (31 - SHIFT)];
    parts.iter().for_each(|h| histogram.iter_mut().zip(h).for_each(|(sum, &n)| *sum += n as usize));
    let (mut bucket, mut below) = (0, 0);
    while below + histogram[bucket] < k {
        below += histogram[bucket];
        bucket += 1;
    }
    let bracket = ((bucket as u32) << SHIFT, (bucket as u32) << SHIFT | ((1 << SHIFT) - 1));
    let in_bucket = |b: &Range<usize>| simd().run(Inside { how, at: b.start, w: &w[b.clone()], bracket });
    let inside: Vec<u32> = blocks.par_iter().flat_map_iter(in_bucket).collect();
    // The bucket was chosen to hold the k-th, so the census does.
    from_census(Counted { bracket, below, inside }, k).unwrap_or((0, 0))
}

/// In every group of `size` neighbours of a span, set the bits of the k smallest.
fn groups(w: &[f32], how: Score, span: &Span, size: usize, k: usize, mask: &mut [u32]) {
    if k == 0 {
        return;
    }
    let count = span.len / size;
    let chosen: Vec<Vec<usize>> = (0..count)
        .into_par_iter()
        .map(|g| {
            let start = span.at + g * size;
            let mut order: Vec<(u32, usize)> = (start..start + size).map(|i| (score(how, i, w[i]), i)).collect();
            order.select_nth_unstable(k - 1);
            order[..k].iter().map(|o| o.1).collect()
        })
        .collect();
    chosen.iter().flatten().for_each(|&i| mask[i / 32] |= 1 << (i % 32));
}

/// Prune whole blocks: k = round(p · blocks) of the smallest norms; a block at an edge is as large as fits.
fn blocks_of(w: &[f32], how: &Criterion, spans: &[&Span], (rows, cols): (usize, usize), mask: &mut [u32]) {
    let mut scored: Vec<(u64, usize, [usize; 5])> = Vec::new(); // score, index, (at, row stride, r0, c0, span rows)
    for s in spans {
        let (height, width) = s.matrix();
        for r in (0..height).step_by(rows) {
            for c in (0..width).step_by(cols) {
                let lines = r..(r + rows).min(height);
                let squares: f64 = lines
                    .map(|r| &w[s.at + r * width + c..s.at + r * width + (c + cols).min(width)])
                    .map(|x| dot(x, x))
                    .sum();
                let index = scored.len();
                let bits = match how.score {
                    Score::Magnitude => squares.to_bits(),
                    Score::Random { .. } => u64::from(score(how.score, index, 0.0)),
                };
                scored.push((bits, index, [s.at, width, r, c, height]));
            }
        }
    }
    let k = how.count(scored.len());
    if k == 0 {
        return;
    }
    scored.select_nth_unstable(k - 1);
    for (_, _, [at, width, r0, c0, height]) in &scored[..k] {
        for r in *r0..(r0 + rows).min(*height) {
            for i in at + r * width + c0..at + r * width + (c0 + cols).min(*width) {
                mask[i / 32] |= 1 << (i % 32);
            }
        }
    }
}

/// What was chosen, in one pass over the weights.
fn summary(w: &[f32], spans: &[&Span], mask: &[u32]) -> Selected {
    let blocks: Vec<Range<usize>> = spans.iter().flat_map(|s| cut(s.range())).collect();
    let parts: Vec<(usize, u32, f64, f64)> = blocks
        .par_iter()
        .map(|b| {
            let words = &mask[b.start / 32..b.end.div_ceil(32)];
            let (mut tops, mut squares) = ([0u32; 32], [0.0f64; 32]);
            simd().dispatch(
                #[inline(always)]
                || {
                    for (&word, w) in words.iter().zip(w[b.clone()].chunks(32)) {
                        for (i, &x) in w.iter().enumerate() {
                            let pruned = word >> i & 1;
                            let magnitude = magnitude_bits(x) * pruned;
                            tops[i] = if magnitude > tops[i] { magnitude } else { tops[i] };
                            let x = f64::from(f32::from_bits(magnitude));
                            squares[i] += x * x;
                        }
                    }
                },
            );
            let pruned = words.iter().map(|w| w.count_ones() as usize).sum();
            let squares = squares.iter().sum();
            (pruned, tops.into_iter().max().unwrap_or(0), squares, dot(&w[b.clone()], &w[b.clone()]))
        })
        .collect();
    Selected {
        pruned: parts.iter().map(|p| p.0).sum(),
        threshold: f32::from_bits(parts.iter().map(|p| p.1).max().unwrap_or(0)),
        pruned_squares: parts.iter().map(|p| p.2).sum(),
        squares: parts.iter().map(|p| p.3).sum(),
    }
}
