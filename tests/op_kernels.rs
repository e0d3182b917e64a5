//! Kernels of pointwise ops, norms, embeddings and losses, in the emulator: the paths that the op table is too small
//! for, and what holds exactly.
use fipk::gpu::emulator::{Emulator, Options};
use fipk::gpu::{Device, Dtype, Memory, Ptr, Queue};
use fipk::ops::distance::row;
use fipk::ops::{
    Activation, Add, AddLayerNorm, AddPosition, BatchNorm, Conv2d, CrossEntropy, DeviceIo, DeviceTensor, Distance,
    Embedding, FusedLinear, Interpolate, LayerNorm, MaxPool, Moment, Op, Pass, SquaredError, Windows,
};
use fipk::rng::Rng;
use fipk::selftest::{Bound, Case, Input, Make, Role, Stored, check_op, download, poisoned, upload};
use std::rc::Rc;
use std::sync::Arc;

fn device(seed: Option<u64>) -> Rc<dyn Device> {
    Rc::new(Emulator::new(Options { seed, checked: true }))
}

fn make(seed: u64) -> Make {
    Make(Rng::new(seed, 0))
}

fn parameter(m: &mut Make, shape: &[usize]) -> Input {
    Input { role: Role::Parameter, ..m.normal(shape, 1.0) }
}

fn index(shape: &[usize], of: impl Fn(usize) -> i32) -> Input {
    let n: usize = shape.iter().product();
    let data = (0..n).map(|i| f32::from_bits(of(i) as u32)).collect();
    Input { shape: shape.to_vec(), data, role: Role::Index }
}

fn weights(w: &[f32]) -> Input {
    Input { shape: vec![w.len()], data: w.to_vec(), role: Role::Constant }
}

fn case(op: impl Op + 'static, ulps: f64, inputs: Vec<Input>) -> Case {
    Case { op: Arc::new(op), inputs, ulps }
}

fn norm(m: &mut Make, rows: usize, cols: usize) -> Case {
    let inputs = vec![m.normal(&[rows, cols], 1.0), parameter(m, &[cols]), parameter(m, &[cols])];
    case(LayerNorm { eps: 1e-5 }, 8.0, inputs)
}

/// Rows beyond what a warp or a block holds in registers, with packs and without; runs of one id over many blocks, and
/// the longest possible next to short ones; sums in packs; rows of scores that a block strides over.
fn large(seed: u64) -> Vec<Case> {
    let m = &mut make(seed);
    let mut cases: Vec<Case> =
        [(70, 776), (5, 1032), (3, 8200), (20, 2051)].map(|(rows, cols)| norm(m, rows, cols)).into();
    for (rows, cols) in [(5, 1032), (3, 8200), (20, 2051)] {
        let x = [m.normal(&[rows, cols], 1.0), m.normal(&[rows, cols], 1.0)];
        let inputs = x.into_iter().chain([parameter(m, &[cols]), parameter(m, &[cols])]).collect();
        cases.push(case(AddLayerNorm { eps: 1e-5 }, 8.0, inputs));
    }
    for (n, ids) in [(300, 1), (301, 2), (97, 97)] {
        let id = move |i: usize| if i % 7 == 3 { (i % ids) as i32 } else { 0 };
        cases.push(case(Embedding, 0.0, vec![index(&[n], id), parameter(m, &[ids, 40])]));
    }
    cases.push(case(AddPosition, 1.0, vec![m.normal(&[18, 64, 520], 1.0), parameter(m, &[65, 520])]));
    let (w, cols) = ([0.5, 0.0, 2.0], 3001);
    let scores = [m.normal(&[3, cols], 3.0), m.normal(&[3, cols], 3.0)];
    let labels = index(&[3], |i| [7, -100, 3000][i]);
    cases.push(case(CrossEntropy, 4.0, vec![scores[0].clone(), labels, weights(&w)]));
    cases.push(case(SquaredError, 4.0, vec![scores[0].clone(), scores[1].clone(), weights(&w)]));
    for d in Distance::ALL {
        cases.push(case(d, 4.0, vec![scores[0].clone(), scores[1].clone(), weights(&w)]));
    }
    cases.push(convolution(m));
    cases.push(case(Moment::Variance, 8.0, vec![m.normal(&[3, 2, 64, 90], 1.0)]));
    // Many of a window are equal: the first of them is chosen.
    let mut steps = m.normal(&[2, 3, 9, 8], 1.0);
    steps.data.iter_mut().for_each(|v| *v = v.round());
    cases.push(case(MaxPool { windows: Windows::square(3, 2, 1) }, 0.0, vec![steps]));
    cases
}

/// Of several tiles of channels, of pixels and of taps, and a sum that is split.
fn convolution(m: &mut Make) -> Case {
    let inputs = vec![m.normal(&[5, 15, 18, 17], 1.0), parameter(m, &[66, 15, 3, 3]), parameter(m, &[66])];
    case(Conv2d::square(1, 1), 8.0, inputs)
}

