//! Which kernel a product takes, in which tiles and parts: a rule from the shape, the kind of device and whether tf32 is
//! allowed, printed with the product. docs/decisions/0011 says why.
use super::{GemmShape, Layout, mma, wgmma};
use crate::gpu::{Abilities, Dtype};
use std::fmt;

/// A family of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// kernels/gemm.cu: FMAs in f32, of any operands.
    Simt,
    /// kernels/gemm_mma.cuh: tensor cores by `mma.sync`; operands both bf16, or both f32 and rounded to tf32, whose rows
    /// are whole chunks of 16 bytes.
    Mma,
    /// kernels/gemm_wgmma.cu: tensor cores by `wgmma`, fed by TMA, of sm_90a alone; operands both bf16.
    Wgmma,
}

/// The tile of C that a block makes, and the depth of the slices it goes through, as compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
}

/// How a product is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmConfig {
    pub family: Family,
    pub tile: Tile,
    /// Slices in shared memory at a time.
    pub stages: usize,
    /// Parts of the sum over k, each a block's; their results are added up in order.
    pub split: usize,
}

impl Family {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Simt => "simt",
            Self::Mma => "mma",
            Self::Wgmma => "wgmma",
        }
    }

    /// The tiles that there are kernels for, with operands of this dtype.
    pub fn tiles(self, operands: Dtype) -> Vec<Tile> {
        match self {
            Self::Simt => vec![SMALL, LARGE],
            Self::Mma => mma::of_products(operands).into_iter().map(|config| config.tile).collect(),
            Self::Wgmma => wgmma::TILES.to_vec(),
        }
    }

    /// Of the widest tile, which has the fewest.
    pub const fn stages(self) -> usize {
        match self {
            Self::Simt => 2,
            Self::Mma => 4,
            Self::Wgmma => wgmma::stages(wgmma::TILES[0]),
        }
    }
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

    /// The kernels for these operands on a device.
    pub fn family(&self, on: Abilities, tf32: bool) -> Family {
        if on.sm_90a && wgmma::takes(self) {
            return Family::Wgmma;
        }
        if on.capability >= Abilities::AMPERE.capability && self.fits_mma(tf32) {
            return Family::Mma;
        }
        Family::Simt
    }

    /// `tf32`: whether factors of f32 may be rounded to it. Where bases are not aligned to 16 bytes, `simt` has to do
    /// for what this gives to `mma`.
    pub fn config(&self, abilities: Abilities, tf32: bool) -> GemmConfig {
        match self.family(abilities, tf32) {
            Family::Wgmma => wgmma::config(self),
            Family::Mma => self.mma(),
            Family::Simt => self.simt(),
        }
    }

    /// Large tiles where they fill the device: they read less for a product. Small ones elsewhere, and the sum
    /// in parts where not even those fill it.
    pub(super) fn simt(&self) -> GemmConfig {
        let config = |tile, split| GemmConfig { family: Family::Simt, tile, stages: Family::Simt.stages(), split };
        if self.tiles(LARGE) >= BLOCKS {
            return config(LARGE, 1);
        }
        let wanted = BLOCKS / self.tiles(SMALL).max(1);
        let most = self.pairs * self.k / LEAST_TERMS;
        config(SMALL, wanted.min(most).max(1))
    }

    /// Bytes of scratch that the product takes at most, whatever the device, and whatever it and its operands are stored
    /// in: what a plan reserves, which knows none of these.
    pub fn scratch(&self) -> usize {
        let operands = [(Dtype::F32, false), (Dtype::F32, true), (Dtype::Bf16, false)];
        let cases = operands.into_iter().flat_map(|case| Abilities::ALL.map(|on| (case, on)));
        let bytes = cases.map(|((dtype, tf32), on)| {
            let shape = Self { a: dtype, b: dtype, ..*self };
            shape.config(on, tf32).scratch(&shape)
        });
        bytes.fold(self.simt().scratch(self), usize::max)
    }
}

impl GemmConfig {
    /// Bytes of the parts of a split sum, and of a bias's gradient with them.
    pub fn scratch(&self, shape: &GemmShape) -> usize {
        let sums = if shape.layout == Layout::Tn { shape.m } else { 0 };
        if self.split > 1 { 4 * self.split * (shape.m * shape.n + sums) } else { 0 }
    }
}

impl fmt::Display for GemmConfig {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { family, tile: Tile { rows, columns, depth }, stages, split } = self;
        write!(f, "{} {rows}x{columns}x{depth}, {stages} stages, split {split}", family.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Dtype::{Bf16, F32};
    use Layout::{Nn, Nt, Tn};

    fn line(layout: Layout, (m, n, k): (usize, usize, usize), pairs: usize, [a, b, c]: [Dtype; 3]) -> String {
        let shape = GemmShape { layout, m, n, k, pairs, a, b, c };
        format!("{shape}: {}", shape.config(Abilities::AMPERE, false))
    }

    #[test]
    fn the_rule_is_printed() {
        let lines = [
            line(Nt, (1024, 384, 384), 1, [F32; 3]),
            line(Nt, (4096, 3072, 768), 2, [F32; 3]),
            line(Tn, (768, 768, 4096), 1, [F32, Bf16, F32]),
            line(Nn, (1, 1, 0), 1, [F32; 3]),
            line(Nt, (1024, 384, 384), 1, [Bf16; 3]),
            line(Nt, (1024, 384, 380), 1, [Bf16; 3]),
        ];
        let want = [
            "nt 1024x384x384 f32: simt 64x64x32, 2 stages, split 1",
            "nt 4096x3072x768 x 2 f32: simt 128x64x32, 2 stages, split 1",
            "tn 768x768x4096 f32 bf16 > f32: simt 64x64x32, 2 stages, split 1",
            "nn 1x1x0 f32: simt 64x64x32, 2 stages, split 1",
            "nt 1024x384x384 bf16: mma 64x64x64, 4 stages, split 1",
            "nt 1024x384x380 bf16: simt 64x64x32, 2 stages, split 1",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn parts_of_a_sum_are_never_empty() {
        for (m, n) in [(1, 1), (2, 768), (768, 768), (384, 1536), (4096, 4096)] {
            for k in [0, 1, 31, 511, 512, 1024, 4096, 1 << 20] {
                for (dtype, tf32) in [(F32, false), (F32, true), (Bf16, false)] {
                    for on in Abilities::ALL {
                        let shape = GemmShape { layout: Tn, m, n, k, pairs: 1, a: dtype, b: dtype, c: F32 };
                        let config = shape.config(on, tf32);
                        let slices = k.div_ceil(config.tile.depth);
                        assert!(config.split == 1 || (2..=slices).contains(&config.split), "{shape}: {config}");
                        assert!(config.scratch(&shape) <= shape.scratch(), "{shape}: {config}");
                    }
                }
            }
        }
    }
}
