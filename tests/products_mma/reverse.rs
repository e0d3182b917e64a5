//! Both products of a reverse pass in one launch: bit by bit what two launches in the same tiles and parts make, and near
//! sums in f64.
use super::{DTYPES, GELU, Held, NOTHING, Numbers, PARTS, Parts, emulator};
use fipk::gpu::{Device, Dtype, Ptr, Queue};
use fipk::ops::Activation;
use fipk::ops::gemm::cuda::product_as;
use fipk::ops::gemm::dual::Output;
use fipk::ops::gemm::reverse::{ReverseConfig, configs, reverse_as, shapes};
use fipk::ops::gemm::{GemmShape, Layout};
use fipk::selftest::poisoned;
use std::rc::Rc;

/// gx, stored as its operands are, and gw, f32, of the same gy; of two pairs each if asked for.
fn drawn(size: (usize, usize, usize), dtype: Dtype, pairs: usize) -> [Numbers; 2] {
    let [gx, gw] = shapes(size, dtype).map(|shape| GemmShape { pairs, ..shape });
    of_one(gx, GemmShape { c: Dtype::F32, ..gw })
}

fn of_one(gx: GemmShape, gw: GemmShape) -> [Numbers; 2] {
    let (gx, mut gw) = (Numbers::new(gx), Numbers::new(gw));
    for (of_w, of_x) in gw.pairs.iter_mut().zip(&gx.pairs) {
        of_w[0].clone_from(&of_x[0]);
    }
    [gx, gw]
}

fn check(device: &Rc<dyn Device>, numbers: &[Numbers; 2], config: ReverseConfig, parts: [Parts; 2]) {
    let shapes = [numbers[0].shape, numbers[1].shape];
    let what = format!("{} and {} by {config} with {parts:?}", shapes[0], shapes[1]);
    let held = || [0, 1].map(|i| Held::new(device, numbers[i].clone(), parts[i]));
    let (in_turn, at_once) = (held(), held());
    let scratch = poisoned(device, config.scratch(&shapes)).unwrap();
    for (i, alone) in config.each().into_iter().enumerate() {
        let (of, own) = (&in_turn[i], poisoned(device, alone.scratch(&shapes[i])).unwrap());
        let queue = Queue::new(&**device, own.at());
        product_as(alone, &queue, &shapes[i], &of.pairs(), of.c.at(), of.epilogue()).unwrap();
    }
    let queue = Queue::new(&**device, scratch.at());
    let pairs = [at_once[0].pairs(), at_once[1].pairs()];
    let outputs = [0, 1].map(|i| Output { at: at_once[i].c.at(), dtype: shapes[i].c, epilogue: at_once[i].epilogue() });
    reverse_as(config, &queue, &shapes, [&pairs[0], &pairs[1]], outputs).unwrap();
    for (i, name) in ["gx", "gw"].into_iter().enumerate() {
        let (want, got) = (in_turn[i].outputs(device), at_once[i].outputs(device));
        let bits = |v: &[Vec<f32>; 3]| v.clone().map(|v| v.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        assert!(bits(&want) == bits(&got), "{name} of {what}: not the bits of its own launch");
        at_once[i].check(device, &format!("{name} of {what}"));
    }
}

#[test]
fn one_launch_gives_the_bits_of_two() {
    let add = Parts { add: true, ..NOTHING };
    let slope = |of| Parts { activation: of, slope: true, ..NOTHING };
    let gradient = |add, to| Parts { add, gradient: Some(to), ..NOTHING };
    // As linear maps ask for them, and with all else that an epilogue has.
    let epilogues = [
        [NOTHING, gradient(false, false)],
        [add, gradient(true, true)],
        [slope(GELU), gradient(true, false)],
        [Parts { add: true, ..slope(Some(Activation::Relu)) }, NOTHING],
        [PARTS[1], PARTS[2]],
        [PARTS[3], PARTS[4]],
    ];
    let splits = [[1, 1], [1, 3], [3, 3], [3, 1], [2, 1], [1, 2]];
    // Either product with the more blocks, or the longer ones, which come first; edges of tiles and slices.
    let sizes = [(131, 72, 136), (200, 8, 264), (72, 136, 8), (5, 264, 72), (267, 72, 24), (64, 128, 64)];
    let mut turn = 0;
    for dtype in DTYPES {
        for config in configs(dtype) {
            let rounds = if config.tile.rows == 64 { 6 } else { 4 };
            for round in 0..rounds {
                let device: Rc<dyn Device> = emulator(turn as u64);
                let numbers = drawn(sizes[(turn + round) % 6], dtype, 1 + turn % 2);
                check(&device, &numbers, ReverseConfig { split: splits[turn % 6], ..config }, epilogues[round]);
                turn += 1;
            }
        }
    }
}

#[test]
fn gx_and_gw_are_of_any_dtype_and_number_of_pairs() {
    let device: Rc<dyn Device> = emulator(4);
    let [gx, gw] = shapes((70, 72, 40), Dtype::Bf16);
    let [gx, gw] = of_one(GemmShape { c: Dtype::F32, ..gx }, GemmShape { pairs: 2, ..gw });
    let config = ReverseConfig { split: [1, 2], ..configs(Dtype::Bf16)[0] };
    check(&device, &[gx, gw], config, [NOTHING, PARTS[1]]);
}

#[test]
fn what_one_launch_does_not_take_is_an_error() {
    let device: Rc<dyn Device> = emulator(0);
    let (queue, config) = (Queue::new(&*device, Ptr::NULL), configs(Dtype::Bf16)[0]);
    let right = shapes((64, 64, 64), Dtype::Bf16);
    let [gx, gw] = right;
    let many = ReverseConfig { split: [1 << 30, 1 << 30], ..config };
    let none = ReverseConfig { split: [0, 1], ..config };
    for (config, shapes, pairs, place) in [
        (config, [gw, gx], 1, 16),
        (config, [gx, GemmShape { a: Dtype::F32, b: Dtype::F32, ..gw }], 1, 16),
        (config, [GemmShape { layout: Layout::Nt, ..gx }, gw], 1, 16),
        (config, [gx, GemmShape { m: 60, ..gw }], 1, 16),
        (config, right, 2, 16),
        (config, right, 1, 8),
        (many, right, 1, 16),
        (none, right, 1, 16),
    ] {
        let pairs = vec![(Ptr(place), Ptr(place)); pairs];
        let output = Output { at: Ptr::NULL, dtype: Dtype::F32, epilogue: fipk::ops::gemm::Epilogue::NONE };
        let refused = reverse_as(config, &queue, &shapes, [&pairs, &pairs], [output; 2]);
        assert!(refused.is_err(), "{} and {} by {config}, {} pairs at {place}", shapes[0], shapes[1], pairs.len());
    }
}
