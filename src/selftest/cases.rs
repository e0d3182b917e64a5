//! The op table: every op on awkward sizes.
use super::case::{Case, Input, Role};
use crate::ops::{
    Activation, Add, AddLayerNorm, AddPosition, Attention, AveragePool, BatchNorm, Conv2d, CrossEntropy, Distance,
    Embedding, Flatten, FusedLinear, Interpolate, LayerNorm, Linear, MaxPool, Mean, Moment, Op, Patches, Prepend,
    RectifiedBatchNorm, RectifiedConv, SelectToken, SquaredError, Subsample, Windows,
};
use crate::rng::Rng;
use crate::tensor::numel;
use std::sync::Arc;

/// Inputs from one seed.
pub struct Make(pub Rng);

impl Make {
    pub fn normal(&mut self, shape: &[usize], size: f32) -> Input {
        let data = (0..numel(shape)).map(|_| size * self.0.normal()).collect();
        Input { shape: shape.to_vec(), data, role: Role::Activation }
    }
    fn parameter(&mut self, shape: &[usize], size: f32) -> Input {
        Input { role: Role::Parameter, ..self.normal(shape, size) }
    }
    /// Around 1, as scales of a normalisation are.
    fn scales(&mut self, shape: &[usize]) -> Input {
        let mut input = self.parameter(shape, 0.3);
        input.data.iter_mut().for_each(|v| *v += 1.0);
        input
    }
    fn index(&mut self, shape: &[usize], below: usize) -> Input {
        let data = (0..numel(shape)).map(|_| f32::from_bits(self.0.below(below) as u32)).collect();
        Input { shape: shape.to_vec(), data, role: Role::Index }
    }
    /// 1 at a key to attend to, 0 at padding: after it in the first sample, here and there in the others.
    fn mask(&mut self, b: usize, s: usize) -> Input {
        let mut mask = self.index(&[b, s], 4);
        for (i, m) in mask.data.iter_mut().enumerate() {
            let keep = i % s == 0 || if i < s { i < s.div_ceil(2) } else { m.to_bits() != 0 };
            *m = f32::from_bits(u32::from(keep));
        }
        mask
    }
    /// Row weights; about a third of them 0 if there are several.
    fn weights(&mut self, shape: &[usize]) -> Input {
        let n = numel(shape);
        let data = (0..n).map(|_| if n > 1 && self.0.below(3) == 0 { 0.0 } else { self.0.uniform() + 0.1 }).collect();
        Input { shape: shape.to_vec(), data, role: Role::Constant }
    }
    /// Labels in 0..classes, and -100 where the weight is 0.
    fn labels(&mut self, weights: &Input, classes: usize) -> Input {
        let mut labels = self.index(&weights.shape, classes);
        let padding = labels.data.iter_mut().zip(&weights.data).filter(|(_, w)| **w == 0.0);
        padding.for_each(|(label, _)| *label = f32::from_bits(-100i32 as u32));
        labels
    }
}

