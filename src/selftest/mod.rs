//! Kernels against the host on a device: the table of ops on awkward sizes, and the list of checks that `fipk selftest`
//! prints.
mod case;
mod cases;
mod ops;
mod row;
pub use case::{Case, Input, Role, Tangents, only, subsets};
pub use cases::{Make, cases};
pub use ops::check_op;
pub use row::{Judged, Row, Tolerance, judge};
