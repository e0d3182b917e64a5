//! The ops of a network at the sizes that it gives them, on random data.
use super::convolutional;
use crate::ops::{
    Activation, Add, AddPosition, Attention, CrossEntropy, Distance, Embedding, LayerNorm, Linear, Op, SelectToken,
    SquaredError,
};
use crate::rng::Rng;
use crate::selftest::{Case, Input, Role};
use crate::tensor::numel;
use std::sync::Arc;

/// A network and a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// BERT-base, 32 x 128
    BertBase,
    /// MiniLM-L6-H384, 16 x 64
    Minilm,
    /// ViT-B/16 at 224, 64 images
    VitB16,
    /// Square products of 4096
    Square,
    /// Attention alone: 12 heads of 64, batches of 32, 128 to 2048 tokens
    Attention,
    /// CIFAR's ResNet20, 128 x 3 x 32 x 32
    Resnet20,
    /// ResNet-50, 32 x 3 x 224 x 224
    Resnet50,
    /// A toy, 2 x 8, for trying the command
    Tiny,
    /// A toy of convolutions, 2 x 3 x 8 x 8
    TinyConvolutions,
}

struct Sizes {
    batch: usize,
    tokens: usize,
    hidden: usize,
    intermediate: usize,
    heads: usize,
    vocabulary: usize,
}

impl Shape {
    pub fn name(self) -> &'static str {
        match self {
            Self::BertBase => "bert-base 32x128",
            Self::Minilm => "minilm 16x64",
            Self::VitB16 => "vit-b16 64x197",
            Self::Square => "square",
            Self::Attention => "12 heads of 64",
            Self::Resnet20 => "resnet20 128x3x32x32",
            Self::Resnet50 => "resnet50 32x3x224x224",
            Self::Tiny => "tiny 2x8",
            Self::TinyConvolutions => "tiny 2x3x8x8",
        }
    }

    /// The ops of the network at its sizes.
    pub fn cases(self) -> Vec<Planned> {
        match self {
            Self::Attention => [128, 256, 512, 1024, 2048].map(|tokens| attention([32, tokens, 768], 12)).into(),
            Self::Square => Vec::new(),
            Self::Resnet20 => convolutional::resnet20(),
            Self::Resnet50 => convolutional::resnet50(),
            Self::TinyConvolutions => convolutional::tiny(),
            Self::BertBase | Self::Minilm | Self::VitB16 | Self::Tiny => self.sizes().iter().flat_map(cases).collect(),
        }
    }

    /// Its linear layers: samples, features in, features out.
    pub fn linears(self) -> Vec<(usize, usize, usize)> {
        if self == Self::Square {
            return vec![(4096, 4096, 4096)];
        }
        let of = |s: Sizes| {
            let pairs = [(s.hidden, s.hidden), (s.hidden, s.intermediate), (s.intermediate, s.hidden)];
            pairs.map(|(inputs, outputs)| (s.batch * s.tokens, inputs, outputs))
        };
        self.sizes().into_iter().flat_map(of).collect()
    }

    /// Of a transformer.
    fn sizes(self) -> Option<Sizes> {
        match self {
            Self::BertBase => Some(sizes(32, 128, 768, 12, 30522)),
            Self::Minilm => Some(sizes(16, 64, 384, 12, 30522)),
            Self::VitB16 => Some(sizes(64, 197, 768, 12, 1000)),
            Self::Tiny => Some(sizes(2, 8, 32, 2, 64)),
            Self::Attention | Self::Square | Self::Resnet20 | Self::Resnet50 | Self::TinyConvolutions => None,
        }
    }

    /// Whether it is there to try the command alone.
    pub fn toy(self) -> bool {
        matches!(self, Self::Tiny | Self::TinyConvolutions)
    }
}

const fn sizes(batch: usize, tokens: usize, hidden: usize, heads: usize, vocabulary: usize) -> Sizes {
    Sizes { batch, tokens, hidden, intermediate: 4 * hidden, heads, vocabulary }
}

/// Random numbers, drawn once and handed out over and over from changing places: drawing each would take longer than
/// what is timed, and no kernel can tell.
pub struct Numbers {
    drawn: Vec<f32>,
    at: usize,
}

impl Numbers {
    pub fn new(seed: u64) -> Self {
        // A prime, so that rows of no usual length repeat.
        const DRAWN: usize = 1_048_573;
        let mut rng = Rng::new(seed, 0);
        Self { drawn: (0..DRAWN).map(|_| rng.normal()).collect(), at: 0 }
    }

