//! Which tiles attention takes on tensor cores: a rule from its shape alone, printed with it, so that a result's bits
//! are the same on every device.
use std::fmt;

/// What is attended to: q, k, v are [batch, seq, heads dim].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub dim: usize,
}

/// The kernels of kernels/attention_mma.cu and attention_mma_vjp.cu.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    Forward,
    /// Forward and jvp at once.
    Dual,
    Jvp,
    VjpQ,
    VjpKv,
}

impl Part {
    pub const ALL: [Self; 5] = [Self::Forward, Self::Dual, Self::Jvp, Self::VjpQ, Self::VjpKv];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Dual => "dual",
            Self::Jvp => "jvp",
            Self::VjpQ => "vjp_q",
            Self::VjpKv => "vjp_kv",
        }
    }

    /// Tensors that a block holds its own rows of, and those that it goes through.
    const fn tensors(self) -> (usize, usize) {
        match self {
            Self::Forward => (1, 2),
            Self::Dual | Self::Jvp => (2, 4),
            Self::VjpQ | Self::VjpKv => (2, 2),
        }
    }
}

/// How it is done: a block's rows (queries; keys in `VjpKv`), the tiles of the other axis that it goes through, and
/// the columns of a head that the kernel is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionConfig {
    pub part: Part,
    pub rows: usize,
    pub tile: usize,
    pub width: usize,
}

/// Columns of a head, as compiled.
pub const WIDTHS: [usize; 6] = [32, 48, 64, 80, 96, 128];
/// As in kernels/attention_mma.cuh: threads of a block, and tiles that it has in shared memory.
pub const THREADS: u32 = 128;
const STAGES: usize = 2;
/// Rows of a block: 16 or 32 a warp.
pub const SMALL: usize = 64;
pub const LARGE: usize = 128;
/// Blocks that fill a device: two on each of an H100's 132 multiprocessors.
const BLOCKS: usize = 264;

impl AttentionShape {
    /// Blocks of so many rows.
    pub fn blocks(&self, rows: usize) -> usize {
        self.batch * self.heads * self.seq.div_ceil(rows)
    }

    /// Whether the tensor-core kernels take it: whole chunks of 16 bytes, no more columns than fit the registers, and a
    /// grid that its index can count.
    pub fn fits(&self) -> bool {
        let counted = self.seq < 1 << 30 && self.blocks(SMALL) < 1 << 31;
        self.dim > 0 && self.dim.is_multiple_of(8) && self.dim <= WIDTHS[5] && counted
    }

    /// Forward: 128 rows where these fill the device and leave no more of the last block empty than 64 do: a fragment
    /// of k or v then serves two products. Elsewhere 64; the other kernels keep sums of two kinds, which leaves no room
    /// for more.
    pub fn config(&self, part: Part) -> AttentionConfig {
        let whole = self.seq.div_ceil(LARGE) * LARGE == self.seq.div_ceil(SMALL) * SMALL;
        let large = part == Part::Forward && whole && self.blocks(LARGE) >= BLOCKS;
        self.config_of(part, if large { LARGE } else { SMALL })
    }

    /// The kernel there is for so many rows: of 64 in every part, of 128 in forward.
    pub fn config_of(&self, part: Part, rows: usize) -> AttentionConfig {
        let width = WIDTHS.into_iter().find(|w| *w >= self.dim).unwrap_or(WIDTHS[5]);
        let rows = if part == Part::Forward { rows } else { SMALL };
        let tile = if part == Part::Forward && (rows == SMALL || width <= 80) { 64 } else { 32 };
        AttentionConfig { part, rows, tile, width }
    }
}

impl AttentionConfig {
    pub fn kernel(&self) -> String {
        let Self { part, rows, tile, width } = self;
        format!("attention_mma_{}_{rows}x{tile}_{width}", part.name())
    }

    /// Bytes of shared memory: the block's own rows, tiles in two stages, and lse and delta beside those of `VjpKv`.
    pub fn shared(&self) -> usize {
        let (own, through) = self.part.tensors();
        let numbers = if self.part == Part::VjpKv { STAGES * 2 * 4 * self.tile } else { 0 };
        2 * self.width * (own * self.rows + STAGES * through * self.tile) + numbers
    }
}

impl fmt::Display for AttentionShape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { batch, seq, heads, dim } = self;
        write!(f, "attention {batch}x{seq}, {heads} heads of {dim}")
    }
}

impl fmt::Display for AttentionConfig {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { part, rows, tile, width } = self;
        write!(f, "{} {rows}x{tile} of {width}, {} KiB", part.name(), self.shared() / 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line((batch, heads, seq, dim): (usize, usize, usize, usize), part: Part) -> String {
        let shape = AttentionShape { batch, seq, heads, dim };
        format!("{shape}: {}", shape.config(part))
    }

    #[test]
    fn the_rule_is_printed() {
        let lines = [
            line((32, 12, 128, 64), Part::Forward),
            line((32, 12, 128, 64), Part::Dual),
            line((8, 12, 128, 64), Part::Forward),
            line((64, 12, 197, 64), Part::Forward),
            line((16, 12, 257, 32), Part::Forward),
            line((64, 16, 257, 80), Part::VjpKv),
            line((32, 8, 2048, 128), Part::Forward),
            line((1, 1, 1, 8), Part::Jvp),
        ];
        let want = [
            "attention 32x128, 12 heads of 64: forward 128x64 of 64, 48 KiB",
            "attention 32x128, 12 heads of 64: dual 64x32 of 64, 48 KiB",
            "attention 8x128, 12 heads of 64: forward 64x64 of 64, 40 KiB",
            "attention 64x197, 12 heads of 64: forward 128x64 of 64, 48 KiB",
            "attention 16x257, 12 heads of 32: forward 64x64 of 32, 20 KiB",
            "attention 64x257, 16 heads of 80: vjp_kv 64x32 of 80, 40 KiB",
            "attention 32x2048, 8 heads of 128: forward 128x32 of 128, 64 KiB",
            "attention 1x1, 1 heads of 8: jvp 64x32 of 32, 24 KiB",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn every_kernel_leaves_room_for_two_blocks() {
        for (part, dim) in Part::ALL.into_iter().flat_map(|part| (8..=128).step_by(8).map(move |dim| (part, dim))) {
            for rows in [SMALL, LARGE] {
                let shape = AttentionShape { batch: 1, seq: 300, heads: 2, dim };
                let config = shape.config_of(part, rows);
                assert!(shape.fits() && config.width >= dim && config.width < dim + 32, "{shape}: {config}");
                // 227 KiB of an H100's multiprocessor, 1 of which a block takes for itself.
                assert!(2 * (config.shared() + 1024) <= 227 << 10, "{shape}: {config}");
            }
        }
        for dim in [4, 9, 136] {
            assert!(!AttentionShape { batch: 1, seq: 300, heads: 2, dim }.fits(), "{dim}");
        }
    }
}
