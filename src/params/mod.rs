//! (to come)
pub mod atomic;
pub mod header;
pub mod save;
pub mod weights;
