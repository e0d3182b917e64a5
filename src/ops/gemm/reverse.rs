//! Both products of a linear map's reverse pass in one launch: gx = gy W and gw = gyᵀ x, by the kernels `gemm_reverse_*`
//! of kernels/gemm_mma_*.cu. They share gy, but no tile of it: what one launch gives is that neither leaves idle what the
//! other could use, and that there is one launch less. docs/worklog/0004 has the arithmetic.
use super::cuda::{GemmArgs, add_up, arguments};
use super::dual::Output;
use super::{Epilogue, Family, GemmConfig, GemmShape, Layout, Tile, mma, wgmma};
use crate::gpu::{Abilities, Args, Dtype, Ptr, Queue};
use crate::ops::DeviceTensor;
use crate::{Error, Result};
use std::fmt;

/// As `GemmReverseArgs` in kernels/gemm_mma.cuh.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ReverseArgs {
    gx: GemmArgs,
    gw: GemmArgs,
}
impl Args for ReverseArgs {}
const _: () = assert!(size_of::<ReverseArgs>() == 304);

/// How both are done: in the same tiles, each in parts of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReverseConfig {
    pub tile: Tile,
    /// Slices in shared memory at a time.
    pub stages: usize,
    /// Parts of the sums of gx, and of gw.
    pub split: [usize; 2],
}

/// Turns of a whole device that one launch takes at most. On average half of a launch's last turn is idle: of so many turns
/// that is an eighth, and no more than that can be won by filling it.
const TURNS: usize = 4;
/// Blocks of a launch at most.
const MOST_BLOCKS: usize = 1 << 31;

impl ReverseConfig {
    /// As either product alone would be done in these tiles and parts.
    pub fn each(&self) -> [GemmConfig; 2] {
        let Self { tile, stages, split } = *self;
        split.map(|split| GemmConfig { family: Family::Mma, tile, stages, split })
    }

    /// Blocks of each product.
    fn blocks(&self, shapes: &[GemmShape; 2]) -> [usize; 2] {
        [0, 1].map(|i| shapes[i].tiles(self.tile) * self.split[i])
    }

    /// Bytes of the parts of both.
    pub fn scratch(&self, shapes: &[GemmShape; 2]) -> usize {
        self.each().iter().zip(shapes).map(|(config, shape)| config.scratch(shape)).sum()
    }

    /// Until all blocks are done: turns of blocks of mean length, of which the last takes as long as the longest block. By
    /// the numbers of src/ops/gemm/mma.rs.
    fn cycles(&self, shapes: &[GemmShape; 2]) -> usize {
        let (each, [of_x, of_w]) = (self.each(), self.blocks(shapes));
        let [x, w] = [0, 1].map(|i| shapes[i].block_cycles(&each[i], (1, 1)));
        let mean = (of_x * x + of_w * w) / (of_x + of_w).max(1);
        let turns = (of_x + of_w).div_ceil(mma::MULTIPROCESSORS);
        let parts: usize = [0, 1].map(|i| shapes[i].add_up_cycles(&each[i], 1)).iter().sum();
        turns.saturating_sub(1) * mean + x.max(w) + parts
    }
}

impl fmt::Display for ReverseConfig {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { tile: Tile { rows, columns, depth }, stages, split: [x, w] } = self;
        write!(f, "mma {rows}x{columns}x{depth}, {stages} stages, split {x} and {w}")
    }
}

/// gx [m, k] and gw [n, k], of gy [m, n], W [n, k] and x [m, k], all in one dtype.
pub fn shapes((m, n, k): (usize, usize, usize), dtype: Dtype) -> [GemmShape; 2] {
    let [a, b, c] = [dtype; 3];
    let gx = GemmShape { layout: Layout::Nn, m, n: k, k: n, pairs: 1, a, b, c };
    [gx, GemmShape { layout: Layout::Tn, m: n, n: k, k: m, ..gx }]
}

/// The kernels that there are for operands of this dtype, in one part.
pub fn configs(operands: Dtype) -> Vec<ReverseConfig> {
    let of = |config: GemmConfig| ReverseConfig { tile: config.tile, stages: config.stages, split: [1, 1] };
    mma::of_reverses(operands).into_iter().map(of).collect()
}

/// The tiles and parts that take the fewest cycles in one launch, of equals the smaller tile, then the fewer parts; `None`
/// where that is more than four turns of the device, or the kernels do not take the operands.
pub fn best(shapes: &[GemmShape; 2]) -> Option<ReverseConfig> {
    if !shapes.iter().all(|shape| shape.fits_mma(true)) {
        return None;
    }
    let most = TURNS * mma::MULTIPROCESSORS;
    let parts = |shape: &GemmShape, tile: Tile| {
        let by_terms = (shape.pairs * shape.k / mma::LEAST_TERMS).clamp(1, mma::PARTS);
        1..=by_terms.min((most / shape.tiles(tile)).max(1))
    };
    let each = configs(shapes[0].a).into_iter().flat_map(|config| {
        let [of_x, of_w] = [0, 1].map(|i| parts(&shapes[i], config.tile));
        of_x.flat_map(move |x| of_w.clone().map(move |w| ReverseConfig { split: [x, w], ..config }))
    });
    let few = each.filter(|config| config.blocks(shapes).iter().sum::<usize>() <= most);
    few.min_by_key(|config| config.cycles(shapes))
}

