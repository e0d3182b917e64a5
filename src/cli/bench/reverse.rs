//! Both products of a linear layer's reverse pass in one launch, to be held against `gemm_nn` and `gemm_tn` of the layer.
use super::measure::{Clock, Task, Times, measure};
use super::ops::sets;
use super::shapes::Numbers;
use crate::Result;
use crate::gpu::{Device, Dtype, Memory, Queue};
use crate::ops::gemm::dual::Output;
use crate::ops::gemm::reverse::{self, ReverseConfig, reverse_as};
use crate::ops::gemm::{Epilogue, GemmShape};
use crate::selftest::upload;
use std::rc::Rc;

pub const NAME: &str = "gemm_reverse";

/// gx and gw of a linear layer, in the tiles and parts that are best for one launch.
#[derive(Clone, Copy, Debug)]
pub struct Both {
    shapes: [GemmShape; 2],
    config: ReverseConfig,
    /// Whether the rule takes one launch here, or the two in turn.
    chosen: bool,
    tf32: bool,
}

impl Both {
    /// Of linear layers of these sizes (samples, features in, features out), stored in `dtype`; of those that are too large,
    /// or not for tensor cores, none.
    pub fn of(device: &dyn Device, sizes: &[(usize, usize, usize)], dtype: Dtype, tf32: bool) -> Vec<Self> {
        if dtype == Dtype::F32 && !tf32 {
            return Vec::new();
        }
        let each = sizes.iter().filter_map(|&(rows, inputs, outputs)| {
            let [gx, gw] = reverse::shapes((rows, outputs, inputs), dtype);
            // As the engine stores it: gradients of weights are f32.
            let shapes = [gx, GemmShape { c: Dtype::F32, ..gw }];
            let chosen = reverse::config(&shapes, device.abilities(), tf32).is_some();
            Some(Self { shapes, config: reverse::best(&shapes)?, chosen, tf32 })
        });
        each.collect()
    }

    /// What it is of, and how it is done.
    pub fn text(&self) -> String {
        let [gx, gw] = &self.shapes;
        format!("{gx}, {gw}, {}{}", self.config, if self.chosen { "" } else { "; not chosen" })
    }

    /// Floating-point operations, and bytes that must move; gy once.
    pub fn paper(&self) -> (f64, f64) {
        let [gx, gw] = &self.shapes;
        let operands = (gx.m * gx.k + gx.n * gx.k + gw.n * gw.k) * gx.a.bytes();
        let outputs = gx.m * gx.n * gx.c.bytes() + gw.m * gw.n * gw.c.bytes();
        (4.0 * gx.m as f64 * gx.n as f64 * gx.k as f64, (operands + outputs) as f64)
    }

    pub fn time(&self, device: &Rc<dyn Device>, clock: &Clock, seconds: f64, numbers: &mut Numbers) -> Result<Times> {
        let [gx, gw] = self.shapes;
        let mut set = |_| -> Result<[Memory; 5]> {
            let mut put = |n: usize| upload(device, &numbers.take(n, 1.0), gx.a);
            let (gy, w, x) = (put(gx.m * gx.k)?, put(gx.n * gx.k)?, put(gw.n * gw.k)?);
            let room = |shape: GemmShape| Memory::new(device, shape.m * shape.n * shape.c.bytes());
            Ok([gy, w, x, room(gx)?, room(gw)?])
        };
        let sets = (0..sets(self.paper().1 as usize)).map(&mut set).collect::<Result<Vec<_>>>()?;
        let scratch = Memory::new(device, self.config.scratch(&self.shapes))?;
        let queue = Queue { tf32: self.tf32, ..Queue::new(&**device, scratch.at()) };
        let multiply = |turn: usize| {
            let [gy, w, x, to_x, to_w] = &sets[turn % sets.len()];
            let output = |at: &Memory, dtype| Output { at: at.at(), dtype, epilogue: Epilogue::NONE };
            let pairs = [[(gy.at(), w.at())], [(gy.at(), x.at())]];
            let outputs = [output(to_x, gx.c), output(to_w, gw.c)];
            reverse_as(self.config, &queue, &self.shapes, [&pairs[0], &pairs[1]], outputs)
        };
        measure(clock, seconds, &mut Task(multiply))
    }
}
