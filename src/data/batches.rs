//! An epoch as batches: shuffled with like lengths together, or in order to evaluate; resumable at any batch.
use serde::{Deserialize, Serialize};

use super::{Batch, Dataset, EVALUATION, stream};
use crate::rng::Rng;
use crate::{Error, Result};

/// Batches whose examples are sorted by length together; more saves padding, fewer mixes better.
const WINDOW: usize = 50;

/// The next batch to be seen. Stored in checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub epoch: u64,
    pub batch: usize,
}

/// The batches of one epoch, from a cursor on. Every example comes exactly once; all batches have the same number of
/// rows, and the last one may have fewer examples.
pub struct Batches<'a> {
    data: &'a dyn Dataset,
    size: usize,
    order: Vec<usize>,
    epoch: u64,
    /// The next batch; batch i holds `order[i * size..]`, at most `size` of it.
    next: usize,
}

impl<'a> Batches<'a> {
    /// Epoch `from.epoch` in an order that is a function of (seed, epoch), from batch `from.batch` on.
    ///
    /// # Errors
    /// [`Error::Usage`] for a size of 0; [`Error::Data`] for a cursor past the end of the epoch, which is what
    /// resuming with other data looks like.
    pub fn shuffled(data: &'a dyn Dataset, size: usize, seed: u64, from: Cursor) -> Result<Self> {
        let lengths: Vec<usize> = (0..data.len()).map(|i| data.length(i)).collect();
        let mut batches = Self::new(data, size, from)?;
        batches.order = shuffle(&lengths, size, seed, from.epoch);
        Ok(batches)
    }

    /// Every example once, longest first, which wastes little padding and meets the largest shape at once; equally
    /// long ones in the data's order. [`Batch::examples`] says which they are.
    ///
    /// # Errors
    /// [`Error::Usage`] for a size of 0.
    pub fn in_order(data: &'a dyn Dataset, size: usize) -> Result<Self> {
        let mut batches = Self::new(data, size, Cursor { epoch: EVALUATION, batch: 0 })?;
        batches.order = (0..data.len()).collect();
        batches.order.sort_by_key(|&i| std::cmp::Reverse(data.length(i)));
        Ok(batches)
    }

    fn new(data: &'a dyn Dataset, size: usize, from: Cursor) -> Result<Self> {
        if size == 0 {
            return Err(Error::usage("batch size", "wanted at least 1, got 0", "choose a batch size above zero"));
        }
        let count = data.len().div_ceil(size);
        if from.batch > count {
            return Err(Error::data(
                "data cursor",
                format!("wanted one of {count} batches of {size}, got number {}", from.batch),
                "resume with the data and the batch size the run was started with",
            ));
        }
        Ok(Self { data, size, order: Vec::new(), epoch: from.epoch, next: from.batch })
    }

    /// Batch `nth` of the epoch, whatever was given before.
    ///
    /// # Errors
    /// What reading the data says; [`Error::Usage`] past the end.
    pub fn get(&self, nth: usize) -> Result<Batch> {
        let wrong = || {
            Error::usage("batch", format!("there is no batch {nth} of {}", Self::count(self)), "ask for an earlier one")
        };
        let examples = self.order.chunks(self.size).nth(nth).ok_or_else(wrong)?;
        self.data.batch(examples, self.size, self.epoch)
    }

    /// How many batches an epoch has, those before the cursor included.
    pub fn count(&self) -> usize {
        self.data.len().div_ceil(self.size)
    }

