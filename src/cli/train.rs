//! `fipk train`: supervised training, from a checkpoint or from scratch.
use super::files::{DataFlags, OutFlags};
use super::flags::{BudgetFlags, OptimizerFlags};
use super::globals::Context;
use super::project::missing;
use super::runs::{self, Manner};
use super::settings::Settings;
use super::setup::{self, Setup, Source};
use crate::fip::recipe::Method;
use crate::{Error, Result};
use std::path::PathBuf;

/// Train a network with labels: fine-tune a checkpoint, or make an mlp from scratch
///
/// A checkpoint that has no head for the data's task gets one, sized from the data's labels and drawn as
/// `transformers` draws it; one that has a head for other classes gets a new one with --new-head. What is written loads
/// in `transformers` as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk train --model minilm --data glue/sst2:SST-2 --epochs 3 --out sst2
  fipk train --model minilm --data 'text:reviews.csv?text=body&label=stars' --eval-data text:held-out.csv --out stars
  fipk train --model resnet --data images:flowers --new-head --epochs 3 --out flowers
  fipk train --arch resnet20 --data 'cifar10:CIFAR?augment=flip,crop:4' --lr 1e-3 --epochs 20 --out resnet20
  fipk train --arch lenet-300-100 --data mnist:MNIST --epochs 20 --out lenet
  fipk train --arch mlp:3072,512,10 --data 'cifar10:CIFAR?augment=flip,crop:4' --epochs 5 --out mlp
  fipk train --arch vit/config.json --data 'cifar10:CIFAR?augment=flip,crop:4' --learning-rate 1e-3 --out vit
  fipk train --arch mlp:784,64,10 --data digits:5000 --steps 500 --out small")]
pub struct Args {
    /// Folder with config.json and safetensors, or a Hugging Face id in the local cache
    #[arg(long, value_name = "DIR|ID", conflicts_with = "arch")]
    model: Option<String>,
    /// A network from scratch: lenet-300-100, lenet5, resnet20, resnet32, resnet44, resnet56 (CIFAR's), vgg16, vgg16_bn,
    /// widths from input to output as mlp:784,300,100,10, or a config.json (a vision transformer's, say); its labels
    /// become the data's
    #[arg(long, value_name = "NAME|FILE")]
    arch: Option<String>,
    /// How images become numbers for a network from scratch: a preprocessor_config.json, as `fipk data --json` makes it
    /// [default: scaled to 0..1, and resized to what the network takes]
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    preprocessor: Option<PathBuf>,
    /// Draw the layer of outputs anew, for the data's labels, whatever the model has
    #[arg(long, conflicts_with = "arch")]
    new_head: bool,
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
    if args.preprocessor.is_some() && model.is_some() {
        let what = "a model has a preprocessor_config.json of its own";
        return Err(Error::usage("--preprocessor", what, "leave it out, or change the file in the model's folder"));
    }
    let image_size = args.data.image_size.or(of_file.image_size);
    let source = Source::open(&Settings { model: model.clone(), arch: arch.clone(), image_size, ..of_file })?;
    let mut settings = Settings::resolve(context, Some(&source.config), Some(Method::Train), None, args.budget.batch)?;
    (settings.model, settings.arch) = (model, arch);
    // What a configuration says of the other kind of source is for that alone.
    settings.preprocessor = args.preprocessor.or(settings.preprocessor).filter(|_| settings.model.is_none());
    settings.new_head = (args.new_head || settings.new_head) && settings.model.is_some();
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
