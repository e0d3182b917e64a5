//! (to come)
pub mod config;
pub mod folder;
pub mod head;
pub mod hub;
