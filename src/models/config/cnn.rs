//! Convolutional networks: `"model_type": "resnet"` with the defaults of `transformers`, and three forms of fipk's own for
//! networks that it has no class for: `resnet_cifar`, `vgg`, `lenet5`.
use super::super::fields::Fields;
use super::{Config, MAX_LAYERS, MAX_WIDTH, Task};
use crate::Result;
use crate::ops::Activation;
use serde_json::Value;

/// `"model_type": "resnet"` (He et al. 2015, as `ResNetForImageClassification` builds it).
#[derive(Clone, Debug, PartialEq)]
pub struct ResNetConfig {
    pub num_channels: usize,
    pub embedding_size: usize,
    pub hidden_sizes: Vec<usize>,
    pub depths: Vec<usize>,
    /// Blocks of three convolutions, the middle one at a quarter of the width, in place of two.
    pub bottleneck: bool,
    pub hidden_act: Activation,
    pub downsample_in_first_stage: bool,
    /// The first convolution of a bottleneck takes the stride, in place of the second.
    pub downsample_in_bottleneck: bool,
    /// (height, width): where the file does not say, ImageNet's. Any other works too.
    pub image_size: (usize, usize),
    pub task: Task,
}

/// `"model_type": "resnet_cifar"`: the residual networks of 6 n + 2 layers that He et al. 2015 train on CIFAR-10, in the
/// names of akamaster/pytorch_resnet_cifar10. `{"depth": 20, "shortcut": "A", "num_channels": 3, "image_size": 32}`.
#[derive(Clone, Debug, PartialEq)]
pub struct ResNetCifarConfig {
    pub depth: usize,
    /// Option A, pixels left out and channels of zeros, in place of B, a convolution.
    pub parameter_free: bool,
    pub num_channels: usize,
    pub image_size: (usize, usize),
    pub task: Task,
}

/// `"model_type": "vgg"` (Simonyan and Zisserman 2015) in torchvision's names. `{"depth": 16, "batch_norm": true,
/// "image_size": 32, "pool_size": 1, "hidden": [], "classifier": ["classifier"]}` is one for CIFAR.
#[derive(Clone, Debug, PartialEq)]
pub struct VggConfig {
    /// Channels of each convolution; 0 stands for a max pool.
    pub features: Vec<usize>,
    pub batch_norm: bool,
    pub num_channels: usize,
    pub image_size: (usize, usize),
    /// Pixels a side after the adaptive pool that follows the convolutions: torchvision's 7.
    pub pool_size: usize,
    /// Widths between the features and the logits.
    pub hidden: Vec<usize>,
    /// Names of the linear maps, one more than of `hidden`.
    pub classifier: Vec<String>,
    pub task: Task,
}

/// `"model_type": "lenet5"` (LeCun et al. 1998): `conv1` and `conv2` of 5 x 5, pooled by two, then `fc1`, `fc2`, `fc3`.
#[derive(Clone, Debug, PartialEq)]
pub struct LeNet5Config {
    pub num_channels: usize,
    pub image_size: (usize, usize),
    /// Of the first convolution: 2 turns MNIST's 28 pixels into the 32 of the paper.
    pub padding: usize,
    pub hidden_act: Activation,
    /// Mean over windows, as in the paper, in place of the maximum.
    pub average_pool: bool,
    pub task: Task,
}

impl LeNet5Config {
    /// Outputs of conv1, conv2, fc1, fc2.
    pub const WIDTHS: [usize; 4] = [6, 16, 120, 84];
}

