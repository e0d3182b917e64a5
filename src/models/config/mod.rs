//! `config.json`: what it says of the network, with Hugging Face's names and defaults, checked before anything is built.
use super::fields::Fields;
use crate::ops::Activation;
use crate::{Error, Result};
use serde_json::{Map, Value};

mod cnn;
mod size;
mod vit;
pub use cnn::{LeNet5Config, ResNetCifarConfig, ResNetConfig, VggConfig};
pub use vit::{VitConfig, VitFamily};

/// The file as it stands, in its order; what fipk does not know stays in it.
pub type RawConfig = Map<String, Value>;

/// The `model_type`s fipk builds.
pub const MODEL_TYPES: [&str; 9] =
    ["bert", "distilbert", "vit", "deit", "resnet", "resnet_cifar", "vgg", "lenet5", "mlp"];

/// Upper limits that no real model comes near: they turn a corrupt number into an error instead of an allocation.
const MAX_WIDTH: usize = 1 << 20;
const MAX_LAYERS: usize = 1 << 12;
const MAX_ROWS: usize = 1 << 28;

#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    Bert(BertConfig),
    DistilBert(DistilBertConfig),
    Vit(VitConfig),
    ResNet(ResNetConfig),
    ResNetCifar(ResNetCifarConfig),
    Vgg(VggConfig),
    LeNet5(LeNet5Config),
    Mlp(MlpConfig),
}

/// `"model_type": "bert"`.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub classifier_dropout: Option<f64>,
    pub initializer_range: f64,
    pub pad_token_id: Option<usize>,
    pub tie_word_embeddings: bool,
    pub task: Task,
}

/// `"model_type": "distilbert"`. Its layer norms have a fixed epsilon, [`DistilBertConfig::LAYER_NORM_EPS`].
#[derive(Clone, Debug, PartialEq)]
pub struct DistilBertConfig {
    pub vocab_size: usize,
    pub dim: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub hidden_dim: usize,
    pub activation: Activation,
    pub max_position_embeddings: usize,
    pub dropout: f64,
    pub attention_dropout: f64,
    pub seq_classif_dropout: f64,
    pub initializer_range: f64,
    pub pad_token_id: Option<usize>,
    pub tie_word_embeddings: bool,
    pub task: Task,
}

impl DistilBertConfig {
    pub const LAYER_NORM_EPS: f64 = 1e-12;
}

/// `"model_type": "mlp"`, a form of fipk's own: `sizes` are the widths from input to output, `layers` the names
/// of the linear maps between them, `hidden_act` stands between those.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpConfig {
    pub sizes: Vec<usize>,
    pub layers: Vec<String>,
    pub hidden_act: Activation,
    pub task: Task,
}

/// What the network was made for.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub architectures: Vec<String>,
    /// `id2label` in the order of the outputs; `LABEL_i` where the file names none.
    pub labels: Vec<String>,
    pub problem_type: Option<ProblemType>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemType {
    Regression,
    SingleLabel,
    MultiLabel,
}

impl Config {
    /// Parses the bytes of a `config.json`; `place` is how errors call it.
    ///
    /// `Error::Model` for a file that is malformed or contradicts itself, `Error::Unsupported` (naming the key)
    /// for a network that fipk does not compute exactly as `transformers` does.
    pub fn parse(place: &str, text: &[u8]) -> Result<(Self, RawConfig)> {
        let raw: RawConfig = serde_json::from_slice(text).map_err(|e| {
            Error::model(
                place,
                format!("wanted a JSON object, got {e}"),
                "fetch the file again (JSON has no NaN or Infinity)",
            )
        })?;
        Ok((Self::from_raw(place, &raw)?, raw))
    }

