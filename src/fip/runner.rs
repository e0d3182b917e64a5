//! A network on an engine: programs are compiled once a batch shape and kept.
use super::memory::{self, explain};
use super::objective::{self, Inputs};
use super::recipe::{BatchNorms, Objective};
use super::statistics::{self, Mean, Statistics};
use crate::data::Batch;
use crate::engine::{Bindings, Clip, Engine, Loaded, Stepped, Update, Vector};
use crate::graph::{Mode, Program, Wrt, build};
use crate::models::{Network, Sample};
use crate::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;

/// What one batch's objective came to, each part already times its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    pub loss: f64,
    pub distance: Option<f64>,
    pub labels: Option<f64>,
}

pub struct Runner {
    pub engine: Box<dyn Engine>,
    pub network: Network,
    pub objective: Objective,
    forward: HashMap<(usize, Sample), Loaded>,
    reverse: HashMap<(usize, Sample), (Loaded, Statistics)>,
    /// Forward programs that normalise by their batch.
    normalising: HashMap<(usize, Sample), (Loaded, Statistics)>,
}

/// A batch with what a program of the objective reads of it.
struct Prepared<'b> {
    batch: Cow<'b, Batch>,
    inputs: Inputs,
    program: Loaded,
    statistics: Statistics,
}

/// The rows of a batch, and its tokens or pixels.
pub fn shape(batch: &Batch) -> (usize, Sample) {
    let of = |name: &str| batch.inputs.iter().find(|i| i.name == name).map(|i| &i.shape[..]);
    let sample = match (of("input_ids"), of("pixel_values")) {
        (Some(&[_, tokens]), _) => Sample::Tokens(tokens),
        (_, Some(&[_, _, height, width])) => Sample::Image { height, width },
        _ => Sample::Tokens(1),
    };
    (batch.rows, sample)
}

impl Runner {
    /// `engine` holds vectors in a layout of `network`'s parameters.
    pub fn new(engine: Box<dyn Engine>, network: Network, objective: Objective) -> Self {
        let (forward, reverse, normalising) = Default::default();
        Self { engine, network, objective, forward, reverse, normalising }
    }

    /// Logits [rows, outputs], or [rows, tokens, vocabulary], at weights `w`.
    ///
    /// # Errors
    /// [`Error::Data`] for an index that the network has no row for; [`Error::Graph`] for a batch too long.
    pub fn logits(&mut self, w: Vector, batch: &Batch) -> Result<Vec<f32>> {
        let (rows, sample) = shape(batch);
        self.fits(batch)?;
        let program = match self.forward.get(&(rows, sample)) {
            Some(&program) => program,
            None => {
                let graph = self.network.graph(rows, sample)?;
                let program = self.engine.load(Program::compile(&graph, Mode::Forward, &Wrt::default(), "logits")?)?;
                self.forward.insert((rows, sample), program);
                program
            }
        };
        let ran = self.engine.run(program, &Bindings::new(w, &Inputs::of(batch).bind()));
        ran.map_err(|e| explain(e, rows, |n| memory::forward(&self.network, n, sample, self.engine.dtype())))?;
        self.engine.fetch(program, "logits")
    }

    /// g (+)= the gradient of the objective at `w`, against the anchor's logits where the objective has a distance.
    ///
    /// # Errors
    /// As [`Runner::logits`], and [`Error::NotFinite`] for a loss that is no number.
    pub fn gradient(
        &mut self,
        w: Vector,
        g: Vector,
        batch: &Batch,
        teacher: Option<Vec<f32>>,
        add: bool,
    ) -> Result<Losses> {
        let Prepared { batch, inputs, program, statistics } = self.prepared(batch, teacher)?;
        let inputs = inputs.bind();
        let with = Bindings { cotangents: Some(g), accumulate: add, ..Bindings::new(w, &inputs) };
        self.engine.run(program, &with).map_err(|e| self.explained(e, &batch))?;
        let losses = self.losses(program)?;
        statistics.follow(&mut *self.engine, program, w)?;
        Ok(losses)
    }

    /// [`Runner::gradient`] at the update's weights and into its gradient, and the update, as one unit.
    ///
    /// # Errors
    /// As [`Runner::gradient`]: after a loss that is no number the weights are worth nothing.
    pub fn step(
        &mut self,
        batch: &Batch,
        teacher: Option<Vec<f32>>,
        add: bool,
        update: &Update,
        clip: &Clip,
    ) -> Result<(Losses, Stepped)> {
        let Prepared { batch, inputs, program, statistics } = self.prepared(batch, teacher)?;
        let inputs = inputs.bind();
        let with = Bindings { cotangents: Some(update.g), accumulate: add, ..Bindings::new(update.w, &inputs) };
        let stepped = self.engine.step(program, &with, update, clip).map_err(|e| self.explained(e, &batch))?;
        let losses = self.losses(program)?;
        statistics.follow(&mut *self.engine, program, update.w)?;
        Ok((losses, stepped))
    }

