//! The choice of pruned weights on a device: the launch side of kernels/{project,mask,groups}.cu. Masks are the host's,
//! bit for bit. Kernels follow one another without a word from the host; one download at the end waits.
use super::Flat;
use crate::Result;
use crate::engine::{Census, Criterion, Pattern, Score, Selected};
use crate::gpu::{Args, Ptr};
use crate::params::{Role, Span};

/// Where the last choice over all weights read its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Weights,
    /// The census' list: the k-th was inside the bracket.
    Census,
}

/// As `Segment` in kernels/select.cuh.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Segment {
    k: u64,
    prefix: u64,
    below: u64,
    first: u64,
}

/// As `StartArgs` in kernels/project.cu, and so on; those of masks in kernels/mask.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct StartArgs {
    control: Ptr,
    segments: Ptr,
    census: Ptr,
    room: u64,
}
impl Args for StartArgs {}
const _: () = assert!(size_of::<StartArgs>() == 32);

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct CountArgs {
    w: Ptr,
    tiles: Ptr,
    segments: Ptr,
    control: Ptr,
    list: Ptr,
    histograms: Ptr,
    seed: u64,
    room: u64,
    tile_count: u32,
    by_span: u32,
    shift: u32,
    width: u32,
    digit: u32,
    reserved: u32,
}
impl Args for CountArgs {}
const _: () = assert!(size_of::<CountArgs>() == 88);

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PickArgs {
    segments: Ptr,
    control: Ptr,
    histograms: Ptr,
    update_counted: Ptr,
    width: u32,
    reserved: u32,
}
impl Args for PickArgs {}
const _: () = assert!(size_of::<PickArgs>() == 40);

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct MaskArgs {
    w: Ptr,
    tiles: Ptr,
    segments: Ptr,
    mask: Ptr,
    parts: Ptr,
    equal: Ptr,
    before: Ptr,
    control: Ptr,
    list: Ptr,
    seed: u64,
    room: u64,
    tile_count: u32,
    by_span: u32,
}
impl Args for MaskArgs {}
const _: () = assert!(size_of::<MaskArgs>() == 96);

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ScanArgs {
    equal: Ptr,
    before: Ptr,
    n: u64,
}
impl Args for ScanArgs {}
const _: () = assert!(size_of::<ScanArgs>() == 24);

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SelectTotalArgs {
    parts: Ptr,
    control: Ptr,
    summary: Ptr,
    n: u64,
}
impl Args for SelectTotalArgs {}
const _: () = assert!(size_of::<SelectTotalArgs>() == 32);

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ProjectArgs {
    w: Ptr,
    shadow: Ptr,
    mask: Ptr,
    words: u64,
}
impl Args for ProjectArgs {}
const _: () = assert!(size_of::<ProjectArgs>() == 32);

/// As `GroupArgs` in kernels/groups.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct GroupArgs {
    w: Ptr,
    tiles: Ptr,
    planes: Ptr,
    mask: Ptr,
    seed: u64,
    rows: u64,
    tile_count: u32,
    plane_count: u32,
}
impl Args for GroupArgs {}
const _: () = assert!(size_of::<GroupArgs>() == 56);

/// As `SummaryArgs` in kernels/groups.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SummaryArgs {
    w: Ptr,
    tiles: Ptr,
    mask: Ptr,
    parts: Ptr,
    tile_count: u64,
}
impl Args for SummaryArgs {}
const _: () = assert!(size_of::<SummaryArgs>() == 40);

/// As `Plane` in kernels/groups.cuh.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Plane {
    pub at: u64,
    pub first: u64,
    pub rows: u64,
    pub cols: u64,
    pub height: u64,
    pub width: u64,
    pub across: u64,
    pub k: u64,
}

/// As `Summary` in kernels/mask.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Summary {
    pruned: u64,
    gone: f64,
    squares: f64,
    top: u32,
    source: u32,
}

/// (shift, width) of the digits that a choice looks at, the leading one first: of 31 bits, and of 64.
const DIGITS: [(u32, u32); 3] = [(19, 12), (9, 10), (0, 9)];
pub(super) const WIDE_DIGITS: [(u32, u32); 6] = [(52, 12), (40, 12), (28, 12), (16, 12), (4, 12), (0, 4)];
/// The longest group that a warp chooses from; longer ones take a block.
const WARP: usize = 32;

