//! Devices that run kernels: a CUDA device through its driver, or the emulator in tests. One trait, at the height of
//! memory and launches, so that everything above it runs on either.
use crate::{Error, Result};
use std::fmt::Debug;
use std::rc::Rc;

mod abilities;
pub mod cublaslt;
pub mod discover;
pub mod driver;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod images;
mod launch;
mod tensor_map;
pub use abilities::Abilities;
pub use launch::{Args, Launch, Queue};
pub use tensor_map::{Plane, TensorMap};

/// An address in a device's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Ptr(pub u64);

impl Ptr {
    /// No memory: what is bound where nothing may be read.
    pub const NULL: Self = Self(0);

    /// `bytes` further.
    pub const fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }
}

/// How a device stores real numbers. Kernels compute with either in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    F32,
    Bf16,
}

impl Dtype {
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
    /// What the names of kernels end in.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// Launches that a device recorded and can run again as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded(pub(crate) usize);

/// Memory and one queue of work, done in order. Only [`Device::download`] and [`Device::synchronize`] wait for it.
pub trait Device: Debug {
    /// The device, in words.
    fn describe(&self) -> String;

    fn multiprocessors(&self) -> u32;

    /// What kernels it runs beside those that all run.
    fn abilities(&self) -> Abilities {
        Abilities::AMPERE
    }

    /// Free and total bytes.
    fn memory(&self) -> Result<(usize, usize)>;

    /// Uninitialised memory, aligned to 256 bytes. Prefer [`Memory`], which frees itself.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where the device has no room: says what was asked for and what is free.
    fn alloc(&self, bytes: usize) -> Result<Ptr>;

    fn free(&self, at: Ptr);

    fn upload(&self, to: Ptr, data: &[u8]) -> Result<()>;

    /// Waits for the queue.
    fn download(&self, from: Ptr, data: &mut [u8]) -> Result<()>;

    fn copy(&self, to: Ptr, from: Ptr, bytes: usize) -> Result<()>;

    /// `words` times the 32 bits of `word`.
    fn fill(&self, to: Ptr, word: u32, words: usize) -> Result<()>;

    /// # Errors
    /// A kernel that this build does not have; what the driver, or the emulator's checker, says.
    fn launch(&self, launch: &Launch) -> Result<()>;

    fn synchronize(&self) -> Result<()>;

    /// What kernels hand to TMA to copy boxes of `plane`.
    ///
    /// # Errors
    /// A plane that the hardware cannot copy; a device without TMA.
    fn tensor_map(&self, plane: &Plane) -> Result<TensorMap> {
        plane.check()?;
        Err(Error::unsupported(self.describe(), "a tensor map", "TMA needs compute capability 9.0"))
    }

    /// Record what `body` queues (launches, copies, fills; no allocation, no download) instead of running it.
    fn record(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<Recorded>;

    /// Queue what was recorded: the same launches, with the same arguments, on what memory holds by then.
    fn replay(&self, recorded: Recorded) -> Result<()>;

    /// Seconds that the device takes for what `body` queues, by its own clock.
    fn time(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<f64>;
}

/// The CUDA device that `--device` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first that this build has kernels for.
    Auto,
    /// The one of that number, and no other.
    Cuda(u32),
}

/// The CUDA devices of this machine that this build has kernels for; none where anything is amiss, which
/// [`discover::devices`] tells.
pub fn usable() -> Vec<discover::Found> {
    if images::nvcc_release().is_none() {
        return Vec::new();
    }
    let mut devices = discover::devices().unwrap_or_default();
    devices.retain(|device| images::run_on(images::archs(), device.capability));
    devices
}

/// `None` only for [`Which::Auto`], where the host has to do.
///
/// # Errors
/// [`crate::Error::Device`]: why the device that was asked for cannot be used.
pub fn open(which: Which) -> Result<Option<Rc<dyn Device>>> {
    let ordinal = match which {
        Which::Cuda(ordinal) => ordinal,
        Which::Auto => match usable().first() {
            Some(device) => device.ordinal,
            None => return Ok(None),
        },
    };
    match (driver::Driver::open(ordinal), which) {
        (Ok(device), _) => Ok(Some(Rc::new(device))),
        (Err(e), Which::Cuda(_)) => Err(e),
        // A device was to be expected, so its absence is worth a line.
        (Err(e), Which::Auto) => {
            tracing::warn!("computing on the CPU: {e}");
            Ok(None)
        }
    }
}

/// A piece of a device's memory; freed with it.
#[derive(Debug)]
pub struct Memory {
    device: Rc<dyn Device>,
    at: Ptr,
    bytes: usize,
}

impl Memory {
    pub fn new(device: &Rc<dyn Device>, bytes: usize) -> Result<Self> {
        Ok(Self { device: device.clone(), at: device.alloc(bytes.max(1))?, bytes })
    }
    pub fn at(&self) -> Ptr {
        self.at
    }
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.device.free(self.at);
    }
}