#[test]
fn large_sizes_agree_with_the_host() {
    for (seed, dtype) in [(1, Dtype::F32), (2, Dtype::Bf16)] {
        let device = device(Some(seed));
        for case in large(seed) {
            for row in check_op(&device, &case, dtype) {
                assert!(row.ok, "{row:?}");
            }
        }
    }
}

/// Every result of the reverse pass of a case, from a schedule.
fn cotangents(case: &Case, dtype: Dtype, schedule: Option<u64>) -> Vec<Vec<f32>> {
    let device = device(schedule);
    let clone = Case { op: case.op.clone(), inputs: case.inputs.clone(), ulps: case.ulps };
    let bound = Bound::new(&device, clone, Stored::new(case, dtype, false)).unwrap();
    bound.run(Pass::Forward, &[], None, &[]).unwrap();
    let n = bound.y.bytes() / bound.stored.y.bytes();
    let gy = upload(&device, &make(5).normal(&[n], 1.0).data, bound.stored.y).unwrap();
    let to = |i: usize| -> Option<(Memory, bool)> {
        let bytes = case.inputs[i].data.len() * bound.stored.gx[i].bytes();
        (case.inputs[i].role != Role::Index).then(|| (poisoned(&device, bytes).unwrap(), false))
    };
    let gx: Vec<_> = (0..case.inputs.len()).map(to).collect();
    bound.run(Pass::Vjp, &[], Some(&gy), &gx).unwrap();
    let read = |(i, g): (usize, &Option<(Memory, bool)>)| {
        g.as_ref().map_or(Vec::new(), |(g, _)| download(&device, g, bound.stored.gx[i]).unwrap())
    };
    gx.iter().enumerate().map(read).collect()
}

/// (y, dy) as bits: by both passes, or at once.
fn values(case: &Case, dtype: Dtype, at_once: bool) -> [Vec<u32>; 2] {
    let device = device(None);
    let clone = Case { op: case.op.clone(), inputs: case.inputs.clone(), ulps: case.ulps };
    let bound = Bound::new(&device, clone, Stored::new(case, dtype, false)).unwrap();
    let dtypes = bound.stored.clone();
    let dx: Vec<Option<Memory>> = case
        .inputs
        .iter()
        .zip(&dtypes.x)
        .enumerate()
        .map(|(i, (input, dtype))| {
            Some(upload(&device, &make(30 + i as u64).normal(&input.shape, 1.0).data, *dtype).unwrap())
        })
        .collect();
    let dy = poisoned(&device, bound.y.bytes()).unwrap();
    if at_once {
        bound.run(Pass::Dual, &dx, Some(&dy), &[]).unwrap();
    } else {
        bound.run(Pass::Forward, &[], None, &[]).unwrap();
        bound.poison().unwrap();
        bound.run(Pass::Jvp, &dx, Some(&dy), &[]).unwrap();
    }
    [&bound.y, &dy].map(|m| {
        let read = download(&device, m, dtypes.y).unwrap();
        assert!(read.iter().all(|v| v.is_finite()), "{:?}", case.op);
        read.into_iter().map(f32::to_bits).collect()
    })
}

#[test]
fn a_dual_that_is_two_passes_keeps_what_the_second_needs() {
    let m = &mut make(9);
    for activation in [None, Some(Activation::GeluErf), Some(Activation::Relu), Some(Activation::Tanh)] {
        let mut inputs = vec![m.normal(&[5, 7], 1.0), parameter(m, &[9, 7]), parameter(m, &[9])];
        inputs.push(m.normal(&[5, 9], 1.0));
        let case = case(FusedLinear { activation, residual: true }, 8.0, inputs);
        for dtype in [Dtype::F32, Dtype::Bf16] {
            assert_eq!(values(&case, dtype, true), values(&case, dtype, false), "{activation:?} {dtype:?}");
        }
    }
}

#[test]
fn every_schedule_gives_the_same_bits() {
    let m = &mut make(3);
    let id = |i: usize| if i.is_multiple_of(3) { 1 } else { (i % 5) as i32 };
    let channels = m.normal(&[7, 3, 32, 30], 1.0);
    let mut statistics = [(); 4].map(|()| parameter(m, &[3]));
    statistics[1].data.iter_mut().for_each(|v| *v = v.abs() + 0.1);
    let cases = [
        norm(m, 70, 96),
        case(Embedding, 0.0, vec![index(&[131], id), parameter(m, &[5, 24])]),
        case(BatchNorm { eps: 1e-5 }, 8.0, std::iter::once(channels).chain(statistics).collect()),
        case(Conv2d::square(2, 1), 8.0, vec![m.normal(&[9, 3, 16, 17], 1.0), parameter(m, &[5, 3, 3, 3])]),
    ];
    for case in cases {
        let bits = |schedule| -> Vec<u32> {
            cotangents(&case, Dtype::Bf16, schedule).into_iter().flatten().map(f32::to_bits).collect()
        };
        let first = bits(None);
        assert!([1, 2, 3].iter().all(|seed| bits(Some(*seed)) == first), "{:?}", case.op);
    }
}