/// The end of kernels' names, and the seed.
pub(super) fn by(score: Score) -> (&'static str, u64) {
    match score {
        Score::Magnitude => ("magnitude", 0),
        Score::Random { seed } => ("random", seed),
    }
}

impl Flat {
    /// Set `mask` (words of the prunable range) to the smallest scores of `w`; exact, ties by index. Waits for the device.
    ///
    /// # Errors
    /// A scope that the layout does not fit, with the mask as it was; what the device says.
    pub fn select(&self, w: Ptr, how: &Criterion, census: Option<&Census>, mask: Ptr) -> Result<Selected> {
        self.select_from(w, how, census, mask).map(|found| found.0)
    }

    /// [`Flat::select`], and whether a census decided it.
    pub fn select_from(
        &self,
        w: Ptr,
        how: &Criterion,
        census: Option<&Census>,
        mask: Ptr,
    ) -> Result<(Selected, Source)> {
        how.check(&self.layout)?;
        if self.prunable == 0 {
            let none = Selected { pruned: 0, threshold: 0.0, pruned_squares: 0.0, squares: 0.0 };
            return Ok((none, Source::Weights));
        }
        let spans: Vec<&Span> = self.layout.with_role(Role::Prunable).collect();
        match how.pattern {
            Pattern::Global => {
                let k = how.count(spans.iter().map(|s| s.len).sum());
                let present = Census::Kept(self.ticket.get());
                let kept = self.counting.get() && how.score == Score::Magnitude && census == Some(&present);
                self.smallest(w, how.score, &[k], kept, mask)?;
            }
            Pattern::Layer => {
                let ks: Vec<usize> = spans.iter().map(|s| how.count(s.len)).collect();
                self.smallest(w, how.score, &ks, false, mask)?;
            }
            Pattern::Row => self.groups(w, how, &spans, None, mask)?,
            Pattern::NofM { n, m } => self.groups(w, how, &spans, Some((n, m)), mask)?,
            Pattern::Block { rows, cols } => self.blocks_of(w, how, &spans, (rows, cols), mask)?,
        }
        let (parts, control, n) = (self.parts.at(), self.control.at(), self.prunable as u64);
        self.finish("select_total", &SelectTotalArgs { parts, control, summary: self.report.at(), n })?;
        let s: Summary = self.read(&self.report)?;
        let found = Selected {
            pruned: s.pruned as usize,
            threshold: f32::from_bits(s.top),
            pruned_squares: s.gone,
            squares: s.squares,
        };
        Ok((found, if s.source == 1 { Source::Census } else { Source::Weights }))
    }

    /// Queue w = 0, and its copy in bf16 where there is one, wherever the mask is set.
    pub fn project(&self, w: Ptr, shadow: Ptr, mask: Ptr) -> Result<()> {
        let words = self.layout.range(Role::Prunable).end.div_ceil(32);
        if words == 0 {
            return Ok(());
        }
        let args = ProjectArgs { w, shadow, mask, words: words as u64 };
        self.launch("project_f32", (8 * words).div_ceil(256), 8, &args)
    }

    /// Clear what a choice over `ks.len()` segments starts from, and let the device decide where scores are read from.
    pub(super) fn start(&self, ks: &[usize], kept: bool) -> Result<()> {
        let one = [0];
        let firsts = if ks.len() == 1 { &one[..] } else { &self.first[..] };
        let segment = |(&k, &first): (&usize, &u64)| Segment { k: k as u64, prefix: 0, below: 0, first };
        let segments: Vec<Segment> = ks.iter().zip(firsts).map(segment).collect();
        self.device.upload(self.segments.at(), bytemuck::cast_slice(&segments))?;
        self.device.fill(self.histograms.at(), 0, self.histograms.bytes() / 4)?;
        let census = if kept { self.census.at() } else { Ptr::NULL };
        let (control, segments, room) = (self.control.at(), self.segments.at(), self.sizes.room as u64);
        self.queue().launch("select_start", 1, 32, 0, &StartArgs { control, segments, census, room })
    }

    /// The bucket of every segment's digit.
    pub(super) fn pick(&self, segments: usize, width: u32, update_counted: Ptr) -> Result<()> {
        let (control, histograms) = (self.control.at(), self.histograms.at());
        let args = PickArgs { segments: self.segments.at(), control, histograms, update_counted, width, reserved: 0 };
        self.queue().launch("select_pick", segments as u32, 256, 0, &args)
    }

