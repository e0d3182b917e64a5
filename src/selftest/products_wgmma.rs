//! Products by kernels/gemm_wgmma.cu, each kernel against the naive one; no row where a device has none of them.
use super::list::Check;
use super::products::{LAYOUTS, Numbers, ULPS, by_kernels, by_naive};
use super::row::{Row, Tolerance, judge};
use crate::gpu::{Device, Dtype, Memory, Plane};
use crate::ops::gemm::{Family, GemmConfig, GemmShape, Layout, Tile};
use crate::{Error, Result};
use std::rc::Rc;

/// A check a layout, since its kernels share what they are held to.
pub(super) fn checks(seed: u64) -> Vec<Check> {
    let check = |layout: Layout| {
        let names: Vec<String> = tiles().map(|tile| name(layout, tile)).collect();
        Check { names, run: Box::new(move |device| rows(device, seed, layout)) }
    };
    LAYOUTS.into_iter().map(check).collect()
}

fn tiles() -> impl Iterator<Item = Tile> {
    Family::Wgmma.tiles(Dtype::Bf16).into_iter()
}

fn name(layout: Layout, tile: Tile) -> String {
    format!("gemm_wgmma_{}_{}x{}", layout.name(), tile.rows, tile.columns)
}

/// Whether a device runs the kernels of sm_90a alone. An emulator does, whatever it acts as; it has TMA.
pub(super) fn has_sm_90a(device: &Rc<dyn Device>) -> Result<bool> {
    let on = device.abilities();
    if on.capability.0 >= 9 && !on.sm_90a {
        return Ok(false);
    }
    let memory = Memory::new(device, 2 * 64 * 64)?;
    let plane = Plane { at: memory.at(), rows: 64, columns: 64, pitch: 64, box_rows: 64, box_columns: 64 };
    match device.tensor_map(&plane) {
        Ok(_) => Ok(true),
        Err(Error::Unsupported { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// For C in f32 and in one part, with all that an epilogue does; for C in bf16 of two pairs, the sum in parts. More tiles
/// than one, more slices than stages.
fn rows(device: &Rc<dyn Device>, seed: u64, layout: Layout) -> Vec<Row> {
    let failed = |e: Error| tiles().map(|tile| Row::failed(name(layout, tile), "", "", &e)).collect::<Vec<_>>();
    match has_sm_90a(device) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(e) => return failed(e),
    }
    let mut rows = Vec::new();
    for (c, pairs, split, whole) in [(Dtype::F32, 1, 1, true), (Dtype::Bf16, 2, 3, false)] {
        let shape = GemmShape { layout, m: 136, n: 72, k: 600, pairs, a: Dtype::Bf16, b: Dtype::Bf16, c };
        let numbers = Numbers::new(&shape, seed);
        let (want, scale) = match by_naive(device, &shape, &numbers, whole) {
            Ok(naive) => naive,
            Err(e) => return failed(e),
        };
        let row = |tile: Tile| -> Result<Row> {
            let config = GemmConfig { family: Family::Wgmma, tile, stages: Family::Wgmma.stages(), split };
            let got = by_kernels(device, &shape, &numbers, config, whole)?;
            let tolerance = match c {
                Dtype::F32 => Tolerance::Ulps(ULPS),
                Dtype::Bf16 => Tolerance::Bf16 { rounded: true },
            };
            let judged = judge("c", &got, &want, &scale, tolerance);
            let dtypes = format!("bf16 bf16>{}", c.suffix());
            Ok(Row::new(name(layout, tile), dtypes, format!("136x72x600x{pairs} split {split}"), &judged))
        };
        rows.extend(tiles().map(|tile| row(tile).unwrap_or_else(|e| Row::failed(name(layout, tile), "", "", e))));
    }
    rows
}
