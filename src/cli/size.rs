//! `--image-size`: pixels of both sides, or HEIGHTxWIDTH.
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// The size in which a network is to see images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSize {
    pub height: usize,
    pub width: usize,
}

impl ImageSize {
    pub fn sides(self) -> (usize, usize) {
        (self.height, self.width)
    }
}

impl FromStr for ImageSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MOST: usize = 1 << 14;
        let side = |text: &str| text.parse().ok().filter(|n| (1..=MOST).contains(n));
        let (height, width) = text.split_once('x').unwrap_or((text, text));
        match (side(height), side(width)) {
            (Some(height), Some(width)) => Ok(Self { height, width }),
            _ => Err(format!("wanted 1 to {MOST} pixels for both sides, or HEIGHTxWIDTH as 160x224, got `{text}`")),
        }
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.height == self.width {
            true => write!(f, "{}", self.height),
            false => write!(f, "{}x{}", self.height, self.width),
        }
    }
}

impl Serialize for ImageSize {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageSize {
    /// From text, or from a number, which is how a person writes 224.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let text = match Written::deserialize(d)? {
            Written::Number(n) => n.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_one_number_or_two() {
        let size = |text: &str| text.parse::<ImageSize>().map(ImageSize::sides);
        assert_eq!((size("224"), size("12x20")), (Ok((224, 224)), Ok((12, 20))));
        for text in ["", "0", "x", "12x", "-4", "12x20x3", "16385", "12.5"] {
            assert!(size(text).unwrap_err().contains("HEIGHTxWIDTH"), "{text}");
        }
        let table: toml::Table = "a = 16\nb = \"16\"\nc = \"8x9\"".parse().unwrap();
        let read = |key: &str| table[key].clone().try_into::<ImageSize>().unwrap();
        assert_eq!((read("a"), read("a").to_string(), read("c").to_string()), (read("b"), "16".into(), "8x9".into()));
    }
}
