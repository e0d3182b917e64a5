//! From resolved settings to everything a run needs: the network, its weights, the data. The same for a new run and
//! for one that is resumed.
use super::arch;
use super::device::Place;
use super::globals::Context;
use super::model::{preprocessor_at, reading};
use super::project::missing;
use super::settings::{self, Settings};
use super::size::ImageSize;
use crate::data::{self, Dataset, Preprocess, Spec, Task};
use crate::fip::recipe::Method;
use crate::models::config::{Config, RawConfig};
use crate::models::folder::{self, ModelFolder};
use crate::models::{Head, Network};
use crate::params::Layout;
use crate::params::atomic::Folder;
use crate::{Error, Result};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A run that is about to start or to go on.
pub struct Setup {
    pub settings: Settings,
    pub place: Place,
    /// None for a network from scratch.
    pub folder: Option<ModelFolder>,
    pub network: Network,
    /// The `config.json` of what is written.
    pub raw: RawConfig,
    pub layout: Layout,
    pub weights: Vec<f32>,
    pub train: Box<dyn Dataset>,
    /// The `preprocessor_config.json` of what is written, where it is not the source's.
    pub preprocessor: Option<RawConfig>,
    /// What was drawn anew of a model's head, in words; empty where nothing was.
    pub new_head: String,
    /// Held-out data and what it is called.
    pub held_out: Option<(Box<dyn Dataset>, String)>,
    /// SHA-256 of the model given, or the description of one from scratch.
    pub fingerprint: String,
}

impl Setup {
    /// # Errors
    /// Of the model and the data; [`Error::Usage`] for settings that lack one of them.
    pub fn new(mut settings: Settings, context: &Context) -> Result<Self> {
        let place = settings.settle(context)?;
        let source = Source::open(&settings)?;
        let found = match &source.folder {
            Some(folder) => folder.head(None)?,
            None => source.config.head("--arch", None)?,
        };
        let new_head = settings.new_head && source.folder.is_some();
        if found != Head::None {
            // A glob that matches nothing is known before data is read.
            settings.roles.resolve(&Network::new(source.config.clone(), found)?.params()?)?;
        }
        let training = settings.method == Method::Train;
        // Labels for a new head are the data's.
        let (train, held_out, preprocessor) = load(&settings, &source, if new_head { Head::None } else { found })?;
        let wanted = match train.task() {
            Task::Classification { labels } => Head::Classification { labels: labels.len() },
            Task::Regression => Head::Regression,
            Task::MaskedLm => Head::MaskedLm,
        };
        if new_head && wanted == Head::MaskedLm {
            let what = "a masked language model has an output a word, not a head that could be another";
            return Err(Error::usage("--new-head", what, "leave it out"));
        }
        let keeps = !new_head && std::mem::discriminant(&found) == std::mem::discriminant(&wanted);
        refuse_other_scores(&settings, found, wanted)?;
        let (config, head, raw) = match (keeps, &source.folder) {
            (true, Some(_)) => (source.config, found, source.raw),
            // A path on unlabelled terms needs no targets that go with the head: `found` stays and the data's task
            // decides at the first batch whether it can be evaluated.
            (false, Some(folder)) if training => {
                let head = folder.head(Some(wanted))?;
                let raw = head.describe(&source.config, &source.raw, labels(train.task()));
                let config = Config::from_raw(&folder.dir.join("config.json").display().to_string(), &raw)?;
                (config, head, raw)
            }
            (false, Some(_)) => (source.config, found, source.raw),
            (_, None) => {
                // Other networks get a head of the data's size.
                if matches!(source.config, Config::Mlp(_)) && found.outputs() != wanted.outputs() {
                    let what = format!("{} outputs, and the data wants {}", found.outputs(), wanted.outputs());
                    return Err(Error::usage(
                        "--arch",
                        what,
                        "give the last layer as many outputs as there are classes",
                    ));
                }
                let raw = wanted.describe(&source.config, &source.raw, labels(train.task()));
                (Config::from_raw("--arch", &raw)?, wanted, raw)
            }
        };
        let network = Network::new(config, head)?;
        let params = network.params()?;
        let layout = Layout::new(&params, &settings.roles.resolve(&params)?);
        let seed = settings.budget.seed;
        let (weights, fingerprint) = match &source.folder {
            Some(folder) if new_head => (network.load_with_new_outputs(folder, &layout, seed)?, folder.fingerprint()?),
            Some(folder) => (network.load(folder, &layout, training.then_some(seed))?, folder.fingerprint()?),
            None => (network.initial(&layout, seed), format!("from scratch, seed {seed}")),
        };
        // Whatever changes the network besides its folder stands in the config.
        let changed = source.folder.is_none() || new_head || settings.image_size.is_some();
        let fingerprint = match changed {
            true => format!("{fingerprint}, config {}", folder::fingerprint(&raw)),
            false => fingerprint,
        };
        let new_head = match &source.folder {
            Some(_) if new_head => told(&network, found, format!("drawn with seed {seed}")),
            Some(_) if training && !keeps => {
                told(&network, found, format!("what the model lacks of it drawn with seed {seed}"))
            }
            _ => String::new(),
        };
        let folder = source.folder;
        Ok(Self {
            settings,
            place,
            folder,
            network,
            raw,
            layout,
            weights,
            train,
            preprocessor,
            new_head,
            held_out,
            fingerprint,
        })
    }
}

