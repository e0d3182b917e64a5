//! The host engine: exact selection, the fused update, bit equality for any number of threads, bindings.
//!
//! Expected values come from `tests/goldens` (PyTorch, NumPy) or from plain loops written here. `tests/cuda_engine.rs`
//! asks the same of the CUDA engine, but for the threads.
use fipk::engine::{Criterion, Host, Mask, Pattern, Score, Vector};
use fipk::graph::Kind;
use fipk::params::{Layout, Role, Span};
use fipk::rng::Rng;

#[path = "engine/bindings.rs"]
mod bindings;
#[path = "engine/common.rs"]
mod common;
#[path = "engine/select.rs"]
mod select;
#[path = "engine/threads.rs"]
mod threads;
#[path = "engine/update.rs"]
mod update;

use common::*;

fn engine(layout: Layout) -> Subject {
    Box::new(Host::new(layout))
}

fn poisoned(layout: Layout) -> Subject {
    Box::new(Host::new(layout).poisoned())
}

/// Cases of a property, and lengths of spans that are awkward for this engine: around its blocks.
const CASES: u32 = 40;
const AWKWARD: [usize; 9] = [1, 31, 32, 33, 1000, 16_383, 16_384, 16_385, 40_001];
