//! Steps on the sphere against dense solutions.
use crate::exact::{Exact, apart, dot, inputs, norm, normal, tanh};
use faer::{Mat, Side};
use fipk::geometry::step::{Goal, exact as exact_step, null};
use fipk::geometry::{Accuracy, Map, OutputMetric, Scaled, Space, diagonal, inverse_root};

const EUCLIDEAN: OutputMetric = OutputMetric::Euclidean;

fn goal(beta: f64, epsilon: f64) -> Goal {
    Goal { beta, epsilon, accuracy: accuracy(), seed: 7 }
}

fn accuracy() -> Accuracy {
    Accuracy { tolerance: 1e-11, products: 400 }
}

/// Eigenvalues, smallest first, and the matrix of eigenvectors.
fn eigen(g: &Mat<f64>) -> (Vec<f64>, Mat<f64>) {
    let found = g.self_adjoint_eigen(Side::Lower).unwrap();
    let values = found.S().column_vector();
    ((0..values.nrows()).map(|i| values[i]).collect(), found.U().to_owned())
}

/// The step by the eigenvectors of g: μ by halving on ‖ψ(μ)‖² = ε above −λ_min.
fn by_hand(g: &Mat<f64>, b: &[f64], epsilon: f64) -> (Vec<f64>, f64) {
    let (values, u) = eigen(g);
    let n = b.len();
    let along: Vec<f64> = (0..n).map(|k| (0..n).map(|i| u[(i, k)] * b[i]).sum()).collect();
    let squares = |mu: f64| (0..n).map(|k| (along[k] / (values[k] + mu)).powi(2)).sum::<f64>();
    let (mut low, mut high) = (-values[0] + 1e-14, norm(b) / epsilon.sqrt());
    for _ in 0..400 {
        let middle = 0.5 * (low + high);
        if squares(middle) > epsilon { low = middle } else { high = middle }
    }
    let mu = 0.5 * (low + high);
    let psi = (0..n).map(|i| (0..n).map(|k| u[(i, k)] * along[k] / (values[k] + mu)).sum()).collect();
    (psi, mu)
}

#[test]
fn the_exact_step_is_the_dense_one_and_beats_random_points() {
    // Fewer outputs than weights: the dual form; more: in weight space, with short steps and one so long that μ < 0.
    let cases = [(4, [5, 9, 3], 0.01), (4, [5, 9, 3], 4.0), (40, [3, 5, 2], 0.05), (40, [3, 5, 2], 1e4)];
    for (rows, sizes, epsilon) in cases {
        let mut map = Exact::new(inputs(rows, sizes[0], 1), rows, tanh(sizes));
        let w = map.weights(2);
        let g = map.dense(&w);
        let gradient = normal(map.dim(), 3);
        let beta = 0.7;
        let b: Vec<f64> = gradient.iter().map(|x| -0.5 * beta * x).collect();
        let (want, mu) = by_hand(&g, &b, epsilon);
        let step = exact_step(&mut map, &w, EUCLIDEAN, &gradient, &goal(beta, epsilon)).unwrap();
        let error = apart(&step.psi, &want);
        assert!(error <= 1e-5 && !step.hard, "{rows} rows, ε {epsilon}: {error:e}, μ {} and {mu}", step.mu);
        assert!(step.residual <= 1e-8 && (dot(&step.psi, &step.psi) / epsilon - 1.0).abs() <= 1e-8, "{step:?}");

        let value = |psi: &[f64]| {
            let n = psi.len();
            let speed: f64 = (0..n).map(|i| psi[i] * (0..n).map(|j| g[(i, j)] * psi[j]).sum::<f64>()).sum();
            speed + beta * dot(psi, &gradient)
        };
        let best = value(&step.psi);
        for seed in 0..10_000 {
            // Half of the points near the solution, where it is hardest to beat.
            let mut psi = normal(want.len(), 100 + seed);
            if seed % 2 == 0 {
                let near = 10f64.powi(-((seed % 10) as i32));
                psi.iter_mut().zip(&step.psi).for_each(|(p, s)| *p = s + near * *p * epsilon.sqrt());
            }
            let scale = epsilon.sqrt() / norm(&psi);
            psi.iter_mut().for_each(|p| *p *= scale);
            assert!(best <= value(&psi) + 1e-9 * best.abs(), "{seed}: {best} {}", value(&psi));
        }
    }
}

