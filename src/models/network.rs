//! A network that can be built at any batch shape: a config, a head, and the weights that go with them.
use super::config::{Config, VitFamily};
use super::folder::ModelFolder;
use super::head::Head;
use super::sample::{Pixels, Sample};
use super::{bert, distilbert, mlp, resnet, vgg, vit};
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
        let sample = sample.into();
        let seq = sample.tokens();
        match &self.config {
            Config::Bert(cfg) => bert::logits(scope, cfg, self.head, rows, seq),
            Config::DistilBert(cfg) => distilbert::logits(scope, cfg, self.head, rows, seq),
            Config::Vit(cfg) => vit::logits(scope, cfg, self.head, rows, sample),
            Config::ResNet(cfg) => resnet::logits(scope, cfg, self.head, rows, sample),
            Config::ResNetCifar(cfg) => resnet::cifar_logits(scope, cfg, self.head, rows, sample),
            Config::Vgg(cfg) => vgg::logits(scope, cfg, self.head, rows, sample),
            Config::LeNet5(cfg) => vgg::lenet5_logits(scope, cfg, self.head, rows, sample),
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
            _ => None,
        }
    }

    /// The `pixel_values` an image network takes; `None` for one that reads text.
    pub fn pixels(&self) -> Option<Pixels> {
        let (channels, (height, width)) = match &self.config {
            Config::Bert(_) | Config::DistilBert(_) => return None,
            Config::Vit(cfg) => (cfg.num_channels, cfg.image_size),
            Config::ResNet(cfg) => (cfg.num_channels, cfg.image_size),
            Config::ResNetCifar(cfg) => (cfg.num_channels, cfg.image_size),
            Config::Vgg(cfg) => (cfg.num_channels, cfg.image_size),
            Config::LeNet5(cfg) => (cfg.num_channels, cfg.image_size),
            Config::Mlp(cfg) => return Some(Pixels::Flat(cfg.sizes[0])),
        };
        Some(Pixels::Image { channels, height, width })
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
            _ => vec![],
        }
    }

    /// The weights of `folder` in `layout`. With `fresh: Some(seed)` parameters of the head that the folder lacks are drawn
    /// as Hugging Face draws them.
    ///
    /// # Errors
    /// [`Error::Model`] for a missing tensor, a wrong shape, or a number that is not finite.
    pub fn load(&self, folder: &ModelFolder, layout: &Layout, fresh: Option<u64>) -> Result<Vec<f32>> {
        self.fill(folder, layout, fresh, &[])
    }

    /// As [`Network::load`], with the layers that give the outputs drawn anew whatever the folder has for them.
    ///
    /// # Errors
    /// As [`Network::load`].
    pub fn load_with_new_outputs(&self, folder: &ModelFolder, layout: &Layout, seed: u64) -> Result<Vec<f32>> {
        self.fill(folder, layout, Some(seed), &self.output_layers())
    }

    /// The names of the linear maps that give the outputs: all whose size depends on the number of labels.
    pub fn output_layers(&self) -> Vec<&str> {
        match &self.config {
            _ if self.head == Head::MaskedLm => vec![],
            Config::Bert(_) | Config::DistilBert(_) => vec!["classifier"],
            Config::Vit(cfg) if cfg.with_teacher() => vec!["cls_classifier", "distillation_classifier"],
            Config::Vit(_) => vec!["classifier"],
            Config::ResNet(_) => vec!["classifier.1"],
            Config::ResNetCifar(_) => vec!["linear"],
            Config::Vgg(cfg) => cfg.classifier.last().map(String::as_str).into_iter().collect(),
            Config::LeNet5(_) => vec!["fc3"],
            Config::Mlp(cfg) => cfg.layers.last().map(String::as_str).into_iter().collect(),
        }
    }

    /// The weights of `folder`; those of the layers `anew`, and with a seed those of the head that it lacks, are drawn.
    fn fill(&self, folder: &ModelFolder, layout: &Layout, fresh: Option<u64>, anew: &[&str]) -> Result<Vec<f32>> {
        let mut weights = vec![0.0; layout.len()];
        let is_anew = |span: &Span| {
            let layer = span.name.strip_suffix(".weight").or(span.name.strip_suffix(".bias"));
            layer.is_some_and(|layer| anew.contains(&layer))
        };
        for (nth, span) in layout.spans().iter().enumerate() {
            let out = &mut weights[span.range()];
            let stored = if is_anew(span) { None } else { folder.resolve(&span.name) };
            match (stored, fresh) {
                (Some(source), _) => self.read(folder, &source, span, out)?,
                (None, Some(seed)) if is_anew(span) => {
                    self.draw(layout, span, &mut Rng::new(seed, INITIAL + nth as u64), out)
                }
                (None, Some(seed)) if self.in_head(span) => {
                    self.draw(layout, span, &mut Rng::new(seed, INITIAL + nth as u64), out)
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

    /// A stored tensor; position embeddings of another size of image are interpolated to the network's own.
    fn read(&self, folder: &ModelFolder, source: &str, span: &Span, out: &mut [f32]) -> Result<()> {
        let stored = folder.weights.info(source).map(|info| info.shape.clone()).unwrap_or_default();
        let positions = span.name.ends_with("embeddings.position_embeddings");
        let (true, &[1, count, width], Config::Vit(cfg)) = (positions, &stored[..], &self.config) else {
            return folder.weights.read(source, &span.shape, out);
        };
        let to = cfg.grid(cfg.image_size);
        let from = vit::stored_grid(&folder.config, count).filter(|from| *from != to && width == cfg.hidden_size);
        let Some(from) = from else { return folder.weights.read(source, &span.shape, out) };
        let mut table = vec![0.0; count * width];
        folder.weights.read(source, &stored, &mut table)?;
        vit::interpolation(cfg, from, to).table(&table, width, out);
        Ok(())
    }

    /// Initial weights for training from nothing.
    pub fn initial(&self, layout: &Layout, seed: u64) -> Vec<f32> {
        let mut weights = vec![0.0; layout.len()];
        for (nth, span) in layout.spans().iter().enumerate() {
            self.draw(layout, span, &mut Rng::new(seed, INITIAL + nth as u64), &mut weights[span.range()]);
        }
        weights
    }

    fn in_head(&self, span: &Span) -> bool {
        let prefix = self.config.base_prefix().unwrap_or_default();
        !span.name.starts_with(prefix) || span.name.contains("pooler")
    }

    /// Initial weights as the sources of each network draw them.
    ///
    /// Transformers: normal, `initializer_range`. Convolutional networks: He's normal numbers, by inputs in akamaster's
    /// networks, by outputs elsewhere; torchvision's classifiers of VGG normal, 0.01. Else PyTorch's own, uniform in
    /// ±1/√inputs.
    fn draw(&self, layout: &Layout, span: &Span, rng: &mut Rng, out: &mut [f32]) {
        match span.kind {
            Kind::Norm => return out.fill(1.0),
            Kind::Statistic => return out.fill(if span.name.ends_with("var") { 1.0 } else { 0.0 }),
            _ => {}
        }
        let (outputs, inputs) = span.matrix();
        let taps = span.shape.get(2..).unwrap_or_default().iter().product::<usize>();
        let convolution = span.shape.len() == 4;
        let normalised =
            span.kind == Kind::Bias && layout.span(&weight_of(&span.name)).is_some_and(|w| w.kind == Kind::Norm);
        let by_outputs = (2.0 / (outputs * taps).max(1) as f64).sqrt();
        let normal = match (&self.config, span.kind) {
            // As `transformers` begins DeiT's tokens and positions.
            (Config::Vit(cfg), Kind::Embedding) if cfg.family == VitFamily::Deit => Some(0.0),
            (Config::Bert(_) | Config::DistilBert(_) | Config::Vit(_) | Config::Vgg(_), Kind::Bias) => Some(0.0),
            (Config::Bert(cfg), _) => Some(cfg.initializer_range),
            (Config::DistilBert(cfg), _) => Some(cfg.initializer_range),
            (Config::Vit(cfg), _) => Some(cfg.initializer_range),
            _ if normalised => Some(0.0),
            (Config::ResNetCifar(_), Kind::Weight | Kind::Head) => Some((2.0 / inputs as f64).sqrt()),
            (Config::ResNet(_) | Config::Vgg(_), Kind::Weight) if convolution => Some(by_outputs),
            (Config::Vgg(_), _) => Some(0.01),
            _ => None,
        };
        match normal {
            Some(0.0) => out.fill(0.0),
            Some(std) => out.iter_mut().for_each(|w| *w = rng.normal() * std as f32),
            None => {
                let inputs = match span.kind {
                    Kind::Bias => layout.span(&weight_of(&span.name)).map_or(span.len, |w| w.matrix().1),
                    _ => inputs,
                };
                let bound = 1.0 / (inputs as f32).sqrt();
                out.iter_mut().for_each(|w| *w = (2.0 * rng.uniform() - 1.0) * bound);
            }
        }
    }

    /// The parameters as named tensors, for [`ModelFolder::write`].
    pub fn tensors<'a>(&self, layout: &'a Layout, weights: &'a [f32]) -> Vec<(&'a str, View<'a>)> {
        layout.spans().iter().map(|s| (s.name.as_str(), View { data: &weights[s.range()], shape: &s.shape })).collect()
    }
}

/// The weight that stands beside a bias.
fn weight_of(bias: &str) -> String {
    format!("{}weight", bias.strip_suffix("bias").unwrap_or(bias))
}
