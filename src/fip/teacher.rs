//! The dense network's logits, computed once an example and kept across epochs.
use crate::data::Batch;

/// Logits by example. What an example's logits are is decided by the first batch it came in, and a checkpoint
/// stores them: recomputed in another batch they could differ in their last bits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Teacher {
    pub outputs: usize,
    /// [examples, outputs]
    pub logits: Vec<f32>,
    pub known: Vec<bool>,
}

impl Teacher {
    pub fn new(examples: usize, outputs: usize) -> Self {
        Self { outputs, logits: vec![0.0; examples * outputs], known: vec![false; examples] }
    }

    /// The logits of a batch, padded rows zero; `None` unless all of its examples are known.
    pub fn get(&self, batch: &Batch) -> Option<Vec<f32>> {
        let mut z = vec![0.0; batch.rows * self.outputs];
        for (row, &i) in z.chunks_mut(self.outputs).zip(&batch.examples) {
            if !self.known[i] {
                return None;
            }
            row.copy_from_slice(&self.logits[i * self.outputs..][..self.outputs]);
        }
        Some(z)
    }

    /// Keep the logits of a batch's examples that are not known yet.
    pub fn put(&mut self, batch: &Batch, z: &[f32]) {
        for (row, &i) in z.chunks(self.outputs).zip(&batch.examples) {
            if !std::mem::replace(&mut self.known[i], true) {
                self.logits[i * self.outputs..][..self.outputs].copy_from_slice(row);
            }
        }
    }
}
