//! The sizes of a convolution, and what does not fit.
use super::Conv2d;
use super::correlation::{Correlation, Part};
use super::planes::Tap;
use crate::ops::gemm::{Strides, Threads, product};

/// Pairs are of height and width.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub op: Conv2d,
    pub batch: usize,
    /// Channels of x and of y, of all groups.
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: [usize; 2],
    /// Sizes of the images of x and of y.
    pub from: [usize; 2],
    pub to: [usize; 2],
}

impl Geometry {
    /// # Errors
    /// What does not fit, in words.
    pub fn new(op: &Conv2d, x: &[&[usize]]) -> Result<Self, String> {
        let (&[batch, inputs, h, w], &[outputs, per_group, kh, kw]) =
            (x.first().copied().unwrap_or_default(), x.get(1).copied().unwrap_or_default())
        else {
            return Err(format!("wants x [N, C, H, W], W [O, C/groups, kh, kw], b [O]; got {x:?}"));
        };
        let groups = op.groups;
        if op.stride.contains(&0) || op.dilation.contains(&0) || groups == 0 {
            return Err(format!("wants stride, dilation and groups of 1 at least; got {op:?}"));
        }
        if per_group * groups != inputs || !outputs.is_multiple_of(groups) {
            return Err(format!(
                "wants W [O, C/groups, kh, kw] with C = {inputs} and O multiples of {groups} groups; got W {:?}",
                x[1]
            ));
        }
        if x.get(2).is_some_and(|b| *b != [outputs]) || x.len() > 3 {
            return Err(format!("wants one bias an output channel, b [{outputs}]; got {:?}", &x[2..]));
        }
        if x.iter().any(|shape| shape.contains(&0)) {
            return Err(format!("wants axes of 1 at least; got {x:?}"));
        }
        let to = |axis: usize, size: usize, kernel: usize| {
            let (padded, extent) = (size + 2 * op.padding[axis], op.dilation[axis] * (kernel - 1) + 1);
            let room = padded.checked_sub(extent).ok_or_else(|| {
                format!("a kernel that spans {extent} does not fit into {padded}, {size} and the padding; x {:?}", x[0])
            });
            room.map(|room| room / op.stride[axis] + 1)
        };
        let to = [to(0, h, kh)?, to(1, w, kw)?];
        Ok(Self { op: *op, batch, inputs, outputs, kernel: [kh, kw], from: [h, w], to })
    }
    /// Terms of an output's sum.
    pub fn taps(&self) -> usize {
        self.inputs / self.op.groups * self.kernel[0] * self.kernel[1]
    }
    pub fn pixels(&self) -> usize {
        self.to[0] * self.to[1]
    }
    /// Elements of `channels` images of x's size.
    pub fn plane(&self, channels: usize) -> usize {
        channels * self.from[0] * self.from[1]
    }

    /// y from x: a tap reads row i S + r D - P for output row i.
    pub fn forward(&self) -> Correlation {
        let reads = |axis: usize, tap: usize| {
            let place = (tap * self.op.dilation[axis]) as isize - self.op.padding[axis] as isize;
            let stride = self.op.stride[axis] as isize;
            (place.rem_euclid(stride) as usize, place.div_euclid(stride))
        };
        let tap = |(r, s): (usize, usize)| {
            let ((up, down), (left, right)) = (reads(0, r), reads(1, s));
            Tap { phase: [up, left], shift: [down, right], weight: r * self.kernel[1] + s }
        };
        let (inputs, outputs) = (self.inputs / self.op.groups, self.outputs / self.op.groups);
        Correlation {
            batch: self.batch,
            groups: self.op.groups,
            inputs,
            outputs,
            from: self.from,
            from_step: self.op.stride,
            to: self.to,
            to_step: [1, 1],
            parts: vec![Part { phase: [0, 0], taps: self.kernel_places().map(tap).collect() }],
            strides: [outputs * self.taps(), self.taps(), self.kernel[0] * self.kernel[1]],
        }
    }

    /// The cotangent of x from that of y: row h gets what tap r took from it for output row (h + P - r D) / S, so that
    /// every S-th row has the same taps.
    pub fn backward(&self) -> Correlation {
        let gets = |axis: usize, phase: usize, tap: usize| {
            let place = (phase + self.op.padding[axis]) as isize - (tap * self.op.dilation[axis]) as isize;
            let stride = self.op.stride[axis] as isize;
            (place % stride == 0).then_some(place / stride)
        };
        let part = |phase: [usize; 2]| {
            let tap = |(r, s): (usize, usize)| {
                let shift = [gets(0, phase[0], r)?, gets(1, phase[1], s)?];
                Some(Tap { phase: [0, 0], shift, weight: r * self.kernel[1] + s })
            };
            Part { phase, taps: self.kernel_places().filter_map(tap).collect() }
        };
        let [down, right] = self.op.stride;
        let (inputs, outputs) = (self.inputs / self.op.groups, self.outputs / self.op.groups);
        Correlation {
            batch: self.batch,
            groups: self.op.groups,
            inputs: outputs,
            outputs: inputs,
            from: self.to,
            from_step: [1, 1],
            to: self.from,
            to_step: self.op.stride,
            parts: (0..down * right).map(|at| part([at / right, at % right])).collect(),
            strides: [outputs * self.taps(), self.kernel[0] * self.kernel[1], self.taps()],
        }
    }

