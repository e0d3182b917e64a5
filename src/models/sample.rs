//! What one sample of a batch looks like to a network, and which `pixel_values` an image network takes.

/// The axes of a batch besides its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sample {
    /// Tokens of a text; networks that read no text take any number.
    Tokens(usize),
    /// Pixels of an image; the channels are the network's.
    Image { height: usize, width: usize },
}

impl From<usize> for Sample {
    fn from(tokens: usize) -> Self {
        Self::Tokens(tokens)
    }
}

impl Sample {
    /// Tokens, and one for an image.
    pub fn tokens(self) -> usize {
        match self {
            Self::Tokens(n) => n,
            Self::Image { .. } => 1,
        }
    }

    /// (height, width) of an image, or a network's own where no size is given.
    pub fn size(self, own: (usize, usize)) -> (usize, usize) {
        match self {
            Self::Image { height, width } => (height, width),
            Self::Tokens(_) => own,
        }
    }
}

/// The `pixel_values` a network takes, a row a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// [rows, count]: an image as one row of numbers.
    Flat(usize),
    /// [rows, channels, height, width]. The size is the network's own; one that pools or interpolates takes others too,
    /// by [`Sample::Image`].
    Image { channels: usize, height: usize, width: usize },
}

impl Pixels {
    /// Numbers a sample.
    pub fn count(self) -> usize {
        match self {
            Self::Flat(n) => n,
            Self::Image { channels, height, width } => channels * height * width,
        }
    }

    /// The shape of a batch of `rows`.
    pub fn shape(self, rows: usize) -> Vec<usize> {
        match self {
            Self::Flat(n) => vec![rows, n],
            Self::Image { channels, height, width } => vec![rows, channels, height, width],
        }
    }
}
