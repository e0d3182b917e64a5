//! What a run takes of a device's memory, from its programs, before it starts.
use super::objective;
use super::recipe::{Method, Objective, Recipe};
use super::step::Precondition;
use crate::engine::{Arenas, Dtype, workspace};
use crate::graph::{Mode, Program, Wrt};
use crate::models::{Head, Network, Sample};
use crate::params::{Layout, Role};
use crate::{Error, Result};

/// A run as far as its memory goes.
#[derive(Clone, Copy, Debug)]
pub struct Needs<'a> {
    pub network: &'a Network,
    pub layout: &'a Layout,
    pub recipe: &'a Recipe,
    pub sample: Sample,
    /// What a device computes in; `None` for the host.
    pub dtype: Option<Dtype>,
}

/// Bytes on the device, in the order they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    pub parts: Vec<(&'static str, usize)>,
    /// Activations of the programs for logits and for the gradient, which share one arena.
    pub programs: [(&'static str, usize); 2],
}

impl Footprint {
    pub fn total(&self) -> usize {
        self.parts.iter().map(|p| p.1).sum()
    }
}

impl Needs<'_> {
    /// With batches of `rows`.
    ///
    /// # Errors
    /// [`crate::Error::Graph`] for more tokens than the network has positions.
    pub fn of(&self, rows: usize) -> Result<Footprint> {
        let r = self.recipe;
        let prunes = r.method != Method::Train;
        let vector = 4 * self.layout.len();
        // The weights, the network as it was given and its projection are what programs run at.
        let read = if prunes { 3 } else { 2 };
        let moments = if r.optimization.rule().second_moments() { 2 } else { 1 };
        let shadow = if self.dtype == Some(Dtype::Bf16) { vector / 2 } else { 0 };
        let mask = if prunes { 4 * self.layout.range(Role::Prunable).end.div_ceil(32) } else { 0 };
        let step = gradient(self.network, &r.objective, self.layout, rows, self.sample, self.dtype)?;
        // Evaluations take at least this many at once.
        let looks = forward(self.network, rows.max(32), self.sample, self.dtype)?;
        let in_metric = r.step.in_metric() && r.method == Method::Fip;
        let arenas = match in_metric {
            true => step.shared(looks).shared(metric(self.network, self.layout, rows, self.sample, self.dtype)?),
            false => step.shared(looks),
        };
        Ok(Footprint {
            programs: [("forward", looks.activations), ("reverse", step.activations)],
            parts: vec![
                ("weights", vector),
                ("dense and projected weights", (read - 1) * vector),
                ("gradient", vector),
                ("moments", moments * vector),
                ("bf16 shadows", read * shadow),
                ("steps in the metric", if in_metric { self.solving(rows) * vector } else { 0 }),
                ("mask", mask),
                ("workspace", if self.dtype.is_some() { workspace(self.layout) } else { 0 }),
                ("activations", arenas.activations),
                ("inputs", arenas.inputs),
                ("scratch", arenas.scratch),
            ],
        })
    }

    /// Vectors that a step in the metric takes: w − w_p, ψ, the goal, b, what is drawn back, a residual, a product and a
    /// factor of it; two more for a diagonal. Where there are fewer weights than outputs, Krylov vectors are weights too.
    fn solving(&self, rows: usize) -> usize {
        let step = &self.recipe.step;
        let outputs = match self.network.head {
            // A vocabulary at every token.
            Head::MaskedLm => usize::MAX,
            head => rows * step.metric_batches as usize * head.outputs(),
        };
        let trained = self.layout.count(Role::Prunable) + self.layout.count(Role::Free);
        let krylov = if outputs < trained { 0 } else { step.products };
        8 + krylov + if step.precondition == Precondition::Diagonal { 2 } else { 0 }
    }

    /// The largest batch whose run takes no more than `bytes`; none if not one sample fits.
    pub fn largest(&self, bytes: usize) -> Result<Option<usize>> {
        largest(|rows| Ok(self.of(rows)?.total() <= bytes))
    }
}

