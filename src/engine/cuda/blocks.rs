//! Pruning whole blocks of matrices on a device: the launch side of kernels/blocks.cu.
use super::Flat;
use super::select::{Plane, WIDE_DIGITS, by};
use crate::Result;
use crate::engine::Criterion;
use crate::gpu::{Args, Memory, Ptr};
use crate::params::Span;

/// As `BlockArgs` in kernels/blocks.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct BlockArgs {
    w: Ptr,
    tiles: Ptr,
    planes: Ptr,
    segment: Ptr,
    scores: Ptr,
    chosen: Ptr,
    mask: Ptr,
    histogram: Ptr,
    equal: Ptr,
    before: Ptr,
    seed: u64,
    blocks: u64,
    tile_count: u32,
    plane_count: u32,
    tile: u32,
    shift: u32,
    width: u32,
    reserved: u32,
}
impl Args for BlockArgs {}
const _: () = assert!(size_of::<BlockArgs>() == 120);

impl Flat {
    /// The k blocks of the smallest norms.
    pub(super) fn blocks_of(
        &self,
        w: Ptr,
        how: &Criterion,
        spans: &[&Span],
        (rows, cols): (usize, usize),
        mask: Ptr,
    ) -> Result<()> {
        let mut blocks = 0;
        let plane = |s: &&Span| {
            let (height, width) = s.matrix();
            let across = width.div_ceil(cols);
            let plane = Plane {
                at: s.at as u64,
                first: blocks as u64,
                rows: height as u64,
                cols: width as u64,
                height: rows as u64,
                width: cols as u64,
                across: across as u64,
                k: 0,
            };
            blocks += height.div_ceil(rows) * across;
            plane
        };
        let planes: Vec<Plane> = spans.iter().map(plane).collect();
        self.begin(&planes, mask)?;
        let k = how.count(blocks);
        if k == 0 {
            return self.summary(w, mask);
        }
        self.start(&[k], false)?;
        let (scores, chosen) = self.room_for(blocks)?;
        let (score, seed) = by(how.score);
        let args = BlockArgs {
            w,
            tiles: self.tiles.at(),
            planes: self.planes.at(),
            segment: self.segments.at(),
            scores,
            chosen,
            mask,
            histogram: self.histograms.at(),
            equal: self.equal.at(),
            before: self.before.at(),
            seed,
            blocks: blocks as u64,
            tile_count: self.prunable as u32,
            plane_count: planes.len() as u32,
            tile: self.sizes.tile as u32,
            shift: 0,
            width: 0,
            reserved: 0,
        };
        self.launch(&format!("blocks_score_{score}"), blocks.div_ceil(256), 8, &args)?;
        for (shift, width) in WIDE_DIGITS {
            self.launch("blocks_count", blocks.div_ceil(1024), 8, &BlockArgs { shift, width, ..args })?;
            self.pick(1, width, Ptr::NULL)?;
        }
        let runs = blocks.div_ceil(self.sizes.tile);
        self.launch("blocks_choose", runs, 8, &args)?;
        self.scan(runs)?;
        self.launch("blocks_ties", runs, 8, &args)?;
        self.launch("blocks_spread", self.prunable, 8, &args)?;
        self.summary(w, mask)
    }

    /// Room for a score and a bit a block; kept, and made anew where a choice has more blocks.
    fn room_for(&self, blocks: usize) -> Result<(Ptr, Ptr)> {
        let mut room = self.blocks.borrow_mut();
        let (scores, chosen) = match room.take() {
            Some((scores, chosen)) if scores.bytes() >= 8 * blocks => (scores, chosen),
            old => {
                drop(old);
                (Memory::new(&self.device, 8 * blocks)?, Memory::new(&self.device, 4 * blocks.div_ceil(32))?)
            }
        };
        let at = (scores.at(), chosen.at());
        *room = Some((scores, chosen));
        Ok(at)
    }
}
