//! What the machine can do: the bandwidth of a copy, and the best matrix product.
use super::super::output::facts;
use super::measure::{Clock, Task, measure};
use super::ops::{OnDevice, Only};
use super::shapes::Numbers;
use crate::Result;
use crate::gpu::cublaslt::{self, CublasLt, Turned};
use crate::gpu::driver::Driver;
use crate::gpu::{Device, Dtype, Memory};
use crate::ops::gemm::nt;
use crate::ops::{Linear, Pass};
use crate::report::Table;
use crate::selftest::{Case, Input, Role, upload};
use rayon::prelude::*;
use serde::Serialize;
use std::rc::Rc;
use std::sync::Arc;

const NT: Turned = Turned { a: false, b: true };

/// A matrix product that was timed.
#[derive(Debug, Serialize)]
pub struct Product {
    pub by: String,
    pub dtype: String,
    pub tflop_s: f64,
}

#[derive(Debug, Serialize)]
pub struct Yardsticks {
    /// Bytes read and written by a copy, a second.
    pub copy_gb_s: f64,
    /// Of square matrices.
    pub side: usize,
    pub products: Vec<Product>,
}

impl Yardsticks {
    /// The best in `dtype`.
    pub fn matmul(&self, dtype: Dtype) -> f64 {
        let fits = self.products.iter().filter(|p| p.dtype == dtype.suffix());
        fits.map(|p| p.tflop_s).fold(f64::NAN, f64::max)
    }

    pub fn table(&self) -> Table {
        let product = |p: &Product| (format!("{0} x {0} x {0} {1}, {2}", self.side, p.dtype, p.by), p.tflop_s);
        let mut rows = vec![("copy".to_string(), format!("{:.1} GB/s", self.copy_gb_s))];
        rows.extend(self.products.iter().map(product).map(|(name, t)| (name, format!("{t:.3} TFLOP/s"))));
        let rows: Vec<(&str, String)> = rows.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        facts(&rows)
    }
}

/// Where yardsticks are measured.
pub enum Machine<'a> {
    Host,
    Device(&'a Rc<dyn Device>),
    /// With the vendor's library, where it can be loaded.
    Cuda(&'a Rc<Driver>),
}

/// Both. `large`: as large as it takes for the best; else a try-out.
pub fn measured(machine: &Machine, clock: &Clock, seconds: f64, large: bool) -> Result<Yardsticks> {
    let (bytes, side) = match (large, machine) {
        (false, _) => (1 << 20, 64),
        (true, Machine::Host) => (256 << 20, 1536),
        (true, _) => (1 << 30, 8192),
    };
    let on = |device: &Rc<dyn Device>| -> Result<(f64, Vec<Product>)> {
        let each = [Dtype::Bf16, Dtype::F32].map(|dtype| device_product(device, clock, seconds, side, dtype));
        Ok((device_copy(device, clock, seconds, bytes)?, each.into_iter().collect::<Result<_>>()?))
    };
    let (copy, products) = match machine {
        Machine::Host => (host_copy(clock, seconds, bytes)?, vec![host_product(clock, seconds, side)?]),
        Machine::Device(device) => on(device)?,
        Machine::Cuda(driver) => {
            let device: Rc<dyn Device> = (*driver).clone();
            let (copy, mut products) = on(&device)?;
            products.extend(vendors(driver, &device, clock, seconds, side)?);
            (copy, products)
        }
    };
    Ok(Yardsticks { copy_gb_s: 2.0 * bytes as f64 / copy * 1e-9, side, products })
}

fn product(by: &str, dtype: &str, side: usize, seconds: f64) -> Product {
    let tflop_s = 2.0 * (side as f64).powi(3) / seconds * 1e-12;
    Product { by: by.to_string(), dtype: dtype.to_string(), tflop_s }
}

/// cuBLASLt's, none where it cannot be loaded.
fn vendors(
    driver: &Rc<Driver>,
    device: &Rc<dyn Device>,
    clock: &Clock,
    seconds: f64,
    side: usize,
) -> Result<Vec<Product>> {
    let Some(library) = CublasLt::load(driver) else { return Ok(Vec::new()) };
    let mut numbers = Numbers::new(1);
    let mut products = Vec::new();
    let kinds = [
        (cublaslt::Product::Bf16, Dtype::Bf16, "bf16"),
        (cublaslt::Product::Tf32, Dtype::F32, "tf32"),
        (cublaslt::Product::F32, Dtype::F32, "f32"),
    ];
    for (kind, stored, name) in kinds {
        let mut matrix = || upload(device, &numbers.take(side * side, 1.0), stored);
        let (a, b, c) = (matrix()?, matrix()?, matrix()?);
        if let Some(matmul) = library.best_matmul(kind, NT, [side; 3], [a.at(), b.at(), c.at()]) {
            let times = measure(clock, seconds, &mut Task(|_| matmul.queue()))?;
            products.push(product("cuBLASLt", name, side, times.fastest));
        }
    }
    Ok(products)
}

fn host_copy(clock: &Clock, seconds: f64, bytes: usize) -> Result<f64> {
    const CHUNK: usize = 1 << 18;
    let (from, mut to) = (vec![1.0f32; bytes / 4], vec![0.0f32; bytes / 4]);
    let copy = |_| {
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| to.copy_from_slice(from));
        Ok(())
    };
    Ok(measure(clock, seconds, &mut Task(copy))?.median)
}

fn host_product(clock: &Clock, seconds: f64, side: usize) -> Result<Product> {
    let mut numbers = Numbers::new(1);
    let (a, b) = (numbers.take(side * side, 1.0), numbers.take(side * side, 1.0));
    let mut c = vec![0.0; side * side];
    let multiply = |_| {
        nt((side, side, side), &a, &b, false, &mut c);
        Ok(())
    };
    let times = measure(clock, seconds, &mut Task(multiply))?;
    Ok(product("fipk", "f32", side, times.fastest))
}

fn device_copy(device: &Rc<dyn Device>, clock: &Clock, seconds: f64, bytes: usize) -> Result<f64> {
    let [from, to] = [Memory::new(device, bytes)?, Memory::new(device, bytes)?];
    device.fill(from.at(), 0x3f80_0001, bytes / 4)?;
    Ok(measure(clock, seconds, &mut Task(|_| device.copy(to.at(), from.at(), bytes)))?.median)
}

fn device_product(device: &Rc<dyn Device>, clock: &Clock, seconds: f64, side: usize, dtype: Dtype) -> Result<Product> {
    let mut numbers = Numbers::new(1);
    let mut matrix = |role| Input { data: numbers.take(side * side, 1.0), shape: vec![side, side], role };
    let inputs = vec![matrix(Role::Activation), matrix(Role::Parameter)];
    let case = Case { op: Arc::new(Linear), inputs, ulps: 0.0 };
    let mut linear = OnDevice::new(device, &case, dtype, &mut numbers)?;
    let times = measure(clock, seconds, &mut Only(&mut linear, Pass::Forward))?;
    Ok(product("fipk", dtype.suffix(), side, times.fastest))
}
