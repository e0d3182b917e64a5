//! Launches: a kernel by its name, a grid, and one struct of arguments.
use super::{Device, Ptr};
use crate::Result;

/// The argument struct of a kernel: `#[repr(C)]`, plain words, no padding (which `Pod` sees to), the size that the
/// kernel's side asserts with `FIPK_ARGS`.
pub trait Args: bytemuck::Pod {}

/// One launch, as a device takes it.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    pub kernel: &'a str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block: a multiple of 32, and no more than the kernel's definition names.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    pub args: &'a [u8],
}

/// Where an op queues its launches.
#[derive(Clone, Copy, Debug)]
pub struct Queue<'d> {
    pub device: &'d dyn Device,
    /// Memory that a call may use until it returns: as many bytes as its op's `scratch` asked for.
    pub scratch: Ptr,
    /// Whether products of f32 may round their factors to tf32.
    pub tf32: bool,
}

impl<'d> Queue<'d> {
    /// One whose products of f32 stay in f32.
    pub fn new(device: &'d dyn Device, scratch: Ptr) -> Self {
        Self { device, scratch, tf32: false }
    }

    /// Queue a kernel.
    pub fn launch<A: Args>(
        &self,
        kernel: &str,
        grid: impl Into<Grid>,
        threads: u32,
        shared: usize,
        args: &A,
    ) -> Result<()> {
        let Grid(grid) = grid.into();
        let (shared, args) = (u32::try_from(shared).unwrap_or(u32::MAX), bytemuck::bytes_of(args));
        self.device.launch(&Launch { kernel, grid, threads, shared, args })
    }

    /// Blocks for a loop over `items` that strides by the grid: enough to fill the device, no more than there are items.
    pub fn blocks(&self, items: usize, per_block: usize) -> u32 {
        let most = 16 * self.device.multiprocessors() as usize;
        items.div_ceil(per_block.max(1)).clamp(1, most) as u32
    }
}

/// A grid of one, two or three axes.
#[derive(Clone, Copy, Debug)]
pub struct Grid(pub [u32; 3]);

impl From<u32> for Grid {
    fn from(x: u32) -> Self {
        Self([x, 1, 1])
    }
}
impl From<[u32; 2]> for Grid {
    fn from([x, y]: [u32; 2]) -> Self {
        Self([x, y, 1])
    }
}
impl From<[u32; 3]> for Grid {
    fn from(xyz: [u32; 3]) -> Self {
        Self(xyz)
    }
}
