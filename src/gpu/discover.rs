//! Which CUDA devices this machine has, or why none can be used. Never panics: cudarc does where a library or a symbol
//! is missing, so everything that it will call is looked for here first.
use super::images;
use crate::Error;
use cudarc::driver::sys;
use std::sync::OnceLock;

/// The first driver that has every function called here.
const LEAST_DRIVER: i32 = 12080;

/// A device, as the driver tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub ordinal: u32,
    pub name: String,
    /// Compute capability: (9, 0) for H100 and H200.
    pub capability: (u32, u32),
    /// Bytes.
    pub memory: usize,
    pub multiprocessors: u32,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { ordinal, name, capability: (major, minor), memory, multiprocessors } = self;
        let gib = *memory as f64 / (1u64 << 30) as f64;
        write!(f, "cuda:{ordinal} {name}, compute capability {major}.{minor}, {multiprocessors} SMs, {gib:.1} GiB")
    }
}

/// Why there is no CUDA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// There is no libcuda.
    NoLibrary,
    /// libcuda is the toolkit's, made for linking alone.
    Stub,
    /// Versions as the driver counts them: 12040 is 12.4.
    TooOld {
        found: i32,
        needed: i32,
    },
    /// libcuda lacks a function that its version should have.
    Incomplete {
        missing: &'static str,
    },
    NoDevice,
    /// What the driver answered to which call.
    Failed {
        call: &'static str,
        answer: String,
    },
}

impl Unusable {
    /// In one line.
    pub fn what(&self) -> String {
        let version = |v: &i32| format!("{}.{}", v / 1000, v % 1000 / 10);
        match self {
            Self::NoLibrary => "no NVIDIA driver: libcuda.so.1 is nowhere to be found".into(),
            Self::Stub => "libcuda is the CUDA toolkit's stub, which is no driver".into(),
            Self::TooOld { found, needed } => {
                format!("the driver serves CUDA {} at most; wanted {} or later", version(found), version(needed))
            }
            Self::Incomplete { missing } => format!("libcuda lacks {missing}"),
            Self::NoDevice => "the driver finds no device".into(),
            Self::Failed { call, answer } => format!("the driver answers {call} with {answer}"),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoLibrary => "install NVIDIA's driver; if there is one, add its folder to LD_LIBRARY_PATH; \
                                start a container with its GPUs, as in docker run --gpus all"
                .into(),
            Self::Stub => "take the toolkit's folder `stubs` out of LD_LIBRARY_PATH".into(),
            Self::TooOld { .. } => "update the driver, or build with an nvcc of the driver's major release".into(),
            Self::Incomplete { .. } => "reinstall the driver".into(),
            Self::NoDevice => match std::env::var("CUDA_VISIBLE_DEVICES") {
                Ok(set) => format!("CUDA_VISIBLE_DEVICES is '{set}': it may hide them"),
                Err(_) => "`nvidia-smi -L` should list one".into(),
            },
            Self::Failed { answer, .. } if answer.contains("SYSTEM_DRIVER_MISMATCH") => {
                "the library and the kernel's module are of different drivers: reboot, or reload the module".into()
            }
            Self::Failed { answer, .. } if answer.contains("SYSTEM_NOT_READY") => {
                "start NVIDIA's fabric manager".into()
            }
            Self::Failed { .. } => "`nvidia-smi` may say more".into(),
        }
    }

    pub fn error(&self, device: &str) -> Error {
        Error::device(device, self.what(), self.hint())
    }
}

/// The driver's version that this build's kernels need: that of their nvcc's major release.
pub fn needed() -> i32 {
    let major = images::nvcc_release().and_then(|release| release.split('.').next()?.parse::<i32>().ok());
    major.map_or(LEAST_DRIVER, |major| LEAST_DRIVER.max(1000 * major))
}