    /// A batch as the objective's program takes it. Padding that would count among a batch's statistics is cut off, and the
    /// teacher's logits with it.
    fn prepared<'b>(&mut self, batch: &'b Batch, teacher: Option<Vec<f32>>) -> Result<Prepared<'b>> {
        self.fits(batch)?;
        let running = self.objective.batch_norm == BatchNorms::Running && statistics::any(self.engine.layout());
        let cut = if running { batch.unpadded() } else { Cow::Borrowed(batch) };
        let teacher = teacher.map(|mut logits| {
            if cut.rows < batch.rows {
                logits.truncate(logits.len() / batch.rows * cut.rows);
            }
            logits
        });
        let (program, statistics) = self.reverse(shape(&cut))?;
        let inputs = Inputs::of(&cut).with(&cut, self.network.head, &self.objective, teacher)?;
        Ok(Prepared { batch: cut, inputs, program, statistics })
    }

    /// The statistics of `batches` under the weights `w`, in place of the running averages there: each layer's are those of
    /// what the layers before it give when they normalise by the batch too, as in training. Batches that are not full are
    /// left out.
    ///
    /// # Errors
    /// [`Error::Data`] without a full batch; what engine and data say.
    pub fn reestimate(&mut self, w: Vector, batches: impl Iterator<Item = Result<Batch>>) -> Result<()> {
        let mut found: Option<((usize, Sample), Mean)> = None;
        for batch in batches {
            let batch = batch?;
            let key = shape(&batch);
            if batch.examples.len() < batch.rows || found.as_ref().is_some_and(|f| f.0 != key) {
                continue;
            }
            self.fits(&batch)?;
            let (program, statistics) = self.normalising(key)?;
            self.engine.run(program, &Bindings::new(w, &Inputs::of(&batch).bind()))?;
            let (_, mean) = found.get_or_insert_with(|| (key, Mean::new(statistics)));
            mean.add(&*self.engine, program)?;
        }
        let none = || Error::data("batch norm", "no full batch to estimate from", "lower --batch, or give more data");
        found.ok_or_else(none)?.1.write(&mut *self.engine, w)
    }

    /// A forward program that normalises by its batch.
    fn normalising(&mut self, (rows, sample): (usize, Sample)) -> Result<(Loaded, Statistics)> {
        if let Some(known) = self.normalising.get(&(rows, sample)) {
            return Ok(known.clone());
        }
        let graph = build(|s| s.mark("logits", self.network.logits(&s.batch_statistics(), rows, sample)))?;
        let statistics = Statistics::of(&graph, self.engine.layout());
        let program = self.engine.load(Program::compile(&graph, Mode::Forward, &Wrt::default(), "logits")?)?;
        self.normalising.insert((rows, sample), (program, statistics.clone()));
        Ok((program, statistics))
    }

    /// Whether images are of the numbers that the network takes.
    fn fits(&self, batch: &Batch) -> Result<()> {
        let Some(input) = batch.inputs.iter().find(|i| i.name == "pixel_values") else { return Ok(()) };
        let wanted = self.network.pixels().map(|p| p.shape(batch.rows)).unwrap_or_default();
        let fits = match (&wanted[..], &input.shape[..]) {
            // Networks that pool or interpolate take other sizes.
            (&[_, channels, _, _], &[_, found, _, _]) => channels == found,
            (wanted, found) => wanted == found,
        };
        if fits {
            return Ok(());
        }
        let dimensions = |shape: &[usize]| match shape {
            [_, channels, height, width] => format!("{channels} channels of {height} x {width} pixels"),
            [_, pixels] => format!("{pixels} pixels in a row"),
            other => format!("{other:?}"),
        };
        let (wanted_words, got) = (dimensions(&wanted), dimensions(&input.shape));
        let hint = match (&wanted[..], &input.shape[..]) {
            (&[_, channels, _, _], &[_, found, _, _]) if channels != found => {
                "choose images, or a network (num_channels in its config.json), of as many channels"
            }
            _ => "resize or crop them by the model's preprocessor_config.json, or choose other data",
        };
        Err(Error::data("pixel_values", format!("wanted images of {wanted_words}, got {got}"), hint))
    }

    /// The objective's gradient for batches of one shape.
    fn reverse(&mut self, (rows, sample): (usize, Sample)) -> Result<(Loaded, Statistics)> {
        if let Some(known) = self.reverse.get(&(rows, sample)) {
            return Ok(known.clone());
        }
        let graph = objective::graph(&self.network, &self.objective, rows, sample)?;
        let statistics = match self.objective.batch_norm {
            BatchNorms::Running => Statistics::of(&graph, self.engine.layout()),
            _ => Statistics::default(),
        };
        let program = self.engine.load(objective::reverse(&graph, self.engine.layout())?)?;
        self.reverse.insert((rows, sample), (program, statistics.clone()));
        Ok((program, statistics))
    }

    /// An error of memory names the batch that would fit.
    fn explained(&self, error: Error, batch: &Batch) -> Error {
        let ((rows, sample), engine) = (shape(batch), &self.engine);
        let needs = |n| memory::gradient(&self.network, &self.objective, engine.layout(), n, sample, engine.dtype());
        explain(error, rows, needs)
    }

    fn losses(&self, program: Loaded) -> Result<Losses> {
        let number = |name: &str| Ok::<_, Error>(self.engine.fetch(program, name)?.first().copied().map(f64::from));
        let losses = Losses {
            loss: number("loss")?.unwrap_or(f64::NAN),
            distance: if self.objective.distance > 0.0 { number("distance")? } else { None },
            labels: if self.objective.labels > 0.0 { number("labels")? } else { None },
        };
        if losses.loss.is_finite() {
            return Ok(losses);
        }
        Err(Error::not_finite(
            "objective",
            format!("the loss {}", losses.loss),
            "lower --learning-rate, or set --clip 1",
        ))
    }
}
