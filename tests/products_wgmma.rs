//! Products by kernels/gemm_wgmma.cu, in the emulator with every access checked: against sums in f64, at no more than
//! twice the error of a naive bf16 computation where C is bf16, and at the rounding of f32 where it is not.
use fipk::gpu::emulator::{Emulator, Options};
use fipk::gpu::{Abilities, Device, Dtype, Memory, Ptr, Queue};
use fipk::ops::gemm::cuda::{product, product_as};
use fipk::ops::gemm::{Epilogue, Family, GemmConfig, GemmShape, Layout, Tile};
use fipk::ops::{Activation, DeviceTensor, Linear};
use fipk::rng::Rng;
use fipk::selftest::{Case, Input, Make, Role, check_op, download, poisoned, upload};
use std::rc::Rc;
use std::sync::Arc;

const LAYOUTS: [Layout; 3] = [Layout::Nt, Layout::Nn, Layout::Tn];

fn emulator(seed: Option<u64>) -> Rc<Emulator> {
    let emulator = Rc::new(Emulator::new(Options { seed, checked: true }));
    emulator.act_as(Abilities::HOPPER);
    emulator
}

fn tiles() -> Vec<Tile> {
    let tiles = Family::Wgmma.tiles(Dtype::Bf16);
    assert_eq!(tiles.iter().map(|t| t.columns).collect::<Vec<_>>(), [256, 128, 64]);
    tiles
}

fn bf16(x: f64) -> f64 {
    f64::from(half::bf16::from_f64(x).to_f32())
}

/// What is done to the sum, with the adding of it to C.
#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    Nothing,
    Bias,
    /// The bias and the residual, then the activation; z is stored.
    Activation(Activation),
    /// The activation's derivative.
    Slope(Activation),
    Add,
    /// With the bias's gradient, which is added to or not.
    BiasGradient(bool),
}

fn value(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::GeluErf => x / 2.0 * libm::erfc(-x / 2f64.sqrt()),
        Activation::GeluTanh => x / 2.0 * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x.powi(3))).tanh()),
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
    }
}

/// From x, but for tanh from its value.
fn slope(activation: Activation, at: f64) -> f64 {
    match activation {
        Activation::Tanh => 1.0 - at * at,
        _ => (value(activation, at + 1e-6) - value(activation, at - 1e-6)) / 2e-6,
    }
}

#[derive(Clone, Copy, Debug)]
struct Try {
    shape: GemmShape,
    tile: Tile,
    split: usize,
    after: After,
    seed: Option<u64>,
}

/// C, what z was stored as, and the bias's gradient; empty where there is none.
type Results = [Vec<f64>; 3];

struct Numbers {
    of: Try,
    pairs: Vec<[Vec<f32>; 2]>,
    /// Of C's shape: what C holds before, and the residual or the slope. Then the bias, and its gradient before.
    base: Vec<f32>,
    other: Vec<f32>,
    bias: Vec<f32>,
    gradient: Vec<f32>,
}

impl Numbers {
    fn new(of: Try) -> Self {
        let GemmShape { m, n, k, pairs, c, .. } = of.shape;
        let mut rng = Rng::new(3, (m * 31 + n * 17 + k) as u64);
        let mut draw = |n: usize, dtype: Dtype| -> Vec<f32> {
            let round = |v: f32| if dtype == Dtype::Bf16 { half::bf16::from_f32(v).to_f32() } else { v };
            (0..n).map(|_| round(rng.normal())).collect()
        };
        let pairs = (0..pairs).map(|_| [draw(m * k, Dtype::Bf16), draw(n * k, Dtype::Bf16)]).collect();
        let [base, other] = [(); 2].map(|()| draw(m * n, c));
        Self { of, pairs, base, other, bias: draw(n, Dtype::F32), gradient: draw(m, Dtype::F32) }
    }

