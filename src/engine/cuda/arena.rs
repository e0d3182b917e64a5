//! Memory that programs share: one piece a purpose, as large as the largest of them needs.
use crate::gpu::{Device, Memory, Ptr};
use crate::{Error, Result};
use std::rc::Rc;

#[derive(Debug)]
pub(super) struct Arena {
    /// What it holds, for errors.
    what: &'static str,
    memory: Option<Memory>,
}

impl Arena {
    pub fn new(what: &'static str) -> Self {
        Self { what, memory: None }
    }

    /// Make room for `bytes`; whether the arena moved, and lost what it held.
    pub fn fit(&mut self, device: &Rc<dyn Device>, bytes: usize) -> Result<bool> {
        if bytes <= self.bytes() {
            return Ok(false);
        }
        // Both at once may not fit.
        self.clear();
        self.memory = Some(Memory::new(device, bytes).map_err(|e| named(e, self.what))?);
        Ok(true)
    }

    pub fn clear(&mut self) {
        self.memory = None;
    }
    pub fn at(&self) -> Ptr {
        self.memory.as_ref().map_or(Ptr::NULL, Memory::at)
    }
    pub fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, Memory::bytes)
    }
}

/// An error of memory says what the memory was for.
pub(super) fn named(error: Error, what: &str) -> Error {
    match error {
        Error::Memory { wanted, free, hint, .. } => Error::Memory { place: what.into(), wanted, free, hint },
        other => other,
    }
}
