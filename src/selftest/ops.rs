//! Ops on a device against their host passes.
//!
//! Each tensor lies in memory of its own, so that a step beside it is out of bounds; what a pass writes holds NaN
//! before it does.
use super::bound::{Bound, Stored, rounded};
use super::case::{Case, only, subsets};
use super::memory::{download, poisoned, upload};
use super::row::{Judged, Row, Tolerance, judge};
use crate::gpu::{Device, Dtype, Memory};
use crate::ops::Pass;
use crate::rng::Rng;
use std::rc::Rc;

/// Head-room of a case's `ulps` for the device: another order of summation, other roundings of exp and its like.
const ROOM: f64 = 4.0;
/// A cotangent's sum runs over what the other passes spread: its roundings come on top, as in the host's tests.
const SUM_ULPS: f64 = 16.0;

/// Forward, Jvp (each tangent alone, all) and Vjp (each cotangent alone, all, all added to what is there) of a case on
/// a device, against the host's passes on the same numbers: a row a pass. An op that has a Dual has a row of it, held
/// against the host's two.
pub fn check_op(device: &Rc<dyn Device>, case: &Case, dtype: Dtype) -> Vec<Row> {
    let mut rows = check_stored(device, case, dtype, false);
    if case.op.widens() && dtype != Dtype::F32 {
        rows.extend(check_stored(device, case, dtype, true));
    }
    rows
}

/// The names of a case's rows.
pub(super) fn names(case: &Case) -> Vec<String> {
    passes(case).into_iter().map(|pass| format!("{}_{pass}", case.op.name())).collect()
}

fn passes(case: &Case) -> Vec<&'static str> {
    let dual = case.op.dual().then_some("dual");
    ["forward", "jvp", "vjp"].into_iter().chain(dual).collect()
}

/// `wide`: the output is f32 where the inputs are not.
fn check_stored(device: &Rc<dyn Device>, case: &Case, dtype: Dtype, wide: bool) -> Vec<Row> {
    let label = format!("{}{}", dtype.suffix(), if wide { ">f32" } else { "" });
    let shape: Vec<String> = case.inputs.iter().map(|i| dimensions(&i.shape)).collect();
    let shape = shape.join(" ");
    let name = |pass: &str| format!("{}_{pass}", case.op.name());
    let row = |pass: &str, judged: Result<Judged, String>| match judged {
        Ok(judged) => Row::new(name(pass), &label, &shape, &judged),
        Err(why) => Row::failed(name(pass), &label, &shape, why),
    };
    let check = match Check::new(device, case, dtype, wide) {
        Ok(check) => check,
        Err(why) => return passes(case).into_iter().map(|pass| row(pass, Err(why.clone()))).collect(),
    };
    let mut rows = vec![
        row("forward", check.output().and_then(|host| check.forward(&host))),
        row("jvp", check.jvp(Pass::Jvp)),
        row("vjp", check.vjp()),
    ];
    if case.op.dual() {
        // The last, as it writes y and what is saved anew.
        rows.push(row("dual", check.jvp(Pass::Dual)));
    }
    rows
}

/// 2x3x33.
pub fn dimensions(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// A case on a device, after its forward pass, and the directions it is checked in.
struct Check<'a> {
    device: &'a Rc<dyn Device>,
    bound: Bound,
    dtype: Dtype,
    dx: Vec<Vec<f32>>,
    gy: Vec<f32>,
    base: Vec<Vec<f32>>,
}

impl<'a> Check<'a> {
    fn new(device: &'a Rc<dyn Device>, case: &Case, dtype: Dtype, wide: bool) -> Result<Self, String> {
        let stored = Stored::new(case, dtype, wide);
        let all = |data: Vec<Vec<f32>>, dtypes: &[Dtype]| -> Vec<Vec<f32>> {
            data.iter().zip(dtypes).map(|(data, dtype)| rounded(data, *dtype)).collect()
        };
        let mut inputs = case.inputs.clone();
        inputs.iter_mut().zip(&stored.x).for_each(|(input, dtype)| input.data = rounded(&input.data, *dtype));
        let case = Case { op: case.op.clone(), inputs, ulps: case.ulps };
        let mut rng = Rng::new(21, 0);
        let dx = all(case.directions(&mut rng), &stored.x);
        let base = all(case.directions(&mut rng), &stored.gx);
        let gy: Vec<f32> = (0..case.numel()?).map(|_| rng.normal()).collect();
        let gy = rounded(&gy, stored.y);
        let check = Self { device, bound: Bound::new(device, case, stored).map_err(words)?, dtype, dx, gy, base };
        check.run(Pass::Forward, &[], None, &[])?;
        Ok(check)
    }

