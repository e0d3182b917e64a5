//! The checks that every op passes: its host passes against its f64 reference, and against each other.
//!
//! All return what is wrong as text instead of panicking, so that tests can plant a bug and see it caught. Each
//! comparison is [`within`], which a NaN does not pass; and every output is NaN before an op writes it, so that an
//! element nobody wrote does not pass either.
use fipk::dual::Dual;
use fipk::rng::Rng;
use fipk::selftest::{Case, Role, Tangents, only};
use fipk::tensor::View;

/// Adjoint and gradient checks add the rounding of their own sums to a case's `ulps`.
const SUM_ULPS: f64 = 16.0;
const EPS: f64 = f32::EPSILON as f64;

type Checked = Result<(), String>;

/// What a case's op ought to give, by its f64 reference.
trait Oracle {
    /// y and J dx.
    fn reference(&self, dx: &[Option<&[f32]>]) -> Result<(Vec<f64>, Vec<f64>), String>;

    /// The same with each differentiable element moved by `nudge`.
    fn reference_at(
        &self,
        dx: &[Option<&[f32]>],
        nudge: impl FnMut(f64) -> f64,
    ) -> Result<(Vec<f64>, Vec<f64>), String>;

    /// The root mean square of J (v · random signs): the size of the terms of J v, whatever cancels among them.
    fn terms(&self, v: &[Option<&[f32]>]) -> Result<Vec<f64>, String>;

    /// The root mean square of what J dx moves, relative to relative moves of the inputs by random signs.
    fn sensitivity(&self, dx: &[Option<&[f32]>]) -> Result<Vec<f64>, String>;
}

impl Oracle for Case {
    fn reference(&self, dx: &[Option<&[f32]>]) -> Result<(Vec<f64>, Vec<f64>), String> {
        self.reference_at(dx, |v| v)
    }

    fn reference_at(
        &self,
        dx: &[Option<&[f32]>],
        mut nudge: impl FnMut(f64) -> f64,
    ) -> Result<(Vec<f64>, Vec<f64>), String> {
        let mut dual = |i: usize| {
            let (input, d) = (&self.inputs[i], dx[i]);
            let mut re = |v: f32| match input.role {
                Role::Index => f64::from(v.to_bits() as i32),
                Role::Constant => f64::from(v),
                Role::Activation | Role::Parameter => nudge(f64::from(v)),
            };
            let dual = |(at, v): (usize, &f32)| Dual::new(re(*v), d.map_or(0.0, |d| f64::from(d[at])));
            input.data.iter().enumerate().map(dual).collect::<Vec<Dual>>()
        };
        let duals: Vec<Vec<Dual>> = (0..self.inputs.len()).map(&mut dual).collect();
        let views: Vec<View<Dual>> =
            duals.iter().zip(&self.inputs).map(|(data, i)| View { data, shape: &i.shape }).collect();
        let mut y = vec![Dual::new(f64::NAN, f64::NAN); self.numel()?];
        self.op.reference(&views, &mut y);
        Ok((y.iter().map(|d| d.re).collect(), y.iter().map(|d| d.eps).collect()))
    }

    fn terms(&self, v: &[Option<&[f32]>]) -> Result<Vec<f64>, String> {
        let mut rng = Rng::new(11, 1);
        root_mean_square(|| {
            let mut sign = |v: &f32| if rng.next_u32() & 1 == 0 { *v } else { -*v };
            let signed: Vec<Option<Vec<f32>>> =
                v.iter().map(|v| v.map(|v| v.iter().map(&mut sign).collect())).collect();
            Ok(self.reference(&signed.iter().map(Option::as_deref).collect::<Vec<_>>())?.1)
        })
    }

    fn sensitivity(&self, dx: &[Option<&[f32]>]) -> Result<Vec<f64>, String> {
        const STEP: f64 = 1e-6;
        let (_, here) = self.reference(dx)?;
        let mut rng = Rng::new(12, 1);
        root_mean_square(|| {
            let nudge = |v| v * if rng.next_u32() & 1 == 0 { 1.0 + STEP } else { 1.0 - STEP };
            let (_, there) = self.reference_at(dx, nudge)?;
            Ok(there.iter().zip(&here).map(|(there, here)| (there - here) / STEP).collect())
        })
    }
}