    /// As [`Config::parse`], from the map.
    pub fn from_raw(place: &str, raw: &RawConfig) -> Result<Self> {
        let fields = Fields { place, raw };
        let known = || format!("fipk builds {}", MODEL_TYPES.join(", "));
        let Some(model_type) = fields.text("model_type")? else {
            return Err(Error::model(place, "wanted a \"model_type\", found none", known()));
        };
        let parse = match model_type {
            "bert" => Fields::bert,
            "distilbert" => Fields::distilbert,
            "vit" => Fields::vit,
            "deit" => Fields::deit,
            "resnet" => Fields::resnet,
            "resnet_cifar" => Fields::resnet_cifar,
            "vgg" => Fields::vgg,
            "lenet5" => Fields::lenet5,
            "mlp" => Fields::mlp,
            other => return Err(Error::unsupported(place, format!("model_type {other:?}"), known())),
        };
        fields.refuse_unsupported()?;
        parse(&fields)
    }

    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Bert(_) => "bert",
            Self::DistilBert(_) => "distilbert",
            Self::Vit(c) => c.family.model_type(),
            Self::ResNet(_) => "resnet",
            Self::ResNetCifar(_) => "resnet_cifar",
            Self::Vgg(_) => "vgg",
            Self::LeNet5(_) => "lenet5",
            Self::Mlp(_) => "mlp",
        }
    }

    pub fn task(&self) -> &Task {
        match self {
            Self::Bert(c) => &c.task,
            Self::DistilBert(c) => &c.task,
            Self::Vit(c) => &c.task,
            Self::ResNet(c) => &c.task,
            Self::ResNetCifar(c) => &c.task,
            Self::Vgg(c) => &c.task,
            Self::LeNet5(c) => &c.task,
            Self::Mlp(c) => &c.task,
        }
    }

    /// What a task class puts before its base's parameters (`bert.encoder..`), and a base class does not.
    pub fn base_prefix(&self) -> Option<&'static str> {
        match self {
            Self::Bert(_) => Some("bert."),
            Self::DistilBert(_) => Some("distilbert."),
            Self::Vit(c) => Some(c.family.prefix()),
            Self::ResNet(_) => Some("resnet."),
            Self::ResNetCifar(_) | Self::Vgg(_) | Self::LeNet5(_) | Self::Mlp(_) => None,
        }
    }

    /// What the names of a base class's tensors begin with, its own prefix left out.
    pub fn base_modules(&self) -> &'static [&'static str] {
        match self {
            Self::Bert(_) => &["embeddings.", "encoder.", "pooler."],
            Self::DistilBert(_) => &["embeddings.", "transformer."],
            Self::Vit(_) => &["embeddings.", "encoder.", "layernorm.", "pooler."],
            Self::ResNet(_) => &["embedder.", "encoder."],
            Self::ResNetCifar(_) | Self::Vgg(_) | Self::LeNet5(_) | Self::Mlp(_) => &[],
        }
    }

    /// Whether it is a form of fipk's own, which no class of `transformers` reads.
    pub fn own(&self) -> bool {
        matches!(self, Self::ResNetCifar(_) | Self::Vgg(_) | Self::LeNet5(_) | Self::Mlp(_))
    }

    /// (duplicate, original): the names that share one tensor, which is stored under the original.
    pub fn ties(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bert(c) if c.tie_word_embeddings => &[
                ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
                ("cls.predictions.decoder.bias", "cls.predictions.bias"),
            ],
            Self::DistilBert(c) if c.tie_word_embeddings => {
                &[("vocab_projector.weight", "distilbert.embeddings.word_embeddings.weight")]
            }
            _ => &[],
        }
    }
}

/// The function of a name, for the names `transformers` gives to functions that are exactly these.
pub(super) fn activation(name: &str) -> Option<Activation> {
    Some(match name {
        "gelu" | "gelu_python" => Activation::GeluErf,
        "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "tanh" => Activation::Tanh,
        _ => return None,
    })
}

