//! Images as a correlation reads them: the rows of a band with zeros around, columns (and rows) that a stride skips
//! put apart, so that every tap is a shift of one and the same list of pixels.
use super::tile::put;
use pulp::Simd;

/// Where a tap reads, relative to where its output stands: in images of every `step`-th row and column from `phase` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    pub phase: [usize; 2],
    pub shift: [isize; 2],
    /// Its place in the kernel.
    pub weight: usize,
}

/// How a band of `rows` rows of outputs is laid out: for each channel and each phase that a tap reads, rows of `pitch`.
///
/// The zeros on a row's right are those on the next row's left.
#[derive(Clone, Debug)]
pub(super) struct Planes {
    /// Of the images.
    size: [usize; 2],
    step: [usize; 2],
    phases: Vec<[usize; 2]>,
    /// Rows and columns of zeros in front.
    lead: [usize; 2],
    /// Rows that the taps reach beyond a band's.
    reach: usize,
    pub pitch: usize,
}

impl Planes {
    /// `to`: rows and columns of the largest grid of outputs.
    pub fn new(size: [usize; 2], step: [usize; 2], to: [usize; 2], taps: &[Tap]) -> Self {
        let mut phases: Vec<[usize; 2]> = taps.iter().map(|t| t.phase).collect();
        phases.sort_unstable();
        phases.dedup();
        let shifts = |axis: usize| taps.iter().map(move |t| t.shift[axis]);
        let lead = [0, 1].map(|axis| shifts(axis).min().map_or(0, |least| least.min(0).unsigned_abs()));
        let most = [0, 1].map(|axis| shifts(axis).max().unwrap_or(0));
        let reach = (most[0] + lead[0] as isize).max(0) as usize;
        let last = (to[1] as isize + most[1]).max(1) as usize;
        let wide = size[1].div_ceil(step[1]).min(last) + lead[1];
        Self { size, step, phases, lead, reach, pitch: wide.max(last) }
    }

    /// Floats of a channel's plane of one phase.
    fn plane(&self, rows: usize) -> usize {
        (rows + self.reach) * self.pitch
    }
    pub fn len(&self, rows: usize, channels: usize) -> usize {
        self.plane(rows) * self.phases.len() * channels
    }

    /// Floats that may be read, and mean nothing, behind the end.
    pub fn slack(&self, lanes: usize) -> usize {
        self.lead[1] + 2 * lanes
    }

    /// Where a tap of channel `c` reads for the band's first pixel.
    pub fn offset(&self, rows: usize, c: usize, tap: &Tap) -> usize {
        let phase = self.phases.iter().position(|p| *p == tap.phase).unwrap_or(0);
        let [row, column] = [0, 1].map(|axis| (tap.shift[axis] + self.lead[axis] as isize) as usize);
        (c * self.phases.len() + phase) * self.plane(rows) + row * self.pitch + column
    }

    /// Lay the band of `rows` rows from `first` on of `images` out.
    #[inline(always)]
    pub fn fill<S: Simd>(&self, s: S, images: &[f32], (first, rows): (usize, usize), to: &mut [f32]) {
        let ([height, width], [down, right]) = (self.size, self.step);
        let (plane, lead) = (self.plane(rows), self.lead[1]);
        let mut planes = to.chunks_exact_mut(plane);
        for image in images.chunks_exact(height * width) {
            for [up, left] in &self.phases {
                let Some(to) = planes.next() else { return };
                let columns = (width.saturating_sub(*left)).div_ceil(right).min(self.pitch - lead);
                for (i, to) in to.chunks_exact_mut(self.pitch).enumerate() {
                    let row = (first + i).checked_sub(self.lead[0]).map(|i| up + i * down).filter(|i| *i < height);
                    let Some(row) = row else {
                        to.fill(0.0);
                        continue;
                    };
                    let from = &image[row * width + left.min(&width)..(row + 1) * width];
                    for to in &mut to[..lead] {
                        *to = 0.0;
                    }
                    for to in &mut to[lead + columns..] {
                        *to = 0.0;
                    }
                    let to = &mut to[lead..lead + columns];
                    if right == 1 {
                        put(s, to, &from[..columns], false);
                    } else {
                        to.iter_mut().zip(from.iter().step_by(right)).for_each(|(to, from)| *to = *from);
                    }
                }
            }
        }
    }
}
