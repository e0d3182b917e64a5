//! How the sums over samples that make a weight gradient are dealt out, whichever way they are made.
use crate::ops::Cotangent;
use rayon::prelude::*;
use std::ops::Range;

/// Samples are cut into partial sums of `each`, which are added in their order, and a group's output channels into parts of
/// `share`: by the sizes alone, and not by the threads.
#[derive(Debug)]
pub(super) struct Deal {
    pub batch: usize,
    pub groups: usize,
    /// Output channels of a group.
    pub outputs: usize,
    pub each: usize,
    pub share: usize,
}

/// What one task makes: the sums of some output channels of a group over some samples.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub group: usize,
    pub outputs: Range<usize>,
    pub samples: Range<usize>,
}

impl Deal {
    pub fn partials(&self) -> usize {
        self.batch.div_ceil(self.each)
    }
    fn parts(&self) -> usize {
        self.outputs.div_ceil(self.share)
    }

    /// All pieces, those of the same channels one after the other.
    pub fn pieces(&self) -> Vec<Piece> {
        let parts = (0..self.groups).flat_map(|group| (0..self.parts()).map(move |part| (group, part)));
        let piece = |(group, part): (usize, usize), nth: usize| Piece {
            group,
            outputs: part * self.share..self.outputs.min((part + 1) * self.share),
            samples: nth * self.each..self.batch.min((nth + 1) * self.each),
        };
        parts.flat_map(|part| (0..self.partials()).map(move |nth| piece(part, nth))).collect()
    }

    /// The partial sums that output channel `o` of a group is in, of those of all pieces.
    pub fn of<'s>(&self, sums: &'s [Vec<f32>], group: usize, o: usize) -> &'s [Vec<f32>] {
        &sums[(group * self.parts() + o / self.share) * self.partials()..][..self.partials()]
    }
}

/// A way of making the sums.
pub(super) trait Partials: Sync {
    type Partial: Send;

    fn deal(&self) -> &Deal;
    /// Samples that are summed at once. Those of a piece may be added in any portions that are multiples of it: the sums
    /// are the same bits.
    fn together(&self) -> usize;
    fn begin(&self, at: &Piece) -> Self::Partial;
    /// Add the sums over the next samples of a piece, with which x and gy begin.
    fn add(&self, at: &Piece, samples: usize, x: &[f32], gy: &[f32], to: &mut Self::Partial);
    fn end(&self, at: &Piece, partial: Self::Partial) -> Vec<f32>;
    /// g (+)= the partial sums of all pieces.
    fn write(&self, sums: Vec<Vec<f32>>, g: &mut Cotangent);

    /// g (+)= the sums over all samples, for samples of x and gy that are so large.
    fn run(&self, (x, image): (&[f32], usize), (gy, output): (&[f32], usize), g: &mut Cotangent) {
        let piece = |at: Piece| {
            let mut partial = self.begin(&at);
            let first = at.samples.start;
            self.add(&at, at.samples.len(), &x[first * image..], &gy[first * output..], &mut partial);
            self.end(&at, partial)
        };
        let sums = self.deal().pieces().into_par_iter().map(piece).collect();
        self.write(sums, g);
    }
}
