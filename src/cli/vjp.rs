//! `fipk vjp`: gradients with respect to every parameter.
use super::forward::wrote;
use super::globals::Context;
use super::tensors::{self, PassFlags, Session};
use crate::Result;
use crate::engine::Bindings;
use crate::graph::Mode;
use std::path::PathBuf;

/// Compute Jᵀ u: the gradient of ⟨u, logits⟩ with respect to every parameter
///
/// Writes one tensor a parameter, by its name in the model; summed over the rows, as u is given for each.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  fipk vjp --model bert-sst2 --inputs x.safetensors --cotangents u.safetensors --output g.safetensors")]
pub struct Args {
    #[command(flatten)]
    pass: PassFlags,
    /// Safetensors with u: the tensor "logits", of the logits' shape
    #[arg(long, value_name = "FILE")]
    cotangents: PathBuf,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    let mut session = Session::open(&args.pass, context)?;
    let u = tensors::read_logits(&args.cotangents, &session.shape)?;
    let g = session.engine.zeros()?;
    let (w, at) = (session.weights, session.logits_of());
    session.blocks(Mode::Reverse, |engine, program, block, inputs| {
        let seed = Some(&u[at(&block)]);
        let accumulate = block.start > 0;
        engine.run(program, &Bindings { cotangents: Some(g), seed, accumulate, ..Bindings::new(w, inputs) })
    })?;
    let layout = session.layout();
    let mut gradient = vec![0.0; layout.len()];
    session.engine.read(g, 0, &mut gradient)?;
    let all = tensors::by_name(layout, &gradient);
    tensors::write(&args.pass.output, &all)?;
    let shapes: Vec<(&str, &[usize])> = all.iter().map(|(name, shape, _)| (*name, *shape)).collect();
    wrote(context, args.pass.output.display().to_string(), &shapes)
}
