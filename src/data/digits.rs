//! Digits drawn from strokes with random distortions: data for a first run with nothing to download.
//!
//! Image i of a split is a function of (seed, split, i) alone, whatever the number drawn and the number of threads.
use rayon::prelude::*;

use super::stream;
use crate::rng::Rng;

/// Pixels of a side, as MNIST has.
pub const SIDE: usize = 28;
/// Pixels of an image.
pub const AREA: usize = SIDE * SIDE;
pub const CLASSES: usize = 10;

/// Which set an image belongs to; different sets share no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    Train,
    Test,
    Dev,
}

impl Split {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "train" => Some(Self::Train),
            "test" => Some(Self::Test),
            "dev" | "validation" => Some(Self::Dev),
            _ => None,
        }
    }
}

/// A point, x to the right and y down; strokes live in the unit square.
type Point = [f32; 2];
/// A smooth line through its points. Where a digit has a corner one stroke ends and the next begins.
type Stroke = &'static [Point];
/// One way of writing a digit.
type Glyph = &'static [Stroke];

/// The ways each digit is written.
const GLYPHS: [&[Glyph]; CLASSES] = [
    &[&[&[
        [0.5, 0.05],
        [0.26, 0.2],
        [0.18, 0.5],
        [0.25, 0.8],
        [0.5, 0.95],
        [0.75, 0.8],
        [0.82, 0.5],
        [0.74, 0.2],
        [0.5, 0.05],
    ]]],
    &[
        &[&[[0.5, 0.05], [0.5, 0.95]]],
        &[&[[0.33, 0.26], [0.52, 0.05]], &[[0.52, 0.05], [0.5, 0.95]]],
        &[&[[0.33, 0.24], [0.5, 0.05]], &[[0.5, 0.05], [0.5, 0.95]], &[[0.3, 0.95], [0.7, 0.95]]],
    ],
    &[
        &[
            &[[0.22, 0.25], [0.35, 0.09], [0.58, 0.05], [0.76, 0.2], [0.71, 0.42], [0.45, 0.7], [0.2, 0.94]],
            &[[0.2, 0.94], [0.5, 0.92], [0.82, 0.94]],
        ],
        &[&[
            [0.24, 0.22],
            [0.45, 0.05],
            [0.72, 0.15],
            [0.72, 0.4],
            [0.5, 0.7],
            [0.27, 0.92],
            [0.19, 0.82],
            [0.34, 0.76],
            [0.58, 0.9],
            [0.85, 0.88],
        ]],
    ],
    &[
        &[
            &[[0.22, 0.15], [0.48, 0.05], [0.74, 0.18], [0.68, 0.38], [0.42, 0.47]],
            &[[0.42, 0.47], [0.74, 0.56], [0.79, 0.78], [0.52, 0.95], [0.2, 0.85]],
        ],
        &[
            &[[0.24, 0.07], [0.75, 0.07]],
            &[[0.75, 0.07], [0.46, 0.4]],
            &[[0.46, 0.4], [0.75, 0.52], [0.78, 0.78], [0.5, 0.95], [0.2, 0.85]],
        ],
    ],
    &[
        &[&[[0.28, 0.08], [0.24, 0.32], [0.2, 0.55]], &[[0.2, 0.55], [0.84, 0.52]], &[[0.7, 0.1], [0.64, 0.95]]],
        &[&[[0.62, 0.05], [0.16, 0.62]], &[[0.16, 0.62], [0.85, 0.62]], &[[0.62, 0.05], [0.62, 0.95]]],
    ],
    &[&[
        &[[0.76, 0.06], [0.32, 0.07]],
        &[[0.32, 0.07], [0.27, 0.45]],
        &[[0.27, 0.45], [0.52, 0.38], [0.76, 0.52], [0.76, 0.78], [0.5, 0.95], [0.2, 0.86]],
    ]],
    &[&[&[
        [0.66, 0.05],
        [0.42, 0.25],
        [0.26, 0.55],
        [0.28, 0.82],
        [0.5, 0.95],
        [0.73, 0.83],
        [0.74, 0.63],
        [0.52, 0.51],
        [0.29, 0.68],
    ]]],
    &[
        &[&[[0.2, 0.08], [0.8, 0.08]], &[[0.8, 0.08], [0.56, 0.5], [0.42, 0.95]]],
        &[&[[0.2, 0.08], [0.8, 0.08]], &[[0.8, 0.08], [0.56, 0.5], [0.42, 0.95]], &[[0.34, 0.5], [0.74, 0.47]]],
    ],
    &[&[&[
        [0.7, 0.18],
        [0.5, 0.05],
        [0.3, 0.18],
        [0.4, 0.4],
        [0.62, 0.55],
        [0.74, 0.76],
        [0.5, 0.95],
        [0.26, 0.76],
        [0.38, 0.55],
        [0.62, 0.38],
        [0.7, 0.18],
    ]]],
    &[
        &[
            &[[0.73, 0.24], [0.5, 0.06], [0.28, 0.2], [0.3, 0.42], [0.52, 0.5], [0.73, 0.24]],
            &[[0.73, 0.24], [0.7, 0.6], [0.6, 0.95]],
        ],
        &[
            &[[0.73, 0.24], [0.5, 0.06], [0.28, 0.2], [0.3, 0.42], [0.52, 0.5], [0.73, 0.24]],
            &[[0.73, 0.24], [0.73, 0.6], [0.6, 0.88], [0.32, 0.92]],
        ],
    ],
];

