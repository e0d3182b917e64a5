//! Matrix products on tensor cores by mma.sync, in the emulator: against sums in f64 over awkward sizes, with all that an
//! epilogue does, every access checked and threads in several orders.
use fipk::gpu::emulator::{Emulator, Options};
use fipk::gpu::{Abilities, Device, Dtype, Memory, Ptr, Queue};
use fipk::ops::gemm::cuda::{product, product_as};
use fipk::ops::gemm::dual::{self, Output, dual_as};
use fipk::ops::gemm::{Epilogue, Family, GemmConfig, GemmShape, Layout, Tile};
use fipk::ops::{Activation, DeviceTensor, Linear};
use fipk::rng::Rng;
use fipk::selftest::{Case, Input, Make, Role, check_op, download, poisoned, upload};
use std::rc::Rc;
use std::sync::Arc;

#[path = "products_mma/reverse.rs"]
mod reverse;
#[path = "products_mma/wide.rs"]
mod wide;

const LAYOUTS: [Layout; 3] = [Layout::Nt, Layout::Nn, Layout::Tn];
const DTYPES: [Dtype; 2] = [Dtype::Bf16, Dtype::F32];

fn emulator(seed: u64) -> Rc<Emulator> {
    // Seed 0: threads in turn.
    Rc::new(Emulator::new(Options { seed: (seed > 0).then_some(seed), checked: true }))
}

/// To 10 bits of mantissa, to nearest, ties away from zero.
fn tf32(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(if bits & 0x1000 != 0 { (bits | 0x1fff) + 1 } else { bits & !0x1fff })
}

fn bf16(x: f32) -> f32 {
    half::bf16::from_f32(x).to_f32()
}

/// As tensor cores take it.
fn taken(x: f32, dtype: Dtype) -> f32 {
    if dtype == Dtype::Bf16 { bf16(x) } else { tf32(x) }
}

/// As it is stored.
fn stored(x: f32, dtype: Dtype) -> f32 {
    if dtype == Dtype::Bf16 { bf16(x) } else { x }
}

/// Of y for tanh, of z for the others.
fn slope(of: Activation, at: f64) -> f64 {
    match of {
        Activation::Relu => f64::from(u8::from(at > 0.0)),
        Activation::Tanh => 1.0 - at * at,
        _ => {
            let t = inner(at).tanh();
            let moved = (2.0 / std::f64::consts::PI).sqrt() * (1.0 + 3.0 * 0.044715 * at * at);
            0.5 * (1.0 + t) + 0.5 * at * (1.0 - t * t) * moved
        }
    }
}
fn inner(z: f64) -> f64 {
    (2.0 / std::f64::consts::PI).sqrt() * (z + 0.044715 * z * z * z)
}
fn value(of: Activation, z: f64) -> f64 {
    match of {
        Activation::Relu => z.max(0.0),
        Activation::Tanh => z.tanh(),
        _ => 0.5 * z * (1.0 + inner(z).tanh()),
    }
}

/// What a product's epilogue has.
#[derive(Clone, Copy, Debug)]
struct Parts {
    bias: bool,
    residual: bool,
    pre: bool,
    activation: Option<Activation>,
    slope: bool,
    add: bool,
    /// The sums of op(A)'s rows, and whether they are added to.
    gradient: Option<bool>,
}

const NOTHING: Parts =
    Parts { bias: false, residual: false, pre: false, activation: None, slope: false, add: false, gradient: None };
const GELU: Option<Activation> = Some(Activation::GeluTanh);
const PARTS: [Parts; 5] = [
    NOTHING,
    Parts { bias: true, residual: true, pre: true, activation: GELU, gradient: Some(false), ..NOTHING },
    Parts {
        residual: true,
        activation: Some(Activation::Relu),
        slope: true,
        add: true,
        gradient: Some(true),
        ..NOTHING
    },
    Parts { bias: true, pre: true, activation: Some(Activation::Tanh), add: true, ..NOTHING },
    Parts { pre: true, activation: GELU, slope: true, gradient: Some(false), ..NOTHING },
];

