//! How a correlation's outputs are dealt out: bands of rows that stay in cache with what they read, vectors of a band's
//! pixels, and tiles of a few vectors. None of it changes a sum.
use super::correlation::{Correlation, Part};
use super::planes::Planes;
use super::tile::{Registers, VECTORS};

/// Vectors of pixels whose sums are made together, at most.
pub(super) const MOST: usize = 15;
/// Floats that a task's images may take.
pub(super) const FLOATS: usize = 250_000;

/// Pixels that stand side by side in the images read, in the vectors, and in the images written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub from: usize,
    pub at: usize,
    pub to: usize,
    pub len: usize,
    pub sample: usize,
}

/// Vectors of pixels whose sums are made together.
#[derive(Debug)]
pub(super) struct Tiles {
    /// Where each vector begins: in the images laid out, or in the panel that the runs are packed into.
    pub bases: Vec<usize>,
    pub packed: bool,
    pub runs: Vec<Run>,
    /// The runs as they are written: those that follow each other there too are one.
    pub written: Vec<Run>,
}

impl Tiles {
    fn new(bases: Vec<usize>, packed: bool, runs: Vec<Run>, step: usize) -> Self {
        let mut written: Vec<Run> = Vec::new();
        for run in &runs {
            match written.last_mut() {
                Some(last)
                    if step == 1
                        && (last.sample, last.to + last.len, last.at + last.len) == (run.sample, run.to, run.at) =>
                {
                    last.len += run.len;
                }
                _ => written.push(*run),
            }
        }
        Self { bases, packed, runs, written }
    }
}

/// Rows `first..first + rows` of a part's outputs.
#[derive(Debug)]
pub(super) struct Band {
    pub part: usize,
    pub first: usize,
    pub rows: usize,
    /// Where each tap reads.
    pub offsets: Vec<usize>,
    pub tiles: Vec<Tiles>,
}

/// A band's pixels as they are laid out: `samples` samples of `each` floats, rows of `width` pixels `pitch` apart.
struct Laid<'a> {
    part: &'a Part,
    first: usize,
    rows: usize,
    width: usize,
    pitch: usize,
    samples: usize,
    each: usize,
    lanes: usize,
}

/// Whether tiles read pixels where they stand, the columns between two rows included, or have them packed first: no more
/// than a tenth of the lanes may idle.
pub(super) fn in_place(pitch: usize, [rows, width]: [usize; 2], lanes: usize) -> bool {
    let end = rows.saturating_sub(1) * pitch + width;
    rows * width > 0 && 20 * end.next_multiple_of(lanes) <= 22 * rows * width
}

impl Correlation {
    /// The bands of all parts for `samples` samples that are laid out one after the other.
    pub(super) fn bands(&self, planes: &Planes, registers: Registers, samples: usize, sources: usize) -> Vec<Band> {
        let channels = sources * self.inputs;
        let mut bands = Vec::new();
        for (nth, part) in self.parts.iter().enumerate() {
            let [height, width] = self.grid(part);
            if samples * height * width == 0 || part.taps.is_empty() {
                continue;
            }
            let rows = (1..=height).rev().find(|rows| planes.len(*rows, channels) * samples <= FLOATS).unwrap_or(1);
            let rows = height.div_ceil(height.div_ceil(rows)); // bands of about the same height
            for first in (0..height).step_by(rows) {
                let rows = rows.min(height - first);
                let places = (0..channels).flat_map(|c| part.taps.iter().map(move |tap| (c, tap)));
                let offsets = places.map(|(c, tap)| planes.offset(rows, c, tap)).collect();
                let (pitch, each, lanes) = (planes.pitch, planes.len(rows, channels), registers.lanes);
                let laid = Laid { part, first, rows, width, pitch, samples, each, lanes };
                let standing = in_place(pitch, [rows, width], lanes);
                let tiles = if standing { self.standing(&laid) } else { self.packed(&laid) };
                bands.push(Band { part: nth, first, rows, offsets, tiles });
            }
        }
        bands
    }

    /// Where pixel (i, j) of a band is written.
    fn place(&self, laid: &Laid, i: usize, j: usize) -> usize {
        let row = laid.part.phase[0] + (laid.first + i) * self.to_step[0];
        row * self.to[1] + laid.part.phase[1] + j * self.to_step[1]
    }

    /// Vectors of a band's pixels where they stand.
    fn standing(&self, laid: &Laid) -> Vec<Tiles> {
        let &Laid { rows, width, pitch, samples, each, lanes, .. } = laid;
        let end = (rows - 1) * pitch + width;
        let wide = even(samples * end.div_ceil(lanes));
        let vectors = (0..samples).flat_map(|sample| (0..end).step_by(lanes).map(move |start| (sample, start)));
        let tiles = |vectors: &[(usize, usize)]| {
            let mut runs = Vec::new();
            for (nth, &(sample, start)) in vectors.iter().enumerate() {
                let stop = end.min(start + lanes);
                for i in start / pitch..stop.div_ceil(pitch) {
                    let (a, b) = ((i * pitch).max(start), (i * pitch + width).min(stop));
                    if a < b {
                        let (at, to) = (nth * lanes + a - start, self.place(laid, i, a - i * pitch));
                        runs.push(Run { from: 0, at, to, len: b - a, sample });
                    }
                }
            }
            let bases = vectors.iter().map(|(sample, start)| sample * each + start).collect();
            Tiles::new(bases, false, runs, self.to_step[1])
        };
        vectors.collect::<Vec<_>>().chunks(wide).map(tiles).collect()
    }

    /// The same, rows of all samples packed side by side.
    fn packed(&self, laid: &Laid) -> Vec<Tiles> {
        let &Laid { rows, width, pitch, samples, each, lanes, .. } = laid;
        let wide = even((samples * rows * width).div_ceil(lanes)) * lanes;
        let tiles = |filled: usize, runs| Tiles::new((0..filled).step_by(lanes).collect(), true, runs, self.to_step[1]);
        let (mut all, mut filled, mut runs) = (Vec::new(), 0, Vec::new());
        for (sample, i) in (0..samples).flat_map(|sample| (0..rows).map(move |i| (sample, i))) {
            let mut j = 0;
            while j < width {
                let len = (width - j).min(lanes).min(wide - filled);
                let from = sample * each + i * pitch + j;
                runs.push(Run { from, at: filled, to: self.place(laid, i, j), len, sample });
                (filled, j) = (filled + len, j + len);
                if filled == wide {
                    all.push(tiles(wide, std::mem::take(&mut runs)));
                    filled = 0;
                }
            }
        }
        if filled > 0 {
            all.push(tiles(filled, runs));
        }
        all
    }
}

/// Vectors that are taken together, of so many: as even as can be, in whole tiles.
fn even(vectors: usize) -> usize {
    vectors.div_ceil(vectors.div_ceil(MOST).max(1)).next_multiple_of(VECTORS).clamp(VECTORS, MOST)
}
