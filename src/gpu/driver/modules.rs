//! Kernels by name: their images are loaded as they are first asked for.
use super::super::discover::{Found, say};
use super::super::{Launch, images};
use super::Driver;
use crate::{Error, Result};
use cudarc::driver::sys;
use std::collections::HashMap;
use std::ffi::CString;

/// Whether this build has kernels that the device runs.
pub(super) fn fits(device: &Found) -> Result<()> {
    let name = format!("cuda:{}", device.ordinal);
    let (major, minor) = device.capability;
    match images::nvcc_release() {
        None => Err(Error::device(
            name,
            "this fipk was built without CUDA kernels",
            "build it with nvcc at hand (docs/cuda.md), or use --device cpu",
        )),
        Some(_) if !images::run_on(images::archs(), device.capability) => Err(Error::device(
            name,
            format!("compute capability {major}.{minor}; this build has kernels for {}", images::archs()),
            format!("build with FIPK_CUDA_ARCHS={major}{minor} (80 or later), or use --device cpu"),
        )),
        Some(_) => Ok(()),
    }
}

/// What is loaded.
#[derive(Default)]
pub(super) struct Modules {
    /// By the image's index.
    loaded: HashMap<usize, sys::CUmodule>,
    functions: HashMap<String, Function>,
}

#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    /// Bytes of its argument struct.
    takes: usize,
    /// Threads of a block at most, as its definition names them.
    threads: u32,
    /// Dynamic shared memory that it was allowed so far.
    shared: u32,
}

impl Modules {
    /// The launch's kernel, ready for the launch: its arguments' size agrees and it may use its shared memory.
    pub(super) fn function(&mut self, driver: &Driver, launch: &Launch) -> Result<sys::CUfunction> {
        let kernel = launch.kernel;
        let (mut function, mut changed) = match self.functions.get(kernel) {
            Some(function) => (*function, false),
            None => (relaxed(driver, || self.look_up(driver, kernel))?, true),
        };
        let refuse = |what: String| {
            let hint = "this is a fault of fipk's: please report it";
            Err(Error::device(driver.name(), format!("{kernel}: {what}"), hint))
        };
        if launch.args.len() != function.takes {
            return refuse(format!("wanted {} bytes of arguments, got {}", function.takes, launch.args.len()));
        }
        if !(1..=function.threads).contains(&launch.threads) {
            return refuse(format!("wanted 1 to {} threads a block, got {}", function.threads, launch.threads));
        }
        if launch.shared > function.shared {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(launch.shared).unwrap_or(i32::MAX);
            // SAFETY: the function is one that this context gave.
            let answer = unsafe { sys::cuFuncSetAttribute(function.handle, attribute, bytes) };
            driver.answer(&format!("{kernel} with {bytes} bytes of shared memory"), answer.result())?;
            (function.shared, changed) = (launch.shared, true);
        }
        if changed {
            self.functions.insert(kernel.to_string(), function);
        }
        Ok(function.handle)
    }

    fn look_up(&mut self, driver: &Driver, kernel: &str) -> Result<Function> {
        let missing = || {
            let hint = "`fipk doctor` says what this build carries";
            Error::device(driver.name(), format!("this build has no kernel {kernel}"), hint)
        };
        let image = images::image_of(kernel).ok_or_else(missing)?;
        let name = CString::new(kernel).map_err(|_| missing())?;
        let module = self.module(driver, image)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the module is loaded; the name ends in zero; one handle is written.
        let answer = unsafe { sys::cuModuleGetFunction(&mut handle, module, name.as_ptr()) };
        driver.answer(kernel, answer.result())?;
        // SAFETY: a handle of this context. Loaded now, and not lazily by a launch that may be recorded.
        driver.answer(kernel, unsafe { sys::cuFuncLoad(handle) }.result())?;
        let (mut offset, mut takes, mut threads) = (0, 0, 0);
        // SAFETY: as above; two numbers are written.
        let answer = unsafe { sys::cuFuncGetParamInfo(handle, 0, &mut offset, &mut takes) };
        driver.answer(kernel, answer.result())?;
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
        // SAFETY: as above; one number is written.
        let answer = unsafe { sys::cuFuncGetAttribute(&mut threads, attribute, handle) };
        driver.answer(kernel, answer.result())?;
        Ok(Function { handle, takes, threads: threads.max(0) as u32, shared: 0 })
    }

    fn module(&mut self, driver: &Driver, image: usize) -> Result<sys::CUmodule> {
        if let Some(module) = self.loaded.get(&image) {
            return Ok(*module);
        }
        let (file, bytes) = images::IMAGES[image];
        let mut module = std::ptr::null_mut();
        // What the driver's compiler of PTX says.
        let mut log = vec![0u8; 8192];
        let mut options =
            [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(log.len())];
        let (count, options, values) = (options.len() as u32, options.as_mut_ptr(), values.as_mut_ptr());
        // SAFETY: the image is a fat binary by nvcc, aligned and for ever; as many options as values, the log's length
        // being given as the option wants it, in the pointer.
        let answer = unsafe { sys::cuModuleLoadDataEx(&mut module, bytes.as_ptr().cast(), count, options, values) };
        if answer != sys::CUresult::CUDA_SUCCESS {
            let text = String::from_utf8_lossy(&log).trim_matches(['\0', '\n', ' ']).replace('\n', ", ");
            let call = if text.is_empty() { format!("the kernels of {file}.cu") } else { format!("{file}.cu: {text}") };
            return driver.answer(&call, answer.result()).map(|()| module);
        }
        self.loaded.insert(image, module);
        Ok(module)
    }
}

/// Loading may allocate, which a recording refuses unless it is told that this is meant.
fn relaxed<T>(driver: &Driver, load: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    // SAFETY: swaps this thread's mode with the one it is given.
    driver.answer("capture", unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }.result())?;
    let loaded = load();
    // SAFETY: as above, with the mode that was there before.
    driver.answer("capture", unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }.result())?;
    loaded
}

impl Drop for Modules {
    fn drop(&mut self) {
        for module in self.loaded.values() {
            // SAFETY: loaded here, unloaded once; the driver's drop made its context current and waited for the queue.
            let answer = unsafe { sys::cuModuleUnload(*module) };
            if answer != sys::CUresult::CUDA_SUCCESS {
                tracing::debug!("cuModuleUnload: {}", say(answer));
            }
        }
    }
}
