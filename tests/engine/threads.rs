//! The same bits for any number of threads.
use super::*;
use fipk::engine::{Bindings, Census, Data, Optimizer, Pull, Update};
use fipk::graph::{Mode, Program, Wrt, build};
use fipk::ops::{Activation, gemm};
use fipk::tensor::Element;

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// What `work` gives on one thread, it gives on 2, 3 and 5.
fn same_on_any_pool(what: &str, work: impl Fn() -> Vec<Vec<u32>> + Sync) {
    let one = pool(1).install(&work);
    assert!(one.iter().any(|v| !v.is_empty()), "{what} gives nothing to compare");
    for threads in [2, 3, 5] {
        let many = pool(threads).install(&work);
        assert!(one == many, "{what} differs on {threads} threads");
    }
}

fn of_f64(x: f64) -> Vec<u32> {
    vec![x.to_bits() as u32, (x.to_bits() >> 32) as u32]
}

fn shapes() -> Vec<Vec<usize>> {
    vec![vec![301, 128], vec![64, 1000], vec![33, 8], vec![1, 40_000]]
}

#[test]
fn selections_are() {
    let values = normals(&mut Rng::new(5, 0), shapes().iter().map(|s| s[0] * s[1]).sum());
    let values: Vec<f32> = values.iter().map(|x| (x * 16.0).round() / 16.0).collect(); // ties
    let patterns = ["global", "layer", "row", "2:4", "block:4x8"].map(|p| p.parse().unwrap());
    let scores = [Score::Magnitude, Score::Random { seed: 4 }];
    for (pattern, score) in patterns.into_iter().flat_map(|p| scores.map(|s| (p, s))) {
        same_on_any_pool(&format!("{pattern} by {score:?}"), || {
            let mut host = engine(weights(&shapes()));
            let (w, mask) = (put(&mut host, &values), host.mask().unwrap());
            let found = host.select(w, &Criterion { pattern, score, sparsity: 0.7 }, None, mask).unwrap();
            vec![host.read_mask(mask).unwrap(), of_f64(found.squares), of_f64(found.pruned_squares)]
        });
    }
}

#[test]
fn updates_and_sums_are() {
    let n = shapes().iter().map(|s| s[0] * s[1]).sum();
    let mut rng = Rng::new(6, 0);
    let (values, gradient) = (normals(&mut rng, n), normals(&mut rng, n));
    let adam = Optimizer::AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, decay: 0.01 };
    for optimizer in [adam, Optimizer::Sgd { momentum: 0.9, decay: 0.0 }] {
        same_on_any_pool(&format!("{optimizer:?}"), || {
            let mut host = engine(weights(&shapes()));
            let (w, g) = (put(&mut host, &values), put(&mut host, &gradient));
            let (m, v, mask) = (host.zeros().unwrap(), host.zeros().unwrap(), host.mask().unwrap());
            host.select(w, &magnitude(Pattern::Global, 0.5), None, mask).unwrap();
            let v = optimizer.second_moments().then_some(v);
            let pull = Pull::Shrink { by: 1e-3 };
            let census = Some((0.6f32.to_bits(), 0.7f32.to_bits()));
            let (learning_rate, gradient_scale, mask) = (0.01, 0.3, Some(mask));
            let mut all = Vec::new();
            for step in 1..4 {
                let u = Update { optimizer, step, learning_rate, gradient_scale, w, g, m, v, mask, pull, census };
                let found = host.update(&u).unwrap();
                all.extend([found.squares, found.prunable_squares, found.pruned_squares].map(of_f64));
                let Some(Census::Counted(census)) = found.census else { panic!("the host counts here") };
                all.push(census.inside);
                host.axpy(0.1, w, g).unwrap();
                host.scale(0.9, g).unwrap();
            }
            host.copy(g, m).unwrap();
            all.push(of_f64(host.dot(w, g, 0..n).unwrap()));
            all.push(of_f64(host.dot(w, m, 7..n - 5).unwrap()));
            all.extend([w, g, m].map(|x| to_bits(&whole(&host, x))));
            all
        });
    }
}

