//! The ops of convolutional networks at the sizes that they give them.
use super::shapes::{Planned, real, same};
use crate::ops::{Activation, Add, AveragePool, BatchNorm, Conv2d, Linear, MaxPool, Moment, Op, Subsample, Windows};
use crate::selftest::Role;
use std::sync::Arc;

/// A convolution without bias: channels and side of its images, outputs, side of its kernel, stride.
type Convolution = (usize, usize, usize, usize, usize);

/// CIFAR's ResNet20, whose first, ordinary and narrowing blocks at each width these are.
const RESNET20: [Convolution; 6] = [
    (3, 32, 16, 3, 1),
    (16, 32, 16, 3, 1),
    (16, 32, 32, 3, 2),
    (32, 16, 32, 3, 1),
    (32, 16, 64, 3, 2),
    (64, 8, 64, 3, 1),
];

/// ResNet-50's stem, and what its bottlenecks do at each width: narrow, in the middle, widen, shorten.
const RESNET50: [Convolution; 10] = [
    (3, 224, 64, 7, 2),
    (64, 56, 64, 1, 1),
    (64, 56, 64, 3, 1),
    (64, 56, 256, 1, 1),
    (256, 56, 512, 1, 2),
    (128, 56, 128, 3, 2),
    (256, 14, 256, 3, 1),
    (256, 14, 1024, 1, 1),
    (512, 7, 512, 3, 1),
    (2048, 7, 512, 1, 1),
];

pub fn resnet20() -> Vec<Planned> {
    let mut all = network(128, &RESNET20, (16, 32), (64, 8, 10));
    all.push(Planned::new(Subsample { stride: 2, pad: 8 }, vec![real(&[128, 16, 32, 32], 1.0, Role::Activation)]));
    all
}

pub fn resnet50() -> Vec<Planned> {
    let mut all = network(32, &RESNET50, (64, 56), (2048, 7, 1000));
    let pool = MaxPool { windows: Windows::square(3, 2, 1) };
    all.push(Planned::new(pool, vec![real(&[32, 64, 112, 112], 1.0, Role::Activation)]));
    all
}

pub fn tiny() -> Vec<Planned> {
    network(2, &[(3, 8, 4, 3, 1), (4, 8, 4, 3, 2)], (4, 8), (4, 4, 3))
}

/// Convolutions; then what stands between them at (channels, side), and the end: (channels, side, labels).
fn network(
    batch: usize,
    convolutions: &[Convolution],
    (c, side): (usize, usize),
    (last, end, labels): (usize, usize, usize),
) -> Vec<Planned> {
    let activation = |shape: &[usize]| real(shape, 1.0, Role::Activation);
    let weight = |shape: &[usize]| real(shape, 0.05, Role::Parameter);
    let mut all: Vec<Planned> = Vec::new();
    let mut put = |op: Arc<dyn Op>, inputs| all.push(Planned { op, inputs });
    for &(channels, side, outputs, kernel, stride) in convolutions {
        let inputs = vec![activation(&[batch, channels, side, side]), weight(&[outputs, channels, kernel, kernel])];
        put(Arc::new(Conv2d::square(stride, kernel / 2)), inputs);
    }
    let x = [batch, c, side, side];
    let one = || same(&[c], Role::Parameter, 1.0);
    put(Arc::new(BatchNorm { eps: 1e-5 }), vec![activation(&x), weight(&[c]), one(), one(), weight(&[c])]);
    put(Arc::new(Moment::Mean), vec![activation(&x)]);
    put(Arc::new(Moment::Variance), vec![activation(&x)]);
    put(Arc::new(Activation::Relu), vec![activation(&x)]);
    put(Arc::new(Add), vec![activation(&x), activation(&x)]);
    put(Arc::new(AveragePool::GLOBAL), vec![activation(&[batch, last, end, end])]);
    put(Arc::new(Linear), vec![activation(&[batch, last]), weight(&[labels, last]), weight(&[labels])]);
    all
}