fn draw(rng: &mut Rng, n: usize, dtype: Dtype) -> Vec<f32> {
    (0..n).map(|_| stored(rng.normal(), dtype)).collect()
}

/// The operands of a product and what its epilogue reads, as they are stored.
#[derive(Clone)]
struct Numbers {
    shape: GemmShape,
    pairs: Vec<[Vec<f32>; 2]>,
    bias: Vec<f32>,
    residual: Vec<f32>,
    slope: Vec<f32>,
    base: Vec<f32>,
    gradient: Vec<f32>,
}

impl Numbers {
    fn new(shape: GemmShape) -> Self {
        let GemmShape { m, n, k, pairs, a, b, c, .. } = shape;
        let rng = &mut Rng::new(11, (m * 31 + n * 17 + k) as u64);
        let pairs = (0..pairs).map(|_| [draw(rng, m * k, a), draw(rng, n * k, b)]).collect();
        let [residual, slope, base] = [(); 3].map(|()| draw(rng, m * n, c));
        Self { shape, pairs, bias: draw(rng, n, Dtype::F32), residual, slope, base, gradient: draw(rng, m, Dtype::F32) }
    }

    /// Σ A B and Σ |A B| of each element, the factors as `round` leaves them.
    fn sums(&self, round: impl Fn(f32) -> f32) -> Vec<(f64, f64)> {
        let GemmShape { layout, m, n, k, .. } = self.shape;
        let place = |i: usize, j: usize, t: usize| match layout {
            Layout::Nt => (i * k + t, j * k + t),
            Layout::Nn => (i * k + t, t * n + j),
            Layout::Tn => (t * m + i, t * n + j),
        };
        let of = |i: usize, j: usize| {
            let places = (0..k).map(move |t| place(i, j, t));
            let terms = self.pairs.iter().flat_map(|[a, b]| places.clone().map(|(x, y)| (a[x], b[y])));
            terms.fold((0.0, 0.0), |(sum, size), (a, b)| {
                let term = f64::from(round(a)) * f64::from(round(b));
                (sum + term, size + term.abs())
            })
        };
        (0..m * n).map(|at| of(at / n, at % n)).collect()
    }
}

/// f32's errors in a sum of so many terms of this size; then the rounding of what is stored.
fn close(got: f32, want: f64, size: f64, dtype: Dtype) -> bool {
    let rounding = if dtype == Dtype::Bf16 { want.abs() / 256.0 } else { 0.0 };
    (f64::from(got) - want).abs() <= 6.0 * f64::from(f32::EPSILON) * (size + 1.0) + rounding
}

fn mma(tile: Tile, split: usize) -> GemmConfig {
    GemmConfig { family: Family::Mma, tile, stages: Family::Mma.stages(), split }
}

/// A product's operands and outputs on a device.
struct Held {
    numbers: Numbers,
    parts: Parts,
    operands: Vec<[Memory; 2]>,
    bias: Memory,
    residual: Memory,
    slope: Memory,
    pre: Memory,
    c: Memory,
    gradient: Memory,
}

impl Held {
    fn new(device: &Rc<dyn Device>, numbers: Numbers, parts: Parts) -> Self {
        let GemmShape { layout, a, c, .. } = numbers.shape;
        let parts = if layout == Layout::Tn { parts } else { Parts { gradient: None, ..parts } };
        let put = |v: &[f32], dtype| upload(device, v, dtype).unwrap();
        let start = |data: &[f32], dtype: Dtype, add: bool| match add {
            true => put(data, dtype),
            false => poisoned(device, data.len() * dtype.bytes()).unwrap(),
        };
        Self {
            operands: numbers.pairs.iter().map(|[x, y]| [put(x, a), put(y, a)]).collect(),
            bias: put(&numbers.bias, Dtype::F32),
            residual: put(&numbers.residual, c),
            slope: put(&numbers.slope, c),
            pre: start(&numbers.base, c, false),
            c: start(&numbers.base, c, parts.add),
            gradient: start(&numbers.gradient, Dtype::F32, parts.gradient == Some(true)),
            numbers,
            parts,
        }
    }

    fn pairs(&self) -> Vec<(Ptr, Ptr)> {
        self.operands.iter().map(|[a, b]| (a.at(), b.at())).collect()
    }

