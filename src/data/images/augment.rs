//! Random changes of training images that leave the class as it is: `?augment=flip,crop:4`.
//!
//! What happens to an image is a function of (seed, epoch, example) alone.
use std::fmt;
use std::str::FromStr;

use super::picture::Picture;
use crate::data::stream;
use crate::rng::Rng;

/// One random change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Mirrored left to right, half of the time.
    Flip,
    /// Moved by up to so many pixels in both directions, with black where nothing was: the crop of the same size from
    /// the image padded with zeros.
    Crop(usize),
}

/// Changes in the order they are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Augment(Vec<Change>);

impl FromStr for Augment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let change = |word: &str| match word.split_once(':') {
            None if word == "flip" => Ok(Change::Flip),
            Some(("crop", pixels)) => match pixels.parse() {
                Ok(pixels @ 1..=1024) => Ok(Change::Crop(pixels)),
                _ => Err(format!("crop wants 1 to 1024 pixels, got `{pixels}`")),
            },
            _ => Err(format!("flip and crop:PIXELS, got `{word}`")),
        };
        text.split(',').map(|word| change(word.trim())).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Augment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, change) in self.0.iter().enumerate() {
            f.write_str(if i > 0 { "," } else { "" })?;
            match change {
                Change::Flip => f.write_str("flip")?,
                Change::Crop(pixels) => write!(f, "crop:{pixels}")?,
            }
        }
        Ok(())
    }
}

impl Augment {
    /// Whether images of (height, width) are still to be seen after every change, else what is wrong with which.
    pub fn fits(&self, (height, width): (usize, usize)) -> Result<(), String> {
        let most = height.min(width).saturating_sub(1);
        let too_far = |change: &&Change| matches!(change, Change::Crop(pixels) if *pixels > most);
        match self.0.iter().find(too_far) {
            None => Ok(()),
            Some(change) => Err(format!(
                "augment={} moves images of {height}x{width} pixels out of sight; at most crop:{most} leaves a part of them",
                Self(vec![*change])
            )),
        }
    }

    /// What becomes of `picture`, image `example`, in `epoch`.
    pub fn apply(&self, mut picture: Picture, seed: u64, epoch: u64, example: usize) -> Picture {
        // 2^32 draws are more than any list of changes uses, so no two examples share one.
        let mut rng = Rng::new(seed, stream::AUGMENT | epoch & stream::NUMBER).at((example as u64) << 32);
        for change in &self.0 {
            match *change {
                Change::Flip if rng.below(2) == 1 => picture = picture.upright(2),
                Change::Flip => {}
                Change::Crop(pixels) => {
                    let mut by = || rng.below(2 * pixels + 1) as isize - pixels as isize;
                    picture = picture.shifted((by(), by()), picture.size());
                }
            }
        }
        picture
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_checked() {
        assert_eq!("flip,crop:4".parse::<Augment>().unwrap().to_string(), "flip,crop:4");
        for wrong in ["", "flop", "crop", "crop:0", "crop:x", "flip,,flip"] {
            assert!(wrong.parse::<Augment>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn changes_are_what_they_say_and_evenly_spread() {
        let picture = Picture { channels: 1, height: 3, width: 3, bytes: (1..=9).collect() };
        let flip: Augment = "flip".parse().unwrap();
        let flips = (0..400).filter(|&i| {
            let got = flip.apply(picture.clone(), 5, 1, i).bytes;
            assert!(got == picture.bytes || got == [3, 2, 1, 6, 5, 4, 9, 8, 7]);
            got != picture.bytes
        });
        let flips = flips.count();
        assert!((160..240).contains(&flips), "{flips} of 400");
        let crop: Augment = "crop:1".parse().unwrap();
        let mut seen = std::collections::BTreeMap::new();
        (0..900).for_each(|i| *seen.entry(crop.apply(picture.clone(), 5, 1, i).bytes).or_insert(0) += 1);
        assert_eq!(seen.len(), 9);
        assert!(seen.values().all(|n| (60..150).contains(n)), "{seen:?}");
        assert!(
            seen.contains_key(&[0, 0, 0, 0, 1, 2, 0, 4, 5][..]) && seen.contains_key(&[5, 6, 0, 8, 9, 0, 0, 0, 0][..])
        );
        let both: Augment = "crop:1,flip".parse().unwrap();
        let of = |seed, epoch, i| both.apply(picture.clone(), seed, epoch, i).bytes;
        let all = |seed, epoch| (0..20).map(|i| of(seed, epoch, i)).collect::<Vec<_>>();
        assert_eq!(all(1, 1), all(1, 1));
        assert!(all(1, 1) != all(1, 2) && all(1, 1) != all(2, 1));
    }
}