    /// Each step's result rounded; and the size of the terms of each sum of C.
    fn by(&self, round: impl Fn(f64) -> f64) -> (Results, Vec<f64>) {
        let GemmShape { layout, m, n, k, .. } = self.of.shape;
        let after = self.of.after;
        let (mut c, mut pre, mut sizes) = (vec![0.0; m * n], Vec::new(), vec![0.0; m * n]);
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let (mut sum, mut size) = (0.0, 1.0);
            for [a, b] in &self.pairs {
                for t in 0..k {
                    let (x, y) = match layout {
                        Layout::Nt => (i * k + t, j * k + t),
                        Layout::Nn => (i * k + t, t * n + j),
                        Layout::Tn => (t * m + i, t * n + j),
                    };
                    let term = f64::from(a[x]) * f64::from(b[y]);
                    sum += term;
                    size += term.abs();
                }
            }
            let at = i * n + j;
            let [base, other] = [&self.base, &self.other].map(|v| f64::from(v[at]));
            let bias = f64::from(self.bias[j]);
            let sum = round(sum);
            c[at] = match after {
                After::Nothing | After::BiasGradient(_) => sum,
                After::Bias => round(sum + bias),
                After::Add => round(sum + base),
                After::Slope(activation) => round(sum * round(slope(activation, other))),
                After::Activation(activation) => {
                    let z = round(round(sum + bias) + other);
                    pre.push(z);
                    round(value(activation, z))
                }
            };
            // Derivatives of the activations are at most 1.13, tanh's from a "value" of any size aside.
            sizes[at] = (size + bias.abs() + other.abs() + base.abs()) * (1.2 + other * other);
        }
        let mut gradient = Vec::new();
        if let After::BiasGradient(add) = after {
            let row =
                |i: usize| self.pairs.iter().map(move |[a, _]| (0..k).map(|t| f64::from(a[t * m + i])).sum::<f64>());
            let start = |i: usize| if add { f64::from(self.gradient[i]) } else { 0.0 };
            gradient = (0..m).map(|i| start(i) + row(i).sum::<f64>()).collect();
        }
        ([c, pre, gradient], sizes)
    }

    fn by_kernels(&self) -> Results {
        let Try { shape, tile, split, after, seed } = self.of;
        let emulator = emulator(seed);
        let device: Rc<dyn Device> = emulator.clone();
        let config = GemmConfig { family: Family::Wgmma, tile, stages: 4, split };
        let put = |data: &[f32], dtype| upload(&device, data, dtype).unwrap();
        let pairs: Vec<[Memory; 2]> =
            self.pairs.iter().map(|[a, b]| [put(a, Dtype::Bf16), put(b, Dtype::Bf16)]).collect();
        let operands: Vec<(Ptr, Ptr)> = pairs.iter().map(|[a, b]| (a.at(), b.at())).collect();
        let room = |n: usize, dtype: Dtype| poisoned(&device, n * dtype.bytes()).unwrap();
        let c = if after == After::Add { put(&self.base, shape.c) } else { room(self.base.len(), shape.c) };
        let (other, bias) = (put(&self.other, shape.c), put(&self.bias, Dtype::F32));
        let pre = room(self.base.len(), shape.c);
        let adds = after == After::BiasGradient(true);
        let gradient = if adds { put(&self.gradient, Dtype::F32) } else { room(shape.m, Dtype::F32) };
        let epilogue = match after {
            After::Nothing => Epilogue::NONE,
            After::Bias => Epilogue { bias: bias.at(), ..Epilogue::NONE },
            After::Add => Epilogue { add: true, ..Epilogue::NONE },
            After::Slope(of) => Epilogue { activation: Some(of), slope: other.at(), ..Epilogue::NONE },
            After::BiasGradient(add) => {
                Epilogue { bias_gradient: gradient.at(), bias_gradient_add: add, ..Epilogue::NONE }
            }
            After::Activation(of) => {
                let (bias, residual, pre) = (bias.at(), other.at(), pre.at());
                Epilogue { bias, residual, activation: Some(of), pre, ..Epilogue::NONE }
            }
        };
        let scratch = room(config.scratch(&shape), Dtype::F32);
        let queue = Queue::new(&*device, scratch.at());
        product_as(config, &queue, &shape, &operands, c.at(), epilogue).unwrap();
        let kernel = format!("gemm_wgmma_{}_{}x{}", shape.layout.name(), tile.rows, tile.columns);
        assert!(emulator.launched().contains(&kernel), "{:?}", emulator.launched());
        let get = |from: &Memory, dtype| download(&device, from, dtype).unwrap().into_iter().map(f64::from).collect();
        let pre = if epilogue.pre.is_null() { Vec::new() } else { get(&pre, shape.c) };
        let gradient = if epilogue.bias_gradient.is_null() { Vec::new() } else { get(&gradient, Dtype::F32) };
        [get(&c, shape.c), pre, gradient]
    }
}

/// The worst element's error and the norm of all; NaN of either stays.
fn errors(got: &[f64], want: &[f64]) -> [f64; 2] {
    assert_eq!(got.len(), want.len());
    let each = || got.iter().zip(want).map(|(g, w)| (g - w).abs());
    let worst = each().fold(0.0, |a: f64, b| if a.is_nan() || b <= a { a } else { b });
    [worst, each().map(|e| e * e).sum::<f64>().sqrt()]
}

