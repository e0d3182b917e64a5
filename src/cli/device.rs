//! Where a verb computes and in what: `--device`, `--dtype`, and the engine they name.
use super::doctor::proc_line;
use super::globals::Context;
use crate::engine::{Cuda, Dtype, Engine, Host};
use crate::gpu::driver::Driver;
use crate::gpu::{self, Device, discover, images};
use crate::params::Layout;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

/// A device by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Auto,
    Cpu,
    Cuda(u32),
    /// The CUDA engine on the emulator, for tests.
    #[cfg(feature = "emulator")]
    Emulated,
}

impl FromStr for Which {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            #[cfg(feature = "emulator")]
            "emulated" => Ok(Self::Emulated),
            _ => s
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| "wanted auto, cpu, cuda or cuda:N".to_string()),
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            #[cfg(feature = "emulator")]
            Self::Emulated => f.write_str("emulated"),
        }
    }
}

impl Serialize for Which {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Which {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What activations and matrices are stored and multiplied in; weights, gradients and sums are f32 in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// Activations and matrices in bf16
    Bf16,
    /// Stored as f32; products may round their factors to tf32
    Tf32,
    /// f32 throughout
    F32,
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::Tf32 => "tf32",
            Self::F32 => "f32",
        })
    }
}

impl Numbers {
    /// What a device stores.
    pub fn stored(self) -> Dtype {
        match self {
            Self::Bf16 => Dtype::Bf16,
            Self::Tf32 | Self::F32 => Dtype::F32,
        }
    }
}

/// What the engine is for, which decides in what it computes where nobody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Steps: bf16 on a CUDA device.
    Run,
    /// Numbers to look at: f32.
    Look,
}

/// A device and its numbers, settled: never [`Which::Auto`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub device: Which,
    pub dtype: Numbers,
}

impl Place {
    /// What flags and settings come to: `auto` takes a CUDA device where this build and this machine have one.
    ///
    /// # Errors
    /// [`Error::Usage`] for numbers that the device does not compute in; [`Error::Unsupported`] for one that this
    /// build lacks; [`Error::Device`] for one that this machine lacks.
    pub fn settle(device: Option<Which>, dtype: Option<Numbers>, purpose: Purpose) -> Result<Self> {
        let device = match device.unwrap_or(Which::Auto) {
            Which::Auto => gpu::usable().first().map_or(Which::Cpu, |found| Which::Cuda(found.ordinal)),
            given => given,
        };
        if matches!(device, Which::Cuda(_)) && !built() {
            let what = format!("{device}: built without the CUDA engine, which");
            return Err(Error::unsupported("--device", what, "use --device cpu, or auto"));
        }
        if let Which::Cuda(n) = device {
            // Before models and data are read, and before anything is written.
            let found = discover::devices().map_err(|why| why.error(&device.to_string()))?;
            if !found.iter().any(|d| d.ordinal == n) {
                let what = format!("not among the {} that the driver finds", found.len());
                return Err(Error::device(device.to_string(), what, "`fipk doctor` lists them"));
            }
        }
        let usual = match (device, purpose) {
            (Which::Cpu, _) | (_, Purpose::Look) => Numbers::F32,
            (_, Purpose::Run) => Numbers::Bf16,
        };
        match (device, dtype.unwrap_or(usual)) {
            (Which::Cpu, dtype @ (Numbers::Bf16 | Numbers::Tf32)) => Err(Error::usage(
                format!("--dtype {dtype}"),
                "the CPU computes in f32 alone",
                "leave --dtype out, or name a CUDA device with --device cuda",
            )),
            (device, dtype) => Ok(Self { device, dtype }),
        }
    }

    /// As the flags say, for verbs without settings.
    pub fn of(context: &Context, purpose: Purpose) -> Result<Self> {
        Self::settle(context.device, context.dtype, purpose)
    }
}

/// An engine at `place`, for vectors in `layout`.
///
/// # Errors
/// [`Error::Device`] for a device that is not there or cannot be used.
pub fn open_engine(place: Place, layout: Layout) -> Result<Box<dyn Engine>> {
    match place.device {
        Which::Auto | Which::Cpu => Ok(Box::new(Host::new(layout))),
        device => {
            let engine = Cuda::new(open_device(device)?, layout, place.dtype.stored())?;
            Ok(Box::new(engine.with_tf32(place.dtype == Numbers::Tf32)))
        }
    }
}

/// The device itself, for verbs that run kernels without an engine.
///
/// # Errors
/// [`Error::Usage`] for the CPU; [`Error::Device`] for a device that is not there or cannot be used.
pub fn open_device(device: Which) -> Result<Rc<dyn Device>> {
    match device {
        #[cfg(feature = "emulator")]
        Which::Emulated => Ok(Rc::new(crate::gpu::emulator::Emulator::default())),
        Which::Auto | Which::Cpu => Err(Error::usage(
            format!("--device {device}"),
            "the CPU runs no kernels: it is what they are held against",
            "name a CUDA device with --device cuda:N",
        )),
        Which::Cuda(n) => Ok(Rc::new(Driver::open(n)?)),
    }
}

/// Bytes that are free there, as far as can be told.
pub fn memory_of(device: Which) -> Option<usize> {
    match device {
        Which::Auto | Which::Cpu => {
            let kib: usize = proc_line("/proc/meminfo", "MemAvailable")?.split_whitespace().next()?.parse().ok()?;
            Some(kib << 10)
        }
        device => open_device(device).and_then(|d| d.memory()).ok().map(|(free, _)| free),
    }
}

/// Whether this build has the CUDA engine's kernels.
fn built() -> bool {
    images::nvcc_release().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_parse_and_print() {
        for text in ["auto", "cpu", "cuda:0", "cuda:11"] {
            assert_eq!(text.parse::<Which>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(Which::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(text.parse::<Which>().unwrap_err().contains("cuda:N"), "{text}");
        }
    }

    #[test]
    fn the_cpu_computes_in_f32_alone() {
        for purpose in [Purpose::Run, Purpose::Look] {
            let place = Place::settle(Some(Which::Cpu), None, purpose).unwrap();
            assert_eq!(place, Place { device: Which::Cpu, dtype: Numbers::F32 });
            assert_eq!(Place::settle(Some(Which::Cpu), Some(Numbers::F32), purpose).unwrap(), place);
            for dtype in [Numbers::Bf16, Numbers::Tf32] {
                let error = Place::settle(Some(Which::Cpu), Some(dtype), purpose).unwrap_err();
                assert!(error.exit_code() == 2 && error.to_string().contains("f32 alone"), "{error}");
            }
        }
    }
}
