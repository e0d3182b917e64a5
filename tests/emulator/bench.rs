//! What the tests run kernels on: an emulated device with x, y and a plane of bf16, as kernels of planted.cuh take
//! them.
use fipk::gpu::emulator::{Emulator, Options};
use fipk::gpu::{Device, Launch, Plane, Ptr, TensorMap};

/// Schedules: threads in turn, and three at random.
pub const SEEDS: [Option<u64>; 4] = [None, Some(1), Some(2), Some(3)];

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PlantedArgs {
    map: TensorMap,
    x: Ptr,
    y: Ptr,
    plane: Ptr,
    n: u64,
    pad: [u64; 4],
}

/// How a kernel is launched.
#[derive(Clone, Copy)]
pub struct Shape {
    pub blocks: u32,
    pub threads: u32,
    pub shared: u32,
}

pub const ONE_BLOCK: Shape = Shape { blocks: 1, threads: 256, shared: 0 };

pub struct Bench {
    pub device: Emulator,
    x: Ptr,
    y: Ptr,
    plane: Ptr,
}

/// x[i], and what the plane holds at (row, column).
pub fn x(i: usize) -> f32 {
    i as f32 + 1.0
}
pub fn plane(row: usize, column: usize) -> f32 {
    ((row * 7 + column * 3) % 17) as f32 - 8.0
}

impl Bench {
    pub fn new(seed: Option<u64>) -> Self {
        let device = Emulator::new(Options { seed, checked: true });
        let [x_at, y_at] = [(); 2].map(|_| device.alloc(4 * 256).unwrap());
        let plane_at = device.alloc(2 * 64 * 64).unwrap();
        let xs: Vec<f32> = (0..256).map(x).collect();
        device.upload(x_at, bytemuck::cast_slice(&xs)).unwrap();
        let values: Vec<half::bf16> = (0..64 * 64).map(|i| half::bf16::from_f32(plane(i / 64, i % 64))).collect();
        device.upload(plane_at, bytemuck::cast_slice(&values)).unwrap();
        Self { device, x: x_at, y: y_at, plane: plane_at }
    }

    /// The plane starts with a counter at zero.
    pub fn zero_plane(&self) {
        self.device.fill(self.plane, 0, 64 * 64 / 2).unwrap();
    }

    pub fn launch(&self, kernel: &str, shape: Shape) -> fipk::Result<()> {
        let plane = Plane { at: self.plane, rows: 64, columns: 64, pitch: 64, box_rows: 64, box_columns: 64 };
        let map = self.device.tensor_map(&plane)?;
        let args = PlantedArgs { map, x: self.x, y: self.y, plane: self.plane, n: 4, pad: [0; 4] };
        let Shape { blocks, threads, shared } = shape;
        let args = bytemuck::bytes_of(&args);
        self.device.launch(&Launch { kernel, grid: [blocks, 1, 1], threads, shared, args })
    }

    pub fn y(&self) -> Vec<f32> {
        let mut y = vec![0f32; 256];
        self.device.download(self.y, bytemuck::cast_slice_mut(&mut y)).unwrap();
        y
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        [self.x, self.y, self.plane].iter().for_each(|at| self.device.free(*at));
    }
}