/// The digit image `i` shows: every ten images hold each digit once.
pub fn class(i: usize) -> usize {
    i % CLASSES
}

/// Fills `pixels` with images 0, 1, .. of [`AREA`] bytes each: 0 is paper, 255 ink.
pub fn draw_all(seed: u64, split: Split, pixels: &mut [u8]) {
    pixels.par_chunks_exact_mut(AREA).enumerate().for_each(|(i, image)| draw(seed, split, i, image));
}

/// How a hand distorts one digit: where a point of the unit square lands among the pixels.
struct Hand {
    /// Rows of the linear map, then where the centre goes.
    map: [[f32; 2]; 2],
    centre: Point,
    /// Slow waves that bend the paper: (frequency x, frequency y, phase, shift x, shift y).
    waves: [[f32; 5]; 3],
}

impl Hand {
    fn new(rng: &mut Rng) -> Self {
        let (sin, cos) = (0.2 * rng.normal()).clamp(-0.5, 0.5).sin_cos();
        let shear = (0.22 * rng.normal()).clamp(-0.55, 0.55);
        let height = 20.0 * (1.0 + 0.09 * rng.normal()).clamp(0.75, 1.2);
        let width = 17.0 * (1.0 + 0.13 * rng.normal()).clamp(0.65, 1.3);
        let middle = SIDE as f32 / 2.0;
        let centre = [middle + (1.1 * rng.normal()).clamp(-2.5, 2.5), middle + (1.1 * rng.normal()).clamp(-2.5, 2.5)];
        let waves = std::array::from_fn(|_| {
            let frequency = |rng: &mut Rng| 1.0 + 4.5 * rng.uniform();
            let phase = std::f32::consts::TAU * rng.uniform();
            [frequency(rng), frequency(rng), phase, 0.035 * rng.normal(), 0.035 * rng.normal()]
        });
        // Rotation after a shear along x.
        let map = [[width * cos, height * (-shear * cos - sin)], [width * sin, height * (cos - shear * sin)]];
        Self { map, centre, waves }
    }

    fn place(&self, point: Point) -> Point {
        let mut bent = point;
        for [fx, fy, phase, dx, dy] in self.waves {
            let wave = (fx * point[0] + fy * point[1] + phase).sin();
            bent = [bent[0] + dx * wave, bent[1] + dy * wave];
        }
        let (x, y) = (bent[0] - 0.5, bent[1] - 0.5);
        [
            self.map[0][0] * x + self.map[0][1] * y + self.centre[0],
            self.map[1][0] * x + self.map[1][1] * y + self.centre[1],
        ]
    }
}

/// Draws image `i` into its [`AREA`] bytes.
pub fn draw(seed: u64, split: Split, i: usize, image: &mut [u8]) {
    let mut rng = Rng::new(seed, stream::DIGITS | (split as u64) << 48 | i as u64);
    let glyphs = GLYPHS[class(i)];
    let glyph = glyphs[rng.below(glyphs.len())];
    let hand = Hand::new(&mut rng);
    let radius = (1.25 + 0.4 * rng.normal()).clamp(0.6, 2.2);
    let mut ink = [0.0f32; AREA];
    for stroke in glyph {
        let points: Vec<Point> =
            stroke.iter().map(|&[x, y]| [x + 0.016 * rng.normal(), y + 0.016 * rng.normal()]).collect();
        let line: Vec<Point> = smooth(&points).into_iter().map(|point| hand.place(point)).collect();
        for pair in line.windows(2) {
            segment(pair[0], pair[1], radius, &mut ink);
        }
    }
    let strength = 215.0 + 40.0 * rng.uniform();
    for (pixel, ink) in image.iter_mut().zip(ink) {
        *pixel = (strength * ink + 9.0 * rng.normal()).clamp(0.0, 255.0) as u8;
    }
}

