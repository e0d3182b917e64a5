//! Copies between the host and the device through pinned memory: two buffers, so that one is filled while the other is
//! on its way.
use super::{Driver, Ptr};
use crate::Result;
use cudarc::driver::{CudaEvent, sys};

/// The most that one buffer holds; larger data go in pieces.
const MOST: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Staging {
    buffers: [Option<Buffer>; 2],
    next: usize,
}

/// Host memory that the device reads and writes by itself.
struct Buffer {
    at: *mut u8,
    bytes: usize,
    /// After the last copy from or to it.
    done: CudaEvent,
}

impl Staging {
    /// Returns as soon as `data` was read; the device has it when its queue comes to it.
    pub(super) fn upload(&mut self, driver: &Driver, to: Ptr, data: &[u8]) -> Result<()> {
        for (i, piece) in data.chunks(MOST).enumerate() {
            let buffer = self.take(driver, piece.len())?;
            buffer.bytes_mut(piece.len()).copy_from_slice(piece);
            let to = to.offset(i * MOST);
            // SAFETY: the buffer is pinned and kept until its event says that the copy is done; `to` is the caller's.
            let answer = unsafe { sys::cuMemcpyHtoDAsync_v2(to.0, buffer.at.cast(), piece.len(), driver.stream()) };
            driver.answer("cuMemcpyHtoDAsync", answer.result())?;
            driver.answer("cuEventRecord", buffer.done.record(&driver.stream))?;
        }
        Ok(())
    }

    pub(super) fn download(&mut self, driver: &Driver, from: Ptr, data: &mut [u8]) -> Result<()> {
        let lengths: Vec<usize> = data.chunks(MOST).map(<[u8]>::len).collect();
        let mut pieces = data.chunks_mut(MOST);
        // One ahead of what is read out.
        let mut under_way = None;
        for (i, length) in lengths.into_iter().enumerate() {
            let buffer = self.take(driver, length)?;
            let from = from.offset(i * MOST);
            // SAFETY: as in `upload`, the other way round.
            let answer = unsafe { sys::cuMemcpyDtoHAsync_v2(buffer.at.cast(), from.0, length, driver.stream()) };
            driver.answer("cuMemcpyDtoHAsync", answer.result())?;
            driver.answer("cuEventRecord", buffer.done.record(&driver.stream))?;
            if let Some(before) = under_way.replace(self.next ^ 1) {
                self.read_out(driver, before, pieces.next())?;
            }
        }
        match under_way {
            Some(last) => self.read_out(driver, last, pieces.next()),
            None => Ok(()),
        }
    }

    fn read_out(&mut self, driver: &Driver, which: usize, to: Option<&mut [u8]>) -> Result<()> {
        if let (Some(buffer), Some(to)) = (&mut self.buffers[which], to) {
            driver.answer("a download", buffer.done.synchronize())?;
            to.copy_from_slice(buffer.bytes_mut(to.len()));
        }
        Ok(())
    }

    /// The buffer whose turn it is, with room for `bytes`, its last copy done.
    fn take(&mut self, driver: &Driver, bytes: usize) -> Result<&mut Buffer> {
        let which = self.next;
        self.next ^= 1;
        let slot = &mut self.buffers[which];
        if let Some(buffer) = slot {
            driver.answer("a copy", buffer.done.synchronize())?;
        }
        if slot.as_ref().is_none_or(|buffer| buffer.bytes < bytes) {
            // The old one goes first, so that there is room.
            *slot = None;
            let bytes = bytes.next_power_of_two().clamp(64 << 10, MOST);
            let done = driver.answer("cuEventCreate", driver.context.new_event(None))?;
            let mut at = std::ptr::null_mut();
            // SAFETY: the context is current; one address is written, of memory that `drop` frees. No flags: memory that
            // the host reads fast.
            let answer = unsafe { sys::cuMemHostAlloc(&mut at, bytes, 0) };
            driver.answer("cuMemHostAlloc", answer.result())?;
            // SAFETY: the driver gave `bytes` of it; Rust wants it to be written once before it is read.
            unsafe { at.cast::<u8>().write_bytes(0, bytes) };
            *slot = Some(Buffer { at: at.cast(), bytes, done });
        }
        slot.as_mut().ok_or_else(|| crate::Error::device(driver.name(), "no pinned memory", "report this"))
    }
}

impl Buffer {
    fn bytes_mut(&mut self, bytes: usize) -> &mut [u8] {
        // SAFETY: `self.bytes` long and written since it was made; the caller waited for the device's copy.
        unsafe { std::slice::from_raw_parts_mut(self.at, bytes.min(self.bytes)) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `take`, freed once; whoever drops it waited for its copies.
        let _ = unsafe { sys::cuMemFreeHost(self.at.cast()) };
    }
}