    fn epilogue(&self) -> Epilogue {
        let (parts, given) = (self.parts, |is: bool, m: &Memory| if is { m.at() } else { Ptr::NULL });
        Epilogue {
            bias: given(parts.bias, &self.bias),
            add: parts.add,
            residual: given(parts.residual, &self.residual),
            activation: parts.activation,
            pre: given(parts.pre, &self.pre),
            slope: given(parts.slope, &self.slope),
            bias_gradient: given(parts.gradient.is_some(), &self.gradient),
            bias_gradient_add: parts.gradient == Some(true),
        }
    }

    /// C, what is stored on its way, and the gradient of a bias.
    fn outputs(&self, device: &Rc<dyn Device>) -> [Vec<f32>; 3] {
        let c = self.numbers.shape.c;
        [(&self.c, c), (&self.pre, c), (&self.gradient, Dtype::F32)]
            .map(|(m, dtype)| download(device, m, dtype).unwrap())
    }

    /// Against sums in f64.
    fn check(&self, device: &Rc<dyn Device>, what: &str) {
        let (Self { numbers, parts, .. }, GemmShape { m, n, k, a, c, .. }) = (self, self.numbers.shape);
        let [got, pre, gradient] = self.outputs(device);
        for (at, (sum, size)) in numbers.sums(|v| taken(v, a)).into_iter().enumerate() {
            let term = |is: bool, v: f32| if is { f64::from(v) } else { 0.0 };
            let (bias, residual) = (term(parts.bias, numbers.bias[at % n]), term(parts.residual, numbers.residual[at]));
            let (z, size) = (sum + bias + residual, size + bias.abs() + residual.abs());
            if parts.pre {
                assert!(close(pre[at], z, size, c), "pre of {what} at {at}: {}, want {z}", pre[at]);
            }
            let y = match parts.activation {
                None => z,
                Some(of) if parts.slope => z * slope(of, f64::from(numbers.slope[at])),
                Some(of) => value(of, z),
            };
            let y = y + term(parts.add, numbers.base[at]);
            assert!(close(got[at], y, 2.0 * size, c), "{what} at {at}: {}, want {y}", got[at]);
        }
        let Some(add) = parts.gradient else { return };
        for (i, got) in gradient.into_iter().enumerate() {
            let base = if add { f64::from(numbers.gradient[i]) } else { 0.0 };
            let row = || numbers.pairs.iter().flat_map(|[a, _]| (0..k).map(|t| f64::from(a[t * m + i])));
            let (want, size) = (base + row().sum::<f64>(), base.abs() + row().map(f64::abs).sum::<f64>());
            assert!(close(got, want, size, Dtype::F32), "row sum {i} of {what}: {got}, want {want}");
        }
    }
}

fn check(device: &Rc<dyn Device>, shape: GemmShape, config: GemmConfig, parts: Parts) {
    let held = Held::new(device, Numbers::new(shape), parts);
    let scratch = poisoned(device, config.scratch(&shape)).unwrap();
    let queue = Queue::new(&**device, scratch.at());
    product_as(config, &queue, &shape, &held.pairs(), held.c.at(), held.epilogue()).unwrap();
    held.check(device, &format!("{shape} by {config} with {:?}", held.parts));
}

/// m, n and k at edges of tiles and slices; rows of operands are whole chunks.
fn size(layout: Layout, m: usize, k: usize) -> (usize, usize, usize) {
    match layout {
        Layout::Nt => (m - 5, 67, k),
        Layout::Nn => (m - 5, 72, k),
        Layout::Tn => (m, 72, k - 3),
    }
}

