//! A device of plain memory and no kernels: each allocation has its own bounds, and nothing else is readable.
use fipk::error::{Error, Result};
use fipk::gpu::{Device, Launch, Ptr, Recorded};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Ram {
    pieces: RefCell<BTreeMap<u64, Vec<u8>>>,
    next: Cell<u64>,
}

fn bad(what: String) -> Error {
    Error::device("ram", what, "stay inside")
}

impl Ram {
    fn with<T>(&self, at: Ptr, bytes: usize, f: impl FnOnce(&mut [u8]) -> T) -> Result<T> {
        let mut pieces = self.pieces.borrow_mut();
        let piece = pieces.range_mut(..=at.0).next_back();
        let (start, piece) = piece.ok_or_else(|| bad(format!("{:#x} is no memory", at.0)))?;
        let from = (at.0 - start) as usize;
        let len = piece.len();
        let part = piece.get_mut(from..from + bytes);
        Ok(f(part.ok_or_else(|| bad(format!("bytes {from} to {} of {len}", from + bytes)))?))
    }
}

impl Device for Ram {
    fn describe(&self) -> String {
        "plain memory".into()
    }
    fn multiprocessors(&self) -> u32 {
        2
    }
    fn memory(&self) -> Result<(usize, usize)> {
        Ok((1 << 30, 1 << 30))
    }
    fn alloc(&self, bytes: usize) -> Result<Ptr> {
        let at = self.next.get() + 4096;
        self.next.set((at + bytes as u64).next_multiple_of(256));
        self.pieces.borrow_mut().insert(at, vec![0xff; bytes]);
        Ok(Ptr(at))
    }
    fn free(&self, at: Ptr) {
        self.pieces.borrow_mut().remove(&at.0);
    }
    fn upload(&self, to: Ptr, data: &[u8]) -> Result<()> {
        self.with(to, data.len(), |to| to.copy_from_slice(data))
    }
    fn download(&self, from: Ptr, data: &mut [u8]) -> Result<()> {
        self.with(from, data.len(), |from| data.copy_from_slice(from))
    }
    fn copy(&self, to: Ptr, from: Ptr, bytes: usize) -> Result<()> {
        let data = self.with(from, bytes, |from| from.to_vec())?;
        self.upload(to, &data)
    }
    fn fill(&self, to: Ptr, word: u32, words: usize) -> Result<()> {
        self.with(to, 4 * words, |to| to.chunks_mut(4).for_each(|to| to.copy_from_slice(&word.to_le_bytes())))
    }
    fn launch(&self, launch: &Launch) -> Result<()> {
        Err(bad(format!("no kernel {}", launch.kernel)))
    }
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    fn record(&self, _: &mut dyn FnMut() -> Result<()>) -> Result<Recorded> {
        Err(bad("nothing is recorded".into()))
    }
    fn replay(&self, _: Recorded) -> Result<()> {
        Err(bad("nothing is recorded".into()))
    }
    fn time(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let clock = std::time::Instant::now();
        body()?;
        Ok(clock.elapsed().as_secs_f64())
    }
}
