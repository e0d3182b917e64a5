//! What several test crates share.
#![allow(dead_code)] // each uses a part of it

pub mod op;
pub mod ram;
