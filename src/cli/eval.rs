//! `fipk eval`: a model's metrics on a data set.
use super::globals::Context;
use super::model::Model;
use super::output::facts;
use super::project::missing;
use super::require::{self, Requirement};
use super::runs::metric;
use super::settings::Settings;
use super::size::ImageSize;
use crate::data::{self, Spec};
use crate::fip::evaluate::evaluate;
use crate::fip::recipe::Objective;
use crate::fip::runner::Runner;
use crate::params::Roles;
use crate::report::numbers::grouped;
use crate::{Error, Result};
use serde_json::json;

/// Measure a model on data: accuracy, F1, Matthews, Pearson and Spearman, perplexity
///
/// What is measured follows the model's head: classes give loss and accuracy (two classes F1 of class 1 and Matthews'
/// correlation as well), scores give Pearson and Spearman, masked tokens give accuracy and perplexity.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk eval --model run/model --data glue/sst2:SST-2
  fipk eval --model lenet/model --data mnist:MNIST --require 'accuracy>=0.98'
  fipk eval --model vit --data cifar10:CIFAR --image-size 160
  fipk eval --model run/model --data 'text:reviews.csv?text=body&label=stars&limit=1000' --json")]
pub struct Args {
    /// Folder with config.json and safetensors, or a Hugging Face id in the local cache
    #[arg(long, value_name = "DIR|ID")]
    model: Option<String>,
    /// Data to measure on, as KIND:PATH?key=value; the held-out split unless ?split= names another
    #[arg(long, value_name = "SPEC")]
    data: Option<String>,
    /// Examples in a batch [default: 32]
    #[arg(long, value_name = "EXAMPLES", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Most tokens of a text, special ones included; longer ones are cut [default: 128]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(3..))]
    max_length: Option<u32>,
    /// Pixels of the images the network sees, both sides or HEIGHTxWIDTH; a vision transformer's positions are interpolated
    /// [default: the model's own]
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<ImageSize>,
    /// End with exit code 3 unless this is met, as 'accuracy>=0.95'; repeatable
    #[arg(long, value_name = "CONDITION")]
    require: Vec<Requirement>,
}

pub fn run(args: Args, context: &Context) -> Result<()> {
    let settings = Settings::of_file(context)?;
    let place = settings.look(context)?;
    let name = args.model.or(settings.model).ok_or_else(|| missing("--model", "a folder or a Hugging Face id"))?;
    let of_file = settings.eval_data.filter(|d| d != "none").or(settings.data);
    let text = args.data.or(of_file).ok_or_else(|| missing("--data", "a data spec, as glue/sst2:DIR"))?;
    let spec: Spec = text.parse()?;
    let model = Model::open_at(&name, args.image_size)?;
    let max_length = args.max_length.map_or(settings.max_length, |n| n as usize);
    let reading = model.reading(max_length, context.seed.unwrap_or(settings.budget.seed))?;
    let data = data::load(&spec, "test", &reading)?;
    let (engine, w) = model.engine(place, model.layout(&Roles::default())?)?;
    let mut runner = Runner::new(engine, model.network.clone(), Objective::default());
    let found = evaluate(&mut runner, w, &*data, args.batch.map_or(32, |n| n as usize))?;
    if let Some((name, _)) = found.metrics.iter().find(|(_, value)| !value.is_finite()) {
        return Err(Error::not_finite("evaluation", name.as_str(), "check the model's weights"));
    }

    let object = json!({ "model": name, "data": text, "examples": data.len(), "metrics": found.metrics });
    let mut rows = vec![("examples", grouped(data.len() as u64))];
    rows.extend(found.metrics.iter().map(|(name, value)| (name.as_str(), metric(name, *value))));
    context.output.result(&object, &[facts(&rows)])?;
    require::check(&args.require, &found.metrics)
}