/// A row a case: op, inputs, tolerance in ulps (0: exact). Each op meets 1, odd and prime sizes, and one size
/// that several tasks share.
pub fn cases(seed: u64) -> Vec<Case> {
    let m = &mut Make(Rng::new(seed, 0));
    let mut cases: Vec<Case> = Vec::new();
    let mut put = |op: Box<dyn Op>, ulps: f64, inputs: Vec<Input>| cases.push(Case { op: Arc::from(op), inputs, ulps });

    for shape in [&[1][..], &[31], &[3, 7], &[2, 3, 33], &[131, 257]] {
        put(Box::new(Add), 1.0, vec![m.normal(shape, 1.0), m.normal(shape, 1.0)]);
        for f in [Activation::GeluErf, Activation::GeluTanh, Activation::Relu, Activation::Tanh] {
            put(Box::new(f), 8.0, vec![m.normal(shape, 2.0)]);
        }
    }
    for (lead, k, n) in [(&[1][..], 1, 1), (&[5], 7, 1), (&[2, 3], 31, 33), (&[1, 33], 1, 31), (&[277], 65, 67)] {
        let x = [lead, &[k]].concat();
        put(Box::new(Linear), 8.0, vec![m.normal(&x, 1.0), m.parameter(&[n, k], 0.5)]);
        put(Box::new(Linear), 8.0, vec![m.normal(&x, 1.0), m.parameter(&[n, k], 0.5), m.parameter(&[n], 1.0)]);
    }
    for shape in [&[1][..], &[7, 3], &[2, 3, 31], &[5, 33], &[37, 40], &[131, 257]] {
        let n = &shape[shape.len() - 1..];
        put(Box::new(LayerNorm { eps: 1e-12 }), 8.0, vec![m.normal(shape, 1.0), m.scales(n), m.parameter(n, 1.0)]);
        // Far from zero, where a variance by E x² - (E x)² would lose its digits.
        let mut far = m.normal(shape, 1.0);
        far.data.iter_mut().for_each(|v| *v += 30.0);
        put(Box::new(LayerNorm { eps: 1e-5 }), 8.0, vec![far, m.scales(n), m.parameter(n, 1.0)]);
    }
    // The widths that kernels are made for, odd ones, and one that takes two of the portable, among the heads.
    let small = [(1, 1, 1, 1), (2, 3, 2, 5), (3, 31, 3, 7), (1, 33, 1, 32), (2, 257, 2, 13)];
    let wide = [(2, 33, 1, 64), (1, 31, 2, 80), (1, 65, 1, 128), (1, 7, 1, 160), (1, 70, 1, 48), (2, 33, 1, 96)];
    for (b, s, heads, d) in small.into_iter().chain(wide) {
        let shape = [b, s, heads * d];
        let qkv = [m.normal(&shape, 1.0), m.normal(&shape, 1.0), m.normal(&shape, 1.0)];
        put(Box::new(Attention { heads }), 16.0, [&qkv[..], &[m.mask(b, s)]].concat());
        // A sample that only fills the batch has no key to attend to.
        let mut mask = m.mask(b, s);
        mask.data[(b - 1) * s..].fill(0.0);
        put(Box::new(Attention { heads }), 16.0, [&qkv[..], &[mask]].concat());
        put(Box::new(Attention { heads }), 16.0, qkv.to_vec());
    }
    for (ids, v, h) in
        [(&[1][..], 1, 1), (&[7], 5, 3), (&[2, 31], 2, 33), (&[3, 5], 61, 1), (&[2, 37], 5, 40), (&[3, 101], 257, 129)]
    {
        put(Box::new(Embedding), 0.0, vec![m.index(ids, v), m.parameter(&[v, h], 1.0)]);
    }
    for (b, s, h, p) in [(1, 1, 1, 1), (2, 3, 5, 3), (3, 31, 33, 37), (3, 5, 24, 7), (5, 101, 67, 128)] {
        put(Box::new(AddPosition), 1.0, vec![m.normal(&[b, s, h], 1.0), m.parameter(&[p, h], 1.0)]);
    }
    for (b, s, h, index) in [(1, 1, 1, 0), (2, 3, 5, 2), (31, 7, 33, 0), (5, 3, 40, 1), (67, 13, 31, 5)] {
        put(Box::new(SelectToken { index }), 0.0, vec![m.normal(&[b, s, h], 1.0)]);
    }
    vision(m, &mut put);
    for (rows, c) in [(&[1][..], 1), (&[1], 2), (&[7], 3), (&[2, 5], 31), (&[33], 5), (&[3, 67], 331)] {
        let scores = [rows, &[c]].concat();
        let weights = m.weights(rows);
        put(Box::new(CrossEntropy), 4.0, vec![m.normal(&scores, 3.0), m.labels(&weights, c), weights.clone()]);
        put(Box::new(SquaredError), 4.0, vec![m.normal(&scores, 1.0), m.normal(&scores, 1.0), weights.clone()]);
        for d in Distance::ALL {
            put(Box::new(d), 4.0, vec![m.normal(&scores, 3.0), m.normal(&scores, 3.0), weights.clone()]);
        }
    }
    for (x, w, op, bias) in convolutions() {
        let mut inputs = vec![m.normal(&x, 1.0), m.parameter(&w, 0.5)];
        inputs.extend(bias.then(|| m.parameter(&w[..1], 1.0)));
        put(Box::new(op), 8.0, inputs);
    }
    for (x, w, conv, bias) in convolutions().into_iter().filter(|c| c.2.groups == 1) {
        let Ok(shape) = conv.output(&[&x, &w]) else { continue };
        let c = &shape[1..2];
        let (mean, mut variance, mut weight) = (m.parameter(c, 0.5), m.scales(c), m.scales(c));
        variance.data.iter_mut().for_each(|v| *v = v.abs() + 0.1);
        // Weights that do not let y tell what was normalised: none, and next to none.
        weight.data.iter_mut().step_by(3).for_each(|w| *w = 0.0);
        weight.data.iter_mut().skip(1).step_by(3).for_each(|w| *w *= 1e-4);
        let norm = [mean, variance, weight, m.parameter(c, 1.0)];
        for residual in [false, true] {
            let mut inputs = vec![m.normal(&x, 1.0), m.parameter(&w, 0.5)];
            inputs.extend(bias.then(|| m.parameter(c, 1.0)));
            inputs.extend(norm.iter().cloned());
            inputs.extend(residual.then(|| m.normal(&shape, 1.0)));
            put(Box::new(RectifiedConv { conv, eps: 1e-5, bias, residual }), 8.0, inputs);
        }
    }
    for shape in [&[1, 1][..], &[7, 3], &[2, 3, 1, 1], &[3, 5, 7, 9], &[2, 31, 4, 4], &[5, 7, 33, 31]] {
        let c = &shape[1..2];
        let (mean, mut variance) = (m.parameter(c, 0.5), m.scales(c));
        variance.data.iter_mut().for_each(|v| *v = v.abs() + 0.1);
        let inputs = vec![m.normal(shape, 1.0), mean, variance, m.scales(c), m.parameter(c, 1.0)];
        let with_residual = inputs.iter().cloned().chain([m.normal(shape, 1.0)]).collect();
        put(Box::new(RectifiedBatchNorm { eps: 1e-5, residual: false }), 8.0, inputs.clone());
        put(Box::new(RectifiedBatchNorm { eps: 1e-5, residual: true }), 8.0, with_residual);
        put(Box::new(BatchNorm { eps: 1e-5 }), 8.0, inputs);
        // Far from zero, where a variance by E x² - (E x)² would lose its digits.
        let mut far = m.normal(shape, 1.0);
        far.data.iter_mut().for_each(|v| *v += 30.0);
        for moment in [Moment::Mean, Moment::Variance] {
            put(Box::new(moment), 8.0, vec![m.normal(shape, 1.0)]);
            put(Box::new(moment), 8.0, vec![far.clone()]);
        }
        put(Box::new(Flatten), 0.0, vec![m.normal(shape, 1.0)]);
    }
    for (x, windows) in pools() {
        put(Box::new(MaxPool { windows }), 0.0, vec![m.normal(&x, 1.0)]);
        for count_padding in [false, true] {
            put(Box::new(AveragePool { windows, count_padding }), 8.0, vec![m.normal(&x, 1.0)]);
        }
    }
    for (x, stride, pad) in [([1, 1, 1, 1], 1, 0), ([2, 3, 7, 5], 2, 1), ([3, 16, 8, 8], 2, 8), ([5, 4, 33, 31], 3, 0)]
    {
        put(Box::new(Subsample { stride, pad }), 0.0, vec![m.normal(&x, 1.0)]);
    }
    fused(m, &mut put);
    cases
}

