//! Resizing of bytes as PIL does it: antialiased, in 22-bit fixed point, rounded to bytes between its two passes.
//!
//! out[i] = sum_j w((j - c_i + 1/2) / s) in[j] / sum_j w(..), with c_i = (i + 1/2) r, r = in/out the scale and
//! s = max(r, 1): a picture that shrinks is filtered with a wider kernel.
use std::borrow::Cow;

use super::picture::Picture;
use crate::data::preprocess::Size;

/// The kernel, by the number PIL and `preprocessor_config.json` give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    Nearest = 0,
    Lanczos,
    Bilinear,
    Bicubic,
    Box,
    Hamming,
}

impl Filter {
    /// `resample` 0 to 5.
    pub fn numbered(number: u64) -> Option<Self> {
        let all = [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming];
        all.get(usize::try_from(number).ok()?).copied()
    }

    /// Where the kernel ends.
    fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
        let a = x.abs();
        match self {
            Self::Nearest => 0.0,
            // Half open, so that no pixel counts twice.
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - a).max(0.0),
            Self::Hamming if a < 1.0 => sinc(x) * (0.54 + 0.46 * (a * std::f64::consts::PI).cos()),
            // Keys' kernel with a = -1/2.
            Self::Bicubic if a < 1.0 => (1.5 * a - 2.5) * a * a + 1.0,
            Self::Bicubic if a < 2.0 => ((-0.5 * a + 2.5) * a - 4.0) * a + 2.0,
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

/// Bits behind the point of a weight: a byte and the sum's sign and carry take the other ten.
const PRECISION: u32 = 32 - 8 - 2;
/// What rounds a sum once it is shifted.
const HALF: i32 = 1 << (PRECISION - 1);

/// What one output sample is made of: the first input sample and the weights from there on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// One for each of `out` samples of a line of `from`.
fn taps(from: usize, out: usize, filter: Filter) -> Vec<Taps> {
    let ratio = from as f64 / out as f64;
    let scale = ratio.max(1.0);
    let support = filter.support() * scale;
    let of = |i: usize| {
        let centre = (i as f64 + 0.5) * ratio;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let last = ((centre + support + 0.5) as usize).min(from);
        let raw: Vec<f64> = (first..last).map(|j| filter.weight((j as f64 - centre + 0.5) * (1.0 / scale))).collect();
        let sum: f64 = raw.iter().sum();
        let unit = f64::from(1 << PRECISION);
        let fixed = |w: &f64| {
            let w = unit * if sum == 0.0 { *w } else { w / sum };
            // Half away from zero.
            (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
        };
        Taps { first, weights: raw.iter().map(fixed).collect() }
    };
    (0..out).map(of).collect()
}

/// A weighted sum, rounded and held within a byte.
fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// `picture` at (height, width).
pub fn resize(picture: Picture, (height, width): (usize, usize), filter: Filter) -> Picture {
    if picture.size() == (height, width) {
        return picture;
    }
    let bytes = match filter {
        Filter::Nearest => {
            let (rows, columns) = (nearest(picture.height, height), nearest(picture.width, width));
            let row =
                |plane: &[u8], y: usize| -> Vec<u8> { columns.iter().map(|&x| plane[y * picture.width + x]).collect() };
            picture
                .planes()
                .flat_map(|plane| rows.iter().flat_map(move |&y| row(plane, y)).collect::<Vec<_>>())
                .collect()
        }
        _ => {
            let columns = taps(picture.width, width, filter);
            let rows = taps(picture.height, height, filter);
            picture.planes().flat_map(|plane| filtered(plane, picture.size(), &rows, &columns)).collect()
        }
    };
    Picture { channels: picture.channels, height, width, bytes }
}

/// Both passes over one plane. One that would leave every sample as it is is left out, as PIL leaves it out.
fn filtered(plane: &[u8], (height, width): Size, rows: &[Taps], columns: &[Taps]) -> Vec<u8> {
    // Bytes between the passes make their order matter. This is Pillow 13's; older ones always take columns first.
    if rows.len() < height && 2 * (width as isize - columns.len() as isize) < (height - rows.len()) as isize {
        across(&down(plane, (height, width), rows), width, columns).into_owned()
    } else {
        down(&across(plane, width, columns), (height, columns.len()), rows)
    }
}

/// Every row of `width` samples at as many as `columns` has.
fn across<'a>(plane: &'a [u8], width: usize, columns: &[Taps]) -> Cow<'a, [u8]> {
    if columns.len() == width {
        return Cow::Borrowed(plane);
    }
    let mut out = Vec::with_capacity(plane.len() / width * columns.len());
    for line in plane.chunks_exact(width) {
        out.extend(columns.iter().map(|taps| {
            let samples = taps.weights.iter().zip(&line[taps.first..]);
            byte(samples.fold(HALF, |sum, (w, &p)| sum.wrapping_add(w * i32::from(p))))
        }));
    }
    Cow::Owned(out)
}

/// Every column of `height` samples at as many as `rows` has.
fn down(plane: &[u8], (height, width): Size, rows: &[Taps]) -> Vec<u8> {
    if rows.len() == height {
        return plane.to_vec();
    }
    let (mut out, mut sums) = (Vec::with_capacity(rows.len() * width), vec![HALF; width]);
    for taps in rows {
        sums.fill(HALF);
        for (w, line) in taps.weights.iter().zip(plane[taps.first * width..].chunks_exact(width)) {
            sums.iter_mut().zip(line).for_each(|(sum, &p)| *sum = sum.wrapping_add(w * i32::from(p)));
        }
        out.extend(sums.iter().map(|&sum| byte(sum)));
    }
    out
}

/// The sample at each output's centre, the position summed up step by step as PIL does.
fn nearest(from: usize, out: usize) -> Vec<usize> {
    let step = from as f64 / out as f64;
    let mut at = step * 0.5;
    (0..out)
        .map(|_| {
            let here = (at as usize).min(from - 1);
            at += step;
            here
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one() {
        for filter in (1..6).filter_map(Filter::numbered) {
            for (from, out) in [(7, 3), (3, 7), (100, 1), (1, 5), (224, 224)] {
                for taps in taps(from, out, filter) {
                    let sum: i64 = taps.weights.iter().map(|&w| i64::from(w)).sum();
                    assert!((sum - (1 << PRECISION)).abs() <= taps.weights.len() as i64, "{filter:?} {from} {out}");
                    assert!(taps.first + taps.weights.len() <= from);
                }
            }
        }
    }

    #[test]
    fn a_step_by_hand() {
        let picture = Picture { channels: 1, height: 1, width: 4, bytes: vec![0, 100, 200, 100] };
        // Halved: each output's tent spans four samples, (1 3 3 1)/8, cut off at the ends.
        let half = resize(picture.clone(), (1, 2), Filter::Bilinear);
        assert_eq!(half.bytes, [71, 143]); // (0*3 + 100*3 + 200)/7 and (100 + 200*3 + 100*3)/7
        assert_eq!(resize(picture.clone(), (1, 2), Filter::Box).bytes, [50, 150]);
        assert_eq!(resize(picture, (2, 2), Filter::Nearest).bytes, [100, 100, 100, 100]);
    }
}
