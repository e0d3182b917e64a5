//! What the tests of every engine share: goldens, layouts, vectors put in and read back.
use fipk::engine::{Criterion, Engine, Mask, Pattern, Score, Vector};
use fipk::graph::{Kind, Param};
use fipk::params::{Layout, Role, Span};
use fipk::rng::Rng;
use safetensors::SafeTensors;
use std::path::Path;

/// The engine under test.
pub type Subject = Box<dyn Engine>;

/// A file of `tests/goldens`, read whole.
pub struct Golden(Vec<u8>);

impl Golden {
    pub fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
        Self(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }
    pub fn bytes<const N: usize>(&self, name: &str) -> Vec<[u8; N]> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype().bitsize(), 8 * N, "{name} is {:?}", tensor.dtype());
        tensor.data().as_chunks().0.to_vec()
    }
    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.bytes(name).into_iter().map(f32::from_le_bytes).collect()
    }
    pub fn f64(&self, name: &str) -> Vec<f64> {
        self.bytes(name).into_iter().map(f64::from_le_bytes).collect()
    }
    pub fn u8(&self, name: &str) -> Vec<u8> {
        self.bytes(name).into_iter().map(u8::from_le_bytes).collect()
    }
}

/// A layout of parameters `p0`, `p1`, .. in this order.
pub fn layout(params: &[(&[usize], Kind, Role)]) -> Layout {
    let param = |(i, p): (usize, &(&[usize], Kind, Role))| Param {
        name: format!("p{i}"),
        shape: p.0.to_vec(),
        kind: p.1,
        aliases: vec![],
    };
    let roles: Vec<Role> = params.iter().map(|p| p.2).collect();
    Layout::new(&params.iter().enumerate().map(param).collect::<Vec<_>>(), &roles)
}

/// Prunable weights of these shapes.
pub fn weights(shapes: &[Vec<usize>]) -> Layout {
    let params: Vec<(&[usize], Kind, Role)> = shapes.iter().map(|s| (&s[..], Kind::Weight, Role::Prunable)).collect();
    layout(&params)
}

/// A vector that holds `values`, span after span, with zeros in the padding.
pub fn put(host: &mut Subject, values: &[f32]) -> Vector {
    let v = host.zeros().unwrap();
    let spans: Vec<Span> = host.layout().spans().to_vec();
    let mut rest = values;
    for s in &spans {
        host.write(v, s.at, &rest[..s.len]).unwrap();
        rest = &rest[s.len..];
    }
    assert!(rest.is_empty(), "more values than parameters");
    v
}

/// All of a vector, padding included.
pub fn whole(host: &Subject, v: Vector) -> Vec<f32> {
    let mut all = vec![0.0; host.layout().len()];
    host.read(v, 0, &mut all).unwrap();
    all
}

/// Padding left out.
pub fn dense(layout: &Layout, flat: &[f32]) -> Vec<f32> {
    layout.spans().iter().flat_map(|s| flat[s.range()].iter().copied()).collect()
}

pub fn get(host: &Subject, v: Vector) -> Vec<f32> {
    dense(host.layout(), &whole(host, v))
}

/// Which of the prunable numbers a mask prunes, padding left out. A bit on padding fails.
pub fn bits(host: &Subject, mask: Mask) -> Vec<bool> {
    let words = host.read_mask(mask).unwrap();
    let bit = |i: usize| words[i / 32] >> (i % 32) & 1 == 1;
    let pruned: Vec<bool> = host.layout().with_role(Role::Prunable).flat_map(|s| s.range().map(bit)).collect();
    let all: u32 = words.iter().map(|w| w.count_ones()).sum();
    assert_eq!(all as usize, pruned.iter().filter(|&&b| b).count(), "the mask prunes padding");
    pruned
}

pub fn to_bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

pub fn magnitude(pattern: Pattern, sparsity: f64) -> Criterion {
    Criterion { pattern, score: Score::Magnitude, sparsity }
}

pub fn normals(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal()).collect()
}

/// |a − b| <= tol, and false for NaN.
#[track_caller]
pub fn close(a: f64, b: f64, tol: f64, what: &str) {
    assert!((a - b).abs() <= tol, "{what}: {a} and {b} differ by {:e}, more than {tol:e}", (a - b).abs());
}