#[test]
fn the_hard_case_is_flagged_and_has_the_right_length() {
    for (rows, sizes) in [(4, [5, 9, 3]), (40, [3, 5, 2])] {
        let mut map = Exact::new(inputs(rows, sizes[0], 1), rows, tanh(sizes));
        let w = map.weights(2);
        let g = map.dense(&w);
        let (values, u) = eigen(&g);
        // Nothing along the smallest eigenvalues, and a step far longer than what the others give.
        let n = values.len();
        let flat = values.iter().filter(|v| **v <= values[0].max(1e-9 * values[n - 1]) * 1.0001).count();
        let coefficients = normal(n, 4);
        let gradient: Vec<f64> = (0..n).map(|i| (flat..n).map(|k| u[(i, k)] * coefficients[k]).sum()).collect();
        let largest: f64 = (flat..n).map(|k| (0.5 * coefficients[k] / (values[k] - values[0])).powi(2)).sum();
        let epsilon = 4.0 * largest;
        let step = exact_step(&mut map, &w, EUCLIDEAN, &gradient, &goal(1.0, epsilon)).unwrap();
        let smallest = if rows == 4 { 0.0 } else { values[0] };
        assert!(step.hard && (step.mu + smallest).abs() <= 1e-6 * values[n - 1], "{} {smallest}", step.mu);
        assert!((dot(&step.psi, &step.psi) / epsilon - 1.0).abs() <= 1e-6, "{step:?}");
        assert!(step.residual <= 1e-4, "{}", step.residual);
    }
}

#[test]
fn too_few_products_for_the_smallest_eigenvalue_are_told() {
    // 32 weights under 80 outputs, and a step so long that μ < 0.
    let mut map = Exact::new(inputs(40, 3, 1), 40, tanh([3, 5, 2]));
    let w = map.weights(2);
    let (values, _) = eigen(&map.dense(&w));
    let (smallest, largest) = (values[0], values[values.len() - 1]);
    let gradient = normal(map.dim(), 3);
    let mut step = |products: usize| {
        let accuracy = Accuracy { tolerance: 1e-11, products };
        let goal = Goal { beta: 0.7, epsilon: 1e4, accuracy, seed: 7 };
        exact_step(&mut map, &w, EUCLIDEAN, &gradient, &goal).unwrap()
    };
    // Twelve do not find it, and four times as many are all there are.
    let found = step(12);
    assert!(found.certain && found.mu + smallest >= -1e-9 * largest, "{} {smallest}", found.mu);
    assert!(!step(3).certain);
}

#[test]
fn a_null_step_is_a_filtered_direction() {
    let mut map = Exact::new(inputs(4, 5, 1), 4, tanh([5, 9, 3]));
    let w = map.weights(2);
    let g = map.dense(&w);
    let direction = normal(map.dim(), 5);
    let (mu, epsilon) = (1e-3, 0.25);
    let step = null(&mut map, &w, EUCLIDEAN, &direction, mu, epsilon, accuracy()).unwrap();
    let (values, u) = eigen(&g);
    let n = values.len();
    let along: Vec<f64> = (0..n).map(|k| (0..n).map(|i| u[(i, k)] * direction[i]).sum()).collect();
    let mut want: Vec<f64> =
        (0..n).map(|i| (0..n).map(|k| u[(i, k)] * along[k] / (1.0 + values[k] / mu)).sum()).collect();
    let scale = epsilon.sqrt() / norm(&want);
    want.iter_mut().for_each(|x| *x *= scale);
    let error = apart(&step.psi, &want);
    assert!(error <= 1e-6, "{error:e}");
    let random = dot(&direction, &direction);
    let speed: f64 = (0..n).map(|k| values[k] * along[k] * along[k]).sum::<f64>() * epsilon / random;
    assert!(step.squared_speed <= 1e-4 * speed, "{} against {speed} of the direction", step.squared_speed);
}