#[test]
fn every_tile_layout_and_epilogue() {
    let mut turn = 0;
    for (a, layout) in DTYPES.into_iter().flat_map(|a| LAYOUTS.map(|layout| (a, layout))) {
        for tile in Family::Mma.tiles(a) {
            let rounds = if tile.rows == 64 { 5 } else { 2 };
            for _ in 0..rounds {
                let (parts, split, pairs) = (PARTS[turn % 5], [1, 1, 3][turn % 3], [1, 2][turn % 2]);
                let c = [Dtype::F32, Dtype::Bf16, Dtype::Bf16][turn / 2 % 3];
                // More slices than there are buffers.
                let (m, n, k) = size(layout, 136, if turn % 4 == 3 { 24 } else { 168 });
                let shape = GemmShape { layout, m, n, k, pairs, a, b: a, c };
                let device: Rc<dyn Device> = emulator(turn as u64);
                check(&device, shape, mma(tile, split), parts);
                turn += 1;
            }
        }
    }
}

#[test]
fn several_tiles_of_the_largest_and_single_elements() {
    let device: Rc<dyn Device> = emulator(3);
    for (a, layout) in [(Dtype::Bf16, Layout::Nt), (Dtype::F32, Layout::Tn)] {
        let tile = Family::Mma.tiles(a)[2];
        let shape = GemmShape { layout, m: 264, n: 136, k: 40, pairs: 1, a, b: a, c: a };
        check(&device, shape, mma(tile, 1), PARTS[1]);
        for (m, n, k) in [(8, 8, 8), (8, 72, 16), (72, 8, 8)] {
            let shape = GemmShape { m, n, k, ..shape };
            Family::Mma.tiles(a).into_iter().for_each(|tile| check(&device, shape, mma(tile, 1), PARTS[2]));
        }
    }
    // More rows of tiles than a band has.
    let (a, layout) = (Dtype::Bf16, Layout::Nt);
    let shape = GemmShape { layout, m: 64 * 10 + 1, n: 65, k: 8, pairs: 1, a, b: a, c: Dtype::F32 };
    check(&device, shape, mma(Family::Mma.tiles(a)[0], 1), PARTS[0]);
    // One row, one column.
    let shape = GemmShape { m: 1, n: 1, k: 136, ..shape };
    check(&device, shape, mma(Family::Mma.tiles(a)[1], 2), PARTS[3]);
}

/// y = act(x Wᵀ + b) and dy = (dx Wᵀ + x dWᵀ + db) act'(z), where act' is taken at what y's epilogue stores.
fn check_dual(seed: u64, (m, n, k): (usize, usize, usize), a: Dtype, c: Dtype, config: GemmConfig, fused: bool) {
    let device: Rc<dyn Device> = emulator(seed);
    let shape = GemmShape { layout: Layout::Nt, m, n, k, pairs: 1, a, b: a, c };
    let what = format!("{shape}, dual by {config}, fused {fused}");
    let drawn = Numbers::new(GemmShape { pairs: 2, ..shape });
    let [[x, w], [dx, dw]] = [drawn.pairs[0].clone(), drawn.pairs[1].clone()];
    let put = |v: &[f32], dtype| upload(&device, v, dtype).unwrap();
    let held = [put(&x, a), put(&w, a), put(&dx, a), put(&dw, a)];
    let tangent_bias: Vec<f32> = drawn.bias.iter().map(|b| 0.5 - b).collect();
    let (bias, db) = (put(&drawn.bias, Dtype::F32), put(&tangent_bias, Dtype::F32));
    let room = || poisoned(&device, m * n * c.bytes()).unwrap();
    let (y, dy, pre) = (room(), room(), room());
    let scratch = poisoned(&device, dual::scratch_of(config, &shape)).unwrap();
    let activation = fused.then_some(Activation::GeluTanh);
    let stored_z = if fused { pre.at() } else { Ptr::NULL };
    let of_y = Epilogue { bias: bias.at(), activation, pre: stored_z, ..Epilogue::NONE };
    let of_dy = Epilogue { bias: db.at(), activation, slope: stored_z, ..Epilogue::NONE };
    let output = |to: &Memory, epilogue| Output { at: to.at(), dtype: c, epilogue };
    let operands = [(held[0].at(), held[1].at()), (held[2].at(), held[3].at())];
    let queue = Queue::new(&*device, scratch.at());
    dual_as(config, &queue, &shape, operands, output(&y, of_y), output(&dy, of_dy)).unwrap();

    let of = |pairs: Vec<[Vec<f32>; 2]>| Numbers { pairs, ..Numbers::new(shape) }.sums(|v| taken(v, a));
    let sums = of(vec![[x.clone(), w.clone()]]).into_iter().zip(of(vec![[dx, w], [x, dw]]));
    let (got, moved) = (download(&device, &y, c).unwrap(), download(&device, &dy, c).unwrap());
    let pre = download(&device, &pre, c).unwrap();
    for (at, ((sum, size), (tangent, tangent_size))) in sums.enumerate() {
        let (z, dz) = (sum + f64::from(drawn.bias[at % n]), tangent + f64::from(tangent_bias[at % n]));
        let (want, by) = match activation {
            None => (z, 1.0),
            Some(of) => (value(of, z), slope(of, f64::from(pre[at]))),
        };
        assert!(!fused || close(pre[at], z, size, c), "pre of {what} at {at}: {}, want {z}", pre[at]);
        assert!(close(got[at], want, 2.0 * size, c), "y of {what} at {at}: {}, want {want}", got[at]);
        let want = dz * by;
        assert!(close(moved[at], want, 2.0 * tangent_size, c), "dy of {what} at {at}: {}, want {want}", moved[at]);
    }
}