/// False for a NaN.
fn within(error: f64, tolerance: f64) -> bool {
    error <= tolerance
}

/// |got − want| within `ulps` of `scale`, for the worst element and for the norm.
fn close(what: &str, got: &[f32], want: &[f64], scale: &[f64], ulps: f64) -> Checked {
    let top = scale.iter().fold(0.0f64, |m, s| m.max(*s));
    let error: Vec<f64> = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).abs()).collect();
    if got.len() != want.len() {
        return Err(format!("{what}: {} elements, wanted {}", got.len(), want.len()));
    }
    for (i, e) in error.iter().enumerate() {
        if !within(*e, ulps * EPS * top) {
            let off = e / (EPS * top);
            return Err(format!("{what}[{i}]: got {}, want {}: off by {off:.1} ulps of {top:.3e}", got[i], want[i]));
        }
    }
    let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    let (off, size) = (norm(&error), norm(scale));
    if !within(off, ulps * EPS * size) {
        return Err(format!("{what}: the error's norm is {:.1} ulps of {size:.3e}", off / (EPS * size)));
    }
    Ok(())
}

/// Over a few draws, element by element.
fn root_mean_square(mut draw: impl FnMut() -> Result<Vec<f64>, String>) -> Result<Vec<f64>, String> {
    const DRAWS: usize = 8;
    let mut squares: Vec<f64> = Vec::new();
    for _ in 0..DRAWS {
        let drawn = draw()?;
        squares.resize(drawn.len(), 0.0);
        squares.iter_mut().zip(drawn).for_each(|(s, v)| *s += v * v / DRAWS as f64);
    }
    Ok(squares.into_iter().map(f64::sqrt).collect())
}

/// |want| + moved, element by element.
fn scale(want: &[f64], moved: &[f64]) -> Vec<f64> {
    want.iter().zip(moved).map(|(w, m)| w.abs() + m).collect()
}

/// Value and JVP against the reference: each tangent alone, all together, and none.
pub fn check_reference(case: &Case) -> Checked {
    let all = case.differentiable();
    let x: Vec<Vec<f32>> = case.inputs.iter().map(|i| i.data.clone()).collect();
    let (want, _) = case.reference(&vec![None; case.inputs.len()])?;
    let (y, saved) = case.forward()?;
    close("y", &y, &want, &scale(&want, &case.terms(&only(&x, &all))?), case.ulps)?;

    let dx = case.directions(&mut Rng::new(5, 0));
    let mut subsets: Vec<Vec<usize>> = all.iter().map(|&i| vec![i]).collect();
    subsets.push(all);
    for keep in subsets {
        let tangents = only(&dx, &keep);
        let (_, want) = case.reference(&tangents)?;
        let dy = case.jvp(&y, &saved, &tangents);
        let size = scale(&scale(&want, &case.terms(&tangents)?), &case.sensitivity(&tangents)?);
        close(&format!("dy of inputs {keep:?}"), &dy, &want, &size, case.ulps)?;
    }
    let none = case.jvp(&y, &saved, &vec![None; case.inputs.len()]);
    if none.iter().any(|v| *v != 0.0) {
        return Err("dy of no tangent at all is not zero".to_string());
    }
    Ok(())
}