    pub fn take(&mut self, n: usize, size: f32) -> Vec<f32> {
        let from = self.at;
        self.at = (self.at + n + 7919) % self.drawn.len();
        (0..n).map(|i| size * self.drawn[(from + i) % self.drawn.len()]).collect()
    }
}

/// An op whose inputs are drawn when it is its turn: all together would not fit.
pub struct Planned {
    pub op: Arc<dyn Op>,
    pub(super) inputs: Vec<Draw>,
}

pub(super) type Draw = Box<dyn Fn(&mut Numbers) -> Input>;

impl Planned {
    pub(super) fn new(op: impl Op + 'static, inputs: Vec<Draw>) -> Self {
        Self { op: Arc::new(op), inputs }
    }

    pub fn draw(&self, numbers: &mut Numbers) -> Case {
        let inputs = self.inputs.iter().map(|input| input(numbers)).collect();
        Case { op: self.op.clone(), inputs, ulps: 0.0 }
    }
}

pub(super) fn real(shape: &[usize], size: f32, role: Role) -> Draw {
    let shape = shape.to_vec();
    Box::new(move |n| Input { data: n.take(numel(&shape), size), shape: shape.clone(), role })
}

pub(super) fn same(shape: &[usize], role: Role, value: f32) -> Draw {
    let shape = shape.to_vec();
    Box::new(move |_| Input { data: vec![value; numel(&shape)], shape: shape.clone(), role })
}

/// Attention without padding, on q, k and v of this shape.
fn attention(shape: [usize; 3], heads: usize) -> Planned {
    let qkv = [0; 3].map(|_| real(&shape, 1.0, Role::Activation));
    let mask = same(&shape[..2], Role::Index, f32::from_bits(1));
    Planned { op: Arc::new(Attention { heads }), inputs: qkv.into_iter().chain([mask]).collect() }
}

/// The ops of a network of these sizes.
fn cases(sizes: &Sizes) -> Vec<Planned> {
    let &Sizes { batch: b, tokens: s, hidden: h, intermediate: i, heads, vocabulary: v } = sizes;
    let rows = b * s;
    let activation = |shape: &[usize]| real(shape, 1.0, Role::Activation);
    let weight = |shape: &[usize]| real(shape, 0.05, Role::Parameter);
    let index = |shape: &[usize], below: usize| {
        let shape = shape.to_vec();
        move |n: &mut Numbers| {
            let draw = |v: f32| f32::from_bits((v.abs() * 1e6) as u32 % below as u32);
            let data = n.take(numel(&shape), 1.0).into_iter().map(draw).collect();
            Input { data, shape: shape.clone(), role: Role::Index }
        }
    };
    let mut all: Vec<Planned> = Vec::new();
    let mut put = |op: Arc<dyn Op>, inputs: Vec<Draw>| all.push(Planned { op, inputs });
    let hidden = [b, s, h];

    put(Arc::new(Embedding), vec![Box::new(index(&[b, s], v)), weight(&[v, h])]);
    put(Arc::new(AddPosition), vec![activation(&hidden), weight(&[s.max(512), h])]);
    let norm = || LayerNorm { eps: 1e-12 };
    put(Arc::new(norm()), vec![activation(&hidden), weight(&[h]), weight(&[h])]);
    for (n, k) in [(h, h), (i, h), (h, i)] {
        let x = activation(&[b, s, k]);
        put(Arc::new(Linear), vec![x, weight(&[n, k]), weight(&[n])]);
    }
    let Planned { op, inputs } = attention(hidden, heads);
    put(op, inputs);
    put(Arc::new(Activation::GeluErf), vec![activation(&[b, s, i])]);
    put(Arc::new(Activation::Tanh), vec![activation(&[b, h])]);
    put(Arc::new(Add), vec![activation(&hidden), activation(&hidden)]);
    put(Arc::new(SelectToken { index: 0 }), vec![activation(&hidden)]);

    // The losses of a masked language model: one token in eight.
    let (masked, scores) = (rows.div_ceil(8), [rows.div_ceil(8), v]);
    let weights = || same(&[masked], Role::Constant, 1.0 / masked as f32);
    let losses: [Arc<dyn Op>; 5] = [
        Arc::new(SquaredError),
        Arc::new(Distance::Kl),
        Arc::new(Distance::Euclidean),
        Arc::new(Distance::Hellinger),
        Arc::new(Distance::Bhattacharyya),
    ];
    put(Arc::new(CrossEntropy), vec![activation(&scores), Box::new(index(&[masked], v)), weights()]);
    for op in losses {
        put(op, vec![activation(&scores), activation(&scores), weights()]);
    }
    all
}
