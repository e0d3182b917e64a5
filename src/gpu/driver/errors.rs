//! The driver's answers as errors that name the kernel to suspect.
use super::super::discover::say;
use super::Driver;
use crate::{Error, Result};
use cudarc::driver::{DriverError, sys::CUresult as Code};

impl Driver {
    /// The driver's answer to `call`. After some of them the context refuses everything, whatever the call: they come of
    /// a kernel that was launched earlier, so the last one is named.
    pub(in crate::gpu) fn answer<T>(&self, call: &str, answer: std::result::Result<T, DriverError>) -> Result<T> {
        let DriverError(code) = match answer {
            Ok(value) => return Ok(value),
            Err(e) => e,
        };
        let mut what = format!("{call}: {}", say(code));
        let last = self.last.borrow();
        if !last.is_empty() {
            what += &format!("; the last launch was {last}");
        }
        Err(Error::device(self.name(), what, hint(code, self.wait)))
    }
}

fn hint(code: Code, waited: bool) -> &'static str {
    match code {
        Code::CUDA_ERROR_ILLEGAL_ADDRESS
        | Code::CUDA_ERROR_MISALIGNED_ADDRESS
        | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | Code::CUDA_ERROR_INVALID_PC
        | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
        | Code::CUDA_ERROR_ASSERT
        | Code::CUDA_ERROR_LAUNCH_FAILED
            if !waited =>
        {
            "the device cannot be used any more in this process; FIPK_CUDA_SYNC=1 names the kernel that failed"
        }
        Code::CUDA_ERROR_ILLEGAL_ADDRESS | Code::CUDA_ERROR_MISALIGNED_ADDRESS | Code::CUDA_ERROR_LAUNCH_FAILED => {
            "a kernel of fipk's is at fault: please report it with the output of `fipk doctor` and `fipk selftest`"
        }
        Code::CUDA_ERROR_NO_BINARY_FOR_GPU
        | Code::CUDA_ERROR_INVALID_IMAGE
        | Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | Code::CUDA_ERROR_JIT_COMPILER_NOT_FOUND => {
            "build with FIPK_CUDA_ARCHS for this device, as `fipk doctor` shows it"
        }
        Code::CUDA_ERROR_OUT_OF_MEMORY => "try a smaller batch, or free the device of other processes",
        Code::CUDA_ERROR_LAUNCH_TIMEOUT => "the display's watchdog stopped a kernel: use a device without a display",
        Code::CUDA_ERROR_ECC_UNCORRECTABLE => "the device's memory is at fault: reset the device",
        Code::CUDA_ERROR_DEVICE_UNAVAILABLE => "another process holds the device for itself alone",
        _ => "`fipk selftest` checks every kernel on this device",
    }
}