#[test]
fn matrix_products_are() {
    const SIZES: [(usize, usize, usize); 12] = [
        (1, 1, 1),
        (1, 1, 5000),
        (1, 777, 33),
        (3, 1, 129),
        (31, 33, 65),
        (64, 64, 64),
        (100, 10, 784),
        (127, 129, 257),
        (5, 1000, 1001),
        (512, 384, 96),
        (2, 3, 20_000),
        (1025, 17, 515),
    ];
    for size in SIZES {
        let (m, n, k) = size;
        let mut rng = Rng::new(m as u64, (n * k) as u64);
        let (x, w, y) = (normals(&mut rng, m * k), normals(&mut rng, n * k), normals(&mut rng, m * n));
        for add in [false, true] {
            same_on_any_pool(&format!("the products of {size:?}, add {add}"), || {
                let (mut a, mut b, mut c) = (y.clone(), x.clone(), w.clone());
                gemm::nt(size, &x, &w, add, &mut a);
                gemm::nn(size, &y, &w, add, &mut b);
                gemm::tn(size, &y, &x, add, &mut c);
                [a, b, c].iter().map(|v| to_bits(v)).collect()
            });
        }
    }
}

#[test]
fn matrix_products_are_products() {
    for size in [(1, 1, 1), (7, 5, 3), (1, 40, 9), (33, 1, 17), (65, 31, 129), (4, 6, 2000)] {
        let (m, n, k) = size;
        let mut rng = Rng::new(8, (m * n * k) as u64);
        let (x, w, y) = (normals(&mut rng, m * k), normals(&mut rng, n * k), normals(&mut rng, m * n));
        // c[i, j] = Σ_l a(i, l) b(l, j) in f64, and Σ |a b|, which bounds the rounding of any order of summing.
        let check = |what: &str,
                     c: &[f32],
                     (rows, cols, len): (usize, usize, usize),
                     start: &[f32],
                     a: &dyn Fn(usize, usize) -> f32,
                     b: &dyn Fn(usize, usize) -> f32| {
            for (i, j) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))) {
                let terms = || (0..len).map(|l| f64::from(a(i, l)) * f64::from(b(l, j)));
                let start = start.get(i * cols + j).map_or(0.0, |&s| f64::from(s));
                let bound = (len + 1) as f64 * 6e-8 * (start.abs() + terms().map(f64::abs).sum::<f64>());
                close(
                    c[i * cols + j].into(),
                    start + terms().sum::<f64>(),
                    bound,
                    &format!("{what} {size:?} at {i}, {j}"),
                );
            }
        };
        for add in [false, true] {
            let (mut a, mut b, mut c) = (y.clone(), x.clone(), w.clone());
            gemm::nt(size, &x, &w, add, &mut a);
            gemm::nn(size, &y, &w, add, &mut b);
            gemm::tn(size, &y, &x, add, &mut c);
            let start = |v: &[f32]| if add { v.to_vec() } else { vec![] };
            check("nt", &a, (m, n, k), &start(&y), &|i, l| x[i * k + l], &|l, j| w[j * k + l]);
            check("nn", &b, (m, k, n), &start(&x), &|i, l| y[i * n + l], &|l, j| w[l * k + j]);
            check("tn", &c, (n, k, m), &start(&w), &|i, l| y[l * n + i], &|l, j| x[l * k + j]);
        }
    }
}

#[test]
fn whole_programs_are() {
    let (rows, sizes) = (37, [65, 129, 31, 10]);
    let graph = build(|s| {
        let mut x = s.input("x", &[rows, sizes[0]], Element::Real);
        for (i, &n) in sizes[1..].iter().enumerate() {
            let y = s.linear(&format!("fc{i}"), x, n);
            x = s.activation([Activation::GeluTanh, Activation::Relu, Activation::Tanh][i], y);
        }
        s.mark("logits", x);
    })
    .unwrap();
    let mut rng = Rng::new(9, 0);
    let layout = Layout::trained(&graph.params);
    let (values, direction) = (normals(&mut rng, layout.parameters()), normals(&mut rng, layout.parameters()));
    let (x, u) = (normals(&mut rng, rows * sizes[0]), normals(&mut rng, rows * 10));
    same_on_any_pool("a network", || {
        let mut host = engine(layout.clone());
        let small: Vec<f32> = values.iter().map(|w| 0.1 * w).collect();
        let (w, v, g) = (put(&mut host, &small), put(&mut host, &direction), host.zeros().unwrap());
        let inputs = [("x", Data::Real(&x))];
        let mut all = Vec::new();
        for mode in [Mode::Forward, Mode::Tangent, Mode::Reverse] {
            let program = host.load(Program::compile(&graph, mode, &Wrt::params(), "logits").unwrap()).unwrap();
            let bound =
                Bindings { tangents: Some(v), cotangents: Some(g), seed: Some(&u), ..Bindings::new(w, &inputs) };
            host.run(program, &bound).unwrap();
            all.push(to_bits(&host.fetch(program, "output").unwrap()));
            if mode == Mode::Tangent {
                all.push(to_bits(&host.fetch(program, "tangent").unwrap()));
            }
        }
        all.push(to_bits(&whole(&host, g)));
        all
    });
}