    /// How many equals lie before each tile.
    pub(super) fn scan(&self, n: usize) -> Result<()> {
        let args = ScanArgs { equal: self.equal.at(), before: self.before.at(), n: n as u64 };
        self.finish("select_scan", &args)
    }

    /// The k smallest of each segment: of all tiles, or span by span.
    fn smallest(&self, w: Ptr, how: Score, ks: &[usize], kept: bool, mask: Ptr) -> Result<()> {
        let by_span = u32::from(ks.len() > 1);
        let (score, seed) = by(how);
        let tile_count = self.prunable as u32;
        let (tiles, segments, control) = (self.tiles.at(), self.segments.at(), self.control.at());
        self.start(ks, kept)?;
        if by_span == 0 {
            // The list is about to be written.
            self.counting.set(false);
        }
        let (list, room) = (self.list.at(), self.sizes.room as u64);
        let (parts, equal, before) = (self.parts.at(), self.equal.at(), self.before.at());
        let args =
            MaskArgs { w, tiles, segments, mask, parts, equal, before, control, list, seed, room, tile_count, by_span };
        for (digit, (shift, width)) in (0u32..).zip(DIGITS) {
            let histograms = self.histograms.at();
            let count = CountArgs {
                w,
                tiles,
                segments,
                control,
                list,
                histograms,
                seed,
                room,
                tile_count,
                by_span,
                shift,
                width,
                digit,
                reserved: 0,
            };
            self.launch(&format!("select_count_{score}"), self.prunable, 8, &count)?;
            let counted = if kept && digit == 0 { self.census.at().offset(16) } else { Ptr::NULL };
            self.pick(ks.len(), width, counted)?;
            if digit == 0 && by_span == 0 {
                self.launch(&format!("select_sift_{score}"), self.prunable, 6, &args)?;
            }
        }
        self.launch(&format!("select_mask_{score}"), self.prunable, 6, &args)?;
        self.scan(self.prunable)?;
        self.launch(&format!("select_ties_{score}"), self.prunable, 8, &args)
    }

    /// The k smallest of each row, or of every m neighbours.
    fn groups(
        &self,
        w: Ptr,
        how: &Criterion,
        spans: &[&Span],
        n_of_m: Option<(usize, usize)>,
        mask: Ptr,
    ) -> Result<()> {
        let mut rows = 0;
        let plane = |s: &&Span| {
            let (height, width) = s.matrix();
            let (cols, k) = n_of_m.map_or_else(|| (width, how.count(width)), |(n, m)| (m, how.count(m - n)));
            let long = if cols > WARP { height as u64 } else { 0 };
            let plane =
                Plane { at: s.at as u64, first: rows, rows: long, cols: cols as u64, k: k as u64, ..Plane::default() };
            rows += long;
            plane
        };
        let planes: Vec<Plane> = spans.iter().map(plane).collect();
        self.begin(&planes, mask)?;
        let (score, seed) = by(how.score);
        let (tile_count, plane_count) = (self.prunable as u32, planes.len() as u32);
        let (tiles, at) = (self.tiles.at(), self.planes.at());
        let args = GroupArgs { w, tiles, planes: at, mask, seed, rows, tile_count, plane_count };
        if planes.iter().any(|p| p.rows == 0) {
            self.launch(&format!("select_groups_{score}"), self.prunable, 8, &args)?;
        }
        if rows > 0 {
            self.launch(&format!("select_rows_{score}"), rows as usize, 8, &args)?;
        }
        self.summary(w, mask)
    }

    /// The planes of a choice, an empty mask, and no census.
    pub(super) fn begin(&self, planes: &[Plane], mask: Ptr) -> Result<()> {
        self.device.upload(self.planes.at(), bytemuck::cast_slice(planes))?;
        self.device.fill(mask, 0, self.layout.range(Role::Prunable).end.div_ceil(32))?;
        self.start(&[0], false)
    }

    /// What a mask prunes of each tile.
    pub(super) fn summary(&self, w: Ptr, mask: Ptr) -> Result<()> {
        let (tiles, parts, tile_count) = (self.tiles.at(), self.parts.at(), self.prunable as u64);
        self.launch("select_summary", self.prunable, 6, &SummaryArgs { w, tiles, mask, parts, tile_count })
    }
}
