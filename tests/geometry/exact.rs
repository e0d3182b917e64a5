//! A network in f64, by the dual numbers of the ops' references: J is made column by column. The judge of what the
//! engine does in f32, and a map on which the algorithms show their own error alone.
use faer::Mat;
use fipk::Result;
use fipk::dual::Dual;
use fipk::engine::{Engine, Host, Vector};
use fipk::geometry::{Batch, Elementwise, Map, Numbers, OnEngine, Samples, Space};
use fipk::graph::{Graph, Scope, Source, build};
use fipk::params::{Layout, Role};
use fipk::rng::Rng;
use fipk::tensor::{Element, View, numel};
use std::sync::Arc;

type Model = Arc<dyn Fn(&Scope, usize) + Send + Sync>;

/// A network with one real input "x" and the mark "logits".
pub struct Exact {
    pub graph: Graph,
    pub x: Vec<f32>,
    n: usize,
    model: Model,
    /// J at the weights it was last made for [N m, n].
    jacobian: Option<(Vec<f64>, Mat<f64>)>,
}

impl Exact {
    /// `model` builds it for so many rows.
    pub fn new(x: Vec<f32>, rows: usize, model: impl Fn(&Scope, usize) + Send + Sync + 'static) -> Self {
        let model: Model = Arc::new(model);
        let graph = build(|s| model(s, rows)).unwrap();
        let n = graph.params.iter().map(|p| numel(&p.shape)).sum();
        Self { graph, x, n, model, jacobian: None }
    }

    /// Weights of a plausible size, rounded to f32 so that an engine can have the same.
    pub fn weights(&self, seed: u64) -> Vec<f64> {
        let mut rng = Rng::new(seed, 0);
        (0..self.n).map(|_| f64::from(0.5 * rng.normal())).collect()
    }

    fn run(&self, w: &[f64], v: impl Fn(usize) -> f64) -> Vec<Dual> {
        let mut values: Vec<Vec<Dual>> = Vec::new();
        let starts: Vec<usize> = self
            .graph
            .params
            .iter()
            .scan(0, |at, p| {
                let start = *at;
                *at += numel(&p.shape);
                Some(start)
            })
            .collect();
        for t in &self.graph.tensors {
            values.push(match &t.source {
                Source::Input(_) => self.x.iter().map(|&x| Dual::constant(f64::from(x))).collect(),
                Source::Param(p) => (0..t.numel()).map(|i| Dual::new(w[starts[*p] + i], v(starts[*p] + i))).collect(),
                Source::Node { op, args } => {
                    let views: Vec<View<Dual>> = args
                        .iter()
                        .map(|a| View { data: &values[at(a)], shape: &self.graph.tensor(*a).shape })
                        .collect();
                    let mut y = vec![Dual::ZERO; t.numel()];
                    op.reference(&views, &mut y);
                    y
                }
            });
        }
        let logits = self.graph.mark("logits").unwrap();
        values.swap_remove(at(&logits))
    }

    /// J(w) [N m, n].
    pub fn jacobian(&mut self, w: &[f64]) -> &Mat<f64> {
        if self.jacobian.as_ref().is_none_or(|(at, _)| at != w) {
            let columns: Vec<Vec<Dual>> =
                (0..self.n).map(|j| self.run(w, |i| if i == j { 1.0 } else { 0.0 })).collect();
            let j = Mat::from_fn(columns[0].len(), self.n, |i, j| columns[j][i].eps);
            self.jacobian = Some((w.to_vec(), j));
        }
        &self.jacobian.as_ref().unwrap().1
    }

    /// g = JᵀJ / N [n, n].
    pub fn dense(&mut self, w: &[f64]) -> Mat<f64> {
        let samples = self.samples() as f64;
        let j = self.jacobian(w);
        Mat::from_fn(j.ncols(), j.ncols(), |a, b| (0..j.nrows()).map(|i| j[(i, a)] * j[(i, b)]).sum::<f64>() / samples)
    }

    /// The same network on the host engine, its weights at `w`.
    pub fn on_host(&self, w: &[f64], parts: usize) -> OnHost {
        let mut host = Host::new(Layout::trained(&self.graph.params)).poisoned();
        let at = host.zeros().unwrap();
        write(&mut host, at, w);
        let rows = self.samples();
        let width = self.x.len() / rows;
        let batches = (0..parts)
            .map(|b| {
                let part = rows / parts;
                let x = &self.x[b * part * width..(b + 1) * part * width];
                Batch { shape: part, inputs: vec![("x".into(), Numbers::Real(x.to_vec()))], counts: vec![true; part] }
            })
            .collect();
        OnHost { host, w: at, samples: Parts { batches, model: self.model.clone() } }
    }
}

/// A value's place: its debug form is the only one that tells.
fn at(value: &fipk::graph::Value) -> usize {
    format!("{value:?}").trim_start_matches("Value(").trim_end_matches(')').parse().unwrap()
}

/// Numbers without padding into an engine's layout, in the graph's order.
pub fn write(engine: &mut dyn Engine, to: Vector, w: &[f64]) {
    let spans: Vec<_> = engine.layout().spans().iter().map(|s| s.range()).collect();
    let mut from = w.iter().map(|&w| w as f32);
    for range in spans {
        let part: Vec<f32> = from.by_ref().take(range.len()).collect();
        engine.write(to, range.start, &part).unwrap();
    }
}

