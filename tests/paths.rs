//! Paths on disk: what is stored comes back, resampled and seen from above.
use fipk::fip::path::pca::{components, resampled};
use fipk::fip::path::{Origin, Point, Stored, packed, unpacked};
use fipk::graph::{Kind, Param};
use fipk::params::{Layout, Role};
use fipk::rng::Rng;
use std::path::Path;

fn layout() -> Layout {
    let param =
        |name: &str, shape: &[usize], kind| Param { name: name.into(), shape: shape.into(), kind, aliases: vec![] };
    let params =
        [param("up", &[5, 7], Kind::Weight), param("bias", &[5], Kind::Bias), param("down", &[3, 5], Kind::Weight)];
    Layout::new(&params, &[Role::Prunable, Role::Free, Role::Frozen])
}

/// A path through these networks, without padding.
fn stored(dir: &Path, networks: &[Vec<f32>]) -> Stored {
    let mut path = Stored::create(dir, Origin::default(), &layout()).unwrap();
    for (i, w) in networks.iter().enumerate() {
        path.add(w.clone(), Point { time: i as f64, operation: "test".into(), ..Point::default() }).unwrap();
    }
    path
}

fn random(seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed, 0);
    (0..55).map(|_| rng.normal()).collect()
}

/// a + t (b - a).
fn between(a: &[f32], b: &[f32], t: f32) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + t * (b - a)).collect()
}

#[test]
fn networks_come_back_bit_for_bit_and_layouts_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let networks = [random(1), random(1), random(2)];
    stored(dir.path(), &networks);
    let path = Stored::open(dir.path()).unwrap();
    for (i, want) in networks.iter().enumerate() {
        assert_eq!(&path.network(i).unwrap(), want);
    }
    assert_eq!((path.dimensions(), path.points()[1].weight_distance), (55, 0.0));
    assert_eq!(path.network(3).unwrap_err().exit_code(), 2);

    let layout = layout();
    let weights = unpacked(&layout, &networks[0]);
    assert_eq!((weights.len(), packed(&layout, &weights)), (layout.len(), networks[0].clone()));
    // By name: bias, down, up; whatever their roles.
    assert_eq!(weights[layout.span("bias").unwrap().range()], networks[0][..5]);
    assert_eq!(weights[layout.span("down").unwrap().range()], networks[0][5..20]);
}

#[test]
fn what_is_no_network_of_the_path_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut path = stored(dir.path(), &[random(1)]);
    let mut broken = random(2);
    broken[3] = f32::NAN;
    assert_eq!(path.add(broken, Point::default()).unwrap_err().exit_code(), 1);
    assert_eq!(path.add(vec![0.0; 54], Point::default()).unwrap_err().exit_code(), 4);
    assert_eq!(Stored::open(dir.path()).unwrap().points().len(), 1);
    std::fs::write(dir.path().join("points/00000.delta"), b"damaged").unwrap();
    assert_eq!(Stored::open(dir.path()).unwrap().network(0).unwrap_err().exit_code(), 1);
    assert_eq!(Stored::open(&dir.path().join("points")).unwrap_err().exit_code(), 4);
}

#[test]
fn a_line_resampled_has_equal_steps() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (random(1), random(2));
    let path = stored(dir.path(), &[a.clone(), between(&a, &b, 0.1), between(&a, &b, 0.7), b.clone()]);
    let mut found: Vec<(f64, Vec<f32>)> = Vec::new();
    resampled(&path, 5, |time, w| {
        found.push((time, w));
        Ok(())
    })
    .unwrap();
    assert_eq!((found.len(), found[4].0, &found[4].1), (5, 3.0, &b));
    for (i, (time, w)) in found.iter().enumerate() {
        let want = between(&a, &b, i as f32 / 4.0);
        assert!(w.iter().zip(&want).all(|(x, y)| (x - y).abs() <= 1e-5), "{i}");
        // 0.25 lies a quarter of the way from 0.1 to 0.7, which are points 1 and 2; 0.75 a sixth of that from there on.
        let at = [0.0, 1.25, 1.0 + 2.0 / 3.0, 2.0 + 1.0 / 6.0, 3.0][i];
        assert!((time - at).abs() <= 1e-5, "{i}: {time}");
    }
    assert_eq!(resampled(&path, 1, |_, _| Ok(())).unwrap_err().exit_code(), 2);
}

#[test]
fn networks_in_a_plane_have_two_components_and_their_distances() {
    let dir = tempfile::tempdir().unwrap();
    let (origin, x, y) = (random(1), random(2), random(3));
    let at = |s: f32, t: f32| -> Vec<f32> { (0..55).map(|i| origin[i] + s * x[i] + t * y[i]).collect() };
    let first = [at(0.0, 0.0), at(1.0, 0.2), at(2.0, -0.5)];
    let second = [at(0.0, 0.0), at(-1.0, 1.5)];
    let paths = [stored(&dir.path().join("a"), &first), stored(&dir.path().join("b"), &second)];
    let found = components(&paths, 4).unwrap();
    assert_eq!(found.coordinates.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2]);
    assert!((found.shares[0] + found.shares[1] - 1.0).abs() <= 1e-6 && found.shares[2] <= 1e-6, "{:?}", found.shares);
    let networks: Vec<&Vec<f32>> = first.iter().chain(&second).collect();
    let seen: Vec<&Vec<f64>> = found.coordinates.iter().flatten().collect();
    for i in 0..5 {
        for j in 0..i {
            let apart: f64 = networks[i].iter().zip(networks[j]).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let shown: f64 = (0..2).map(|c| (seen[i][c] - seen[j][c]).powi(2)).sum();
            assert!((apart - shown).abs() <= 1e-4 * apart.max(1.0), "{i} {j}: {apart} {shown}");
        }
    }
    assert_eq!(components(&paths[..0], 2).unwrap_err().exit_code(), 2);
}
