//! The fused step on a device: the launch side of kernels/update.cu. Queued without a word from the host, so that it can be
//! recorded: what changes from step to step stands in the device's memory as [`Knobs`].
use super::Flat;
use crate::Result;
use crate::engine::constants::Constants;
use crate::engine::{Census, Optimizer, Update, Updated};
use crate::gpu::{Args, Ptr};

/// As `Knobs` in kernels/update.cu.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Knobs {
    clip: f64,
    gradient_scale: f64,
    rate: f32,
    pull: f32,
    shrink: f32,
    keep: f32,
    decay: f32,
    decayed: f32,
    beta1: f32,
    beta2: f32,
    fresh1: f32,
    fresh2: f32,
    epsilon: f32,
    length: f32,
    correct2: f32,
    low: u32,
    high: u32,
    census: u32,
}
const _: () = assert!(size_of::<Knobs>() == 80);

impl Knobs {
    /// Of a step whose gradient scale is known.
    pub fn new(u: &Update) -> Self {
        let c = Constants::new(u, true);
        let (low, high) = u.census.unwrap_or((0, 0));
        Self {
            clip: 0.0,
            gradient_scale: f64::from(c.scale),
            rate: c.rate,
            pull: c.pull,
            shrink: c.shrink,
            keep: c.keep,
            decay: c.decay,
            decayed: c.decayed,
            beta1: c.beta1,
            beta2: c.beta2,
            fresh1: c.fresh1,
            fresh2: c.fresh2,
            epsilon: c.epsilon,
            length: c.length,
            correct2: c.correct2,
            low,
            high,
            census: u32::from(u.census.is_some()),
        }
    }

    /// Scale the gradient by `mean`, and down to a norm of `limit` where it is longer (0: never): decided on the device from
    /// what [`Flat::queue_norm`] left, in place of the update's gradient scale.
    pub fn clipped(self, mean: f64, limit: f64) -> Self {
        Self { clip: limit, gradient_scale: mean, ..self }
    }
}

/// Where a step's vectors lie.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub w: Ptr,
    pub g: Ptr,
    pub m: Ptr,
    /// Second moments; null under SGD.
    pub v: Ptr,
    /// The weights in bf16; null for none.
    pub shadow: Ptr,
    /// Null for none.
    pub mask: Ptr,
}

/// As `UpdateArgs` in kernels/update.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct UpdateArgs {
    w: Ptr,
    g: Ptr,
    m: Ptr,
    v: Ptr,
    shadow: Ptr,
    mask: Ptr,
    knobs: Ptr,
    gradient_squares: Ptr,
    tiles: Ptr,
    parts: Ptr,
    census: Ptr,
    list: Ptr,
    room: u64,
    tile_count: u64,
}
impl Args for UpdateArgs {}
const _: () = assert!(size_of::<UpdateArgs>() == 112);

/// As `UpdateTotalArgs` there.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct UpdateTotalArgs {
    parts: Ptr,
    gradient_squares: Ptr,
    census: Ptr,
    report: Ptr,
    tile_count: u64,
    prunable_tiles: u64,
}
impl Args for UpdateTotalArgs {}
const _: () = assert!(size_of::<UpdateTotalArgs>() == 48);

/// As `Report` there.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Report {
    squares: f64,
    prunable: f64,
    pruned: f64,
    gradient_squares: f64,
    below: u64,
    inside: u64,
}

/// Numbers of f32 that a recorded step may leave beside its report, to be read along.
pub(super) const MARKS: usize = 16;
/// Where they begin, and the bytes of all.
const MARKS_AT: usize = 64;
pub(super) const REPORT: usize = MARKS_AT + 4 * MARKS;

impl Flat {
    /// What the next [`Flat::queue_update`], or the next replay of a recorded one, computes with. Spends any census.
    pub fn write_knobs(&self, knobs: &Knobs) -> Result<()> {
        self.ticket.set(self.ticket.get() + 1);
        self.counting.set(knobs.census != 0);
        self.device.upload(self.knobs.at(), bytemuck::bytes_of(knobs))
    }

    /// Queue the step by the knobs that stand when it runs.
    pub fn queue_update(&self, optimizer: &Optimizer, at: &At) -> Result<()> {
        self.device.fill(self.census.at(), 0, self.census.bytes() / 4)?;
        let args = UpdateArgs {
            w: at.w,
            g: at.g,
            m: at.m,
            v: at.v,
            shadow: at.shadow,
            mask: at.mask,
            knobs: self.knobs.at(),
            gradient_squares: self.gradient_squares.at(),
            tiles: self.tiles.at(),
            parts: self.parts.at(),
            census: self.census.at(),
            list: self.list.at(),
            room: self.sizes.room as u64,
            tile_count: self.trained as u64,
        };
        let kernel = match optimizer {
            Optimizer::AdamW { .. } => "update_adamw_f32",
            Optimizer::Adam { .. } => "update_adam_f32",
            Optimizer::Sgd { .. } => "update_sgd_f32",
        };
        self.launch(kernel, self.trained, 4, &args)?;
        let total = UpdateTotalArgs {
            parts: self.parts.at(),
            gradient_squares: self.gradient_squares.at(),
            census: self.census.at(),
            report: self.report.at(),
            tile_count: self.trained as u64,
            prunable_tiles: self.prunable as u64,
        };
        self.finish("update_total_f64", &total)
    }

    /// What the last step did, and ‖g‖² of the last [`Flat::queue_norm`]. Waits for the device.
    pub fn read_updated(&self) -> Result<(Updated, f64)> {
        self.read_step(0).map(|(updated, squares, _)| (updated, squares))
    }

    /// Where a recorded step leaves the n-th of its marks.
    pub(super) fn mark(&self, nth: usize) -> Ptr {
        self.report.at().offset(MARKS_AT + 4 * nth)
    }

    /// [`Flat::read_updated`], and the first of the marks, in one download.
    pub(super) fn read_step(&self, marks: usize) -> Result<(Updated, f64, Vec<f32>)> {
        let mut raw = [0u8; REPORT];
        let bytes = if marks == 0 { size_of::<Report>() } else { MARKS_AT + 4 * marks.min(MARKS) };
        self.device.download(self.report.at(), &mut raw[..bytes])?;
        let r: Report = bytemuck::pod_read_unaligned(&raw[..size_of::<Report>()]);
        let updated = Updated {
            squares: r.squares,
            prunable_squares: r.prunable,
            pruned_squares: r.pruned,
            census: self.counting.get().then(|| Census::Kept(self.ticket.get())),
        };
        let marks = raw[MARKS_AT..].as_chunks().0.iter().take(marks).map(|&b| f32::from_le_bytes(b)).collect();
        Ok((updated, r.gradient_squares, marks))
    }
}
