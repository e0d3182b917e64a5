//! Products by kernels/gemm_mma_*.cu: which there are, what they take, and in which tiles and parts.
use super::{Family, GemmConfig, GemmShape, Layout, Tile};
use crate::gpu::{Dtype, Ptr};

/// What numbers are multiplied in; the kernels' names end in it.
pub(super) const fn operands(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "tf32",
        Dtype::Bf16 => "bf16",
    }
}

/// A tile of C, the bytes of k of a slice, and how many are in shared memory at a time, as compiled.
type Plan = (usize, usize, usize, usize);
const PRODUCTS: [Plan; 3] = [(64, 64, 128, 4), (128, 128, 64, 4), (256, 128, 64, 4)];
const DUALS: [Plan; 2] = [(64, 64, 64, 4), (128, 128, 64, 3)];
const REVERSES: [Plan; 2] = [(64, 64, 128, 4), (128, 128, 64, 4)];

fn configs(plans: &[Plan], dtype: Dtype) -> Vec<GemmConfig> {
    let config = |&(rows, columns, bytes, stages): &Plan| {
        let tile = Tile { rows, columns, depth: bytes / dtype.bytes() };
        GemmConfig { family: Family::Mma, tile, stages, split: 1 }
    };
    plans.iter().map(config).collect()
}

/// The kernels of products, smallest tile first.
pub(super) fn of_products(dtype: Dtype) -> Vec<GemmConfig> {
    configs(&PRODUCTS, dtype)
}

/// The kernels of dual products, smallest tile first.
pub(super) fn of_duals(dtype: Dtype) -> Vec<GemmConfig> {
    configs(&DUALS, dtype)
}

/// The kernels of both products of a reverse pass, smallest tile first.
pub(super) fn of_reverses(dtype: Dtype) -> Vec<GemmConfig> {
    configs(&REVERSES, dtype)
}

/// Threads of a block: sums of 64 x 64 a warp, or of 32 x 32 in small tiles; of dual products 64 x 32 of each kind.
pub(super) fn threads(tile: Tile, dual: bool) -> u32 {
    let most = if dual { 128 * 64 } else { 128 * 128 };
    if tile.rows * tile.columns > most { 256 } else { 128 }
}

/// Bytes of shared memory of a block.
pub(super) fn shared(config: GemmConfig, dtype: Dtype, dual: bool) -> usize {
    let Tile { rows, columns, depth } = config.tile;
    let kinds = if dual { 2 } else { 1 };
    kinds * config.stages * (rows + columns) * depth * dtype.bytes()
}

/// Whether bases are aligned as the kernels read them.
pub(super) fn aligned(operands: &[(Ptr, Ptr)]) -> bool {
    operands.iter().all(|(a, b)| (a.0 | b.0) % 16 == 0)
}

// Cycles of a multiprocessor, as an H100 has 132 of them at 1.755 GHz: what tiles are chosen by, and no forecast.
pub(super) const MULTIPROCESSORS: usize = 132;
/// Bytes that it takes from L2 in a cycle, of 5.5 TB/s for all.
const FROM_L2: usize = 24;
/// Elements of C times bytes of k that it multiplies in a cycle: mma of 16 x 8 x 32 bytes, four in 6.2 cycles.
const MULTIPLIED: usize = 2640;
/// Until a block's first slice is there, and for its epilogue.
const START: usize = 2000;
/// To launch one kernel more.
pub(super) const LAUNCH: usize = 3000;
/// Terms a part of a split sum has at least.
pub(super) const LEAST_TERMS: usize = 512;
/// Parts at most.
pub(super) const PARTS: usize = 64;

impl GemmShape {
    /// Whether these kernels take it: operands that tensor cores multiply, rows of whole chunks of 16 bytes, sizes that
    /// 32 bits count.
    pub(super) fn fits_mma(&self, tf32: bool) -> bool {
        let Self { layout, m, n, k, a, b, .. } = *self;
        let multiplied = a == b && (a == Dtype::Bf16 || tf32);
        let inner = match layout {
            Layout::Nt => [k, k],
            Layout::Nn => [k, n],
            Layout::Tn => [m, n],
        };
        let whole = inner.iter().all(|size| size.is_multiple_of(16 / a.bytes()));
        let counted = [m, n, k].iter().all(|size| (1..1 << 30).contains(size)) && self.pairs * k < 1 << 30;
        multiplied && whole && counted && m.div_ceil(64) * n.div_ceil(64) < 1 << 30
    }

    /// The tiles and parts that take the fewest cycles by the numbers above; of equals the smaller tile, then the fewer
    /// parts.
    pub(super) fn mma(&self) -> GemmConfig {
        self.cheapest(of_products(self.a), (1, 1))
    }

    /// The same of a dual product of this shape: three products of operands of two kinds.
    pub(super) fn mma_dual(&self) -> GemmConfig {
        self.cheapest(of_duals(self.a), (3, 2))
    }

