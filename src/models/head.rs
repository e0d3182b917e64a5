//! What stands on top of the network: read from a config, chosen anew, written back into a config.
use super::config::{Config, ProblemType, RawConfig, VitConfig};
use crate::{Error, Result};
use serde_json::{Value, json};

/// A network's output layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A base network (`BertModel`): it has no logits until training gives it a head.
    None,
    /// One logit a class.
    Classification { labels: usize },
    /// One number.
    Regression,
    /// One logit a word of the vocabulary, at every position.
    MaskedLm,
}

impl Config {
    /// The head the config names by `architectures`, `problem_type` and its labels, or the `wanted` one.
    /// `Error::Unsupported` for a task fipk has no head for; a `wanted` head needs none in the file.
    pub fn head(&self, place: &str, wanted: Option<Head>) -> Result<Head> {
        let task = self.task();
        let labels = task.labels.len();
        let hint =
            "fipk does sequence and image classification, one-number regression and, for BERT, masked language models";
        let unsupported = |what: String| Err(Error::unsupported(place, what, hint));
        let head = match wanted {
            Some(head) => head,
            None => match (self, task.architectures.first().map(String::as_str)) {
                (Self::Bert(_), Some("BertForMaskedLM" | "BertForPreTraining")) => Head::MaskedLm,
                (Self::Bert(_), None | Some("BertModel")) => Head::None,
                (Self::DistilBert(_), None | Some("DistilBertModel")) => Head::None,
                (Self::Vit(_), None | Some("ViTModel" | "DeiTModel")) => Head::None,
                (Self::ResNet(_), None | Some("ResNetModel")) => Head::None,
                (Self::Bert(_), Some("BertForSequenceClassification"))
                | (Self::DistilBert(_), Some("DistilBertForSequenceClassification"))
                | (
                    Self::Vit(_),
                    Some("ViTForImageClassification" | "DeiTForImageClassification" | VitConfig::WITH_TEACHER),
                )
                | (Self::ResNet(_), Some("ResNetForImageClassification"))
                | (Self::ResNetCifar(_) | Self::Vgg(_) | Self::LeNet5(_) | Self::Mlp(_), _) => {
                    match (task.problem_type, labels) {
                        (Some(ProblemType::MultiLabel), _) => {
                            return unsupported("problem_type \"multi_label_classification\"".into());
                        }
                        (Some(ProblemType::Regression), 2..) => {
                            return unsupported(format!("regression to {labels} numbers"));
                        }
                        (Some(ProblemType::Regression), _) | (None, 1) => Head::Regression,
                        _ => Head::Classification { labels },
                    }
                }
                (_, Some(class)) => return unsupported(format!("architecture {class:?}")),
            },
        };
        match (self, head) {
            (Self::Bert(_), Head::MaskedLm) => Ok(head),
            (_, Head::MaskedLm) => unsupported(format!("a masked language model on {}", self.model_type())),
            (config, Head::None) if config.own() => unsupported(format!("{} without outputs", self.model_type())),
            (_, Head::Classification { labels: 0 | 1 }) => Err(Error::model(
                place,
                format!("wanted two classes or more, got {}", head.outputs()),
                "check the labels",
            )),
            _ => Ok(head),
        }
    }
}

impl Head {
    /// Logits a sample, or a position; the vocabulary's size is not known here and counts as 0.
    pub fn outputs(self) -> usize {
        match self {
            Self::Classification { labels } => labels,
            Self::Regression => 1,
            Self::None | Self::MaskedLm => 0,
        }
    }

    /// A copy of `raw` that describes `config`'s network with this head: `architectures`, labels and
    /// `problem_type`, as `transformers` writes them. `labels` names the classes in the order of the logits
    /// (`LABEL_i` for those it does not name).
    pub fn describe(self, config: &Config, raw: &RawConfig, labels: &[String]) -> RawConfig {
        let mut raw = raw.clone();
        let class = match (config, self) {
            (Config::Bert(_), Self::None) => Some("BertModel"),
            (Config::Bert(_), Self::MaskedLm) => Some("BertForMaskedLM"),
            (Config::Bert(_), _) => Some("BertForSequenceClassification"),
            (Config::DistilBert(_), Self::None) => Some("DistilBertModel"),
            (Config::DistilBert(_), _) => Some("DistilBertForSequenceClassification"),
            (Config::Vit(cfg), Self::None) => Some(cfg.base_class()),
            (Config::Vit(cfg), _) => Some(cfg.class()),
            (Config::ResNet(_), Self::None) => Some("ResNetModel"),
            (Config::ResNet(_), _) => Some("ResNetForImageClassification"),
            (Config::ResNetCifar(_) | Config::Vgg(_) | Config::LeNet5(_) | Config::Mlp(_), _) => None,
        };
        if let Some(class) = class {
            raw.insert("architectures".into(), json!([class]));
        }
        let problem = match self {
            Self::Classification { .. } => "single_label_classification",
            Self::Regression => "regression",
            Self::None | Self::MaskedLm => return raw,
        };
        let count = self.outputs();
        let names: Vec<_> =
            (0..count).map(|i| labels.get(i).cloned().unwrap_or_else(|| format!("LABEL_{i}"))).collect();
        let id2label: RawConfig = names.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect();
        let label2id: RawConfig = names.iter().enumerate().map(|(i, name)| (name.clone(), json!(i))).collect();
        raw.insert("id2label".into(), id2label.into());
        raw.insert("label2id".into(), label2id.into());
        raw.insert("problem_type".into(), json!(problem));
        // `transformers` counts the labels; forms of fipk's own, and a file that has the key, say the number as well.
        if config.own() || raw.contains_key("num_labels") {
            raw.insert("num_labels".into(), json!(count));
        }
        if let (Config::Mlp(_), Some(Value::Array(sizes))) = (config, raw.get_mut("sizes"))
            && let Some(last) = sizes.last_mut()
        {
            *last = json!(count);
        }
        raw
    }
}
