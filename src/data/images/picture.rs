//! A picture in bytes, and what colours become: as PIL's `convert` has them.

/// Bytes of a grey or an RGB picture, plane after plane, each row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// 1 or 3.
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub bytes: Vec<u8>,
}

impl Picture {
    /// From samples that lie pixel by pixel, `samples` to a pixel, of which the first `channels` are kept: an alpha
    /// channel is dropped, not blended.
    pub fn from_pixels(pixels: &[u8], samples: usize, channels: usize, (height, width): (usize, usize)) -> Self {
        let plane = |c: usize| pixels.chunks_exact(samples).map(move |pixel| pixel[c]);
        let bytes = (0..channels).flat_map(plane).collect();
        Self { channels, height, width, bytes }
    }

    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// The planes, each of height x width bytes.
    pub fn planes(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact((self.height * self.width).max(1))
    }

    /// As many channels as are wanted: grey becomes three equal planes, RGB becomes the luma of ITU-R 601-2 in PIL's
    /// integers.
    pub fn into_channels(mut self, channels: usize) -> Self {
        match (self.channels, channels) {
            (1, 3) => self.bytes = self.bytes.repeat(3),
            (3, 1) => {
                let area = self.height * self.width;
                let luma = |i: usize| {
                    let [r, g, b] = [0, 1, 2].map(|c| u32::from(self.bytes[c * area + i]));
                    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
                };
                self.bytes = (0..area).map(luma).collect();
            }
            _ => return self,
        }
        Self { channels, ..self }
    }

    /// Turned upright from one of the eight EXIF orientations; others leave it as it is.
    pub fn upright(self, orientation: u16) -> Self {
        let (h, w) = self.size();
        if !(2..=8).contains(&orientation) || h * w == 0 {
            return self;
        }
        let (height, width) = if orientation >= 5 { (w, h) } else { (h, w) };
        // Where pixel (y, x) of the upright picture lies in the stored one.
        let from = |y: usize, x: usize| match orientation {
            2 => (y, w - 1 - x),
            3 => (h - 1 - y, w - 1 - x),
            4 => (h - 1 - y, x),
            5 => (x, y),
            6 => (h - 1 - x, y),
            7 => (h - 1 - x, w - 1 - y),
            _ => (x, w - 1 - y),
        };
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for plane in self.planes() {
            for y in 0..height {
                bytes.extend((0..width).map(|x| from(y, x)).map(|(sy, sx)| plane[sy * w + sx]));
            }
        }
        Self { channels: self.channels, height, width, bytes }
    }

    /// The middle `(height, width)`, on black where the picture is smaller, as `transformers` crops.
    pub fn centre(self, (height, width): (usize, usize)) -> Self {
        if self.size() == (height, width) {
            return self;
        }
        // Where the picture's first row or column lands: half of the difference, rounded up where it is padded and
        // down where it is cut.
        let start = |have: usize, want: usize| {
            if want > have { (want - have).div_ceil(2) as isize } else { -(((have - want) / 2) as isize) }
        };
        self.shifted((start(self.height, height), start(self.width, width)), (height, width))
    }

    /// `(height, width)` of black with the picture moved down and right by `by` on it.
    pub fn shifted(&self, by: (isize, isize), (height, width): (usize, usize)) -> Self {
        let mut bytes = vec![0; self.channels * height * width];
        let overlap = |have: usize, want: usize, by: isize| {
            let from = by.unsigned_abs() * usize::from(by < 0);
            let to = by.unsigned_abs() * usize::from(by > 0);
            (from, to, have.saturating_sub(from).min(want.saturating_sub(to)))
        };
        let (from_y, to_y, rows) = overlap(self.height, height, by.0);
        let (from_x, to_x, columns) = overlap(self.width, width, by.1);
        for (plane, out) in self.planes().zip(bytes.chunks_exact_mut((height * width).max(1))) {
            for y in 0..rows {
                let row = &plane[(from_y + y) * self.width + from_x..][..columns];
                out[(to_y + y) * width + to_x..][..columns].copy_from_slice(row);
            }
        }
        Self { channels: self.channels, height, width, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(height: usize, width: usize, bytes: &[u8]) -> Picture {
        Picture { channels: 1, height, width, bytes: bytes.to_vec() }
    }

    #[test]
    fn planes_and_colours() {
        let rgba = Picture::from_pixels(&[255, 0, 0, 7, 1, 2, 3, 0], 4, 3, (1, 2));
        assert_eq!(rgba.bytes, [255, 1, 0, 2, 0, 3]);
        // PIL: Image.new("RGB", (1, 1), (255, 0, 0)).convert("L") is 76.
        assert_eq!(rgba.into_channels(1).bytes, [76, 2]);
        assert_eq!(grey(1, 2, &[4, 5]).into_channels(3).bytes, [4, 5, 4, 5, 4, 5]);
    }

    #[test]
    fn eight_orientations() {
        // Stored rows: 1 2 3 / 4 5 6; what a viewer shows by the EXIF standard.
        let shown: [(u16, [u8; 6]); 8] = [
            (1, [1, 2, 3, 4, 5, 6]),
            (2, [3, 2, 1, 6, 5, 4]),
            (3, [6, 5, 4, 3, 2, 1]),
            (4, [4, 5, 6, 1, 2, 3]),
            (5, [1, 4, 2, 5, 3, 6]),
            (6, [4, 1, 5, 2, 6, 3]),
            (7, [6, 3, 5, 2, 4, 1]),
            (8, [3, 6, 2, 5, 1, 4]),
        ];
        for (orientation, bytes) in shown {
            let up = grey(2, 3, &[1, 2, 3, 4, 5, 6]).upright(orientation);
            assert_eq!((up.size(), &up.bytes[..]), (if orientation > 4 { (3, 2) } else { (2, 3) }, &bytes[..]));
        }
    }

    #[test]
    fn the_middle_is_cut_or_padded() {
        let picture = grey(3, 3, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(picture.clone().centre((1, 1)).bytes, [5]);
        // Two rows of three: the first two.
        assert_eq!(picture.clone().centre((2, 3)).bytes, [1, 2, 3, 4, 5, 6]);
        assert_eq!(picture.clone().centre((1, 4)).bytes, [0, 4, 5, 6]);
        assert_eq!(picture.shifted((1, -1), (3, 3)).bytes, [0, 0, 0, 2, 3, 0, 5, 6, 0]);
    }
}
