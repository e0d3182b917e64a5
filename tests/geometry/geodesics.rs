//! Geodesics against Christoffel symbols written out.
use crate::exact::{Exact, apart, dot, inputs, normal, tanh};
use crate::metric::relu;
use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use fipk::geometry::geodesic::{Control, Geodesic, acceleration, speeds};
use fipk::geometry::{Accuracy, Map, OutputMetric, Space};

const EUCLIDEAN: OutputMetric = OutputMetric::Euclidean;

fn accuracy() -> Accuracy {
    Accuracy { tolerance: 1e-12, products: 400 }
}

/// −(g + μI)⁻¹ Γ(v, v), Γ_l(v, v) = Σ_ij ½ (∂_i g_jl + ∂_j g_il − ∂_l g_ij) v_i v_j, derivatives of the dense metric by
/// central differences.
fn christoffel(map: &mut Exact, w: &[f64], v: &[f64], mu: f64) -> Vec<f64> {
    let n = w.len();
    let h = 1e-5;
    let slopes: Vec<Mat<f64>> = (0..n)
        .map(|k| {
            let mut at = w.to_vec();
            at[k] = w[k] + h;
            let ahead = map.dense(&at);
            at[k] = w[k] - h;
            (&ahead - &map.dense(&at)) * faer::Scale(0.5 / h)
        })
        .collect();
    let symbol = |l: usize| {
        let mut sum = 0.0;
        for i in 0..n {
            for j in 0..n {
                sum += 0.5 * (slopes[i][(j, l)] + slopes[j][(i, l)] - slopes[l][(i, j)]) * v[i] * v[j];
            }
        }
        sum
    };
    let right = Mat::from_fn(n, 1, |l, _| -symbol(l));
    let g = map.dense(w);
    let damped = Mat::from_fn(n, n, |i, j| g[(i, j)] + if i == j { mu } else { 0.0 });
    let a = damped.llt(Side::Lower).unwrap().solve(&right);
    (0..n).map(|i| a[(i, 0)]).collect()
}

#[test]
fn the_acceleration_is_that_of_christoffel_symbols() {
    for (rows, sizes) in [(3, [3, 6, 4]), (20, [2, 5, 3])] {
        let mut map = Exact::new(inputs(rows, sizes[0], 1), rows, tanh(sizes));
        assert!(map.dim() <= 60);
        let (w, mu) = (map.weights(2), 1e-2);
        let v = normal(w.len(), 3);
        let want = christoffel(&mut map, &w, &v, mu);
        let (got, _) = acceleration(&mut map, &w, EUCLIDEAN, &v, mu, accuracy()).unwrap();
        let error = apart(&got, &want);
        assert!(error <= 1e-6, "{rows} rows: {error:e}");
    }
}

#[test]
fn outputs_keep_their_speed_along_a_geodesic_and_not_along_a_line() {
    let (rows, sizes) = (6, [4, 12, 3]);
    let mut map = Exact::new(inputs(rows, sizes[0], 1), rows, tanh(sizes));
    let w = map.weights(2);
    let mut v = normal(w.len(), 3);
    let scale = 3.0 / dot(&v, &v).sqrt();
    v.iter_mut().for_each(|x| *x *= scale);
    let mut geodesic = Geodesic::new(&mut map, EUCLIDEAN, (w.clone(), v.clone()), 1e-4, accuracy(), 0.1).unwrap();
    let start = geodesic.at.speed;
    let (mut worst, mut straight) = (0.0f64, 0.0f64);
    while geodesic.at.time < 1.0 {
        geodesic.advance(&mut map, EUCLIDEAN, accuracy(), &Control::default(), 1.0).unwrap();
        assert!(geodesic.at.speed.is_finite(), "{:?}", geodesic.at);
        worst = worst.max((geodesic.at.speed / start - 1.0).abs());
        let line: Vec<f64> = w.iter().zip(&v).map(|(w, v)| w + geodesic.at.time * v).collect();
        straight = straight.max((speeds(&mut map, &line, EUCLIDEAN, &v).unwrap().0 / start - 1.0).abs());
    }
    assert!(geodesic.at.time == 1.0 && worst <= 0.01 && straight >= 10.0 * worst, "{worst} and {straight}");
}

/// The geodesic of a metric that is pulled back from fewer outputs than weights is what the map sends to a straight line:
/// f(γ(t)) = f(γ(0)) + t J v. Past the kinks of a ReLU as well, which no acceleration at a point sees.
#[test]
fn outputs_go_straight_along_a_geodesic_past_kinks() {
    let rows = 4;
    let mut map = Exact::new(inputs(rows, 4, 1), rows, relu());
    let w = map.weights(2);
    let mut v = normal(w.len(), 3);
    let scale = 0.5 * dot(&w, &w).sqrt() / dot(&v, &v).sqrt();
    v.iter_mut().for_each(|x| *x *= scale);
    let (z, u) = (map.value(&w).unwrap(), map.jv(&w, &v).unwrap());
    let mut geodesic = Geodesic::new(&mut map, EUCLIDEAN, (w.clone(), v.clone()), 1e-8, accuracy(), 0.05).unwrap();
    let start = geodesic.at.speed;
    while geodesic.at.time < 1.0 {
        geodesic.advance(&mut map, EUCLIDEAN, accuracy(), &Control::default(), 1.0).unwrap();
        assert!((geodesic.at.speed / start - 1.0).abs() <= 1e-3, "{:?}", geodesic.at);
    }
    let straight: Vec<f64> = z.iter().zip(&u).map(|(z, u)| z + u).collect();
    let line: Vec<f64> = w.iter().zip(&v).map(|(w, v)| w + v).collect();
    let moved = dot(&u, &u).sqrt() / dot(&straight, &straight).sqrt();
    let (bent, off) =
        (apart(&map.value(&geodesic.w).unwrap(), &straight), apart(&map.value(&line).unwrap(), &straight));
    assert!(bent <= 0.01 * moved && off >= 10.0 * bent, "{bent} and {off} of {moved}");
}

#[test]
fn a_direction_that_moves_nothing_has_no_geodesic() {
    let mut map = Exact::new(inputs(3, 3, 1), 3, tanh([3, 6, 4]));
    let w = map.weights(2);
    let zero = map.zeros().unwrap();
    let refused = Geodesic::new(&mut map, EUCLIDEAN, (w, zero), 1e-3, accuracy(), 0.1);
    assert_eq!(refused.err().map(|e| e.exit_code()), Some(2));
}
