//! Matrix products on a device: each kernel of kernels/gemm.cu against the naive one, and that against sums in f64 on
//! the host.
use super::bound::rounded;
use super::list::Check;
use super::memory::{download, poisoned, upload};
use super::row::{Row, Tolerance, judge};
use crate::Result;
use crate::gpu::{Device, Dtype, Memory, Ptr, Queue};
use crate::ops::gemm::cuda::product_as;
use crate::ops::gemm::naive::naive;
use crate::ops::gemm::{Epilogue, Family, GemmConfig, GemmShape, Layout, Tile};
use crate::rng::Rng;
use std::rc::Rc;

/// Of rounding, for sums of a few hundred terms.
pub(super) const ULPS: f64 = 16.0;
pub(super) const LAYOUTS: [Layout; 3] = [Layout::Nt, Layout::Nn, Layout::Tn];
const DTYPES: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];

pub(super) fn checks(seed: u64) -> Vec<Check> {
    let judge = Check {
        names: vec!["gemm_naive".into()],
        run: Box::new(move |device| collect("gemm_naive", judge_rows(device, seed))),
    };
    let kernels = LAYOUTS
        .into_iter()
        .flat_map(|layout| Family::Simt.tiles(Dtype::F32).into_iter().map(move |tile| (layout, tile)));
    let kernels = kernels.map(|(layout, tile)| {
        let name = format!("gemm_{}_{}x{}", layout.name(), tile.rows, tile.columns);
        let names = vec![name.clone()];
        Check { names, run: Box::new(move |device| collect(&name, rows(device, seed, &name, layout, tile))) }
    });
    std::iter::once(judge).chain(kernels).collect()
}

fn collect(name: &str, rows: Result<Vec<Row>>) -> Vec<Row> {
    rows.unwrap_or_else(|e| vec![Row::failed(name, "", "", e)])
}

/// Operands, a bias and what C holds before, on the host as they are stored.
pub(super) struct Numbers {
    pairs: Vec<[Vec<f32>; 2]>,
    bias: Vec<f32>,
    base: Vec<f32>,
}

impl Numbers {
    pub(super) fn new(shape: &GemmShape, seed: u64) -> Self {
        let GemmShape { m, n, k, pairs, a, b, c, .. } = *shape;
        let mut rng = Rng::new(seed, 31);
        let mut draw = |n: usize, dtype| rounded(&(0..n).map(|_| rng.normal()).collect::<Vec<_>>(), dtype);
        let pairs = (0..pairs).map(|_| [draw(m * k, a), draw(n * k, b)]).collect();
        Self { pairs, bias: draw(n, Dtype::F32), base: draw(m * n, c) }
    }
}

/// A row a pair of dtypes: for C in f32, in one part, with all that an epilogue does; for C in bf16 of two pairs, the
/// sum in parts.
fn rows(device: &Rc<dyn Device>, seed: u64, name: &str, layout: Layout, tile: Tile) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (a, b) in DTYPES.into_iter().flat_map(|a| DTYPES.map(|b| (a, b))) {
        for (c, pairs, split, whole) in [(Dtype::F32, 1, 1, true), (Dtype::Bf16, 2, 3, false)] {
            let shape = GemmShape { layout, m: 131, n: 67, k: 70, pairs, a, b, c };
            let numbers = Numbers::new(&shape, seed);
            let (want, scale) = by_naive(device, &shape, &numbers, whole)?;
            let config = GemmConfig { family: Family::Simt, tile, stages: Family::Simt.stages(), split };
            let got = by_kernels(device, &shape, &numbers, config, whole)?;
            let tolerance = match c {
                Dtype::F32 => Tolerance::Ulps(ULPS),
                Dtype::Bf16 => Tolerance::Bf16 { rounded: true },
            };
            let judged = judge("c", &got, &want, &scale, tolerance);
            let dtypes = format!("{} {}>{}", a.suffix(), b.suffix(), c.suffix());
            rows.push(Row::new(name, dtypes, format!("131x67x70x{pairs} split {split}"), &judged));
        }
    }
    Ok(rows)
}

/// `whole`: with the bias, and added to what is there.
fn epilogue(whole: bool, bias: &Memory) -> Epilogue {
    Epilogue { bias: if whole { bias.at() } else { Ptr::NULL }, add: whole, ..Epilogue::NONE }
}

