//! `"model_type": "vit"` and `"deit"`: vision transformers, with the defaults of `transformers`.
use super::super::fields::Fields;
use super::{Config, MAX_LAYERS, MAX_WIDTH, Task};
use crate::Result;
use crate::ops::Activation;
use serde_json::Value;

/// Both vision transformers: DeiT is ViT with a distillation token beside the class token.
#[derive(Clone, Debug, PartialEq)]
pub struct VitConfig {
    pub family: VitFamily,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f64,
    /// (height, width) in pixels.
    pub image_size: (usize, usize),
    pub patch_size: (usize, usize),
    pub num_channels: usize,
    pub qkv_bias: bool,
    pub initializer_range: f64,
    pub task: Task,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VitFamily {
    Vit,
    Deit,
}

impl VitFamily {
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Vit => "vit",
            Self::Deit => "deit",
        }
    }
    /// What a task class puts before its base's parameters.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Vit => "vit.",
            Self::Deit => "deit.",
        }
    }
}

impl VitConfig {
    /// The class of DeiT whose logits are the mean of two heads', one on each token.
    pub const WITH_TEACHER: &str = "DeiTForImageClassificationWithTeacher";

    /// Tokens before those of patches: class, and DeiT's distillation.
    pub fn special_tokens(&self) -> usize {
        match self.family {
            VitFamily::Vit => 1,
            VitFamily::Deit => 2,
        }
    }
    /// (rows, columns) of patches of an image of this size.
    pub fn grid(&self, (height, width): (usize, usize)) -> (usize, usize) {
        (height / self.patch_size.0, width / self.patch_size.1)
    }
    /// Rows of the table of positions.
    pub fn positions(&self) -> usize {
        let (rows, columns) = self.grid(self.image_size);
        self.special_tokens() + rows * columns
    }
    /// Whether there is a distillation head beside the class token's.
    pub fn with_teacher(&self) -> bool {
        self.task.architectures.first().is_some_and(|class| class == Self::WITH_TEACHER)
    }
    /// The class that has a head: as the file has it, or the plain one.
    pub fn class(&self) -> &'static str {
        match self.family {
            VitFamily::Vit => "ViTForImageClassification",
            VitFamily::Deit if self.with_teacher() => Self::WITH_TEACHER,
            VitFamily::Deit => "DeiTForImageClassification",
        }
    }
    pub fn base_class(&self) -> &'static str {
        match self.family {
            VitFamily::Vit => "ViTModel",
            VitFamily::Deit => "DeiTModel",
        }
    }
}

impl Fields<'_> {
    pub(super) fn vit(&self) -> Result<Config> {
        self.vision(VitFamily::Vit)
    }
    pub(super) fn deit(&self) -> Result<Config> {
        self.vision(VitFamily::Deit)
    }

    fn vision(&self, family: VitFamily) -> Result<Config> {
        let config = VitConfig {
            family,
            hidden_size: self.size("hidden_size", Some(768), MAX_WIDTH)?,
            num_hidden_layers: self.size("num_hidden_layers", Some(12), MAX_LAYERS)?,
            num_attention_heads: self.size("num_attention_heads", Some(12), MAX_WIDTH)?,
            intermediate_size: self.size("intermediate_size", Some(3072), MAX_WIDTH)?,
            hidden_act: self.activation("hidden_act", "gelu")?,
            layer_norm_eps: self.number("layer_norm_eps", 1e-12)?,
            image_size: self.sides("image_size", 224)?,
            patch_size: self.sides("patch_size", 16)?,
            num_channels: self.size("num_channels", Some(3), MAX_WIDTH)?,
            qkv_bias: self.flag("qkv_bias", true)?,
            initializer_range: self.number("initializer_range", 0.02)?,
            task: self.task()?,
        };
        self.heads_divide("hidden_size", config.hidden_size, "num_attention_heads", config.num_attention_heads)?;
        let (image, patch) = (config.image_size, config.patch_size);
        if patch.0 > image.0 || patch.1 > image.1 {
            return Err(self.bad(format!("patch_size: wanted no more than image_size {image:?}, got {patch:?}")));
        }
        let head = config.hidden_size / config.num_attention_heads;
        if let Some(other) = self.get("head_dim").filter(|v| v.as_u64() != Some(head as u64)) {
            let hint = "fipk divides hidden_size among the heads";
            return Err(crate::Error::unsupported(self.place, format!("head_dim {other}"), hint));
        }
        Ok(Config::Vit(config))
    }

    /// A number for both sides, or [height, width].
    pub(super) fn sides(&self, key: &str, default: usize) -> Result<(usize, usize)> {
        const MOST: usize = 1 << 14;
        let side = |v: &Value| v.as_u64().map(|n| n as usize).filter(|n| (1..=MOST).contains(n));
        let sides = match self.get(key) {
            None => Some((default, default)),
            Some(Value::Array(both)) => match both.as_slice() {
                [height, width] => side(height).zip(side(width)),
                _ => None,
            },
            Some(one) => side(one).map(|n| (n, n)),
        };
        let got = self.get(key).map_or("nothing".into(), Value::to_string);
        sides.ok_or_else(|| self.bad(format!("{key}: wanted a number of pixels from 1 to {MOST}, or two, got {got}")))
    }
}
