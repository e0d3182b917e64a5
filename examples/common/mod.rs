//! Where the examples start: a stored model and data of one's choice, or a small network that is trained here.
use fipk::data::{self, Dataset, Form, Reading};
use fipk::engine::{Engine, Host, Vector};
use fipk::fip::recipe::{Method, Preset};
use fipk::fip::run::{Job, Run};
use fipk::models::folder::ModelFolder;
use fipk::models::{Config, Head, Network, Pixels};
use fipk::params::{Layout, Roles};
use fipk::report::Recorder;
use fipk::{Error, Result};
use serde_json::json;
use std::sync::atomic::AtomicBool;

/// A network on an engine, its weights, and data to look at its outputs on.
pub struct Start {
    pub network: Network,
    pub engine: Box<dyn Engine>,
    pub w: Vector,
    pub data: Box<dyn Dataset>,
}

/// From the arguments `MODEL DATA`; without them a small network, trained for a second, on `digits`.
pub fn start(digits: &str) -> Result<Start> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (network, weights, data) = match &args[..] {
        [] => trained(digits)?,
        [model, spec] => {
            let (network, weights, mut data) = stored(model, &[(spec, "test")])?;
            (network, weights, data.swap_remove(0))
        }
        _ => {
            return Err(Error::usage(
                "arguments",
                format!("{args:?}"),
                "give a model's folder and a data spec, or none",
            ));
        }
    };
    let (engine, w) = on_host(&network, &weights)?;
    Ok(Start { network, engine, w, data })
}

/// An engine with the weights in it.
pub fn on_host(network: &Network, weights: &[f32]) -> Result<(Box<dyn Engine>, Vector)> {
    // Prunable weights come first in the layout, as its roles say.
    let mut engine: Box<dyn Engine> = Box::new(Host::new(layout(network)?));
    let w = engine.zeros()?;
    engine.write(w, 0, weights)?;
    Ok((engine, w))
}

fn layout(network: &Network) -> Result<Layout> {
    let params = network.params()?;
    Ok(Layout::new(&params, &Roles::default().resolve(&params)?))
}

type Found = (Network, Vec<f32>, Box<dyn Dataset>);

/// A network, its weights, and one data set a spec.
pub type Stored = (Network, Vec<f32>, Vec<Box<dyn Dataset>>);

/// A Hugging Face folder (or one of fipk's own) with a classification head, and data of (spec, split unless it names one).
pub fn stored(model: &str, specs: &[(&str, &str)]) -> Result<Stored> {
    let folder = ModelFolder::open(model)?;
    let network = Network::new(folder.config.clone(), folder.head(None)?)?;
    let weights = network.load(&folder, &layout(&network)?, None)?;
    let form = match network.pixels() {
        Some(Pixels::Image { channels, .. }) => Form::Planes { channels },
        _ => Form::Flat,
    };
    let reading = Reading {
        tokenizer: Some(folder.dir.clone()).filter(|_| network.max_tokens().is_some()),
        labels: Some(folder.config.task().labels.clone()).filter(|labels| !labels.is_empty()),
        preprocess: data::Preprocess::load(&folder.dir)?,
        form,
        ..Reading::default()
    };
    let data = specs.iter().map(|(spec, split)| data::load(&spec.parse()?, split, &reading)).collect::<Result<_>>()?;
    Ok((network, weights, data))
}

/// 784-32-10, a hundred steps on drawn digits.
fn trained(digits: &str) -> Result<Found> {
    let raw = json!({ "model_type": "mlp", "sizes": [784, 32, 10], "layers": ["fc1", "fc2"], "hidden_act": "tanh" });
    let config = Config::from_raw("example", raw.as_object().unwrap_or(&serde_json::Map::new()))?;
    let network = Network::new(config, Head::Classification { labels: 10 })?;
    let train = data::load(&"digits:1000".parse()?, "train", &Reading::default())?;
    let mut recipe = Preset::Fip.recipe(Method::Train, 50);
    (recipe.optimization.learning_rate, recipe.budget.steps) = (5e-3, Some(100));
    let layout = layout(&network)?;
    let job = Job {
        network: network.clone(),
        weights: &network.initial(&layout, 0),
        train: &*train,
        held_out: None,
        recipe,
        checkpoints: None,
        path: None,
        model: "example".into(),
    };
    let run = Run::new(&job, Box::new(Host::new(layout)))?;
    let outcome = run.drive(&mut Recorder::none(), &mut |_| (), &AtomicBool::new(false))?;
    Ok((network, outcome.weights, data::load(&digits.parse()?, "test", &Reading::default())?))
}
