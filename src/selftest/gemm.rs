//! Matrix products on a device against their judge there, which sums each element in f64.
use super::list::Check;
use super::memory::{download, poisoned, upload};
use super::row::{Judged, Row, Tolerance, judge};
use crate::Result;
use crate::gpu::{Device, Dtype, Ptr, Queue};
use crate::ops::gemm::cuda::{Epilogue, product_as};
use crate::ops::gemm::naive::naive;
use crate::ops::gemm::{GemmConfig, GemmShape, Layout, Tile};
use crate::rng::Rng;
use std::rc::Rc;

/// As compiled in kernels/gemm.cu.
const TILES: [Tile; 2] = [Tile { rows: 128, columns: 64, depth: 32 }, Tile { rows: 64, columns: 64, depth: 32 }];

/// A row a layout: every combination of dtypes and tile, the sum over k whole and in parts, with and without bias and
/// what is added to.
pub(super) fn checks(seed: u64) -> Vec<Check> {
    let layouts = [("gemm_nt", Layout::Nt), ("gemm_nn", Layout::Nn), ("gemm_tn", Layout::Tn)];
    let checks =
        layouts.into_iter().map(|(name, layout)| Check::one(name, move |device| products(device, name, layout, seed)));
    checks.collect()
}

fn products(device: &Rc<dyn Device>, name: &str, layout: Layout, seed: u64) -> Result<Row> {
    let (m, n, k) = (67, 72, 131);
    let mut judged = Judged::default();
    for bits in 0..8 {
        let [a, b, c] = [1, 2, 4].map(|bit| if bits & bit == 0 { Dtype::F32 } else { Dtype::Bf16 });
        let shape = GemmShape { layout, m, n, k, pairs: 1, a, b, c };
        for (tile, split, more) in
            [(TILES[0], 1, true), (TILES[0], 2, false), (TILES[1], 1, false), (TILES[1], 3, true)]
        {
            let what = format!("{shape}, {}x{} in {split}", tile.rows, tile.columns);
            let config = GemmConfig { tile, split };
            judged = judged.or_worse(product(device, &what, &shape, config, more, seed)?);
        }
    }
    Ok(Row::new(name, "all", format!("{m}x{n}x{k}"), &judged))
}

fn product(
    device: &Rc<dyn Device>,
    what: &str,
    shape: &GemmShape,
    config: GemmConfig,
    more: bool,
    seed: u64,
) -> Result<Judged> {
    let &GemmShape { m, n, k, a, b, c, .. } = shape;
    let mut rng = Rng::new(seed, 31);
    let mut draw = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f32>>();
    let (of_a, of_b, bias) = (draw(m * k), draw(n * k), draw(n));
    let base = if more { draw(m * n) } else { Vec::new() };
    let (at_a, at_b) = (upload(device, &of_a, a)?, upload(device, &of_b, b)?);
    let at_bias = upload(device, &bias, Dtype::F32)?;
    let result = || if more { upload(device, &base, c) } else { poisoned(device, m * n * c.bytes()) };
    let (got, want) = (result()?, result()?);
    let epilogue = Epilogue { bias: if more { at_bias.at() } else { Ptr::NULL }, add: more };
    let scratch = poisoned(device, config.scratch(shape))?;
    let queue = Queue { device: &**device, scratch: scratch.at() };
    product_as(config, &queue, shape, &[(at_a.at(), at_b.at())], got.at(), epilogue)?;
    naive(&queue, shape, (at_a.at(), at_b.at()), want.at(), epilogue)?;
    let (got, want) = (download(device, &got, c)?, download(device, &want, c)?);
    // The size of a sum of k terms of size 1.
    let scale: Vec<f64> = want.iter().map(|w| f64::from(w.abs()) + (k as f64).sqrt()).collect();
    let tolerance = if c == Dtype::Bf16 { Tolerance::Bf16 { rounded: true } } else { Tolerance::Ulps(8.0) };
    Ok(judge(what, &got, &want, &scale, tolerance))
}
