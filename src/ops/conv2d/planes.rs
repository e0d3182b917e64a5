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

/// An image's columns of one phase, as a plane has them: from column `first` on, zeros where there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    phase: [usize; 2],
    first: isize,
}

/// How a band of `rows` rows of outputs is laid out: for each channel and each view of it a plane, rows of `pitch`.
///
/// Wide planes hold all columns that the taps reach, once. The zeros on a row's right are those on the next row's left.
/// Shifted planes hold for each column that a kernel has what it reads for the outputs, and no more: of two rows one
/// begins where the other ends, so that vectors go on from row to row, and begin where cache lines do.
#[derive(Clone, Debug)]
pub(super) struct Planes {
    /// Of the images.
    size: [usize; 2],
    step: [usize; 2],
    views: Vec<View>,
    shifted: bool,
    /// Rows and columns of zeros in front.
    lead: [usize; 2],
    /// Rows that the taps reach beyond a band's.
    reach: usize,
    pub pitch: usize,
}

impl Planes {
    /// Wide planes. `to`: rows and columns of the largest grid of outputs.
    pub fn new(size: [usize; 2], step: [usize; 2], to: [usize; 2], taps: &[Tap]) -> Self {
        let shifts = |axis: usize| taps.iter().map(move |t| t.shift[axis]);
        let lead = [0, 1].map(|axis| shifts(axis).min().map_or(0, |least| least.min(0).unsigned_abs()));
        let most = [0, 1].map(|axis| shifts(axis).max().unwrap_or(0));
        let reach = (most[0] + lead[0] as isize).max(0) as usize;
        let last = (to[1] as isize + most[1]).max(1) as usize;
        let wide = size[1].div_ceil(step[1]).min(last) + lead[1];
        let views = views(taps.iter().map(|t| View { phase: t.phase, first: -(lead[1] as isize) }));
        Self { size, step, views, shifted: false, lead, reach, pitch: wide.max(last).max(to[1]) }
    }

    /// Shifted planes, unless they would be many times as large as wide ones.
    pub fn shifted(size: [usize; 2], step: [usize; 2], to: [usize; 2], taps: &[Tap]) -> Option<Self> {
        let wide = Self::new(size, step, to, taps);
        let views = views(taps.iter().map(|t| View { phase: t.phase, first: t.shift[1] }));
        let few = views.len() <= 3 * wide.views.len();
        few.then(|| Self { views, shifted: true, lead: [wide.lead[0], 0], pitch: to[1].max(1), ..wide })
    }

    /// Floats of a channel's plane of one view.
    fn plane(&self, rows: usize) -> usize {
        (rows + self.reach) * self.pitch
    }
    pub fn len(&self, rows: usize, channels: usize) -> usize {
        self.plane(rows) * self.views.len() * channels
    }

    /// Floats that may be read, and mean nothing, behind the end.
    pub fn slack(&self, lanes: usize) -> usize {
        self.lead[1] + 2 * lanes
    }

    /// Whether `fill` counts on zeros where no pixels are.
    pub fn wants_zeros(&self) -> bool {
        !self.shifted
    }

    /// Where a tap of channel `c` reads for the band's first pixel.
    pub fn offset(&self, rows: usize, c: usize, tap: &Tap) -> usize {
        let holds = |view: &View| view.phase == tap.phase && (!self.shifted || view.first == tap.shift[1]);
        let nth = self.views.iter().position(holds).unwrap_or(0);
        let row = (tap.shift[0] + self.lead[0] as isize) as usize;
        let column = (tap.shift[1] - self.views[nth].first) as usize;
        (c * self.views.len() + nth) * self.plane(rows) + row * self.pitch + column
    }

    /// Lay the band of `rows` rows from `first` on of `images` out. The zeros around those of wide planes stand there
    /// already.
    #[inline(always)]
    pub fn fill<S: Simd>(&self, s: S, images: &[f32], band: (usize, usize), to: &mut [f32]) {
        let plane = self.plane(band.1);
        for (nth, view) in self.views.iter().enumerate() {
            let to = to[nth * plane..].chunks_mut(self.views.len() * plane).map(|to| &mut to[..plane]);
            let images = images.chunks_exact(self.size[0] * self.size[1]);
            match self.shifted {
                true => self.shift(s, images.zip(to), *view, band),
                false => self.widen(s, images.zip(to), *view, band.0),
            }
        }
    }

