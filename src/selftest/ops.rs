//! Ops on a device against their host passes.
//!
//! Each tensor lies in memory of its own, so that a step beside it is out of bounds; what a pass writes holds NaN
//! before it does.
use super::case::{Case, Input, Role, only, subsets};
use super::row::{Judged, Row, Tolerance, judge};
use crate::gpu::{Device, Dtype, Memory, Ptr, Queue};
use crate::ops::{DeviceCotangent, DeviceIo, DeviceTensor, Pass};
use crate::rng::Rng;
use crate::tensor::Shape;
use std::rc::Rc;

/// Head-room of a case's `ulps` for the device: another order of summation, other roundings of exp and its like.
const ROOM: f64 = 4.0;
/// A cotangent's sum runs over what the other passes spread: its roundings come on top, as in the host's tests.
const SUM_ULPS: f64 = 16.0;

/// Forward, Jvp (each tangent alone, all) and Vjp (each cotangent alone, all, all added to what is there) of a case on
/// a device, against the host's passes on the same numbers: a row a pass.
pub fn check_op(device: &Rc<dyn Device>, case: &Case, dtype: Dtype) -> Vec<Row> {
    let mut rows = check_stored(device, case, dtype, false);
    if case.op.widens() && dtype != Dtype::F32 {
        rows.extend(check_stored(device, case, dtype, true));
    }
    rows
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
        Err(why) => return ["forward", "jvp", "vjp"].map(|pass| row(pass, Err(why.clone()))).into(),
    };
    vec![row("forward", check.forward()), row("jvp", check.jvp()), row("vjp", check.vjp())]
}

