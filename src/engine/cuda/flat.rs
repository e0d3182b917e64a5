//! Weight space on a device: the launch side of kernels/flat.cu, and the workspace that the fused update and the choice
//! of pruned weights share. All of it is allocated once; nothing here waits for the device but what returns numbers.
use crate::gpu::{Args, Device, Memory, Ptr, Queue};
use crate::params::{Layout, Role};
use crate::{Error, Result};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

/// As `TILE` in kernels/tiles.cuh: the most floats of a tile, and what a dot product is summed in.
const TILE: usize = 4096;
const THREADS: u32 = 256;
const LAST_THREADS: u32 = 1024;
/// As `BUCKETS` there, in bytes.
const HISTOGRAM: usize = 4096 * 4;
/// Bytes that a tile leaves: the larger of `Part` in kernels/select.cuh and `Squares` in kernels/update.cu.
const PART: usize = 40;

/// As `Tile` in kernels/tiles.cuh.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Tile {
    word: u32,
    len: u32,
    span: u32,
    flags: u32,
}
const DECAYS: u32 = 1;
const PRUNABLE: u32 = 2;

/// How a workspace is cut; tests make it small.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Floats of a tile: a multiple of 32, at most 4096.
    pub tile: usize,
    /// Numbers that the list of candidates has room for.
    pub room: usize,
}

impl Sizes {
    /// A bracket of 1 % around a threshold holds about 2 % of the weights; the bucket of a histogram holds about 5 %.
    pub fn of(layout: &Layout) -> Self {
        Self { tile: TILE, room: (layout.count(Role::Prunable) / 16).max(TILE) }
    }
}

/// Operations on vectors of one layout in a device's memory.
#[derive(Debug)]
pub struct Flat {
    pub(super) device: Rc<dyn Device>,
    pub(super) layout: Layout,
    pub(super) sizes: Sizes,
    /// Tiles of the trained spans, in the order of their offsets; the prunable ones come first.
    pub(super) tiles: Memory,
    pub(super) trained: usize,
    pub(super) prunable: usize,
    /// First tile of each prunable span.
    pub(super) first: Vec<u64>,
    /// A `Squares` or a `Part` a tile.
    pub(super) parts: Memory,
    /// Of a dot product: a f64 a chunk, and their sum behind them.
    chunks: Memory,
    /// ‖g‖² as the update reads it.
    pub(super) gradient_squares: Memory,
    pub(super) knobs: Memory,
    /// What the update counts: two u64, and a histogram.
    pub(super) census: Memory,
    pub(super) list: Memory,
    /// Of a step, or of a choice.
    pub(super) report: Memory,
    pub(super) control: Memory,
    pub(super) segments: Memory,
    /// One a segment.
    pub(super) histograms: Memory,
    pub(super) equal: Memory,
    pub(super) before: Memory,
    pub(super) planes: Memory,
    /// Scores and bits of blocks, from the first choice of blocks on.
    pub(super) blocks: RefCell<Option<(Memory, Memory)>>,
    /// The number of the present census; an older one is spent.
    pub(super) ticket: Cell<u64>,
    /// Whether the present knobs ask for one.
    pub(super) counting: Cell<bool>,
}

/// As `AxpyArgs` in kernels/flat.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct AxpyArgs {
    x: Ptr,
    y: Ptr,
    n: u64,
    a: f32,
    reserved: u32,
}
impl Args for AxpyArgs {}
const _: () = assert!(size_of::<AxpyArgs>() == 32);

/// As `ScaleArgs` there.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ScaleArgs {
    x: Ptr,
    n: u64,
    a: f32,
    reserved: u32,
}
impl Args for ScaleArgs {}
const _: () = assert!(size_of::<ScaleArgs>() == 24);

/// As `CastArgs` there.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct CastArgs {
    x: Ptr,
    y: Ptr,
    n: u64,
}
impl Args for CastArgs {}
const _: () = assert!(size_of::<CastArgs>() == 24);

/// As `DotArgs` there.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct DotArgs {
    x: Ptr,
    y: Ptr,
    parts: Ptr,
    n: u64,
}
impl Args for DotArgs {}
const _: () = assert!(size_of::<DotArgs>() == 32);

/// As `TotalArgs` there.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct TotalArgs {
    parts: Ptr,
    total: Ptr,
    n: u64,
}
impl Args for TotalArgs {}
const _: () = assert!(size_of::<TotalArgs>() == 24);

/// As `RandomArgs` there.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct RandomArgs {
    y: Ptr,
    n: u64,
    seed: u64,
    stream: u64,
    position: u64,
}
impl Args for RandomArgs {}
const _: () = assert!(size_of::<RandomArgs>() == 40);

