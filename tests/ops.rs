//! The op table: every op on awkward sizes, through every check of `common/op.rs`; and the checks themselves,
//! against ops with planted bugs.
mod common;
use common::op::{Case, Input, Role, check, check_adjoint, check_gradient, check_reference};
use fipk::dual::Dual;
use fipk::ops::{
    Activation, Add, AddPosition, Attention, Cost, Cotangent, CrossEntropy, Distance, Embedding, LayerNorm, Linear, Op,
    Pass, Reads, SelectToken, SquaredError,
};
use fipk::rng::Rng;
use fipk::tensor::{Shape, View, numel};

/// Inputs from one seed.
struct Make(Rng);

impl Make {
    fn normal(&mut self, shape: &[usize], size: f32) -> Input {
        let data = (0..numel(shape)).map(|_| size * self.0.normal()).collect();
        Input { shape: shape.to_vec(), data, role: Role::Differentiable }
    }
    /// Around 1, as scales of a normalisation are.
    fn scales(&mut self, shape: &[usize]) -> Input {
        let mut input = self.normal(shape, 0.3);
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
fn table() -> Vec<Case> {
    let m = &mut Make(Rng::new(1, 0));
    let mut cases: Vec<Case> = Vec::new();
    let mut put = |op: Box<dyn Op>, ulps: f64, inputs: Vec<Input>| cases.push(Case { op, inputs, ulps });

    for shape in [&[1][..], &[31], &[3, 7], &[2, 3, 33], &[131, 257]] {
        put(Box::new(Add), 1.0, vec![m.normal(shape, 1.0), m.normal(shape, 1.0)]);
        for f in [Activation::GeluErf, Activation::GeluTanh, Activation::Relu, Activation::Tanh] {
            put(Box::new(f), 8.0, vec![m.normal(shape, 2.0)]);
        }
    }
    for (lead, k, n) in [(&[1][..], 1, 1), (&[5], 7, 1), (&[2, 3], 31, 33), (&[1, 33], 1, 31), (&[277], 65, 67)] {
        let x = [lead, &[k]].concat();
        put(Box::new(Linear), 8.0, vec![m.normal(&x, 1.0), m.normal(&[n, k], 0.5)]);
        put(Box::new(Linear), 8.0, vec![m.normal(&x, 1.0), m.normal(&[n, k], 0.5), m.normal(&[n], 1.0)]);
    }
    for shape in [&[1][..], &[7, 3], &[2, 3, 31], &[5, 33], &[131, 257]] {
        let n = &shape[shape.len() - 1..];
        put(Box::new(LayerNorm { eps: 1e-12 }), 8.0, vec![m.normal(shape, 1.0), m.scales(n), m.normal(n, 1.0)]);
        // Far from zero, where a variance by E x² - (E x)² would lose its digits.
        let mut far = m.normal(shape, 1.0);
        far.data.iter_mut().for_each(|v| *v += 30.0);
        put(Box::new(LayerNorm { eps: 1e-5 }), 8.0, vec![far, m.scales(n), m.normal(n, 1.0)]);
    }
    for (b, s, heads, d) in [(1, 1, 1, 1), (2, 3, 2, 5), (3, 31, 3, 7), (1, 33, 1, 32), (2, 257, 2, 13)] {
        let shape = [b, s, heads * d];
        let qkv = [m.normal(&shape, 1.0), m.normal(&shape, 1.0), m.normal(&shape, 1.0)];
        put(Box::new(Attention { heads }), 16.0, [&qkv[..], &[m.mask(b, s)]].concat());
        // A sample that only fills the batch has no key to attend to.
        let mut mask = m.mask(b, s);
        mask.data[(b - 1) * s..].fill(0.0);
        put(Box::new(Attention { heads }), 16.0, [&qkv[..], &[mask]].concat());
    }
    for (ids, v, h) in [(&[1][..], 1, 1), (&[7], 5, 3), (&[2, 31], 2, 33), (&[3, 5], 61, 1), (&[3, 101], 257, 129)] {
        put(Box::new(Embedding), 0.0, vec![m.index(ids, v), m.normal(&[v, h], 1.0)]);
    }
    for (b, s, h, p) in [(1, 1, 1, 1), (2, 3, 5, 3), (3, 31, 33, 37), (5, 101, 67, 128)] {
        put(Box::new(AddPosition), 1.0, vec![m.normal(&[b, s, h], 1.0), m.normal(&[p, h], 1.0)]);
    }
    for (b, s, h, index) in [(1, 1, 1, 0), (2, 3, 5, 2), (31, 7, 33, 0), (67, 13, 31, 5)] {
        put(Box::new(SelectToken { index }), 0.0, vec![m.normal(&[b, s, h], 1.0)]);
    }
    for (rows, c) in [(&[1][..], 1), (&[1], 2), (&[7], 3), (&[2, 5], 31), (&[33], 5), (&[3, 67], 331)] {
        let scores = [rows, &[c]].concat();
        let weights = m.weights(rows);
        put(Box::new(CrossEntropy), 4.0, vec![m.normal(&scores, 3.0), m.labels(&weights, c), weights.clone()]);
        put(Box::new(SquaredError), 4.0, vec![m.normal(&scores, 1.0), m.normal(&scores, 1.0), weights.clone()]);
        for d in Distance::ALL {
            put(Box::new(d), 4.0, vec![m.normal(&scores, 3.0), m.normal(&scores, 3.0), weights.clone()]);
        }
    }
    cases
}

#[test]
fn every_op_passes_every_check() {
    let wrong: Vec<String> = table().iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_op_has_a_cost() {
    for case in table() {
        let shapes: Vec<&[usize]> = case.inputs.iter().map(|i| i.shape.as_slice()).collect();
        let output = case.op.output(&shapes).map_or(0, |shape| numel(&shape)) as u64;
        for pass in [Pass::Forward, Pass::Jvp, Pass::Vjp] {
            assert!(case.op.cost(pass, &shapes).bytes >= 4 * output, "{:?} {pass:?} on {shapes:?}", case.op);
        }
    }
}

#[test]
fn every_op_refuses_shapes_that_do_not_fit() {
    type Refused = (Box<dyn Op>, Vec<&'static [usize]>);
    let cases: Vec<Refused> = vec![
        (Box::new(Add), vec![&[2, 3], &[3, 2]]),
        (Box::new(Linear), vec![&[2, 3], &[5, 4]]),
        (Box::new(Linear), vec![&[2, 3], &[5, 3], &[4]]),
        (Box::new(Linear), vec![&[], &[5, 3], &[5]]),
        (Box::new(LayerNorm { eps: 1e-5 }), vec![&[2, 3], &[2], &[3]]),
        (Box::new(LayerNorm { eps: 1e-5 }), vec![&[], &[1], &[1]]),
        (Box::new(Attention { heads: 2 }), vec![&[2, 3, 5], &[2, 3, 5], &[2, 3, 5], &[2, 3]]),
        (Box::new(Attention { heads: 1 }), vec![&[2, 3, 5], &[2, 4, 5], &[2, 3, 5], &[2, 3]]),
        (Box::new(Attention { heads: 1 }), vec![&[2, 3, 5], &[2, 3, 5], &[2, 3, 5], &[2, 4]]),
        (Box::new(Embedding), vec![&[2, 3], &[7]]),
        (Box::new(Embedding), vec![&[2, 3]]),
        (Box::new(AddPosition), vec![&[2, 3, 4], &[8, 5]]),
        (Box::new(AddPosition), vec![&[2, 9, 4], &[8, 4]]),
        (Box::new(AddPosition), vec![&[2, 4], &[8, 4]]),
        (Box::new(SelectToken { index: 3 }), vec![&[2, 3, 4]]),
        (Box::new(SelectToken { index: 0 }), vec![&[2, 4]]),
        (Box::new(CrossEntropy), vec![&[2, 3], &[3], &[2]]),
        (Box::new(CrossEntropy), vec![&[2, 3], &[2], &[3]]),
        (Box::new(CrossEntropy), vec![&[], &[], &[]]),
        (Box::new(SquaredError), vec![&[2, 3], &[2, 4], &[2]]),
        (Box::new(SquaredError), vec![&[2, 3], &[2, 3], &[2, 3]]),
        (Box::new(Distance::Kl), vec![&[2, 3], &[2, 4], &[2]]),
        (Box::new(Distance::Euclidean), vec![&[2, 3], &[2, 3]]),
    ];
    for (op, shapes) in cases {
        assert!(op.output(&shapes).is_err_and(|what| !what.is_empty()), "{op:?} on {shapes:?}");
    }
}

/// y = x², with a bug or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Square {
    Right,
    /// jvp and vjp share a slope that is not the function's.
    WrongSlope,
    /// vjp is not jvp's transpose.
    WrongVjp,
    IgnoresAdd,
    SkipsAnOutput,
    SkipsATangent,
    SkipsACotangent,
}

impl Op for Square {
    fn name(&self) -> &'static str {
        "square"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        Ok(x[0].to_vec())
    }
    fn reverse_reads(&self) -> Reads {
        Reads::inputs(&[0])
    }
    fn cost(&self, _: Pass, _: &[&[usize]]) -> Cost {
        Cost::default()
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        y.iter_mut().zip(x[0].data).for_each(|(y, x)| *y = *x * *x);
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        let from = usize::from(*self == Self::SkipsAnOutput);
        y.iter_mut().zip(x[0].data).skip(from).for_each(|(y, x)| *y = x * x);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let slope = if *self == Self::WrongSlope { 1.99 } else { 2.0 };
        let from = usize::from(*self == Self::SkipsATangent);
        let Some(dx) = dx[0] else { return dy.fill(0.0) };
        dy.iter_mut().zip(x[0].data.iter().zip(dx)).skip(from).for_each(|(dy, (x, d))| *dy = slope * x * d);
    }
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let slope = if [Self::WrongSlope, Self::WrongVjp].contains(self) { 1.99 } else { 2.0 };
        let from = usize::from(*self == Self::SkipsACotangent);
        let Some(g) = &mut gx[0] else { return };
        g.add &= *self != Self::IgnoresAdd;
        (from..gy.len()).for_each(|i| g.put(i, slope * x[0].data[i] * gy[i]));
    }
}

#[test]
fn planted_bugs_are_caught() {
    let case =
        |op: Square| Case { op: Box::new(op), inputs: vec![Make(Rng::new(2, 0)).normal(&[3, 7], 1.0)], ulps: 4.0 };
    let control = check(&case(Square::Right));
    assert!(control.is_ok(), "{control:?}");

    // A slope that both passes share is invisible to the adjoint, and a wrong transpose to the reference's JVP:
    // it takes both checks.
    let caught = |op: Square| (check_reference(&case(op)).is_err(), check_adjoint(&case(op)).is_err());
    assert_eq!(caught(Square::WrongSlope), (true, false));
    assert_eq!(caught(Square::WrongVjp), (false, true));
    assert_eq!(caught(Square::IgnoresAdd), (false, true));
    assert!(check_gradient(&case(Square::WrongVjp)).is_err());

    // What stays unwritten is NaN, and a NaN passes nothing.
    assert!(caught(Square::SkipsAnOutput).0);
    assert_eq!(caught(Square::SkipsATangent), (true, true));
    assert_eq!(caught(Square::SkipsACotangent), (false, true));
    assert!(check_gradient(&case(Square::SkipsACotangent)).is_err());
}
