//! A network on an engine as a [`Map`]: J v by tangent programs, Jᵀ u by reverse programs, batch after batch, so that
//! nothing of the size of the data but its outputs is kept.
use super::map::Map;
use super::scaled::Elementwise;
use super::space::Space;
use crate::engine::{Bindings, Data, Dtype, Engine, Loaded, Vector};
use crate::graph::{Graph, Mode, Program, Wrt};
use crate::ops::gemm::nt;
use crate::params::Role;
use crate::rng::Rng;
use crate::{Error, Result};
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

/// Weights that [`Map::inner`] takes at a time.
const STRETCH: usize = 4096;

/// The numbers of an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    Real(Vec<f32>),
    Index(Vec<i32>),
}

/// Examples side by side, as a network takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<S> {
    /// What a graph is built for.
    pub shape: S,
    pub inputs: Vec<(String, Numbers)>,
    /// Which rows of the logits count: examples and not padding; attended positions of a network with logits at each.
    pub counts: Vec<bool>,
}

impl<S> Batch<S> {
    /// How many rows count.
    pub fn counted(&self) -> usize {
        self.counts.iter().filter(|&&c| c).count()
    }
}

/// A network over a data set, in batches that are always the same.
pub trait Samples {
    /// Rows of a batch, and of what size they are.
    type Shape: Copy + Eq + Hash;

    /// How many batches there are.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// # Errors
    /// What reading the data says.
    fn get(&self, batch: usize) -> Result<Batch<Self::Shape>>;

    /// The network for such a batch, its outputs marked "logits".
    ///
    /// # Errors
    /// What building it says.
    fn graph(&self, shape: Self::Shape) -> Result<Graph>;
}

#[derive(Clone, Copy)]
struct Programs {
    forward: Loaded,
    tangent: Loaded,
    reverse: Loaded,
}

/// What one map leaves to the next over other data of the same network: programs and vectors stay with their engine.
pub struct Kept<S> {
    programs: HashMap<S, Programs>,
    spare: Vec<Vector>,
    width: usize,
}

impl<S> Default for Kept<S> {
    fn default() -> Self {
        Self { programs: HashMap::new(), spare: Vec::new(), width: 0 }
    }
}

/// See the module. Weights that the layout freezes stay out: a direction has zeros there.
pub struct OnEngine<'a, S: Samples> {
    engine: &'a mut dyn Engine,
    samples: &'a S,
    programs: HashMap<S::Shape, Programs>,
    /// Vectors that are free again.
    spare: Vec<Vector>,
    /// Rows that count, of each batch.
    counted: Vec<usize>,
    width: usize,
}

impl<'a, S: Samples> OnEngine<'a, S> {
    /// # Errors
    /// [`Error::Data`] for data without a row that counts; what graphs and data say.
    pub fn new(engine: &'a mut dyn Engine, samples: &'a S) -> Result<Self> {
        Self::with(engine, samples, Kept::default())
    }

    /// With what an earlier map on the same engine left.
    ///
    /// # Errors
    /// As [`OnEngine::new`].
    pub fn with(engine: &'a mut dyn Engine, samples: &'a S, kept: Kept<S::Shape>) -> Result<Self> {
        let Kept { programs, spare, mut width } = kept;
        let mut counts = Vec::new();
        for i in 0..samples.len() {
            let batch = samples.get(i)?;
            counts.push(batch.counted());
            if width == 0 {
                let graph = samples.graph(batch.shape)?;
                width = graph.tensor(graph.mark("logits")?).shape.last().copied().unwrap_or(1);
            }
        }
        if counts.iter().sum::<usize>() * width == 0 {
            return Err(Error::data("metric", "no outputs to look at", "give a data set with at least one example"));
        }
        Ok(Self { engine, samples, programs, spare, counted: counts, width })
    }

    /// What the next map on this engine can use again.
    pub fn keep(self) -> Kept<S::Shape> {
        Kept { programs: self.programs, spare: self.spare, width: self.width }
    }

    pub fn engine(&mut self) -> &mut dyn Engine {
        self.engine
    }

