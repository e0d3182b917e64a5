//! Matrix products and attention as kernels, in the emulator: against sums in f64 and the host's passes, over awkward
//! sizes, with every access checked and threads in several orders.
use fipk::gpu::emulator::{Emulator, Options};
use fipk::gpu::{Abilities, Device, Dtype, Memory, Ptr, Queue};
use fipk::ops::column_sums::{column_sums, column_sums_scratch};
use fipk::ops::gemm::cuda::product_as;
use fipk::ops::gemm::naive::naive;
use fipk::ops::gemm::{Epilogue, Family, GemmConfig, GemmShape, Layout, Tile};
use fipk::ops::{Attention, DeviceCotangent, DeviceIo, DeviceTensor, Linear, Pass};
use fipk::rng::Rng;
use fipk::selftest::{Case, Input, Make, Role, check_op};
use std::rc::Rc;
use std::sync::Arc;

const LARGE: Tile = Tile { rows: 128, columns: 64, depth: 32 };
const SMALL: Tile = Tile { rows: 64, columns: 64, depth: 32 };

fn simt(tile: Tile, split: usize) -> GemmConfig {
    GemmConfig { family: Family::Simt, tile, stages: 2, split }
}

/// What f32 takes without tf32.
fn portable(shape: &GemmShape) -> GemmConfig {
    let [a, b, c] = ALL_F32;
    GemmShape { a, b, c, ..*shape }.config(Abilities::AMPERE, false)
}

fn device(seed: u64) -> Rc<dyn Device> {
    // Seed 0: threads in turn.
    Rc::new(Emulator::new(Options { seed: (seed > 0).then_some(seed), checked: true }))
}

/// A buffer of numbers on a device that starts `skip` elements in, so that it need not be aligned.
struct Numbers {
    memory: Memory,
    dtype: Dtype,
    skip: usize,
    /// As they were stored.
    data: Vec<f32>,
}

impl Numbers {
    fn new(device: &Rc<dyn Device>, n: usize, dtype: Dtype, skip: usize, make: impl FnMut() -> f32) -> Self {
        let data: Vec<f32> = std::iter::repeat_with(make).take(n).collect();
        let memory = Memory::new(device, (n + skip) * dtype.bytes()).unwrap();
        let halves: Vec<half::bf16> = data.iter().map(|v| half::bf16::from_f32(*v)).collect();
        let at = memory.at().offset(skip * dtype.bytes());
        if dtype == Dtype::Bf16 {
            device.upload(at, bytemuck::cast_slice(&halves)).unwrap();
            let data = halves.iter().map(|v| v.to_f32()).collect();
            return Self { memory, dtype, skip, data };
        }
        device.upload(at, bytemuck::cast_slice(&data)).unwrap();
        Self { memory, dtype, skip, data }
    }
    fn at(&self) -> Ptr {
        self.memory.at().offset(self.skip * self.dtype.bytes())
    }
    fn read(&self, device: &Rc<dyn Device>) -> Vec<f32> {
        let n = self.data.len();
        if self.dtype == Dtype::Bf16 {
            let mut data = vec![half::bf16::ZERO; n];
            device.download(self.at(), bytemuck::cast_slice_mut(&mut data)).unwrap();
            return data.iter().map(|v| v.to_f32()).collect();
        }
        let mut data = vec![0f32; n];
        device.download(self.at(), bytemuck::cast_slice_mut(&mut data)).unwrap();
        data
    }
}

/// A product and its place in memory.
#[derive(Clone, Copy, Debug)]
struct Product {
    shape: GemmShape,
    config: GemmConfig,
    bias: bool,
    add: bool,
    skip: usize,
}

