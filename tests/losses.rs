//! The losses and distances against PyTorch in f64 (tests/goldens) and values worked by hand; what holds exactly
//! at equality and for padding; and digits where a naive formula loses them.
use fipk::ops::distance::{Side, row, row_gradient};
use fipk::ops::{Cotangent, CrossEntropy, Distance, Op, SquaredError};
use fipk::rng::Rng;
use fipk::tensor::View;
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// Scores [rows, C], what they are held against (labels as bits, or scores), and row weights.
struct Rows<'a> {
    cols: usize,
    z: &'a [f32],
    other: &'a [f32],
    weights: &'a [f32],
}

impl Rows<'_> {
    fn run<T>(&self, op: &dyn Op, f: impl FnOnce(&[View], f32, &[f32]) -> T) -> T {
        let (scores, per_row) = ([self.weights.len(), self.cols], [self.weights.len()]);
        let other = if self.other.len() == self.z.len() { &scores[..] } else { &per_row[..] };
        let views = [
            View { data: self.z, shape: &scores },
            View { data: self.other, shape: other },
            View { data: self.weights, shape: &per_row },
        ];
        let shapes = views.map(|v| v.shape);
        assert_eq!(op.output(&shapes), Ok(vec![1]));
        let (mut y, mut saved) = ([f32::NAN], vec![f32::NAN; op.saved(&shapes)]);
        op.forward(&views, &mut y, &mut saved);
        f(&views, y[0], &saved)
    }
    fn value(&self, op: &dyn Op) -> f32 {
        self.run(op, |_, y, _| y)
    }
    /// The gradient by input `i`, set over NaN.
    fn gradient(&self, op: &dyn Op, i: usize) -> Vec<f32> {
        self.run(op, |x, y, saved| {
            let mut data = vec![f32::NAN; x[i].data.len()];
            let mut gx: Vec<Option<Cotangent>> = (0..3).map(|_| None).collect();
            gx[i] = Some(Cotangent { data: &mut data, add: false });
            op.vjp(x, &[y], saved, &[1.0], &mut gx);
            data
        })
    }
    fn tangent(&self, op: &dyn Op, dx: &[Option<&[f32]>]) -> f32 {
        self.run(op, |x, y, saved| {
            let mut dy = [f32::NAN];
            op.jvp(x, &[y], saved, dx, &mut dy);
            dy[0]
        })
    }
}

fn labels(labels: &[i32]) -> Vec<f32> {
    labels.iter().map(|&y| f32::from_bits(y as u32)).collect()
}

fn assert_near(what: &str, got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance * (1.0 + want.abs()), "{what}: got {got}, want {want}");
}

/// Side by side: the gradient of [`row`] by the student and by the teacher.
fn gradients(distance: Distance, z: &[f32], t: &[f32]) -> [Vec<f64>; 2] {
    [Side::Student, Side::Teacher].map(|side| {
        let mut g = vec![f64::NAN; z.len()];
        row_gradient(distance, side, z, t, &mut g);
        g
    })
}