/// Two ops as one: norms of sums; and linear maps with what follows them, each activation, with a residual or without, with
/// a bias or without; sizes of one element, and sums that are long enough to go in parts.
fn fused(m: &mut Make, put: &mut dyn FnMut(Box<dyn Op>, f64, Vec<Input>)) {
    use Activation::{GeluErf, GeluTanh, Relu, Tanh};
    for shape in [&[1][..], &[7, 5], &[2, 3, 31], &[5, 33], &[37, 40], &[131, 257]] {
        let n = &shape[shape.len() - 1..];
        let inputs = vec![m.normal(shape, 1.0), m.normal(shape, 1.0), m.scales(n), m.parameter(n, 1.0)];
        put(Box::new(AddLayerNorm { eps: 1e-5 }), 8.0, inputs);
    }
    let fused = |activation, residual| FusedLinear { activation, residual };
    let maps: [(FusedLinear, &[usize], usize, bool); 13] = [
        (fused(None, true), &[1, 1], 1, true),
        (fused(None, true), &[2, 3, 31], 33, false),
        (fused(None, true), &[277, 65], 67, true),
        (fused(None, true), &[3, 1030], 5, true),
        (fused(Some(GeluErf), false), &[1, 1], 1, false),
        (fused(Some(GeluErf), false), &[277, 65], 67, true),
        (fused(Some(GeluErf), true), &[3, 1030], 5, true),
        (fused(Some(GeluTanh), false), &[2, 3, 31], 33, true),
        (fused(Some(GeluTanh), true), &[5, 7], 40, false),
        // Few elements: one so near 0 that another order of summation turns its sign would be a slope apart.
        (fused(Some(Relu), false), &[5, 7], 9, true),
        (fused(Some(Relu), true), &[5, 7], 16, true),
        (fused(Some(Tanh), false), &[2, 3, 31], 33, true),
        (fused(Some(Tanh), true), &[33, 24], 40, false),
    ];
    for (op, x, n, bias) in maps {
        let k = x[x.len() - 1];
        let mut inputs = vec![m.normal(x, 1.0), m.parameter(&[n, k], 0.5)];
        inputs.extend(bias.then(|| m.parameter(&[n], 1.0)));
        inputs.extend(op.residual.then(|| m.normal(&[&x[..x.len() - 1], &[n]].concat(), 1.0)));
        put(Box::new(op), 8.0, inputs);
    }
}