/// 2x3x33.
pub fn dimensions(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// As the device holds them: those of bf16 rounded.
fn rounded(data: &[f32], dtype: Dtype) -> Vec<f32> {
    let round = |v: &f32| if dtype == Dtype::Bf16 { half::bf16::from_f32(*v).to_f32() } else { *v };
    // Indices pass as f32 and keep their bits.
    data.iter().map(round).collect()
}

/// What is stored how, by the rule of [`DeviceTensor`].
struct Stored {
    x: Vec<Dtype>,
    gx: Vec<Dtype>,
    y: Dtype,
}

impl Stored {
    fn new(case: &Case, dtype: Dtype, wide: bool) -> Self {
        let exact = case.op.exact();
        let of = |(i, input): (usize, &Input)| match input.role {
            Role::Index | Role::Constant => Dtype::F32,
            Role::Parameter if input.shape.len() < 2 => Dtype::F32,
            // What a loss compares its scores to.
            Role::Activation if exact && i > 0 => Dtype::F32,
            Role::Parameter | Role::Activation => dtype,
        };
        let x: Vec<Dtype> = case.inputs.iter().enumerate().map(of).collect();
        let gradient = |(input, of): (&Input, &Dtype)| if input.role == Role::Parameter { Dtype::F32 } else { *of };
        let gx = case.inputs.iter().zip(&x).map(gradient).collect();
        Self { x, gx, y: if exact || wide { Dtype::F32 } else { dtype } }
    }
}

/// A case with its inputs in a device's memory, and what the device's forward pass made of them.
struct Check<'a> {
    device: &'a Rc<dyn Device>,
    case: Case,
    dtype: Dtype,
    stored: Stored,
    y_shape: Shape,
    x: Vec<Memory>,
    y: Memory,
    saved: Memory,
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
        let n = case.numel()?;
        let gy: Vec<f32> = (0..n).map(|_| rng.normal()).collect();
        let gy = rounded(&gy, stored.y);

        let put = |(input, dtype): (&Input, &Dtype)| upload(device, &input.data, *dtype);
        let x = case.inputs.iter().zip(&stored.x).map(put).collect::<crate::Result<_>>().map_err(words)?;
        let y = poisoned(device, n * stored.y.bytes()).map_err(words)?;
        let saved = poisoned(device, 4 * case.op.saved(&case.shapes())).map_err(words)?;
        let y_shape = case.op.output(&case.shapes())?;
        let check = Self { device, case, dtype, stored, y_shape, x, y, saved, dx, gy, base };
        check.run(Pass::Forward, &[], None, &[]).map_err(words)?;
        Ok(check)
    }

    fn tolerance(&self, pass: Pass, to: Dtype) -> Tolerance {
        // A loss computes in f32 whatever its scores are stored as.
        let in_f32 = self.dtype == Dtype::F32 || (to == Dtype::F32 && self.case.op.exact());
        let sum = if pass == Pass::Vjp { SUM_ULPS } else { 0.0 };
        if in_f32 {
            Tolerance::Ulps(ROOM * self.case.ulps + sum)
        } else {
            Tolerance::Bf16 { rounded: to == Dtype::Bf16 }
        }
    }

    fn forward(&self) -> Result<Judged, String> {
        let host = Measured::of(&self.case, false, &|case, _| Ok(vec![case.forward()?.0]))?;
        let got = self.read(&self.y, self.stored.y)?;
        Ok(judge("y", &got, &host.want[0], &host.scale[0], self.tolerance(Pass::Forward, self.stored.y)))
    }

    fn jvp(&self) -> Result<Judged, String> {
        let mut worst = Judged::default();
        for keep in subsets(&self.case.differentiable()) {
            let host = Measured::of(&self.case, true, &|case, signs| {
                let (y, saved) = case.forward()?;
                let dx: Vec<Vec<f32>> = self.dx.iter().map(|d| signs.over(d)).collect();
                Ok(vec![case.jvp(&rounded(&y, self.stored.y), &saved, &only(&dx, &keep))])
            })?;
            let put = |(i, d): (usize, &Vec<f32>)| {
                keep.contains(&i).then(|| upload(self.device, d, self.stored.x[i])).transpose()
            };
            let dx = self.dx.iter().enumerate().map(put).collect::<crate::Result<Vec<_>>>().map_err(words)?;
            let dy = poisoned(self.device, self.gy.len() * self.stored.y.bytes()).map_err(words)?;
            self.run(Pass::Jvp, &dx, Some(&dy), &[]).map_err(words)?;
            let (what, got) = (format!("dy of inputs {keep:?}"), self.read(&dy, self.stored.y)?);
            let tolerance = self.tolerance(Pass::Jvp, self.stored.y);
            worst = worst.or_worse(judge(&what, &got, &host.want[0], &host.scale[0], tolerance));
        }
        Ok(worst)
    }

    fn vjp(&self) -> Result<Judged, String> {
        let all = self.case.differentiable();
        let host = Measured::of(&self.case, true, &|case, signs| {
            let (y, saved) = case.forward()?;
            let y = rounded(&y, self.stored.y);
            Ok(case.vjp(&y, &saved, &signs.over(&self.gy), &all, false, case.zeros()))
        })?;
        let gy = upload(self.device, &self.gy, self.stored.y).map_err(words)?;
        let mut worst = Judged::default();
        let mut runs: Vec<(Vec<usize>, bool)> = subsets(&all).into_iter().map(|of| (of, false)).collect();
        runs.push((all, true));
        for (of, add) in runs {
            let to = |i: usize| -> crate::Result<Option<(Memory, bool)>> {
                let (base, dtype) = (&self.base[i], self.stored.gx[i]);
                Ok(match (of.contains(&i), add) {
                    (false, _) => None,
                    (true, true) => Some((upload(self.device, base, dtype)?, true)),
                    (true, false) => Some((poisoned(self.device, base.len() * dtype.bytes())?, false)),
                })
            };
            let gx = (0..self.x.len()).map(to).collect::<crate::Result<Vec<_>>>().map_err(words)?;
            self.run(Pass::Vjp, &[], Some(&gy), &gx).map_err(words)?;
            for (i, g) in gx.iter().enumerate() {
                let Some((memory, _)) = g else { continue };
                let added = |v: f64| if add { v } else { 0.0 };
                let base = &self.base[i];
                let want = host.want[i].iter().zip(base).map(|(w, b)| w + added(f64::from(*b)) as f32);
                let scale = host.scale[i].iter().zip(base).map(|(s, b)| s + added(f64::from(b.abs())));
                let (want, scale): (Vec<f32>, Vec<f64>) = (want.collect(), scale.collect());
                let what = format!("gx of input {i} of {of:?}{}", if add { ", added" } else { "" });
                let got = self.read(memory, self.stored.gx[i])?;
                let tolerance = self.tolerance(Pass::Vjp, self.stored.gx[i]);
                worst = worst.or_worse(judge(&what, &got, &want, &scale, tolerance));
            }
        }
        Ok(worst)
    }

    /// Queue one pass. The reverse pass sees what the op says it reads and nothing else.
    fn run(
        &self,
        pass: Pass,
        dx: &[Option<Memory>],
        dy: Option<&Memory>,
        gx: &[Option<(Memory, bool)>],
    ) -> crate::Result<()> {
        let (op, shapes, reads) = (&self.case.op, self.case.shapes(), self.case.op.reverse_reads());
        let tensor = |at: Ptr, dtype: Dtype, i: usize| DeviceTensor { at, dtype, shape: shapes[i] };
        let shown = |i: usize| pass != Pass::Vjp || reads.inputs.contains(&i);
        let x = |(i, m): (usize, &Memory)| tensor(if shown(i) { m.at() } else { Ptr::NULL }, self.stored.x[i], i);
        let x: Vec<DeviceTensor> = self.x.iter().enumerate().map(x).collect();
        let at_y = |at: Ptr| DeviceTensor { at, dtype: self.stored.y, shape: &self.y_shape };
        let tangent = |(i, m): (usize, &Option<Memory>)| m.as_ref().map(|m| tensor(m.at(), self.stored.x[i], i));
        let dx: Vec<Option<DeviceTensor>> = dx.iter().enumerate().map(tangent).collect();
        let cotangent = |(i, m): (usize, &Option<(Memory, bool)>)| {
            m.as_ref().map(|(m, add)| DeviceCotangent { to: tensor(m.at(), self.stored.gx[i], i), add: *add })
        };
        let gx: Vec<Option<DeviceCotangent>> = gx.iter().enumerate().map(cotangent).collect();
        let scratch = op.scratch(pass, &shapes);
        let scratch = (scratch > 0).then(|| poisoned(self.device, scratch)).transpose()?;
        let queue = Queue { device: &**self.device, scratch: scratch.as_ref().map_or(Ptr::NULL, Memory::at) };
        let io = DeviceIo {
            x: &x,
            y: at_y(if pass != Pass::Vjp || reads.output { self.y.at() } else { Ptr::NULL }),
            saved: self.saved.at(),
            dx: &dx,
            dy: dy.map(|m| at_y(m.at())),
            gx: &gx,
        };
        op.cuda(pass, &io, &queue)?;
        // Scratch is freed on return.
        self.device.synchronize()
    }

    fn read(&self, memory: &Memory, dtype: Dtype) -> Result<Vec<f32>, String> {
        download(self.device, memory, dtype).map_err(words)
    }
}

