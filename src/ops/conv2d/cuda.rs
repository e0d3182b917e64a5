//! Launches of kernels/conv2d.cu and conv2d_mma.cu.
use super::geometry::Geometry;
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::ops::sum_rows::sum_rows;
use crate::ops::{DeviceCotangent, DeviceTensor, channels};
use crate::{Error, Result};

const NAME: &str = "conv2d";

/// As `Conv2dArgs` in kernels/conv2d.cuh.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Conv2dArgs {
    x: [Ptr; 2],
    w: [Ptr; 2],
    bias: Ptr,
    y: Ptr,
    batch: u64,
    groups: u32,
    rows: u32,
    channels: u32,
    from: [u32; 2],
    to: [u32; 2],
    kernel: [u32; 2],
    stride: [u32; 2],
    padding: [u32; 2],
    dilation: [u32; 2],
    tap_step: [u32; 2],
    row_step: u32,
    channel_step: u32,
    pairs: u32,
    turned: u32,
    add: u32,
}
impl Args for Conv2dArgs {}
const _: () = assert!(size_of::<Conv2dArgs>() == 144);

/// As `Conv2dWeightArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct WeightArgs {
    x: Ptr,
    gy: Ptr,
    g: Ptr,
    batch: u64,
    groups: u32,
    rows: u32,
    channels: u32,
    from: [u32; 2],
    to: [u32; 2],
    kernel: [u32; 2],
    stride: [u32; 2],
    padding: [u32; 2],
    dilation: [u32; 2],
    parts: u32,
    add: u32,
    unused: u32,
}
impl Args for WeightArgs {}
const _: () = assert!(size_of::<WeightArgs>() == 104);

/// Channels by pixels (or taps) that a block makes, as compiled: by FMAs, those of few loads first, and by tensor cores.
const FMA: [(usize, usize); 3] = [(64, 64), (32, 128), (16, 256)];
const MMA: (usize, usize) = (64, 128);
/// Blocks that fill a device: two on each of an H100's 132 multiprocessors.
const BLOCKS: usize = 264;
/// Pixels of a part of a split sum at least: fewer would not pay for writing it out and reading it back.
const LEAST: usize = 512;

/// The tile for operands of a dtype: of those by FMAs the one that computes the least beyond rows x columns.
fn tile(dtype: Dtype, rows: usize, columns: usize) -> (usize, usize) {
    let padded = |&(r, c): &(usize, usize)| rows.next_multiple_of(r) * columns.next_multiple_of(c);
    match dtype {
        Dtype::F32 => FMA.into_iter().min_by_key(padded).unwrap_or(FMA[0]),
        Dtype::Bf16 => MMA,
    }
}