impl Fields<'_> {
    pub(super) fn resnet(&self) -> Result<Config> {
        let config = ResNetConfig {
            num_channels: self.size("num_channels", Some(3), MAX_WIDTH)?,
            embedding_size: self.size("embedding_size", Some(64), MAX_WIDTH)?,
            hidden_sizes: self.sizes("hidden_sizes", &[256, 512, 1024, 2048], MAX_WIDTH)?,
            depths: self.sizes("depths", &[3, 4, 6, 3], MAX_LAYERS)?,
            bottleneck: self.one_of("layer_type", &["bottleneck", "basic"])? == 0,
            hidden_act: self.activation("hidden_act", "relu")?,
            downsample_in_first_stage: self.flag("downsample_in_first_stage", false)?,
            downsample_in_bottleneck: self.flag("downsample_in_bottleneck", false)?,
            image_size: self.sides("image_size", 224)?,
            task: self.task()?,
        };
        if config.hidden_sizes.len() != config.depths.len() {
            let (sizes, depths) = (config.hidden_sizes.len(), config.depths.len());
            return Err(self.bad(format!("wanted as many depths as hidden_sizes, got {depths} and {sizes}")));
        }
        if let Some(width) = config.hidden_sizes.iter().find(|w| config.bottleneck && *w % 4 != 0) {
            return Err(self.bad(format!("hidden_sizes: wanted multiples of 4 for bottlenecks, got {width}")));
        }
        Ok(Config::ResNet(config))
    }

    pub(super) fn resnet_cifar(&self) -> Result<Config> {
        let depth = self.size("depth", None, MAX_LAYERS)?;
        if depth < 8 || depth % 6 != 2 {
            return Err(self.bad(format!("depth: wanted 6 n + 2 layers (20, 32, 44, 56, 110), got {depth}")));
        }
        Ok(Config::ResNetCifar(ResNetCifarConfig {
            depth,
            parameter_free: self.one_of("shortcut", &["A", "B"])? == 0,
            num_channels: self.size("num_channels", Some(3), MAX_WIDTH)?,
            image_size: self.sides("image_size", 32)?,
            task: self.task()?,
        }))
    }

    pub(super) fn vgg(&self) -> Result<Config> {
        let features = match self.get("features") {
            None => by_depth(self.size("depth", Some(16), MAX_LAYERS)?)
                .ok_or_else(|| self.bad("depth: wanted 11, 13, 16 or 19; or `features`, a list".into()))?,
            Some(Value::Array(all)) => {
                let one = |v: &Value| match (v.as_str(), v.as_u64()) {
                    (Some("M"), _) => Ok(0),
                    (_, Some(n @ 1..)) if n <= MAX_WIDTH as u64 => Ok(n as usize),
                    _ => Err(self.bad(format!("features: wanted numbers of channels and \"M\", got {v}"))),
                };
                all.iter().map(one).collect::<Result<_>>()?
            }
            Some(other) => return Err(self.bad(format!("features: wanted an array, got {other}"))),
        };
        if features.iter().all(|&f| f == 0) {
            return Err(self.bad("features: wanted at least one convolution".into()));
        }
        let hidden = match self.get("hidden") {
            Some(Value::Array(none)) if none.is_empty() => Vec::new(),
            _ => self.sizes("hidden", &[4096, 4096], MAX_WIDTH)?,
        };
        let classifier = match self.get("classifier") {
            // Between torchvision's linear maps stand an activation and dropout.
            None => (0..=hidden.len()).map(|i| format!("classifier.{}", 3 * i)).collect(),
            Some(Value::Array(names)) => {
                let mut all: Vec<String> = Vec::new();
                for v in names {
                    match v.as_str() {
                        Some(name) if !name.is_empty() && !all.iter().any(|n| n == name) => all.push(name.into()),
                        _ => return Err(self.bad(format!("classifier: wanted distinct, non-empty names, got {v}"))),
                    }
                }
                all
            }
            Some(other) => return Err(self.bad(format!("classifier: wanted an array of names, got {other}"))),
        };
        if classifier.len() != hidden.len() + 1 {
            let (names, widths) = (classifier.len(), hidden.len());
            return Err(
                self.bad(format!("wanted one more name in classifier than widths in hidden, got {names} and {widths}"))
            );
        }
        Ok(Config::Vgg(VggConfig {
            features,
            batch_norm: self.flag("batch_norm", false)?,
            num_channels: self.size("num_channels", Some(3), MAX_WIDTH)?,
            image_size: self.sides("image_size", 224)?,
            pool_size: self.size("pool_size", Some(7), 64)?,
            hidden,
            classifier,
            task: self.task()?,
        }))
    }

    pub(super) fn lenet5(&self) -> Result<Config> {
        let image_size = self.sides("image_size", 28)?;
        let config = LeNet5Config {
            num_channels: self.size("num_channels", Some(1), MAX_WIDTH)?,
            image_size,
            padding: match self.get("padding") {
                Some(n) if n.as_u64() == Some(0) => 0,
                None if image_size == (32, 32) => 0,
                _ => self.size("padding", Some(2), 16)?,
            },
            hidden_act: self.activation("hidden_act", "relu")?,
            average_pool: self.one_of("pool", &["max", "average"])? == 1,
            task: self.task()?,
        };
        let side = |n: usize| n + 2 * config.padding;
        if side(image_size.0) < 16 || side(image_size.1) < 16 {
            return Err(self.bad(format!("image_size: wanted 16 pixels or more with padding, got {image_size:?}")));
        }
        Ok(Config::LeNet5(config))
    }

    /// The place of a key's text among `names`, of which the first is the default.
    fn one_of(&self, key: &str, names: &[&str]) -> Result<usize> {
        let got = self.text(key)?.unwrap_or(names[0]);
        let found = names.iter().position(|n| *n == got);
        found.ok_or_else(|| self.bad(format!("{key}: wanted one of {}, got {got:?}", names.join(", "))))
    }

    fn sizes(&self, key: &str, default: &[usize], max: usize) -> Result<Vec<usize>> {
        let Some(value) = self.get(key) else { return Ok(default.to_vec()) };
        let size = |v: &Value| v.as_u64().map(|n| n as usize).filter(|n| (1..=max).contains(n));
        let all = value.as_array().filter(|a| !a.is_empty() && a.len() <= MAX_LAYERS);
        let all = all.and_then(|a| a.iter().map(size).collect::<Option<Vec<_>>>());
        all.ok_or_else(|| self.bad(format!("{key}: wanted an array of whole numbers from 1 to {max}, got {value}")))
    }
}

/// The convolutions and pools of torchvision's vgg11, 13, 16 and 19.
fn by_depth(depth: usize) -> Option<Vec<usize>> {
    let counts = match depth {
        11 => [1, 1, 2, 2, 2],
        13 => [2, 2, 2, 2, 2],
        16 => [2, 2, 3, 3, 3],
        19 => [2, 2, 4, 4, 4],
        _ => return None,
    };
    let stages = counts.into_iter().zip([64, 128, 256, 512, 512]);
    Some(stages.flat_map(|(n, channels)| std::iter::repeat_n(channels, n).chain([0])).collect())
}
