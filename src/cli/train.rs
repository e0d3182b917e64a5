//! `fipk train`: supervised training, from a checkpoint or from scratch.
use super::files::{DataFlags, OutFlags};
use super::flags::{BudgetFlags, OptimizerFlags};
use super::globals::Context;
use super::project::missing;
use super::runs::{self, Manner};
use super::settings::Settings;
use super::setup::{self, Setup, Source};
use crate::Result;
use crate::fip::recipe::Method;
use std::path::PathBuf;

/// Train a network with labels: fine-tune a checkpoint, or make an mlp from scratch
///
/// A checkpoint that has no head for the data's task gets one, sized from the data's labels and drawn as
/// `transformers` draws it. What is written loads in `transformers` as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk train --model minilm --data glue/sst2:SST-2 --epochs 3 --out sst2
  fipk train --model minilm --data 'text:reviews.csv?text=body&label=stars' --eval-data text:held-out.csv --out stars
  fipk train --arch lenet-300-100 --data mnist:MNIST --epochs 20 --out lenet
  fipk train --arch mlp:3072,512,10 --data 'cifar10:CIFAR?augment=flip,crop:4' --epochs 5 --out mlp
  fipk train --arch mlp:784,64,10 --data digits:5000 --steps 500 --out small")]
pub struct Args {
    /// Folder with config.json and safetensors, or a Hugging Face id in the local cache
    #[arg(long, value_name = "DIR|ID", conflicts_with = "arch")]
    model: Option<String>,
    /// A network from scratch: lenet-300-100, or widths from input to output as mlp:784,300,100,10
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// How images become numbers for a network from scratch: a preprocessor_config.json, as `fipk data --json` makes it
    /// [default: scaled to 0..1, and resized to what the network takes]
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    preprocessor: Option<PathBuf>,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    out: OutFlags,
    #[command(flatten)]
    optimizer: OptimizerFlags,
    #[command(flatten)]
    budget: BudgetFlags,
    /// Do not train what matches: globs on parameter names; * crosses dots; repeatable
    #[arg(long, value_name = "GLOB")]
    freeze: Vec<String>,
}

pub fn run(args: Args, context: &Context) -> Result<()> {
    let of_file = Settings::of_file(context)?;
    let (model, arch) = match (args.model, args.arch) {
        (None, None) => (of_file.model.clone(), of_file.arch.clone()),
        given => given,
    };
    if model.is_none() && arch.is_none() {
        return Err(missing("--model or --arch", "a folder, a Hugging Face id, or lenet-300-100"));
    }
    let source = Source::open(&Settings { model: model.clone(), arch: arch.clone(), ..of_file })?;
    let mut settings = Settings::resolve(context, Some(&source.config), Some(Method::Train), None, args.budget.batch)?;
    (settings.model, settings.arch) = (model, arch);
    settings.preprocessor = args.preprocessor.or(settings.preprocessor);
    args.data.apply(&mut settings);
    args.out.apply(&mut settings);
    let mut recipe = settings.recipe();
    args.optimizer.apply(&mut recipe);
    args.budget.apply(&mut recipe);
    if !args.freeze.is_empty() {
        recipe.roles.freeze.clone_from(&args.freeze);
    }
    settings.set_recipe(recipe);
    settings.check(false)?;
    let folder = setup::claim(args.out.out.as_deref(), args.out.overwrite)?;
    settings.absolute()?;
    let setup = Setup::new(settings, context)?;
    let out = setup::found(folder, &setup.settings)?;
    runs::drive(&setup, &out, &Manner::new(context.output)).map(drop)
}