    fn tolerance(&self, pass: Pass, to: Dtype) -> Tolerance {
        // A loss computes in f32 whatever its scores are stored as.
        let in_f32 = self.dtype == Dtype::F32 || (to == Dtype::F32 && self.bound.case.op.exact());
        let sum = if pass == Pass::Vjp { SUM_ULPS } else { 0.0 };
        if in_f32 {
            Tolerance::Ulps(ROOM * self.bound.case.ulps + sum)
        } else {
            Tolerance::Bf16 { rounded: to == Dtype::Bf16 }
        }
    }

    /// y as the host has it.
    fn output(&self) -> Result<Measured, String> {
        Measured::of(&self.bound.case, false, &|case, _| Ok(vec![case.forward()?.0]))
    }

    fn forward(&self, host: &Measured) -> Result<Judged, String> {
        let got = self.read(&self.bound.y, self.bound.stored.y)?;
        Ok(judge("y", &got, &host.want[0], &host.scale[0], self.tolerance(Pass::Forward, self.bound.stored.y)))
    }

    /// By Jvp, or by Dual with y along.
    fn jvp(&self, pass: Pass) -> Result<Judged, String> {
        let mut worst = Judged::default();
        let output = (pass == Pass::Dual).then(|| self.output()).transpose()?;
        for keep in subsets(&self.bound.case.differentiable()) {
            let host = Measured::of(&self.bound.case, true, &|case, signs| {
                let (y, saved) = case.forward()?;
                let dx: Vec<Vec<f32>> = self.dx.iter().map(|d| signs.over(d)).collect();
                Ok(vec![case.jvp(&rounded(&y, self.bound.stored.y), &saved, &only(&dx, &keep))])
            })?;
            let put = |(i, d): (usize, &Vec<f32>)| {
                keep.contains(&i).then(|| upload(self.device, d, self.bound.stored.x[i])).transpose()
            };
            let dx = self.dx.iter().enumerate().map(put).collect::<crate::Result<Vec<_>>>().map_err(words)?;
            let dy = poisoned(self.device, self.gy.len() * self.bound.stored.y.bytes()).map_err(words)?;
            if output.is_some() {
                self.bound.forget().map_err(words)?;
            }
            self.run(pass, &dx, Some(&dy), &[])?;
            if let Some(output) = &output {
                let y = self.forward(output)?;
                worst = worst.or_worse(Judged { what: format!("{} beside dy of inputs {keep:?}", y.what), ..y });
            }
            let (what, got) = (format!("dy of inputs {keep:?}"), self.read(&dy, self.bound.stored.y)?);
            let tolerance = self.tolerance(Pass::Jvp, self.bound.stored.y);
            worst = worst.or_worse(judge(&what, &got, &host.want[0], &host.scale[0], tolerance));
        }
        Ok(worst)
    }

    fn vjp(&self) -> Result<Judged, String> {
        let all = self.bound.case.differentiable();
        let host = Measured::of(&self.bound.case, true, &|case, signs| {
            let (y, saved) = case.forward()?;
            let y = rounded(&y, self.bound.stored.y);
            Ok(case.vjp(&y, &saved, &signs.over(&self.gy), &all, false, case.zeros()))
        })?;
        let gy = upload(self.device, &self.gy, self.bound.stored.y).map_err(words)?;
        let mut worst = Judged::default();
        let mut runs: Vec<(Vec<usize>, bool)> = subsets(&all).into_iter().map(|of| (of, false)).collect();
        runs.push((all, true));
        for (of, add) in runs {
            let to = |i: usize| -> crate::Result<Option<(Memory, bool)>> {
                let (base, dtype) = (&self.base[i], self.bound.stored.gx[i]);
                Ok(match (of.contains(&i), add) {
                    (false, _) => None,
                    (true, true) => Some((upload(self.device, base, dtype)?, true)),
                    (true, false) => Some((poisoned(self.device, base.len() * dtype.bytes())?, false)),
                })
            };
            let gx = (0..self.dx.len()).map(to).collect::<crate::Result<Vec<_>>>().map_err(words)?;
            self.run(Pass::Vjp, &[], Some(&gy), &gx)?;
            for (i, g) in gx.iter().enumerate() {
                let Some((memory, _)) = g else { continue };
                let added = |v: f64| if add { v } else { 0.0 };
                let base = &self.base[i];
                let want = host.want[i].iter().zip(base).map(|(w, b)| w + added(f64::from(*b)) as f32);
                let scale = host.scale[i].iter().zip(base).map(|(s, b)| s + added(f64::from(b.abs())));
                let (want, scale): (Vec<f32>, Vec<f64>) = (want.collect(), scale.collect());
                let what = format!("gx of input {i} of {of:?}{}", if add { ", added" } else { "" });
                let got = self.read(memory, self.bound.stored.gx[i])?;
                let tolerance = self.tolerance(Pass::Vjp, self.bound.stored.gx[i]);
                worst = worst.or_worse(judge(&what, &got, &want, &scale, tolerance));
            }
        }
        Ok(worst)
    }

