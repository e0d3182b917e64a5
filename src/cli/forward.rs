//! `fipk forward`: logits.
use super::globals::Context;
use super::tensors::{self, PassFlags, Session};
use crate::Result;
use crate::engine::Bindings;
use crate::graph::Mode;
use crate::tensor::numel;
use serde_json::json;

/// Compute a model's logits at given inputs
///
/// Writes the tensor "logits": [rows, labels], or [rows, tokens, vocabulary] for a masked language model.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  fipk forward --model run/model --inputs x.safetensors --output y.safetensors

The inputs from Python:
  from safetensors.torch import save_file
  save_file(dict(tokenizer([\"a fine film\"], return_tensors=\"pt\")), \"x.safetensors\")")]
pub struct Args {
    #[command(flatten)]
    pass: PassFlags,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    let mut session = Session::open(&args.pass, context)?;
    let (w, at) = (session.weights, session.logits_of());
    let mut logits = vec![0.0; numel(&session.shape)];
    session.blocks(Mode::Forward, |engine, program, block, inputs| {
        engine.run(program, &Bindings::new(w, inputs))?;
        logits[at(&block)].copy_from_slice(&engine.fetch(program, "logits")?);
        Ok(())
    })?;
    tensors::write(&args.pass.output, &[("logits", &session.shape, &logits)])?;
    wrote(context, args.pass.output.display().to_string(), &[("logits", &session.shape)])
}

/// What was written, for people or machines.
pub fn wrote(context: &Context, output: String, tensors: &[(&str, &[usize])]) -> Result<()> {
    let map: serde_json::Map<_, _> = tensors.iter().map(|(name, shape)| (name.to_string(), json!(shape))).collect();
    if context.output.json {
        return context.output.result(&json!({ "output": output, "tensors": map }), &[]);
    }
    let what = match tensors {
        [(name, shape)] => format!("\"{name}\" {shape:?}"),
        [(name, shape), ..] => format!("{} tensors, \"{name}\" {shape:?} first,", tensors.len()),
        [] => "nothing".into(),
    };
    context.output.remark(format!("wrote {what} to {output}"));
    Ok(())
}
