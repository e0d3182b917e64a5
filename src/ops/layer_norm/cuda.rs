//! Launches of kernels/layer_norm.cu and layer_norm_dual.cu: of one x, or of a sum of two.
use crate::Result;
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::ops::device::packs;
use crate::ops::sum_rows::sum_rows;
use crate::ops::{DeviceCotangent, DeviceIo, DeviceTensor};
use crate::tensor::rows_cols;

const NAME: &str = "layer_norm";

/// As `LayerNormArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ForwardArgs {
    x: Ptr,
    addend: Ptr,
    sum: Ptr,
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
const _: () = assert!(size_of::<ForwardArgs>() == 80);

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
    gx2: Ptr,
    parts: Ptr,
    rows: u64,
    cols: u32,
    packs: u32,
    warp_a_row: u32,
    add: u32,
}
impl Args for VjpArgs {}
const _: () = assert!(size_of::<VjpArgs>() == 80);

/// As `LayerNormDualArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct DualArgs {
    x: Ptr,
    x2: Ptr,
    dx: Ptr,
    dx2: Ptr,
    w: Ptr,
    b: Ptr,
    dw: Ptr,
    db: Ptr,
    y: Ptr,
    dy: Ptr,
    saved: Ptr,
    rows: u64,
    cols: u32,
    packs: u32,
    warp_a_row: u32,
    eps: f32,
}
impl Args for DualArgs {}
const _: () = assert!(size_of::<DualArgs>() == 112);

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

/// What is normalised: one tensor or two that are added, and w and b behind them.
struct Inputs {
    x: Ptr,
    x2: Ptr,
    w: Ptr,
    b: Ptr,
}

impl Inputs {
    fn new(x: &[DeviceTensor], dtype: Dtype) -> Result<Self> {
        let addend = if x.len() > 3 { Some(&x[1]) } else { None };
        Self::of(&x[0], addend, &x[x.len() - 2], &x[x.len() - 1], dtype)
    }
    fn of(
        x: &DeviceTensor,
        x2: Option<&DeviceTensor>,
        w: &DeviceTensor,
        b: &DeviceTensor,
        dtype: Dtype,
    ) -> Result<Self> {
        Ok(Self {
            x: x.stored(dtype, NAME, "x")?,
            x2: x2.map_or(Ok(Ptr::NULL), |x| x.stored(dtype, NAME, "addend"))?,
            w: w.stored(Dtype::F32, NAME, "w")?,
            b: b.stored(Dtype::F32, NAME, "b")?,
        })
    }
    fn all(&self) -> [Ptr; 4] {
        [self.x, self.x2, self.w, self.b]
    }
    /// The kernel of a pass.
    fn kernel(&self, pass: &str, dtype: Dtype) -> String {
        let add = if self.x2.is_null() { "" } else { "add_" };
        format!("{add}layer_norm_{pass}_{}", dtype.suffix())
    }
}

/// A tangent, or null where it is zero.
fn tangent(d: Option<DeviceTensor>, dtype: Dtype, name: &str) -> Result<Ptr> {
    d.map_or(Ok(Ptr::NULL), |d| d.stored(dtype, NAME, name))
}

pub fn forward(eps: f32, io: &DeviceIo, queue: &Queue) -> Result<()> {
    let dtype = io.y.dtype;
    let inputs = Inputs::new(io.x, dtype)?;
    let rows = Rows::new(&io.y, &[&inputs.all()[..], &[io.y.at, io.kept]].concat());
    let args = ForwardArgs {
        x: inputs.x,
        addend: inputs.x2,
        sum: io.kept,
        w: inputs.w,
        b: inputs.b,
        y: io.y.at,
        saved: io.saved,
        rows: rows.rows as u64,
        cols: rows.cols as u32,
        packs: rows.packs,
        warp_a_row: rows.warp_a_row.into(),
        eps,
    };
    queue.launch(&inputs.kernel("forward", dtype), rows.blocks(queue), rows.threads(), 0, &args)
}

