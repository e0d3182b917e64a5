//! The CUDA engine on the emulator: what is asked of the host engine, whole networks, whole steps of a path.
use fipk::engine::{Criterion, Cuda, Dtype, Mask, Pattern, Score, Vector};
use fipk::gpu::emulator::Emulator;
use fipk::graph::Kind;
use fipk::params::{Layout, Role, Span};
use fipk::rng::Rng;
use std::path::Path;
use std::rc::Rc;

#[path = "engine/bindings.rs"]
mod bindings;
#[path = "engine/common.rs"]
mod common;
#[path = "cuda_engine/naive.rs"]
mod naive;
#[path = "cuda_engine/programs.rs"]
mod programs;
#[path = "engine/select.rs"]
mod select;
#[path = "cuda_engine/step.rs"]
mod step;
#[path = "engine/update.rs"]
mod update;

use common::*;

fn emulated(layout: Layout, dtype: Dtype) -> Cuda {
    Cuda::new(Rc::new(Emulator::default()), layout, dtype).unwrap()
}

fn engine(layout: Layout) -> Subject {
    Box::new(emulated(layout, Dtype::F32))
}

fn poisoned(layout: Layout) -> Subject {
    Box::new(emulated(layout, Dtype::F32).poisoned())
}

/// Cases of a property, and lengths of spans that are awkward for this engine: around its tiles.
const CASES: u32 = 4;
const AWKWARD: [usize; 9] = [1, 31, 32, 33, 1000, 4095, 4096, 4097, 9001];