fn check(of: Try) {
    let numbers = Numbers::new(of);
    let ([c, pre, gradient], sizes) = numbers.by(|x| x);
    let [got_c, got_pre, got_gradient] = numbers.by_kernels();
    let f32s = 4.0 * f64::from(f32::EPSILON);
    if of.shape.c == Dtype::Bf16 {
        let ([naive_c, naive_pre, _], _) = numbers.by(bf16);
        for (name, got, naive, want) in [("c", &got_c, &naive_c, &c), ("pre", &got_pre, &naive_pre, &pre)] {
            let (ours, theirs) = (errors(got, want), errors(naive, want));
            let what = format!("{name} of {of:?}: ours {ours:?}, naive {theirs:?}");
            assert!(ours[0] <= 2.0 * theirs[0] && ours[1] <= 2.0 * theirs[1], "{what}");
        }
    } else {
        assert_eq!((got_c.len(), got_pre.len()), (c.len(), pre.len()));
        for (at, size) in sizes.iter().enumerate() {
            let place = (at / of.shape.n, at % of.shape.n);
            assert!((got_c[at] - c[at]).abs() <= f32s * size, "{of:?} at {place:?}: {}, want {}", got_c[at], c[at]);
            let z = pre.get(at).map_or(0.0, |want| (got_pre[at] - want).abs());
            assert!(z <= f32s * size, "z of {of:?} at {place:?} is off by {z}");
        }
    }
    assert_eq!(got_gradient.len(), gradient.len());
    let terms = (of.shape.pairs * of.shape.k + 2) as f64;
    for (i, (got, want)) in got_gradient.iter().zip(&gradient).enumerate() {
        assert!((got - want).abs() <= f32s * terms, "row {i} of {of:?}: {got}, want {want}");
    }
}

/// Sizes that no tile divides, but for the rows that copies want a multiple of 8 long.
fn shape(layout: Layout, [m, n, k]: [usize; 3], pairs: usize, c: Dtype) -> GemmShape {
    let eights = |size: usize| size.next_multiple_of(8);
    let (m, n, k) = match layout {
        Layout::Nt => (m, n, eights(k)),
        Layout::Nn => (m, eights(n), eights(k)),
        Layout::Tn => (eights(m), eights(n), k),
    };
    GemmShape { layout, m, n, k, pairs, a: Dtype::Bf16, b: Dtype::Bf16, c }
}

#[test]
fn rings_go_around_and_blocks_take_several_tiles() {
    // Ten slices a pair, so more than there are stages; three rows of tiles on two multiprocessors.
    for (i, layout) in LAYOUTS.into_iter().enumerate() {
        for tile in tiles() {
            let shape = |pairs, c| shape(layout, [259, 133, 617], pairs, c);
            let seed = (i > 0).then_some(i as u64);
            let one = Try { shape: shape(1, Dtype::F32), tile, split: 1, after: After::Nothing, seed };
            check(one);
            let after = After::Activation(Activation::GeluErf);
            check(Try { shape: shape(2, Dtype::Bf16), split: 3, after, ..one });
        }
    }
}

#[test]
fn every_tile_is_made_once_in_bands_of_rows() {
    // Eleven rows of tiles, of which eight are gone through together and then three; C is added to, so twice would show.
    for (seed, tile) in tiles().into_iter().enumerate() {
        let of = shape(Layout::Nt, [1290, 2 * tile.columns + 1, 9], 1, Dtype::F32);
        check(Try { shape: of, tile, split: 1, after: After::Add, seed: Some(seed as u64) });
    }
}

#[test]
fn epilogues() {
    let curves = [Activation::GeluErf, Activation::GeluTanh, Activation::Relu, Activation::Tanh];
    let mut all = vec![After::Nothing, After::Bias, After::Add];
    all.extend(curves.into_iter().flat_map(|of| [After::Activation(of), After::Slope(of)]));
    for (i, after) in all.into_iter().enumerate() {
        let (layout, tile) = (LAYOUTS[i % 3], tiles()[i / 3 % 3]);
        for (c, split) in [(Dtype::F32, 1), (Dtype::Bf16, 1), (Dtype::F32, 2), (Dtype::Bf16, 2)] {
            // Rows of C that can be stored in pieces, and rows that cannot.
            let of = shape(layout, [70, if i % 2 == 0 { 72 } else { 45 }, 100], 1, c);
            check(Try { shape: of, tile, split, after, seed: Some(i as u64) });
        }
    }
}

