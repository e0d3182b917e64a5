//! A network on an engine as a [`Map`]: J v by tangent programs, Jᵀ u by reverse programs, batch after batch, so that
//! nothing of the size of the data but its outputs is kept.
use super::map::Map;
use super::space::Space;
use crate::engine::{Bindings, Data, Engine, Loaded, Vector};
use crate::graph::{Graph, Mode, Program, Wrt};
use crate::params::Role;
use crate::rng::Rng;
use crate::{Error, Result};
use std::collections::HashMap;

/// The numbers of an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    Real(Vec<f32>),
    Index(Vec<i32>),
}

/// Examples side by side, as a network takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What a program is compiled for: rows, and tokens of each.
    pub shape: (usize, usize),
    pub inputs: Vec<(String, Numbers)>,
    /// Which rows of the logits count: examples and not padding; attended positions of a network with logits at each.
    pub counts: Vec<bool>,
}

/// A data set in batches, always the same ones.
pub trait Samples {
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// # Errors
    /// What reading the data says.
    fn get(&self, batch: usize) -> Result<Sample>;
}

impl Samples for Vec<Sample> {
    fn len(&self) -> usize {
        Vec::len(self)
    }
    fn get(&self, batch: usize) -> Result<Sample> {
        Ok(self[batch].clone())
    }
}

struct Programs {
    tangent: Loaded,
    reverse: Loaded,
}

/// See the module. Weights that the layout freezes stay out: a direction has zeros there.
pub struct OnEngine<'a> {
    engine: &'a mut dyn Engine,
    graphs: &'a dyn Fn(usize, usize) -> Result<Graph>,
    samples: &'a dyn Samples,
    programs: HashMap<(usize, usize), Programs>,
    /// Vectors that are free again.
    spare: Vec<Vector>,
    rows: usize,
    width: usize,
}

impl<'a> OnEngine<'a> {
    /// `graphs` gives the network for batches of (rows, tokens), its outputs marked "logits".
    ///
    /// # Errors
    /// [`Error::Data`] for data without a row that counts; what graphs and data say.
    pub fn new(
        engine: &'a mut dyn Engine,
        graphs: &'a dyn Fn(usize, usize) -> Result<Graph>,
        samples: &'a dyn Samples,
    ) -> Result<Self> {
        let (mut rows, mut width) = (0, 0);
        for i in 0..samples.len() {
            let sample = samples.get(i)?;
            rows += sample.counts.iter().filter(|&&c| c).count();
            if width == 0 {
                let graph = graphs(sample.shape.0, sample.shape.1)?;
                width = graph.tensor(graph.mark("logits")?).shape.last().copied().unwrap_or(1);
            }
        }
        if rows * width == 0 {
            return Err(Error::data("metric", "no outputs to look at", "give a data set with at least one example"));
        }
        Ok(Self { engine, graphs, samples, programs: HashMap::new(), spare: Vec::new(), rows, width })
    }

    pub fn engine(&mut self) -> &mut dyn Engine {
        self.engine
    }

    fn programs(&mut self, shape: (usize, usize)) -> Result<(Loaded, Loaded)> {
        if let Some(p) = self.programs.get(&shape) {
            return Ok((p.tangent, p.reverse));
        }
        let graph = (self.graphs)(shape.0, shape.1)?;
        let frozen = self.engine.layout().with_role(Role::Frozen).map(|s| s.name.clone()).collect();
        let wrt = Wrt { frozen, ..Wrt::params() };
        let tangent = self.engine.load(Program::compile(&graph, Mode::Tangent, &wrt, "logits")?)?;
        let reverse = self.engine.load(Program::compile(&graph, Mode::Reverse, &wrt, "logits")?)?;
        self.programs.insert(shape, Programs { tangent, reverse });
        Ok((tangent, reverse))
    }

    /// `each` of every batch, with the number of rows that count before it.
    fn batches(&mut self, mut each: impl FnMut(&mut Self, &Sample, usize) -> Result<usize>) -> Result<()> {
        let mut first = 0;
        for i in 0..self.samples.len() {
            let sample = self.samples.get(i)?;
            first += each(self, &sample, first)?;
        }
        Ok(())
    }

    /// "logits" or "tangent", J v, of one batch; rows that count alone.
    fn forward(&mut self, sample: &Sample, w: Vector, v: Vector, name: &str) -> Result<Vec<f64>> {
        let (tangent, _) = self.programs(sample.shape)?;
        let inputs = bind(sample);
        self.engine.run(tangent, &Bindings { tangents: Some(v), ..Bindings::new(w, &inputs) })?;
        let all = self.engine.fetch(tangent, name)?;
        Ok(counted(sample, &all, self.width))
    }

