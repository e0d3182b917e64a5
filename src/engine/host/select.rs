//! The exact choice of what is pruned, on the host: ties by index, the same bits on every device.
use super::{BLOCK, dot, split};
use crate::Result;
use crate::engine::select::{Score, magnitude_bits};
use crate::engine::{Census, Counted, Criterion, Pattern, Selected};
use crate::ops::simd;
use crate::params::{Layout, Role, Span};
use crate::rng::philox;
use rayon::prelude::*;
use std::ops::Range;

/// The score of element `i` as bits: smaller is pruned first.
fn score(how: Score, i: usize, w: f32) -> u32 {
    match how {
        Score::Magnitude => magnitude_bits(w),
        Score::Random { seed } => {
            philox([i as u32, (i as u64 >> 32) as u32, 0, 1], [seed as u32, (seed >> 32) as u32])[0] >> 1
        }
    }
}

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
            smallest(w, how.score, &blocks, k, counted, mask);
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

/// The scores of a block, in a buffer that is kept from block to block.
fn scores<'b>(how: Score, block: &Range<usize>, w: &[f32], buffer: &'b mut Vec<u32>) -> &'b [u32] {
    buffer.clear();
    match how {
        Score::Magnitude => buffer.extend(w[block.clone()].iter().map(|&x| magnitude_bits(x))),
        Score::Random { .. } => buffer.extend(block.clone().map(|i| score(how, i, 0.0))),
    }
    buffer
}

/// Set the bits of the k smallest scores of all blocks together; of equal ones, the first by index.
fn smallest(w: &[f32], how: Score, blocks: &[Range<usize>], k: usize, counted: Option<Counted>, mask: &mut [u32]) {
    if k == 0 {
        return;
    }
    let (kth, below) = match counted.and_then(|c| from_census(c, k)) {
        Some(found) => found,
        None => kth(w, how, blocks, k),
    };
    // The bits of those below the k-th, and how many each block has that are equal to it.
    let words = split(mask, blocks.iter().map(|b| b.start / 32..b.end.div_ceil(32)));
    let tasks: Vec<_> = words.into_par_iter().zip(blocks).collect();
    let done: Vec<(usize, &mut [u32], &Range<usize>)> = tasks
        .into_par_iter()
        .map_init(Vec::new, |buffer, (words, block)| {
            let scores = scores(how, block, w, buffer);
            let mut equal = 0u32;
            simd().dispatch(
                #[inline(always)]
                || {
                    for (word, scores) in words.iter_mut().zip(scores.chunks(32)) {
                        let mut bits = 0;
                        for (i, &s) in scores.iter().enumerate() {
                            bits |= u32::from(s < kth) << i;
                            equal += u32::from(s == kth);
                        }
                        *word = bits;
                    }
                },
            );
            (equal as usize, words, block)
        })
        .collect();
    // Of the equal ones, the first by index fill up what is left.
    let mut left = k - below;
    for (equal, words, block) in done {
        let equal = equal.min(left);
        left -= equal;
        let ties = block.clone().filter(|&i| score(how, i, w[i]) == kth).take(equal);
        ties.for_each(|i| words[(i - block.start) / 32] |= 1 << ((i - block.start) % 32));
        if left == 0 {
            break;
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

/// The k-th smallest score and how many are smaller: a histogram of the leading 12 bits, then a choice
/// inside the one bucket that holds it.
fn kth(w: &[f32], how: Score, blocks: &[Range<usize>], k: usize) -> (u32, usize) {
    const SHIFT: u32 = 19;
    let empty = || (vec![0usize; 1 << (31 - SHIFT)], Vec::new());
    let (histogram, _) = blocks
        .par_iter()
        .fold(empty, |(mut h, mut buffer), b| {
            scores(how, b, w, &mut buffer).iter().for_each(|s| h[(s >> SHIFT) as usize] += 1);
            (h, buffer)
        })
        .reduce(empty, |(mut a, buffer), (b, _)| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            (a, buffer)
        });
    let (mut bucket, mut below) = (0, 0);
    while below + histogram[bucket] < k {
        below += histogram[bucket];
        bucket += 1;
    }
    let in_bucket = |b: &Range<usize>| -> Vec<u32> {
        let mut buffer = Vec::new();
        let scores = scores(how, b, w, &mut buffer).iter().copied();
        scores.filter(|s| (s >> SHIFT) as usize == bucket).collect()
    };
    let inside: Vec<u32> = blocks.par_iter().flat_map_iter(in_bucket).collect();
    // The bucket was chosen to hold the k-th, so the census does.
    from_census(Counted { bracket: (0, 0), below, inside }, k).unwrap_or((0, 0))
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