fn pair(of: [usize; 2]) -> [u32; 2] {
    of.map(|v| v as u32)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Geometry {
    /// Kernels find places within an image, and within the weights of a group, by i32.
    fn fits(&self) -> Result<()> {
        const MOST: usize = 1 << 30;
        let padded = |axis: usize| self.from[axis] + 2 * self.op.padding[axis];
        let image = self.inputs.max(self.outputs) * padded(0) * padded(1);
        let outputs = self.outputs * self.pixels();
        if image.max(outputs).max(self.outputs * self.taps()) < MOST {
            return Ok(());
        }
        let what = format!(
            "x of {} x {:?}, W of {} x {} x {:?} (each image and all weights are to have fewer than 2^30 numbers)",
            self.inputs, self.from, self.outputs, self.inputs, self.kernel
        );
        Err(Error::Graph { op: NAME, place: "launch".into(), what })
    }

    fn common(&self) -> Conv2dArgs {
        let (groups, area) = (self.op.groups, self.kernel[0] * self.kernel[1]);
        Conv2dArgs {
            x: [Ptr::NULL; 2],
            w: [Ptr::NULL; 2],
            bias: Ptr::NULL,
            y: Ptr::NULL,
            batch: self.batch as u64,
            groups: groups as u32,
            rows: (self.outputs / groups) as u32,
            channels: (self.inputs / groups) as u32,
            from: pair(self.from),
            to: pair(self.to),
            kernel: pair(self.kernel),
            stride: pair(self.op.stride),
            padding: pair(self.op.padding),
            dilation: pair(self.op.dilation),
            tap_step: [1, 1],
            row_step: self.taps() as u32,
            channel_step: area as u32,
            pairs: 0,
            turned: 0,
            add: 0,
        }
    }

    /// y, or the tangent: the sum over pairs of images and weights, and a bias.
    pub fn correlate(
        &self,
        terms: &[(DeviceTensor, DeviceTensor)],
        bias: Option<&DeviceTensor>,
        y: &DeviceTensor,
        queue: &Queue,
    ) -> Result<()> {
        self.fits()?;
        let mut args = Conv2dArgs { y: y.at, pairs: terms.len() as u32, ..self.common() };
        for (i, (x, w)) in terms.iter().enumerate() {
            args.x[i] = x.stored(y.dtype, NAME, "x")?;
            args.w[i] = w.stored(y.dtype, NAME, "W")?;
        }
        args.bias = bias.map_or(Ok(Ptr::NULL), |b| b.stored(Dtype::F32, NAME, "bias"))?;
        let (rows, pixels) = (self.outputs / self.op.groups, self.batch * self.pixels());
        let (height, width) = tile(y.dtype, rows, pixels);
        let blocks = rows.div_ceil(height) * self.op.groups * pixels.div_ceil(width);
        launch(queue, &format!("conv2d_{height}x{width}_{}", y.dtype.suffix()), [blocks, 1], &args)
    }

    /// The cotangent of x.
    pub fn turned(&self, gy: &DeviceTensor, w: &DeviceTensor, g: &DeviceCotangent, queue: &Queue) -> Result<()> {
        self.fits()?;
        let (groups, stride) = (self.op.groups, self.op.stride);
        let (rows, channels) = (self.inputs / groups, self.outputs / groups);
        let straight = self.common();
        let args = Conv2dArgs {
            x: [gy.stored(g.to.dtype, NAME, "gy")?, Ptr::NULL],
            w: [w.stored(g.to.dtype, NAME, "W")?, Ptr::NULL],
            y: g.to.at,
            rows: rows as u32,
            channels: channels as u32,
            from: straight.to,
            to: straight.from,
            tap_step: [0, 1].map(|axis| (stride[axis] / gcd(stride[axis], self.op.dilation[axis])) as u32),
            row_step: straight.channel_step,
            channel_step: straight.row_step,
            pairs: 1,
            turned: 1,
            add: g.add.into(),
            ..straight
        };
        // Every S-th pixel makes a phase; the first is the largest.
        let phases: usize = (0..2).map(|axis| stride[axis].min(self.from[axis])).product();
        let pixels = self.batch * (0..2).map(|axis| self.from[axis].div_ceil(stride[axis])).product::<usize>();
        let (height, width) = tile(g.to.dtype, rows, pixels);
        let blocks = rows.div_ceil(height) * phases * groups * pixels.div_ceil(width);
        launch(queue, &format!("conv2d_{height}x{width}_{}", g.to.dtype.suffix()), [blocks, 1], &args)
    }

    /// The tile of a weight's cotangent, its blocks, and the parts its sum is cut into: by the sizes alone.
    fn parts(&self, dtype: Dtype) -> ((usize, usize), usize, usize) {
        let rows = self.outputs / self.op.groups;
        let (height, width) = tile(dtype, rows, self.taps());
        let blocks = rows.div_ceil(height) * self.taps().div_ceil(width) * self.op.groups;
        let most = self.batch * self.pixels() / LEAST;
        ((height, width), blocks, (BLOCKS / blocks.max(1)).min(most).max(1))
    }

    /// Bytes of scratch that the reverse pass takes, with a bias or without.
    pub fn scratch(&self, bias: bool) -> usize {
        let parts = [Dtype::F32, Dtype::Bf16].map(|dtype| self.parts(dtype).2).into_iter().max().unwrap_or(1);
        let weights = if parts > 1 { 4 * parts * self.outputs * self.taps() } else { 0 };
        let bias = if bias { channels::scratch(&[self.batch, self.outputs, self.to[0], self.to[1]]) } else { 0 };
        weights.max(bias)
    }

    /// The cotangent of W.
    pub fn weight(&self, x: &DeviceTensor, gy: &DeviceTensor, g: &DeviceCotangent, queue: &Queue) -> Result<()> {
        self.fits()?;
        let ((height, width), blocks, parts) = self.parts(gy.dtype);
        let (to, whole) = (g.to.stored(Dtype::F32, NAME, "gradient")?, parts == 1);
        let Conv2dArgs { batch, groups, rows, channels, from, to: outputs, kernel, stride, padding, dilation, .. } =
            self.common();
        let args = WeightArgs {
            x: x.stored(gy.dtype, NAME, "x")?,
            gy: gy.at,
            g: if whole { to } else { queue.scratch },
            batch,
            groups,
            rows,
            channels,
            from,
            to: outputs,
            kernel,
            stride,
            padding,
            dilation,
            parts: parts as u32,
            add: (whole && g.add).into(),
            unused: 0,
        };
        launch(queue, &format!("conv2d_weight_{height}x{width}_{}", gy.dtype.suffix()), [blocks, parts], &args)?;
        if whole {
            return Ok(());
        }
        let shape = [parts, self.outputs * self.taps()];
        let sums = DeviceTensor { at: queue.scratch, dtype: Dtype::F32, shape: &shape };
        sum_rows(&sums, parts, shape[1], g, queue)
    }
}

fn launch<A: Args>(queue: &Queue, kernel: &str, grid: [usize; 2], args: &A) -> Result<()> {
    queue.launch(kernel, pair(grid), 256, 0, args)
}

#[cfg(test)]
mod tests {
    use super::super::Conv2d;
    use super::*;

    #[test]
    fn tiles_fit_the_channels_and_parts_of_a_sum_are_never_empty() {
        assert_eq!([64, 17, 16].map(|rows| tile(Dtype::F32, rows, 1 << 17)), FMA);
        // Batch, inputs, outputs, size and groups: a CIFAR ResNet's first block, a layer of VGG-16, a depthwise one, a pixel.
        let sizes = [(128, 16, 16, 32, 1), (32, 512, 512, 14, 1), (8, 64, 64, 56, 64), (1, 1, 1, 1, 1)];
        for (dtype, want) in [(Dtype::F32, [256, 1, 4, 1]), (Dtype::Bf16, [132, 1, 4, 1])] {
            let found = sizes.map(|(batch, inputs, outputs, size, groups)| {
                let op = Conv2d { groups, ..Conv2d::square(1, 1) };
                let g = Geometry::new(&op, &[&[batch, inputs, size, size], &[outputs, inputs / groups, 3, 3]]).unwrap();
                let (_, _, parts) = g.parts(dtype);
                // A slice is at most 32 pixels deep.
                assert!(parts <= (g.batch * g.pixels()).div_ceil(32), "{parts} parts");
                assert!(parts == 1 || g.scratch(false) >= 4 * parts * outputs * inputs / groups * 9);
                parts
            });
            assert_eq!(found, want, "{dtype:?}");
        }
    }
}
