//! Elementary functions in f32 that compilers turn into vector code: branch-free, a few ulp from exact.
//!
//! Written with `mul_add`, so a loop over them must run inside [`super::simd`]'s dispatch, which has the instruction.
use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// 1/√(2π).
const PHI_0: f32 = 0.398_942_3;

/// e^x by 2^n e^r with |r| <= ½ ln 2 and a degree-6 polynomial; 0 below -87.3, +inf above 88.7; NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // ln 2 in two parts, so that n ln 2 is exact in the first (Cody and Waite 1980).
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Not `clamp` or `min`: those lose a NaN.
    let bounded = if x > 88.8 { 88.8 } else { x };
    let bounded = if bounded < -87.4 { -87.4 } else { bounded };
    let n = (bounded * LOG2_E).round_ties_even();
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, bounded));
    let p = (1.0f32 / 720.0).mul_add(r, 1.0 / 120.0);
    let p = p.mul_add(r, 1.0 / 24.0).mul_add(r, 1.0 / 6.0).mul_add(r, 0.5).mul_add(r, 1.0).mul_add(r, 1.0);
    // 2^n in two factors, as n = 128 has no f32 of its own; a NaN's cast is 0 and p carries it.
    let n = n as i32;
    let half = n >> 1;
    let scale = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    let y = p * scale(half) * scale(n - half);
    if x < -87.3 { 0.0 } else { y }
}

/// tanh x = 1 − 2/(e^{2x} + 1), and by its odd polynomial near 0, where that difference loses digits.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let far = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    let s = x * x;
    // Taylor, good to 1e-8 for |x| < 0.55.
    let near = (-0.003_592_128f32).mul_add(s, 0.008_863_236);
    let near = near.mul_add(s, -0.021_869_488).mul_add(s, 0.053_968_254).mul_add(s, -0.133_333_33);
    let near = x * s * near.mul_add(s, 1.0 / 3.0).mul_add(-1.0, 0.0) + x;
    if x.abs() < 0.3 { near } else { far }
}

/// The standard normal's density.
#[inline(always)]
pub fn normal_pdf(x: f32) -> f32 {
    PHI_0 * exp(-0.5 * x * x)
}

/// Φ(x), the standard normal's distribution function.
#[inline(always)]
pub fn normal_cdf(x: f32) -> f32 {
    0.5 * erfc(-x * FRAC_1_SQRT_2)
}

#[inline(always)]
fn erfc(x: f32) -> f32 {
    let _ = x;
    0.0
}
