//! Passes of ops, on the host or on a device, on several sets of tensors in turn.
use super::measure::Work;
use super::shapes::Numbers;
use crate::Result;
use crate::gpu::{Device, Dtype, Memory};
use crate::ops::{Cotangent, Pass};
use crate::selftest::{Bound, Case, Stored, poisoned, upload};
use std::rc::Rc;

/// More than the last cache of any machine holds, so that each turn finds its tensors in memory.
const PAST_THE_CACHE: usize = 256 << 20;
const MOST_SETS: usize = 16;

/// How many sets of `bytes` it takes.
pub fn sets(bytes: usize) -> usize {
    PAST_THE_CACHE.div_ceil(bytes.max(1)).clamp(1, MOST_SETS)
}

/// The numbers of all tensors of a case and of its derivatives.
fn elements(case: &Case) -> Result<usize> {
    let refused = |what| crate::Error::Graph { op: case.op.name(), place: "bench".into(), what };
    let inputs: usize = case.inputs.iter().map(|i| i.data.len()).sum();
    Ok(2 * inputs + 2 * case.numel().map_err(refused)?)
}

/// The passes of a case: one of [`Host`] or [`OnDevice`].
pub trait Passes {
    fn run(&mut self, pass: Pass, turn: usize) -> Result<()>;
}

/// One pass.
pub struct Only<'a>(pub &'a mut dyn Passes, pub Pass);

impl Work for Only<'_> {
    fn run(&mut self, turn: usize) -> Result<()> {
        self.0.run(self.1, turn)
    }
}

/// The host's passes, on sets of buffers.
pub struct Host(Vec<Set>);

struct Set {
    case: Case,
    y: Vec<f32>,
    saved: Vec<f32>,
    dx: Vec<Vec<f32>>,
    dy: Vec<f32>,
    gy: Vec<f32>,
    gx: Vec<Vec<f32>>,
}

impl Host {
    pub fn new(case: &Case, numbers: &mut Numbers) -> Result<Self> {
        let elements = elements(case)?;
        let n = case.numel().unwrap_or_default();
        let set = |_| Set {
            case: Case { op: case.op.clone(), inputs: case.inputs.clone(), ulps: case.ulps },
            y: vec![0.0; n],
            saved: vec![0.0; case.op.saved(&case.shapes())],
            dx: case.inputs.iter().map(|i| numbers.take(i.data.len(), 1.0)).collect(),
            dy: vec![0.0; n],
            gy: numbers.take(n, 1.0),
            gx: case.zeros(),
        };
        let mut host = Self((0..sets(4 * elements)).map(set).collect());
        for turn in 0..host.0.len() {
            host.run(Pass::Forward, turn)?;
        }
        Ok(host)
    }
}

impl Passes for Host {
    fn run(&mut self, pass: Pass, turn: usize) -> Result<()> {
        let count = self.0.len();
        let Set { case, y, saved, dx, dy, gy, gx } = &mut self.0[turn % count];
        let differentiable = |i: usize| case.inputs[i].role.differentiable();
        match pass {
            Pass::Forward => case.op.forward(&case.views(), y, saved),
            Pass::Jvp | Pass::Dual => {
                let dx: Vec<Option<&[f32]>> =
                    dx.iter().enumerate().map(|(i, d)| differentiable(i).then_some(d.as_slice())).collect();
                if pass == Pass::Dual {
                    case.op.forward(&case.views(), y, saved);
                }
                case.op.jvp(&case.views(), y, saved, &dx, dy);
            }
            Pass::Vjp => {
                let set = |(i, data): (usize, _)| differentiable(i).then_some(Cotangent { data, add: false });
                let mut gx: Vec<Option<Cotangent>> =
                    gx.iter_mut().map(Vec::as_mut_slice).enumerate().map(set).collect();
                case.op.vjp(&case.views(), y, saved, gy, &mut gx);
            }
        }
        Ok(())
    }
}

/// A device's passes, on sets of its memory.
pub struct OnDevice(Vec<Pieces>);

struct Pieces {
    bound: Bound,
    dx: Vec<Option<Memory>>,
    dy: Memory,
    gy: Memory,
    gx: Vec<Option<(Memory, bool)>>,
}

impl OnDevice {
    pub fn new(device: &Rc<dyn Device>, case: &Case, dtype: Dtype, numbers: &mut Numbers) -> Result<Self> {
        let mut set = || -> Result<Pieces> {
            let stored = Stored::new(case, dtype, false);
            let copy = Case { op: case.op.clone(), inputs: case.inputs.clone(), ulps: case.ulps };
            let bound = Bound::new(device, copy, stored.clone())?;
            bound.run(Pass::Forward, &[], None, &[])?;
            let n = bound.y.bytes() / stored.y.bytes();
            let mut tangent = |i: usize| {
                let input = &case.inputs[i];
                let data = numbers.take(input.data.len(), 1.0);
                input.role.differentiable().then(|| upload(device, &data, stored.x[i])).transpose()
            };
            let dx = (0..case.inputs.len()).map(&mut tangent).collect::<Result<_>>()?;
            let gy = upload(device, &numbers.take(n, 1.0), stored.y)?;
            let cotangent = |i: usize| {
                let input = &case.inputs[i];
                let bytes = input.data.len() * stored.gx[i].bytes();
                input.role.differentiable().then(|| Ok((poisoned(device, bytes)?, false))).transpose()
            };
            let gx = (0..case.inputs.len()).map(cotangent).collect::<Result<_>>()?;
            Ok(Pieces { dy: poisoned(device, n * stored.y.bytes())?, bound, dx, gy, gx })
        };
        let count = sets(dtype.bytes() * elements(case)?);
        Ok(Self((0..count).map(|_| set()).collect::<Result<_>>()?))
    }
}

impl Passes for OnDevice {
    fn run(&mut self, pass: Pass, turn: usize) -> Result<()> {
        let Pieces { bound, dx, dy, gy, gx } = &self.0[turn % self.0.len()];
        match pass {
            Pass::Forward => bound.run(pass, &[], None, &[]),
            Pass::Jvp | Pass::Dual => bound.run(pass, dx, Some(dy), &[]),
            Pass::Vjp => bound.run(pass, &[], Some(gy), gx),
        }
    }
}
