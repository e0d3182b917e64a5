//! A SHA-256 over what a data set holds, part by part, so that neither order nor lengths can be confused.
use sha2::{Digest, Sha256};

use super::{Targets, Task};

/// Collects the parts; each is preceded by its length.
pub struct Fingerprint(Sha256);

impl Fingerprint {
    pub fn new(kind: &str) -> Self {
        let mut hash = Self(Sha256::new());
        hash.bytes(kind.as_bytes());
        hash
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub fn numbers(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        self.bytes(&bytes);
    }

    pub fn reals(&mut self, reals: &[f32]) {
        self.numbers(reals.iter().map(|real| u64::from(real.to_bits())));
    }

    pub fn task(&mut self, task: &Task) {
        match task {
            Task::Classification { labels } => labels.iter().for_each(|label| self.bytes(label.as_bytes())),
            Task::Regression => self.bytes(b"regression"),
            Task::MaskedLm => self.bytes(b"masked"),
        }
    }

    pub fn targets(&mut self, targets: &Targets) {
        match targets {
            Targets::Classes(all) | Targets::Tokens(all) => self.numbers(all.iter().map(|&i| i as u64)),
            Targets::Scores(all) => self.reals(all),
        }
    }

    /// In hexadecimal.
    pub fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let of = |parts: &[&str]| {
            let mut hash = Fingerprint::new("k");
            parts.iter().for_each(|part| hash.bytes(part.as_bytes()));
            hash.finish()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), of(&["ab", ""]));
        // sha256sum of 01 00 00 00 00 00 00 00 6b.
        assert_eq!(of(&[]), "95d6b7920c5acf9a9b3032984a47488c4bc3d33cb4e9ce353a7a6a50ffd7ab06");
    }
}
