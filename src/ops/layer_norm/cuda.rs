//! Launches of kernels/layer_norm.cu.
use crate::Result;
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::ops::device::packs;
use crate::ops::sum_rows::sum_rows;
use crate::ops::{DeviceIo, DeviceTensor};
use crate::tensor::rows_cols;

const NAME: &str = "layer_norm";

/// As `LayerNormArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ForwardArgs {
    x: Ptr,
    w: Ptr,
    b: Ptr,
    y: Ptr,
    saved: Ptr,
    rows: u64,
    cols: u32,
    packs: u32,
    warp_a_row: u32,
    eps: f32,
}
impl Args for ForwardArgs {}
const _: () = assert!(size_of::<ForwardArgs>() == 64);

/// As `LayerNormJvpArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct JvpArgs {
    x: Ptr,
    w: Ptr,
    saved: Ptr,
    dx: Ptr,
    dw: Ptr,
    db: Ptr,
    dy: Ptr,
    rows: u64,
    cols: u32,
    packs: u32,
    warp_a_row: u64,
}
impl Args for JvpArgs {}
const _: () = assert!(size_of::<JvpArgs>() == 80);

/// As `LayerNormVjpArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct VjpArgs {
    x: Ptr,
    w: Ptr,
    saved: Ptr,
    gy: Ptr,
    gx: Ptr,
    parts: Ptr,
    rows: u64,
    cols: u32,
    packs: u32,
    warp_a_row: u32,
    add: u32,
}
impl Args for VjpArgs {}
const _: () = assert!(size_of::<VjpArgs>() == 72);

/// How rows fall to warps or blocks.
struct Rows {
    rows: usize,
    cols: usize,
    packs: u32,
    warp_a_row: bool,
}

impl Rows {
    /// A warp holds a row of 1024 in packs, of 256 in single elements (`KEPT` of the kernels, times 32).
    fn new(x: &DeviceTensor, at: &[Ptr]) -> Self {
        let (rows, cols) = x.rows_cols();
        let packs = packs(x.dtype, cols, at);
        Self { rows, cols, packs, warp_a_row: cols <= if packs == 1 { 1024 } else { 256 } }
    }
    fn threads(&self) -> u32 {
        if self.warp_a_row { 128 } else { 256 }
    }
    fn blocks(&self, queue: &Queue) -> u32 {
        queue.blocks(self.rows, if self.warp_a_row { 4 } else { 1 })
    }
}

pub fn forward(eps: f32, io: &DeviceIo, queue: &Queue) -> Result<()> {
    let dtype = io.y.dtype;
    let x = io.x[0].stored(dtype, NAME, "x")?;
    let (w, b) = (io.x[1].stored(Dtype::F32, NAME, "w")?, io.x[2].stored(Dtype::F32, NAME, "b")?);
    let rows = Rows::new(&io.y, &[x, w, b, io.y.at]);
    let args = ForwardArgs {
        x,
        w,
        b,
        y: io.y.at,
        saved: io.saved,
        rows: rows.rows as u64,
        cols: rows.cols as u32,
        packs: rows.packs,
        warp_a_row: rows.warp_a_row.into(),
        eps,
    };
    let kernel = format!("layer_norm_forward_{}", dtype.suffix());
    queue.launch(&kernel, rows.blocks(queue), rows.threads(), 0, &args)
}

pub fn jvp(io: &DeviceIo, queue: &Queue) -> Result<()> {
    let (dy, dtype) = (io.dy()?, io.y.dtype);
    let tangent = |i: usize, dtype: Dtype, name: &str| match &io.dx[i] {
        Some(d) => d.stored(dtype, NAME, name),
        None => Ok(Ptr::NULL),
    };
    let (x, w) = (io.x[0].stored(dtype, NAME, "x")?, io.x[1].stored(Dtype::F32, NAME, "w")?);
    let (dx, dw, db) = (tangent(0, dtype, "dx")?, tangent(1, Dtype::F32, "dw")?, tangent(2, Dtype::F32, "db")?);
    let rows = Rows::new(&dy, &[x, w, dx, dw, db, dy.at]);
    let args = JvpArgs {
        x,
        w,
        saved: io.saved,
        dx,
        dw,
        db,
        dy: dy.stored(dtype, NAME, "dy")?,
        rows: rows.rows as u64,
        cols: rows.cols as u32,
        packs: rows.packs,
        warp_a_row: rows.warp_a_row.into(),
    };
    queue.launch(&format!("layer_norm_jvp_{}", dtype.suffix()), rows.blocks(queue), rows.threads(), 0, &args)
}

/// Blocks that each leave sums of their rows: by the shape alone, so that the sums are the same on every device. Each
/// has work for 4 warps, 4 rows a warp, and they are no more than a large device runs at once.
fn parts(rows: usize) -> usize {
    rows.div_ceil(16).clamp(1, 384)
}

/// Both weights' parts of the reverse pass over x of this shape.
pub fn scratch(x: &[usize]) -> usize {
    let (rows, cols) = rows_cols(x);
    2 * parts(rows) * cols * size_of::<f32>()
}

pub fn vjp(io: &DeviceIo, queue: &Queue) -> Result<()> {
    let [gx, gw, gb] = io.gx else { return Ok(()) };
    let (gy, sums) = (io.dy()?, gw.is_some() || gb.is_some());
    if gx.is_none() && !sums {
        return Ok(());
    }
    let dtype = gy.dtype;
    let (x, w) = (io.x[0].stored(dtype, NAME, "x")?, io.x[1].stored(Dtype::F32, NAME, "w")?);
    let to = gx.as_ref().map_or(Ok(Ptr::NULL), |g| g.to.stored(dtype, NAME, "gx"))?;
    // Addresses within a row of parts are aligned with its columns, as scratch is.
    let rows = Rows::new(&gy, &[x, w, gy.at, to]);
    let parts = parts(rows.rows);
    let args = VjpArgs {
        x,
        w,
        saved: io.saved,
        gy: gy.at,
        gx: to,
        parts: if sums { queue.scratch } else { Ptr::NULL },
        rows: rows.rows as u64,
        cols: rows.cols as u32,
        packs: rows.packs,
        warp_a_row: rows.warp_a_row.into(),
        add: gx.as_ref().is_some_and(|g| g.add).into(),
    };
    let blocks = if sums { parts as u32 } else { rows.blocks(queue) };
    queue.launch(&format!("layer_norm_vjp_{}", dtype.suffix()), blocks, rows.threads(), 0, &args)?;
    let of = |half: usize| DeviceTensor {
        at: queue.scratch.offset(half * parts * rows.cols * size_of::<f32>()),
        dtype: Dtype::F32,
        shape: &[],
    };
    for (half, g) in [gw, gb].iter().enumerate() {
        if let Some(g) = g {
            sum_rows(&of(half), parts, rows.cols, g, queue)?;
        }
    }
    Ok(())
}