/// The rule: [`best`], where it takes fewer cycles than the two products one after the other, each as it is done alone
/// and the second with a launch of its own; `None` where they are launched in turn. The cycles of `wgmma` are those
/// of its own paper (src/ops/gemm/wgmma.rs), with twice the bytes from L2: on sm_90a small maps alone take one launch.
pub fn config(shapes: &[GemmShape; 2], on: Abilities, tf32: bool) -> Option<ReverseConfig> {
    let alone = |shape: &GemmShape| match shape.family(on, tf32) {
        Family::Mma => Some(shape.cycles(&shape.mma(), (1, 1))),
        Family::Wgmma => Some(wgmma::cycles(shape, &wgmma::config(shape))),
        Family::Simt => None,
    };
    let in_turn = alone(&shapes[0])? + alone(&shapes[1])? + mma::LAUNCH;
    best(shapes).filter(|config| config.cycles(shapes) < in_turn)
}

/// Bytes of scratch that both products take at most in one launch, whatever the device and whatever their operands are
/// stored in.
pub fn scratch(size: (usize, usize, usize)) -> usize {
    let dtypes = [Dtype::F32, Dtype::Bf16].into_iter();
    let cases = dtypes.flat_map(|dtype| Abilities::ALL.map(|on| (shapes(size, dtype), on)));
    let bytes = cases.filter_map(|(shapes, on)| Some(config(&shapes, on, true)?.scratch(&shapes)));
    bytes.max().unwrap_or(0)
}

/// gx [m, k] = gy W and gw [n, k] = gyᵀ x, of gy [m, n], W [n, k] and x [m, k], in one launch; then the epilogue of each.
/// Whether it was done: not where the rule launches them in turn, or bases are not aligned to 16 bytes. The queue's scratch
/// has room for [`scratch`].
///
/// # Errors
/// [`Error::Graph`] for an epilogue that a product has not; what the device says.
pub fn reverse(
    queue: &Queue,
    size: (usize, usize, usize),
    (gy, w, x): (DeviceTensor, DeviceTensor, DeviceTensor),
    gx: Output,
    gw: Output,
) -> Result<bool> {
    if gy.dtype != w.dtype || gy.dtype != x.dtype {
        return Ok(false);
    }
    let (shapes, pairs) = (shapes(size, gy.dtype), [(gy.at, w.at), (gy.at, x.at)]);
    let Some(config) = config(&shapes, queue.device.abilities(), queue.tf32) else { return Ok(false) };
    if !mma::aligned(&pairs) {
        return Ok(false);
    }
    let [of_x, of_w] = pairs.each_ref().map(std::slice::from_ref);
    reverse_as(config, queue, &shapes, [of_x, of_w], [gx, gw])?;
    Ok(true)
}