/// A Catmull-Rom curve through `points`, which near its ends bends as if it went on straight.
fn smooth(points: &[Point]) -> Vec<Point> {
    const STEPS: usize = 8;
    let at = |i: usize| points[i.clamp(1, points.len()) - 1];
    let mut line = Vec::with_capacity(STEPS * points.len());
    for i in 1..points.len() {
        let (p0, p1, p2, p3) = (at(i - 1), at(i), at(i + 1), at(i + 2));
        for step in 0..STEPS {
            let t = step as f32 / STEPS as f32;
            line.push(std::array::from_fn(|axis| {
                let (a, b, c, d) = (p0[axis], p1[axis], p2[axis], p3[axis]);
                b + 0.5 * t * (c - a + t * (2.0 * a - 5.0 * b + 4.0 * c - d + t * (3.0 * (b - c) + d - a)))
            }));
        }
    }
    line.extend(points.last());
    line
}

/// Inks the pixels within `radius` of the line from `a` to `b`; a pixel its edge crosses gets a share of it.
fn segment(a: Point, b: Point, radius: f32, ink: &mut [f32; AREA]) {
    let range = |axis: usize| {
        let low = (a[axis].min(b[axis]) - radius - 1.0).max(0.0) as usize;
        let high = (a[axis].max(b[axis]) + radius + 1.0).clamp(0.0, SIDE as f32) as usize;
        low..high
    };
    let along = [b[0] - a[0], b[1] - a[1]];
    let length = (along[0] * along[0] + along[1] * along[1]).max(1e-12);
    for y in range(1) {
        for x in range(0) {
            let from = [x as f32 + 0.5 - a[0], y as f32 + 0.5 - a[1]];
            let t = ((from[0] * along[0] + from[1] * along[1]) / length).clamp(0.0, 1.0);
            let distance = (from[0] - t * along[0]).hypot(from[1] - t * along[1]);
            let share = (radius + 0.5 - distance).clamp(0.0, 1.0);
            let pixel = &mut ink[y * SIDE + x];
            *pixel = pixel.max(share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(seed: u64, split: Split, n: usize) -> Vec<u8> {
        let mut pixels = vec![0; n * AREA];
        draw_all(seed, split, &mut pixels);
        pixels
    }

    #[test]
    fn an_image_depends_on_seed_split_and_number_alone() {
        let few = images(1, Split::Train, 30);
        let mut one = [0; AREA];
        draw(1, Split::Train, 17, &mut one);
        assert_eq!(few[17 * AREA..18 * AREA], one);
        assert_eq!(images(1, Split::Train, 60)[..30 * AREA], few);
        assert_ne!(images(2, Split::Train, 30), few);
        assert_ne!(images(1, Split::Test, 30), few);
        assert_ne!(few[..AREA], few[10 * AREA..11 * AREA]);
    }

    #[test]
    fn ink_is_a_plausible_share_and_stays_off_the_border() {
        let pixels = images(3, Split::Train, 500);
        let (mut least, mut most, mut border) = (f32::MAX, 0.0f32, 0.0f32);
        for image in pixels.chunks_exact(AREA) {
            let share = image.iter().filter(|&&pixel| pixel > 127).count() as f32 / AREA as f32;
            (least, most) = (least.min(share), most.max(share));
            border +=
                image[..SIDE].iter().chain(&image[AREA - SIDE..]).filter(|&&pixel| pixel > 127).count() as f32 / 500.0;
        }
        assert!(least > 0.02 && most < 0.45 && border < 1.0, "ink {least} to {most}, {border} pixels at the border");
    }

    #[test]
    fn a_drawn_line_has_its_width() {
        let mut ink = [0.0; AREA];
        segment([14.0, 4.0], [14.0, 24.0], 1.5, &mut ink);
        // Across the middle: 3 pixels of ink in all, centred between pixels 13 and 14.
        let row = &ink[14 * SIDE..15 * SIDE];
        assert_eq!(row.iter().sum::<f32>(), 3.0);
        assert_eq!((row[12], row[13], row[14], row[15]), (0.5, 1.0, 1.0, 0.5));
        assert_eq!((row[11], row[16]), (0.0, 0.0));
    }
}
