//! Convolutions on the host against a loop over the definition in f64, over random geometry and at long sums; and the
//! same bits from any number of threads at sizes that tasks share.
use fipk::ops::{Conv2d, Cotangent, Op, RectifiedBatchNorm, RectifiedConv};
use fipk::rng::Rng;
use fipk::tensor::{View, numel};
use proptest::prelude::*;

fn random(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal()).collect()
}

/// A cotangent that is written to.
fn put(data: &mut Vec<f32>) -> Option<Cotangent<'_>> {
    Some(Cotangent { data, add: false })
}

/// A convolution and numbers for it.
struct Case {
    op: Conv2d,
    x: ([usize; 4], Vec<f32>),
    w: ([usize; 4], Vec<f32>),
    dx: Vec<f32>,
    dw: Vec<f32>,
    gy: Vec<f32>,
    /// Of y.
    to: [usize; 4],
}

impl Case {
    fn new(op: Conv2d, x: [usize; 4], w: [usize; 4], seed: u64) -> Self {
        let rng = &mut Rng::new(seed, 3);
        let to: [usize; 4] = op.output(&[&x, &w]).unwrap().try_into().unwrap();
        let [dx, dw, gy] = [numel(&x), numel(&w), numel(&to)].map(|n| random(rng, n));
        Self { op, x: (x, random(rng, numel(&x))), w: (w, random(rng, numel(&w))), dx, dw, gy, to }
    }

    fn views(&self) -> [View<'_>; 2] {
        [&self.x, &self.w].map(|(shape, data)| View { data, shape })
    }

    /// y, dy, gx, gw, each into memory that holds NaN.
    fn results(&self) -> [Vec<f32>; 4] {
        let nan = |n: usize| vec![f32::NAN; n];
        let (mut y, mut dy) = (nan(self.gy.len()), nan(self.gy.len()));
        let (mut gx, mut gw) = (nan(self.dx.len()), nan(self.dw.len()));
        self.op.forward(&self.views(), &mut y, &mut []);
        self.op.jvp(&self.views(), &[], &[], &[Some(&self.dx), Some(&self.dw)], &mut dy);
        let mut g = [&mut gx, &mut gw].map(put);
        self.op.vjp(&self.views(), &[], &[], &self.gy, &mut g);
        [y, dy, gx, gw]
    }

    /// Every (index of y, of W, of x) whose product is a term.
    fn terms(&self, mut each: impl FnMut(usize, usize, usize)) {
        let ([n, c, h, w], [o, per, kh, kw], [_, _, th, tw]) = (self.x.0, self.w.0, self.to);
        let Conv2d { stride, padding, dilation, groups } = self.op;
        for at in 0..n * o * th * tw {
            let (sample, channel, i, j) = (at / (o * th * tw), at / (th * tw) % o, at / tw % th, at % tw);
            for tap in 0..per * kh * kw {
                let (k, r, s) = (tap / (kh * kw), tap / kw % kh, tap % kw);
                let row = (i * stride[0] + r * dilation[0]) as isize - padding[0] as isize;
                let column = (j * stride[1] + s * dilation[1]) as isize - padding[1] as isize;
                if (0..h as isize).contains(&row) && (0..w as isize).contains(&column) {
                    let plane = sample * c + channel / (o / groups) * per + k;
                    each(at, channel * per * kh * kw + tap, (plane * h + row as usize) * w + column as usize);
                }
            }
        }
    }

