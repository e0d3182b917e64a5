//! A CUDA device through its driver: one context, one stream, done in order. Not yet run on a GPU.
use super::discover::{self, Found};
use super::{Abilities, Device, Launch, Plane, Ptr, Recorded, TensorMap};
use crate::{Error, Result};
use cudarc::driver::{CudaContext, CudaGraph, CudaStream, DriverError, sys};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

mod errors;
mod modules;
mod staging;
mod tensor_map;

use modules::Modules;
use staging::Staging;

/// A device, and all that was made on it.
pub struct Driver {
    found: Found,
    // Dropped in this order: what lives in the context goes before it.
    modules: RefCell<Modules>,
    staging: RefCell<Staging>,
    graphs: RefCell<Vec<CudaGraph>>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    recording: Cell<bool>,
    /// Wait for each launch, so that its error is told by it.
    wait: bool,
    /// The kernel that was launched last: an error that comes later is likely its.
    last: RefCell<String>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Driver").field("found", &self.found).finish_non_exhaustive()
    }
}

impl Driver {
    /// The device of that number.
    ///
    /// # Errors
    /// [`Error::Device`]: why there is none, or why it cannot be used.
    pub fn open(ordinal: u32) -> Result<Self> {
        let name = format!("cuda:{ordinal}");
        let devices = discover::devices().map_err(|why| why.error(&name))?;
        let count = devices.len();
        let Some(found) = devices.into_iter().nth(ordinal as usize) else {
            let what = format!("the driver finds {count} device{}, numbered from 0", if count == 1 { "" } else { "s" });
            return Err(Error::device(name, what, "`fipk doctor` lists them"));
        };
        modules::fits(&found)?;
        let failed = |e: DriverError| Error::device(&name, discover::say(e.0), "`nvidia-smi` may say more");
        let context = CudaContext::new(ordinal as usize).map_err(failed)?;
        // SAFETY: there is one stream, so there is nothing to keep in order between streams; and events that were
        // recorded outside a capture must not be waited for within.
        unsafe { context.disable_event_tracking() };
        // Not the null stream, which cannot be captured.
        let stream = context.new_stream().map_err(failed)?;
        Ok(Self {
            found,
            modules: RefCell::default(),
            staging: RefCell::default(),
            graphs: RefCell::default(),
            stream,
            context,
            recording: Cell::new(false),
            wait: std::env::var("FIPK_CUDA_SYNC").is_ok_and(|value| value != "0"),
            last: RefCell::default(),
        })
    }

    /// The stream that everything is queued on.
    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream.cu_stream()
    }

    /// Makes the context this thread's; every call into the driver needs it.
    pub(super) fn enter(&self) -> Result<()> {
        self.answer("cuCtxSetCurrent", self.context.bind_to_thread())
    }

    /// As [`Driver::enter`], for what waits for the queue or takes memory: a recording can do neither.
    fn enter_outside_recording(&self, doing: &str) -> Result<()> {
        if self.recording.get() {
            let what = format!("{doing} while launches are recorded");
            return Err(Error::device(self.name(), what, "this is a fault of fipk's: please report it"));
        }
        self.enter()
    }

    fn name(&self) -> String {
        format!("cuda:{}", self.found.ordinal)
    }
}

impl Device for Driver {
    fn describe(&self) -> String {
        self.found.to_string()
    }

    fn multiprocessors(&self) -> u32 {
        self.found.multiprocessors
    }
    fn abilities(&self) -> Abilities {
        Abilities::new(self.found.capability, super::images::archs())
    }

    fn memory(&self) -> Result<(usize, usize)> {
        self.enter()?;
        self.answer("cuMemGetInfo", self.context.mem_get_info())
    }

