//! The binary from outside: help, exit codes, the wording of errors, and what every verb writes.
#[path = "cli/support.rs"]
mod support;

#[path = "cli/devices.rs"]
mod devices;
#[path = "cli/errors.rs"]
mod errors;
#[path = "cli/geometry.rs"]
mod geometry;
#[path = "cli/heads.rs"]
mod heads;
#[path = "cli/help.rs"]
mod help;
#[path = "cli/images.rs"]
mod images;
#[path = "cli/kernels.rs"]
mod kernels;
#[path = "cli/models.rs"]
mod models;
#[path = "cli/runs.rs"]
mod runs;
#[path = "cli/searches.rs"]
mod searches;
#[path = "cli/steps.rs"]
mod steps;
#[path = "cli/texts.rs"]
mod texts;
