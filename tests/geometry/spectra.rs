//! Eigenvalues against a dense solver.
use crate::exact::{Exact, apart, inputs, norm, read, tanh};
use faer::Side;
use fipk::geometry::lanczos::{Search, largest, smallest};
use fipk::geometry::spectrum::{all, density, effective_rank, fewer_outputs, participation, top};
use fipk::geometry::{OutputMetric, Pullback, Space, Symmetric};

/// Largest first.
fn dense(exact: &mut Exact, w: &[f64]) -> Vec<f64> {
    let found = exact.dense(w).self_adjoint_eigen(Side::Lower).unwrap();
    let values = found.S().column_vector();
    (0..values.nrows()).rev().map(|i| values[i]).collect()
}

fn search(pairs: usize, precision: f64) -> Search {
    Search { pairs, tolerance: 1e-7, products: 400, seed: 5, precision }
}

#[test]
fn the_largest_eigenvalues_are_those_of_a_dense_solver() {
    // Fewer outputs than weights, and more of them.
    for (rows, sizes) in [(10, [12, 20, 6]), (60, [3, 8, 4])] {
        let mut exact = Exact::new(inputs(rows, sizes[0], 1), rows, tanh(sizes));
        let w = exact.weights(2);
        let want = dense(&mut exact, &w);
        assert_eq!(fewer_outputs(&exact), sizes[0] == 12);
        let pairs = 12;
        let mut on = exact.on_host(&w, 2);
        on.with(|map, at| {
            let found = top(map, at, OutputMetric::Euclidean, &search(pairs, 1e-7), true, |_| ()).unwrap();
            assert!(found.converged && found.values.len() == pairs, "{found:?}");
            for i in 0..pairs {
                let error = (found.values[i] - want[i]).abs();
                assert!(error <= 1e-5 * want[0], "{i}: {} and {}", found.values[i], want[i]);
            }
            // g v = λ v in weight space.
            let mut g = Pullback::new(map, at, OutputMetric::Euclidean).unwrap();
            for (value, v) in found.values.iter().zip(&found.vectors) {
                let mut gv = g.zeros().unwrap();
                g.apply(v, &mut gv).unwrap();
                g.axpy(-value, v, &mut gv).unwrap();
                let (left, length) = (g.norm(&gv).unwrap(), g.norm(v).unwrap());
                assert!(left <= 1e-4 * want[0] && (length - 1.0).abs() <= 1e-5, "{value}: {left:e} {length}");
            }
        });
        // In f64 nothing but the tolerance is left.
        let found = top(&mut exact, &w, OutputMetric::Euclidean, &search(pairs, 1e-15), false, |_| ()).unwrap();
        for i in 0..pairs {
            assert!((found.values[i] - want[i]).abs() <= 1e-9 * want[0], "{i} in f64");
        }
    }
}

#[test]
fn all_eigenvalues_come_from_the_gram_matrix() {
    let (rows, sizes) = (10, [6, 9, 4]);
    let mut exact = Exact::new(inputs(rows, sizes[0], 1), rows, tanh(sizes));
    let w = exact.weights(2);
    let want = dense(&mut exact, &w);
    let mut on = exact.on_host(&w, 10);
    on.with(|map, at| {
        for block in [1, 7, 1000] {
            let got = all(map, at, OutputMetric::Euclidean, block).unwrap();
            assert_eq!(got.len(), 40);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert!((got - want).abs() <= 1e-5 * 1.0f64.max(*want), "{i}: {got} {want}");
            }
        }
    });
}

/// A diagonal matrix.
struct Diagonal(Vec<f64>);

