//! The engine of devices.
mod blocks;
mod flat;
mod select;
mod storage;
mod update;
pub use flat::{Flat, Sizes};
pub use select::Source;
pub use storage::Storage;
pub use update::{At, Knobs};
