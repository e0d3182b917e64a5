//! The optimizer's step on the objective's gradient, a mean over the batches looked at.
use super::{Given, Seen, Stepper, Taken};
use crate::Result;
use crate::fip::runner::{Losses, Runner};

/// See the module. As many batches as `1 / clip.mean` make a step.
#[derive(Debug, Default)]
pub struct Gradient {
    parts: u64,
    losses: Losses,
    examples: u64,
}

impl Gradient {
    fn add(&mut self, losses: Losses, examples: usize, given: &Given) {
        let accumulation = (1.0 / given.clip.mean).round();
        let mean = |a: Option<f64>, b: Option<f64>| b.map(|b| a.unwrap_or(0.0) + b / accumulation);
        self.losses = Losses {
            loss: self.losses.loss + losses.loss / accumulation,
            distance: mean(self.losses.distance, losses.distance),
            labels: mean(self.losses.labels, losses.labels),
        };
        self.examples += examples as u64;
        self.parts += 1;
    }
}

impl Stepper for Gradient {
    fn look(&mut self, runner: &mut Runner, Seen { batch, anchor }: Seen, given: &Given) -> Result<()> {
        let update = given.update;
        let losses = runner.gradient(update.w, update.g, &batch, anchor, self.parts > 0)?;
        self.add(losses, batch.examples.len(), given);
        Ok(())
    }

    fn step(&mut self, runner: &mut Runner, Seen { batch, anchor }: Seen, given: &Given) -> Result<Taken> {
        let (losses, stepped) = runner.step(&batch, anchor, self.parts > 0, given.update, given.clip)?;
        self.add(losses, batch.examples.len(), given);
        let Self { losses, examples, .. } = std::mem::take(self);
        Ok(Taken { losses, examples, stepped, solved: None })
    }
}
