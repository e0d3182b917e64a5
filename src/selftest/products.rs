//! Matrix products on a device: each kernel of kernels/gemm.cu and kernels/gemm_mma_*.cu against the naive one, and that
//! against sums in f64 on the host.
use super::bound::rounded;
use super::list::Check;
use super::memory::{download, poisoned, upload};
use super::row::{Row, Tolerance, judge};
use crate::Result;
use crate::gpu::{Device, Dtype, Memory, Ptr, Queue};
use crate::ops::gemm::cuda::product_as;
use crate::ops::gemm::dual::{self, Output, dual_as};
use crate::ops::gemm::naive::naive;
use crate::ops::gemm::{Epilogue, Family, GemmConfig, GemmShape, Layout, Tile};
use crate::rng::Rng;
use std::rc::Rc;

/// Of rounding, for sums of a few hundred terms.
pub(super) const ULPS: f64 = 16.0;
/// Where a tensor core cuts off what it adds up, in place of rounding it.
pub(super) const ULPS_MMA: f64 = 32.0;
pub(super) const LAYOUTS: [Layout; 3] = [Layout::Nt, Layout::Nn, Layout::Tn];
const DTYPES: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];

pub(super) fn checks(seed: u64) -> Vec<Check> {
    let judge = Check {
        names: vec!["gemm_naive".into()],
        run: Box::new(move |device| collect("gemm_naive", judge_rows(device, seed))),
    };
    let kernels = [Family::Simt, Family::Mma].into_iter().flat_map(|family| LAYOUTS.map(|layout| (family, layout)));
    let kernels = kernels.flat_map(|(family, layout)| {
        let sizes = family.tiles(Dtype::F32).into_iter().map(|tile| (tile.rows, tile.columns));
        sizes.map(move |size| Kernels { family, layout, size }).collect::<Vec<_>>()
    });
    let kernels = kernels.map(|kernels| {
        let name = kernels.name();
        let names = vec![name.clone()];
        Check { names, run: Box::new(move |device| collect(&name, rows(device, seed, &kernels))) }
    });
    let duals = dual::configs(Dtype::F32).into_iter().map(|config| (config.tile.rows, config.tile.columns));
    let duals = duals.map(|size| {
        let name = format!("gemm_dual_nt_{}x{}", size.0, size.1);
        let names = vec![name.clone()];
        Check { names, run: Box::new(move |device| collect(&name, dual_rows(device, seed, &name, size))) }
    });
    std::iter::once(judge).chain(kernels).chain(duals).collect()
}

/// The kernels of a layout and a tile, one for each pair of dtypes.
#[derive(Clone, Copy)]
struct Kernels {
    family: Family,
    layout: Layout,
    size: (usize, usize),
}

impl Kernels {
    fn name(&self) -> String {
        let family = if self.family == Family::Simt { String::new() } else { format!("{}_", self.family.name()) };
        format!("gemm_{family}{}_{}x{}", self.layout.name(), self.size.0, self.size.1)
    }
    fn dtypes(&self) -> Vec<(Dtype, Dtype)> {
        let all = DTYPES.into_iter().flat_map(|a| DTYPES.map(|b| (a, b)));
        all.filter(|(a, b)| self.family == Family::Simt || a == b).collect()
    }
    /// m, n and k: edges of tiles and slices, but whole chunks along the rows of operands of tensor cores.
    fn sizes(&self) -> (usize, usize, usize) {
        match (self.family, self.layout) {
            (Family::Simt, _) => (131, 67, 70),
            (_, Layout::Nt) => (131, 67, 72),
            (_, Layout::Nn) => (131, 72, 72),
            (_, Layout::Tn) => (136, 72, 70),
        }
    }
    fn config(&self, operands: Dtype, split: usize) -> Option<GemmConfig> {
        let of_size = |tile: &Tile| (tile.rows, tile.columns) == self.size;
        let tile = self.family.tiles(operands).into_iter().find(of_size)?;
        Some(GemmConfig { family: self.family, tile, stages: self.family.stages(), split })
    }
}

/// What factors are drawn in: those of tf32 with few digits, since their judge does not round.
pub(super) fn drawn(shape: &GemmShape, family: Family) -> GemmShape {
    let [a, b] = if family == Family::Simt { [shape.a, shape.b] } else { [Dtype::Bf16; 2] };
    GemmShape { a, b, ..*shape }
}

