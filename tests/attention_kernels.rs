//! Attention's kernels for tensor cores in the emulator, against f64 at no more than twice the error of attention done
//! naively in bf16; and what holds exactly. The self-test holds each of them against the host.
use fipk::gpu::emulator::{Emulator, Options};
use fipk::gpu::{Device, Dtype};
use fipk::ops::{Attention, Pass};
use fipk::rng::Rng;
use fipk::selftest::{Bound, Case, Input, Role, Stored, download, poisoned, upload};
use std::rc::Rc;
use std::sync::Arc;

fn emulator(seed: Option<u64>) -> Rc<dyn Device> {
    Rc::new(Emulator::new(Options { seed, checked: true }))
}

fn bf16(x: f64) -> f64 {
    f64::from(half::bf16::from_f64(x).to_f32())
}

/// q, k, v, dq, dk, dv, gy: [S, D], one head of one sample.
struct Numbers {
    s: usize,
    d: usize,
    on: Vec<bool>,
    x: [Vec<f32>; 7],
}

/// y, dy, gq, gk, gv.
type Results = [Vec<f64>; 5];

impl Numbers {
    /// Values around `offset`: where it is large, what does not cancel in dy = Σ t (v - o) shows.
    fn new(seed: u64, (s, d): (usize, usize), offset: f32, on: impl Fn(usize) -> bool) -> Self {
        let mut rng = Rng::new(seed, 0);
        let mut draw =
            |of: f32| -> Vec<f32> { (0..s * d).map(|_| half::bf16::from_f32(rng.normal() + of).to_f32()).collect() };
        let x = [0.0, 0.0, offset, 0.0, 0.0, 0.0, 0.0].map(&mut draw);
        Self { s, d, on: (0..s).map(on).collect(), x }
    }

    /// The definition, each step's results rounded: by nothing for f64, to bf16 as a framework without a fused kernel
    /// stores them. Sums are exact in both.
    fn by(&self, round: impl Fn(f64) -> f64) -> Results {
        let (s, d, scale) = (self.s, self.d, 1.0 / (self.d as f64).sqrt());
        let [q, k, v, dq, dk, dv, gy] =
            [0, 1, 2, 3, 4, 5, 6].map(|i| move |r: usize, c: usize| f64::from(self.x[i][r * d + c]));
        let keys: Vec<usize> = (0..s).filter(|j| self.on[*j]).collect();
        let mut out: Results = [(); 5].map(|()| vec![0.0; s * d]);
        let n = keys.len();
        let dot = |f: &dyn Fn(usize) -> f64| (0..d).map(f).sum::<f64>();
        let (mut p, mut r) = (vec![0.0; s * n], vec![0.0; s * n]);
        for i in 0..s {
            let scores: Vec<f64> = keys.iter().map(|&j| round(scale * dot(&|c| q(i, c) * k(j, c)))).collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
            let p = &mut p[i * n..][..n];
            p.iter_mut().zip(&scores).for_each(|(p, s)| *p = round((s - top).exp() / total));
            let moved: Vec<f64> =
                keys.iter().map(|&j| round(scale * dot(&|c| dq(i, c) * k(j, c) + q(i, c) * dk(j, c)))).collect();
            let mean: f64 = p.iter().zip(&moved).map(|(p, m)| p * m).sum();
            let t: Vec<f64> = p.iter().zip(&moved).map(|(p, m)| round(p * (m - mean))).collect();
            let back: Vec<f64> = keys.iter().map(|&j| round(dot(&|c| gy(i, c) * v(j, c)))).collect();
            let mean: f64 = p.iter().zip(&back).map(|(p, b)| p * b).sum();
            let r = &mut r[i * n..][..n];
            r.iter_mut().zip(p.iter().zip(&back)).for_each(|(r, (p, b))| *r = round(p * (b - mean)));
            for c in 0..d {
                let over =
                    |w: &dyn Fn(usize, usize) -> f64| keys.iter().enumerate().map(|(a, &j)| w(a, j)).sum::<f64>();
                out[0][i * d + c] = round(over(&|a, j| p[a] * v(j, c)));
                out[1][i * d + c] = round(over(&|a, j| t[a] * v(j, c) + p[a] * dv(j, c)));
                out[2][i * d + c] = round(scale * over(&|a, j| r[a] * k(j, c)));
            }
        }
        for (a, &j) in keys.iter().enumerate() {
            for c in 0..d {
                out[3][j * d + c] = round(scale * (0..s).map(|i| r[i * n + a] * q(i, c)).sum::<f64>());
                out[4][j * d + c] = round((0..s).map(|i| p[i * n + a] * gy(i, c)).sum());
            }
        }
        out
    }