/// x, and windows that overlap, leave pixels out, reach into padding or past the end, or adapt to the output.
fn pools() -> Vec<([usize; 4], Windows)> {
    let strided = |kernel, stride, padding, ceil| Windows::Strided { kernel, stride, padding, ceil };
    vec![
        ([1, 1, 1, 1], Windows::square(1, 1, 0)),
        ([2, 3, 8, 6], Windows::square(2, 2, 0)),
        ([2, 3, 9, 7], Windows::square(3, 2, 1)),
        ([1, 2, 6, 6], strided([3, 2], [2, 3], [1, 0], true)),
        ([3, 2, 7, 8], strided([2, 2], [2, 2], [1, 1], true)),
        ([2, 5, 5, 7], Windows::global()),
        ([2, 3, 7, 5], Windows::Adaptive { to: [3, 2] }),
        ([1, 2, 2, 3], Windows::Adaptive { to: [4, 3] }),
        ([5, 9, 31, 33], Windows::square(3, 2, 1)),
        ([2, 3, 9, 8], strided([2, 1], [3, 4], [0, 0], false)),
        ([1, 2, 17, 13], strided([7, 6], [2, 5], [3, 2], true)),
    ]
}

/// x, W, how, and whether with a bias: strides, padding, dilation, groups, depthwise; kernels of one tap, of one row
/// and larger than the image; and sizes that leave columns over.
fn convolutions() -> Vec<([usize; 4], [usize; 4], Conv2d, bool)> {
    let (plain, square) = (Conv2d::default(), Conv2d::square);
    vec![
        ([1, 1, 1, 1], [1, 1, 1, 1], plain, false),
        ([2, 3, 5, 7], [5, 3, 1, 1], plain, true),
        ([2, 3, 6, 5], [2, 3, 1, 1], square(2, 0), false),
        ([2, 3, 8, 8], [5, 3, 3, 3], square(1, 1), true),
        ([3, 2, 9, 7], [3, 2, 3, 3], square(2, 1), false),
        ([1, 2, 15, 13], [3, 2, 7, 7], square(2, 3), false),
        ([2, 1, 12, 11], [3, 1, 5, 5], plain, true),
        ([1, 3, 8, 12], [7, 3, 4, 4], square(4, 0), true),
        ([1, 2, 7, 9], [2, 2, 1, 3], Conv2d { stride: [2, 1], padding: [0, 2], ..plain }, true),
        ([2, 2, 11, 10], [3, 2, 3, 2], Conv2d { dilation: [2, 3], padding: [1, 2], ..plain }, false),
        ([1, 1, 9, 11], [2, 1, 3, 3], Conv2d { stride: [3, 2], dilation: [2, 2], padding: [3, 1], groups: 1 }, false),
        ([2, 6, 5, 6], [4, 3, 3, 3], Conv2d { groups: 2, ..square(1, 1) }, true),
        ([1, 5, 7, 6], [5, 1, 3, 3], Conv2d { groups: 5, ..square(1, 1) }, false),
        ([1, 3, 9, 9], [6, 1, 3, 3], Conv2d { groups: 3, ..square(2, 1) }, true),
        ([1, 2, 3, 2], [2, 2, 5, 5], square(1, 2), false),
        ([9, 17, 6, 6], [19, 17, 3, 3], square(1, 1), true),
        ([3, 4, 19, 35], [33, 4, 3, 3], square(1, 1), false),
        ([2, 17, 7, 5], [3, 17, 3, 3], square(1, 1), true),
        ([2, 3, 10, 11], [4, 3, 2, 2], Conv2d { stride: [4, 3], ..plain }, true),
        ([1, 2, 9, 8], [3, 2, 3, 2], Conv2d { stride: [4, 2], dilation: [2, 4], padding: [2, 3], ..plain }, false),
        ([2, 66, 3, 5], [70, 66, 1, 1], plain, true),
        ([1, 34, 4, 5], [68, 17, 3, 3], Conv2d { groups: 2, ..square(2, 1) }, false),
    ]
}

