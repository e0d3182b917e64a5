//! The register tile that every pass of a convolution but its weight gradient spends its time in: a few output channels
//! by a few vectors of pixels, over a list of taps.
use crate::ops::{Vectorised, simd};
use pulp::Simd;

/// Vectors of pixels in a tile.
pub(super) const VECTORS: usize = 3;

/// Pixels in a vector, and output channels in a tile: what fits the registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    pub lanes: usize,
    pub channels: usize,
}

impl Registers {
    pub fn new() -> Self {
        struct Ask;
        impl Vectorised for Ask {
            type Output = Registers;
            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> Registers {
                Registers { lanes: S::F32_LANES, channels: if S::REGISTER_COUNT >= 32 { 8 } else { 4 } }
            }
        }
        simd().run(Ask)
    }
}

/// Vectors, by where they begin, dealt out to tiles.
pub(super) fn tiles(mut vectors: &[usize]) -> impl Iterator<Item = &[usize]> {
    std::iter::from_fn(move || {
        // Two tiles of two do better than one of three and one of one.
        let v = if vectors.len() == 4 { 2 } else { vectors.len().min(VECTORS) };
        let (tile, rest) = vectors.split_at(v);
        vectors = rest;
        (v > 0).then_some(tile)
    })
}

/// [`multiply`] for a tile of one to `VECTORS` vectors.
#[inline(always)]
pub(super) fn multiply_tile<S: Simd, const M: usize>(
    s: S,
    a: &[f32],
    (b, at): (&[f32], &[usize]),
    offsets: &[usize],
    c: (&mut [f32], usize, bool),
) {
    match *at {
        [i, j, k] => s.vectorize(Tile::<M, 3> { a, b, at: [i, j, k], offsets, c }),
        [i, j] => s.vectorize(Tile::<M, 2> { a, b, at: [i, j], offsets, c }),
        [i] => s.vectorize(Tile::<M, 1> { a, b, at: [i], offsets, c }),
        _ => debug_assert!(false, "a tile of {} vectors", at.len()),
    }
}

/// A tile in a function of its own: inlined among others, its registers were spilled.
struct Tile<'a, const M: usize, const V: usize> {
    a: &'a [f32],
    b: &'a [f32],
    at: [usize; V],
    offsets: &'a [usize],
    c: (&'a mut [f32], usize, bool),
}

impl<const M: usize, const V: usize> pulp::WithSimd for Tile<'_, M, V> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        multiply::<S, M, V>(s, self.a, (self.b, self.at), self.offsets, self.c);
    }
}

/// c [M, vectors] (+)= a [taps, M] b, where vector j of row t of b begins at `at[j] + offsets[t]`.
#[inline(always)]
fn multiply<S: Simd, const M: usize, const V: usize>(
    s: S,
    a: &[f32],
    (b, at): (&[f32], [usize; V]),
    offsets: &[usize],
    (c, pitch, add): (&mut [f32], usize, bool),
) {
    let zero = s.splat_f32s(0.0);
    let mut sums = [[zero; V]; M];
    // All of one length, so that one check of an offset does for all.
    let room = b.len() - at.iter().copied().fold(0, usize::max);
    let b = at.map(|at| &b[at..][..room]);
    for (a, &offset) in a.as_chunks::<M>().0.iter().zip(offsets) {
        let mut pixels = [zero; V];
        for (pixels, b) in pixels.iter_mut().zip(b) {
            *pixels = S::as_simd_f32s(&b[offset..offset + S::F32_LANES]).0[0];
        }
        for i in 0..M {
            let weight = s.splat_f32s(a[i]);
            for j in 0..V {
                sums[i][j] = s.mul_add_e_f32s(weight, pixels[j], sums[i][j]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let c = S::as_mut_simd_f32s(&mut c[i * pitch..][..V * S::F32_LANES]).0;
        for (c, sum) in c.iter_mut().zip(sums) {
            *c = if add { s.add_f32s(*c, *sum) } else { *sum };
        }
    }
}

/// to (+)= from + bias.
#[inline(always)]
pub(super) fn put<S: Simd>(s: S, to: &mut [f32], from: &[f32], bias: Option<f32>, add: bool) {
    let (head, tail) = S::as_mut_simd_f32s(to);
    let (from, rest) = S::as_simd_f32s(from);
    let bias = bias.map(|bias| s.splat_f32s(bias));
    let with = |value| bias.map_or(value, |bias| s.add_f32s(value, bias));
    for (to, from) in head.iter_mut().zip(from) {
        *to = if add { s.add_f32s(*to, with(*from)) } else { with(*from) };
    }
    if !tail.is_empty() {
        let value = with(s.partial_load_f32s(rest));
        let value = if add { s.add_f32s(s.partial_load_f32s(tail), value) } else { value };
        s.partial_store_f32s(tail, value);
    }
}

/// to[j * pitch + i] = rows[i][j]: as many columns as the rows have; an empty row counts as zeros.
#[inline(always)]
pub(super) fn transpose(rows: [&[f32]; 4], to: &mut [f32], pitch: usize) {
    let n = rows.iter().map(|r| r.len()).max().unwrap_or(0);
    let whole = if rows.iter().all(|r| r.len() == n) { n / 4 } else { 0 };
    let blocks = rows.map(|r| &r.as_chunks::<4>().0[..whole]);
    for j in 0..whole {
        let [a, b, c, d] = blocks.map(|b| b[j]);
        let to = &mut to[4 * j * pitch..];
        for k in 0..4 {
            to[k * pitch..][..4].copy_from_slice(&[a[k], b[k], c[k], d[k]]);
        }
    }
    for j in 4 * whole..n {
        for (i, row) in rows.iter().enumerate() {
            to[j * pitch + i] = row.get(j).copied().unwrap_or(0.0);
        }
    }
}