/// A head that was drawn, in words.
fn told(network: &Network, former: Head, drawn: String) -> String {
    let words = |head: Head| match head {
        Head::None => "none".to_string(),
        Head::Classification { labels } => format!("{labels} classes"),
        Head::Regression => "one score".to_string(),
        Head::MaskedLm => "masked words".to_string(),
    };
    let layers = network.output_layers();
    let layers = if layers.is_empty() { String::new() } else { format!(" ({})", layers.join(", ")) };
    format!("{}{layers}, {drawn}; the model had {}", words(network.head), words(former))
}

/// Training classes on a head of scores, or scores on one of classes: both have the same name, so that the old one would
/// be taken for the new one.
fn refuse_other_scores(settings: &Settings, found: Head, wanted: Head) -> Result<()> {
    let (has, wants) = match (found, wanted) {
        (Head::Classification { .. }, Head::Regression) => ("classes", "one score"),
        (Head::Regression, Head::Classification { .. }) => ("one score", "classes"),
        _ => return Ok(()),
    };
    if settings.method != Method::Train || settings.new_head || settings.model.is_none() {
        return Ok(());
    }
    let what = format!("wanted a head for {wants}, as the data has, got one for {has}");
    Err(Error::usage("--model", what, "add --new-head to draw another one"))
}

/// What a run starts from: a folder, or a description of a network that is still to be made.
pub struct Source {
    pub folder: Option<ModelFolder>,
    pub config: Config,
    raw: RawConfig,
}

impl Source {
    pub fn open(settings: &Settings) -> Result<Self> {
        match (&settings.model, &settings.arch) {
            (Some(model), _) => {
                let folder = ModelFolder::open(model)?;
                let (config, raw) = (folder.config.clone(), folder.raw.clone());
                Self { config, raw, folder: Some(folder) }.at_size(model, settings.image_size)
            }
            (None, Some(arch)) => {
                let file = Path::new(arch);
                let (config, raw) = if file.is_file() {
                    let text = fs::read(file).map_err(Error::io("read", file))?;
                    Config::parse(arch, &text)?
                } else {
                    let raw = arch::describe(arch)?;
                    (Config::from_raw("--arch", &raw)?, raw)
                };
                Self { folder: None, config, raw }.at_size(arch, settings.image_size)
            }
            (None, None) => Err(missing("--model", "a folder or a Hugging Face id")),
        }
    }

    /// The same for images of another size.
    fn at_size(mut self, place: &str, size: Option<ImageSize>) -> Result<Self> {
        if let Some(size) = size {
            (self.config, self.raw) = self.config.at_size(place, &self.raw, size.sides(), self.folder.is_some())?;
        }
        Ok(self)
    }
}

fn labels(task: &Task) -> &[String] {
    match task {
        Task::Classification { labels } => labels,
        _ => &[],
    }
}

type Data = Box<dyn Dataset>;
/// Held-out data and what it is called.
type HeldOut = Option<(Data, String)>;

