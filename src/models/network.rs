//! A network that can be built at any batch shape: a config, a head, and the weights that go with them.
use super::config::Config;
use super::folder::ModelFolder;
use super::head::Head;
use super::sample::{Pixels, Sample};
use super::{bert, distilbert, mlp};
use crate::graph::{Graph, Kind, Param, Scope, Value, build};
use crate::params::{Layout, Span};
use crate::rng::Rng;
use crate::tensor::View;
use crate::{Error, Result};

/// A model's architecture with its head, from which graphs are built.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    pub config: Config,
    pub head: Head,
}

/// Streams of random numbers for initial weights start here; one a parameter.
const INITIAL: u64 = 1 << 40;

impl Network {
    /// # Errors
    /// [`Error::Model`] for a base network, which has no outputs.
    pub fn new(config: Config, head: Head) -> Result<Self> {
        if head == Head::None {
            let what = format!("this {} has no task head, so it has no logits", config.model_type());
            return Err(Error::model(
                "config.json",
                what,
                "give it one with `fipk train --model .. --data .. --out DIR`",
            ));
        }
        Ok(Self { config, head })
    }

    /// Logits of a batch of `rows` samples of so many tokens or pixels, in `scope`.
    pub fn logits(&self, scope: &Scope, rows: usize, sample: impl Into<Sample>) -> Value {
        let seq = sample.into().tokens();
        match &self.config {
            Config::Bert(cfg) => bert::logits(scope, cfg, self.head, rows, seq),
            Config::DistilBert(cfg) => distilbert::logits(scope, cfg, self.head, rows, seq),
            Config::Mlp(cfg) => mlp::logits(scope, cfg, rows),
        }
    }

    /// A graph with the mark "logits".
    ///
    /// # Errors
    /// [`Error::Graph`] for a batch shape that the network does not take (more tokens than positions).
    pub fn graph(&self, rows: usize, sample: impl Into<Sample>) -> Result<Graph> {
        let sample = sample.into();
        build(|s| s.mark("logits", self.logits(s, rows, sample)))
    }

    /// The parameters, in the order the network is built; the same for every batch shape.
    pub fn params(&self) -> Result<Vec<Param>> {
        Ok(self.graph(1, self.sample())?.params)
    }

    /// Whether the network reads tokens, and then up to how many.
    pub fn max_tokens(&self) -> Option<usize> {
        match &self.config {
            Config::Bert(cfg) => Some(cfg.max_position_embeddings),
            Config::DistilBert(cfg) => Some(cfg.max_position_embeddings),
            Config::Mlp(_) => None,
        }
    }

    /// The `pixel_values` an image network takes; `None` for one that reads text.
    pub fn pixels(&self) -> Option<Pixels> {
        match &self.config {
            Config::Bert(_) | Config::DistilBert(_) => None,
            Config::Mlp(cfg) => Some(Pixels::Flat(cfg.sizes[0])),
        }
    }

    /// A sample of the network's own size: its images, or one token.
    pub fn sample(&self) -> Sample {
        match self.pixels() {
            Some(Pixels::Image { height, width, .. }) => Sample::Image { height, width },
            _ => Sample::Tokens(1),
        }
    }

    /// Whether it takes `token_type_ids`.
    pub fn has_types(&self) -> bool {
        matches!(self.config, Config::Bert(_))
    }

    /// Inputs of indices, with the number of rows of the table each one chooses from.
    pub fn index_limits(&self) -> Vec<(&'static str, usize)> {
        match &self.config {
            Config::Bert(cfg) => {
                vec![("input_ids", cfg.vocab_size), ("token_type_ids", cfg.type_vocab_size), ("attention_mask", 2)]
            }
            Config::DistilBert(cfg) => vec![("input_ids", cfg.vocab_size), ("attention_mask", 2)],
            Config::Mlp(_) => vec![],
        }
    }

    /// The weights of `folder` in `layout`. With `fresh: Some(seed)` parameters of the head that the folder lacks are drawn
    /// as Hugging Face draws them.
    ///
    /// # Errors
    /// [`Error::Model`] for a missing tensor, a wrong shape, or a number that is not finite.
    pub fn load(&self, folder: &ModelFolder, layout: &Layout, fresh: Option<u64>) -> Result<Vec<f32>> {
        let mut weights = vec![0.0; layout.len()];
        for (nth, span) in layout.spans().iter().enumerate() {
            let out = &mut weights[span.range()];
            match (folder.resolve(&span.name), fresh) {
                (Some(source), _) => folder.weights.read(&source, &span.shape, out)?,
                (None, Some(seed)) if self.in_head(span) => {
                    self.draw(span, &mut Rng::new(seed, INITIAL + nth as u64), out)
                }
                (None, _) => {
                    let there: Vec<&str> = folder.weights.names().take(3).collect();
                    return Err(Error::model(
                        folder.dir.display().to_string(),
                        format!("no tensor '{}' {:?}; the first ones are {there:?}", span.name, span.shape),
                        "check that config.json belongs to these weights; `fipk train` makes a missing head",
                    ));
                }
            }
        }
        Ok(weights)
    }

    /// Initial weights for training from nothing.
    pub fn initial(&self, layout: &Layout, seed: u64) -> Vec<f32> {
        let mut weights = vec![0.0; layout.len()];
        for (nth, span) in layout.spans().iter().enumerate() {
            self.draw(span, &mut Rng::new(seed, INITIAL + nth as u64), &mut weights[span.range()]);
        }
        weights
    }

    fn in_head(&self, span: &Span) -> bool {
        let prefix = self.config.base_prefix().unwrap_or_default();
        !span.name.starts_with(prefix) || span.name.contains("pooler")
    }

    /// Hugging Face's initial weights for transformers (normal, `initializer_range`), PyTorch's for linear
    /// layers otherwise (uniform in ±1/√fan-in).
    fn draw(&self, span: &Span, rng: &mut Rng, out: &mut [f32]) {
        let range = match &self.config {
            Config::Bert(cfg) => Some(cfg.initializer_range),
            Config::DistilBert(cfg) => Some(cfg.initializer_range),
            Config::Mlp(_) => None,
        };
        match (span.kind, range) {
            (Kind::Norm, _) => out.fill(1.0),
            (Kind::Bias, Some(_)) => out.fill(0.0),
            (_, Some(std)) => out.iter_mut().for_each(|w| *w = rng.normal() * std as f32),
            (_, None) => {
                let bound = 1.0 / (self.fan_in(span) as f32).sqrt();
                out.iter_mut().for_each(|w| *w = (2.0 * rng.uniform() - 1.0) * bound);
            }
        }
    }

    fn fan_in(&self, span: &Span) -> usize {
        match (&self.config, span.kind) {
            (Config::Mlp(cfg), Kind::Bias) => {
                let layer = cfg.layers.iter().position(|l| span.name.strip_suffix(".bias") == Some(l));
                layer.map_or(span.len, |l| cfg.sizes[l])
            }
            _ => span.matrix().1,
        }
    }

    /// The parameters as named tensors, for [`ModelFolder::write`].
    pub fn tensors<'a>(&self, layout: &'a Layout, weights: &'a [f32]) -> Vec<(&'a str, View<'a>)> {
        layout.spans().iter().map(|s| (s.name.as_str(), View { data: &weights[s.range()], shape: &s.shape })).collect()
    }
}