    fn alloc(&self, bytes: usize) -> Result<Ptr> {
        self.enter_outside_recording("memory asked for")?;
        let mut at = 0;
        // SAFETY: the context is current; the function writes one address, of memory that `free` gives back.
        let answer = unsafe { sys::cuMemAlloc_v2(&mut at, bytes.max(1)) };
        if answer == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let free = self.memory().map_or(0, |(free, _)| free);
            let hint = "`fipk plan` says what a run needs: try a smaller batch, or --dtype bf16";
            return Err(Error::Memory { place: self.name(), wanted: bytes, free, hint: hint.into() });
        }
        self.answer("cuMemAlloc", answer.result())?;
        Ok(Ptr(at))
    }

    fn free(&self, at: Ptr) {
        if self.enter().is_ok() && !at.is_null() {
            // SAFETY: `at` came from `alloc` and is freed once, by `Memory`; the driver waits for what still uses it.
            // Where it fails the context is lost, and its memory with it.
            let _ = unsafe { sys::cuMemFree_v2(at.0) };
        }
    }

    fn upload(&self, to: Ptr, data: &[u8]) -> Result<()> {
        self.enter_outside_recording("an upload")?;
        self.staging.borrow_mut().upload(self, to, data)
    }

    fn download(&self, from: Ptr, data: &mut [u8]) -> Result<()> {
        self.enter_outside_recording("a download")?;
        self.staging.borrow_mut().download(self, from, data)
    }

    fn copy(&self, to: Ptr, from: Ptr, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: both are the caller's memory of this device, which lives until the stream has come here: `free` waits.
        let answer = unsafe { sys::cuMemcpyDtoDAsync_v2(to.0, from.0, bytes, self.stream()) };
        self.answer("cuMemcpyDtoDAsync", answer.result())
    }

    fn fill(&self, to: Ptr, word: u32, words: usize) -> Result<()> {
        if words == 0 {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: as in `copy`.
        let answer = unsafe { sys::cuMemsetD32Async(to.0, word, words, self.stream()) };
        self.answer("cuMemsetD32Async", answer.result())
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        self.enter()?;
        let function = self.modules.borrow_mut().function(self, launch)?;
        let mut args = launch.args.as_ptr().cast_mut().cast::<std::ffi::c_void>();
        let ([x, y, z], stream) = (launch.grid, self.stream());
        // SAFETY: the kernel takes one struct by value, whose size `function` compared with that of `args`; the driver
        // copies it before it returns. That the addresses in it are good is the op's to see to.
        let answer = unsafe {
            sys::cuLaunchKernel(
                function,
                x,
                y,
                z,
                launch.threads,
                1,
                1,
                launch.shared,
                stream,
                &mut args,
                std::ptr::null_mut(),
            )
        };
        if answer != sys::CUresult::CUDA_SUCCESS {
            let Launch { kernel, grid, threads, shared, .. } = launch;
            let how = format!("{kernel} on a grid of {grid:?}, {threads} threads, {shared} bytes of shared memory");
            return self.answer(&how, answer.result());
        }
        let mut last = self.last.borrow_mut();
        last.clear();
        last.push_str(launch.kernel);
        drop(last);
        if self.wait && !self.recording.get() { self.synchronize() } else { Ok(()) }
    }

    fn synchronize(&self) -> Result<()> {
        self.enter_outside_recording("a wait for the queue")?;
        self.answer("cuStreamSynchronize", self.stream.synchronize())
    }

    fn tensor_map(&self, plane: &Plane) -> Result<TensorMap> {
        self.encode(plane)
    }

    fn record(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<Recorded> {
        self.enter_outside_recording("another recording")?;
        // Of this thread alone: what others do with the driver is not ours to refuse.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.answer("cuStreamBeginCapture", self.stream.begin_capture(mode))?;
        self.recording.set(true);
        let done = body();
        self.recording.set(false);
        // Ends the capture in any case; the stream would stay in it.
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0));
        done?;
        let Some(graph) = self.answer("cuStreamEndCapture", graph)? else {
            return Err(Error::device(self.name(), "recorded nothing", "this is a fault of fipk's: please report it"));
        };
        self.answer("cuGraphUpload", graph.upload())?;
        let mut graphs = self.graphs.borrow_mut();
        graphs.push(graph);
        Ok(Recorded(graphs.len() - 1))
    }

    fn replay(&self, recorded: Recorded) -> Result<()> {
        self.enter_outside_recording("a replay")?;
        let graphs = self.graphs.borrow();
        let Some(graph) = graphs.get(recorded.0) else {
            let what = format!("recording {} of {}", recorded.0, graphs.len());
            return Err(Error::device(self.name(), what, "replay what this device recorded"));
        };
        self.answer("cuGraphLaunch", graph.launch())?;
        self.last.replace(format!("recording {}", recorded.0));
        if self.wait { self.synchronize() } else { Ok(()) }
    }

    fn time(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        self.enter_outside_recording("a measurement")?;
        let mark = || self.stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT));
        let start = self.answer("cuEventRecord", mark())?;
        body()?;
        let end = self.answer("cuEventRecord", mark())?;
        let milliseconds = self.answer("cuEventElapsedTime", start.elapsed_ms(&end))?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Modules and staging free what they hold as they are dropped, which wants the context to be current and idle.
        let _ = self.enter();
        let _ = self.stream.synchronize();
    }
}
