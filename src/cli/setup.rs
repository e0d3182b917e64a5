//! From resolved settings to everything a run needs: the network, its weights, the data. The same for a new run and
//! for one that is resumed.
use super::device::Place;
use super::globals::Context;
use super::model::reading;
use super::project::missing;
use super::settings::{self, Settings};
use crate::data::{self, Dataset, Preprocess, Spec, Task};
use crate::fip::recipe::Method;
use crate::models::config::{Config, RawConfig};
use crate::models::folder::ModelFolder;
use crate::models::{Head, Network};
use crate::params::Layout;
use crate::params::atomic::Folder;
use crate::{Error, Result};
use serde_json::json;
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
    /// How images became numbers.
    pub preprocess: Preprocess,
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
        if found != Head::None {
            // A glob that matches nothing is known before data is read.
            settings.roles.resolve(&Network::new(source.config.clone(), found)?.params()?)?;
        }
        let training = settings.method == Method::Train;
        let (train, held_out, preprocess) = load(&settings, &source, found)?;
        let wanted = match train.task() {
            Task::Classification { labels } => Head::Classification { labels: labels.len() },
            Task::Regression => Head::Regression,
            Task::MaskedLm => Head::MaskedLm,
        };
        let keeps = std::mem::discriminant(&found) == std::mem::discriminant(&wanted);
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
                if found.outputs() != wanted.outputs() {
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
            Some(folder) => (network.load(folder, &layout, training.then_some(seed))?, folder.fingerprint()?),
            None => (network.initial(&layout, seed), format!("from scratch: {:?}, seed {seed}", settings.arch)),
        };
        let folder = source.folder;
        Ok(Self { settings, place, folder, network, raw, layout, weights, train, preprocess, held_out, fingerprint })
    }
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
                Ok(Self { config: folder.config.clone(), raw: folder.raw.clone(), folder: Some(folder) })
            }
            (None, Some(arch)) => {
                let raw = describe(arch)?;
                Ok(Self { folder: None, config: Config::from_raw("--arch", &raw)?, raw })
            }
            (None, None) => Err(missing("--model", "a folder or a Hugging Face id")),
        }
    }
}

/// `lenet-300-100`, or `mlp:` and the widths from input to output.
fn describe(arch: &str) -> Result<RawConfig> {
    let wrong = || {
        let hint = "write lenet-300-100, or the widths from input to output as mlp:784,300,100,10";
        Error::usage("--arch", format!("'{arch}' is not an architecture that is trained from scratch"), hint)
    };
    let widths =
        if arch == "lenet-300-100" { "784,300,100,10" } else { arch.strip_prefix("mlp:").ok_or_else(wrong)? };
    let sizes: Vec<usize> =
        widths.split(',').map(|w| w.trim().parse()).collect::<Result<_, _>>().map_err(|_| wrong())?;
    if sizes.len() < 2 {
        return Err(wrong());
    }
    let layers: Vec<String> = (1..sizes.len()).map(|i| format!("fc{i}")).collect();
    let raw = json!({ "model_type": "mlp", "sizes": sizes, "layers": layers, "hidden_act": "relu" });
    raw.as_object().cloned().ok_or_else(wrong)
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

/// Training data and held-out data, as the settings name them.
fn load(settings: &Settings, source: &Source, head: Head) -> Result<(Data, HeldOut, Preprocess)> {
    let spec: Spec =
        settings.data.as_deref().ok_or_else(|| missing("--data", "a data spec, as glue/sst2:DIR"))?.parse()?;
    // A network from scratch takes its labels' names from the data.
    let head = source.folder.as_ref().map(|_| head);
    let mut how = reading(source.folder.as_ref(), &source.config, head, settings.max_length, settings.budget.seed)?;
    match (&settings.preprocessor, &source.folder) {
        (Some(path), None) => how.preprocess = Preprocess::read(path)?,
        (Some(_), Some(_)) => {
            let what = "a model has a preprocessor_config.json of its own";
            return Err(Error::usage("--preprocessor", what, "leave it out, or change the file in the model's folder"));
        }
        (None, _) => {}
    }
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
    Ok((train, held_out, how.preprocess))
}

/// The whole held-out split that goes with training data, as it is: of drawn digits and of folders, not of single files.
fn held_out_of(spec: &Spec) -> Result<Option<Spec>> {
    let text = spec.to_string();
    let (whole, options) = text.split_once('?').unwrap_or((&text, ""));
    let alone = match spec.kind {
        data::Kind::Digits(_) => false,
        // A folder of classes without splits has none held out.
        data::Kind::Images => !spec.path.join("train").is_dir(),
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

    #[test]
    fn architectures_are_widths() {
        assert_eq!(describe("lenet-300-100").unwrap()["sizes"], json!([784, 300, 100, 10]));
        assert_eq!(describe("mlp:4, 2").unwrap()["layers"], json!(["fc1"]));
        for arch in ["lenet-5", "mlp:", "mlp:4", "mlp:4,x"] {
            assert_eq!(describe(arch).unwrap_err().exit_code(), 2, "{arch}");
        }
    }
}
