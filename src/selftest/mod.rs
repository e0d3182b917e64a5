//! Kernels against the host on a device: the table of ops on awkward sizes, and the list of checks that `fipk selftest`
//! prints.
mod attention;
mod bound;
mod case;
mod cases;
mod flat;
mod list;
mod memory;
mod ops;
mod products;
mod products_reverse;
mod products_wgmma;
mod record;
mod row;
mod wrappers;
pub use bound::{Bound, Stored};
pub use case::{Case, Input, Role, Tangents, only, subsets};
pub use cases::{Make, cases};
#[cfg(feature = "emulator")]
pub use list::coverage;
pub use list::{Check, checks, run};
pub use memory::{download, poisoned, upload};
pub use ops::{check_op, dimensions};
pub use row::{Judged, Row, Tolerance, judge};
