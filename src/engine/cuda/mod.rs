//! The engine of devices.
mod blocks;
mod flat;
mod select;
mod update;
pub use flat::{Flat, Sizes};
pub use select::Source;
pub use update::{At, Knobs};