#[test]
fn steps_that_make_no_sense_are_refused() {
    let mut map = Exact::new(inputs(4, 5, 1), 4, tanh([5, 9, 3]));
    let w = map.weights(2);
    let zero = map.zeros().unwrap();
    for epsilon in [0.0, -1.0, f64::NAN] {
        assert_eq!(exact_step(&mut map, &w, EUCLIDEAN, &w, &goal(1.0, epsilon)).unwrap_err().exit_code(), 2);
    }
    assert_eq!(exact_step(&mut map, &w, EUCLIDEAN, &zero, &goal(1.0, 1.0)).unwrap_err().exit_code(), 2);
    assert_eq!(null(&mut map, &w, EUCLIDEAN, &w, 0.0, 1.0, accuracy()).unwrap_err().exit_code(), 2);
    let mut broken = w.clone();
    broken[0] = f64::NAN;
    assert_eq!(exact_step(&mut map, &broken, EUCLIDEAN, &w, &goal(1.0, 1.0)).unwrap_err().exit_code(), 1);
}

#[test]
fn the_diagonal_is_that_of_the_dense_metric_and_its_estimate_comes_near() {
    let mut map = Exact::new(inputs(4, 5, 1), 4, tanh([5, 9, 3]));
    let w = map.weights(2);
    let g = map.dense(&w);
    let want: Vec<f64> = (0..map.dim()).map(|i| g[(i, i)]).collect();
    // 12 rows: all of them, then random combinations, whose error falls as the root of their number.
    let exact = diagonal(&mut map, &w, EUCLIDEAN, 12, 3).unwrap();
    assert!(apart(&exact, &want) <= 1e-12, "{:e}", apart(&exact, &want));
    let [few, many] = [11, 4000].map(|probes| diagonal(&mut map, &w, EUCLIDEAN, probes, 3).unwrap());
    assert!(few.iter().all(|x| *x >= 0.0) && apart(&few, &want) <= 1.5, "{}", apart(&few, &want));
    assert!(apart(&many, &want) <= 0.1, "{}", apart(&many, &want));

    // On an engine, in f32.
    let mut host = map.on_host(&w, 2);
    let found = host.with(|engine, at| {
        let d = diagonal(engine, at, EUCLIDEAN, 12, 3).unwrap();
        crate::exact::read(engine.engine(), d)
    });
    assert!(apart(&found, &want) <= 1e-5, "{:e}", apart(&found, &want));
}

#[test]
fn a_scaled_step_is_the_dense_one_in_scaled_coordinates() {
    let mut map = Exact::new(inputs(4, 5, 1), 4, tanh([5, 9, 3]));
    let w = map.weights(2);
    let g = map.dense(&w);
    let n = map.dim();
    let mut d = diagonal(&mut map, &w, EUCLIDEAN, 12, 3).unwrap();
    let mean = d.iter().sum::<f64>() / n as f64;
    let by_definition: Vec<f64> = d.iter().map(|x| 1.0 / (x + 0.1 * mean).sqrt()).collect();
    inverse_root(&mut map, &mut d, 0.1).unwrap();
    assert!(apart(&d, &by_definition) <= 1e-12);
    let scaled = Mat::from_fn(n, n, |i, j| d[i] * g[(i, j)] * d[j]);
    let gradient = normal(n, 3);
    let b: Vec<f64> = gradient.iter().map(|x| -0.35 * x).collect();
    let (want, _) = by_hand(&scaled, &b, 0.02);
    let step = exact_step(&mut Scaled::new(&mut map, &d), &w, EUCLIDEAN, &gradient, &goal(0.7, 0.02)).unwrap();
    assert!(apart(&step.psi, &want) <= 1e-5 && step.residual <= 1e-8, "{:e} {step:?}", apart(&step.psi, &want));
    // The speed is that of the step in the weights' own coordinates.
    let outer: Vec<f64> = step.psi.iter().zip(&d).map(|(p, d)| p * d).collect();
    let speed: f64 = (0..n).map(|i| outer[i] * (0..n).map(|j| g[(i, j)] * outer[j]).sum::<f64>()).sum();
    assert!((step.squared_speed - speed).abs() <= 1e-9 * speed, "{} {speed}", step.squared_speed);
    let plain = Map::second(&mut map, &w, &outer).unwrap();
    let seen = Scaled::new(&mut map, &d).second(&w, &step.psi).unwrap();
    assert!(apart(&seen, &plain) <= 1e-9, "{:e}", apart(&seen, &plain));
    // Outputs that no weight moves leave the coordinates as they are.
    let mut nothing = vec![0.0; n];
    inverse_root(&mut map, &mut nothing, 0.1).unwrap();
    assert!(nothing.iter().all(|x| *x == 1.0));
}
