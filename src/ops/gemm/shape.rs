//! Which tiles a product on a device takes: a rule from its shape alone, printed with the product.
//!
//! The rule knows no device: the order in which an element is summed, and with it every bit, is the same on all.
use crate::gpu::Dtype;
use std::fmt;

/// What is transposed, as BLAS names it: rows of A and B are (m, n), (m, k) or (k, k).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// C = A Bᵀ, with A [m, k] and B [n, k].
    Nt,
    /// C = A B, with A [m, k] and B [k, n].
    Nn,
    /// C = Aᵀ B, with A [k, m] and B [k, n].
    Tn,
}

impl Layout {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nt => "nt",
            Self::Nn => "nn",
            Self::Tn => "tn",
        }
    }
}

/// A product C [m, n] = Σ A B, with `k` terms an element from each of `pairs` pairs of operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmShape {
    pub layout: Layout,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub pairs: usize,
    pub a: Dtype,
    pub b: Dtype,
    pub c: Dtype,
}

/// The tile of C that a block makes, and the depth of the slices it goes through; as compiled in kernels/gemm.cu.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
}

/// How a product is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmConfig {
    pub tile: Tile,
    /// Parts of the sum over k, each a block's; their results are added up in order.
    pub split: usize,
}

impl Tile {
    /// What kernels there are.
    pub const ALL: [Self; 2] = [SMALL, LARGE];
}

const LARGE: Tile = Tile { rows: 128, columns: 64, depth: 32 };
const SMALL: Tile = Tile { rows: 64, columns: 64, depth: 32 };
/// Blocks that fill a device: two on each of an H100's 132 multiprocessors.
const BLOCKS: usize = 264;
/// Terms a part of a split sum has at least: fewer would not pay for writing it out and reading it back.
const LEAST_TERMS: usize = 512;

impl GemmShape {
    /// Tiles of C.
    pub fn tiles(&self, tile: Tile) -> usize {
        self.m.div_ceil(tile.rows) * self.n.div_ceil(tile.columns)
    }

    /// Large tiles where they fill the device: they read less for a product. Small ones elsewhere, and the sum
    /// in parts where not even those fill it.
    pub fn config(&self) -> GemmConfig {
        if self.tiles(LARGE) >= BLOCKS {
            return GemmConfig { tile: LARGE, split: 1 };
        }
        let wanted = BLOCKS / self.tiles(SMALL).max(1);
        let most = self.pairs * self.k / LEAST_TERMS;
        GemmConfig { tile: SMALL, split: wanted.min(most).max(1) }
    }
}

impl GemmConfig {
    /// Bytes of the parts of a split sum.
    pub fn scratch(&self, shape: &GemmShape) -> usize {
        if self.split > 1 { 4 * self.split * shape.m * shape.n } else { 0 }
    }
}

impl fmt::Display for GemmShape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { layout, m, n, k, pairs, a, b, c } = self;
        write!(f, "{} {m}x{n}x{k}", layout.name())?;
        if *pairs > 1 {
            write!(f, " x {pairs}")?;
        }
        match a == b && b == c {
            true => write!(f, " {}", a.suffix()),
            false => write!(f, " {} {} > {}", a.suffix(), b.suffix(), c.suffix()),
        }
    }
}

impl fmt::Display for GemmConfig {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { tile: Tile { rows, columns, depth }, split } = self;
        write!(f, "tile {rows}x{columns}x{depth}, split {split}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(layout: Layout, (m, n, k): (usize, usize, usize), pairs: usize, [a, b, c]: [Dtype; 3]) -> String {
        let shape = GemmShape { layout, m, n, k, pairs, a, b, c };
        format!("{shape}: {}", shape.config())
    }

    #[test]
    fn the_rule_is_printed() {
        use Dtype::{Bf16, F32};
        use Layout::{Nn, Nt, Tn};
        let lines = [
            line(Nt, (1024, 384, 384), 1, [F32; 3]),
            line(Nt, (4096, 3072, 768), 2, [Bf16; 3]),
            line(Nt, (32, 2, 768), 1, [Bf16, Bf16, F32]),
            line(Tn, (768, 768, 4096), 1, [Bf16, Bf16, F32]),
            line(Nn, (1, 1, 0), 1, [F32; 3]),
        ];
        let want = [
            "nt 1024x384x384 f32: tile 64x64x32, split 1",
            "nt 4096x3072x768 x 2 bf16: tile 128x64x32, split 1",
            "nt 32x2x768 bf16 bf16 > f32: tile 64x64x32, split 1",
            "tn 768x768x4096 bf16 bf16 > f32: tile 64x64x32, split 1",
            "nn 1x1x0 f32: tile 64x64x32, split 1",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn parts_of_a_sum_are_never_empty_and_fit_the_device() {
        for (m, n) in [(1, 1), (2, 768), (768, 768), (384, 1536), (4096, 4096)] {
            for k in [0, 1, 31, 511, 512, 1024, 4096, 1 << 20] {
                let [a, b, c] = [Dtype::F32; 3];
                let shape = GemmShape { layout: Layout::Tn, m, n, k, pairs: 1, a, b, c };
                let config = shape.config();
                assert!(
                    config.split >= 1 && (config.split == 1 || config.split * LEAST_TERMS <= k),
                    "{shape}: {config}"
                );
                assert!(config.split == 1 || config.split * shape.tiles(config.tile) <= BLOCKS, "{shape}: {config}");
            }
        }
    }
}
