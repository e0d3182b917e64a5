//! Products of bf16 on sm_90a, by kernels/gemm_wgmma.cu: which they are, in which tiles and parts, and their launches.
use super::cuda::GemmArgs;
use super::{Family, GemmConfig, GemmShape, Layout, Tile};
use crate::gpu::{Args, Dtype, Plane, Ptr, Queue, TensorMap};
use crate::{Error, Result};

/// As `WgmmaArgs` in kernels/gemm_wgmma.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct WgmmaArgs {
    a: [TensorMap; 2],
    b: [TensorMap; 2],
    product: GemmArgs,
    pad: [u64; 5],
}
impl Args for WgmmaArgs {}
const _: () = assert!(size_of::<WgmmaArgs>() == 704);

/// The widest first: it reads least for a product.
pub(super) const TILES: [Tile; 3] = [of_width(256), of_width(128), of_width(64)];

const THREADS: u32 = 384;
/// Bytes of shared memory: the ring of stages, and what the eight warps lay down of their sums.
const RING: usize = 192 << 10;
const STRIPS: usize = 8 * 16 * 40 * 4;
/// What copies move at a time: this many rows or columns of the swizzle.
const LINE: usize = 64;
/// Terms a part of a split sum has at least: fewer would not pay for writing it out and reading it back.
const LEAST_TERMS: usize = 512;
const MOST_PARTS: usize = 16;

const fn of_width(columns: usize) -> Tile {
    Tile { rows: 128, columns, depth: LINE }
}

/// Slices that the ring has room for.
pub(super) const fn stages(tile: Tile) -> usize {
    RING / (2 * tile.depth * (tile.rows + tile.columns))
}

/// An H100 in cycles, on paper; not measured.
mod paper {
    /// Multiprocessors.
    pub const BLOCKS: usize = 132;
    /// FMAs of a multiprocessor's tensor cores.
    pub const FMAS: usize = 2048;
    /// Bytes that a multiprocessor gets from L2: three quarters of what it could take.
    pub const FROM_L2: usize = 48;
    /// To store 64 columns of a tile.
    pub const STORE: usize = 750;
    /// Bytes of parts of a sum that the device writes and reads, and the launch that adds them up.
    pub const PARTS: usize = 3000;
    pub const LAUNCH: usize = 5000;
}

/// Whether the kernels take products of this shape, where they lie aligned.
pub(super) fn takes(shape: &GemmShape) -> bool {
    let GemmShape { layout, m, n, k, pairs, a, b, .. } = *shape;
    let of_a = if layout == Layout::Tn { m } else { k };
    let of_b = if layout == Layout::Nt { k } else { n };
    let rows_aligned = of_a % 8 == 0 && of_b % 8 == 0;
    // Coordinates and counts are 32 bits wide: tiles, and slices, times parts.
    let fits = [m, n, k].iter().all(|size| (1..1 << 30).contains(size)) && shape.tiles(TILES[2]) < 1 << 24;
    a == Dtype::Bf16 && b == Dtype::Bf16 && (1..=2).contains(&pairs) && rows_aligned && fits
}

/// Whether operands begin where copies can.
pub(super) fn aligned(pairs: &[(Ptr, Ptr)]) -> bool {
    pairs.iter().all(|(a, b)| (a.0 | b.0).is_multiple_of(16) && !a.is_null() && !b.is_null())
}

/// Whether even the narrowest tiles are fewer than the multiprocessors of an H100.
pub(super) fn leaves_idle(shape: &GemmShape) -> bool {
    shape.tiles(TILES[2]) < paper::BLOCKS
}

/// The tile, and the parts of the sum, that would take least cycles on paper; of equals the first.
pub(super) fn config(shape: &GemmShape) -> GemmConfig {
    let most = (shape.pairs * shape.k / LEAST_TERMS).clamp(1, MOST_PARTS);
    let with = |tile, split| GemmConfig { family: Family::Wgmma, tile, stages: stages(tile), split };
    let parts = |tile| 1..=(paper::BLOCKS / shape.tiles(tile).max(1)).clamp(1, most);
    let all = TILES.into_iter().flat_map(|tile| parts(tile).map(move |split| with(tile, split)));
    all.min_by_key(|config| cycles(shape, config)).unwrap_or(with(TILES[0], 1))
}

/// Cycles of a product on paper.
pub(super) fn cycles(shape: &GemmShape, config: &GemmConfig) -> usize {
    let GemmConfig { tile, split, .. } = *config;
    let waves = (shape.tiles(tile) * split).div_ceil(paper::BLOCKS);
    let slices = (shape.pairs * shape.k.div_ceil(tile.depth)).div_ceil(split);
    let multiply = tile.rows * tile.columns * tile.depth / paper::FMAS;
    let bring = 2 * (tile.rows + tile.columns) * tile.depth / paper::FROM_L2;
    let (slice, store) = (multiply.max(bring), tile.columns / LINE * paper::STORE);
    // In the widest tile both groups store at a time; in others one does, while the other multiplies.
    let stores = if tile == TILES[0] { waves } else { 1 };
    let parts = if split > 1 { paper::LAUNCH + 8 * split * shape.m * shape.n / paper::PARTS } else { 0 };
    waves * slices * slice + stores * store + parts
}