/// The product by its kernels, and for one pair by their judge, against sums in f64.
fn check(device: &Rc<dyn Device>, p: &Product) {
    let GemmShape { layout, m, n, k, pairs, a, b, c } = p.shape;
    let mut rng = Rng::new(7, (m * 31 + n * 17 + k) as u64);
    let mut numbers = |n: usize, dtype: Dtype| Numbers::new(device, n, dtype, p.skip, || rng.normal());
    let of_a: Vec<Numbers> = (0..pairs).map(|_| numbers(m * k, a)).collect();
    let of_b: Vec<Numbers> = (0..pairs).map(|_| numbers(n * k, b)).collect();
    let (bias, base) = (numbers(n, Dtype::F32), numbers(m * n, c));
    let result = |v: &Numbers| match p.add {
        true => Numbers::new(device, m * n, c, p.skip, {
            let mut data = v.data.iter().copied();
            move || data.next().unwrap()
        }),
        false => Numbers::new(device, m * n, c, p.skip, || f32::NAN),
    };
    let scratch = Memory::new(device, p.config.scratch(&p.shape)).unwrap();
    let queue = Queue::new(&**device, scratch.at());
    let epilogue = Epilogue { bias: if p.bias { bias.at() } else { Ptr::NULL }, add: p.add, ..Epilogue::NONE };
    let operands: Vec<(Ptr, Ptr)> = of_a.iter().zip(&of_b).map(|(a, b)| (a.at(), b.at())).collect();

    let mut judged = vec![("gemm", result(&base))];
    product_as(p.config, &queue, &p.shape, &operands, judged[0].1.at(), epilogue).unwrap();
    if pairs == 1 {
        judged.push(("naive", result(&base)));
        naive(&queue, &p.shape, operands[0], judged[1].1.at(), epilogue).unwrap();
    }
    for (name, got) in judged {
        let got = got.read(device);
        for (at, got) in got.iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let place = |t: usize| match layout {
                Layout::Nt => (i * k + t, j * k + t),
                Layout::Nn => (i * k + t, t * n + j),
                Layout::Tn => (t * m + i, t * n + j),
            };
            let (mut want, mut size) = (0.0f64, 0.0f64);
            let mut term = |v: f64| (want, size) = (want + v, size + v.abs());
            for (a, b) in of_a.iter().zip(&of_b) {
                (0..k).map(place).for_each(|(x, y)| term(f64::from(a.data[x]) * f64::from(b.data[y])));
            }
            if p.bias {
                term(f64::from(bias.data[j]));
            }
            if p.add {
                term(f64::from(base.data[at]));
            }
            let rounding = if c == Dtype::Bf16 { want.abs() / 256.0 } else { 0.0 };
            let error = (f64::from(*got) - want).abs();
            let tolerance = 4.0 * f64::from(f32::EPSILON) * size + rounding;
            assert!(error <= tolerance, "{name}: {p:?} at ({i}, {j}): {got}, want {want}");
        }
    }
}

/// Every layout, with the sizes given to m, n and k in every order.
fn products(sizes: [usize; 3], dtypes: [Dtype; 3], then: impl Fn(Product)) {
    let [s, t, u] = sizes;
    let [a, b, c] = dtypes;
    for layout in [Layout::Nt, Layout::Nn, Layout::Tn] {
        for (m, n, k) in [(s, t, u), (u, s, t), (t, u, s)] {
            let shape = GemmShape { layout, m, n, k, pairs: 1, a, b, c };
            then(Product { shape, config: portable(&shape), bias: false, add: false, skip: 0 });
        }
    }
}

const ALL_F32: [Dtype; 3] = [Dtype::F32; 3];
const ALL_BF16: [Dtype; 3] = [Dtype::Bf16; 3];

#[test]
fn products_of_awkward_sizes() {
    let device = device(0);
    for sizes in [[1, 1, 1], [1, 31, 33], [2, 67, 129], [40, 64, 72], [5, 63, 131]] {
        for dtypes in [ALL_F32, ALL_BF16] {
            products(sizes, dtypes, |p| {
                check(&device, &p);
                check(&device, &Product { config: simt(LARGE, 1), bias: true, ..p });
            });
        }
    }
}

