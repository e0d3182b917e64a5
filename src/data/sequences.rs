//! Token sequences of different lengths, stored end to end, and how they are padded into a batch.
use super::{Input, Values};

/// Batches are this many tokens long or a multiple of it, so that few shapes are compiled.
const STEP: usize = 8;

/// Encoded texts: ids, and token types where the model has them.
pub struct Sequences {
    ids: Vec<u32>,
    /// One a token, or empty: models without `token_type_ids`.
    types: Vec<u8>,
    /// Sequence i is `starts[i]..starts[i + 1]`.
    starts: Vec<usize>,
    pad: u32,
    max_length: usize,
    with_types: bool,
}

impl Sequences {
    pub(super) fn new(pad: u32, max_length: usize, with_types: bool) -> Self {
        Self { ids: Vec::new(), types: Vec::new(), starts: vec![0], pad, max_length, with_types }
    }

    /// `types` is as long as `ids`, or empty when the model has none.
    pub(super) fn push(&mut self, ids: &[u32], types: &[u32]) {
        self.ids.extend_from_slice(ids);
        if self.with_types {
            self.types.extend(types.iter().map(|&kind| kind as u8));
            self.types.resize(self.ids.len(), 0);
        }
        self.starts.push(self.ids.len());
    }

    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of sequence `i`, special ones included.
    pub fn length(&self, i: usize) -> usize {
        self.starts[i + 1] - self.starts[i]
    }

    pub fn ids(&self, i: usize) -> &[u32] {
        &self.ids[self.starts[i]..self.starts[i + 1]]
    }

    /// Token types of sequence `i`; empty when there are none.
    pub fn types(&self, i: usize) -> &[u8] {
        if self.with_types { &self.types[self.starts[i]..self.starts[i + 1]] } else { &[] }
    }

    /// The largest id of all, 0 when there is none.
    pub fn largest_id(&self) -> u32 {
        self.ids.iter().copied().max().unwrap_or(0)
    }

    /// The width a batch of `examples` is padded to: its longest sequence, rounded up to a multiple of 8, at most the
    /// maximum length.
    pub fn width(&self, examples: &[usize]) -> usize {
        let longest = examples.iter().map(|&i| self.length(i)).max().unwrap_or(0).max(1);
        longest.next_multiple_of(STEP).min(self.max_length.max(longest))
    }

    /// `input_ids`, `attention_mask` and, where the model has them, `token_type_ids`: `[rows, width]` each. Rows end
    /// in padding with mask 0; rows past `examples` are all zeros.
    pub fn inputs(&self, examples: &[usize], rows: usize) -> Vec<Input> {
        let width = self.width(examples);
        let mut ids = vec![0i32; rows * width];
        let mut mask = vec![0i32; rows * width];
        let mut types = vec![0i32; if self.with_types { rows * width } else { 0 }];
        for (row, &example) in examples.iter().enumerate() {
            let (from, tokens) = (row * width, self.ids(example));
            let (text, padding) = ids[from..from + width].split_at_mut(tokens.len());
            text.iter_mut().zip(tokens).for_each(|(to, &id)| *to = id as i32);
            padding.fill(self.pad as i32);
            mask[from..from + tokens.len()].fill(1);
            types.iter_mut().skip(from).zip(self.types(example)).for_each(|(to, &kind)| *to = i32::from(kind));
        }
        let input = |name, values| Input { name, shape: vec![rows, width], values: Values::Index(values) };
        let mut inputs = vec![input("input_ids", ids), input("attention_mask", mask)];
        if self.with_types {
            inputs.push(input("token_type_ids", types));
        }
        inputs
    }

    /// Everything a network could see, for a fingerprint.
    pub(super) fn digest(&self, hash: &mut super::Fingerprint) {
        hash.numbers([u64::from(self.pad), self.max_length as u64, u64::from(self.with_types)]);
        hash.numbers(self.starts.iter().map(|&start| start as u64));
        hash.numbers(self.ids.iter().map(|&id| u64::from(id)));
        hash.bytes(&self.types);
    }
}
