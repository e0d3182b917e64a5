//! Functionally invariant paths: from a trained network towards a sparse subspace, its outputs held in place.
pub mod recipe;
pub mod schedule;