#[test]
fn sums_in_parts_and_of_two_pairs() {
    for (seed, split) in [(0, 2), (2, 3), (3, 7)] {
        let device = device(seed);
        for (pairs, dtypes) in [(1, ALL_F32), (2, ALL_F32), (2, ALL_BF16)] {
            products([33, 70, 200], dtypes, |p| {
                let shape = GemmShape { pairs, ..p.shape };
                for tile in [SMALL, LARGE] {
                    let p = Product { shape, config: simt(tile, split), add: split == 3, bias: true, ..p };
                    check(&device, &p);
                    check(&device, &Product { config: simt(tile, 1), ..p });
                }
            });
        }
    }
}

#[test]
fn operands_that_are_not_aligned_and_sums_of_nothing() {
    let device = device(4);
    for skip in [1, 2, 4] {
        for dtypes in [ALL_F32, ALL_BF16] {
            products([32, 64, 40], dtypes, |p| check(&device, &Product { skip, bias: true, ..p }));
        }
    }
    let [a, b, c] = ALL_F32;
    let shape = GemmShape { layout: Layout::Nt, m: 5, n: 70, k: 0, pairs: 1, a, b, c };
    check(&device, &Product { shape, config: portable(&shape), bias: true, add: false, skip: 0 });
}

#[test]
fn column_sums_in_a_fixed_order() {
    let device = device(5);
    for (rows, columns) in [(1, 1), (7, 33), (64, 32), (65, 31), (4200, 3), (0, 5)] {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            for add in [false, true] {
                let mut rng = Rng::new(9, rows as u64);
                let x = Numbers::new(&device, rows * columns, dtype, 0, || rng.normal());
                let sums = Numbers::new(&device, columns, Dtype::F32, 0, || if add { 3.0 } else { f32::NAN });
                let scratch = Memory::new(&device, column_sums_scratch(rows, columns)).unwrap();
                let queue = Queue::new(&*device, scratch.at());
                let of = DeviceTensor { at: x.at(), dtype, shape: &[rows, columns] };
                let to = DeviceTensor { at: sums.at(), dtype: Dtype::F32, shape: &[columns] };
                column_sums(&of, &DeviceCotangent { to, add }, &queue).unwrap();
                for (j, got) in sums.read(&device).iter().enumerate() {
                    let column = || (0..rows).map(|i| f64::from(x.data[i * columns + j]));
                    let base = if add { 3.0 } else { 0.0 };
                    let (want, size) = (base + column().sum::<f64>(), base + column().map(f64::abs).sum::<f64>());
                    let error = (f64::from(*got) - want).abs();
                    assert!(error <= 2.0 * f64::from(f32::EPSILON) * size, "{rows}x{columns}, {j}: {got}, want {want}");
                }
            }
        }
    }
}

/// Every row that does not pass.
fn failures(device: &Rc<dyn Device>, case: &Case) -> Vec<String> {
    let rows = [Dtype::F32, Dtype::Bf16].into_iter().flat_map(|dtype| check_op(device, case, dtype));
    let (mut seen, mut wrong) = (0, Vec::new());
    for row in rows {
        seen += 1;
        if !row.ok {
            wrong.push(format!("{row:?}"));
        }
    }
    assert!(seen >= 6, "{seen} rows");
    wrong
}

fn parameter(m: &mut Make, shape: &[usize]) -> Input {
    Input { role: Role::Parameter, ..m.normal(shape, 0.5) }
}

#[test]
fn linear_maps() {
    let m = &mut Make(Rng::new(2, 0));
    let sizes = [(1, 1, 1), (5, 7, 1), (6, 31, 33), (33, 1, 31), (130, 65, 67), (1, 1040, 2), (1040, 3, 2)];
    for (seed, (rows, k, n)) in sizes.into_iter().enumerate() {
        let device = device(seed as u64);
        for bias in [false, true] {
            let mut inputs = vec![m.normal(&[rows, k], 1.0), parameter(m, &[n, k])];
            if bias {
                inputs.push(parameter(m, &[n]));
            }
            let wrong = failures(&device, &Case { op: Arc::new(Linear), inputs, ulps: 8.0 });
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        }
    }
}