#[test]
fn dual_products() {
    let mut seed = 0;
    for a in DTYPES {
        for config in dual::configs(a) {
            for (size, split, fused) in [((131, 67, 168), 1, true), ((70, 130, 24), 1, false), ((65, 9, 72), 2, true)] {
                let c = if seed % 2 == 0 { a } else { Dtype::F32 };
                check_dual(seed, size, a, c, GemmConfig { split, ..config }, fused);
                seed += 1;
            }
        }
    }
}

/// Of numbers that operands cannot hold: naively they are rounded, multiplied, summed in f32 and stored.
#[test]
fn errors_are_at_most_twice_those_of_a_naive_computation() {
    let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    let worst = |v: &[f64]| v.iter().fold(0.0f64, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b.abs()) });
    for (a, layout) in DTYPES.into_iter().flat_map(|a| LAYOUTS.map(|layout| (a, layout))) {
        let (m, n, k) = (72, 40, 200);
        let shape = GemmShape { layout, m, n, k, pairs: 1, a, b: a, c: a };
        let exact = Numbers::new(GemmShape { a: Dtype::F32, b: Dtype::F32, ..shape });
        let want: Vec<f64> = exact.sums(|v| v).into_iter().map(|(sum, _)| sum).collect();
        let naive: Vec<f64> = exact.sums(|v| taken(v, a)).iter().map(|s| f64::from(stored(s.0 as f32, a))).collect();
        let device: Rc<dyn Device> = emulator(5);
        let [x, y] = exact.pairs[0].clone().map(|v| upload(&device, &v, a).unwrap());
        let c = poisoned(&device, m * n * a.bytes()).unwrap();
        let queue = Queue::new(&*device, Ptr::NULL);
        let config = mma(Family::Mma.tiles(a)[0], 1);
        product_as(config, &queue, &shape, &[(x.at(), y.at())], c.at(), Epilogue::NONE).unwrap();
        let got = download(&device, &c, a).unwrap();
        let less = |v: Vec<f64>| -> Vec<f64> { v.into_iter().zip(&want).map(|(v, w)| v - w).collect() };
        let (ours, theirs) = (less(got.into_iter().map(f64::from).collect()), less(naive));
        let what =
            format!("{shape}: ours {} {}, naive {} {}", norm(&ours), worst(&ours), norm(&theirs), worst(&theirs));
        assert!(norm(&ours) <= 2.0 * norm(&theirs) && worst(&ours) <= 2.0 * worst(&theirs), "{what}");
    }
}