/// <u, J v> = <Jᵀu, v> for each input alone, with cotangents that are set; that adding adds the same to what is
/// there; and that what is asked of one input does not depend on what is asked of the others.
pub fn check_adjoint(case: &Case) -> Checked {
    let mut rng = Rng::new(6, 0);
    let (y, saved) = case.forward()?;
    let u: Vec<f32> = y.iter().map(|_| rng.normal()).collect();
    let (dx, all) = (case.directions(&mut rng), case.differentiable());
    let set = case.vjp(&y, &saved, &u, &all, false, case.poisoned());
    let base = case.directions(&mut rng);
    let added = case.vjp(&y, &saved, &u, &all, true, base.clone());
    for &i in &all {
        let dy = case.jvp(&y, &saved, &only(&dx, &[i]));
        let (left, left_scale) = dot(&u, &dy);
        let (right, right_scale) = dot(&set[i], &dx[i]);
        let tolerance = (case.ulps + SUM_ULPS) * EPS * (left_scale + right_scale);
        if !within((left - right).abs(), tolerance) {
            return Err(format!("input {i}: <u, Jv> = {left} and <Jᵀu, v> = {right}, more than {tolerance:.1e} apart"));
        }
        let want: Vec<f64> = base[i].iter().zip(&set[i]).map(|(b, g)| f64::from(*b) + f64::from(*g)).collect();
        let sizes: Vec<f64> = base[i].iter().zip(&set[i]).map(|(b, g)| f64::from(b.abs() + g.abs())).collect();
        close(&format!("gx of input {i}, added"), &added[i], &want, &sizes, SUM_ULPS)?;
        let alone = case.vjp(&y, &saved, &u, &[i], false, case.poisoned());
        same_bits(&format!("gx of input {i}, alone"), &alone[i], &set[i])?;
    }
    Ok(())
}

/// Every element of Jᵀu against the reference's Jacobian, a column at a time: for small cases alone.
pub fn check_gradient(case: &Case) -> Checked {
    const COLUMNS: usize = 400;
    let (y, saved) = case.forward()?;
    let mut rng = Rng::new(8, 0);
    let u: Vec<f32> = y.iter().map(|_| rng.normal()).collect();
    let all = case.differentiable();
    let set = case.vjp(&y, &saved, &u, &all, false, case.poisoned());
    for &i in all.iter().filter(|&&i| case.inputs[i].data.len() <= COLUMNS) {
        let (mut want, mut sizes) = (Vec::new(), Vec::new());
        for j in 0..case.inputs[i].data.len() {
            let mut unit = vec![0.0; case.inputs[i].data.len()];
            unit[j] = 1.0;
            let tangents: Tangents = (0..case.inputs.len()).map(|k| (k == i).then_some(unit.as_slice())).collect();
            let (_, column) = case.reference(&tangents)?;
            let terms = || column.iter().zip(&u).map(|(c, u)| c * f64::from(*u));
            want.push(terms().sum::<f64>());
            sizes.push(terms().map(|t| t * t).sum::<f64>().sqrt());
        }
        close(&format!("gx of input {i}"), &set[i], &want, &scale(&want, &sizes), case.ulps + SUM_ULPS)?;
    }
    Ok(())
}

/// The same bits from one thread and from three.
pub fn check_threads(case: &Case) -> Checked {
    let run = || -> Result<Vec<Vec<f32>>, String> {
        let mut rng = Rng::new(9, 0);
        let (y, saved) = case.forward()?;
        let (dx, all) = (case.directions(&mut rng), case.differentiable());
        let u: Vec<f32> = y.iter().map(|_| rng.normal()).collect();
        let dy = case.jvp(&y, &saved, &only(&dx, &all));
        let gx = case.vjp(&y, &saved, &u, &all, false, case.poisoned());
        let added = case.vjp(&y, &saved, &u, &all, true, dx.clone());
        let written = all.iter().flat_map(|&i| [gx[i].clone(), added[i].clone()]);
        Ok([y, saved, dy].into_iter().chain(written).collect())
    };
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| e.to_string())?;
        pool.install(run)
    };
    let (one, three) = (on(1)?, on(3)?);
    one.iter().zip(&three).try_for_each(|(a, b)| same_bits("on 1 and 3 threads: a result", a, b))
}

/// All of them.
pub fn check(case: &Case) -> Checked {
    let checks = [check_reference, check_adjoint, check_gradient, check_threads];
    checks
        .iter()
        .try_for_each(|check| check(case))
        .map_err(|what| format!("{:?} on {:?}: {what}", case.op, case.shapes()))
}

fn same_bits(what: &str, a: &[f32], b: &[f32]) -> Checked {
    let differ = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits());
    differ.map_or(Ok(()), |i| Err(format!("{what} differs at {i}: {} and {}", a[i], b[i])))
}

/// Σ a b, and Σ |a b|.
fn dot(a: &[f32], b: &[f32]) -> (f64, f64) {
    let terms = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
}