/// y of a loss, as f32.
fn value(device: &Rc<dyn Device>, case: Case, dtype: Dtype) -> f32 {
    let stored = Stored::new(&case, dtype, false);
    let bound = Bound::new(device, case, stored).unwrap();
    bound.run(Pass::Forward, &[], None, &[]).unwrap();
    download(device, &bound.y, Dtype::F32).unwrap()[0]
}

#[test]
fn equal_outputs_are_exactly_at_distance_zero() {
    let device = device(None);
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let mut z = make(4).normal(&[5, 37], 4.0);
        z.data.iter_mut().for_each(|v| *v = half::bf16::from_f32(*v).to_f32()); // both dtypes hold it
        for d in Distance::ALL {
            let at = || case(d, 0.0, vec![z.clone(), z.clone(), weights(&[1.0, 0.5, 0.0, 2.0, 1.0])]);
            assert_eq!(value(&device, at(), dtype), 0.0, "{d}");
            let g = cotangents(&at(), dtype, None);
            assert!(g[0].iter().chain(&g[1]).all(|g| *g == 0.0), "{d}: {g:?}");
            assert!(g[2].iter().all(|g| g.is_nan()), "{d} has no derivative by its weights: {:?}", g[2]);
        }
    }
}

#[test]
fn distances_keep_their_digits_near_zero() {
    let device = device(None);
    let m = &mut make(6);
    let z = m.normal(&[1, 33], 4.0);
    let mut t = z.clone();
    t.data.iter_mut().enumerate().for_each(|(i, v)| *v += 1e-5 * (i as f32 - 16.0));
    for d in Distance::ALL {
        // The host's own digits there are held to the definition by its tests.
        let want = row(d, &z.data, &t.data);
        let got = f64::from(value(&device, case(d, 0.0, vec![z.clone(), t.clone(), weights(&[1.0])]), Dtype::F32));
        assert!(want > 0.0 && (got / want - 1.0).abs() <= 1e-6, "{d}: got {got:e}, want {want:e}");
    }
}

#[test]
fn a_sure_label_costs_no_digits() {
    // log(1 + 2 e^-12) and its slopes: 1 - p is what a subtraction in f32 would lose.
    let small = 2.0 * (-12f64).exp();
    let z = Input { shape: vec![1, 3], data: vec![12.0, 0.0, 0.0], role: Role::Activation };
    let at = || case(CrossEntropy, 0.0, vec![z.clone(), index(&[1], |_| 0), weights(&[1.0])]);
    let got = f64::from(value(&device(None), at(), Dtype::F32));
    assert!((got / small.ln_1p() - 1.0).abs() <= 1e-6, "{got:e}");
    let gy = f64::from(make(5).normal(&[1], 1.0).data[0]);
    let g = cotangents(&at(), Dtype::F32, None);
    let want = -gy * small / (1.0 + small);
    assert!((f64::from(g[0][0]) / want - 1.0).abs() <= 1e-6, "{:e}, want {want:e}", g[0][0]);
}

#[test]
fn an_output_of_another_type_than_the_table_is_refused() {
    let device = device(None);
    let op = Interpolate { special: 0, from: (1, 2), to: (1, 3) };
    let table = upload(&device, &[1.0, 2.0], Dtype::Bf16).unwrap();
    let y = poisoned(&device, 12).unwrap();
    let x = [DeviceTensor { at: table.at(), dtype: Dtype::Bf16, shape: &[1, 2, 1] }];
    let y = DeviceTensor { at: y.at(), dtype: Dtype::F32, shape: &[1, 3, 1] };
    let io = DeviceIo { x: &x, y, saved: Ptr::NULL, kept: Ptr::NULL, dx: &[], dy: None, gx: &[] };
    let error = op.cuda(Pass::Forward, &io, &Queue::new(&*device, Ptr::NULL)).unwrap_err().to_string();
    assert!(error.contains("wanted bf16, got f32"), "{error}");
}