/// From images to tokens.
fn vision(m: &mut Make, put: &mut dyn FnMut(Box<dyn Op>, f64, Vec<Input>)) {
    // With pixels that fill no patch, and patches of one pixel.
    for (shape, height, width) in [
        ([1, 1, 1, 1], 1, 1),
        ([2, 3, 8, 8], 4, 4),
        ([3, 2, 7, 11], 3, 2),
        ([1, 3, 5, 6], 1, 6),
        ([5, 3, 34, 33], 8, 16),
    ] {
        put(Box::new(Patches { height, width }), 0.0, vec![m.normal(&shape, 1.0)]);
    }
    // A convolution's kernel.
    put(
        Box::new(Linear),
        8.0,
        vec![m.normal(&[2, 5, 24], 1.0), m.parameter(&[7, 2, 3, 4], 0.5), m.parameter(&[7], 1.0)],
    );
    for (b, s, h, tokens) in [(1, 1, 1, 1), (2, 3, 5, 2), (3, 31, 33, 1), (17, 4, 40, 4), (5, 101, 67, 2)] {
        let x = m.normal(&[b, s, h], 1.0);
        let tokens = (0..tokens).map(|_| m.parameter(&[1, 1, h], 1.0));
        put(Box::new(Prepend), 4.0, std::iter::once(x).chain(tokens.collect::<Vec<_>>()).collect());
    }
    put(Box::new(AddPosition), 1.0, vec![m.normal(&[3, 7, 5], 1.0), m.parameter(&[1, 7, 5], 1.0)]);
    for (special, from, to, h) in
        [(0, (1, 1), (1, 1), 1), (1, (2, 2), (3, 5), 3), (2, (4, 4), (3, 2), 33), (1, (7, 7), (12, 9), 67)]
    {
        let table = m.parameter(&[1, special + from.0 * from.1, h], 1.0);
        put(Box::new(Interpolate { special, from, to }), 16.0, vec![table]);
    }
    for shape in [&[1][..], &[3, 7], &[131, 67]] {
        put(Box::new(Mean), 1.0, vec![m.normal(shape, 1.0), m.normal(shape, 1.0)]);
    }
}