pub fn read(engine: &dyn Engine, from: Vector) -> Vec<f64> {
    let mut all = Vec::new();
    for span in engine.layout().spans() {
        let mut part = vec![0.0; span.len];
        engine.read(from, span.at, &mut part).unwrap();
        all.extend(part.into_iter().map(f64::from));
    }
    all
}

/// Batches of a network that is built for so many rows.
pub struct Parts {
    pub batches: Vec<Batch<usize>>,
    pub model: Model,
}

impl Samples for Parts {
    type Shape = usize;
    fn len(&self) -> usize {
        self.batches.len()
    }
    fn get(&self, batch: usize) -> Result<Batch<usize>> {
        Ok(self.batches[batch].clone())
    }
    fn graph(&self, rows: usize) -> Result<Graph> {
        build(|s| (self.model)(s, rows))
    }
}

pub struct OnHost {
    pub host: Host,
    pub w: Vector,
    pub samples: Parts,
}

impl OnHost {
    pub fn with<T>(&mut self, run: impl FnOnce(&mut OnEngine<Parts>, &Vector) -> T) -> T {
        let mut map = OnEngine::new(&mut self.host, &self.samples).unwrap();
        run(&mut map, &self.w)
    }
}

impl Space for Exact {
    type Vector = Vec<f64>;
    fn dim(&self) -> usize {
        self.n
    }
    fn zeros(&mut self) -> Result<Vec<f64>> {
        Ok(vec![0.0; self.n])
    }
    fn normal(&mut self, seed: u64, stream: u64, to: &mut Vec<f64>) -> Result<()> {
        let mut rng = Rng::new(seed, stream);
        to.iter_mut().for_each(|x| *x = f64::from(rng.normal()));
        Ok(())
    }
    fn copy(&mut self, from: &Vec<f64>, to: &mut Vec<f64>) -> Result<()> {
        to.clone_from(from);
        Ok(())
    }
    fn axpy(&mut self, a: f64, x: &Vec<f64>, y: &mut Vec<f64>) -> Result<()> {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
        Ok(())
    }
    fn scale(&mut self, a: f64, x: &mut Vec<f64>) -> Result<()> {
        x.iter_mut().for_each(|x| *x *= a);
        Ok(())
    }
    fn dot(&self, x: &Vec<f64>, y: &Vec<f64>) -> Result<f64> {
        Ok(dot(x, y))
    }
}

impl Elementwise for Exact {
    fn each(&mut self, x: &mut Vec<f64>, f: &mut dyn FnMut(f64) -> f64) -> Result<()> {
        x.iter_mut().for_each(|x| *x = f(*x));
        Ok(())
    }
    fn multiply(&mut self, x: &Vec<f64>, y: &mut Vec<f64>) -> Result<()> {
        y.iter_mut().zip(x).for_each(|(y, x)| *y *= x);
        Ok(())
    }
}

impl Map for Exact {
    fn samples(&self) -> usize {
        self.graph.tensor(self.graph.mark("logits").unwrap()).shape[0]
    }
    fn width(&self) -> usize {
        self.graph.tensor(self.graph.mark("logits").unwrap()).shape[1]
    }
    fn precision(&self) -> f64 {
        f64::EPSILON
    }
    fn value(&mut self, w: &Vec<f64>) -> Result<Vec<f64>> {
        Ok(self.run(w, |_| 0.0).into_iter().map(|d| d.re).collect())
    }
    fn jv(&mut self, w: &Vec<f64>, v: &Vec<f64>) -> Result<Vec<f64>> {
        Ok(self.run(w, |i| v[i]).into_iter().map(|d| d.eps).collect())
    }
    fn jtu(&mut self, w: &Vec<f64>, u: &[f64], g: &mut Vec<f64>) -> Result<()> {
        let j = self.jacobian(w);
        *g = (0..j.ncols()).map(|c| (0..j.nrows()).map(|r| j[(r, c)] * u[r]).sum()).collect();
        Ok(())
    }
}

pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

pub fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

/// ‖x − y‖ / ‖y‖; NaN where either has one.
pub fn apart(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    norm(&x.iter().zip(y).map(|(x, y)| x - y).collect::<Vec<_>>()) / norm(y)
}

pub fn normal(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = Rng::new(seed, 9);
    (0..n).map(|_| f64::from(rng.normal())).collect()
}

/// `rows` examples of `width` numbers, f32.
pub fn inputs(rows: usize, width: usize, seed: u64) -> Vec<f32> {
    normal(rows * width, seed).into_iter().map(|x| x as f32).collect()
}

/// x -> tanh -> logits, of these sizes.
pub fn tanh(sizes: [usize; 3]) -> impl Fn(&Scope, usize) {
    move |s: &Scope, rows: usize| {
        let x = s.input("x", &[rows, sizes[0]], Element::Real);
        let h = s.activation(fipk::ops::Activation::Tanh, s.linear("up", x, sizes[1]));
        s.mark("logits", s.linear("down", h, sizes[2]));
    }
}

/// What the layout of an engine makes trained, for a check that padding is left out.
pub fn trained(layout: &Layout) -> usize {
    layout.parameters() - layout.count(Role::Frozen)
}