impl Fields<'_> {
    fn bert(&self) -> Result<Config> {
        let config = BertConfig {
            vocab_size: self.size("vocab_size", Some(30522), MAX_ROWS)?,
            hidden_size: self.size("hidden_size", Some(768), MAX_WIDTH)?,
            num_hidden_layers: self.size("num_hidden_layers", Some(12), MAX_LAYERS)?,
            num_attention_heads: self.size("num_attention_heads", Some(12), MAX_WIDTH)?,
            intermediate_size: self.size("intermediate_size", Some(3072), MAX_WIDTH)?,
            hidden_act: self.activation("hidden_act", "gelu")?,
            max_position_embeddings: self.size("max_position_embeddings", Some(512), MAX_ROWS)?,
            type_vocab_size: self.size("type_vocab_size", Some(2), MAX_ROWS)?,
            layer_norm_eps: self.number("layer_norm_eps", 1e-12)?,
            hidden_dropout_prob: self.number("hidden_dropout_prob", 0.1)?,
            attention_probs_dropout_prob: self.number("attention_probs_dropout_prob", 0.1)?,
            classifier_dropout: match self.get("classifier_dropout") {
                None => None,
                Some(_) => Some(self.number("classifier_dropout", 0.0)?),
            },
            initializer_range: self.number("initializer_range", 0.02)?,
            pad_token_id: self.pad_token_id()?,
            tie_word_embeddings: self.flag("tie_word_embeddings", true)?,
            task: self.task()?,
        };
        self.heads_divide("hidden_size", config.hidden_size, "num_attention_heads", config.num_attention_heads)?;
        self.within_vocab(config.pad_token_id, config.vocab_size)?;
        Ok(Config::Bert(config))
    }

    fn distilbert(&self) -> Result<Config> {
        // `transformers` takes the common names as aliases here.
        let size = |key, alias, default| match self.get(alias) {
            Some(_) => self.size(alias, None, MAX_WIDTH),
            None => self.size(key, Some(default), MAX_WIDTH),
        };
        let config = DistilBertConfig {
            vocab_size: self.size("vocab_size", Some(30522), MAX_ROWS)?,
            dim: size("dim", "hidden_size", 768)?,
            n_layers: size("n_layers", "num_hidden_layers", 6)?,
            n_heads: size("n_heads", "num_attention_heads", 12)?,
            hidden_dim: self.size("hidden_dim", Some(3072), MAX_WIDTH)?,
            activation: self.activation("activation", "gelu")?,
            max_position_embeddings: self.size("max_position_embeddings", Some(512), MAX_ROWS)?,
            dropout: self.number("dropout", 0.1)?,
            attention_dropout: self.number("attention_dropout", 0.1)?,
            seq_classif_dropout: self.number("seq_classif_dropout", 0.2)?,
            initializer_range: self.number("initializer_range", 0.02)?,
            pad_token_id: self.pad_token_id()?,
            tie_word_embeddings: self.flag("tie_word_embeddings", true)?,
            task: self.task()?,
        };
        self.heads_divide("dim", config.dim, "n_heads", config.n_heads)?;
        self.within_vocab(config.pad_token_id, config.vocab_size)?;
        if config.n_layers > MAX_LAYERS {
            return Err(self.bad(format!("n_layers: wanted at most {MAX_LAYERS}, got {}", config.n_layers)));
        }
        Ok(Config::DistilBert(config))
    }

    fn mlp(&self) -> Result<Config> {
        let array = |key| match self.get(key) {
            Some(Value::Array(items)) => Ok(items.as_slice()),
            Some(other) => Err(self.bad(format!("{key}: wanted an array, got {other}"))),
            None => Err(self.bad(format!("{key}: wanted an array, found none"))),
        };
        let size = |v: &Value| match v.as_u64() {
            Some(n @ 1..) if n <= MAX_ROWS as u64 => Ok(n as usize),
            _ => Err(self.bad(format!("sizes: wanted whole numbers from 1 to {MAX_ROWS}, got {v}"))),
        };
        let sizes = array("sizes")?.iter().map(size).collect::<Result<Vec<_>>>()?;
        let mut layers: Vec<String> = Vec::new();
        for v in array("layers")? {
            match v.as_str() {
                Some(name) if !name.is_empty() && !layers.iter().any(|l| l == name) => layers.push(name.into()),
                _ => return Err(self.bad(format!("layers: wanted distinct, non-empty names, got {v}"))),
            }
        }
        if layers.is_empty() || layers.len() > MAX_LAYERS || sizes.len() != layers.len() + 1 {
            let (sizes, layers) = (sizes.len(), layers.len());
            return Err(
                self.bad(format!("wanted one more of sizes than of layers, got {sizes} sizes and {layers} layers"))
            );
        }
        let outputs = sizes[sizes.len() - 1];
        let mut task = self.task()?;
        if self.get("num_labels").is_none() && self.get("id2label").is_none() {
            task.labels = default_labels(outputs);
        }
        if task.labels.len() != outputs {
            let labels = task.labels.len();
            return Err(self.bad(format!("num_labels: wanted the last of sizes, {outputs}, got {labels}")));
        }
        Ok(Config::Mlp(MlpConfig { sizes, layers, hidden_act: self.activation("hidden_act", "relu")?, task }))
    }

    /// Options that change what a network computes and that fipk does not compute.
    fn refuse_unsupported(&self) -> Result<()> {
        let no =
            |key: &str, value: &Value, hint: &str| Err(Error::unsupported(self.place, format!("{key} {value}"), hint));
        if let Some(value) = self.get("position_embedding_type").filter(|v| v.as_str() != Some("absolute")) {
            return no("position_embedding_type", value, "fipk does absolute positions");
        }
        for key in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
            if self.flag(key, false)? {
                return no(key, &Value::Bool(true), "fipk does encoders");
            }
        }
        if let Some(value) = self.get("pruned_heads").filter(|v| v.as_object().is_none_or(|heads| !heads.is_empty())) {
            return no("pruned_heads", value, "save the model with all of its heads");
        }
        if let Some(value) = self.get("quantization_config") {
            return no("quantization_config", value, "save the model in f32, f16 or bf16");
        }
        if let Some(value) = self.get("auto_map") {
            return no("auto_map (a network defined by code of its own)", value, "use a checkpoint of a plain class");
        }
        Ok(())
    }

    fn task(&self) -> Result<Task> {
        let architectures = match self.get("architectures") {
            None => Vec::new(),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|_| self.bad(format!("architectures: wanted an array of class names, got {value}")))?,
        };
        let problem_type = match self.text("problem_type")? {
            None => None,
            Some("regression") => Some(ProblemType::Regression),
            Some("single_label_classification") => Some(ProblemType::SingleLabel),
            Some("multi_label_classification") => Some(ProblemType::MultiLabel),
            Some(other) => {
                return Err(self.bad(format!("problem_type: wanted one of transformers' three, got {other:?}")));
            }
        };
        let count = match self.get("num_labels") {
            None => None,
            Some(_) => Some(self.size("num_labels", None, MAX_ROWS)?),
        };
        let labels = match self.get("id2label") {
            None => default_labels(count.unwrap_or(2)),
            Some(Value::Object(names)) if !names.is_empty() => {
                let label = |i: usize| names.get(&i.to_string()).and_then(Value::as_str).map(String::from);
                let labels: Option<Vec<_>> = (0..names.len()).map(label).collect();
                labels
                    .ok_or_else(|| self.bad(format!("id2label: wanted text under the keys 0 to {}", names.len() - 1)))?
            }
            Some(other) => return Err(self.bad(format!("id2label: wanted an object of labels, got {other}"))),
        };
        if let Some(count) = count.filter(|&n| n != labels.len()) {
            return Err(self.bad(format!("num_labels is {count} but id2label has {}", labels.len())));
        }
        if problem_type == Some(ProblemType::SingleLabel) && labels.len() == 1 {
            return Err(self.bad("problem_type single_label_classification wants two labels or more, got 1".into()));
        }
        Ok(Task { architectures, labels, problem_type })
    }

    fn pad_token_id(&self) -> Result<Option<usize>> {
        match self.raw.get("pad_token_id") {
            None => Ok(Some(0)),
            Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(id) => Ok(Some(id as usize)),
                None => Err(self.bad(format!("pad_token_id: wanted a token's number or null, got {value}"))),
            },
        }
    }

    fn within_vocab(&self, token: Option<usize>, vocab: usize) -> Result<()> {
        match token {
            Some(id) if id >= vocab => {
                Err(self.bad(format!("pad_token_id: wanted less than vocab_size {vocab}, got {id}")))
            }
            _ => Ok(()),
        }
    }

    fn heads_divide(&self, width_key: &str, width: usize, heads_key: &str, heads: usize) -> Result<()> {
        if width.is_multiple_of(heads) {
            return Ok(());
        }
        Err(self.bad(format!("wanted {width_key} to be a multiple of {heads_key}, got {width} and {heads}")))
    }
}

fn default_labels(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("LABEL_{i}")).collect()
}