    /// What is wrong with any result: an element further from the definition than `share` of the sum of its terms'
    /// sizes.
    fn wrong(&self, share: f64) -> Option<String> {
        let of = |v: &[f32], i: usize| f64::from(v[i]);
        let got = self.results();
        let mut want: [Vec<(f64, f64)>; 4] = [&got[0], &got[1], &got[2], &got[3]].map(|v| vec![(0.0, 0.0); v.len()]);
        let add = |to: &mut (f64, f64), term: f64| *to = (to.0 + term, to.1 + term.abs());
        self.terms(|y, w, x| {
            add(&mut want[0][y], of(&self.x.1, x) * of(&self.w.1, w));
            add(&mut want[1][y], of(&self.dx, x) * of(&self.w.1, w));
            add(&mut want[1][y], of(&self.x.1, x) * of(&self.dw, w));
            add(&mut want[2][x], of(&self.gy, y) * of(&self.w.1, w));
            add(&mut want[3][w], of(&self.gy, y) * of(&self.x.1, x));
        });
        for (name, (got, want)) in ["y", "dy", "gx", "gw"].iter().zip(got.iter().zip(&want)) {
            for (i, (got, (want, size))) in got.iter().zip(want).enumerate() {
                let error = (f64::from(*got) - want).abs();
                // In this form, so that a NaN is wrong.
                let right = error <= share * size;
                if !right {
                    return Some(format!("{name}[{i}] is {got}, not {want}, of terms {size:.3e}; {:?}", self.op));
                }
            }
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_geometry_is_the_definitions(
        (n, groups, inputs, outputs) in (1..4usize, 1..4usize, 1..7usize, 1..12usize),
        size in (1..20usize, 1..40usize),
        kernel in (1..6usize, 1..6usize),
        stride in (1..4usize, 1..4usize),
        padding in (0..6usize, 0..6usize),
        dilation in (1..4usize, 1..4usize),
        seed: u64,
    ) {
        let pair = |(a, b): (usize, usize)| [a, b];
        let op = Conv2d { stride: pair(stride), padding: pair(padding), dilation: pair(dilation), groups };
        let x = [n, groups * inputs, size.0, size.1];
        let w = [groups * outputs, inputs, kernel.0, kernel.1];
        // A kernel that does not fit is refused, and tested elsewhere.
        prop_assume!(op.output(&[&x, &w]).is_ok());
        prop_assert_eq!(Case::new(op, x, w, seed).wrong(1e-6), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Sizes that networks have: whole vectors of pixels, rows that a stride halves, few channels over many pixels.
    #[test]
    fn usual_geometry_is_the_definitions(
        (n, inputs, outputs) in (1..6usize, 1..6usize, 1..20usize),
        (rows, width) in (7..20usize, prop::sample::select(vec![8usize, 15, 16, 17, 31, 32, 33, 48])),
        kernel in (1..4usize, 1..4usize),
        (stride, padding) in (1..3usize, 0..2usize),
        seed: u64,
    ) {
        let op = Conv2d::square(stride, padding);
        let case = Case::new(op, [n, inputs, rows, width], [outputs, inputs, kernel.0, kernel.1], seed);
        prop_assert_eq!(case.wrong(1e-6), None);
    }
}

/// Found by the first test: a row of outputs longer than the row that it reads, zeros included.
#[test]
fn padding_may_be_wider_than_the_kernel() {
    for (x, w, padding) in [([1, 1, 1, 20], [1, 1, 1, 1], [3, 5]), ([2, 3, 4, 33], [9, 3, 1, 2], [2, 5])] {
        let case = Case::new(Conv2d { padding, ..Conv2d::default() }, x, w, 5);
        assert_eq!(case.wrong(1e-6), None);
    }
}

/// Sums of 4608 terms err as blocks of 144 do, and blocks by their number: far below the 4608 u of the worst case.
#[test]
fn long_sums_keep_their_digits() {
    let case = Case::new(Conv2d::square(1, 1), [1, 512, 5, 6], [9, 512, 3, 3], 1);
    assert_eq!(case.wrong(16.0 * f64::from(f32::EPSILON)), None);
    // 4608 terms of one size and sign, where roundings do not cancel: u per term would be 2.7e-4.
    let (x, w) = (vec![0.1f32; 512 * 9], vec![0.1f32; 512 * 9]);
    let mut y = [f32::NAN];
    let views = [View { data: &x, shape: &[1, 512, 3, 3] }, View { data: &w, shape: &[1, 512, 3, 3] }];
    Conv2d::default().forward(&views, &mut y, &mut []);
    let want = 4608.0 * f64::from(0.1f32).powi(2);
    let error = (f64::from(y[0]) / want - 1.0).abs();
    assert!(error <= 2e-5, "{} is {error:.1e} off {want}", y[0]);
}

/// Sizes where tasks are samples, some samples, some output channels, and where partial sums of weights are several.
#[test]
fn threads_do_not_change_a_bit() {
    let cases = [
        (Conv2d::square(1, 1), [19, 16, 32, 32], [16, 16, 3, 3]),
        (Conv2d::square(1, 1), [13, 33, 8, 8], [65, 33, 3, 3]),
        (Conv2d::square(2, 1), [5, 24, 17, 16], [40, 24, 3, 3]),
        (Conv2d::square(2, 3), [2, 3, 65, 63], [24, 3, 7, 7]),
        (Conv2d::square(1, 1), [9, 3, 31, 33], [20, 3, 3, 3]),
        (Conv2d::default(), [1, 130, 14, 14], [160, 130, 1, 1]),
        (Conv2d { groups: 4, ..Conv2d::square(1, 1) }, [3, 16, 9, 9], [24, 4, 3, 3]),
        (Conv2d { groups: 3, ..Conv2d::square(1, 1) }, [9, 3, 17, 19], [33, 1, 3, 3]),
        (Conv2d { groups: 40, ..Conv2d::square(2, 1) }, [5, 40, 15, 16], [40, 1, 3, 3]),
    ];
    for (op, x, w) in cases {
        let case = Case::new(op, x, w, 2);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| case.results().map(|v| v.iter().map(|v| v.to_bits()).collect::<Vec<u32>>()))
        };
        let one = on(1);
        assert!(one.iter().all(|v| !v.is_empty()));
        for threads in [2, 3, 5] {
            assert!(on(threads) == one, "{op:?} on {x:?} and {w:?} differs on {threads} threads");
        }
    }
}

/// What stands in memory from a call before, NaN included, is no part of the next.
#[test]
fn calls_leave_nothing_behind() {
    let mut poisoned = Case::new(Conv2d::square(2, 1), [3, 20, 13, 11], [24, 20, 3, 3], 3);
    for v in [&mut poisoned.x.1, &mut poisoned.w.1, &mut poisoned.gy, &mut poisoned.dx] {
        v.fill(f32::NAN);
    }
    for (op, x, w) in [
        (Conv2d::square(1, 1), [2, 5, 8, 8], [7, 5, 3, 3]),
        (Conv2d::square(2, 2), [2, 3, 9, 7], [5, 3, 5, 5]),
        (Conv2d::square(1, 2), [1, 66, 6, 5], [3, 66, 3, 3]),
        (Conv2d::square(1, 1), [2, 3, 17, 19], [6, 3, 3, 3]),
        (Conv2d::square(2, 1), [2, 9, 16, 32], [8, 9, 3, 3]),
        (Conv2d { groups: 9, ..Conv2d::square(1, 1) }, [2, 9, 13, 11], [9, 1, 3, 3]),
        (Conv2d { groups: 9, ..Conv2d::square(2, 2) }, [3, 9, 8, 10], [18, 1, 5, 5]),
    ] {
        assert!(poisoned.results()[0].iter().all(|v| v.is_nan()));
        assert_eq!(Case::new(op, x, w, 4).wrong(1e-6), None);
    }
}

/// A convolution with the norm behind it, a residual and ReLU, in the order of its inputs: x, W, the norm's, r.
struct Rectified {
    op: RectifiedConv,
    inputs: Vec<(Vec<usize>, Vec<f32>)>,
    moved: Vec<Vec<f32>>,
    gy: Vec<f32>,
}

impl Rectified {
    fn new(conv: Conv2d, x: [usize; 4], w: [usize; 4]) -> Self {
        let rng = &mut Rng::new(7, 3);
        let to = conv.output(&[&x, &w]).unwrap();
        let channels = to[1];
        let shapes = [x.to_vec(), w.to_vec()].into_iter().chain((0..4).map(|_| vec![channels])).chain([to.to_vec()]);
        let mut inputs: Vec<_> = shapes.map(|shape| (shape.clone(), random(rng, numel(&shape)))).collect();
        inputs[3].1.iter_mut().for_each(|variance| *variance = variance.abs() + 1.0);
        // From what y tells well to what it does not tell: the share of its bias and residual where it is asked, and less.
        for (c, weight) in inputs[4].1.iter_mut().enumerate() {
            *weight = if c % 2 == 0 { 1.0 } else { 0.5f32.powi(c as i32 % 16) };
        }
        let moved = inputs.iter().map(|(_, v)| random(rng, v.len())).collect();
        let gy = random(rng, numel(&to));
        Self { op: RectifiedConv { conv, eps: 1e-5, bias: false, residual: true }, inputs, moved, gy }
    }

    fn views(&self) -> Vec<View<'_>> {
        self.inputs.iter().map(|(shape, data)| View { data, shape }).collect()
    }

    /// y, dy and the cotangents of all inputs.
    fn results(&self) -> Vec<Vec<f32>> {
        let nan = |n: usize| vec![f32::NAN; n];
        let (mut y, mut dy) = (nan(self.gy.len()), nan(self.gy.len()));
        let mut g: Vec<_> = self.inputs.iter().map(|v| nan(v.1.len())).collect();
        let moved: Vec<_> = self.moved.iter().map(|d| Some(&d[..])).collect();
        self.op.forward(&self.views(), &mut y, &mut []);
        self.op.jvp(&self.views(), &y, &[], &moved, &mut dy);
        let mut to: Vec<_> = g.iter_mut().map(put).collect();
        self.op.vjp(&self.views(), &y, &[], &self.gy, &mut to);
        [y, dy].into_iter().chain(g).collect()
    }

    /// The same of the two ops that it stands for.
    fn by_two(&self) -> Vec<Vec<f32>> {
        let nan = |n: usize| vec![f32::NAN; n];
        let views = self.views();
        let n = self.gy.len();
        let (mut u, mut du, mut gu, mut y, mut dy) = (nan(n), nan(n), nan(n), nan(n), nan(n));
        let mut g: Vec<_> = self.inputs.iter().map(|v| nan(v.1.len())).collect();
        let moved: Vec<_> = self.moved.iter().map(|d| Some(&d[..])).collect();
        let norm = RectifiedBatchNorm { eps: self.op.eps, residual: true };
        self.op.conv.forward(&views[..2], &mut u, &mut []);
        self.op.conv.jvp(&views[..2], &u, &[], &moved[..2], &mut du);
        let of_norm = [&[View { data: &u, shape: views[6].shape }], &views[2..]].concat();
        norm.forward(&of_norm, &mut y, &mut []);
        norm.jvp(&of_norm, &y, &[], &[&[Some(&du[..])], &moved[2..]].concat(), &mut dy);
        let (of_conv, rest) = g.split_at_mut(2);
        let mut to: Vec<_> = [put(&mut gu)].into_iter().chain(rest.iter_mut().map(put)).collect();
        norm.vjp(&of_norm, &y, &[], &self.gy, &mut to);
        let mut to: Vec<_> = of_conv.iter_mut().map(put).collect();
        self.op.conv.vjp(&views[..2], &u, &[], &gu, &mut to);
        [y, dy].into_iter().chain(g).collect()
    }
}

/// Sizes where a task goes back with its samples from y to x and W, and where a step is done for all samples first: by
/// the threads, which must not show; and either is what the two ops are.
#[test]
fn a_rectified_convolution_is_its_two_ops_on_any_threads() {
    for (conv, x, w) in [
        (Conv2d::square(1, 1), [19, 16, 32, 32], [16, 16, 3, 3]),
        (Conv2d::square(1, 1), [37, 20, 8, 8], [33, 20, 3, 3]),
        (Conv2d::square(2, 1), [9, 24, 17, 16], [40, 24, 3, 3]),
        (Conv2d::square(1, 1), [9, 3, 32, 32], [16, 3, 3, 3]),
        (Conv2d::default(), [1, 130, 14, 14], [160, 130, 1, 1]),
        (Conv2d::square(1, 1), [1, 64, 7, 7], [300, 64, 3, 3]),
    ] {
        let case = Rectified::new(conv, x, w);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| case.results())
        };
        let one = on(1);
        let bits = |all: &[Vec<f32>]| -> Vec<Vec<u32>> {
            all.iter().map(|v| v.iter().map(|v| v.to_bits()).collect()).collect()
        };
        for threads in [2, 3, 5, 40] {
            assert!(bits(&on(threads)) == bits(&one), "{conv:?} on {x:?} and {w:?} differs on {threads} threads");
        }
        for (nth, (got, want)) in one.iter().zip(case.by_two()).enumerate() {
            let size = want.iter().fold(0.0f32, |size, v| size.max(v.abs()));
            let error = got.iter().zip(&want).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, f64::max);
            let same = got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 3e-6 * size);
            assert!(same && size > 0.0, "{conv:?} on {x:?}: result {nth} is {error:.1e} off, of sizes to {size}");
        }
    }
}
