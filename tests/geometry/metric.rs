//! Products with the metric.
use crate::exact::{Exact, apart, dot, inputs, normal, read, tanh, trained, write};
use fipk::geometry::{Gram, Map, OutputMetric, Pullback, Space, Symmetric};
use fipk::graph::{Kind, Scope};
use fipk::ops::{Activation, Linear};
use fipk::tensor::Element;

/// Logits W x, no bias.
fn linear(from: usize, to: usize) -> impl Fn(&Scope, usize) {
    move |s: &Scope, rows: usize| {
        let x = s.input("x", &[rows, from], Element::Real);
        let w = s.param("w", &[to, from], Kind::Weight);
        s.mark("logits", s.apply(Linear, &[x, w]));
    }
}

#[test]
fn the_metric_of_a_linear_map_is_the_second_moment_of_its_inputs() {
    let (rows, from, to) = (12, 5, 3);
    let exact = Exact::new(inputs(rows, from, 1), rows, linear(from, to));
    let v = normal(to * from, 2);
    // Row by row of W: V XᵀX / N.
    let moment = |a: usize, b: usize| {
        (0..rows).map(|r| f64::from(exact.x[r * from + a]) * f64::from(exact.x[r * from + b])).sum::<f64>()
            / rows as f64
    };
    let want: Vec<f64> = (0..to)
        .flat_map(|i| (0..from).map(move |j| (i, j)))
        .map(|(i, j)| (0..from).map(|k| v[i * from + k] * moment(k, j)).sum())
        .collect();
    for batches in [1, 3] {
        let mut on = exact.on_host(&exact.weights(3), batches);
        let got = on.with(|map, w| {
            let (mut x, mut y) = (map.zeros().unwrap(), map.zeros().unwrap());
            write(map.engine(), x, &v);
            let mut g = Pullback::new(map, w, OutputMetric::Euclidean).unwrap();
            g.apply(&x, &mut y).unwrap();
            let squared = g.squared(&x).unwrap();
            assert!((squared - dot(&v, &want)).abs() <= 1e-5 * squared, "{squared}");
            g.scale(0.0, &mut x).unwrap();
            read(map.engine(), y)
        });
        let error = apart(&got, &want);
        assert!(error <= 1e-6, "{batches} batches: {error:e}");
    }
}

#[test]
fn both_metrics_and_both_spaces_agree_with_dense_matrices() {
    let (rows, sizes) = (6, [4, 7, 3]);
    let mut exact = Exact::new(inputs(rows, sizes[0], 1), rows, tanh(sizes));
    let w = exact.weights(2);
    let j = exact.jacobian(&w).clone();
    let logits = exact.value(&w).unwrap();
    let v = normal(exact.dim(), 3);
    let u = normal(rows * sizes[2], 4);
    for kind in [OutputMetric::Euclidean, OutputMetric::Fisher] {
        // H, a block a row of logits.
        let h = |a: usize, b: usize| {
            let (row, m) = (a / sizes[2], sizes[2]);
            if row != b / m {
                return 0.0;
            }
            let e: Vec<f64> = logits[row * m..(row + 1) * m].iter().map(|z| z.exp()).collect();
            let q = |i: usize| e[i % m] / e.iter().sum::<f64>();
            match kind {
                OutputMetric::Euclidean => f64::from(a == b),
                OutputMetric::Fisher => f64::from(a == b) * q(a) - q(a) * q(b),
            }
        };
        let jv: Vec<f64> = (0..j.nrows()).map(|i| (0..j.ncols()).map(|c| j[(i, c)] * v[c]).sum()).collect();
        let hjv: Vec<f64> = (0..jv.len()).map(|a| (0..jv.len()).map(|b| h(a, b) * jv[b]).sum()).collect();
        let want: Vec<f64> =
            (0..j.ncols()).map(|c| (0..j.nrows()).map(|i| j[(i, c)] * hjv[i]).sum::<f64>() / rows as f64).collect();
        let mut got = exact.zeros().unwrap();
        Pullback::new(&mut exact, &w, kind).unwrap().apply(&v, &mut got).unwrap();
        let error = apart(&got, &want);
        assert!(error <= 1e-12, "{kind:?} in f64: {error:e}");

        // K = BᵀB with B = (1/√N) JᵀA: ⟨u, K u⟩ is the squared length of B u, and B Bᵀ = g.
        let mut gram = Gram::new(&mut exact, &w, kind).unwrap();
        let mut pulled = vec![0.0; v.len()];
        gram.pull(&u, &mut pulled).unwrap();
        let mut ku = vec![0.0; u.len()];
        gram.apply(&u, &mut ku).unwrap();
        let (a, b) = (dot(&u, &ku), dot(&pulled, &pulled));
        assert!((a - b).abs() <= 1e-12 * b, "{kind:?}: {a} {b}");
        let pushed = gram.push(&v).unwrap();
        gram.pull(&pushed, &mut pulled).unwrap();
        let error = apart(&pulled, &want);
        assert!(error <= 1e-12, "{kind:?} through outputs: {error:e}");

        let mut on = exact.on_host(&w, 2);
        let got = on.with(|map, w| {
            assert_eq!((map.samples(), map.width(), map.dim()), (rows, sizes[2], trained(map.engine().layout())));
            let (x, mut y) = (map.zeros().unwrap(), map.zeros().unwrap());
            write(map.engine(), x, &v);
            Pullback::new(map, w, kind).unwrap().apply(&x, &mut y).unwrap();
            read(map.engine(), y)
        });
        let error = apart(&got, &want);
        assert!(error <= 2e-6, "{kind:?} on the host: {error:e}");
    }
}