/// The same in a way of one's own: any nn and tn product of one dtype, of one or two pairs each.
///
/// # Errors
/// [`Error::Graph`] for what these kernels do not take.
pub fn reverse_as(
    config: ReverseConfig,
    queue: &Queue,
    shapes: &[GemmShape; 2],
    pairs: [&[(Ptr, Ptr)]; 2],
    outputs: [Output; 2],
) -> Result<()> {
    let place = || format!("{} and {} by {config}", shapes[0], shapes[1]);
    let refuse = |what: &str| Err(Error::Graph { op: "gemm", place: place(), what: what.into() });
    if shapes.map(|shape| shape.layout) != [Layout::Nn, Layout::Tn] || shapes[0].a != shapes[1].a {
        return refuse("one launch takes nn and tn of operands of one dtype");
    }
    let given = |i: usize| shapes[i].pairs == pairs[i].len() && (1..=2).contains(&shapes[i].pairs);
    if !(given(0) && given(1)) {
        return refuse("a product has the one or two pairs that its shape says");
    }
    if !shapes.iter().all(|shape| shape.fits_mma(true)) || !pairs.iter().all(|pairs| mma::aligned(pairs)) {
        return refuse("tensor cores want two bf16 or two f32, rows of whole 16 bytes and bases aligned to them");
    }
    let blocks: usize = config.blocks(shapes).iter().sum();
    if config.split.contains(&0) || blocks >= MOST_BLOCKS {
        return refuse("a launch has at least one part of each sum, and fewer than 2^31 blocks");
    }
    let [of_x, of_w] = config.each();
    let of = |i: usize, config: GemmConfig, scratch: Ptr| -> Result<_> {
        let (output, shape): (&Output, _) = (&outputs[i], GemmShape { c: outputs[i].dtype, ..shapes[i] });
        let epilogue: &Epilogue = &output.epilogue;
        epilogue.check(&shape)?;
        Ok(arguments(config, &Queue { scratch, ..*queue }, &shape, pairs[i], output.at, epilogue))
    };
    let behind = queue.scratch.offset(of_x.scratch(&shapes[0]));
    let args = ReverseArgs { gx: of(0, of_x, queue.scratch)?, gw: of(1, of_w, behind)? };
    let Tile { rows, columns, .. } = config.tile;
    let kernel = format!("gemm_reverse_{rows}x{columns}_{}", mma::operands(shapes[0].a));
    let (threads, shared) = (mma::threads(config.tile, false), mma::shared(of_x, shapes[0].a, false));
    queue.launch(&kernel, blocks as u32, threads, shared, &args)?;
    add_up(queue, &args.gx)?;
    add_up(queue, &args.gw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Dtype::{Bf16, F32};

    fn line(size: (usize, usize, usize), dtype: Dtype, on: Abilities) -> String {
        let ((m, n, k), shapes) = (size, shapes(size, dtype));
        let how = config(&shapes, on, true).map_or("in turn".to_string(), |config| config.to_string());
        format!("gy {m}x{n}, x {m}x{k}, {}: {how}", dtype.suffix())
    }

    #[test]
    fn the_rule_is_printed() {
        let (older, hopper) = (Abilities::AMPERE, Abilities::HOPPER);
        let lines = [
            line((512, 768, 768), Bf16, older),
            line((512, 3072, 768), Bf16, older),
            line((512, 768, 3072), Bf16, older),
            line((512, 3072, 768), F32, older),
            line((1024, 384, 384), Bf16, older),
            line((4096, 768, 768), Bf16, older),
            line((4096, 768, 3072), Bf16, older),
            line((512, 12, 768), Bf16, older),
            line((512, 3072, 768), Bf16, hopper),
            line((1024, 384, 384), Bf16, hopper),
            line((512, 3072, 768), F32, hopper),
        ];
        let want = [
            "gy 512x768, x 512x768, bf16: mma 128x128x32, 4 stages, split 1 and 1",
            "gy 512x3072, x 512x768, bf16: mma 128x128x32, 4 stages, split 5 and 1",
            "gy 512x768, x 512x3072, bf16: mma 128x128x32, 4 stages, split 1 and 1",
            "gy 512x3072, x 512x768, f32: mma 128x128x16, 4 stages, split 5 and 1",
            "gy 1024x384, x 1024x384, bf16: mma 64x64x64, 4 stages, split 1 and 1",
            "gy 4096x768, x 4096x768, bf16: in turn",
            "gy 4096x768, x 4096x3072, bf16: in turn",
            "gy 512x12, x 512x768, bf16: in turn",
            "gy 512x3072, x 512x768, bf16: in turn",
            "gy 1024x384, x 1024x384, bf16: mma 64x64x64, 4 stages, split 1 and 1",
            "gy 512x3072, x 512x768, f32: mma 128x128x16, 4 stages, split 5 and 1",
        ];
        assert_eq!(lines, want);
    }

    /// By hand, 512 x 768 x 768 in tiles of 128 x 128: 24 and 36 blocks, all at once; the longer ones are gx's, 24 slices of
    /// 256 x 64 / 24 = 682 cycles and 2000 more.
    #[test]
    fn cycles_of_one_turn_are_those_of_the_longest_block() {
        let shapes = shapes((512, 768, 768), Bf16);
        let config = configs(Bf16)[1];
        assert_eq!(config.blocks(&shapes), [24, 36]);
        assert_eq!(config.cycles(&shapes), 24 * 682 + 2000);
    }

    /// By hand, 512 x 768 x 3072: 96 blocks of 24 slices and 144 of 16, 240 in two turns, one of them of mean length.
    #[test]
    fn cycles_of_more_turns_are_of_mean_blocks_and_the_longest() {
        let shapes = shapes((512, 768, 3072), Bf16);
        let (config, x, w) = (configs(Bf16)[1], 24 * 682 + 2000, 16 * 682 + 2000);
        assert_eq!(config.blocks(&shapes), [96, 144]);
        assert_eq!(config.cycles(&shapes), (96 * x + 144 * w) / 240 + x);
    }

    #[test]
    fn a_plan_has_room_for_what_the_rule_takes() {
        for m in [8, 64, 512, 1000, 4096] {
            for n in [8, 384, 768, 3072] {
                for (dtype, on) in [F32, Bf16].into_iter().flat_map(|dtype| Abilities::ALL.map(|on| (dtype, on))) {
                    let shapes = shapes((m, n, 768), dtype);
                    let Some(config) = config(&shapes, on, true) else { continue };
                    assert!(config.scratch(&shapes) <= scratch((m, n, 768)), "{m} {n}: {config}");
                    assert!(config.blocks(&shapes).iter().sum::<usize>() <= 4 * 132, "{m} {n}: {config}");
                }
            }
        }
    }
}
