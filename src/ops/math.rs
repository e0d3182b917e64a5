//! Elementary functions and row reductions in f32, written so that the compiler makes vector code of them.
//!
//! All are branch-free (selects only) and use `mul_add`, so a loop over them belongs inside `super::simd`'s
//! dispatch, which has the instruction. NaN comes out as NaN. The coefficients are minimax fits of ours
//! (weighted least squares, reweighted to equal ripples, then rounded to f32); the tests sweep each range.
use std::f32::consts::LOG2_E;

/// 1/√(2π).
const PHI_0: f32 = 0.398_942_3;

/// e^x within 2 ulp: 2^n e^r, |r| ≤ ½ ln 2. Subnormal results (x < -87.3365) are 0.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// The largest x with a finite e^x, and the least with a normal one.
    const HIGH: f32 = 88.722_84;
    const LOW: f32 = -87.336_54;
    /// Adding 1.5·2²³ rounds to a whole number and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; n times the first is exact (Cody and Waite 1980).
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let p = 0.001_381_459_4f32.mul_add(r, 0.008_368_717_5).mul_add(r, 0.041_668_39).mul_add(r, 0.166_665_21);
    let p = p.mul_add(r, 0.499_999_94).mul_add(r, 1.0).mul_add(r, 1.0);
    let y = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    let y = if x < LOW { 0.0 } else { y };
    // Both +inf and NaN leave by the product.
    if x <= HIGH { y } else { x * f32::INFINITY }
}

/// (e^x − 1 − x) / x² by its series up to x^N of e^x: for |x| ≤ 1 and N = 18 to the last digits of an f64.
#[inline(always)]
pub fn beyond_linear<const N: u32>(x: f64) -> f64 {
    const INVERSE: [f64; 21] = {
        let (mut inverse, mut i) = ([1.0; 21], 1);
        while i < 21 {
            inverse[i] = inverse[i - 1] / i as f64;
            i += 1;
        }
        inverse
    };
    let mut sum = INVERSE[N as usize];
    let mut i = N as usize;
    while i > 2 {
        i -= 1;
        sum = sum.mul_add(x, INVERSE[i]);
    }
    sum
}

/// e^x in f64 within 2 ulp: 2^n times the series of e^r, |r| ≤ ½ ln 2. Subnormal results (x < -708.3964) are 0.
#[inline(always)]
pub fn exp_f64(x: f64) -> f64 {
    const HIGH: f64 = 709.782_712_893_384;
    const LOW: f64 = -708.396_418_532_264_1;
    /// As in [`exp`], with 52 bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    // ln 2 in two parts, from fdlibm.
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let shifted = x.mul_add(std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let y = 1.0 + (r * r).mul_add(beyond_linear::<13>(r), r);
    let y = f64::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 52));
    let y = if x < LOW { 0.0 } else { y };
    if x <= HIGH { y } else { x * f64::INFINITY }
}

/// tanh x within 5 ulp: x P(x²)/Q(x²) on |x| ≤ 9.02, beyond which it rounds to ±1.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    const END: f32 = 9.02;
    // Comparisons in this form let NaN through; `min` and `clamp` would not.
    let x = if x > END { END } else { x };
    let x = if x < -END { -END } else { x };
    let s = x * x;
    let p = 1.338_421_1e-8f32.mul_add(s, 2.063_579e-5).mul_add(s, 0.003_497_457).mul_add(s, 0.133_826_87);
    let q = 7.790_224e-7f32.mul_add(s, 3.288_515e-4).mul_add(s, 0.025_884_36).mul_add(s, 0.467_160_08);
    let y = x * p.mul_add(s, 1.0) / q.mul_add(s, 1.0);
    let y = if y > 1.0 { 1.0 } else { y };
    if y < -1.0 { -1.0 } else { y }
}

/// (|x| or 14.5 if that is less, e^(-x²/2)), the latter within 3 ulp: the rounding of x² is put back.
#[inline(always)]
fn gauss(x: f32) -> (f32, f32) {
    let t = if x.abs() > 14.5 { 14.5 } else { x.abs() };
    let square = t * t;
    let lost = t.mul_add(t, -square);
    let e = exp(-0.5 * square);
    (t, e.mul_add(-0.5 * lost, e))
}

