//! Attention by each of its kernels, whatever the shape would choose: the op table meets those of the rule alone.
use super::case::{Case, Input, Role};
use super::cases::Make;
use super::list::Check;
use super::ops;
use crate::gpu::{Dtype, Queue};
use crate::ops::attention::config::{LARGE, SMALL, WIDTHS};
use crate::ops::attention::cuda::{Choice, run_as};
use crate::ops::{Attention, Cost, Cotangent, DeviceIo, Op, Pass, Reads};
use crate::rng::Rng;
use crate::tensor::{Element, Shape, View};
use std::rc::Rc;
use std::sync::Arc;

/// Attention with kernels that are chosen beforehand.
#[derive(Debug)]
struct Chosen {
    op: Attention,
    choice: Choice,
    name: &'static str,
}

impl Op for Chosen {
    fn name(&self) -> &'static str {
        self.name
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
    fn reference(&self, x: &[View<crate::dual::Dual>], y: &mut [crate::dual::Dual]) {
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
    fn dual(&self) -> bool {
        self.op.dual()
    }
    fn scratch(&self, pass: Pass, x: &[&[usize]]) -> usize {
        self.op.scratch(pass, x)
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        run_as(self.choice, self.op, pass, io, queue)
    }
}

/// q, k, v and a mask: the last sample has one key, the first a padded end and, where a word of the mask would be all
/// ones, a hole.
fn inputs(seed: u64, [b, s, c]: [usize; 3]) -> Vec<Input> {
    let m = &mut Make(Rng::new(seed, 41));
    let on = |i: usize| match (i / s, i % s) {
        (0, key) => key < s - s / 8 && key != 40,
        (_, key) => key == s / 2,
    };
    let data = (0..b * s).map(|i| f32::from_bits(u32::from(on(i)))).collect();
    let mask = Input { shape: vec![b, s], data, role: Role::Index };
    let normal = [0; 3].map(|_| m.normal(&[b, s, c], 1.0));
    normal.into_iter().chain([mask]).collect()
}

/// Tensor cores at every width with both kinds of blocks, and the portable kernels of bf16 that the op table's sizes
/// leave to them no more.
pub(super) fn checks(seed: u64) -> Vec<Check> {
    let mma = "attention_mma";
    let large = WIDTHS.map(|dim| (mma, Choice::TensorCores(LARGE), [2, 70, dim], 1));
    let small = [16, 112].map(|dim| (mma, Choice::TensorCores(SMALL), [2, 70, 2 * dim], 2));
    let portable = [32, 64, 96, 128].map(|dim| ("attention_portable", Choice::Portable, [2, 33, dim], 1));
    let all = large.into_iter().chain(small).chain(portable);
    let check = |(name, choice, shape, heads): (&'static str, Choice, [usize; 3], usize)| {
        let op = Arc::new(Chosen { op: Attention { heads }, choice, name });
        let case = Rc::new(Case { op, inputs: inputs(seed, shape), ulps: 16.0 });
        Check { names: ops::names(&case), run: Box::new(move |device| ops::check_op(device, &case, Dtype::Bf16)) }
    };
    all.map(check).collect()
}