#[test]
fn rows_that_do_not_count_are_left_out() {
    let (rows, sizes) = (4, [3, 5, 2]);
    let mut exact = Exact::new(inputs(rows, 3, 1), rows, tanh(sizes));
    let w = exact.weights(2);
    let v = normal(exact.dim(), 3);
    let jv = exact.jv(&w, &v).unwrap();
    let mut on = exact.on_host(&w, 1);
    on.samples.batches[0].counts = vec![true, false, true, false];
    on.with(|map, w| {
        let x = map.zeros().unwrap();
        write(map.engine(), x, &v);
        let got = map.jv(w, &x).unwrap();
        let want = [&jv[0..2], &jv[4..6]].concat();
        let error = apart(&got, &want);
        assert!(map.samples() == 2 && error <= 1e-6, "{error:e}");
    });
}

/// Two layers with a ReLU between, no biases.
pub fn relu() -> impl Fn(&Scope, usize) {
    move |s: &Scope, rows: usize| {
        let x = s.input("x", &[rows, 4], Element::Real);
        let (up, down) = (s.param("up", &[6, 4], Kind::Weight), s.param("down", &[3, 6], Kind::Weight));
        let h = s.activation(Activation::Relu, s.apply(Linear, &[x, up]));
        s.mark("logits", s.apply(Linear, &[h, down]));
    }
}

#[test]
fn rescaling_a_relu_layer_is_a_null_direction_and_an_invariant_path() {
    let mut exact = Exact::new(inputs(9, 4, 1), 9, relu());
    let w = exact.weights(2);
    // d/dt of (eᵗ up, e⁻ᵗ down).
    let v: Vec<f64> = w.iter().enumerate().map(|(i, w)| if i < 24 { *w } else { -w }).collect();
    let random = normal(w.len(), 3);
    let mut g = Pullback::new(&mut exact, &w, OutputMetric::Euclidean).unwrap();
    let (along, elsewhere) = (g.squared(&v).unwrap(), g.squared(&random).unwrap());
    assert!(along <= 1e-28 * elsewhere, "{along:e} {elsewhere:e}");
    let (start, mut t) = (exact.value(&w).unwrap(), -2.0f64);
    while t <= 2.0 {
        let moved: Vec<f64> =
            w.iter().enumerate().map(|(i, w)| if i < 24 { w * t.exp() } else { w * (-t).exp() }).collect();
        let error = apart(&exact.value(&moved).unwrap(), &start);
        assert!(error <= 1e-14, "{t}: {error:e}");
        t += 0.5;
    }
}
