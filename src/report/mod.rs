//! What a run writes and shows: events on disk, terminal tables, a progress bar, plots and one HTML page.
pub mod html;
pub mod numbers;
pub mod plots;
pub mod progress;
pub mod record;
pub mod summary;
pub mod tables;
mod view;

pub use progress::Progress;
pub use record::{Drift, End, Eval, Event, Layer, Network, Record, Recorder, Solve, Start, Step, Table, Warning};
pub use summary::{Histogram, Quantiles};