    fn cheapest(&self, configs: Vec<GemmConfig>, work: (usize, usize)) -> GemmConfig {
        let most = (self.pairs * self.k / LEAST_TERMS).clamp(1, PARTS);
        let first = configs[0];
        let all = configs.into_iter().flat_map(|config| (1..=most).map(move |split| GemmConfig { split, ..config }));
        all.min_by_key(|config| self.cycles(config, work)).unwrap_or(first)
    }

    /// Until all blocks are done, each multiprocessor sharing itself out to those it has.
    pub(super) fn cycles(&self, config: &GemmConfig, work: (usize, usize)) -> usize {
        let turns = (self.tiles(config.tile) * config.split).div_ceil(MULTIPROCESSORS);
        turns * self.block_cycles(config, work) + self.add_up_cycles(config, work.1)
    }

    /// Of a block that has a multiprocessor to itself; bound by its tensor cores or by what it takes from L2.
    pub(super) fn block_cycles(&self, config: &GemmConfig, (products, kinds): (usize, usize)) -> usize {
        let Tile { rows, columns, depth } = config.tile;
        let bytes = depth * self.a.bytes();
        let slices = (self.pairs * self.k.div_ceil(depth)).div_ceil(config.split);
        let slice = (products * rows * columns * bytes / MULTIPLIED).max(kinds * (rows + columns) * bytes / FROM_L2);
        slices * slice + START
    }

    /// To write the parts of a split sum and read them again.
    pub(super) fn add_up_cycles(&self, config: &GemmConfig, kinds: usize) -> usize {
        let parts = kinds * 2 * 4 * config.split * self.m * self.n / (FROM_L2 * MULTIPROCESSORS);
        if config.split > 1 { parts + LAUNCH } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Dtype::{Bf16, F32};
    use Layout::{Nn, Nt, Tn};

    fn shape(layout: Layout, (m, n, k): (usize, usize, usize), dtype: Dtype) -> GemmShape {
        GemmShape { layout, m, n, k, pairs: 1, a: dtype, b: dtype, c: dtype }
    }

    #[test]
    fn the_rule_is_printed() {
        let line = |shape: GemmShape| format!("{shape}: {}", shape.mma());
        let dual = |shape: GemmShape| format!("{shape}, dual: {}", shape.mma_dual());
        let lines = [
            line(shape(Nt, (4096, 3072, 768), Bf16)),
            line(shape(Nt, (4096, 768, 768), Bf16)),
            line(shape(Nn, (1024, 384, 384), Bf16)),
            line(shape(Tn, (768, 768, 4096), Bf16)),
            line(shape(Nt, (8, 768, 3072), F32)),
            line(shape(Nt, (4096, 768, 768), F32)),
            dual(shape(Nt, (4096, 3072, 768), Bf16)),
            dual(shape(Nt, (256, 384, 384), F32)),
        ];
        let want = [
            "nt 4096x3072x768 bf16: mma 256x128x32, 4 stages, split 1",
            "nt 4096x768x768 bf16: mma 256x128x32, 4 stages, split 1",
            "nn 1024x384x384 bf16: mma 64x64x64, 4 stages, split 1",
            "tn 768x768x4096 bf16: mma 256x128x32, 4 stages, split 7",
            "nt 8x768x3072 f32: mma 64x64x32, 4 stages, split 6",
            "nt 4096x768x768 f32: mma 256x128x16, 4 stages, split 1",
            "nt 4096x3072x768 bf16, dual: mma 128x128x32, 3 stages, split 1",
            "nt 256x384x384 f32, dual: mma 64x64x16, 4 stages, split 1",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn shapes_that_the_kernels_take() {
        let cases = [
            (shape(Nt, (3, 5, 8), Bf16), false, true),
            (shape(Nt, (3, 5, 12), Bf16), false, false),
            (shape(Nt, (3, 5, 12), F32), true, true),
            (shape(Nt, (3, 5, 12), F32), false, false),
            (shape(Nn, (3, 24, 8), Bf16), false, true),
            (shape(Nn, (3, 20, 8), Bf16), false, false),
            (shape(Tn, (8, 16, 3), Bf16), false, true),
            (shape(Tn, (4, 16, 3), Bf16), false, false),
            (shape(Nt, (3, 5, 0), Bf16), false, false),
            (GemmShape { b: F32, ..shape(Nt, (8, 8, 8), Bf16) }, true, false),
        ];
        for (shape, tf32, fits) in cases {
            assert_eq!(shape.fits_mma(tf32), fits, "{shape}, tf32 {tf32}");
        }
    }

    /// By hand: 96 blocks, one a multiprocessor; each of 24 slices brings 384 rows and columns of 64 bytes.
    #[test]
    fn cycles_are_those_of_the_slower_of_tensor_cores_and_l2() {
        let shape = shape(Nt, (4096, 768, 768), Bf16);
        assert_eq!(shape.cycles(&of_products(Bf16)[2], (1, 1)), 24 * (384 * 64 / 24) + 2000);
        // 192 blocks: two turns. A slice is 2 x 16384 / 24 = 1365 cycles of copies, 3 x 1048576 / 2640 = 1191 of products.
        assert_eq!(shape.cycles(&of_duals(Bf16)[1], (3, 2)), 2 * (24 * 1365 + 2000));
    }
}