    #[inline(always)]
    fn widen<'a, S: Simd>(
        &self,
        s: S,
        images: impl Iterator<Item = (&'a [f32], &'a mut [f32])>,
        view: View,
        first: usize,
    ) {
        let ([_, width], [down, right]) = (self.size, self.step);
        let [up, left] = view.phase;
        let columns = width.saturating_sub(left).div_ceil(right).min(self.pitch - self.lead[1]);
        let skipped = self.lead[0].saturating_sub(first);
        let row = up + (first + skipped - self.lead[0]) * down;
        for (from, to) in images {
            let (Some(from), Some(to)) = (from.get(row * width..), to.get_mut(skipped * self.pitch..)) else {
                continue;
            };
            for (to, from) in to.chunks_exact_mut(self.pitch).zip(from.chunks(down * width)) {
                let to = &mut to[self.lead[1]..self.lead[1] + columns];
                match right {
                    1 => put(s, to, &from[..columns], None, false),
                    _ => pick(right, &from[left.min(width)..width], to),
                }
            }
        }
    }

    /// Shifted planes, the zeros in them included.
    #[inline(always)]
    fn shift<'a, S: Simd>(
        &self,
        s: S,
        images: impl Iterator<Item = (&'a [f32], &'a mut [f32])>,
        view: View,
        (first, rows): (usize, usize),
    ) {
        let ([height, width], [down, right], pitch) = (self.size, self.step, self.pitch);
        let ([up, left], rows) = (view.phase, rows + self.reach);
        // Rows of the plane that the image has, and how many columns from where on.
        let count = height.saturating_sub(up).div_ceil(down);
        let begin = self.lead[0].saturating_sub(first).min(rows);
        let end = (count + self.lead[0]).saturating_sub(first).clamp(begin, rows);
        let columns = width.saturating_sub(left).div_ceil(right);
        let (lead, skip) = ((-view.first).max(0) as usize, view.first.max(0) as usize);
        let there = columns.saturating_sub(skip).min(pitch.saturating_sub(lead));
        let source = (up + (first + begin - self.lead[0]) * down) * width;
        let whole = columns == pitch && lead + skip <= 1;
        for (from, to) in images {
            if there == 0 || begin == end {
                to.fill(0.0);
                continue;
            }
            to[..begin * pitch].fill(0.0);
            to[end * pitch..].fill(0.0);
            let (from, to) = (&from[source..], &mut to[begin * pitch..end * pitch]);
            match (right, down, columns) {
                (1, 1, _) if whole => {
                    // All rows at once, a little too far on one side: the zeros come after. Whole vectors are stored
                    // where vectors are: one that lies in two cache lines costs more to store than to load.
                    let n = to.len() - lead - skip;
                    let head = if lead == 0 { 0 } else { n.min(S::F32_LANES - lead) };
                    to[lead..lead + head].copy_from_slice(&from[skip..skip + head]);
                    put(s, &mut to[lead + head..lead + n], &from[skip + head..skip + n], None, false);
                    let edge = if skip == 1 { pitch - 1 } else { 0 };
                    if lead + skip == 1 {
                        to.chunks_exact_mut(pitch).for_each(|row| row[edge] = 0.0);
                    }
                }
                (2, _, 8) if whole && width == 16 => halves::<8>(to, from, down * width, left, (lead, skip)),
                (2, _, 16) if whole && width == 32 => halves::<16>(to, from, down * width, left, (lead, skip)),
                _ => {
                    for (to, from) in to.chunks_exact_mut(pitch).zip(from.chunks(down * width)) {
                        to[..lead].fill(0.0);
                        to[lead + there..].fill(0.0);
                        let (to, from) = (&mut to[lead..lead + there], &from[left + skip * right..width]);
                        match right {
                            1 => put(s, to, &from[..there], None, false),
                            _ => pick(right, from, to),
                        }
                    }
                }
            }
        }
    }

    /// The same band with a pixel's channels side by side, `apart` from the next pixel's: in place of planes, images of
    /// each view.
    #[inline(always)]
    pub fn turn(&self, images: &[f32], (first, rows): (usize, usize), apart: usize, to: &mut [f32]) {
        let ([height, width], [down, right]) = (self.size, self.step);
        let (lead, image) = (self.lead[1], height * width);
        let channels = images.len() / image;
        let (each, along) = (self.plane(rows) * apart, self.pitch * apart);
        // Views of the same rows share out a row's columns.
        let mut nth = 0;
        for views in self.views.chunk_by(|a, b| a.phase[0] == b.phase[0]) {
            let up = views[0].phase[0];
            let to = &mut to[nth * each..(nth + views.len()) * each];
            nth += views.len();
            let place = |x: usize| {
                let view = views.iter().position(|v| v.phase[1] == x % right)?;
                let column = lead + x / right;
                (column < self.pitch).then_some(view * each + column * apart)
            };
            // Beyond the end where a column is in no view.
            let places: Vec<usize> = (0..width).map(|x| place(x).unwrap_or(to.len())).collect();
            for i in 0..rows + self.reach {
                let row = (first + i).checked_sub(self.lead[0]).map(|i| up + i * down).filter(|i| *i < height);
                for (to, view) in to.chunks_exact_mut(each).zip(views) {
                    let to = &mut to[i * along..(i + 1) * along];
                    let columns = width.saturating_sub(view.phase[1]).div_ceil(right).min(self.pitch - lead);
                    if row.is_none() {
                        to.fill(0.0);
                    } else {
                        to[..lead * apart].fill(0.0);
                        to[(lead + columns) * apart..].fill(0.0);
                    }
                }
                let Some(row) = row else { continue };
                let from = |c: usize| &images[c * image + row * width..c * image + (row + 1) * width];
                // Written out: the compiler does not inline an array's `map` here.
                for c in (0..channels / 4 * 4).step_by(4) {
                    scatter([from(c), from(c + 1), from(c + 2), from(c + 3)], &places, &mut to[i * along..], c);
                }
                for c in channels / 4 * 4..channels {
                    for (place, pixel) in places.iter().zip(from(c)) {
                        if let Some(to) = to.get_mut(i * along + place + c) {
                            *to = *pixel;
                        }
                    }
                }
            }
        }
    }
}

