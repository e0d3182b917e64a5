//! `fipk quickstart`: everything once, on data it makes itself.
use super::globals::Context;
use crate::Result;

/// Train, sparsify and compare on drawn digits, in a minute or two and without any file
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args, context: &Context) -> Result<()> {
    context.refuse_config()
}