/// The standard normal's density, within 4 ulp; 0 where it is below the least normal f32.
#[inline(always)]
pub fn normal_pdf(x: f32) -> f32 {
    PHI_0 * gauss(x).1
}

/// The standard normal's distribution function Φ, within 6 ulp in both tails: e^(-x²/2) times a rational
/// fit of Mills' ratio; 0 for x < -13.2. Shares its exponential with [`normal_pdf`] of the same x.
#[inline(always)]
pub fn normal_cdf(x: f32) -> f32 {
    let (t, e) = gauss(x);
    let p = 0.003_991_062f32.mul_add(t, 0.039_800_78).mul_add(t, 0.180_781_65).mul_add(t, 0.435_007);
    let q = 0.010_003_963f32.mul_add(t, 0.099_773_29).mul_add(t, 0.462_988_32).mul_add(t, 1.192_350_6);
    let tail = e * p.mul_add(t, 0.5) / q.mul_add(t, 1.667_898_8).mul_add(t, 1.0);
    if x > 0.0 { 1.0 - tail } else { tail }
}

/// Accumulators of a reduction: four AVX-512 registers, eight of AVX2.
const LANES: usize = 64;

/// Reduce pairs by `step` in `LANES` interleaved accumulators, then those by `join`: the order is fixed, so
/// the result is the same bits on every machine, and the rounding error grows with n / `LANES`.
#[inline(always)]
pub fn reduce(
    x: &[f32],
    y: &[f32],
    start: f32,
    step: impl Fn(f32, f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut acc = [start; LANES];
    // Slices, not arrays: a loop of known length is unrolled before it can become vector code.
    for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
        for (a, (x, y)) in acc.iter_mut().zip(x.iter().zip(y)) {
            *a = step(*a, *x, *y);
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = acc[..2 * half].split_at_mut(half);
        for (a, b) in low.iter_mut().zip(high) {
            *a = join(*a, *b);
        }
        half /= 2;
    }
    acc[0]
}

/// Σ x_i.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    reduce(
        x,
        x,
        0.0,
        #[inline(always)]
        |s, x, _| s + x,
        #[inline(always)]
        |a, b| a + b,
    )
}

/// Σ x_i y_i.
#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    reduce(
        x,
        y,
        0.0,
        #[inline(always)]
        |s, x, y| x.mul_add(y, s),
        #[inline(always)]
        |a, b| a + b,
    )
}

