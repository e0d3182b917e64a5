//! The checks of ops on a device, held to a device whose kernels are the host's passes: right ones pass for the whole
//! table in either dtype, and planted bugs do not.
mod common;
use common::ram::Ram;
use fipk::dual::Dual;
use fipk::gpu::{Device, Dtype, Queue};
use fipk::ops::{Cost, Cotangent, DeviceIo, DeviceTensor, Linear, Op, Pass, Reads, in_turn};
use fipk::rng::Rng;
use fipk::selftest::{Case, Make, Role, cases, check_op};
use fipk::tensor::{Element, Shape, View, numel};
use std::rc::Rc;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// What a pass leaves at one element.
    Nan,
    Skip,
    /// One element off by an eighth of the largest.
    Off,
    /// All of them off by a little.
    Slope,
    /// Setting where adding was asked for.
    IgnoresAdd,
    /// Adding twice what was asked of two cotangents, right for each alone.
    OnlyTogether,
    /// A read of what `reverse_reads` does not name.
    ReadsMore,
    /// A write behind the end.
    PastTheEnd,
    /// No kernels for a pass.
    Missing,
}

/// An op whose kernels are the host's passes of another, with a bug in the pass `at`.
#[derive(Debug)]
struct Echo {
    op: Arc<dyn Op>,
    bug: Bug,
    at: Pass,
}

/// A tensor's numbers; none where the pass may not read.
fn read(device: &dyn Device, t: &DeviceTensor) -> fipk::error::Result<Vec<f32>> {
    if t.at.is_null() {
        return Ok(Vec::new());
    }
    match t.dtype {
        Dtype::F32 => {
            let mut data = vec![0f32; t.numel()];
            device.download(t.at, bytemuck::cast_slice_mut(&mut data))?;
            Ok(data)
        }
        Dtype::Bf16 => {
            let mut data = vec![half::bf16::ZERO; t.numel()];
            device.download(t.at, bytemuck::cast_slice_mut(&mut data))?;
            Ok(data.iter().map(|v| v.to_f32()).collect())
        }
    }
}

impl Echo {
    fn has(&self, bug: Bug, pass: Pass) -> bool {
        self.bug == bug && self.at == pass
    }

    /// The engine's rule of what is stored how, for linear maps.
    fn check_storage(&self, io: &DeviceIo) {
        if self.op.name() != "linear" || io.x[0].dtype == Dtype::F32 {
            return;
        }
        let stored = |i: usize| if io.x[i].shape.len() < 2 { Dtype::F32 } else { Dtype::Bf16 };
        assert!(io.x.iter().enumerate().all(|(i, t)| t.dtype == stored(i)), "{io:?}");
        assert!(io.dx.iter().enumerate().all(|(i, t)| t.is_none_or(|t| t.dtype == stored(i))), "{io:?}");
        let gradient = |i: usize| if i == 0 { Dtype::Bf16 } else { Dtype::F32 };
        assert!(io.gx.iter().enumerate().all(|(i, g)| g.is_none_or(|g| g.to.dtype == gradient(i))), "{io:?}");
        assert!(io.dy.is_none_or(|dy| dy.dtype == io.y.dtype), "{io:?}");
    }

    /// Store `data`, with the bug.
    fn write(&self, device: &dyn Device, t: &DeviceTensor, pass: Pass, mut data: Vec<f32>) -> fipk::error::Result<()> {
        let last = data.len() - 1;
        let top = data.iter().fold(0f32, |m, v| m.max(v.abs()));
        if self.has(Bug::Nan, pass) {
            data[last] = f32::NAN;
        }
        if self.has(Bug::Off, pass) {
            data[last / 2] += top / 8.0;
        }
        if self.has(Bug::Slope, pass) {
            data.iter_mut().for_each(|v| *v *= 1.1);
        }
        if self.has(Bug::PastTheEnd, pass) {
            data.push(1.0);
        }
        let end = if self.has(Bug::Skip, pass) { last } else { data.len() };
        match t.dtype {
            Dtype::F32 => device.upload(t.at, bytemuck::cast_slice(&data[..end])),
            Dtype::Bf16 => {
                let data: Vec<half::bf16> = data[..end].iter().map(|v| half::bf16::from_f32(*v)).collect();
                device.upload(t.at, bytemuck::cast_slice(&data))
            }
        }
    }
}

