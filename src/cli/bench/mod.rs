//! `fipk bench`: times on this machine, to hold against other programs and against what the machine can do.
use super::globals::Context;
use crate::Result;

mod convolutional;
mod kernels;
mod measure;
mod ops;
mod products;
mod reverse;
mod shapes;
mod space;
mod step;
mod yardsticks;

/// Time the work of a run on random data
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk bench step --model minilm-sst2 --batch 16 --tokens 64 --teacher forward --json
  fipk bench kernels --device cuda:0 --filter 'linear_*'")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Step(step::Args),
    Kernels(kernels::Args),
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    match &args.what {
        What::Step(args) => step::run(args, context),
        What::Kernels(args) => kernels::run(args, context),
    }
}
