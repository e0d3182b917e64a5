//! Compiles kernels/*.cu: for the emulator, with the host's C++ compiler.

#[cfg(feature = "emulator")]
#[path = "kernels/emulator/build.rs"]
mod emulator;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "emulator")]
    emulator::build();
}
