//! Weight space: one flat layout for every vector of it, and the files that weights come from and go to.
mod layout;
mod roles;

pub use layout::{Layout, Role, Span};
pub use roles::Roles;
