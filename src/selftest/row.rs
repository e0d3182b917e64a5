//! What a check found: a line of the list, and how far two results may be apart.
use serde::Serialize;

/// One line. Errors and tolerances are relative to the scale of what was computed (see [`super::Case`]).
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What ran, named as its kernels are: `layer_norm_vjp`.
    pub name: String,
    pub dtype: String,
    pub shape: String,
    /// The worst element's error, over the largest scale.
    pub worst: f64,
    /// The error's norm, over the scale's.
    pub norm: f64,
    pub tolerance: f64,
    pub norm_tolerance: f64,
    pub ok: bool,
    /// Which of several runs was the worst, or what went wrong.
    pub note: String,
}

impl Row {
    pub fn new(name: impl Into<String>, dtype: impl Into<String>, shape: impl Into<String>, judged: &Judged) -> Self {
        let &Judged { worst, norm, tolerance, norm_tolerance, .. } = judged;
        Self {
            name: name.into(),
            dtype: dtype.into(),
            shape: shape.into(),
            worst,
            norm,
            tolerance,
            norm_tolerance,
            ok: judged.ok(),
            note: judged.what.clone(),
        }
    }

    /// A check that came to no numbers.
    pub fn failed(
        name: impl Into<String>,
        dtype: impl Into<String>,
        shape: impl Into<String>,
        why: impl ToString,
    ) -> Self {
        let judged = Judged { worst: f64::NAN, norm: f64::NAN, what: why.to_string(), ..Judged::default() };
        Self::new(name, dtype, shape, &judged)
    }

    /// A check without a tolerance: it holds, or the note says what does not.
    pub fn exact(
        name: impl Into<String>,
        dtype: impl Into<String>,
        shape: impl Into<String>,
        checked: Result<(), impl ToString>,
    ) -> Self {
        match checked {
            Ok(()) => Self::new(name, dtype, shape, &Judged::default()),
            Err(why) => Self::failed(name, dtype, shape, why),
        }
    }
}

/// How far a result may be from the host's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// So many roundings of f32.
    Ulps(f64),
    /// Twice the error of a naive computation in bf16: an ulp of the scale for what is rounded on the way, and the
    /// rounding of the result where that is stored as bf16.
    Bf16 { rounded: bool },
}

/// bf16's unit in the last place, at 1.
const BF16_ULP: f64 = 1.0 / 128.0;

/// An error, and the tolerance it is held to.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    pub worst: f64,
    pub norm: f64,
    pub tolerance: f64,
    pub norm_tolerance: f64,
    pub what: String,
}

impl Judged {
    /// False for a NaN.
    pub fn ok(&self) -> bool {
        self.worst <= self.tolerance && self.norm <= self.norm_tolerance
    }

    /// The one that is further from passing; of two that are as far, the other.
    pub fn or_worse(self, other: Self) -> Self {
        let strain = |j: &Self| {
            let each = [(j.worst, j.tolerance), (j.norm, j.norm_tolerance)];
            each.iter().map(|&(e, t)| if e == 0.0 { 0.0 } else { e / t }).fold(0.0, largest)
        };
        let (a, b) = (strain(&self), strain(&other));
        if b.is_nan() || b >= a { other } else { self }
    }
}

/// The larger of two; a NaN if either is.
fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || b <= a { a } else { b }
}

/// `got` against `want`, both relative to `scale`.
pub fn judge(what: &str, got: &[f32], want: &[f32], scale: &[f64], tolerance: Tolerance) -> Judged {
    let top = scale.iter().copied().fold(0.0, largest);
    let size = norm(scale);
    // 0 of 0 is right: where all terms are zero, so is the result.
    let relative = |error: f64, size: f64| if error == 0.0 { 0.0 } else { error / size };
    let error: Vec<f64> = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - f64::from(*w)).abs()).collect();
    let (tolerance, norm_tolerance) = match tolerance {
        Tolerance::Ulps(ulps) => (ulps * f64::from(f32::EPSILON), ulps * f64::from(f32::EPSILON)),
        Tolerance::Bf16 { rounded } => {
            let naive = |(w, s): (&f32, &f64)| {
                let own = if rounded { (f64::from(half::bf16::from_f32(*w)) - f64::from(*w)).abs() } else { 0.0 };
                own + BF16_ULP * s
            };
            let naive: Vec<f64> = want.iter().zip(scale).map(naive).collect();
            let worst = naive.iter().copied().fold(0.0, largest);
            (2.0 * relative(worst, top), 2.0 * relative(norm(&naive), size))
        }
    };
    let mut judged = Judged {
        worst: relative(error.iter().copied().fold(0.0, largest), top),
        norm: relative(norm(&error), size),
        tolerance,
        norm_tolerance,
        what: what.to_string(),
    };
    if got.len() != want.len() {
        judged.worst = f64::NAN;
        judged.what = format!("{what}: {} elements, wanted {}", got.len(), want.len());
    } else if !judged.ok() {
        let at = (0..error.len()).fold(0, |at, i| if error[at].is_nan() || error[i] <= error[at] { at } else { i });
        judged.what = format!("{what}[{at}]: got {:e}, want {:e}", got[at], want[at]);
    }
    judged
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_an_element_too_many_and_one_bad_element_fail() {
        let want = vec![1.0f32; 1000];
        let scale = vec![1.0f64; 1000];
        let ulps = Tolerance::Ulps(8.0);
        let with = |at: usize, v: f32| want.iter().enumerate().map(|(i, w)| if i == at { v } else { *w }).collect();
        let judged = |got: Vec<f32>, tolerance| judge("y", &got, &want, &scale, tolerance);
        assert!(judged(want.clone(), Tolerance::Ulps(0.0)).ok());
        assert!(judged(with(999, 1.0 + 4.0 * f32::EPSILON), ulps).ok());
        for tolerance in [ulps, Tolerance::Bf16 { rounded: true }] {
            let nan = judged(with(7, f32::NAN), tolerance);
            assert!(!nan.ok() && nan.what.contains("[7]"), "{nan:?}");
            // Lost in the norm of a thousand, not in the worst element.
            let off = judged(with(500, 1.0 + 1.0 / 30.0), tolerance);
            assert!(!off.ok() && off.what.contains("[500]"), "{off:?}");
            assert!(!judged(vec![1.0; 999], tolerance).ok());
            // Every element a little too far off: as many as that show in the norm alone.
            let nan = nan.or_worse(judged(want.clone(), tolerance));
            assert!(!nan.ok(), "{nan:?}");
        }
        let all_zero = judge("y", &[0.0], &[0.0], &[0.0], ulps);
        assert!(all_zero.ok() && !judge("y", &[1e-20], &[0.0], &[0.0], ulps).ok());
    }
}