/// Of the program for logits.
pub fn forward(network: &Network, rows: usize, sample: Sample, dtype: Option<Dtype>) -> Result<Arenas> {
    let graph = network.graph(rows, sample)?;
    Arenas::of(&Program::compile(&graph, Mode::Forward, &Wrt::default(), "logits")?, dtype)
}

/// Of the program for an objective's gradient.
pub fn gradient(
    network: &Network,
    objective: &Objective,
    layout: &Layout,
    rows: usize,
    sample: Sample,
    dtype: Option<Dtype>,
) -> Result<Arenas> {
    let graph = objective::graph(network, objective, rows, sample)?;
    Arenas::of(&objective::reverse(&graph, layout)?, dtype)
}

/// Of the programs for J v and Jᵀ u of the logits.
pub fn metric(network: &Network, layout: &Layout, rows: usize, sample: Sample, dtype: Option<Dtype>) -> Result<Arenas> {
    let graph = network.graph(rows, sample)?;
    let frozen = layout.with_role(Role::Frozen).map(|s| s.name.clone()).collect();
    let wrt = Wrt { frozen, ..Wrt::params() };
    let of = |mode| Arenas::of(&Program::compile(&graph, mode, &wrt, "logits")?, dtype);
    Ok(of(Mode::Tangent)?.shared(of(Mode::Reverse)?))
}

/// An error of memory in a batch of `rows` names the batch that would fit, by what `needs` says that others take.
pub fn explain(error: Error, rows: usize, needs: impl Fn(usize) -> Result<Arenas>) -> Error {
    let Error::Memory { place, wanted, free, .. } = error else { return error };
    let hint = match largest(|n| Ok(n < rows && needs(n)?.total() <= free)) {
        Ok(Some(n)) => format!("a batch of {n} would fit: use --batch {n}"),
        _ => "no batch would fit: use a device with more memory, or --device cpu".into(),
    };
    Error::Memory { place: format!("{place} of a batch of {rows}"), wanted, free, hint }
}

/// The largest number for which `fits` is true; it is for every smaller one.
pub fn largest(fits: impl Fn(usize) -> Result<bool>) -> Result<Option<usize>> {
    const MOST: usize = 1 << 20;
    if !fits(1)? {
        return Ok(None);
    }
    let (mut low, mut high) = (1, 2);
    while high < MOST && fits(high)? {
        (low, high) = (high, 2 * high);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle)? { low = middle } else { high = middle }
    }
    Ok(Some(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_that_fits_is_found() {
        for limit in [1, 2, 3, 7, 8, 9, 1000] {
            assert_eq!(largest(|n| Ok(n <= limit)).unwrap(), Some(limit));
        }
        assert_eq!(largest(|_| Ok(false)).unwrap(), None);
        assert_eq!(largest(|_| Ok(true)).unwrap(), Some((1 << 20) - 1));
    }

    #[test]
    fn an_error_of_memory_names_the_batch_that_would_fit() {
        let told = |free| {
            let error = Error::Memory { place: "activations".into(), wanted: 6400, free, hint: String::new() };
            explain(error, 64, |n| Ok(Arenas { activations: 90 * n, inputs: 10 * n, scratch: 0 })).to_string()
        };
        assert!(
            told(1234).contains("a batch of 12 would fit") && told(1234).contains("of a batch of 64"),
            "{}",
            told(1234)
        );
        assert!(told(99).contains("no batch would fit"), "{}", told(99));
        // What is in pieces can be free and not fit.
        assert!(told(1 << 30).contains("a batch of 63 would fit"), "{}", told(1 << 30));
        let other = explain(Error::usage("--batch", "no", "yes"), 64, |_| Ok(Arenas::default()));
        assert!(matches!(other, Error::Usage { .. }));
    }
}
