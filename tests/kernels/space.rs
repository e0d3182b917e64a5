//! Weight space twice: on an emulated device, and in the host engine that judges it.
use fipk::engine::cuda::{Flat, Sizes};
use fipk::engine::{Engine, Host, Vector};
use fipk::gpu::emulator::{Emulator, Options};
use fipk::gpu::{Device, Memory, Ptr};
use fipk::graph::{Kind, Param};
use fipk::params::{Layout, Role};
use fipk::rng::Rng;
use std::rc::Rc;

/// The orders of threads and blocks that kernels run in.
pub const SCHEDULES: [Option<u64>; 3] = [None, Some(1), Some(2)];

pub struct Space {
    pub device: Rc<dyn Device>,
    pub flat: Flat,
    pub host: Host,
    pub layout: Layout,
}

impl Space {
    pub fn new(layout: Layout, schedule: Option<u64>, sizes: Sizes) -> Self {
        let device: Rc<dyn Device> = Rc::new(Emulator::new(Options { seed: schedule, checked: true }));
        let flat = Flat::with(&device, &layout, sizes).unwrap();
        Self { device, flat, host: Host::new(layout.clone()), layout }
    }
    pub fn plain(layout: Layout, schedule: Option<u64>) -> Self {
        let sizes = Sizes::of(&layout);
        Self::new(layout, schedule, sizes)
    }

    /// The same vector on both, padding included.
    pub fn put(&mut self, flat: &[f32]) -> (Memory, Vector) {
        let v = self.host.zeros().unwrap();
        self.host.write(v, 0, flat).unwrap();
        (self.upload(flat), v)
    }
    pub fn upload<T: bytemuck::Pod>(&self, data: &[T]) -> Memory {
        let memory = Memory::new(&self.device, size_of_val(data)).unwrap();
        self.device.upload(memory.at(), bytemuck::cast_slice(data)).unwrap();
        memory
    }
    pub fn download<T: bytemuck::Pod>(&self, at: Ptr, n: usize) -> Vec<T> {
        let mut data = vec![T::zeroed(); n];
        self.device.download(at, bytemuck::cast_slice_mut(&mut data)).unwrap();
        data
    }
    pub fn floats(&self, at: Ptr) -> Vec<f32> {
        self.download(at, self.layout.len())
    }
    pub fn read(&self, v: Vector) -> Vec<f32> {
        let mut data = vec![0.0; self.layout.len()];
        self.host.read(v, 0, &mut data).unwrap();
        data
    }
    pub fn mask_words(&self) -> usize {
        self.layout.range(Role::Prunable).end / 32
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
pub fn weights(shapes: &[&[usize]]) -> Layout {
    layout(&shapes.iter().map(|s| (*s, Kind::Weight, Role::Prunable)).collect::<Vec<_>>())
}

/// Spans of every role and kind, with tails of every sort; what decays and what does not.
pub fn mixed() -> Layout {
    layout(&[
        (&[3, 11], Kind::Weight, Role::Prunable),
        (&[17], Kind::Bias, Role::Free),
        (&[], Kind::Norm, Role::Free),
        (&[5, 409], Kind::Weight, Role::Prunable),
        (&[9, 7], Kind::Embedding, Role::Free),
        (&[1], Kind::Weight, Role::Prunable),
        (&[4, 32], Kind::Weight, Role::Prunable),
        (&[31], Kind::Bias, Role::Prunable),
        (&[31], Kind::Weight, Role::Frozen),
        (&[33], Kind::Bias, Role::Frozen),
    ])
}

/// A whole vector whose numbers come from `next`, span after span; zeros in the padding.
pub fn fill(layout: &Layout, mut next: impl FnMut() -> f32) -> Vec<f32> {
    let mut flat = vec![0.0; layout.len()];
    for s in layout.spans() {
        flat[s.range()].iter_mut().for_each(|x| *x = next());
    }
    flat
}

pub fn normals(layout: &Layout, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed, 0);
    fill(layout, || rng.normal())
}

/// Many equal magnitudes, both zeros, subnormals, and now and then a number of its own.
pub fn tied(layout: &Layout, seed: u64) -> Vec<f32> {
    const COMMON: [f32; 10] = [0.0, -0.0, 1e-40, -1e-40, f32::MIN_POSITIVE, 0.25, -0.25, 0.5, -0.5, 3.0];
    let mut rng = Rng::new(seed, 0);
    fill(layout, || if rng.below(4) == 0 { rng.normal() } else { COMMON[rng.below(COMMON.len())] })
}

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// |a − b| <= tol, and false for NaN.
#[track_caller]
pub fn close(a: f64, b: f64, tol: f64, what: &str) {
    assert!((a - b).abs() <= tol, "{what}: {a} and {b} differ by {:e}, more than {tol:e}", (a - b).abs());
}
