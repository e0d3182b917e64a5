//! Images as a correlation reads them: the rows of a band with zeros around, columns (and rows) that a stride skips
//! put apart, so that every tap is a shift of one and the same list of pixels.
use super::tile::{put, transpose};
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

    /// Lay the band of `rows` rows from `first` on of `images` out. The zeros around them stand there already.
    #[inline(always)]
    pub fn fill<S: Simd>(&self, s: S, images: &[f32], (first, rows): (usize, usize), to: &mut [f32]) {
        let ([height, width], [down, right]) = (self.size, self.step);
        let mut planes = to.chunks_exact_mut(self.plane(rows));
        for image in images.chunks_exact(height * width) {
            for &[up, left] in &self.phases {
                let Some(to) = planes.next() else { return };
                let columns = width.saturating_sub(left).div_ceil(right).min(self.pitch - self.lead[1]);
                let skipped = self.lead[0].saturating_sub(first);
                let row = up + (first + skipped - self.lead[0]) * down;
                let (Some(from), Some(to)) = (image.get(row * width..), to.get_mut(skipped * self.pitch..)) else {
                    continue;
                };
                if self.pitch == width && columns == width && down == 1 {
                    // Rows without zeros between them.
                    let n = to.len().min(from.len());
                    put(s, &mut to[..n], &from[..n], false);
                    continue;
                }
                let rows = to.chunks_exact_mut(self.pitch).zip(from.chunks(down * width));
                let rows = rows
                    .map(|(to, from)| (&mut to[self.lead[1]..self.lead[1] + columns], &from[left.min(width)..width]));
                // Short rows of the usual lengths without a loop.
                match (right, columns) {
                    (1, 8) => rows.for_each(|(to, from)| copy::<8>(to, from)),
                    (1, 16) => rows.for_each(|(to, from)| copy::<16>(to, from)),
                    (1, 32) => rows.for_each(|(to, from)| copy::<32>(to, from)),
                    (1, _) => rows.for_each(|(to, from)| put(s, to, &from[..columns], false)),
                    (2, 8) => rows.for_each(|(to, from)| halve::<8>(to, from)),
                    (2, 16) => rows.for_each(|(to, from)| halve::<16>(to, from)),
                    _ => rows.for_each(|(to, from)| pick(right, from, to)),
                }
            }
        }
    }

    /// The same band with a pixel's channels side by side, `apart` from the next pixel's: in place of planes, images of
    /// each phase.
    #[inline(always)]
    pub fn turn(&self, images: &[f32], (first, rows): (usize, usize), apart: usize, to: &mut [f32]) {
        let ([height, width], [down, right]) = (self.size, self.step);
        let (lead, image) = (self.lead[1], height * width);
        let channels = images.len() / image;
        let mut picked = [(); 4].map(|()| Vec::new());
        let each = self.plane(rows) * apart;
        for (to, [up, left]) in to.chunks_exact_mut(each).zip(&self.phases) {
            let columns = (width.saturating_sub(*left)).div_ceil(right).min(self.pitch - lead);
            for (i, to) in to.chunks_exact_mut(self.pitch * apart).enumerate() {
                let row = (first + i).checked_sub(self.lead[0]).map(|i| up + i * down).filter(|i| *i < height);
                let Some(row) = row else {
                    to.fill(0.0);
                    continue;
                };
                to[..lead * apart].fill(0.0);
                to[(lead + columns) * apart..].fill(0.0);
                let to = &mut to[lead * apart..(lead + columns) * apart];
                let from =
                    |c: usize| &images[c * image + row * width + left.min(&width)..c * image + (row + 1) * width];
                for c in (0..channels / 4 * 4).step_by(4) {
                    if right == 1 {
                        transpose([0, 1, 2, 3].map(|k| &from(c + k)[..columns]), &mut to[c..], apart);
                        continue;
                    }
                    for (k, picked) in picked.iter_mut().enumerate() {
                        picked.resize(columns, 0.0);
                        match (right, columns) {
                            (2, 8) => halve::<8>(picked, from(c + k)),
                            (2, 16) => halve::<16>(picked, from(c + k)),
                            _ => pick(right, from(c + k), picked),
                        }
                    }
                    transpose([0, 1, 2, 3].map(|k| &picked[k][..]), &mut to[c..], apart);
                }
                for c in channels / 4 * 4..channels {
                    let pixels = to[c..].iter_mut().step_by(apart);
                    pixels.zip(from(c).iter().step_by(right)).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }
}

/// Every `step`-th of `from`, as many as there is room for.
#[inline(always)]
fn pick(step: usize, from: &[f32], to: &mut [f32]) {
    if step != 2 {
        return to.iter_mut().zip(from.iter().step_by(step)).for_each(|(to, from)| *to = *from);
    }
    // In a form that the compiler makes vector code of.
    let (pairs, last) = from.as_chunks::<2>();
    for (to, pair) in to.iter_mut().zip(pairs) {
        *to = pair[0];
    }
    if let ([last], Some(to)) = (last, to.get_mut(pairs.len())) {
        *to = *last;
    }
}

#[inline(always)]
fn copy<const N: usize>(to: &mut [f32], from: &[f32]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
        *to = *from;
    }
}

/// N numbers, and what stands between them left out.
#[inline(always)]
fn halve<const N: usize>(to: &mut [f32], from: &[f32]) {
    let pairs = from.as_chunks::<2>().0.first_chunk::<N>();
    match (to.first_chunk_mut::<N>(), pairs) {
        (Some(to), Some(pairs)) => *to = pairs.map(|pair| pair[0]),
        _ => pick(2, from, to),
    }
}
