//! Plain operations on vectors, and random numbers.
use super::space::*;
use fipk::engine::Engine;
use fipk::graph::Kind;
use fipk::params::{Layout, Role};
use fipk::rng::Rng;

/// One span of so many numbers.
fn line(n: usize) -> Layout {
    layout(&[(&[n], Kind::Weight, Role::Free)])
}

const SIZES: [usize; 6] = [1, 31, 33, 1009, 4096, 9001];

#[test]
fn axpy_scale_and_copy_are_the_hosts_bit_for_bit() {
    for (schedule, n) in SCHEDULES.iter().flat_map(|&s| SIZES.map(|n| (s, n))) {
        let mut space = Space::plain(line(n), schedule);
        let (x, y) = (normals(&space.layout, 1), normals(&space.layout, 2));
        let ((x, hx), (y, hy)) = (space.put(&x), space.put(&y));
        space.flat.axpy(-0.37, x.at(), y.at()).unwrap();
        space.host.axpy(-0.37, hx, hy).unwrap();
        space.flat.scale(1.7, x.at()).unwrap();
        space.host.scale(1.7, hx).unwrap();
        assert_eq!(bits(&space.floats(y.at())), bits(&space.read(hy)), "axpy of {n}");
        assert_eq!(bits(&space.floats(x.at())), bits(&space.read(hx)), "scale of {n}");
        space.flat.copy(x.at(), y.at()).unwrap();
        assert_eq!(bits(&space.floats(y.at())), bits(&space.read(hx)), "copy of {n}");
    }
}

#[test]
fn dots_are_sums_in_f64_and_depend_on_the_range_alone() {
    let mut before = Vec::new();
    for schedule in SCHEDULES {
        let mut space = Space::plain(line(9001), schedule);
        let (x, y) = (normals(&space.layout, 3), normals(&space.layout, 4));
        let ((dx, _), (dy, _)) = (space.put(&x), space.put(&y));
        let mut found = Vec::new();
        // On 16 bytes and not, empty, short, over several chunks.
        for range in [0..9001, 0..0, 5..5, 0..1, 3..34, 32..64, 1..9001, 4096..8192, 17..5000] {
            let product = |a: &[f32], b: &[f32]| -> (f64, f64) {
                let terms = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
                (terms.clone().sum(), terms.map(f64::abs).sum())
            };
            for (other, at) in [(&y, dy.at()), (&x, dx.at())] {
                let (sum, size) = product(&x[range.clone()], &other[range.clone()]);
                let dot = space.flat.dot(dx.at(), at, range.clone()).unwrap();
                close(dot, sum, 1e-12 * size, &format!("dot over {range:?}"));
                found.push(dot.to_bits());
            }
        }
        assert!(before.is_empty() || before == found, "a schedule changed a sum");
        before = found;
        let error = space.flat.dot(dx.at(), dy.at(), 0..100_000).unwrap_err().to_string();
        assert!(error.contains("outside"), "{error}");
    }
}

#[test]
fn casts_round_to_the_nearest_and_leave_the_rest() {
    for (schedule, n) in SCHEDULES.iter().flat_map(|&s| SIZES.map(|n| (s, n))) {
        let space = Space::plain(line(n), schedule);
        let mut x = tied(&space.layout, 5);
        x[0] = f32::INFINITY;
        x[n / 2] = 1.0 + 1.0 / 256.0; // a tie: to even
        x[n - 1] = -3.4e38; // beyond bf16's largest
        let range = n / 3..n;
        let from = space.upload(&x);
        let shadow = space.upload(&vec![0xffffu16; space.layout.len()]);
        space.flat.narrow(from.at(), shadow.at(), range.clone()).unwrap();
        let found: Vec<u16> = space.download(shadow.at(), space.layout.len());
        for (i, &found) in found.iter().enumerate() {
            let rounded = half::bf16::from_f32(x[i]).to_bits();
            assert_eq!(found, if range.contains(&i) { rounded } else { 0xffff }, "{i} of {n}: {}", x[i]);
        }
        let wide = space.upload(&vec![7.0f32; space.layout.len()]);
        space.flat.widen(shadow.at(), wide.at(), range.clone()).unwrap();
        for (i, found) in space.floats(wide.at()).into_iter().enumerate() {
            let expected = if range.contains(&i) { half::bf16::from_f32(x[i]).to_f32() } else { 7.0 };
            assert_eq!(found.to_bits(), expected.to_bits(), "{i} of {n}");
        }
    }
}

#[test]
fn random_numbers_are_the_hosts() {
    for (schedule, n) in SCHEDULES.iter().flat_map(|&s| [1, 31, 33, 1009].map(|n| (s, n))) {
        let space = Space::plain(line(n), schedule);
        for (seed, stream, position) in [(0, 0, 0), (u64::MAX, 3, 1), (1 << 40, 1 << 33, 6), (9, 7, (1 << 34) + 3)] {
            let y = space.upload(&vec![-1.0f32; n]);
            space.flat.uniform(y.at(), n, (seed, stream, position)).unwrap();
            let mut rng = Rng::new(seed, stream).at(position);
            let expected: Vec<f32> = (0..n).map(|_| rng.uniform()).collect();
            assert_eq!(bits(&space.download::<f32>(y.at(), n)), bits(&expected), "uniform {n} at {position}");

            space.flat.normal(y.at(), n, (seed, stream, position)).unwrap();
            let mut rng = Rng::new(seed, stream).at(position);
            for (i, found) in space.download::<f32>(y.at(), n).into_iter().enumerate() {
                let expected = rng.normal();
                // Another library's logarithm and cosine in f64, then one rounding to f32.
                close(found.into(), expected.into(), f64::from(expected.abs()) * 1.2e-7, &format!("normal {i} of {n}"));
            }
        }
    }
}