#[test]
fn what_tensor_cores_do_not_take_goes_to_the_portable_kernels() {
    // One element, one chunk further; and f32 with and without leave to round it.
    for (dtype, tf32, skip, family) in [
        (Dtype::Bf16, false, 1, "gemm_nt_"),
        (Dtype::Bf16, false, 8, "gemm_mma_nt_"),
        (Dtype::F32, true, 1, "gemm_nt_"),
        (Dtype::F32, true, 4, "gemm_mma_nt_"),
        (Dtype::F32, false, 4, "gemm_nt_"),
    ] {
        let emulated = emulator(1);
        let device: Rc<dyn Device> = emulated.clone();
        let shape = GemmShape { layout: Layout::Nt, m: 6, n: 5, k: 16, pairs: 1, a: dtype, b: dtype, c: Dtype::F32 };
        let numbers = Numbers::new(shape);
        let put = |v: &[f32]| upload(&device, &[vec![f32::NAN; skip], v.to_vec()].concat(), dtype).unwrap();
        let [x, w] = [put(&numbers.pairs[0][0]), put(&numbers.pairs[0][1])];
        let (c, scratch) = (poisoned(&device, 4 * 30).unwrap(), poisoned(&device, shape.scratch()).unwrap());
        let queue = Queue { tf32, ..Queue::new(&*device, scratch.at()) };
        let at = |m: &Memory| m.at().offset(skip * dtype.bytes());
        let tensor = |at: Ptr, shape| DeviceTensor { at, dtype, shape };
        let pair = (tensor(at(&x), &[6, 16]), tensor(at(&w), &[5, 16]));
        let to = DeviceTensor { dtype: Dtype::F32, ..tensor(c.at(), &[6, 5]) };
        product(&queue, Layout::Nt, (6, 5, 16), &[pair], &to, Epilogue::NONE).unwrap();
        let round = |v| if family == "gemm_mma_nt_" { taken(v, dtype) } else { v };
        let got = download(&device, &c, Dtype::F32).unwrap();
        for (at, (want, size)) in numbers.sums(round).into_iter().enumerate() {
            assert!(close(got[at], want, size, Dtype::F32), "{dtype:?} at {at}: {}, want {want}", got[at]);
        }
        let launched = emulated.launched();
        assert!(launched.len() == 1 && launched.iter().all(|name| name.starts_with(family)), "{launched:?}");
        if family == "gemm_nt_" {
            let config = mma(Family::Mma.tiles(dtype)[0], 1);
            let refused = product_as(config, &queue, &shape, &[(at(&x), at(&w))], c.at(), Epilogue::NONE);
            assert_eq!(refused.is_err(), skip == 1, "{dtype:?} by {config}, {skip} elements further");
        }
    }
}

#[test]
fn linear_maps_and_their_tangents_in_one_launch() {
    let m = &mut Make(Rng::new(2, 0));
    let parameter = |m: &mut Make, shape: &[usize]| Input { role: Role::Parameter, ..m.normal(shape, 0.5) };
    for (rows, k, n) in [(70, 72, 40), (3, 1040, 8)] {
        let emulated = emulator(7);
        let device: Rc<dyn Device> = emulated.clone();
        let inputs = vec![m.normal(&[rows, k], 1.0), parameter(m, &[n, k]), parameter(m, &[n])];
        let rows = check_op(&device, &Case { op: Arc::new(Linear), inputs, ulps: 8.0 }, Dtype::Bf16);
        let wrong: Vec<String> = rows.iter().filter(|row| !row.ok).map(|row| format!("{row:?}")).collect();
        assert!(wrong.is_empty() && rows.len() >= 3, "{}", wrong.join("\n"));
        let launched = emulated.launched();
        for family in ["gemm_dual_nt_", "gemm_mma_nt_", "gemm_mma_nn_", "gemm_mma_tn_", "gemm_reverse_"] {
            assert!(launched.iter().any(|name| name.starts_with(family)), "{family} of {launched:?}");
        }
    }
}

#[test]
fn the_device_and_the_dtypes_choose_the_family() {
    let shape =
        GemmShape { layout: Layout::Nt, m: 64, n: 64, k: 64, pairs: 1, a: Dtype::F32, b: Dtype::F32, c: Dtype::F32 };
    assert_eq!(shape.config(Abilities::AMPERE, true).family, Family::Mma);
    assert_eq!(shape.config(Abilities::AMPERE, false).family, Family::Simt);
    let older = Abilities { capability: (7, 5), sm_90a: false };
    assert_eq!(shape.config(older, true).family, Family::Simt);
}