/// to[places[j] + at + i] = rows[i][j], and nothing where that is beyond the end. Rows are as long as there are places.
#[inline(always)]
fn scatter(rows: [&[f32]; 4], places: &[usize], to: &mut [f32], at: usize) {
    let [a, b, c, d] = rows;
    let n = places.len();
    let (fours, rest) = places.as_chunks::<4>();
    let blocks = a.as_chunks::<4>().0.iter().zip(b.as_chunks::<4>().0);
    let others = c.as_chunks::<4>().0.iter().zip(d.as_chunks::<4>().0);
    for (places, ((a, b), (c, d))) in fours.iter().zip(blocks.zip(others)) {
        for k in 0..4 {
            if let Some(to) = to.get_mut(places[k] + at..).and_then(|to| to.first_chunk_mut::<4>()) {
                *to = [a[k], b[k], c[k], d[k]];
            }
        }
    }
    for (place, j) in rest.iter().zip(n - rest.len()..) {
        if let Some(to) = to.get_mut(place + at..).and_then(|to| to.first_chunk_mut::<4>()) {
            *to = [a[j], b[j], c[j], d[j]];
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

/// Every view once.
fn views(all: impl Iterator<Item = View>) -> Vec<View> {
    let mut views: Vec<View> = all.collect();
    views.sort_unstable_by_key(|v| (v.phase, v.first));
    views.dedup();
    views
}

/// Rows of N: every second of an image's row of 2 N from `left` on, and a zero in front (`lead`) or in place of the first
/// behind the others (`skip`).
#[inline(always)]
fn halves<const N: usize>(to: &mut [f32], from: &[f32], apart: usize, left: usize, (lead, skip): (usize, usize)) {
    let rows = to.as_chunks_mut::<N>().0.iter_mut().zip(from.chunks(apart));
    let rows = rows.filter_map(|(to, from)| {
        let from = from.as_chunks::<2>().0.first_chunk::<N>()?; // always there, by the row's length
        Some((to, from.map(|pair| if left == 0 { pair[0] } else { pair[1] })))
    });
    match (lead, skip) {
        (0, 0) => rows.for_each(|(to, from)| *to = from),
        (0, _) => rows.for_each(|(to, from)| *to = std::array::from_fn(|j| from.get(j + 1).copied().unwrap_or(0.0))),
        (_, _) => rows.for_each(|(to, from)| *to = std::array::from_fn(|j| if j == 0 { 0.0 } else { from[j - 1] })),
    }
}
