//! `fipk jvp`: logits, and how they move with the weights.
use super::forward::wrote;
use super::globals::Context;
use super::tensors::{self, PassFlags, Session};
use crate::Result;
use crate::engine::Bindings;
use crate::graph::Mode;
use crate::tensor::numel;
use std::path::PathBuf;

/// Compute J v: how the logits move when the weights move along v
///
/// J is the Jacobian of the logits with respect to all parameters (METHOD, "Notation"). Writes the tensors "logits"
/// and "tangent.logits", of the same shape, in one pass.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  fipk jvp --model bert-sst2 --inputs x.safetensors --tangents v.safetensors --output y.safetensors")]
pub struct Args {
    #[command(flatten)]
    pass: PassFlags,
    /// Safetensors with v: tensors by parameter name; those that are missing are zero
    #[arg(long, value_name = "FILE")]
    tangents: PathBuf,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    let mut session = Session::open(&args.pass, context)?;
    let direction = tensors::read_direction(&args.tangents, session.layout())?;
    let v = session.engine.zeros()?;
    session.engine.write(v, 0, &direction)?;
    let (w, at) = (session.weights, session.logits_of());
    let (mut logits, mut tangent) = (vec![0.0; numel(&session.shape)], vec![0.0; numel(&session.shape)]);
    session.blocks(Mode::Tangent, |engine, program, block, inputs| {
        engine.run(program, &Bindings { tangents: Some(v), ..Bindings::new(w, inputs) })?;
        logits[at(&block)].copy_from_slice(&engine.fetch(program, "logits")?);
        tangent[at(&block)].copy_from_slice(&engine.fetch(program, "tangent")?);
        Ok(())
    })?;
    let shape = &session.shape;
    tensors::write(&args.pass.output, &[("logits", shape, &logits), ("tangent.logits", shape, &tangent)])?;
    wrote(context, args.pass.output.display().to_string(), &[("logits", shape), ("tangent.logits", shape)])
}
