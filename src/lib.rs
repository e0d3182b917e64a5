//! fipk.
pub mod cli;
pub mod data;
pub mod dual;
pub mod engine;
pub mod error;
pub mod fip;
pub mod graph;
pub mod models;
pub mod ops;
pub mod params;
pub mod report;
pub mod rng;
pub mod tensor;

pub use error::{Error, Result};