impl Op for Echo {
    fn name(&self) -> &'static str {
        self.op.name()
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        self.op.output(x)
    }
    fn element(&self, i: usize) -> Element {
        self.op.element(i)
    }
    fn saved(&self, x: &[&[usize]]) -> usize {
        self.op.saved(x)
    }
    fn reverse_reads(&self) -> Reads {
        self.op.reverse_reads()
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        self.op.cost(pass, x)
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        self.op.reference(x, y);
    }
    fn forward(&self, x: &[View], y: &mut [f32], saved: &mut [f32]) {
        self.op.forward(x, y, saved);
    }
    fn jvp(&self, x: &[View], y: &[f32], saved: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        self.op.jvp(x, y, saved, dx, dy);
    }
    fn vjp(&self, x: &[View], y: &[f32], saved: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        self.op.vjp(x, y, saved, gy, gx);
    }
    fn exact(&self) -> bool {
        self.op.exact()
    }
    fn widens(&self) -> bool {
        self.op.widens()
    }
    fn dual(&self) -> bool {
        self.op.dual()
    }
    /// All that is saved is saved in f32.
    fn kept(&self, _: &[&[usize]]) -> usize {
        0
    }
    fn scratch(&self, _: Pass, _: &[&[usize]]) -> usize {
        64
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> fipk::error::Result<()> {
        if self.has(Bug::Missing, pass) {
            return Err(fipk::error::Error::unsupported("--device", "this pass", "another"));
        }
        self.check_storage(io);
        if pass == Pass::Dual {
            return in_turn(self, io, queue);
        }
        // As many bytes as were asked for.
        queue.device.upload(queue.scratch, &[0; 64])?;
        let device = queue.device;
        let x: Vec<Vec<f32>> = io.x.iter().map(|t| read(device, t)).collect::<Result<_, _>>()?;
        let views: Vec<View> = x.iter().zip(io.x).map(|(data, t)| View { data, shape: t.shape }).collect();
        let shapes: Vec<&[usize]> = io.x.iter().map(|t| t.shape).collect();
        let mut saved = vec![0f32; self.op.saved(&shapes)];
        if !saved.is_empty() && pass != Pass::Forward {
            device.download(io.saved, bytemuck::cast_slice_mut(&mut saved))?;
        }
        if pass == Pass::Forward {
            let mut y = vec![0.0; io.y.numel()];
            self.op.forward(&views, &mut y, &mut saved);
            device.upload(io.saved, bytemuck::cast_slice(&saved))?;
            return self.write(device, &io.y, pass, y);
        }
        let (y, dy) = (read(device, &io.y)?, io.dy()?);
        if pass == Pass::Jvp {
            let dx: Vec<Option<Vec<f32>>> =
                io.dx.iter().map(|t| t.map(|t| read(device, &t)).transpose()).collect::<Result<_, _>>()?;
            let dx: Vec<Option<&[f32]>> = dx.iter().map(Option::as_deref).collect();
            let mut to = vec![0.0; dy.numel()];
            self.op.jvp(&views, &y, &saved, &dx, &mut to);
            return self.write(device, &dy, pass, to);
        }
        if self.has(Bug::ReadsMore, pass) {
            device.download(io.y.at, &mut [0; 2])?;
        }
        let gy = read(device, &dy)?;
        let asked = io.gx.iter().flatten().count();
        let mut gx: Vec<Vec<f32>> = shapes.iter().map(|s| vec![0.0; numel(s)]).collect();
        let mut of: Vec<Option<Cotangent>> =
            gx.iter_mut().zip(io.gx).map(|(data, g)| g.map(|_| Cotangent { data, add: false })).collect();
        self.op.vjp(&views, &y, &saved, &gy, &mut of);
        for (g, mut data) in io.gx.iter().zip(gx) {
            let Some(g) = g else { continue };
            if self.has(Bug::OnlyTogether, pass) && asked > 1 {
                data.iter_mut().for_each(|v| *v *= 2.0);
            }
            if g.add && !self.has(Bug::IgnoresAdd, pass) {
                data.iter_mut().zip(read(device, &g.to)?).for_each(|(v, base)| *v += base);
            }
            self.write(device, &g.to, pass, data)?;
        }
        Ok(())
    }
}

fn echo(case: &Case, bug: Bug, at: Pass) -> Case {
    Case { op: Arc::new(Echo { op: case.op.clone(), bug, at }), inputs: case.inputs.clone(), ulps: case.ulps }
}

fn device() -> Rc<dyn Device> {
    Rc::new(Ram::default())
}

#[test]
fn right_kernels_pass_for_the_whole_table() {
    let device = device();
    let mut rows = 0;
    for case in cases(3) {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            for row in check_op(&device, &echo(&case, Bug::None, Pass::Forward), dtype) {
                assert!(row.ok, "{row:?}");
                rows += 1;
            }
        }
    }
    assert!(rows > 500, "{rows}");
}

#[test]
fn planted_bugs_fail_in_their_pass() {
    let m = &mut Make(Rng::new(4, 0));
    let mut w = m.normal(&[7, 5], 1.0);
    w.role = Role::Parameter;
    let case = Case { op: Arc::new(Linear), inputs: vec![m.normal(&[3, 5], 1.0), w], ulps: 8.0 };
    let device = device();
    let failed = |bug: Bug, at: Pass, dtype: Dtype| -> Vec<String> {
        let rows = check_op(&device, &echo(&case, bug, at), dtype);
        assert!(rows.iter().all(|r| r.ok == (r.worst <= r.tolerance && r.norm <= r.norm_tolerance)), "{rows:?}");
        rows.into_iter().filter(|r| !r.ok).map(|r| r.name).collect()
    };
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for (at, name) in [(Pass::Forward, "linear_forward"), (Pass::Jvp, "linear_jvp"), (Pass::Vjp, "linear_vjp")] {
            assert!(failed(Bug::None, at, dtype).is_empty());
            for bug in [Bug::Nan, Bug::Skip, Bug::Off, Bug::Slope, Bug::PastTheEnd, Bug::Missing] {
                // Where forward itself is refused, nothing can follow it.
                let refused = at == Pass::Forward && [Bug::PastTheEnd, Bug::Missing].contains(&bug);
                let failed = failed(bug, at, dtype);
                assert!(failed.contains(&name.to_string()), "{bug:?} in {at:?}: {failed:?}");
                // The dual pass of these kernels is their forward and jvp in turn.
                let dual = |f: &str| at != Pass::Vjp && f == "linear_dual";
                assert!(refused || failed.iter().all(|f| f == name || dual(f)), "{bug:?} in {at:?}: {failed:?}");
            }
        }
        for bug in [Bug::IgnoresAdd, Bug::OnlyTogether, Bug::ReadsMore] {
            assert_eq!(failed(bug, Pass::Vjp, dtype).first().map(String::as_str), Some("linear_vjp"), "{bug:?}");
        }
    }
}