/// The driver's version.
///
/// # Errors
/// Why it cannot be asked.
pub fn version() -> Result<i32, Unusable> {
    if !loaded() {
        return Err(Unusable::NoLibrary);
    }
    lacks(&["cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuGetErrorString"])?;
    let mut version = 0;
    // SAFETY: the library has the function, which writes one number.
    answered("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) })?;
    Ok(version)
}

/// The devices, at least one.
///
/// # Errors
/// Why there is none.
pub fn devices() -> Result<Vec<Found>, Unusable> {
    let (found, needed) = (version()?, needed());
    if found < needed {
        return Err(Unusable::TooOld { found, needed });
    }
    // SAFETY: `version` found the function; it takes no pointers and may be called again at any time.
    answered("cuInit", unsafe { sys::cuInit(0) })?;
    lacks(CALLED)?;
    let mut count = 0;
    // SAFETY: the driver is initialised; the function writes one number.
    answered("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&mut count) })?;
    if count < 1 {
        return Err(Unusable::NoDevice);
    }
    (0..count).map(device).collect()
}

fn device(ordinal: i32) -> Result<Found, Unusable> {
    use sys::CUdevice_attribute as Attribute;
    let mut device = 0;
    // SAFETY: the driver is initialised; the function writes one number.
    answered("cuDeviceGet", unsafe { sys::cuDeviceGet(&mut device, ordinal) })?;
    let attribute = |which| {
        let mut value = 0;
        // SAFETY: as above, of a device that the driver gave.
        answered("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&mut value, which, device) })?;
        Ok(value.max(0) as u32)
    };
    let mut name = [0u8; 256];
    // SAFETY: as above; writes a string that ends within the bytes it is given.
    answered("cuDeviceGetName", unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), 256, device) })?;
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    let mut memory = 0;
    // SAFETY: as above; writes one number.
    answered("cuDeviceTotalMem", unsafe { sys::cuDeviceTotalMem_v2(&mut memory, device) })?;
    Ok(Found {
        ordinal: ordinal as u32,
        name: String::from_utf8_lossy(&name[..end]).into_owned(),
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        memory,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
    })
}

fn answered(call: &'static str, answer: sys::CUresult) -> Result<(), Unusable> {
    match answer {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        sys::CUresult::CUDA_ERROR_STUB_LIBRARY => Err(Unusable::Stub),
        sys::CUresult::CUDA_ERROR_NO_DEVICE => Err(Unusable::NoDevice),
        _ => Err(Unusable::Failed { call, answer: say(answer) }),
    }
}

/// An answer of the driver in words: `CUDA_ERROR_ILLEGAL_ADDRESS, an illegal memory access was encountered`.
pub(super) fn say(answer: sys::CUresult) -> String {
    let mut text = std::ptr::null();
    // SAFETY: `version` found the function; it writes the address of a string that is never freed.
    let known = unsafe { sys::cuGetErrorString(answer, &mut text) } == sys::CUresult::CUDA_SUCCESS;
    if !known || text.is_null() {
        return format!("{answer:?}");
    }
    // SAFETY: the driver gave a string that ends in zero.
    format!("{answer:?}, {}", unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy())
}

/// Whether libcuda can be loaded, by its name or from where drivers put it.
fn loaded() -> bool {
    static LOADED: OnceLock<bool> = OnceLock::new();
    // SAFETY: loading the driver's library runs its initialisers, which is what they are for.
    let by_name = || unsafe { sys::is_culib_present() };
    // Containers, WSL and NixOS leave these out of the loader's path. What is loaded is then found by its name.
    let folders = [
        "/usr/local/nvidia/lib64",
        "/usr/local/nvidia/lib",
        "/usr/lib/wsl/lib",
        "/run/opengl-driver/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
    ];
    let by_path = |folder: &&str| {
        // SAFETY: as above.
        let library = unsafe { libloading::Library::new(format!("{folder}/libcuda.so.1")) };
        library.map(std::mem::forget).is_ok()
    };
    *LOADED.get_or_init(|| by_name() || (folders.iter().any(by_path) && by_name()))
}

/// An error for the first function that the library does not have.
fn lacks(names: &[&'static str]) -> Result<(), Unusable> {
    // SAFETY: `loaded` was true, so this does not panic; the symbols are looked at, not called.
    let has = |name: &str| unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()).is_ok() };
    match names.iter().find(|name| !has(name)) {
        Some(missing) => Err(Unusable::Incomplete { missing }),
        None => Ok(()),
    }
}

/// Every function of the driver that fipk or cudarc on its behalf calls.
const CALLED: &[&str] = &[
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetAttribute",
    "cuFuncGetParamInfo",
    "cuFuncLoad",
    "cuFuncSetAttribute",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphUpload",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD32Async",
    "cuModuleGetFunction",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
    "cuTensorMapEncodeTiled",
    "cuThreadExchangeStreamCaptureMode",
];