    /// Run one pass, with scratch that holds NaN.
    fn run(
        &self,
        pass: Pass,
        dx: &[Option<Memory>],
        dy: Option<&Memory>,
        gx: &[Option<(Memory, bool)>],
    ) -> Result<(), String> {
        self.bound.poison().and_then(|()| self.bound.run(pass, dx, dy, gx)).map_err(words)
    }

    fn read(&self, memory: &Memory, dtype: Dtype) -> Result<Vec<f32>, String> {
        download(self.device, memory, dtype).map_err(words)
    }
}

fn words(e: crate::Error) -> String {
    e.to_string()
}

/// Random signs, or none.
struct Signs<'a>(Option<&'a mut Rng>);

impl Signs<'_> {
    fn over(&mut self, v: &[f32]) -> Vec<f32> {
        let Some(rng) = &mut self.0 else { return v.to_vec() };
        v.iter().map(|v| if rng.next_u32() & 1 == 0 { *v } else { -v }).collect()
    }
}

/// A pass of the host on a case, with signs put before what it is linear in: its results, one after the other.
type Run<'a> = dyn Fn(&Case, &mut Signs) -> Result<Vec<Vec<f32>>, String> + 'a;

/// What the host's pass gives, and the scale of its elements as [`Case`] has it: found by the host's passes in f32,
/// which is enough for a scale.
struct Measured {
    want: Vec<Vec<f32>>,
    scale: Vec<Vec<f64>>,
}

impl Measured {
    /// `linear`: `run` puts signs before something.
    fn of(case: &Case, linear: bool, run: &Run) -> Result<Self, String> {
        const DRAWS: usize = 4;
        const STEP: f32 = 1.0 / 1024.0;
        let want = run(case, &mut Signs(None))?;
        let zeros = || want.iter().map(|w| vec![0.0f64; w.len()]).collect::<Vec<_>>();
        let (mut terms, mut moved, mut rng) = (zeros(), zeros(), Rng::new(22, 0));
        for _ in 0..DRAWS {
            if linear {
                let signed = run(case, &mut Signs(Some(&mut rng)))?;
                let each = terms.iter_mut().flatten().zip(signed.iter().flatten());
                each.for_each(|(sum, v)| *sum += f64::from(*v).powi(2) / DRAWS as f64);
            }
            let mut inputs = case.inputs.clone();
            for v in inputs.iter_mut().filter(|i| i.role.differentiable()).flat_map(|i| &mut i.data) {
                *v *= if rng.next_u32() & 1 == 0 { 1.0 + STEP } else { 1.0 - STEP };
            }
            let there = run(&Case { op: case.op.clone(), inputs, ulps: case.ulps }, &mut Signs(None))?;
            let each = moved.iter_mut().flatten().zip(there.iter().flatten().zip(want.iter().flatten()));
            each.for_each(|(sum, (there, here))| *sum += f64::from((there - here) / STEP).powi(2) / DRAWS as f64);
        }
        let sum = |((w, t), m): ((&f32, &f64), &f64)| f64::from(w.abs()) + t.sqrt() + m.sqrt();
        let scale = want.iter().zip(terms.iter().zip(&moved));
        let scale = scale.map(|(w, (t, m))| w.iter().zip(t).zip(m).map(sum).collect()).collect();
        Ok(Self { want, scale })
    }
}