fn words(e: crate::Error) -> String {
    e.to_string()
}

/// Memory that holds `data` as `dtype`, and nothing else.
pub(super) fn upload(device: &Rc<dyn Device>, data: &[f32], dtype: Dtype) -> crate::Result<Memory> {
    let memory = Memory::new(device, data.len() * dtype.bytes())?;
    match dtype {
        Dtype::F32 => device.upload(memory.at(), bytemuck::cast_slice(data))?,
        Dtype::Bf16 => {
            let data: Vec<half::bf16> = data.iter().map(|v| half::bf16::from_f32(*v)).collect();
            device.upload(memory.at(), bytemuck::cast_slice(&data))?;
        }
    }
    Ok(memory)
}

/// Memory whose every element is NaN, in either dtype.
pub(super) fn poisoned(device: &Rc<dyn Device>, bytes: usize) -> crate::Result<Memory> {
    let memory = Memory::new(device, bytes)?;
    device.upload(memory.at(), &vec![0xff; bytes])?;
    Ok(memory)
}

pub(super) fn download(device: &Rc<dyn Device>, memory: &Memory, dtype: Dtype) -> crate::Result<Vec<f32>> {
    let n = memory.bytes() / dtype.bytes();
    match dtype {
        Dtype::F32 => {
            let mut data = vec![0.0f32; n];
            device.download(memory.at(), bytemuck::cast_slice_mut(&mut data))?;
            Ok(data)
        }
        Dtype::Bf16 => {
            let mut data = vec![half::bf16::ZERO; n];
            device.download(memory.at(), bytemuck::cast_slice_mut(&mut data))?;
            Ok(data.iter().map(|v| v.to_f32()).collect())
        }
    }
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
