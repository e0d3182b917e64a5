//! The emulator: right kernels pass, planted bugs are caught, and a seed says all there is to say about a schedule.
#[path = "emulator/bench.rs"]
mod bench;
#[path = "emulator/device.rs"]
mod device;
#[path = "emulator/planted.rs"]
mod planted;
#[path = "emulator/right.rs"]
mod right;
#[path = "emulator/wrappers.rs"]
mod wrappers;
