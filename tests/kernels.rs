//! Kernels in the emulator, checked: every access, every barrier, and every result against the host engine and against
//! plain loops.
#[path = "kernels/flat.rs"]
mod flat;
#[path = "kernels/select.rs"]
mod select;
#[path = "kernels/selftest.rs"]
mod selftest;
#[path = "kernels/space.rs"]
mod space;
#[path = "kernels/update.rs"]
mod update;
