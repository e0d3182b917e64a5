//! Held-out data in two halves: one to choose by, one that had no part in the choice.
use super::STREAM;
use crate::Result;
use crate::data::{Batch, Dataset, Task};
use crate::rng::Rng;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Choice,
    Certificate,
}

/// Half of a data set's examples, drawn by a seed: the two parts have none in common, and all together.
pub struct Half<'a> {
    data: &'a dyn Dataset,
    kept: Vec<usize>,
}

impl<'a> Half<'a> {
    /// The part for the certificate is the larger one where the number is odd.
    pub fn new(data: &'a dyn Dataset, part: Part, seed: u64) -> Self {
        let mut all: Vec<usize> = (0..data.len()).collect();
        Rng::new(seed, STREAM + 1).shuffle(&mut all);
        let mut kept = match part {
            Part::Choice => all[..data.len() / 2].to_vec(),
            Part::Certificate => all[data.len() / 2..].to_vec(),
        };
        kept.sort_unstable();
        Self { data, kept }
    }
}

impl Dataset for Half<'_> {
    fn len(&self) -> usize {
        self.kept.len()
    }
    fn task(&self) -> &Task {
        self.data.task()
    }
    fn length(&self, example: usize) -> usize {
        self.data.length(self.kept[example])
    }
    fn batch(&self, examples: &[usize], rows: usize, epoch: u64) -> Result<Batch> {
        let theirs: Vec<usize> = examples.iter().map(|&i| self.kept[i]).collect();
        Ok(Batch { examples: examples.to_vec(), ..self.data.batch(&theirs, rows, epoch)? })
    }
    fn changes_with_epoch(&self) -> bool {
        self.data.changes_with_epoch()
    }
    fn fingerprint(&self) -> String {
        self.data.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{self, Reading};

    #[test]
    fn halves_share_nothing_and_have_everything() {
        let all = data::load(&"digits:31?seed=1".parse().unwrap(), "test", &Reading::default()).unwrap();
        let [a, b] = [Part::Choice, Part::Certificate].map(|part| Half::new(&*all, part, 5));
        assert_eq!((a.len(), b.len()), (15, 16));
        let mut both = [&a.kept[..], &b.kept[..]].concat();
        both.sort_unstable();
        assert_eq!(both, (0..31).collect::<Vec<_>>());
        let (mine, theirs) = (b.batch(&[3], 1, 0).unwrap(), all.batch(&[b.kept[3]], 1, 0).unwrap());
        assert_eq!((mine.inputs, mine.examples), (theirs.inputs, vec![3]));
        assert_ne!(Half::new(&*all, Part::Choice, 6).kept, a.kept);
    }
}
