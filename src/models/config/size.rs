//! A network for images of another size than its `config.json` says.
use super::{Config, RawConfig};
use crate::{Error, Result};
use serde_json::json;

impl Config {
    /// This network for images of (height, width) pixels, and its `config.json`, `raw` but for the size. A vision
    /// transformer has positions for that size then, into which stored ones are interpolated when they are loaded;
    /// networks that pool have the same weights for every size.
    ///
    /// # Errors
    /// [`Error::Usage`] for a network that takes no image, or whose weights (`stored`: there are some already) are for one
    /// size alone; [`Error::Model`] for a size that the network cannot have. `place` is how errors call the file.
    pub fn at_size(
        &self,
        place: &str,
        raw: &RawConfig,
        size: (usize, usize),
        stored: bool,
    ) -> Result<(Self, RawConfig)> {
        let refused = |why: &str, hint: &str| {
            Err(Error::usage("--image-size", format!("{place}: {} {why}", self.model_type()), hint))
        };
        match self {
            Self::Bert(_) | Self::DistilBert(_) => return refused("reads text, not images", "leave it out"),
            Self::Mlp(_) => {
                return refused(
                    "takes a fixed number of pixels in a row",
                    "leave it out, or change the first of sizes",
                );
            }
            Self::LeNet5(_) if stored => {
                return refused("has linear maps for images of one size", "leave it out, or train one with --arch");
            }
            Self::LeNet5(_) | Self::Vit(_) | Self::ResNet(_) | Self::ResNetCifar(_) | Self::Vgg(_) => {}
        }
        let mut raw = raw.clone();
        let sides = if size.0 == size.1 { json!(size.0) } else { json!([size.0, size.1]) };
        raw.insert("image_size".into(), sides);
        Ok((Self::from_raw(place, &raw)?, raw))
    }
}
