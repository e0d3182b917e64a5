//! Scores of a mask's word at a time, in vector registers: comparisons become bits, and single weights are looked at
//! only where a bit is set.
use crate::engine::select::{Score, magnitude_bits};
use crate::rng::philox;
use pulp::Simd;

/// Elements a word of a mask covers.
pub(super) const LANES: usize = 32;

/// A word's worth of numbers.
pub(super) type Word = [f32; LANES];

/// The score of element `i` as bits: smaller is pruned first.
#[inline(always)]
pub(super) fn score(how: Score, i: usize, w: f32) -> u32 {
    match how {
        Score::Magnitude => magnitude_bits(w),
        Score::Random { seed } => {
            philox([i as u32, (i as u64 >> 32) as u32, 0, 1], [seed as u32, (seed >> 32) as u32])[0] >> 1
        }
    }
}

/// Numbers whose magnitudes are the scores of these weights, the first of them element `at`: where they can be, the
/// weights themselves. Places past the end hold zeros.
#[inline(always)]
pub(super) fn scored<'a>(how: Score, at: usize, w: &'a [f32], buffer: &'a mut Word) -> &'a Word {
    if let (Score::Magnitude, Ok(w)) = (how, w.try_into()) {
        return w;
    }
    *buffer = [0.0; LANES];
    for (i, &w) in w.iter().enumerate() {
        buffer[i] = f32::from_bits(score(how, at + i, w));
    }
    buffer
}

/// The bits of a comparison: one a lane.
#[inline(always)]
fn bits<S: Simd>(mask: S::m32s) -> u32 {
    if size_of::<S::m32s>() == size_of::<u16>() {
        // AVX-512 has bits to begin with.
        return u32::from(bytemuck::cast::<S::m32s, u16>(mask));
    }
    let bytes = bytemuck::bytes_of(&mask);
    if bytes.len() < size_of::<u32>() {
        // The scalar form: a bool.
        return bytes.iter().fold(0, |bits, &byte| bits | u32::from(byte));
    }
    // Lanes of ones or zeros.
    bytes.iter().step_by(size_of::<u32>()).rev().fold(0, |bits, &byte| bits << 1 | u32::from(byte & 1))
}

/// A bit for each number whose magnitude passes `test`.
#[inline(always)]
pub(super) fn compare<S: Simd>(s: S, x: &Word, test: impl Fn(S::u32s) -> S::m32s) -> u32 {
    let magnitude = s.splat_u32s(0x7fff_ffff);
    let (registers, _) = S::as_simd_f32s(x);
    let mut out = 0;
    for (nth, &x) in registers.iter().enumerate() {
        out |= bits::<S>(test(s.and_u32s(s.transmute_u32s_f32s(x), magnitude))) << (nth * S::F32_LANES);
    }
    out
}

/// The lanes that a word's bits name, in its register number `nth`.
#[inline(always)]
pub(super) fn lanes<S: Simd>(s: S, bits: u32, nth: usize) -> S::m32s {
    const LANE: [u32; LANES] = {
        let mut lane = [0; LANES];
        let mut i = 0;
        while i < LANES {
            lane[i] = 1 << i;
            i += 1;
        }
        lane
    };
    let lane = S::as_simd_u32s(&LANE).0[nth];
    s.equal_u32s(s.and_u32s(s.splat_u32s(bits), lane), lane)
}

/// A block's share of a census: how many scores lie below the bracket, and those inside it, by index.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub below: usize,
    pub inside: Vec<u32>,
}

impl Count {
    /// Add the word whose scores are the magnitudes of `x`, of which the first `len` are meant.
    #[inline(always)]
    pub(super) fn add<S: Simd>(&mut self, s: S, x: &Word, len: usize, (low, high): (u32, u32)) {
        let (from, to) = (s.splat_u32s(low), s.splat_u32s(high));
        let here = u32::MAX >> (LANES - len);
        self.below += (compare(s, x, |m| s.less_than_u32s(m, from)) & here).count_ones() as usize;
        let inside = |m| s.and_m32s(s.greater_than_or_equal_u32s(m, from), s.less_than_or_equal_u32s(m, to));
        let mut hits = compare(s, x, inside) & here;
        while hits != 0 {
            self.inside.push(magnitude_bits(x[hits.trailing_zeros() as usize]));
            hits &= hits - 1;
        }
    }

    /// Of a block's weights, the first of them element `at`.
    #[inline(always)]
    pub(super) fn of<S: Simd>(s: S, how: Score, at: usize, w: &[f32], bracket: (u32, u32)) -> Self {
        let (mut count, mut buffer) = (Self::default(), [0.0; LANES]);
        for (nth, w) in w.chunks(LANES).enumerate() {
            count.add(s, scored(how, at + nth * LANES, w, &mut buffer), w.len(), bracket);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Vectorised, simd};

    struct Bits(u32);
    impl Vectorised for Bits {
        type Output = u32;
        fn run<S: Simd>(self, s: S) -> u32 {
            let x: Word = std::array::from_fn(|i| if self.0 >> i & 1 == 1 { -2.0 } else { 3.0 });
            let back = compare(s, &x, |m| s.less_than_u32s(m, s.splat_u32s(2.5f32.to_bits())));
            let mut named = 0;
            for nth in 0..LANES / S::F32_LANES {
                named |= bits::<S>(lanes(s, self.0, nth)) << (nth * S::F32_LANES);
            }
            assert_eq!(named, self.0);
            back
        }
    }

    #[test]
    fn comparisons_become_bits_in_their_order() {
        let mut word = 1u32;
        for _ in 0..1000 {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            assert_eq!((simd().run(Bits(word)), Bits(word).run(pulp::Scalar)), (word, word));
        }
    }
}
