//! Sums a channel of [N, C, ..] on a device, by kernels/channels.cu: parts in f64 in scratch, cut by the shape alone, and
//! what is made of them.
use super::device::aligned;
use super::planes::Planes;
use super::{DeviceCotangent, DeviceTensor};
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::{Error, Result};

/// As `ChannelSumsArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SumsArgs {
    a: Ptr,
    b: Ptr,
    center: Ptr,
    rest: Ptr,
    sums: Ptr,
    batch: u64,
    area: u32,
    channels: u32,
    parts: u32,
    packs: u32,
}
impl Args for SumsArgs {}
const _: () = assert!(size_of::<SumsArgs>() == 64);

/// As `ChannelTotalArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct TotalArgs {
    sums: Ptr,
    y: Ptr,
    rest: Ptr,
    factor: f64,
    count: f64,
    channels: u32,
    parts: u32,
    add: u32,
    unused: u32,
}
impl Args for TotalArgs {}
const _: () = assert!(size_of::<TotalArgs>() == 56);

/// As `ChannelSpreadArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SpreadArgs {
    x: Ptr,
    center: Ptr,
    rest: Ptr,
    g: Ptr,
    gx: Ptr,
    n: u64,
    area: u32,
    channels: u32,
    count: f32,
    packs: u32,
    add: u32,
    unused: u32,
}
impl Args for SpreadArgs {}
const _: () = assert!(size_of::<SpreadArgs>() == 72);

/// What is summed over each channel.
pub(super) enum Sum<'a> {
    /// Σ a
    Plain(&'a DeviceTensor<'a>),
    /// Σ (a - m)² and Σ (a - m)
    Squares(&'a DeviceTensor<'a>, Ptr),
    /// Σ (a - m - l) b and Σ b, l null being 0
    Products(&'a DeviceTensor<'a>, &'a DeviceTensor<'a>, [Ptr; 2]),
}

/// Blocks that fill a device, and numbers of a part: at least what pays for one, at most what its threads sum in f32.
const BLOCKS: usize = 264;
const LEAST: usize = 2048;
const MOST: usize = 256 * 512;

/// Parts of a channel's sum.
pub(super) fn parts(p: Planes) -> usize {
    let count = p.count();
    (BLOCKS / p.channels.max(1)).min(count / LEAST).max(count.div_ceil(MOST)).max(1)
}

/// Bytes of scratch that the sums of a tensor take.
pub(super) fn scratch(shape: &[usize]) -> usize {
    Planes::of(shape).map_or(0, |p| 16 * p.channels * parts(p))
}

/// The planes of a tensor, whose area kernels have as a u32.
pub(super) fn planes(x: &DeviceTensor, op: &'static str) -> Result<Planes> {
    let wrong = || Error::Graph { op, place: "x".into(), what: format!("wants [N, C, ..], got {:?}", x.shape) };
    Planes::of(x.shape).filter(|p| p.area <= u32::MAX as usize && p.channels <= u32::MAX as usize).ok_or_else(wrong)
}

/// Whether planes at these addresses can be read in packs of 16 bytes.
pub(super) fn plane_packs(p: Planes, dtype: Dtype, at: &[Ptr]) -> u32 {
    u32::from(p.area.is_multiple_of(16 / dtype.bytes()) && aligned(at))
}

/// Leave the parts of two sums a channel in scratch.
pub(super) fn sums(what: &Sum, op: &'static str, queue: &Queue) -> Result<()> {
    let (name, a, b, [center, rest]) = match *what {
        Sum::Plain(a) => ("sums", a, None, [Ptr::NULL; 2]),
        Sum::Squares(a, center) => ("squares", a, None, [center, Ptr::NULL]),
        Sum::Products(a, b, about) => ("products", a, Some(b), about),
    };
    let p = planes(a, op)?;
    let b = b.map_or(Ok(Ptr::NULL), |b| b.stored(a.dtype, op, "the other factor"))?;
    let parts = parts(p);
    let args = SumsArgs {
        a: a.at,
        b,
        center,
        rest,
        sums: queue.scratch,
        batch: p.batch as u64,
        area: p.area as u32,
        channels: p.channels as u32,
        parts: parts as u32,
        packs: plane_packs(p, a.dtype, &[a.at, b]),
    };
    let blocks = (p.channels * parts) as u32;
    queue.launch(&format!("channel_{name}_{}", a.dtype.suffix()), blocks, 256, 0, &args)
}

fn finish(kernel: &str, p: Planes, queue: &Queue, args: &TotalArgs) -> Result<()> {
    let args = TotalArgs { sums: queue.scratch, channels: p.channels as u32, parts: parts(p) as u32, ..*args };
    queue.launch(kernel, queue.blocks(p.channels, 4), 128, 0, &args)
}

const NOTHING: TotalArgs = TotalArgs {
    sums: Ptr::NULL,
    y: Ptr::NULL,
    rest: Ptr::NULL,
    factor: 1.0,
    count: 1.0,
    channels: 0,
    parts: 0,
    add: 0,
    unused: 0,
};

/// y (+)= f Σ / n of the first sums in scratch, and what that loses as f32 to `rest`, if not null.
pub(super) fn total(p: Planes, (factor, count): (f64, f64), y: Ptr, rest: Ptr, add: bool, queue: &Queue) -> Result<()> {
    finish("channel_total", p, queue, &TotalArgs { y, rest, factor, count, add: add.into(), ..NOTHING })
}

/// The variance, of squares in scratch.
pub(super) fn variance(p: Planes, y: Ptr, queue: &Queue) -> Result<()> {
    finish("channel_variance", p, queue, &TotalArgs { y, count: p.count() as f64, ..NOTHING })
}

/// g \[C\], f32, (+)= Σ x a channel.
pub(super) fn channel_sums(x: &DeviceTensor, g: &DeviceCotangent, op: &'static str, queue: &Queue) -> Result<()> {
    let to = g.to.stored(Dtype::F32, op, "gradient")?;
    sums(&Sum::Plain(x), op, queue)?;
    total(planes(x, op)?, (1.0, 1.0), to, Ptr::NULL, g.add, queue)
}

/// gx (+)= the cotangent of a mean, or of a variance of `x` about its mean, which is two numbers.
pub(super) fn spread(
    about: Option<(&DeviceTensor, [Ptr; 2])>,
    g: Ptr,
    gx: &DeviceCotangent,
    op: &'static str,
    queue: &Queue,
) -> Result<()> {
    let p = planes(&gx.to, op)?;
    let (x, [center, rest]) = match about {
        Some((x, about)) => (x.stored(gx.to.dtype, op, "x")?, about),
        None => (Ptr::NULL, [Ptr::NULL; 2]),
    };
    let n = gx.to.numel();
    let args = SpreadArgs {
        x,
        center,
        rest,
        g,
        gx: gx.to.at,
        n: n as u64,
        area: p.area as u32,
        channels: p.channels as u32,
        count: p.count() as f32,
        packs: plane_packs(p, gx.to.dtype, &[x, gx.to.at]),
        add: gx.add.into(),
        unused: 0,
    };
    queue.launch(&format!("channel_spread_{}", gx.to.dtype.suffix()), queue.blocks(n, 2048), 256, 0, &args)
}
