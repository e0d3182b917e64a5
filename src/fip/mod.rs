//! Functionally invariant paths: from a trained network towards a sparse subspace, its outputs held in place.
pub mod checkpoint;
pub mod drift;
pub mod evaluate;
pub mod geodesics;
pub mod memory;
pub mod metrics;
pub mod objective;
pub mod observed;
pub mod path;
pub mod plan;
pub mod recipe;
pub mod run;
pub mod runner;
pub mod schedule;
pub mod statistics;
pub mod step;
pub mod teacher;