    fn programs(&mut self, shape: S::Shape) -> Result<Programs> {
        if let Some(&known) = self.programs.get(&shape) {
            return Ok(known);
        }
        let graph = self.samples.graph(shape)?;
        let frozen = self.engine.layout().with_role(Role::Frozen).map(|s| s.name.clone()).collect();
        let wrt = Wrt { frozen, ..Wrt::params() };
        let tangent = self.engine.load(Program::compile(&graph, Mode::Tangent, &wrt, "logits")?)?;
        let reverse = self.engine.load(Program::compile(&graph, Mode::Reverse, &wrt, "logits")?)?;
        let forward = self.engine.load(Program::compile(&graph, Mode::Forward, &Wrt::default(), "logits")?)?;
        let programs = Programs { forward, tangent, reverse };
        self.programs.insert(shape, programs);
        Ok(programs)
    }

    /// Where the weights lie that a direction may move.
    fn trained(&self) -> Vec<Range<usize>> {
        let spans = self.engine.layout().spans().iter();
        spans.filter(|s| s.role != Role::Frozen).map(|s| s.range()).collect()
    }

    /// The rows that count of each batch, by their numbers among all of them.
    fn parts(&self) -> Vec<Range<usize>> {
        let part = |at: &mut usize, &n: &usize| {
            *at += n;
            Some(*at - n..*at)
        };
        self.counted.iter().scan(0, part).collect()
    }

    /// J v of one batch; rows that count alone.
    fn tangent(&mut self, batch: &Batch<S::Shape>, w: Vector, v: Vector) -> Result<Vec<f64>> {
        let tangent = self.programs(batch.shape)?.tangent;
        let inputs = bind(batch);
        self.engine.run(tangent, &Bindings { tangents: Some(v), ..Bindings::new(w, &inputs) })?;
        Ok(counted(batch, &self.engine.fetch(tangent, "tangent")?, self.width))
    }

    fn reverse(&mut self, batch: &Batch<S::Shape>, w: Vector, u: &[f64], g: Vector, add: bool) -> Result<()> {
        let reverse = self.programs(batch.shape)?.reverse;
        let (mut seed, mut rows) = (vec![0.0f32; batch.counts.len() * self.width], u.chunks(self.width));
        for (to, &counts) in seed.chunks_mut(self.width).zip(&batch.counts) {
            if counts {
                let row = rows.next().unwrap_or_default();
                to.iter_mut().zip(row).for_each(|(to, &u)| *to = u as f32);
            }
        }
        let inputs = bind(batch);
        let with = Bindings { cotangents: Some(g), accumulate: add, seed: Some(&seed), ..Bindings::new(w, &inputs) };
        self.engine.run(reverse, &with)
    }
}

fn bind<S>(batch: &Batch<S>) -> Vec<(&str, Data<'_>)> {
    fn bound((name, numbers): &(String, Numbers)) -> (&str, Data<'_>) {
        match numbers {
            Numbers::Real(x) => (name.as_str(), Data::Real(x)),
            Numbers::Index(x) => (name.as_str(), Data::Index(x)),
        }
    }
    batch.inputs.iter().map(bound).collect()
}

fn counted<S>(batch: &Batch<S>, all: &[f32], width: usize) -> Vec<f64> {
    let rows = all.chunks(width).zip(&batch.counts).filter(|(_, counts)| **counts);
    rows.flat_map(|(row, _)| row.iter().map(|&x| f64::from(x))).collect()
}

impl<S: Samples> Space for OnEngine<'_, S> {
    type Vector = Vector;

    fn dim(&self) -> usize {
        // Running statistics are frozen, and no parameters.
        let layout = self.engine.layout();
        layout.count(Role::Prunable) + layout.count(Role::Free)
    }

    fn zeros(&mut self) -> Result<Vector> {
        let Some(v) = self.spare.pop() else { return self.engine.zeros() };
        self.engine.scale(0.0, v)?;
        Ok(v)
    }

    fn normal(&mut self, seed: u64, stream: u64, to: &mut Vector) -> Result<()> {
        let mut rng = Rng::new(seed, stream);
        for range in self.trained() {
            let numbers: Vec<f32> = range.clone().map(|_| rng.normal()).collect();
            self.engine.write(*to, range.start, &numbers)?;
        }
        Ok(())
    }

    fn copy(&mut self, from: &Vector, to: &mut Vector) -> Result<()> {
        self.engine.copy(*from, *to)
    }

    fn axpy(&mut self, a: f64, x: &Vector, y: &mut Vector) -> Result<()> {
        self.engine.axpy(a as f32, *x, *y)
    }

    fn scale(&mut self, a: f64, x: &mut Vector) -> Result<()> {
        self.engine.scale(a as f32, *x)
    }

    /// Over what is trained.
    fn dot(&self, x: &Vector, y: &Vector) -> Result<f64> {
        self.engine.dot(*x, *y, 0..self.engine.layout().range(Role::Frozen).start)
    }

    fn recycle(&mut self, x: Vector) {
        self.spare.push(x);
    }
}

