//! The op table of `src/selftest/cases.rs` through every check of `common/op.rs`; and the checks themselves, against
//! ops with planted bugs.
mod common;
use common::op::{check, check_adjoint, check_gradient, check_reference};
use fipk::dual::Dual;
use fipk::ops::{
    Activation, Add, AddLayerNorm, AddPosition, Attention, AveragePool, BatchNorm, Conv2d, Cost, Cotangent,
    CrossEntropy, Distance, Embedding, Flatten, FusedLinear, Interpolate, LayerNorm, Linear, MaxPool, Mean, Moment, Op,
    Pass, Patches, Prepend, Reads, RectifiedConv, SelectToken, SquaredError, Subsample, Windows,
};
use fipk::rng::Rng;
use fipk::selftest::{Case, Make, cases};
use fipk::tensor::{Shape, View, numel};
use std::sync::Arc;

#[test]
fn every_op_passes_every_check() {
    let wrong: Vec<String> = cases(1).iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_op_has_a_cost() {
    for case in cases(1) {
        let shapes: Vec<&[usize]> = case.inputs.iter().map(|i| i.shape.as_slice()).collect();
        let output = case.op.output(&shapes).map_or(0, |shape| numel(&shape)) as u64;
        let [forward, jvp, vjp, dual] =
            [Pass::Forward, Pass::Jvp, Pass::Vjp, Pass::Dual].map(|pass| case.op.cost(pass, &shapes));
        for cost in [forward, jvp, vjp, dual] {
            assert!(cost.bytes >= 4 * output, "{:?} on {shapes:?}: {cost:?}", case.op);
        }
        // Both passes' arithmetic, and both outputs; what both read may be read once.
        let arithmetic = forward.flops.max(jvp.flops)..=forward.flops + jvp.flops;
        let bytes = forward.bytes.max(jvp.bytes).max(8 * output)..=forward.bytes + jvp.bytes;
        let fits = arithmetic.contains(&dual.flops) && bytes.contains(&dual.bytes);
        assert!(fits, "{:?} on {shapes:?}: {forward:?}, {jvp:?}, at once {dual:?}", case.op);
    }
}

#[test]
fn every_op_refuses_shapes_that_do_not_fit() {
    type Refused = (Box<dyn Op>, Vec<&'static [usize]>);
    let rectified = |groups, residual| -> Box<dyn Op> {
        let conv = Conv2d { groups, ..Conv2d::default() };
        Box::new(RectifiedConv { conv, eps: 1e-5, bias: false, residual })
    };
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
        (Box::new(Patches { height: 4, width: 4 }), vec![&[1, 3, 3, 8]]),
        (Box::new(Patches { height: 4, width: 0 }), vec![&[1, 3, 8, 8]]),
        (Box::new(Patches { height: 4, width: 4 }), vec![&[3, 8, 8]]),
        (Box::new(Prepend), vec![&[2, 3, 4]]),
        (Box::new(Prepend), vec![&[2, 3, 4], &[1, 4]]),
        (Box::new(Prepend), vec![&[2, 3, 4], &[1, 1, 4], &[1, 1, 5]]),
        (Box::new(Interpolate { special: 1, from: (2, 2), to: (3, 3) }), vec![&[1, 4, 8]]),
        (Box::new(Interpolate { special: 1, from: (2, 2), to: (0, 3) }), vec![&[1, 5, 8]]),
        (Box::new(Mean), vec![&[2, 3], &[3, 2]]),
        (Box::new(Linear), vec![&[2, 12], &[5, 3, 2, 3], &[5]]),
        (Box::new(AddLayerNorm { eps: 1e-5 }), vec![&[2, 3], &[3], &[3]]),
        (Box::new(AddLayerNorm { eps: 1e-5 }), vec![&[2, 3], &[3, 2], &[3], &[3]]),
        (Box::new(FusedLinear { activation: None, residual: true }), vec![&[2, 3], &[5, 3]]),
        (Box::new(FusedLinear { activation: None, residual: true }), vec![&[2, 3], &[5, 3], &[5]]),
        (Box::new(FusedLinear { activation: Some(Activation::Relu), residual: true }), vec![]),
        (Box::new(FusedLinear { activation: Some(Activation::Relu), residual: false }), vec![&[2, 3], &[5, 4], &[5]]),
        (Box::new(CrossEntropy), vec![&[2, 3], &[3], &[2]]),
        (Box::new(CrossEntropy), vec![&[2, 3], &[2], &[3]]),
        (Box::new(CrossEntropy), vec![&[], &[], &[]]),
        (Box::new(SquaredError), vec![&[2, 3], &[2, 4], &[2]]),
        (Box::new(SquaredError), vec![&[2, 3], &[2, 3], &[2, 3]]),
        (Box::new(Distance::Kl), vec![&[2, 3], &[2, 4], &[2]]),
        (Box::new(Distance::Euclidean), vec![&[2, 3], &[2, 3]]),
        (Box::new(Conv2d::default()), vec![&[2, 3, 5], &[4, 3, 1, 1]]),
        (Box::new(Conv2d::default()), vec![&[2, 3, 5, 5]]),
        (Box::new(Conv2d::default()), vec![&[2, 3, 5, 5], &[4, 2, 3, 3]]),
        (Box::new(Conv2d::default()), vec![&[2, 3, 5, 5], &[4, 3, 3, 3], &[3]]),
        (Box::new(Conv2d::default()), vec![&[2, 3, 5, 5], &[4, 3, 6, 3]]),
        (Box::new(Conv2d::default()), vec![&[2, 3, 5, 5], &[4, 3, 0, 3]]),
        (Box::new(Conv2d { stride: [0, 1], ..Conv2d::default() }), vec![&[2, 3, 5, 5], &[4, 3, 3, 3]]),
        (Box::new(Conv2d { dilation: [1, 3], ..Conv2d::default() }), vec![&[2, 3, 5, 5], &[4, 3, 3, 3]]),
        (Box::new(Conv2d { groups: 2, ..Conv2d::default() }), vec![&[2, 3, 5, 5], &[4, 1, 3, 3]]),
        (Box::new(Conv2d { groups: 3, ..Conv2d::default() }), vec![&[2, 3, 5, 5], &[4, 1, 3, 3]]),
        (Box::new(BatchNorm { eps: 1e-5 }), vec![&[2, 3, 5, 5], &[3], &[3], &[3], &[2]]),
        (Box::new(BatchNorm { eps: 1e-5 }), vec![&[2, 3, 5, 5], &[3], &[3]]),
        (rectified(1, false), vec![&[2, 3, 5, 5], &[4, 3, 3, 3], &[4], &[4], &[4]]),
        (rectified(1, false), vec![&[2, 3, 5, 5], &[4, 3, 3, 3], &[4], &[4], &[4], &[3]]),
        (rectified(1, false), vec![&[2, 3, 5, 5], &[4, 2, 3, 3], &[4], &[4], &[4], &[4]]),
        (rectified(3, false), vec![&[2, 3, 5, 5], &[6, 1, 3, 3], &[6], &[6], &[6], &[6]]),
        (rectified(1, true), vec![&[2, 3, 5, 5], &[4, 3, 3, 3], &[4], &[4], &[4], &[4], &[2, 4, 5, 5]]),
        (Box::new(Moment::Mean), vec![&[3]]),
        (Box::new(Flatten), vec![&[]]),
        (Box::new(MaxPool { windows: Windows::square(2, 2, 0) }), vec![&[2, 3, 5]]),
        (Box::new(MaxPool { windows: Windows::square(2, 0, 0) }), vec![&[2, 3, 5, 5]]),
        (Box::new(MaxPool { windows: Windows::square(2, 1, 2) }), vec![&[2, 3, 5, 5]]),
        (Box::new(MaxPool { windows: Windows::square(7, 1, 0) }), vec![&[2, 3, 5, 5]]),
        (Box::new(MaxPool { windows: Windows::square(2, 1, 1) }), vec![&[2, 3, 0, 5]]),
        (Box::new(AveragePool::GLOBAL), vec![&[2, 3, 0, 5]]),
        (Box::new(Subsample { stride: 0, pad: 1 }), vec![&[2, 3, 5, 5]]),
        (Box::new(Subsample { stride: 2, pad: 1 }), vec![&[2, 3, 5]]),
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
        |op: Square| Case { op: Arc::new(op), inputs: vec![Make(Rng::new(2, 0)).normal(&[3, 7], 1.0)], ulps: 4.0 };
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
