//! The engine of devices.
mod storage;
pub use storage::Storage;