/// Training data and held-out data, as the settings name them; and how images become numbers, where the model's folder
/// does not say it.
fn load(settings: &Settings, source: &Source, head: Head) -> Result<(Data, HeldOut, Option<RawConfig>)> {
    let spec: Spec =
        settings.data.as_deref().ok_or_else(|| missing("--data", "a data spec, as glue/sst2:DIR"))?.parse()?;
    // A network from scratch takes its labels' names from the data.
    let head = source.folder.as_ref().map(|_| head);
    let mut how = reading(source.folder.as_ref(), &source.config, head, settings.max_length, settings.budget.seed)?;
    let preprocessor = match &source.folder {
        Some(folder) => {
            let map = preprocessor_at(folder, settings.image_size)?;
            if let Some(map) = &map {
                how.preprocess = Preprocess::from_map(map, &folder.dir.display().to_string())?;
            }
            map
        }
        None => {
            if let Some(path) = &settings.preprocessor {
                how.preprocess = Preprocess::read(path)?;
            }
            Some(how.preprocess.to_map())
        }
    };
    let train = data::load(&spec, "train", &how)?;
    if let (None, Task::Classification { labels }) = (&how.labels, train.task()) {
        how.labels = Some(labels.clone());
    }
    let held_out = match settings.eval_data.as_deref() {
        Some("none") => None,
        Some(text) => Some(text.parse::<Spec>()?),
        None => held_out_of(&spec)?,
    };
    let held_out = match held_out {
        None => None,
        Some(spec) => Some((data::load(&spec, "test", &how)?, spec.split.unwrap_or_else(|| "held-out".into()))),
    };
    Ok((train, held_out, preprocessor))
}

/// The whole held-out split that goes with training data, as it is: of drawn digits and of folders, not of single files.
fn held_out_of(spec: &Spec) -> Result<Option<Spec>> {
    let text = spec.to_string();
    let (whole, options) = text.split_once('?').unwrap_or((&text, ""));
    let alone = match spec.kind {
        data::Kind::Digits(_) => false,
        // A folder of classes without splits has none held out.
        data::Kind::Images => !data::images::folders::has_splits(&spec.path),
        _ => !spec.path.is_dir(),
    };
    if alone {
        return Ok(None);
    }
    let of_training =
        |option: &&str| ["limit=", "seed=", "split=", "augment="].iter().any(|key| option.starts_with(key));
    let kept: Vec<&str> = options.split('&').filter(|o| !o.is_empty() && !of_training(o)).collect();
    let text = if kept.is_empty() { whole.to_string() } else { format!("{whole}?{}", kept.join("&")) };
    text.parse().map(Some)
}

/// A run's folder in the making, so that one that cannot be written is known before data is read.
///
/// # Errors
/// [`Error::Usage`] for one that is there and not empty, without `overwrite`; [`Error::Io`].
pub fn claim(out: Option<&Path>, overwrite: bool) -> Result<Folder> {
    let out = out.ok_or_else(|| missing("--out", "a folder for the run"))?;
    Folder::create(out, overwrite)
}

/// Puts the run's folder in its place, with the settings in it and nothing else yet.
pub fn found(folder: Folder, settings: &Settings) -> Result<PathBuf> {
    let text = settings.to_toml()?;
    folder.write(settings::FILE, |w| w.write_all(text.as_bytes()))?;
    folder.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_data_is_the_whole_other_split() {
        let of = |text: &str| held_out_of(&text.parse().unwrap()).unwrap().map(|s| s.to_string());
        assert_eq!(of("digits:200?seed=3&limit=10").as_deref(), Some("digits:200"));
        assert_eq!(of("digits:9?augment=crop:2").as_deref(), Some("digits:9"));
        assert_eq!(of("images:."), None);
        assert_eq!(of("text:no-such-file.tsv?limit=5"), None);
        assert_eq!(of("text:.?limit=5&label=y&split=train").as_deref(), Some("text:.?label=y"));
    }

    /// A run that is resumed must not go on with another network than it began with.
    #[test]
    fn a_network_from_scratch_is_known_by_its_whole_config() {
        use crate::cli::output::Output;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("net.json");
        let context = Context {
            output: Output::new(false, true),
            seed: None,
            file: None,
            threads: None,
            device: Some(crate::cli::device::Which::Cpu),
            dtype: None,
        };
        let print = |act: &str, seed: u64| {
            let text = format!(
                r#"{{"model_type": "mlp", "sizes": [784, 9, 10], "layers": ["a", "b"], "hidden_act": "{act}"}}"#
            );
            fs::write(&file, text).unwrap();
            let mut settings = Settings { arch: Some(file.display().to_string()), ..Settings::default() };
            (settings.method, settings.data, settings.budget.seed) = (Method::Train, Some("digits:20".into()), seed);
            Setup::new(settings, &context).unwrap().fingerprint
        };
        let first = print("relu", 3);
        assert_eq!(first, print("relu", 3));
        assert_ne!(first, print("tanh", 3));
        assert_ne!(first, print("relu", 4));
    }
}