    /// The kernels'. `dual`: y and dy by the one that makes both.
    fn by_kernels(&self, device: &Rc<dyn Device>, dtype: Dtype, dual: bool) -> Results {
        let (s, d) = (self.s, self.d);
        let input = |i: usize| Input { shape: vec![1, s, d], data: self.x[i].clone(), role: Role::Activation };
        let mask = self.on.iter().map(|on| f32::from_bits(u32::from(*on))).collect();
        let mask = Input { shape: vec![1, s], data: mask, role: Role::Index };
        let case =
            Case { op: Arc::new(Attention { heads: 1 }), inputs: vec![input(0), input(1), input(2), mask], ulps: 0.0 };
        let stored = Stored::new(&case, dtype, false);
        let bound = Bound::new(device, case, stored).unwrap();
        let put = |i: usize| upload(device, &self.x[i], dtype).unwrap();
        let room = || poisoned(device, dtype.bytes() * s * d).unwrap();
        let dy = room();
        let dx = [Some(put(3)), Some(put(4)), Some(put(5)), None];
        if !dual {
            bound.run(Pass::Forward, &[], None, &[]).unwrap();
        }
        bound.run(if dual { Pass::Dual } else { Pass::Jvp }, &dx, Some(&dy), &[]).unwrap();
        let g = [(); 3].map(|()| Some((room(), false)));
        let gx: Vec<_> = g.into_iter().chain([None]).collect();
        bound.run(Pass::Vjp, &[], Some(&put(6)), &gx).unwrap();
        let get = |m| download(device, m, dtype).unwrap().into_iter().map(f64::from).collect();
        let of = |i: usize| get(&gx[i].as_ref().unwrap().0);
        [get(&bound.y), get(&dy), of(0), of(1), of(2)]
    }
}

/// The worst element's error and the norm of all.
fn errors(got: &[f64], want: &[f64]) -> [f64; 2] {
    let each = || got.iter().zip(want).map(|(g, w)| (g - w).abs());
    let worst = each().fold(0.0, |a: f64, b| if a.is_nan() || b <= a { a } else { b });
    [worst, each().map(|e| e * e).sum::<f64>().sqrt()]
}

#[test]
fn errors_are_at_most_twice_those_of_a_naive_bf16_computation() {
    let lengths = [(197usize, 64usize), (31, 32), (128, 48), (65, 80), (129, 96), (257, 128), (1, 64), (257, 16)];
    for (case, (s, d)) in lengths.into_iter().enumerate() {
        for (offset, padded, dual) in [(0.0, false, false), (1.0, true, false), (0.0, true, true), (1.0, false, true)] {
            let on = move |key: usize| !padded || (key < s.div_ceil(2) && key % 7 != 3) || s == 1;
            let numbers = Numbers::new(case as u64, (s, d), offset, on);
            let (exact, naive) = (numbers.by(|x| x), numbers.by(bf16));
            let got = numbers.by_kernels(&emulator(Some(case as u64)), Dtype::Bf16, dual);
            for (i, name) in ["y", "dy", "gq", "gk", "gv"].into_iter().enumerate() {
                let (ours, theirs) = (errors(&got[i], &exact[i]), errors(&naive[i], &exact[i]));
                let what = format!("{name} of {s} x {d} around {offset}: ours {ours:?}, naive {theirs:?}");
                assert!(ours[0] <= 2.0 * theirs[0] && ours[1] <= 2.0 * theirs[1], "{what}");
            }
            let dot = |a: &[f64], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
            let size = |a: &[f64], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a * f64::from(*b)).powi(2)).sum::<f64>();
            let (forward, x) = (dot(&got[1], &numbers.x[6]), &numbers.x);
            let back: f64 = (0..3).map(|i| dot(&got[2 + i], &x[3 + i])).sum();
            let terms = size(&got[1], &x[6]) + (0..3).map(|i| size(&got[2 + i], &x[3 + i])).sum::<f64>();
            // Rounding errors of 2^-9 of each term, which add up as random numbers do; with room for those on the way.
            let tolerance = 8.0 * terms.sqrt() / 512.0;
            assert!((forward - back).abs() <= tolerance, "{s} x {d} around {offset}: {forward} {back} {tolerance}");
        }
    }
}

#[test]
fn maxima_that_rise_from_tile_to_tile_are_followed() {
    let mut numbers = Numbers::new(11, (200, 64), 0.0, |key| key % 5 != 4);
    for (i, k) in numbers.x[1].iter_mut().enumerate() {
        *k = half::bf16::from_f32(*k * (1.0 + (i / 64) as f32 / 8.0)).to_f32();
    }
    let (exact, naive) = (numbers.by(|x| x), numbers.by(bf16));
    for (dual, i) in [false, true].into_iter().flat_map(|dual| (0..5).map(move |i| (dual, i))) {
        let got = numbers.by_kernels(&emulator(None), Dtype::Bf16, dual);
        let (ours, theirs) = (errors(&got[i], &exact[i]), errors(&naive[i], &exact[i]));
        assert!(ours[0] <= 2.0 * theirs[0] && ours[1] <= 2.0 * theirs[1], "{i}: ours {ours:?}, naive {theirs:?}");
    }
}

#[test]
fn scores_of_a_single_key_matter_to_nothing() {
    for dtype in [Dtype::Bf16, Dtype::F32] {
        for (s, d) in [(1, 64), (70, 32), (33, 20)] {
            let numbers = Numbers::new(9, (s, d), 1.0, |key| key == s / 2);
            let [y, dy, gq, gk, gv] = numbers.by_kernels(&emulator(None), dtype, s == 70);
            for (i, value) in y.iter().enumerate() {
                let key = s / 2 * d + i % d;
                assert_eq!(*value, f64::from(numbers.x[2][key]), "y[{i}] of {s} x {d}");
                assert_eq!(dy[i], f64::from(numbers.x[5][key]), "dy[{i}] of {s} x {d}");
            }
            assert!(gq.iter().chain(&gk).all(|g| *g == 0.0), "{dtype:?} {s} x {d}");
            let others = gv.iter().enumerate().filter(|(i, g)| i / d != s / 2 && **g == 0.0);
            assert!(others.count() == (s - 1) * d && gv[s / 2 * d..][..d].iter().any(|g| *g != 0.0));
        }
    }
}