#[test]
fn losses_equal_pytorch() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/distances/distances.safetensors");
    let Ok(bytes) = std::fs::read(&path) else {
        eprintln!("SKIPPED: there is no {}", path.display());
        return;
    };
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let read = |name: &str| -> Vec<f64> {
        let t = tensors.tensor(name).unwrap();
        let words = |size| t.data().chunks_exact(size);
        match t.dtype() {
            Dtype::F32 => words(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
            Dtype::F64 => words(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I64 => words(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
            other => panic!("{name} is {other:?}"),
        }
    };
    let narrow = |name: &str| -> Vec<f32> { read(name).iter().map(|&v| v as f32).collect() };
    let (z, t, targets) = (narrow("student"), narrow("teacher"), narrow("targets"));
    let classes = labels(&read("labels").iter().map(|&y| y as i32).collect::<Vec<_>>());
    let n = classes.len();
    let cols = z.len() / n;

    // One row at a time in f64, as `drift` reads them.
    for d in Distance::ALL {
        let (values, grads) = (read(&format!("{d}.value")), read(&format!("{d}.grad")));
        for r in 0..n {
            let (z, t) = (&z[r * cols..][..cols], &t[r * cols..][..cols]);
            assert_near(&format!("{d} of row {r}"), row(d, z, t), values[r], 1e-13);
            let [g, _] = gradients(d, z, t);
            g.iter()
                .zip(&grads[r * cols..])
                .for_each(|(g, want)| assert_near(&format!("{d}'s slope {r}"), *g, *want, 1e-13));
        }
    }
    // As ops, over all rows at once; and one head of one output.
    let first: Vec<f32> = z.chunks(cols).map(|row| row[0]).collect();
    let weights: Vec<f32> = (0..n).map(|r| 0.25 * (r + 1) as f32).collect();
    let mut cases: Vec<(Box<dyn Op>, String, Rows)> = vec![
        (Box::new(CrossEntropy), "cross_entropy".into(), Rows { cols, z: &z, other: &classes, weights: &weights }),
        (Box::new(SquaredError), "squared_error".into(), Rows { cols, z: &z, other: &t, weights: &weights }),
    ];
    for d in Distance::ALL {
        cases.push((Box::new(d), d.to_string(), Rows { cols, z: &z, other: &t, weights: &weights }));
    }
    for (op, name, rows) in cases {
        let (values, grads) = (read(&format!("{name}.value")), read(&format!("{name}.grad")));
        let want: f64 = values.iter().zip(&weights).map(|(v, w)| v * f64::from(*w)).sum();
        assert_near(&name, rows.value(&*op).into(), want, 2e-7);
        for (i, g) in rows.gradient(&*op, 0).iter().enumerate() {
            assert_near(&format!("{name}'s slope {i}"), (*g).into(), grads[i] * f64::from(weights[i / cols]), 2e-7);
        }
    }
    let values = read("squared_error_one.value");
    let one = Rows { cols: 1, z: &first, other: &targets, weights: &weights };
    let want: f64 = values.iter().zip(&weights).map(|(v, w)| v * f64::from(*w)).sum();
    assert_near("squared error of one output", one.value(&SquaredError).into(), want, 2e-7);
}

#[test]
fn losses_equal_values_worked_by_hand() {
    // softmax (ln 3, 0) = (3/4, 1/4) and softmax (0, 0) = (1/2, 1/2), so Σ √(p q) = (√3 + 1)/(2√2) = cos 15°.
    let (z, t) = ([3f32.ln(), 0.0], [0.0f32, 0.0]);
    let cosine = 15f64.to_radians().cos();
    let want = [
        (Distance::Euclidean, 0.5 * 3f64.ln().powi(2)),
        (Distance::Bhattacharyya, -cosine.ln()),
        (Distance::Kl, 0.5 * (4.0f64 / 3.0).ln()),
        (Distance::Hellinger, 1.0 - cosine),
    ];
    for (d, want) in want {
        assert_near(&d.to_string(), row(d, &z, &t), want, 1e-7);
    }
    let rows = Rows { cols: 2, z: &z, other: &labels(&[0]), weights: &[2.0] };
    assert_near("cross-entropy", rows.value(&CrossEntropy).into(), 2.0 * (4.0f64 / 3.0).ln(), 1e-7);
    let rows = Rows { cols: 2, z: &[1.0, -2.0, 5.0, 5.0], other: &[4.0, 2.0, 5.0, 1.0], weights: &[0.5, 0.25] };
    assert_near("squared error", rows.value(&SquaredError).into(), 0.5 * 25.0 / 2.0 + 0.25 * 16.0 / 2.0, 1e-7);
}

#[test]
fn distances_and_their_gradients_vanish_exactly_at_equality() {
    let mut rng = Rng::new(3, 0);
    for (cols, size) in [(1, 1.0), (2, 1.0), (5, 30.0), (31, 3.0), (1009, 1e4)] {
        let z: Vec<f32> = (0..3 * cols).map(|_| size * rng.normal()).collect();
        let rows = Rows { cols, z: &z, other: &z, weights: &[0.3, 1.7, 0.9] };
        for d in Distance::ALL {
            assert_eq!(row(d, &z[..cols], &z[..cols]), 0.0, "{d}");
            assert_eq!(rows.value(&d), 0.0, "{d}");
            for i in [0, 1] {
                assert!(rows.gradient(&d, i).iter().all(|g| *g == 0.0), "{d} by input {i}, {cols} outputs");
            }
            assert_eq!(rows.tangent(&d, &[Some(&z), Some(&z), None]), 0.0, "{d}");
        }
    }
}

#[test]
fn distances_keep_their_digits_near_equality() {
    // A few units in the last place apart, where d is about 1e-13 and f32 sees nothing: METHOD's second order.
    let mut rng = Rng::new(4, 0);
    let cols = 17;
    let z: Vec<f32> = (0..cols).map(|_| 0.5 + rng.uniform()).collect();
    let t: Vec<f32> = z.iter().map(|v| f32::from_bits(v.to_bits() + rng.below(5) as u32)).collect();
    let gap: Vec<f64> = z.iter().zip(&t).map(|(z, t)| f64::from(*z) - f64::from(*t)).collect();
    let sum: f64 = t.iter().map(|v| f64::from(*v).exp()).sum();
    let q: Vec<f64> = t.iter().map(|v| f64::from(*v).exp() / sum).collect();
    let mean: f64 = q.iter().zip(&gap).map(|(q, d)| q * d).sum();
    let slope: Vec<f64> = q.iter().zip(&gap).map(|(q, d)| q * (d - mean)).collect();
    let quadratic: f64 = 0.5 * slope.iter().zip(&gap).map(|(s, d)| s * (d - mean)).sum::<f64>();
    assert!(quadratic > 1e-15 && quadratic < 1e-12);
    for (d, factor) in [(Distance::Kl, 1.0), (Distance::Bhattacharyya, 0.25), (Distance::Hellinger, 0.25)] {
        let (got, want) = (row(d, &z, &t), factor * quadratic);
        assert!((got - want).abs() <= 1e-5 * want, "{d}: got {got:e}, want {want:e}");
        let [student, teacher] = gradients(d, &z, &t);
        let top = slope.iter().fold(0.0f64, |m, s| m.max(s.abs())) * factor;
        for k in 0..cols {
            let want = factor * slope[k];
            assert!((student[k] - want).abs() <= 1e-5 * top, "{d}'s slope {k}: {:e}, want {want:e}", student[k]);
            assert!((teacher[k] + want).abs() <= 1e-5 * top, "{d}'s teacher slope {k}: {:e}", teacher[k]);
        }
    }
}

#[test]
fn huge_logits_overflow_nothing() {
    let (z, t) = ([1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]);
    // softmax z = (1, 0, 0), softmax t = (0, 1, 0), and all three √(p q) are e^-10000.
    let third = 1.0 / 3.0;
    let want = [
        (Distance::Euclidean, 4e8, [2e4, -2e4, 0.0]),
        (Distance::Bhattacharyya, 1e4 - 3f64.ln(), [0.5 * (1.0 - third), -0.5 * third, -0.5 * third]),
        (Distance::Kl, 2e4, [1.0, -1.0, 0.0]),
        (Distance::Hellinger, 1.0, [0.0; 3]),
    ];
    for (d, value, slope) in want {
        assert_near(&d.to_string(), row(d, &z, &t), value, 1e-12);
        let [student, teacher] = gradients(d, &z, &t);
        student.iter().zip(slope).for_each(|(g, want)| assert_near(&format!("{d}'s slope"), *g, want, 1e-9));
        assert!(teacher.iter().all(|g| g.is_finite()), "{d}: {teacher:?}");
    }
    let rows = Rows { cols: 3, z: &z, other: &labels(&[1]), weights: &[1.0] };
    assert_near("cross-entropy", rows.value(&CrossEntropy).into(), 2e4, 1e-7);
    assert_eq!(rows.gradient(&CrossEntropy, 0), [1.0, -1.0, 0.0]);
}

#[test]
fn rows_of_weight_zero_add_exactly_nothing() {
    let bad = [f32::INFINITY, f32::NAN, 3e38];
    let good = [0.25, -1.0, 2.0];
    let (z, t) = ([good, bad].concat(), [[1.0, 0.5, -0.5], bad].concat());
    let ops: [&dyn Op; 6] = [
        &CrossEntropy,
        &SquaredError,
        &Distance::Euclidean,
        &Distance::Bhattacharyya,
        &Distance::Kl,
        &Distance::Hellinger,
    ];
    for op in ops {
        let marks = labels(&[2, -100]);
        let other = if op.name() == "cross_entropy" { &marks[..] } else { &t[..] };
        let padded = Rows { cols: 3, z: &z, other, weights: &[0.5, 0.0] };
        let alone = Rows { cols: 3, z: &z[..3], other: &other[..other.len() / 2], weights: &[0.5] };
        assert_eq!(padded.value(op), alone.value(op), "{op:?}");
        assert!(alone.value(op) > 0.0, "{op:?}");
        assert_eq!(padded.gradient(op, 0), [alone.gradient(op, 0), vec![0.0; 3]].concat(), "{op:?}");
        assert_eq!(
            padded.tangent(op, &[Some(&z), None, None]),
            alone.tangent(op, &[Some(&z[..3]), None, None]),
            "{op:?}"
        );
        let nothing = Rows { cols: 3, z: &z, other, weights: &[0.0, 0.0] };
        assert_eq!(nothing.value(op), 0.0, "{op:?}");

        // The weights are constants: a derivative by them is refused aloud.
        assert!(alone.gradient(op, 2).iter().all(|g| g.is_nan()), "{op:?}");
        assert!(alone.tangent(op, &[None, None, Some(&[1.0])]).is_nan(), "{op:?}");
    }
}

#[test]
fn a_bad_logit_in_a_row_that_counts_is_seen() {
    for d in Distance::ALL {
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(!row(d, &[1.0, bad, 0.0], &[0.5, 0.0, 1.0]).is_finite(), "{d} of {bad}");
        }
    }
    let rows = Rows { cols: 3, z: &[1.0, f32::NAN, 0.0], other: &labels(&[0]), weights: &[1.0] };
    assert!(rows.value(&CrossEntropy).is_nan());
}