    fn reverse(&mut self, sample: &Sample, w: Vector, u: &[f64], g: Vector, add: bool) -> Result<()> {
        let (_, reverse) = self.programs(sample.shape)?;
        let (mut seed, mut rows) = (vec![0.0f32; sample.counts.len() * self.width], u.chunks(self.width));
        for (to, &counts) in seed.chunks_mut(self.width).zip(&sample.counts) {
            if counts {
                let row = rows.next().unwrap_or_default();
                to.iter_mut().zip(row).for_each(|(to, &u)| *to = u as f32);
            }
        }
        let inputs = bind(sample);
        let with =
            Bindings { cotangents: Some(g), accumulate: add, seed: Some(&seed), ..Bindings::new(w, &inputs) };
        self.engine.run(reverse, &with)
    }
}

fn bind(sample: &Sample) -> Vec<(&str, Data<'_>)> {
    fn bound((name, numbers): &(String, Numbers)) -> (&str, Data<'_>) {
        match numbers {
            Numbers::Real(x) => (name.as_str(), Data::Real(x)),
            Numbers::Index(x) => (name.as_str(), Data::Index(x)),
        }
    }
    sample.inputs.iter().map(bound).collect()
}

fn counted(sample: &Sample, all: &[f32], width: usize) -> Vec<f64> {
    let rows = all.chunks(width).zip(&sample.counts).filter(|(_, counts)| **counts);
    rows.flat_map(|(row, _)| row.iter().map(|&x| f64::from(x))).collect()
}

impl Space for OnEngine<'_> {
    type Vector = Vector;

    fn dim(&self) -> usize {
        let layout = self.engine.layout();
        layout.parameters() - layout.count(Role::Frozen)
    }

    fn zeros(&mut self) -> Result<Vector> {
        let Some(v) = self.spare.pop() else { return self.engine.zeros() };
        self.engine.scale(0.0, v)?;
        Ok(v)
    }

    fn normal(&mut self, seed: u64, stream: u64, to: &mut Vector) -> Result<()> {
        let mut rng = Rng::new(seed, stream);
        let trained = self.engine.layout().spans().iter().filter(|s| s.role != Role::Frozen);
        let spans: Vec<_> = trained.map(|s| s.range()).collect();
        for range in spans {
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

impl Map for OnEngine<'_> {
    fn samples(&self) -> usize {
        self.rows
    }

    fn width(&self) -> usize {
        self.width
    }

    /// Products are in f32.
    fn precision(&self) -> f64 {
        f64::from(f32::EPSILON)
    }

    fn value(&mut self, w: &Vector) -> Result<Vec<f64>> {
        let none = self.zeros()?;
        let mut all = Vec::with_capacity(self.rows * self.width);
        self.batches(|map, sample, _| {
            all.extend(map.forward(sample, *w, none, "logits")?);
            Ok(0)
        })?;
        self.recycle(none);
        Ok(all)
    }

    fn jv(&mut self, w: &Vector, v: &Vector) -> Result<Vec<f64>> {
        let mut all = Vec::with_capacity(self.rows * self.width);
        self.batches(|map, sample, _| {
            all.extend(map.forward(sample, *w, *v, "tangent")?);
            Ok(0)
        })?;
        Ok(all)
    }

    fn jtu(&mut self, w: &Vector, u: &[f64], g: &mut Vector) -> Result<()> {
        let mut add = false;
        self.batches(|map, sample, first| {
            let rows = sample.counts.iter().filter(|&&c| c).count();
            let part = &u[first * map.width..(first + rows) * map.width];
            // A row of J is of one batch alone.
            if part.iter().any(|&u| u != 0.0) {
                map.reverse(sample, *w, part, *g, add)?;
                add = true;
            }
            Ok(rows)
        })?;
        if add { Ok(()) } else { self.engine.scale(0.0, *g) }
    }

    fn product(
        &mut self,
        w: &Vector,
        v: &Vector,
        between: &mut dyn FnMut(usize, &mut [f64]),
        g: &mut Vector,
    ) -> Result<()> {
        self.batches(|map, sample, first| {
            let mut u = map.forward(sample, *w, *v, "tangent")?;
            between(first, &mut u);
            map.reverse(sample, *w, &u, *g, first > 0)?;
            Ok(u.len() / map.width)
        })
    }
}