/// `on` says which keys of which sample are attended to.
fn attention(
    m: &mut Make,
    (batch, seq, heads, dim): (usize, usize, usize, usize),
    on: impl Fn(usize, usize) -> bool,
) -> Case {
    let shape = [batch, seq, heads * dim];
    let mask = (0..batch * seq).map(|i| f32::from_bits(u32::from(on(i / seq, i % seq)))).collect();
    let mask = Input { shape: vec![batch, seq], data: mask, role: Role::Index };
    let inputs = [m.normal(&shape, 1.0), m.normal(&shape, 1.0), m.normal(&shape, 1.0), mask];
    Case { op: Arc::new(Attention { heads }), inputs: inputs.into(), ulps: 16.0 }
}

#[test]
fn attention_of_every_head_width() {
    let m = &mut Make(Rng::new(3, 0));
    for (seed, dim) in [1, 7, 13, 32, 64, 80, 96, 128, 256].into_iter().enumerate() {
        let case = attention(m, (1, 17, 2, dim), |_, key| key % 5 != 3 && key < 15);
        let wrong = failures(&device(seed as u64), &case);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn attention_over_awkward_lengths_and_masks() {
    let m = &mut Make(Rng::new(4, 0));
    for (seed, size) in [(1, 1usize, 1, 1), (3, 31, 2, 12), (2, 65, 1, 12), (3, 131, 1, 12)].into_iter().enumerate() {
        let seq: usize = size.1;
        // A sample whose first keys, or tile of keys, are padding, one with a single key, one with none.
        let on = |sample: usize, key: usize| match sample {
            0 => key >= seq.min(70).saturating_sub(6),
            1 => key == seq / 2,
            _ => false,
        };
        let wrong = failures(&device(seed as u64), &attention(m, size, on));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn nothing_in_a_padding_key_reaches_a_result() {
    let m = &mut Make(Rng::new(5, 0));
    let (seq, dim) = (67, 6);
    let on = |_: usize, key: usize| key % 3 == 1;
    let clean = attention(m, (1, seq, 1, dim), on);
    let run = |case: &Case| {
        let device = device(6);
        let put = |data: &[f32]| {
            let mut data = data.iter().copied();
            Numbers::new(&device, data.len(), Dtype::F32, 0, move || data.next().unwrap())
        };
        let x: Vec<Numbers> = case.inputs.iter().map(|i| put(&i.data)).collect();
        let shapes = case.shapes();
        let tensor = |at: Ptr, i: usize| DeviceTensor { at, dtype: Dtype::F32, shape: shapes[i] };
        let (y, saved) = (put(&vec![f32::NAN; seq * dim]), put(&vec![f32::NAN; seq]));
        let views: Vec<_> = x.iter().enumerate().map(|(i, x)| tensor(x.at(), i)).collect();
        let io = DeviceIo {
            x: &views,
            y: tensor(y.at(), 0),
            saved: saved.at(),
            kept: Ptr::NULL,
            dx: &[],
            dy: None,
            gx: &[],
        };
        let queue = Queue::new(&*device, Ptr::NULL);
        case.op.cuda(Pass::Forward, &io, &queue).unwrap();
        y.read(&device)
    };
    let mut wild = Case { op: clean.op.clone(), inputs: clean.inputs.clone(), ulps: 0.0 };
    for key in (0..seq).filter(|key| !on(0, *key)) {
        wild.inputs[1].data[key * dim] = 1e30;
        wild.inputs[2].data[key * dim] = 1e30;
    }
    let (want, got) = (run(&clean), run(&wild));
    assert!(want.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits() && a.is_finite()));
}