#[test]
fn sums_of_rows_are_a_biass_gradient() {
    for (i, tile) in tiles().into_iter().enumerate() {
        for (pairs, split, add) in [(1, 1, false), (2, 1, true), (1, 3, true), (2, 4, false)] {
            let of = shape(Layout::Tn, [200, 136, 131], pairs, [Dtype::F32, Dtype::Bf16][i % 2]);
            check(Try { shape: of, tile, split, after: After::BiasGradient(add), seed: Some(i as u64) });
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_order_of_threads() {
    for tile in tiles() {
        let of = shape(Layout::Nn, [200, 136, 200], 2, Dtype::F32);
        let by = |seed| Numbers::new(Try { shape: of, tile, split: 2, after: After::Bias, seed }).by_kernels();
        assert!(by(None) == by(Some(4)) && by(Some(5)) == by(Some(4)), "{tile:?}");
    }
}

#[test]
fn what_wgmma_does_not_take_goes_elsewhere_and_is_refused_where_it_is_asked_for() {
    let emulator = emulator(None);
    let device: Rc<dyn Device> = emulator.clone();
    let queue = Queue::new(&*device, Ptr::NULL);
    let room = |bytes| poisoned(&device, bytes).unwrap();
    let config = GemmConfig { family: Family::Wgmma, tile: tiles()[2], stages: 8, split: 1 };
    let good = shape(Layout::Nt, [40, 40, 64], 1, Dtype::F32);
    let of = |m, n, k, a| GemmShape { m, n, k, a, ..good };
    let odd = Tile { rows: 64, ..tiles()[2] };
    let cases = [
        (config, of(40, 40, 63, Dtype::Bf16), 0),
        (config, of(40, 40, 0, Dtype::Bf16), 0),
        (config, of(40, 40, 64, Dtype::F32), 0),
        (config, GemmShape { layout: Layout::Nn, ..of(40, 41, 64, Dtype::Bf16) }, 0),
        (config, GemmShape { layout: Layout::Tn, ..of(41, 40, 64, Dtype::Bf16) }, 0),
        (config, good, 2),
        (GemmConfig { split: 2, ..config }, good, 0),
        (GemmConfig { split: 0, ..config }, good, 0),
        (GemmConfig { tile: odd, ..config }, good, 0),
    ];
    let (a, b, c) = (room(1 << 14), room(1 << 14), room(4 * 41 * 41));
    for (config, shape, skip) in cases {
        let operands = [(a.at().offset(skip), b.at())];
        let refused = product_as(config, &queue, &shape, &operands, c.at(), Epilogue::NONE).unwrap_err();
        assert!(refused.to_string().contains("wgmma") || refused.to_string().contains("slices"), "{refused}");
        if shape != good {
            assert_ne!(shape.config(Abilities::HOPPER, false).family, Family::Wgmma, "{shape}");
        }
    }
    assert_eq!(good.config(Abilities::HOPPER, false).family, Family::Wgmma);
    assert_ne!(good.config(Abilities::AMPERE, false).family, Family::Wgmma);
    assert!(emulator.launched().is_empty(), "{:?}", emulator.launched());

    for (skip, by_wgmma) in [(0, true), (2, false), (8, false), (16, true)] {
        let emulator = self::emulator(None);
        let device: Rc<dyn Device> = emulator.clone();
        let ones = upload(&device, &vec![1.0; 40 * 64 + 8], Dtype::Bf16).unwrap();
        let (scratch, c) = (poisoned(&device, good.scratch()).unwrap(), poisoned(&device, 4 * 40 * 40).unwrap());
        let of = |at: Ptr| DeviceTensor { at, dtype: Dtype::Bf16, shape: &[40, 64] };
        let to = DeviceTensor { at: c.at(), dtype: Dtype::F32, shape: &[40, 40] };
        let (queue, pair) = (Queue::new(&*device, scratch.at()), (of(ones.at().offset(skip)), of(ones.at())));
        product(&queue, Layout::Nt, (40, 40, 64), &[pair], &to, Epilogue::NONE).unwrap();
        assert!(download(&device, &c, Dtype::F32).unwrap().iter().all(|v| *v == 64.0), "{skip}");
        let taken = emulator.launched().iter().any(|name| name.starts_with("gemm_wgmma_"));
        assert_eq!(taken, by_wgmma, "{skip}");
    }
}

#[test]
fn linear_maps_take_them_on_hopper() {
    let m = &mut Make(Rng::new(2, 0));
    for (seed, (rows, k, n)) in [(40, 72, 24), (136, 64, 80)].into_iter().enumerate() {
        let emulator = emulator(Some(seed as u64));
        let device: Rc<dyn Device> = emulator.clone();
        let parameter = |m: &mut Make, shape: &[usize]| Input { role: Role::Parameter, ..m.normal(shape, 0.5) };
        let inputs = vec![m.normal(&[rows, k], 1.0), parameter(m, &[n, k]), parameter(m, &[n])];
        let rows = check_op(&device, &Case { op: Arc::new(Linear), inputs, ulps: 8.0 }, Dtype::Bf16);
        assert!(rows.len() >= 3 && rows.iter().all(|row| row.ok), "{rows:?}");
        for layout in LAYOUTS {
            let stem = format!("gemm_wgmma_{}_", layout.name());
            assert!(
                emulator.launched().iter().any(|name| name.starts_with(&stem)),
                "{stem}: {:?}",
                emulator.launched()
            );
        }
    }
}
