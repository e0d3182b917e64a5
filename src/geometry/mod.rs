//! The geometry of weight space: the metric that a network pulls back from its outputs, its spectrum, exact and null
//! steps, geodesics (METHOD; the paper's equations 1 to 5). Nothing of n x n is ever formed.
//!
//! | module | what |
//! |---|---|
//! | [`Map`], [`OnEngine`] | a network over a data set, with products with J and Jᵀ |
//! | [`Pullback`] | g on weight space |
//! | [`Gram`] | K on the space of outputs: the same eigenvalues in N m dimensions |
//! | [`lanczos`] | eigenpairs and Krylov spaces |
//! | [`spectrum`] | top eigenpairs, exact spectrum, density, the dimension of the invariant subspace |
//! | [`step`] | equations 3 and 4 |
//! | [`Scaled`], [`diagonal`] | weights measured by the diagonal of g: a preconditioner |
//! | [`geodesic`] | equation 5 |
pub mod geodesic;
mod gram;
pub mod lanczos;
mod map;
mod network;
mod pullback;
mod scaled;
mod solve;
mod space;
pub mod spectrum;
pub mod step;
pub mod tridiagonal;
pub use gram::Gram;
pub use map::{Map, Metric, OutputMetric};
pub use network::{Batch, Kept, Numbers, OnEngine, Samples};
pub use pullback::Pullback;
pub use scaled::{Elementwise, Scaled, diagonal, inverse_root};
pub use solve::{Accuracy, Damped};
pub use space::{Space, Symmetric};
