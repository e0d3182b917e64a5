//! Products by kernels/gemm_wgmma.cu, each kernel against the naive one; no row where a device has none of them.
use super::list::Check;
use super::products::{LAYOUTS, Numbers, ULPS, by_kernels, by_naive, collect};
use super::row::{Row, Tolerance, judge};
use crate::gpu::{Device, Dtype, Memory, Plane};
use crate::ops::gemm::{Family, GemmConfig, GemmShape, Layout, Tile};
use crate::{Error, Result};
use std::rc::Rc;

pub(super) fn checks(seed: u64) -> Vec<Check> {
    let kernels =
        LAYOUTS.into_iter().flat_map(|layout| Family::Wgmma.tiles(Dtype::Bf16).into_iter().map(move |t| (layout, t)));
    let check = |(layout, tile): (Layout, Tile)| {
        let name = format!("gemm_wgmma_{}_{}x{}", layout.name(), tile.rows, tile.columns);
        let names = vec![name.clone()];
        Check { names, run: Box::new(move |device| collect(&name, rows(device, seed, &name, layout, tile))) }
    };
    kernels.map(check).collect()
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
fn rows(device: &Rc<dyn Device>, seed: u64, name: &str, layout: Layout, tile: Tile) -> Result<Vec<Row>> {
    if !has_sm_90a(device)? {
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    for (c, pairs, split, whole) in [(Dtype::F32, 1, 1, true), (Dtype::Bf16, 2, 3, false)] {
        let (m, n, k) = (264, 136, 600);
        let shape = GemmShape { layout, m, n, k, pairs, a: Dtype::Bf16, b: Dtype::Bf16, c };
        let numbers = Numbers::new(&shape, seed);
        let (want, scale) = by_naive(device, &shape, &numbers, whole)?;
        let config = GemmConfig { family: Family::Wgmma, tile, stages: Family::Wgmma.stages(), split };
        let got = by_kernels(device, &shape, &numbers, config, whole)?;
        let tolerance = match c {
            Dtype::F32 => Tolerance::Ulps(ULPS),
            Dtype::Bf16 => Tolerance::Bf16 { rounded: true },
        };
        let judged = judge("c", &got, &want, &scale, tolerance);
        let dtypes = format!("bf16 bf16>{}", c.suffix());
        rows.push(Row::new(name, dtypes, format!("{m}x{n}x{k}x{pairs} split {split}"), &judged));
    }
    Ok(rows)
}