/// Forward and jvp at once.
pub fn dual(eps: f32, io: &DeviceIo, queue: &Queue) -> Result<()> {
    let (dtype, dy, of_b) = (io.y.dtype, io.dy()?, io.x.len() - 1);
    let inputs = Inputs::new(io.x, dtype)?;
    let (dx, dw, db) = (
        tangent(io.dx[0], dtype, "dx")?,
        tangent(io.dx[of_b - 1], Dtype::F32, "dw")?,
        tangent(io.dx[of_b], Dtype::F32, "db")?,
    );
    let dx2 = if of_b > 2 { tangent(io.dx[1], dtype, "dx2")? } else { Ptr::NULL };
    let rows = Rows::new(&io.y, &[&inputs.all()[..], &[dx, dx2, dw, db, io.y.at, dy.at]].concat());
    let args = DualArgs {
        x: inputs.x,
        x2: inputs.x2,
        dx,
        dx2,
        w: inputs.w,
        b: inputs.b,
        dw,
        db,
        y: io.y.at,
        dy: dy.stored(dtype, NAME, "dy")?,
        saved: io.saved,
        rows: rows.rows as u64,
        cols: rows.cols as u32,
        packs: rows.packs,
        warp_a_row: rows.warp_a_row.into(),
        eps,
    };
    queue.launch(&inputs.kernel("dual", dtype), rows.blocks(queue), rows.threads(), 0, &args)
}

/// `x`: what was normalised, one tensor or the sum of two; `dx`: its tangent.
pub fn jvp(x: &DeviceTensor, dx: Option<DeviceTensor>, io: &DeviceIo, queue: &Queue) -> Result<()> {
    let (dy, dtype, of_b) = (io.dy()?, io.y.dtype, io.x.len() - 1);
    let (x, w) = (x.stored(dtype, NAME, "x")?, io.x[of_b - 1].stored(Dtype::F32, NAME, "w")?);
    let dx = tangent(dx, dtype, "dx")?;
    let (dw, db) = (tangent(io.dx[of_b - 1], Dtype::F32, "dw")?, tangent(io.dx[of_b], Dtype::F32, "db")?);
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

/// `x`: what was normalised, one tensor or the sum of two.
pub fn vjp(x: &DeviceTensor, io: &DeviceIo, queue: &Queue) -> Result<()> {
    let [of_x @ .., gw, gb] = io.gx else { return Ok(()) };
    let (gy, sums) = (io.dy()?, gw.is_some() || gb.is_some());
    // Those that are asked for, the first of them first.
    let asked: Vec<&DeviceCotangent> = of_x.iter().flatten().collect();
    if asked.is_empty() && !sums {
        return Ok(());
    }
    let dtype = gy.dtype;
    let (x, w) = (x.stored(dtype, NAME, "x")?, io.x[io.x.len() - 2].stored(Dtype::F32, NAME, "w")?);
    let to = |i: usize| asked.get(i).map_or(Ok(Ptr::NULL), |g| g.to.stored(dtype, NAME, "gx"));
    let (gx, gx2) = (to(0)?, to(1)?);
    let adds = |i: usize| u32::from(asked.get(i).is_some_and(|g| g.add)) << i;
    // Addresses within a row of parts are aligned with its columns, as scratch is.
    let rows = Rows::new(&gy, &[x, w, gy.at, gx, gx2]);
    let parts = parts(rows.rows);
    let args = VjpArgs {
        x,
        w,
        saved: io.saved,
        gy: gy.at,
        gx,
        gx2,
        parts: if sums { queue.scratch } else { Ptr::NULL },
        rows: rows.rows as u64,
        cols: rows.cols as u32,
        packs: rows.packs,
        warp_a_row: rows.warp_a_row.into(),
        add: adds(0) | adds(1),
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
