//! Weight space: one flat layout for every vector of it, and the files that weights come from and go to.
pub mod atomic;
pub mod delta;
pub mod header;
mod layout;
mod roles;
pub mod save;
pub mod weights;

pub use layout::{Layout, Role, Span};
pub use roles::Roles;