impl Flat {
    /// # Errors
    /// [`crate::Error::Memory`] where the device has no room.
    pub fn new(device: &Rc<dyn Device>, layout: &Layout) -> Result<Self> {
        Self::with(device, layout, Sizes::of(layout))
    }

    /// With a workspace cut otherwise: results are the same.
    pub fn with(device: &Rc<dyn Device>, layout: &Layout, sizes: Sizes) -> Result<Self> {
        if layout.len() / 32 > u32::MAX as usize || !sizes.tile.is_multiple_of(32) || !(32..=TILE).contains(&sizes.tile)
        {
            let what =
                format!("{} floats in tiles of {}; wanted a multiple of 32 up to {TILE}", layout.len(), sizes.tile);
            return Err(Error::Graph { op: "flat", place: "layout".into(), what });
        }
        let (mut tiles, mut first, mut prunable) = (Vec::new(), Vec::new(), 0);
        for (i, s) in layout.spans().iter().enumerate().filter(|(_, s)| s.role != Role::Frozen) {
            let candidate = s.role == Role::Prunable;
            let flags = u32::from(s.decays()) * DECAYS + u32::from(candidate) * PRUNABLE;
            if candidate {
                first.push(tiles.len() as u64);
            }
            let cut = (0..s.len).step_by(sizes.tile);
            tiles.extend(cut.map(|at| Tile {
                word: ((s.at + at) / 32) as u32,
                len: (s.len - at).min(sizes.tile) as u32,
                span: i as u32,
                flags,
            }));
            if candidate {
                prunable = tiles.len();
            }
        }
        let memory = |bytes: usize| Memory::new(device, bytes);
        let spans = first.len().max(1);
        let flat = Self {
            tiles: memory(size_of_val(&tiles[..]))?,
            trained: tiles.len(),
            prunable,
            parts: memory(PART * tiles.len())?,
            chunks: memory(8 * (layout.len().div_ceil(TILE) + 1))?,
            gradient_squares: memory(8)?,
            knobs: memory(size_of::<super::Knobs>())?,
            census: memory(16 + HISTOGRAM)?,
            list: memory(4 * sizes.room)?,
            report: memory(super::update::REPORT)?,
            control: memory(16)?,
            segments: memory(32 * spans)?,
            histograms: memory(HISTOGRAM * spans)?,
            equal: memory(4 * prunable)?,
            before: memory(8 * prunable)?,
            planes: memory(64 * spans)?,
            blocks: RefCell::default(),
            ticket: Cell::new(0),
            counting: Cell::new(false),
            device: device.clone(),
            layout: layout.clone(),
            sizes,
            first,
        };
        device.upload(flat.tiles.at(), bytemuck::cast_slice(&tiles))?;
        device.fill(flat.gradient_squares.at(), 0, 2)?;
        device.fill(flat.census.at(), 0, flat.census.bytes() / 4)?;
        device.fill(flat.report.at(), 0, flat.report.bytes() / 4)?;
        Ok(flat)
    }

    /// Bytes of device memory that a workspace for `layout` takes, but for less than a hundred thousand.
    pub fn need(layout: &Layout) -> usize {
        let sizes = Sizes::of(layout);
        let tiles = |prunable: bool| -> usize {
            let wanted = |s: &&crate::params::Span| match s.role {
                Role::Prunable => true,
                Role::Free => !prunable,
                Role::Frozen => false,
            };
            layout.spans().iter().filter(wanted).map(|s| s.len.div_ceil(sizes.tile)).sum()
        };
        let spans = layout.with_role(Role::Prunable).count().max(1);
        (size_of::<Tile>() + PART) * tiles(false)
            + 12 * tiles(true)
            + 8 * layout.len().div_ceil(TILE)
            + 4 * sizes.room
            + (HISTOGRAM + 96) * spans
    }

    /// Bytes of device memory that the workspace takes.
    pub fn bytes(&self) -> usize {
        let all = [&self.tiles, &self.parts, &self.chunks, &self.census, &self.list, &self.histograms, &self.planes];
        let blocks = self.blocks.borrow().as_ref().map_or(0, |(scores, chosen)| scores.bytes() + chosen.bytes());
        all.iter().map(|m| m.bytes()).sum::<usize>() + self.equal.bytes() + self.before.bytes() + blocks
    }