impl Space for Diagonal {
    type Vector = Vec<f64>;
    fn dim(&self) -> usize {
        self.0.len()
    }
    fn zeros(&mut self) -> fipk::Result<Vec<f64>> {
        Ok(vec![0.0; self.0.len()])
    }
    fn normal(&mut self, seed: u64, stream: u64, to: &mut Vec<f64>) -> fipk::Result<()> {
        *to = crate::exact::normal(self.0.len(), seed + 1000 * stream);
        Ok(())
    }
    fn copy(&mut self, from: &Vec<f64>, to: &mut Vec<f64>) -> fipk::Result<()> {
        to.clone_from(from);
        Ok(())
    }
    fn axpy(&mut self, a: f64, x: &Vec<f64>, y: &mut Vec<f64>) -> fipk::Result<()> {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
        Ok(())
    }
    fn scale(&mut self, a: f64, x: &mut Vec<f64>) -> fipk::Result<()> {
        x.iter_mut().for_each(|x| *x *= a);
        Ok(())
    }
    fn dot(&self, x: &Vec<f64>, y: &Vec<f64>) -> fipk::Result<f64> {
        Ok(crate::exact::dot(x, y))
    }
}

impl Symmetric for Diagonal {
    fn apply(&mut self, x: &Vec<f64>, y: &mut Vec<f64>) -> fipk::Result<()> {
        *y = x.iter().zip(&self.0).map(|(x, d)| x * d).collect();
        Ok(())
    }
}

#[test]
fn eigenvalues_of_several_vectors_are_found_as_often_as_they_are() {
    let mut op = Diagonal(vec![5.0, 5.0, 5.0, 2.0, 1.0, 1.0, 0.0, 0.0]);
    let found = largest(&mut op, &search(7, 1e-15), |_| ()).unwrap();
    let error = apart(&found.values, &[5.0, 5.0, 5.0, 2.0, 1.0, 1.0, 0.0]);
    assert!(found.converged && error <= 1e-12, "{found:?}");
    let lowest = smallest(&mut Diagonal(op.0.clone()), &search(4, 1e-15), |_| ()).unwrap();
    for (got, want) in lowest.values.iter().zip([0.0, 0.0, 1.0, 1.0]) {
        assert!((got - want).abs() <= 1e-12, "{lowest:?}");
    }
    assert_eq!(lowest.values.len(), 4);
    let first = &found.vectors[0];
    assert!((norm(first) - 1.0).abs() <= 1e-12 && norm(&first[3..]) <= 1e-10, "{first:?}");
}

#[test]
fn the_density_counts_dimensions_and_keeps_moments() {
    let (rows, sizes) = (12, [8, 12, 5]);
    let mut exact = Exact::new(inputs(rows, sizes[0], 1), rows, tanh(sizes));
    let w = exact.weights(2);
    let (want, dim) = (dense(&mut exact, &w), exact.dim());
    let found = density(&mut exact, &w, OutputMetric::Euclidean, 40, 60, 3, |_| ()).unwrap();
    let dims: f64 = found.nodes.iter().map(|n| n.1).sum::<f64>() + found.zeros;
    assert!((dims - dim as f64).abs() <= 1e-6 && found.zeros == (dim - 60) as f64, "{dims}");
    let (sum, squares) = (want.iter().sum::<f64>(), want.iter().map(|v| v * v).sum::<f64>());
    for ((mean, error), want) in found.moments().into_iter().zip([sum, squares]) {
        assert!((mean - want).abs() <= 4.0 * error && error <= 0.2 * want, "{mean} +- {error}, wanted {want}");
    }
    // As many products as outputs make every probe exact but for its weights.
    let threshold = want[20] * 0.999;
    let (count, error) = found.at_least(threshold);
    assert!((count - 21.0).abs() <= 4.0 * error.max(0.1), "{count} +- {error}");
}

#[test]
fn ranks_of_spectra_that_one_can_do_in_the_head() {
    let flat = [2.0, 2.0, 2.0, 0.0];
    assert!((effective_rank(&flat) - 3.0).abs() <= 1e-12 && (participation(&flat) - 3.0).abs() <= 1e-12);
    assert_eq!((effective_rank(&[0.0]), participation(&[])), (0.0, 0.0));
    assert!((participation(&[3.0, 1.0]) - 1.6).abs() <= 1e-12);
}

#[test]
fn vectors_are_read_as_they_are_written() {
    let exact = Exact::new(inputs(2, 3, 1), 2, tanh([3, 5, 2]));
    let w = exact.weights(1);
    let on = exact.on_host(&w, 1);
    assert_eq!(read(&on.host, on.w), w);
}