fn tolerance(c: Dtype, family: Family) -> Tolerance {
    match c {
        Dtype::F32 => Tolerance::Ulps(if family == Family::Simt { ULPS } else { ULPS_MMA }),
        Dtype::Bf16 => Tolerance::Bf16 { rounded: true },
    }
}

pub(super) fn collect(name: &str, rows: Result<Vec<Row>>) -> Vec<Row> {
    rows.unwrap_or_else(|e| vec![Row::failed(name, "", "", e)])
}

/// Operands, a bias and what C holds before, on the host as they are stored.
pub(super) struct Numbers {
    pub(super) pairs: Vec<[Vec<f32>; 2]>,
    pub(super) bias: Vec<f32>,
    pub(super) base: Vec<f32>,
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
fn rows(device: &Rc<dyn Device>, seed: u64, kernels: &Kernels) -> Result<Vec<Row>> {
    let ((m, n, k), mut rows) = (kernels.sizes(), Vec::new());
    for (a, b) in kernels.dtypes() {
        for (c, pairs, split, whole) in [(Dtype::F32, 1, 1, true), (Dtype::Bf16, 2, 3, false)] {
            let Some(config) = kernels.config(a, split) else { continue };
            let shape = GemmShape { layout: kernels.layout, m, n, k, pairs, a, b, c };
            let numbers = Numbers::new(&drawn(&shape, config.family), seed);
            let (want, scale) = by_naive(device, &shape, &numbers, whole)?;
            let got = by_kernels(device, &shape, &numbers, config, whole)?;
            let judged = judge("c", &got, &want, &scale, tolerance(c, config.family));
            let dtypes = format!("{} {}>{}", a.suffix(), b.suffix(), c.suffix());
            rows.push(Row::new(kernels.name(), dtypes, format!("{m}x{n}x{k}x{pairs} split {split}"), &judged));
        }
    }
    Ok(rows)
}

/// y and dy of dual products, by the judge as products of one pair and of two.
fn dual_rows(device: &Rc<dyn Device>, seed: u64, name: &str, size: (usize, usize)) -> Result<Vec<Row>> {
    let ((m, n, k), mut rows) = ((131, 67, 72), Vec::new());
    for (operands, c, split) in [(Dtype::F32, Dtype::F32, 1), (Dtype::Bf16, Dtype::Bf16, 2)] {
        let of_size = |config: &GemmConfig| (config.tile.rows, config.tile.columns) == size;
        let Some(config) = dual::configs(operands).into_iter().find(of_size) else { continue };
        let config = GemmConfig { split, ..config };
        let shape = GemmShape { layout: Layout::Nt, m, n, k, pairs: 1, a: operands, b: operands, c };
        let draw = |seed| Numbers::new(&GemmShape { pairs: 2, ..drawn(&shape, Family::Mma) }, seed);
        let (of_y, of_dy) = (draw(seed), draw(seed + 1));
        let [[x, w], [dx, dw]] = [of_y.pairs[0].clone(), of_y.pairs[1].clone()];
        let put = |v: &[f32]| upload(device, v, operands);
        let held = [put(&x)?, put(&w)?, put(&dx)?, put(&dw)?];
        let of_y = Numbers { pairs: vec![[x.clone(), w.clone()]], ..of_y };
        let of_dy = Numbers { pairs: vec![[dx, w], [x, dw]], ..of_dy };
        let scratch = poisoned(device, dual::scratch_of(config, &shape))?;
        let queue = Queue::new(&**device, scratch.at());
        let room = |of: &Numbers| Ok((upload(device, &of.bias, Dtype::F32)?, start(device, of, c, true)?));
        let (y, dy) = (room(&of_y)?, room(&of_dy)?);
        let output = |(bias, at): &(Memory, Memory)| Output { at: at.at(), dtype: c, epilogue: epilogue(true, bias) };
        let pairs = [(held[0].at(), held[1].at()), (held[2].at(), held[3].at())];
        dual_as(config, &queue, &shape, pairs, output(&y), output(&dy))?;
        for (what, numbers, (_, at)) in [("y", &of_y, &y), ("dy", &of_dy, &dy)] {
            let shape = GemmShape { pairs: numbers.pairs.len(), ..shape };
            let (want, scale) = by_naive(device, &shape, numbers, true)?;
            let judged = judge(what, &download(device, at, c)?, &want, &scale, tolerance(c, Family::Mma));
            rows.push(Row::new(name, operands.suffix(), format!("{m}x{n}x{k} {what} split {split}"), &judged));
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
