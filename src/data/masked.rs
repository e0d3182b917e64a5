//! Text for masked language models: the `lm:` kind. What is masked depends on (seed, epoch, example) alone.
use std::path::PathBuf;

use rayon::prelude::*;

use super::sequences::Sequences;
use super::spec::Spec;
use super::tokenizer::Tokenizer;
use super::{Batch, Dataset, Fingerprint, NOT_SCORED, Reading, Targets, Task, Values, files, stream, subset};
use crate::rng::Rng;
use crate::{Error, Result};

/// Devlin et al. 2019, section 3.1: 15 % of the tokens are scored; of those 80 % are hidden, 10 % become a random
/// token, 10 % stay.
const SCORED: f64 = 0.15;
const HIDDEN: f32 = 0.8;
const RANDOM: f32 = 0.1;

/// A text cut into pieces of the greatest length, all in memory; masking happens as batches are made.
pub struct MaskedText {
    sequences: Sequences,
    /// Special tokens, sorted: never masked.
    special: Vec<u32>,
    mask: u32,
    vocabulary: usize,
    seed: u64,
    task: Task,
}

impl MaskedText {
    /// All lines of `files` as one text without line ends, cut every `max_length` tokens, special tokens included;
    /// the last piece may be shorter.
    pub(super) fn load(spec: &Spec, files: &[PathBuf], how: &Reading) -> Result<Self> {
        let folder = how.tokenizer(spec)?;
        let tokenizer = Tokenizer::load(folder)?;
        let mask = tokenizer.mask.ok_or_else(|| {
            Error::model(
                folder.display().to_string(),
                "the tokenizer has no mask token, which masked-language modelling needs",
                "name mask_token in tokenizer_config.json, or use another model",
            )
        })?;
        let mut ids: Vec<u32> = Vec::new();
        for file in files {
            let text = files::read_text(file)?;
            let lines: Vec<&str> = text.lines().collect();
            let encoded: Vec<Vec<u32>> = lines.par_iter().map(|line| tokenizer.plain(line)).collect::<Result<_>>()?;
            ids.extend(encoded.iter().flatten());
        }
        if ids.is_empty() {
            let place = files.first().map_or_else(|| spec.place(), |file| file.display().to_string());
            return Err(Error::data(place, "wanted text, got none", "check that this is the right file"));
        }
        let (before, after) = &tokenizer.frame;
        let room = how.max_length.saturating_sub(before.len() + after.len());
        if room == 0 {
            return Err(Error::usage(
                "maximum sequence length",
                format!("{} tokens leave no room between the special ones", how.max_length),
                "allow at least 8, better 128 or more",
            ));
        }
        let pieces: Vec<&[u32]> = ids.chunks(room).collect();
        let kept = subset(pieces.len(), spec.limit, spec.seed).unwrap_or_else(|| (0..pieces.len()).collect());
        let mut sequences = Sequences::new(tokenizer.pad, how.max_length, how.with_types);
        for piece in kept {
            sequences.push(&[before, pieces[piece], after].concat(), &[]);
        }
        // A random token has to be one the model knows.
        let vocabulary = how.vocabulary.unwrap_or(usize::MAX).min(tokenizer.vocabulary());
        how.check_vocabulary(sequences.largest_id().max(tokenizer.pad).max(mask), spec)?;
        let seed = spec.seed.unwrap_or(how.seed);
        Ok(Self { sequences, special: tokenizer.special, mask, vocabulary, seed, task: Task::MaskedLm })
    }

    /// Picks the scored tokens of one row, writes their ids to `wanted` and hides them in `ids`.
    fn hide(&self, example: usize, epoch: u64, ids: &mut [i32], wanted: &mut [i32]) {
        let tokens = self.sequences.ids(example);
        let mut places: Vec<usize> =
            (0..tokens.len()).filter(|&i| self.special.binary_search(&tokens[i]).is_err()).collect();
        // At least one, so that every example has something to say.
        let scored = ((places.len() as f64 * SCORED).round() as usize).max(1).min(places.len());
        // 2^32 draws are more than any sequence uses, so no two examples share one.
        let mut rng = Rng::new(self.seed, stream::MASKING | epoch & stream::NUMBER).at((example as u64) << 32);
        rng.shuffle(&mut places);
        for &place in &places[..scored] {
            wanted[place] = tokens[place] as i32;
            let lot = rng.uniform();
            if lot < HIDDEN {
                ids[place] = self.mask as i32;
            } else if lot < HIDDEN + RANDOM {
                ids[place] = rng.below(self.vocabulary) as i32;
            }
        }
    }
}

impl Dataset for MaskedText {
    fn len(&self) -> usize {
        self.sequences.len()
    }

    fn task(&self) -> &Task {
        &self.task
    }

    fn length(&self, example: usize) -> usize {
        self.sequences.length(example)
    }

    fn batch(&self, examples: &[usize], rows: usize, epoch: u64) -> Result<Batch> {
        let rows = rows.max(examples.len());
        let width = self.sequences.width(examples);
        let mut inputs = self.sequences.inputs(examples, rows);
        let mut wanted = vec![NOT_SCORED; rows * width];
        if let Some(Values::Index(ids)) = inputs.first_mut().map(|input| &mut input.values) {
            let rows = ids.chunks_exact_mut(width).zip(wanted.chunks_exact_mut(width));
            for (&example, (ids, wanted)) in examples.iter().zip(rows) {
                self.hide(example, epoch, ids, wanted);
            }
        }
        Ok(Batch { examples: examples.to_vec(), rows, inputs, targets: Targets::Tokens(wanted) })
    }

    fn changes_with_epoch(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        let mut hash = Fingerprint::new("lm");
        hash.numbers([self.seed, u64::from(self.mask), self.vocabulary as u64]);
        hash.numbers(self.special.iter().map(|&id| u64::from(id)));
        self.sequences.digest(&mut hash);
        hash.finish()
    }
}