impl<S: Samples> Map for OnEngine<'_, S> {
    fn samples(&self) -> usize {
        self.counted.iter().sum()
    }

    fn width(&self) -> usize {
        self.width
    }

    /// That of what activations are stored in: f32, or bf16 on a device that was told so.
    fn precision(&self) -> f64 {
        match self.engine.dtype() {
            Some(Dtype::Bf16) => 2f64.powi(-8),
            _ => f64::from(f32::EPSILON),
        }
    }

    fn value(&mut self, w: &Vector) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for i in 0..self.samples.len() {
            let batch = self.samples.get(i)?;
            let forward = self.programs(batch.shape)?.forward;
            self.engine.run(forward, &Bindings::new(*w, &bind(&batch)))?;
            all.extend(counted(&batch, &self.engine.fetch(forward, "logits")?, self.width));
        }
        Ok(all)
    }

    fn jv(&mut self, w: &Vector, v: &Vector) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for i in 0..self.samples.len() {
            all.extend(self.tangent(&self.samples.get(i)?, *w, *v)?);
        }
        Ok(all)
    }

    fn jtu(&mut self, w: &Vector, u: &[f64], g: &mut Vector) -> Result<()> {
        let mut add = false;
        for (i, rows) in self.parts().into_iter().enumerate() {
            let part = &u[rows.start * self.width..rows.end * self.width];
            // A row of J is of one batch alone: the others are not even read.
            if part.iter().any(|&u| u != 0.0) {
                self.reverse(&self.samples.get(i)?, *w, part, *g, add)?;
                add = true;
            }
        }
        if add { Ok(()) } else { self.engine.scale(0.0, *g) }
    }

    /// As one product of matrices in f32 for every `STRETCH` of weights, added up in f64.
    fn inner(&mut self, x: &[Vector], y: &[Vector]) -> Result<Vec<f64>> {
        let (m, n) = (x.len(), y.len());
        let (mut a, mut b) = (vec![0.0f32; m * STRETCH], vec![0.0f32; n * STRETCH]);
        let (mut part, mut all) = (vec![0.0f32; m * n], vec![0.0f64; m * n]);
        let trained = self.engine.layout().range(Role::Frozen).start;
        for at in (0..trained).step_by(STRETCH) {
            let k = STRETCH.min(trained - at);
            for (vectors, to) in [(x, &mut a), (y, &mut b)] {
                for (v, row) in vectors.iter().zip(to.chunks_mut(k)) {
                    self.engine.read(*v, at, row)?;
                }
            }
            nt((m, n, k), &a[..m * k], &b[..n * k], false, &mut part);
            all.iter_mut().zip(&part).for_each(|(sum, &p)| *sum += f64::from(p));
        }
        Ok(all)
    }

    fn product(
        &mut self,
        w: &Vector,
        v: &Vector,
        between: &mut dyn FnMut(usize, &mut [f64]),
        g: &mut Vector,
    ) -> Result<()> {
        for (i, rows) in self.parts().into_iter().enumerate() {
            let batch = self.samples.get(i)?;
            let mut u = self.tangent(&batch, *w, *v)?;
            between(rows.start, &mut u);
            self.reverse(&batch, *w, &u, *g, i > 0)?;
        }
        Ok(())
    }
}

impl<S: Samples> Elementwise for OnEngine<'_, S> {
    /// Through main memory: engines have no such pass of their own.
    fn each(&mut self, x: &mut Vector, f: &mut dyn FnMut(f64) -> f64) -> Result<()> {
        for range in self.trained() {
            let mut numbers = vec![0.0f32; range.len()];
            self.engine.read(*x, range.start, &mut numbers)?;
            numbers.iter_mut().for_each(|x| *x = f(f64::from(*x)) as f32);
            self.engine.write(*x, range.start, &numbers)?;
        }
        Ok(())
    }

    fn multiply(&mut self, x: &Vector, y: &mut Vector) -> Result<()> {
        for range in self.trained() {
            let (mut a, mut b) = (vec![0.0f32; range.len()], vec![0.0f32; range.len()]);
            self.engine.read(*x, range.start, &mut a)?;
            self.engine.read(*y, range.start, &mut b)?;
            b.iter_mut().zip(&a).for_each(|(b, a)| *b *= a);
            self.engine.write(*y, range.start, &b)?;
        }
        Ok(())
    }
}
