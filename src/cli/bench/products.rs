//! Matrix products by themselves, each in its three layouts, beside the vendor's library at the very same size.
use super::measure::{Clock, Task, Times, measure};
use super::ops::sets;
use super::shapes::Numbers;
use crate::Result;
use crate::gpu::cublaslt::{self, CublasLt, Turned};
use crate::gpu::driver::Driver;
use crate::gpu::{Device, Dtype, Memory, Queue};
use crate::ops::gemm::cuda::product_as;
use crate::ops::gemm::{Epilogue, GemmConfig, GemmShape, Layout};
use crate::selftest::upload;
use std::rc::Rc;

const LAYOUTS: [Layout; 3] = [Layout::Nt, Layout::Nn, Layout::Tn];

/// A product to time: y = x Wᵀ of a linear layer, or the cotangent of its input, or that of its weight.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    pub shape: GemmShape,
    pub config: GemmConfig,
    tf32: bool,
}

impl Planned {
    /// The products of linear layers of these sizes (samples, features in, features out), stored in `dtype`.
    pub fn of(device: &dyn Device, sizes: &[(usize, usize, usize)], dtype: Dtype, tf32: bool) -> Vec<Self> {
        let each = sizes.iter().flat_map(|&size| LAYOUTS.map(|layout| (size, layout)));
        let planned = each.map(|((rows, inputs, outputs), layout)| {
            let (m, n, k) = match layout {
                Layout::Nt => (rows, outputs, inputs),
                Layout::Nn => (rows, inputs, outputs),
                Layout::Tn => (outputs, inputs, rows),
            };
            // As the engine stores it: gradients of weights are f32.
            let c = if layout == Layout::Tn { Dtype::F32 } else { dtype };
            let shape = GemmShape { layout, m, n, k, pairs: 1, a: dtype, b: dtype, c };
            Self { shape, config: shape.config(device.abilities(), tf32), tf32 }
        });
        planned.collect()
    }

    pub fn name(&self) -> String {
        format!("gemm_{}", self.shape.layout.name())
    }

    /// Floating-point operations, and bytes that must move.
    pub fn paper(&self) -> (f64, f64) {
        let GemmShape { m, n, k, a, b, c, .. } = self.shape;
        let bytes = m * k * a.bytes() + n * k * b.bytes() + m * n * c.bytes();
        (2.0 * m as f64 * n as f64 * k as f64, bytes as f64)
    }

    /// This crate's time, and the vendor's where its library can be loaded and has such a product.
    pub fn time(
        &self,
        device: &Rc<dyn Device>,
        driver: Option<&Rc<Driver>>,
        clock: &Clock,
        seconds: f64,
        numbers: &mut Numbers,
    ) -> Result<(Times, Option<Times>)> {
        let GemmShape { layout, m, n, k, a, b, c, .. } = self.shape;
        let mut set = |_| -> Result<[Memory; 3]> {
            let (of_a, of_b) = (numbers.take(m * k, 1.0), numbers.take(n * k, 1.0));
            Ok([upload(device, &of_a, a)?, upload(device, &of_b, b)?, Memory::new(device, m * n * c.bytes())?])
        };
        let sets = (0..sets(self.paper().1 as usize)).map(&mut set).collect::<Result<Vec<_>>>()?;
        let scratch = Memory::new(device, self.config.scratch(&self.shape))?;
        let queue = Queue { tf32: self.tf32, ..Queue::new(&**device, scratch.at()) };
        let multiply = |turn: usize| {
            let [a, b, c] = &sets[turn % sets.len()];
            product_as(self.config, &queue, &self.shape, &[(a.at(), b.at())], c.at(), Epilogue::NONE)
        };
        let ours = measure(clock, seconds, &mut Task(multiply))?;

        let kind = match (a, self.tf32) {
            (Dtype::Bf16, _) => cublaslt::Product::Bf16,
            (Dtype::F32, true) => cublaslt::Product::Tf32,
            (Dtype::F32, false) => cublaslt::Product::F32,
        };
        let Some(library) = driver.and_then(CublasLt::load) else { return Ok((ours, None)) };
        let turned = Turned { a: layout == Layout::Tn, b: layout == Layout::Nt };
        let best = |[a, b, c]: &[Memory; 3]| library.best_matmul(kind, turned, [m, n, k], [a.at(), b.at(), c.at()]);
        let Some(matmuls) = sets.iter().map(best).collect::<Option<Vec<_>>>() else { return Ok((ours, None)) };
        let vendors = measure(clock, seconds, &mut Task(|turn| matmuls[turn % matmuls.len()].queue()))?;
        Ok((ours, Some(vendors)))
    }
}