    pub(super) fn queue(&self) -> Queue<'_> {
        Queue::new(&*self.device, Ptr::NULL)
    }

    /// A kernel over `items`: so many blocks a multiprocessor as run together, or fewer.
    pub(super) fn launch<A: Args>(&self, kernel: &str, items: usize, together: u32, args: &A) -> Result<()> {
        let most = together * self.device.multiprocessors().max(1);
        let blocks = u32::try_from(items.max(1)).unwrap_or(u32::MAX).min(most);
        self.queue().launch(kernel, blocks, THREADS, 0, args)
    }

    /// A kernel of one block, over what others left.
    pub(super) fn finish<A: Args>(&self, kernel: &str, args: &A) -> Result<()> {
        self.queue().launch(kernel, 1, LAST_THREADS, 0, args)
    }

    pub(super) fn read<T: bytemuck::Pod>(&self, from: &Memory) -> Result<T> {
        let mut value = T::zeroed();
        self.device.download(from.at(), bytemuck::bytes_of_mut(&mut value))?;
        Ok(value)
    }

    /// y = x.
    pub fn copy(&self, x: Ptr, y: Ptr) -> Result<()> {
        self.device.copy(y, x, 4 * self.layout.len())
    }

    /// y += a x.
    pub fn axpy(&self, a: f32, x: Ptr, y: Ptr) -> Result<()> {
        let n = self.layout.len();
        self.launch("flat_axpy_f32", n.div_ceil(4 * 256), 8, &AxpyArgs { x, y, n: n as u64, a, reserved: 0 })
    }

    /// x = a x.
    pub fn scale(&self, a: f32, x: Ptr) -> Result<()> {
        let n = self.layout.len();
        self.launch("flat_scale_f32", n.div_ceil(4 * 256), 8, &ScaleArgs { x, n: n as u64, a, reserved: 0 })
    }

    /// y = bf16(x) over a range of both, to the nearest, ties to even.
    pub fn narrow(&self, x: Ptr, y: Ptr, range: Range<usize>) -> Result<()> {
        let args = CastArgs { x: x.offset(4 * range.start), y: y.offset(2 * range.start), n: range.len() as u64 };
        self.launch("flat_narrow_bf16", range.len().div_ceil(8 * 256), 8, &args)
    }

    /// y = x over a range of both, where x is bf16.
    pub fn widen(&self, x: Ptr, y: Ptr, range: Range<usize>) -> Result<()> {
        let args = CastArgs { x: x.offset(2 * range.start), y: y.offset(4 * range.start), n: range.len() as u64 };
        self.launch("flat_widen_bf16", range.len().div_ceil(8 * 256), 8, &args)
    }

    /// ⟨x, y⟩ over a range, summed in f64 in an order that the range alone decides. Waits for the device.
    pub fn dot(&self, x: Ptr, y: Ptr, range: Range<usize>) -> Result<f64> {
        let total = self.chunks.at().offset(self.chunks.bytes() - 8);
        self.queue_dot(x, y, range, total)?;
        let mut value = 0.0f64;
        self.device.download(total, bytemuck::bytes_of_mut(&mut value))?;
        Ok(value)
    }

    /// Queue ‖g‖² over the trained weights, for the update's clipping and for [`Flat::read_updated`].
    pub fn queue_norm(&self, g: Ptr) -> Result<()> {
        let trained = 0..self.layout.range(Role::Frozen).start;
        self.queue_dot(g, g, trained, self.gradient_squares.at())
    }

    fn queue_dot(&self, x: Ptr, y: Ptr, range: Range<usize>, total: Ptr) -> Result<()> {
        if range.start > range.end || range.end > self.layout.len() {
            let what = format!("{range:?} lies outside {} floats", self.layout.len());
            return Err(Error::Graph { op: "dot", place: "vector".into(), what });
        }
        let (parts, at) = (self.chunks.at(), 4 * range.start);
        let args = DotArgs { x: x.offset(at), y: y.offset(at), parts, n: range.len() as u64 };
        let chunks = range.len().div_ceil(TILE);
        if chunks > 0 {
            self.launch("flat_dot_f32", chunks, 8, &args)?;
        }
        self.finish("flat_total_f64", &TotalArgs { parts, total, n: chunks as u64 })
    }

    /// The next `n` numbers of [`crate::rng::Rng::uniform`] for this seed and stream, from `position` on.
    pub fn uniform(&self, y: Ptr, n: usize, (seed, stream, position): (u64, u64, u64)) -> Result<()> {
        let args = RandomArgs { y, n: n as u64, seed, stream, position };
        self.launch("flat_uniform_f32", n.div_ceil(4 * 256), 8, &args)
    }

    /// The next `n` numbers of [`crate::rng::Rng::normal`], two words each.
    pub fn normal(&self, y: Ptr, n: usize, (seed, stream, position): (u64, u64, u64)) -> Result<()> {
        let args = RandomArgs { y, n: n as u64, seed, stream, position };
        self.launch("flat_normal_f32", n.div_ceil(256), 8, &args)
    }
}