/// Launch the kernel; the parts of a split sum are left in `partial`.
///
/// # Errors
/// [`Error::Unsupported`] for a product that these kernels do not take, a tile that there is none for, or a device
/// without TMA.
pub(super) fn launch(queue: &Queue, config: &GemmConfig, shape: &GemmShape, args: GemmArgs) -> Result<()> {
    let pairs: Vec<(Ptr, Ptr)> = args.a.into_iter().zip(args.b).take(shape.pairs).collect();
    let slices = shape.pairs * shape.k.div_ceil(LINE);
    let refused = if !takes(shape) {
        "wgmma takes bf16, one pair or two, rows that stand a multiple of 8 apart, and terms to add"
    } else if !aligned(&pairs) {
        "wgmma takes operands aligned to 16 bytes"
    } else if !TILES.contains(&config.tile) {
        "wgmma has tiles of 128x256x64, 128x128x64 and 128x64x64"
    } else if !(1..=slices.min(64)).contains(&config.split) {
        "a sum has no more parts than slices, and 64 at most"
    } else {
        ""
    };
    if !refused.is_empty() {
        return Err(Error::unsupported(queue.device.describe(), format!("{shape} by {config}"), refused));
    }
    let Tile { rows, columns, .. } = config.tile;
    let map = |at: Ptr, lines: usize, along: usize, box_rows: usize| {
        queue.device.tensor_map(&Plane { at, rows: lines, columns: along, pitch: along, box_rows, box_columns: LINE })
    };
    // As they lie in memory: rows of k, or of m or n for each k.
    let of_a = |at| match shape.layout {
        Layout::Tn => map(at, shape.k, shape.m, LINE),
        _ => map(at, shape.m, shape.k, rows),
    };
    let of_b = |at| match shape.layout {
        Layout::Nt => map(at, shape.n, shape.k, columns),
        _ => map(at, shape.k, shape.n, LINE),
    };
    let (first, last) = (pairs[0], pairs[pairs.len() - 1]);
    let (a, b) = ([of_a(first.0)?, of_a(last.0)?], [of_b(first.1)?, of_b(last.1)?]);
    let kernel = format!("gemm_wgmma_{}_{rows}x{columns}", shape.layout.name());
    let works = shape.tiles(config.tile) * config.split;
    let blocks = works.min(queue.device.multiprocessors() as usize) as u32;
    let args = WgmmaArgs { a, b, product: args, pad: [0; 5] };
    queue.launch(&kernel, blocks, THREADS, RING + STRIPS, &args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Dtype::{Bf16, F32};
    use Layout::{Nn, Nt, Tn};

    fn of(layout: Layout, (m, n, k): (usize, usize, usize), pairs: usize, c: Dtype) -> GemmShape {
        GemmShape { layout, m, n, k, pairs, a: Bf16, b: Bf16, c }
    }

    #[test]
    fn the_rule_is_printed() {
        let shapes = [
            of(Nt, (4096, 3072, 768), 2, Bf16),
            of(Nn, (6304, 768, 768), 1, Bf16),
            of(Nt, (1024, 384, 384), 1, Bf16),
            of(Tn, (768, 768, 4096), 1, F32),
            of(Tn, (3072, 768, 4096), 1, F32),
        ];
        let lines = shapes.map(|shape| format!("{shape}: {}", config(&shape)));
        let want = [
            "nt 4096x3072x768 x 2 bf16: wgmma 128x256x64, 4 stages, split 1",
            "nn 6304x768x768 bf16: wgmma 128x128x64, 6 stages, split 1",
            "nt 1024x384x384 bf16: wgmma 128x64x64, 8 stages, split 1",
            "tn 768x768x4096 bf16 bf16 > f32: wgmma 128x128x64, 6 stages, split 3",
            "tn 3072x768x4096 bf16 bf16 > f32: wgmma 128x256x64, 4 stages, split 1",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn shared_memory_suffices_for_one_block_and_leaves_none_for_another() {
        // 227 KiB is a block's most, and static arrays before a start aligned to 1024 bytes.
        for tile in TILES {
            let bytes = stages(tile) * 2 * tile.depth * (tile.rows + tile.columns) + STRIPS + 1024;
            assert!((114 << 10..=227 << 10).contains(&bytes), "{tile:?}: {bytes}");
        }
    }
}