pub(super) fn by_kernels(
    device: &Rc<dyn Device>,
    shape: &GemmShape,
    numbers: &Numbers,
    config: GemmConfig,
    whole: bool,
) -> Result<Vec<f32>> {
    let put = |[a, b]: &[Vec<f32>; 2]| Ok([upload(device, a, shape.a)?, upload(device, b, shape.b)?]);
    let pairs = numbers.pairs.iter().map(put).collect::<Result<Vec<_>>>()?;
    let bias = upload(device, &numbers.bias, Dtype::F32)?;
    let c = start(device, numbers, shape.c, whole)?;
    let scratch = poisoned(device, config.scratch(shape))?;
    let queue = Queue::new(&**device, scratch.at());
    let operands: Vec<(Ptr, Ptr)> = pairs.iter().map(|[a, b]| (a.at(), b.at())).collect();
    product_as(config, &queue, shape, &operands, c.at(), epilogue(whole, &bias))?;
    download(device, &c, shape.c)
}

fn start(device: &Rc<dyn Device>, numbers: &Numbers, c: Dtype, add: bool) -> Result<Memory> {
    if add { upload(device, &numbers.base, c) } else { poisoned(device, numbers.base.len() * c.bytes()) }
}

/// The same by the judge, in f32 and a pair after the other; and the scale of each element.
pub(super) fn by_naive(
    device: &Rc<dyn Device>,
    shape: &GemmShape,
    numbers: &Numbers,
    whole: bool,
) -> Result<(Vec<f32>, Vec<f64>)> {
    let exact = GemmShape { pairs: 1, c: Dtype::F32, ..*shape };
    let bias = upload(device, &numbers.bias, Dtype::F32)?;
    let c = start(device, numbers, Dtype::F32, whole)?;
    let queue = Queue::new(&**device, Ptr::NULL);
    for (i, [a, b]) in numbers.pairs.iter().enumerate() {
        let (a, b) = (upload(device, a, shape.a)?, upload(device, b, shape.b)?);
        let first = epilogue(whole, &bias);
        let then = if i == 0 { first } else { Epilogue { add: true, ..Epilogue::NONE } };
        naive(&queue, &exact, (a.at(), b.at()), c.at(), then)?;
        device.synchronize()?;
    }
    let want = download(device, &c, Dtype::F32)?;
    let size = ((shape.pairs * shape.k + 2) as f64).sqrt();
    let scale = want.iter().map(|w| f64::from(w.abs()) + size).collect();
    Ok((want, scale))
}

/// The judge against the host: a row a layout, the dtypes taking turns.
fn judge_rows(device: &Rc<dyn Device>, seed: u64) -> Result<Vec<Row>> {
    let dtypes = [[Dtype::F32; 3], [Dtype::Bf16; 3], [Dtype::F32, Dtype::Bf16, Dtype::F32]];
    let rows = LAYOUTS.into_iter().zip(dtypes).map(|(layout, [a, b, c])| {
        let (m, n, k) = (31, 33, 37);
        let shape = GemmShape { layout, m, n, k, pairs: 1, a, b, c };
        let numbers = Numbers::new(&shape, seed);
        let [of_a, of_b] = &numbers.pairs[0];
        let (mut want, mut scale) = (Vec::with_capacity(m * n), Vec::with_capacity(m * n));
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let places = (0..k).map(|t| match layout {
                Layout::Nt => (i * k + t, j * k + t),
                Layout::Nn => (i * k + t, t * n + j),
                Layout::Tn => (t * m + i, t * n + j),
            });
            let terms = places.map(|(x, y)| f64::from(of_a[x]) * f64::from(of_b[y]));
            let start = f64::from(numbers.base[i * n + j]) + f64::from(numbers.bias[j]);
            let sum = start + terms.sum::<f64>();
            want.push(sum as f32);
            scale.push(sum.abs());
        }
        let (a_at, b_at) = (upload(device, of_a, a)?, upload(device, of_b, b)?);
        let (bias, at) = (upload(device, &numbers.bias, Dtype::F32)?, start(device, &numbers, c, true)?);
        let queue = Queue::new(&**device, Ptr::NULL);
        naive(&queue, &shape, (a_at.at(), b_at.at()), at.at(), epilogue(true, &bias))?;
        let got = download(device, &at, c)?;
        // One rounding, of the sum.
        let tolerance = if c == Dtype::F32 { Tolerance::Ulps(1.0) } else { Tolerance::Bf16 { rounded: true } };
        let label = format!("{} {}>{}", a.suffix(), b.suffix(), c.suffix());
        Ok(Row::new("gemm_naive", label, format!("{m}x{n}x{k}"), &judge("c", &got, &want, &scale, tolerance)))
    });
    rows.collect()
}
