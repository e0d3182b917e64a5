//! `fipk data`: what a set of images holds, and how to scale it.
use super::globals::Context;
use super::output::facts;
use crate::Result;
use crate::data::{self, Batches, Form, Kind, Preprocess, Reading, Spec, Targets, Task, Values, ahead};
use crate::report::Table;
use crate::report::numbers::grouped;
use serde_json::json;
use std::path::PathBuf;

/// Look at a set of images: counts, size, mean and deviation of each channel
///
/// The mean and the deviation are over all pixels, scaled to 0..1, as image_mean and image_std of a
/// preprocessor_config.json want them: three channels, or one for drawn digits and MNIST; --json prints such a file as its
/// field `preprocessor_config`, which `fipk train --arch .. --preprocessor FILE` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk data 'cifar10:CIFAR?split=train'
  fipk data images:flowers --json
  fipk data images:flowers --preprocessor size.json --json     (size.json: {\"size\": 64})")]
pub struct Args {
    /// Images, as KIND:PATH?key=value; the training split unless ?split= names another
    #[arg(value_name = "SPEC")]
    data: String,
    /// How images are resized, cropped and scaled first: a preprocessor_config.json, whose mean and deviation are left aside
    /// [default: as they are, scaled to 0..1]
    #[arg(long, value_name = "FILE")]
    preprocessor: Option<PathBuf>,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    let spec: Spec = args.data.parse()?;
    // What is grey by its kind is for networks of one channel.
    let channels = if matches!(spec.kind, Kind::Mnist | Kind::Digits(_)) { 1 } else { 3 };
    let given = args.preprocessor.as_deref().map(Preprocess::read).transpose()?.unwrap_or_default();
    let preprocess = Preprocess { mean: Vec::new(), std: Vec::new(), ..given };
    let how = Reading { form: Form::Planes { channels }, preprocess, ..Reading::default() };
    let data = data::load(&spec, "train", &how)?;
    let names = match data.task() {
        Task::Classification { labels } => labels.clone(),
        _ => Vec::new(),
    };
    let mut counts = vec![0u64; names.len()];
    let (mut shape, mut sums, mut squares, mut pixels) = (Vec::new(), vec![0.0; channels], vec![0.0; channels], 0.0);
    ahead(Batches::in_order(&*data, 64)?, |batches| {
        for batch in batches {
            let batch = batch?;
            let (Some(input), Targets::Classes(classes)) = (batch.inputs.first(), &batch.targets) else { continue };
            shape = input.shape[1..].to_vec();
            let Values::Real(values) = &input.values else { continue };
            let plane: usize = shape.iter().skip(1).product();
            for (image, &class) in values.chunks_exact(channels * plane).zip(&classes[..batch.examples.len()]) {
                counts[class as usize] += 1;
                pixels += plane as f64;
                for (c, plane) in image.chunks_exact(plane).enumerate() {
                    sums[c] += plane.iter().map(|&x| f64::from(x)).sum::<f64>();
                    squares[c] += plane.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
                }
            }
        }
        Ok::<_, crate::Error>(())
    })?;
    let mean: Vec<f64> = sums.iter().map(|sum| sum / pixels).collect();
    let std: Vec<f64> = mean.iter().zip(squares).map(|(m, s)| (s / pixels - m * m).max(0.0).sqrt()).collect();
    // Four decimals, as such files have them.
    let short = |all: &[f64]| all.iter().map(|x| (x * 1e4).round() / 1e4).collect::<Vec<f64>>();
    let (mean, std) = (short(&mean), short(&std));
    let real = |all: &[f64]| all.iter().map(|&x| x as f32).collect();
    let config = Preprocess { mean: real(&mean), std: real(&std), ..how.preprocess }.to_map();

    let words = |all: &[f64]| all.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
    let size = shape.iter().skip(1).map(usize::to_string).collect::<Vec<_>>().join(" x ");
    let rows =
        [("examples", grouped(data.len() as u64)), ("size", size), ("mean", words(&mean)), ("deviation", words(&std))];
    let by_class: Vec<_> = names.iter().zip(&counts).map(|(name, n)| vec![name.clone(), n.to_string()]).collect();
    let classes = Table { title: String::new(), columns: vec!["class".into(), "examples".into()], rows: by_class };
    let object = json!({
        "data": args.data,
        "examples": data.len(),
        "size": shape.get(1..),
        "classes": names.iter().zip(&counts).map(|(name, n)| json!({ "name": name, "examples": n })).collect::<Vec<_>>(),
        "preprocessor_config": config,
    });
    context.output.result(&object, &[facts(&rows), classes])?;
    if !context.output.json {
        let hint = "\nas a preprocessor_config.json: --json, its field preprocessor_config; `fipk train --arch .. --preprocessor FILE` takes it";
        context.output.remark(hint);
    }
    Ok(())
}