/// max x_i, -inf for none; a NaN may be passed over.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    reduce(
        x,
        x,
        f32::NEG_INFINITY,
        #[inline(always)]
        |m, x, _| if x > m { x } else { m },
        #[inline(always)]
        |a, b| if a > b { a } else { b },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd;

    /// The worst error of `f` against `exact` over x = low, .., high, in units of `unit(exact value)`.
    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, (low, high): (f32, f32), unit: fn(f64) -> f64) -> f64 {
        let n = 2_000_001;
        let x: Vec<f32> = (0..n).map(|i| low + (high - low) * (i as f32 / (n - 1) as f32)).collect();
        // Powers of two as well: a linear sweep hardly meets small arguments.
        let small = (0..4000).map(|i| high.min(1.0) * (-(i as f32) / 40.0).exp2());
        let x: Vec<f32> = x.into_iter().chain(small).collect();
        let mut y = vec![0.0; x.len()];
        simd().dispatch(|| y.iter_mut().zip(&x).for_each(|(y, x)| *y = f(*x)));
        let mut worst = 0.0f64;
        for (x, y) in x.iter().zip(&y) {
            let want = exact(f64::from(*x));
            let error = (f64::from(*y) - want).abs() / unit(want);
            assert!(error.is_finite(), "f({x}) = {y}");
            worst = worst.max(error);
        }
        worst
    }

    /// One unit in the last place of a value, no less than that of the smallest normal number.
    fn ulp(v: f64) -> f64 {
        let v = v.abs().max(f64::from(f32::MIN_POSITIVE));
        v.log2().floor().exp2() * f64::from(f32::EPSILON)
    }

    /// An ulp in the normal range; below it, the smallest normal number.
    fn flushed(v: f64) -> f64 {
        if v < 1.2e-38 { 1.2e-38 } else { ulp(v) }
    }

    fn cdf(x: f64) -> f64 {
        0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
    }

    #[test]
    fn functions_are_within_their_bounds() {
        let pdf = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        let table: [(&str, f64, f64); 5] = [
            ("exp", worst(exp, f64::exp, (-110.0, 88.72), flushed), 2.0),
            ("tanh", worst(tanh, f64::tanh, (-20.0, 20.0), ulp), 5.0),
            ("normal_pdf", worst(normal_pdf, pdf, (-15.0, 15.0), flushed), 4.0),
            ("normal_cdf", worst(normal_cdf, cdf, (-15.0, 15.0), flushed), 6.0),
            ("gelu", worst(|x| x * normal_cdf(x), |x| x * cdf(x), (-15.0, 15.0), |v| v.abs().max(1.0)), 2e-7),
        ];
        for (name, error, bound) in table {
            assert!(error <= bound, "{name}: {error} over {bound}");
        }
    }

    #[test]
    fn exponentials_in_f64_are_within_their_bounds() {
        for i in 0..400_001 {
            let x = -720.0 + 1425.0 * (f64::from(i) / 400_000.0);
            let (got, want) = (exp_f64(x), x.exp());
            let bound = if want < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { 2.0 * f64::EPSILON * want };
            assert!((got - want).abs() <= bound, "exp({x}) = {got}, not {want}");
        }
        let inf = f64::INFINITY;
        assert_eq!(
            [exp_f64(inf), exp_f64(800.0), exp_f64(-inf), exp_f64(-1e300), exp_f64(0.0)],
            [inf, inf, 0.0, 0.0, 1.0]
        );
        assert!(exp_f64(f64::NAN).is_nan() && exp_f64(-f64::NAN).is_nan());
        for i in 1..10_001 {
            // Down to where the difference of e^x − 1 and x has no digits left, against the next terms of the series.
            let x = f64::from(i - 5000) / 5000.0;
            let terms: f64 = (3..25).rev().fold(0.0, |s, k| (s + 1.0) * x / f64::from(k));
            let want = 0.5 * (1.0 + terms);
            assert!((beyond_linear::<18>(x) - want).abs() <= 4.0 * f64::EPSILON * want, "{x}");
        }
    }

    #[test]
    fn functions_keep_the_ends_and_nan() {
        let inf = f32::INFINITY;
        assert_eq!([exp(inf), exp(1e30), exp(-inf), exp(-1e30), exp(0.0)], [inf, inf, 0.0, 0.0, 1.0]);
        assert_eq!([tanh(inf), tanh(-inf), tanh(0.0)], [1.0, -1.0, 0.0]);
        assert_eq!([normal_cdf(inf), normal_cdf(-inf), normal_cdf(0.0), normal_cdf(-1e30)], [1.0, 0.0, 0.5, 0.0]);
        assert_eq!([normal_pdf(inf), normal_pdf(-inf), normal_pdf(-1e30)], [0.0; 3]);
        assert_eq!(tanh(-0.0).to_bits(), (-0.0f32).to_bits());
        // A NaN with a payload too: exp works on bits.
        for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7fc0_0123), f32::from_bits(0xffff_ffff)] {
            assert!([exp(nan), tanh(nan), normal_cdf(nan), normal_pdf(nan)].iter().all(|y| y.is_nan()));
        }
    }

    #[test]
    fn reductions_see_every_element_once() {
        for n in [0, 1, 31, 63, 64, 65, 128, 777] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 7) % 64) as f32).collect();
            let y: Vec<f32> = (0..n).map(|i| ((i * 5) % 32) as f32 - 8.0).collect();
            assert_eq!(sum(&x), x.iter().sum::<f32>());
            assert_eq!(dot(&x, &y), x.iter().zip(&y).map(|(x, y)| x * y).sum::<f32>());
            assert_eq!(max(&y), y.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
