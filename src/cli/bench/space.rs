//! The operations on weight space, through an engine, at the number of parameters of a whole network.
use super::measure::Work;
use crate::Result;
use crate::engine::{Criterion, Engine, Mask, Optimizer, Pattern, Pull, Score, Update, Vector};
use crate::graph::{Kind, Param};
use crate::params::{Layout, Role};

/// What is timed.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Copy,
    Axpy,
    Scale,
    Dot,
    Select(Pattern),
    Project,
    Update(Optimizer, Pull),
    /// With the count of magnitudes that the next choice starts from.
    Counted(Optimizer, Pull),
}

impl Operation {
    pub fn all() -> Vec<Self> {
        let adamw = Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.01 };
        let pull = Pull::Gradient { coefficient: 1e-3 };
        let patterns = [
            Pattern::Global,
            Pattern::Layer,
            Pattern::Row,
            Pattern::NofM { n: 2, m: 4 },
            Pattern::Block { rows: 4, cols: 4 },
        ];
        let plain = [Self::Copy, Self::Axpy, Self::Scale, Self::Dot];
        let updates = [
            Self::Project,
            Self::Update(Optimizer::Sgd { momentum: 0.9, decay: 0.01 }, pull),
            Self::Update(adamw, pull),
            Self::Update(adamw, Pull::Shrink { by: 1e-6 }),
            Self::Update(adamw, Pull::Hold),
            Self::Counted(adamw, pull),
        ];
        plain.into_iter().chain(patterns.map(Self::Select)).chain(updates).collect()
    }

    pub fn name(&self) -> String {
        let update = |optimizer: &Optimizer, pull: &Pull| {
            let optimizer = match optimizer {
                Optimizer::AdamW { .. } => "adamw",
                Optimizer::Adam { .. } => "adam",
                Optimizer::Sgd { .. } => "sgd",
            };
            let pull = match pull {
                Pull::None => "none",
                Pull::Gradient { .. } => "gradient",
                Pull::Shrink { .. } => "shrink",
                Pull::Hold => "hold",
            };
            format!("update_{optimizer}_{pull}")
        };
        match self {
            Self::Copy => "flat_copy".into(),
            Self::Axpy => "flat_axpy".into(),
            Self::Scale => "flat_scale".into(),
            Self::Dot => "flat_dot".into(),
            Self::Select(pattern) => format!("select_{pattern}"),
            Self::Project => "project".into(),
            Self::Update(optimizer, pull) => update(optimizer, pull),
            Self::Counted(optimizer, pull) => format!("{}_counted", update(optimizer, pull)),
        }
    }

    /// Bytes that must move for a parameter, on paper; `copies`: the engine keeps a bf16 copy of the weights.
    pub fn bytes(&self, copies: bool) -> f64 {
        let (mask, copy) = (1.0 / 8.0, if copies { 2.0 } else { 0.0 });
        match self {
            Self::Copy | Self::Scale | Self::Dot => 8.0,
            Self::Axpy => 12.0,
            Self::Select(_) => 4.0 + mask,
            Self::Project => 8.0 + mask + copy,
            Self::Update(Optimizer::Sgd { .. }, _) => 20.0 + mask + copy,
            Self::Update(..) | Self::Counted(..) => 28.0 + mask + copy,
        }
    }
}

/// A network of square matrices, all prunable, that has about `parameters`.
pub fn layout(parameters: usize) -> Layout {
    const SIDE: usize = 768;
    let side = SIDE.min(parameters.isqrt().max(4)) / 4 * 4;
    let count = (parameters / (side * side)).max(1);
    let matrix =
        |i| Param { name: format!("{i}.weight"), shape: vec![side, side], kind: Kind::Weight, aliases: vec![] };
    let params: Vec<Param> = (0..count).map(matrix).collect();
    Layout::new(&params, &vec![Role::Prunable; count])
}

/// An engine with the vectors that the operations take.
pub struct Space {
    pub engine: Box<dyn Engine>,
    w: Vector,
    g: Vector,
    m: Vector,
    v: Vector,
    mask: Mask,
    chosen: f32,
    pub timed: Operation,
}

impl Space {
    /// `values` fill every vector, second moments without their signs.
    pub fn new(mut engine: Box<dyn Engine>, values: &mut dyn FnMut(usize) -> Vec<f32>) -> Result<Self> {
        let n = engine.layout().len();
        let [w, g, m, v] = [engine.zeros()?, engine.zeros()?, engine.zeros()?, engine.zeros()?];
        for (vector, size) in [(w, 1.0), (g, 0.1), (m, 0.1), (v, 0.01)] {
            let mut data = values(n);
            data.iter_mut().for_each(|x| *x *= size);
            if vector == v {
                data.iter_mut().for_each(|x| *x = x.abs());
            }
            engine.write(vector, 0, &data)?;
        }
        let mask = engine.mask()?;
        let mut space = Self { engine, w, g, m, v, mask, chosen: 0.0, timed: Operation::Copy };
        space.select(Pattern::Global)?;
        Ok(space)
    }

    pub fn parameters(&self) -> usize {
        self.engine.layout().parameters()
    }

    fn select(&mut self, pattern: Pattern) -> Result<()> {
        let how = Criterion { pattern, score: Score::Magnitude, sparsity: 0.6 };
        self.chosen = self.engine.select(self.w, &how, None, self.mask)?.threshold;
        Ok(())
    }

    fn update(&mut self, optimizer: Optimizer, pull: Pull, counted: bool) -> Result<()> {
        let bits = |x: f32| (self.chosen * x).to_bits();
        let update = Update {
            optimizer,
            step: 3,
            // So small that the weights stay what they are.
            learning_rate: 1e-9,
            gradient_scale: 1.0,
            w: self.w,
            g: self.g,
            m: self.m,
            v: Some(self.v),
            mask: Some(self.mask),
            pull,
            census: counted.then(|| (bits(0.99), bits(1.01))),
        };
        self.engine.update(&update).map(drop)
    }
}

impl Work for Space {
    fn run(&mut self, _: usize) -> Result<()> {
        let n = self.engine.layout().len();
        match self.timed {
            Operation::Copy => self.engine.copy(self.g, self.m),
            Operation::Axpy => self.engine.axpy(1e-9, self.g, self.m),
            Operation::Scale => self.engine.scale(0.999_999, self.m),
            Operation::Dot => self.engine.dot(self.w, self.g, 0..n).map(drop),
            Operation::Select(pattern) => self.select(pattern),
            // Of the gradient, so that the weights stay what they are.
            Operation::Project => self.engine.project(self.g, self.mask),
            Operation::Update(optimizer, pull) => self.update(optimizer, pull, false),
            Operation::Counted(optimizer, pull) => self.update(optimizer, pull, true),
        }
    }

    /// Reads wait for everything queued.
    fn finish(&mut self) -> Result<()> {
        self.engine.read(self.m, 0, &mut [0.0])
    }
}