    /// Row and column of each tap of a kernel.
    fn kernel_places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let [kh, kw] = self.kernel;
        (0..kh).flat_map(move |r| (0..kw).map(move |s| (r, s)))
    }

    /// Where row (or column) `at` of the output finds tap `tap` in the input.
    fn source(&self, axis: usize, at: usize, tap: usize) -> Option<usize> {
        let padded = at * self.op.stride[axis] + tap * self.op.dilation[axis];
        padded.checked_sub(self.op.padding[axis]).filter(|i| *i < self.from[axis])
    }

    /// Each (index into a matrix [taps, pixels], index into the images of a group) that belong together.
    fn each(&self, mut body: impl FnMut(usize, usize)) {
        let ([kh, kw], pixels) = (self.kernel, self.pixels());
        for tap in 0..self.taps() {
            let (c, r, s) = (tap / (kh * kw), tap / kw % kh, tap % kw);
            for i in 0..self.to[0] {
                let Some(row) = self.source(0, i, r) else { continue };
                for j in 0..self.to[1] {
                    let Some(column) = self.source(1, j, s) else { continue };
                    body(tap * pixels + i * self.to[1] + j, (c * self.from[0] + row) * self.from[1] + column);
                }
            }
        }
    }

    /// Fill each output channel of a sample with its bias.
    pub fn bias(&self, bias: Option<&[f32]>, y: &mut [f32]) {
        if let Some(bias) = bias {
            y.chunks_mut(self.pixels()).zip(bias).for_each(|(y, b)| y.fill(*b));
        }
    }

    fn columns(&self, x: &[f32]) -> Vec<f32> {
        let mut columns = vec![0.0; self.taps() * self.pixels()];
        self.each(|to, from| columns[to] = x[from]);
        columns
    }

    /// y (+)= W ⋆ x of one sample.
    pub fn correlate(&self, x: &[f32], w: &[f32], add: bool, y: &mut [f32]) {
        let (groups, taps, pixels) = (self.op.groups, self.taps(), self.pixels());
        let each = self.outputs / groups;
        let parts = x.chunks(self.plane(self.inputs / groups)).zip(w.chunks(each * taps));
        for ((x, w), y) in parts.zip(y.chunks_mut(each * pixels)) {
            let (columns, rows) = (self.columns(x), Strides::rows);
            let size = (each, pixels, taps);
            product(size, 1.0, w, rows(taps), &columns, rows(pixels), add, y, rows(pixels), Threads::One);
        }
    }

    /// gx += the transpose of [`Self::correlate`] in x.
    pub fn transposed(&self, gy: &[f32], w: &[f32], gx: &mut [f32]) {
        let (groups, taps, pixels) = (self.op.groups, self.taps(), self.pixels());
        let each = self.outputs / groups;
        let parts = gy.chunks(each * pixels).zip(w.chunks(each * taps));
        for ((gy, w), gx) in parts.zip(gx.chunks_mut(self.plane(self.inputs / groups))) {
            let (mut columns, rows) = (vec![0.0; taps * pixels], Strides::rows);
            let w_t = rows(taps).transposed();
            product(
                (taps, pixels, each),
                1.0,
                w,
                w_t,
                gy,
                rows(pixels),
                false,
                &mut columns,
                rows(pixels),
                Threads::One,
            );
            self.each(|from, to| gx[to] += columns[from]);
        }
    }

    /// gw += the transpose of [`Self::correlate`] in W.
    pub fn weight_gradient(&self, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        let (groups, taps, pixels) = (self.op.groups, self.taps(), self.pixels());
        let each = self.outputs / groups;
        let parts = x.chunks(self.plane(self.inputs / groups)).zip(gy.chunks(each * pixels));
        for ((x, gy), gw) in parts.zip(gw.chunks_mut(each * taps)) {
            let (columns, rows) = (self.columns(x), Strides::rows);
            let columns_t = rows(pixels).transposed();
            product(
                (each, taps, pixels),
                1.0,
                gy,
                rows(pixels),
                &columns,
                columns_t,
                true,
                gw,
                rows(taps),
                Threads::One,
            );
        }
    }
}
