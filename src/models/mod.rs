//! (to come)
pub mod config;
mod fields;
pub mod folder;
pub mod head;
pub mod hub;