    /// Where to resume after the batches given so far; after the last one, the beginning of the next epoch.
    pub fn cursor(&self) -> Cursor {
        if self.next < self.count() {
            Cursor { epoch: self.epoch, batch: self.next }
        } else {
            Cursor { epoch: self.epoch.wrapping_add(1), batch: 0 }
        }
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        let examples = self.order.chunks(self.size).nth(self.next)?;
        self.next += 1;
        Some(self.data.batch(examples, self.size, self.epoch))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.count() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batches<'_> {}

/// Batches of epoch after epoch without end, each with the cursor behind it.
pub struct Epochs<'a> {
    batches: Batches<'a>,
    seed: u64,
}

impl<'a> Epochs<'a> {
    /// # Errors
    /// As [`Batches::shuffled`].
    pub fn new(data: &'a dyn Dataset, size: usize, seed: u64, from: Cursor) -> Result<Self> {
        Ok(Self { batches: Batches::shuffled(data, size, seed, from)?, seed })
    }
}

impl Iterator for Epochs<'_> {
    type Item = Result<(Batch, Cursor)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.batches.len() == 0 {
            let next = Cursor { epoch: self.batches.epoch.wrapping_add(1), batch: 0 };
            match Batches::shuffled(self.batches.data, self.batches.size, self.seed, next) {
                Ok(batches) => self.batches = batches,
                Err(error) => return Some(Err(error)),
            }
        }
        let batch = self.batches.next()?;
        Some(batch.map(|batch| (batch, self.batches.cursor())))
    }
}

/// All examples, shuffled, then sorted by length within windows of [`WINDOW`] batches, then the batches shuffled, so
/// that neighbours in a batch are of like length but batches come in no order. What does not fill a batch is drawn
/// before sorting, so that no length is favoured, and comes last.
fn shuffle(lengths: &[usize], size: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut rng = Rng::new(seed, stream::SHUFFLE | epoch & stream::NUMBER);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    rng.shuffle(&mut order);
    let rest = order.split_off(order.len() - order.len() % size);
    for window in order.chunks_mut(size.saturating_mul(WINDOW)) {
        window.sort_by_key(|&i| lengths[i]);
    }
    let mut batches: Vec<&[usize]> = order.chunks(size).collect();
    rng.shuffle(&mut batches);
    batches.into_iter().flatten().copied().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_example_comes_once(lengths in prop::collection::vec(1usize..60, 1..400), size in 1usize..40, seed: u64, epoch in 0u64..9) {
            let order = shuffle(&lengths, size, seed, epoch);
            prop_assert_eq!(&order, &shuffle(&lengths, size, seed, epoch));
            let mut sorted = order;
            sorted.sort_unstable();
            prop_assert!(sorted.iter().copied().eq(0..lengths.len()));
        }
    }

    #[test]
    fn epochs_follow_each_other() {
        let data = crate::data::load(&"digits:7".parse().unwrap(), "train", &Default::default()).unwrap();
        let run = |from| Epochs::new(&*data, 3, 1, from).unwrap().map(Result::unwrap);
        let whole: Vec<(Batch, Cursor)> = run(Cursor::default()).take(7).collect();
        let cursors: Vec<(u64, usize)> = whole.iter().map(|(_, at)| (at.epoch, at.batch)).collect();
        assert_eq!(cursors, [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]);
        for stop in 0..6 {
            let rest: Vec<(Batch, Cursor)> = run(whole[stop].1).take(6 - stop).collect();
            assert_eq!(rest, whole[stop + 1..]);
        }
    }

    #[test]
    fn like_lengths_share_batches_and_epochs_differ() {
        let lengths: Vec<usize> = (0..1000).map(|i| 8 + i * 37 % 120).collect();
        let padding = |order: &[usize]| -> usize {
            order
                .chunks(10)
                .map(|batch| {
                    let longest = batch.iter().map(|&i| lengths[i]).max().unwrap();
                    batch.iter().map(|&i| longest - lengths[i]).sum::<usize>()
                })
                .sum()
        };
        let order = shuffle(&lengths, 10, 1, 0);
        let unsorted: Vec<usize> = (0..1000).collect();
        assert!(padding(&order) * 10 < padding(&unsorted), "{} of {}", padding(&order), padding(&unsorted));
        assert_ne!(order, shuffle(&lengths, 10, 1, 1));
        assert_ne!(order, shuffle(&lengths, 10, 2, 0));
        // Batches come in no order of length.
        let longest: Vec<usize> = order.chunks(10).map(|batch| lengths[batch[9]]).collect();
        let rises = longest.windows(2).filter(|pair| pair[0] <= pair[1]).count();
        assert!((30..70).contains(&rises), "{rises} of 99 batches are longer than the one before");
    }
}
