//! The sizes of a convolution, and what does not fit.
use super::Conv2d;
use super::correlation::{Correlation, Part};
use super::dots::Dots;
use super::partials::Partials;
use super::planes::Tap;
use super::weights::WeightGradient;
use crate::ops::Cotangent;

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
    /// Of a channel of y.
    pub fn pixels(&self) -> usize {
        self.to[0] * self.to[1]
    }
    /// Floats of a sample of x.
    pub fn image(&self) -> usize {
        self.inputs * self.from[0] * self.from[1]
    }

    /// What each tap reads of images that come apart in every `step`-th row and column.
    fn reads(&self, step: [usize; 2]) -> Vec<Tap> {
        let reads = |axis: usize, tap: usize| {
            let place = (tap * self.op.dilation[axis]) as isize - self.op.padding[axis] as isize;
            (place.rem_euclid(step[axis] as isize) as usize, place.div_euclid(step[axis] as isize))
        };
        let tap = |(r, s): (usize, usize)| {
            let ((up, down), (left, right)) = (reads(0, r), reads(1, s));
            Tap { phase: [up, left], shift: [down, right], weight: r * self.kernel[1] + s }
        };
        self.kernel_places().map(tap).collect()
    }

    /// y from x: a tap reads row i S + r D - P for output row i.
    pub fn forward(&self) -> Correlation {
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
            parts: vec![Part { phase: [0, 0], taps: self.reads(self.op.stride) }],
            strides: [outputs * self.taps(), self.taps(), self.kernel[0] * self.kernel[1]],
        }
    }

    /// The cotangent of W, g (+)=.
    pub fn weights(&self, x: &[f32], gy: &[f32], g: &mut Cotangent) {
        let (x, gy) = ((x, self.image()), (gy, self.outputs * self.pixels()));
        match self.dots() {
            Some(dots) => dots.run(x, gy, g),
            None => self.weight_gradient().prepare().run(x, gy, g),
        }
    }

    /// The same, where x has few channels.
    pub fn dots(&self) -> Option<Dots> {
        Dots::new(self, self.reads(self.op.stride))
    }

    pub fn weight_gradient(&self) -> WeightGradient {
        let (groups, stride, kernel) = (self.op.groups, self.op.stride, self.kernel);
        let (inputs, outputs) = (self.inputs / groups, self.outputs / groups);
        // Few channels fill no vector: what all taps read for a pixel is then gathered from whole images.
        let gathered = inputs <= 4 && groups == 1 && self.op.dilation == [1, 1];
        let taps = self.reads(if gathered { [1, 1] } else { stride });
        let (batch, from, to) = (self.batch, self.from, self.to);
        WeightGradient { batch, groups, inputs, outputs, from, stride, to, kernel, gathered, taps }
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
}