#[test]
fn bases_of_any_alignment_are_right() {
    let device = device(None);
    let n = 1003;
    let (a, b) = (make(7).normal(&[n + 3], 1.0).data, make(8).normal(&[n + 3], 1.0).data);
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for skip in 0..3 {
            let memory = [&a, &b].map(|v| upload(&device, v, dtype).unwrap());
            let y = poisoned(&device, (n + 3) * dtype.bytes()).unwrap();
            let at = |m: &Memory| DeviceTensor { at: m.at().offset(skip * dtype.bytes()), dtype, shape: &[1003] };
            let x = [at(&memory[0]), at(&memory[1])];
            let io = DeviceIo { x: &x, y: at(&y), saved: Ptr::NULL, kept: Ptr::NULL, dx: &[], dy: None, gx: &[] };
            Add.cuda(Pass::Forward, &io, &Queue::new(&*device, Ptr::NULL)).unwrap();
            let [a, b, y] = [&memory[0], &memory[1], &y].map(|m| download(&device, m, dtype).unwrap());
            for i in skip..skip + n {
                let want = a[i] + b[i];
                let want = if dtype == Dtype::F32 { want } else { half::bf16::from_f32(want).to_f32() };
                assert_eq!(y[i], want, "element {i}, {dtype:?}, {skip} elements in");
            }
            let around = y[..skip].iter().chain(&y[skip + n..]);
            assert!(around.clone().count() == 3 && around.clone().all(|y| y.is_nan()));
        }
    }
}

#[test]
fn a_max_pool_chooses_a_nan_before_all_and_the_first_of_equals() {
    let nan = f32::NAN;
    let data = vec![1.0, nan, 2.0, 2.0, 0.0, 3.0, 2.0, 1.0];
    let x = Input { shape: vec![1, 1, 2, 4], data, role: Role::Activation };
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let at = || case(MaxPool { windows: Windows::square(2, 2, 0) }, 0.0, vec![x.clone()]);
        let device = device(None);
        let bound = Bound::new(&device, at(), Stored::new(&at(), dtype, false)).unwrap();
        bound.run(Pass::Forward, &[], None, &[]).unwrap();
        let y = download(&device, &bound.y, dtype).unwrap();
        assert!(y[0].is_nan() && y[1] == 2.0, "{y:?}");
        // What `cotangents` draws for y, as the dtype holds it.
        let gy = make(5).normal(&[2], 1.0).data;
        let held = |v: &f32| if dtype == Dtype::F32 { *v } else { half::bf16::from_f32(*v).to_f32() };
        let gy: Vec<f32> = gy.iter().map(held).collect();
        assert_eq!(cotangents(&at(), dtype, None)[0], [0.0, gy[0], gy[1], 0.0, 0.0, 0.0, 0.0, 0.0], "{dtype:?}");
    }
}

#[test]
fn planes_of_any_alignment_are_right() {
    let device = device(None);
    let shape = [2, 3, 4, 4];
    let n = 96;
    let x = make(9).normal(&[n], 1.0).data;
    let of = [[0.5f32, -1.0, 2.0], [1.0, 0.25, 4.0], [1.5, -0.5, 1.0], [0.0, 3.0, -1.0]];
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let held = |v: f32| if dtype == Dtype::F32 { v } else { half::bf16::from_f32(v).to_f32() };
        let want = |i: usize| {
            let (c, x) = (i / 16 % 3, f64::from(held(x[i])));
            let [mean, variance, w, b] = of.map(|v| f64::from(v[c]));
            (x - mean) / (variance + f64::from(1e-5f32)).sqrt() * w + b
        };
        for skip in 0..3 {
            let from = upload(&device, &[&vec![f32::NAN; skip][..], &x].concat(), dtype).unwrap();
            let y = poisoned(&device, (n + skip + 3) * dtype.bytes()).unwrap();
            let at = |m: &Memory| DeviceTensor { at: m.at().offset(skip * dtype.bytes()), dtype, shape: &shape };
            let of: Vec<Memory> = of.iter().map(|v| upload(&device, v, Dtype::F32).unwrap()).collect();
            let of = of.iter().map(|m| DeviceTensor { at: m.at(), dtype: Dtype::F32, shape: &[3] });
            let x: Vec<DeviceTensor> = std::iter::once(at(&from)).chain(of).collect();
            let io = DeviceIo { x: &x, y: at(&y), saved: Ptr::NULL, kept: Ptr::NULL, dx: &[], dy: None, gx: &[] };
            BatchNorm { eps: 1e-5 }.cuda(Pass::Forward, &io, &Queue::new(&*device, Ptr::NULL)).unwrap();
            let y = download(&device, &y, dtype).unwrap();
            for i in 0..n {
                let (got, want) = (f64::from(y[skip + i]), want(i));
                let tolerance = if dtype == Dtype::F32 { 1e-6 } else { 1.0 / 256.0 } * (want.abs() + 4.0);
                assert!((got - want).abs() <= tolerance, "{dtype:?} {skip}: element {i} is {got}, not {want}");
            }
            assert!(y[..skip].iter().chain(&y[skip + n..]).all(|v| v.is_nan()), "{dtype:?} {skip}");
        }
    }
}
