//! The wrappers of kernels/ptx.cuh, each in a kernel of its own (kernels/wrappers.cu), against plain arithmetic.
use super::list::Check;
use super::products_wgmma::has_sm_90a;
use super::row::{Row, Tolerance, judge};
use crate::Result;
use crate::gpu::{Args, Device, Memory, Plane, Ptr, Queue, TensorMap};
use crate::rng::Rng;
use half::bf16;
use std::rc::Rc;

/// As in kernels/wrappers.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct WrapperArgs {
    a: Ptr,
    b: Ptr,
    c: Ptr,
    d: Ptr,
    n: u64,
}
impl Args for WrapperArgs {}
const _: () = assert!(size_of::<WrapperArgs>() == 40);

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct WrapperMapArgs {
    a_map: TensorMap,
    b_map: TensorMap,
    c: Ptr,
    d: Ptr,
    x: i32,
    y: i32,
    pad: [u64; 5],
}
impl Args for WrapperMapArgs {}
const _: () = assert!(size_of::<WrapperMapArgs>() == 320);

type Run = fn(&Bench, &str) -> Result<Row>;

/// What every device has, and what sm_90 adds.
const COMMON: [(&str, Run); 13] = [
    ("wrapper_mma_bf16", mma_bf16),
    ("wrapper_mma_tf32", mma_tf32),
    ("wrapper_to_tf32", to_tf32),
    ("wrapper_exp2_approx", exp2_approx),
    ("wrapper_ldmatrix_x4", |b, name| matrices(b, name, 4, false)),
    ("wrapper_ldmatrix_x4_trans", |b, name| matrices(b, name, 4, true)),
    ("wrapper_ldmatrix_x2", |b, name| matrices(b, name, 2, false)),
    ("wrapper_ldmatrix_x2_trans", |b, name| matrices(b, name, 2, true)),
    ("wrapper_cp_async_16", |b, name| padded(b, name, 300, 512)),
    ("wrapper_cp_async_4", |b, name| padded(b, name, 77, 128)),
    ("wrapper_cp_async_wait", |b, name| copied(b, name, 7 * 128, 7 * 128, 128, 0)),
    ("wrapper_bar_sync", bar_sync),
    ("wrapper_bar_arrive", |b, name| copied(b, name, 64 * 5, 5, 128, 0)),
];
const HOPPER: [(&str, Run); 5] = [
    ("wrapper_mbarrier", |b, name| copied(b, name, 64 * 5, 5, 128, 0)),
    ("wrapper_bulk_load", |b, name| copied(b, name, 1000, 1000, 128, 4000)),
    ("wrapper_tma_load", tma_load),
    ("wrapper_tma_store", tma_store),
    ("wrapper_registers", |b, name| copied(b, name, 256, 256, 256, 0)),
];

/// wrapper_wgmma_LAYOUT_N: whether A and B are turned, [k, m] and [k, n]; and the N there are.
const TURNED: [(&str, bool, bool); 3] = [("nt", false, false), ("nn", false, true), ("tn", true, true)];
const WIDTHS: [usize; 4] = [64, 128, 192, 256];

pub(super) fn checks(seed: u64) -> Vec<Check> {
    let common = COMMON
        .into_iter()
        .map(|(name, run)| Check::one(name, move |device| run(&Bench { device: device.clone(), seed }, name)));
    let hopper = HOPPER.into_iter().map(|(name, run)| on_hopper(seed, name.into(), run));
    let products = TURNED.into_iter().flat_map(|of| WIDTHS.map(|n| (of, n))).map(|((layout, a, b), n)| {
        let name = format!("wrapper_wgmma_{layout}_{n}");
        on_hopper(seed, name, move |bench, name| wgmma(bench, name, n, [a, b]))
    });
    common.chain(hopper).chain(products).collect()
}

/// A check of what only sm_90 has: no row elsewhere.
fn on_hopper(seed: u64, name: String, run: impl Fn(&Bench, &str) -> Result<Row> + 'static) -> Check {
    let names = vec![name.clone()];
    let rows = move |device: &Rc<dyn Device>| {
        let bench = Bench { device: device.clone(), seed };
        let row = has_sm_90a(device).and_then(|has| has.then(|| run(&bench, &name)).transpose());
        row.unwrap_or_else(|e| Some(Row::failed(&name, "", "", e))).into_iter().collect()
    };
    Check { names, run: Box::new(rows) }
}

/// A device, and numbers for it.
struct Bench {
    device: Rc<dyn Device>,
    seed: u64,
}

impl Bench {
    /// In -1 .. 1, held by bf16 exactly.
    fn numbers(&self, n: usize, stream: u64) -> Vec<f32> {
        let mut rng = Rng::new(self.seed, stream);
        (0..n).map(|_| bf16::from_f32(2.0 * rng.uniform() - 1.0).to_f32()).collect()
    }

    fn put<T: bytemuck::Pod>(&self, values: &[T]) -> Result<Memory> {
        let memory = Memory::new(&self.device, size_of_val(values))?;
        self.device.upload(memory.at(), bytemuck::cast_slice(values))?;
        Ok(memory)
    }
    fn get<T: bytemuck::Pod>(&self, from: &Memory) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); from.bytes() / size_of::<T>()];
        self.device.download(from.at(), bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }
    /// One block.
    fn launch<A: Args>(&self, kernel: &str, threads: u32, shared: usize, args: &A) -> Result<()> {
        Queue::new(&*self.device, Ptr::NULL).launch(kernel, 1, threads, shared, args)
    }
}

fn half(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|v| bf16::from_f32(*v)).collect()
}

fn equal<T: PartialEq + std::fmt::Debug>(name: &str, dtype: &str, got: &[T], want: &[T]) -> Row {
    let differ = (0..got.len().max(want.len())).find(|&i| got.get(i) != want.get(i));
    let checked = match differ {
        None => Ok(()),
        Some(i) => Err(format!("[{i}]: got {:?}, want {:?}", got.get(i), want.get(i))),
    };
    Row::exact(name, dtype, want.len().to_string(), checked)
}

/// A Bᵀ + C, summed in f64: a [m, k], b [n, k], c [m, n]; and the size of the terms.
fn product(a: &[f32], b: &[f32], c: &[f32], [n, k]: [usize; 2]) -> (Vec<f32>, Vec<f64>) {
    let each = |e: usize| {
        let terms = (0..k).map(|x| f64::from(a[e / n * k + x]) * f64::from(b[e % n * k + x]));
        terms.fold((f64::from(c[e]), f64::from(c[e].abs())), |(sum, size), t| (sum + t, size + t.abs()))
    };
    (0..c.len()).map(each).map(|(sum, size)| (sum as f32, size)).unzip()
}

fn multiplied(name: &str, dtype: &str, got: &[f32], (want, size): (Vec<f32>, Vec<f64>)) -> Row {
    // A tensor core aligns the terms of a step to the largest and cuts what is below f32's last place.
    let judged = judge("d", got, &want, &size, Tolerance::Ulps(8.0));
    Row::new(name, dtype, want.len().to_string(), &judged)
}

fn mma_bf16(bench: &Bench, name: &str) -> Result<Row> {
    let (a, b, c) = (bench.numbers(256, 1), bench.numbers(128, 2), bench.numbers(128, 3));
    let (at_a, at_b) = (bench.put(&half(&a))?, bench.put(&half(&b))?);
    let (at_c, d) = (bench.put(&c)?, bench.put(&[f32::NAN; 128])?);
    bench.launch(name, 32, 0, &WrapperArgs { a: at_a.at(), b: at_b.at(), c: at_c.at(), d: d.at(), n: 0 })?;
    Ok(multiplied(name, "bf16", &bench.get(&d)?, product(&a, &b, &c, [8, 16])))
}

/// To ten bits of mantissa, ties away from zero, by the definition.
fn tf32(x: f32) -> f32 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let unit = f64::from(x).abs().log2().floor().exp2() / 1024.0;
    ((f64::from(x) / unit).abs() + 0.5).floor().copysign(f64::from(x)) as f32 * unit as f32
}

fn mma_tf32(bench: &Bench, name: &str) -> Result<Row> {
    let finer = |v: Vec<f32>| v.into_iter().map(|x| 1.001 * x).collect::<Vec<f32>>();
    let (a, b, c) = (finer(bench.numbers(128, 1)), finer(bench.numbers(64, 2)), bench.numbers(128, 3));
    let (at_a, at_b, at_c, d) = (bench.put(&a)?, bench.put(&b)?, bench.put(&c)?, bench.put(&[f32::NAN; 128])?);
    bench.launch(name, 32, 0, &WrapperArgs { a: at_a.at(), b: at_b.at(), c: at_c.at(), d: d.at(), n: 0 })?;
    let [a, b] = [a, b].map(|v| v.into_iter().map(tf32).collect::<Vec<f32>>());
    Ok(multiplied(name, "tf32", &bench.get(&d)?, product(&a, &b, &c, [8, 8])))
}

fn to_tf32(bench: &Bench, name: &str) -> Result<Row> {
    let mut values: Vec<f32> = bench.numbers(500, 6).iter().map(|x| 1.2345 * x).collect();
    // Halfway between two, on both sides of zero; and what has no neighbour.
    let half_way = 0.5 / 1024.0;
    values.extend([1.0 + half_way, -1.0 - half_way, 1.0 + 3.0 * half_way, 0.0, 3e38, f32::INFINITY, 2f32.powi(-100)]);
    let (a, d) = (bench.put(&values)?, bench.put(&vec![f32::NAN; values.len()])?);
    let n = values.len() as u64;
    bench.launch(name, 32, 0, &WrapperArgs { a: a.at(), b: Ptr::NULL, c: Ptr::NULL, d: d.at(), n })?;
    let want: Vec<f32> = values.into_iter().map(tf32).collect();
    Ok(equal(name, "tf32", &bench.get(&d)?, &want))
}

fn exp2_approx(bench: &Bench, name: &str) -> Result<Row> {
    let mut values: Vec<f32> = bench.numbers(500, 8).iter().map(|x| 40.0 * x).collect();
    values.extend([0.0, -0.0, 1.0, -126.0, -126.5, -150.0, -1e30, f32::NEG_INFINITY, 2f32.powi(-140)]);
    let (a, d) = (bench.put(&values)?, bench.put(&vec![f32::NAN; values.len()])?);
    let n = values.len() as u64;
    bench.launch(name, 32, 0, &WrapperArgs { a: a.at(), b: Ptr::NULL, c: Ptr::NULL, d: d.at(), n })?;
    // Relative to what is wanted, which spans all sizes: 2^-22 by the ISA, and results below the normal ones are 0.
    let want = values.iter().map(|x| f64::from(*x).exp2());
    let normal = f64::from(f32::MIN_POSITIVE);
    let relative = |(got, want): (&f32, f64)| if want < normal { 1.0 + got } else { (f64::from(*got) / want) as f32 };
    let ratios: Vec<f32> = bench.get::<f32>(&d)?.iter().zip(want).map(relative).collect();
    let ones = vec![1.0; ratios.len()];
    let judged = judge("d", &ratios, &ones, &vec![1.0; ratios.len()], Tolerance::Ulps(4.0));
    Ok(Row::new(name, "f32", n.to_string(), &judged))
}

fn matrices(bench: &Bench, name: &str, count: u16, transposed: bool) -> Result<Row> {
    let values: Vec<u16> = (0..64 * count).collect();
    let (a, d) = (bench.put(&values)?, bench.put(&vec![!0u16; values.len()])?);
    bench.launch(name, 32, 0, &WrapperArgs { a: a.at(), b: Ptr::NULL, c: Ptr::NULL, d: d.at(), n: 0 })?;
    let turned = |e: u16| e / 64 * 64 + e % 8 * 8 + e / 8 % 8;
    let want: Vec<u16> = values.iter().map(|&e| if transposed { turned(e) } else { e }).collect();
    Ok(equal(name, "bf16", &bench.get(&d)?, &want))
}

/// `n` numbers copied, and zeros up to `size`.
fn padded(bench: &Bench, name: &str, n: usize, size: usize) -> Result<Row> {
    let values = bench.numbers(n, 7);
    let (a, d) = (bench.put(&values)?, bench.put(&vec![f32::NAN; size])?);
    bench.launch(name, 128, 0, &WrapperArgs { a: a.at(), b: Ptr::NULL, c: Ptr::NULL, d: d.at(), n: n as u64 })?;
    let want: Vec<f32> = (0..size).map(|i| values.get(i).copied().unwrap_or(0.0)).collect();
    Ok(equal(name, "f32", &bench.get(&d)?, &want))
}

/// `len` numbers, all of them copied.
fn copied(bench: &Bench, name: &str, len: usize, n: u64, threads: u32, shared: usize) -> Result<Row> {
    let values = bench.numbers(len, 8);
    let (a, d) = (bench.put(&values)?, bench.put(&vec![f32::NAN; len])?);
    bench.launch(name, threads, shared, &WrapperArgs { a: a.at(), b: Ptr::NULL, c: Ptr::NULL, d: d.at(), n })?;
    Ok(equal(name, "f32", &bench.get(&d)?, &values))
}

fn bar_sync(bench: &Bench, name: &str) -> Result<Row> {
    let values = bench.numbers(128, 9);
    let (a, d) = (bench.put(&values)?, bench.put(&[f32::NAN; 128])?);
    bench.launch(name, 128, 0, &WrapperArgs { a: a.at(), b: Ptr::NULL, c: Ptr::NULL, d: d.at(), n: 0 })?;
    let want: Vec<f32> = (0..128).map(|i| values[i ^ 63]).collect();
    Ok(equal(name, "f32", &bench.get(&d)?, &want))
}

/// A plane whose boxes of 64 x 64 hang over its edges.
const ROWS: usize = 50;
const COLUMNS: usize = 90;
const PITCH: usize = 96;
/// (column, row): inside, over each edge, and off the plane.
const CORNERS: [(i32, i32); 5] = [(0, 0), (37, 13), (-5, -3), (80, 0), (200, 100)];

fn hanging(bench: &Bench, memory: &Memory) -> Result<TensorMap> {
    let (at, rows, columns, pitch) = (memory.at(), ROWS, COLUMNS, PITCH);
    bench.device.tensor_map(&Plane { at, rows, columns, pitch, box_rows: 64, box_columns: 64 })
}

/// Where element e of a box lies in the plane's memory.
fn inside((x, y): (i32, i32), e: usize) -> Option<usize> {
    let row = usize::try_from(y + (e / 64) as i32).ok().filter(|r| *r < ROWS)?;
    let column = usize::try_from(x + (e % 64) as i32).ok().filter(|c| *c < COLUMNS)?;
    Some(row * PITCH + column)
}

fn tma_load(bench: &Bench, name: &str) -> Result<Row> {
    let values = half(&bench.numbers(ROWS * PITCH, 12));
    let a = bench.put(&values)?;
    let map = hanging(bench, &a)?;
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for corner in CORNERS {
        let d = bench.put(&[bf16::NAN; 64 * 64])?;
        let (x, y) = corner;
        let args = WrapperMapArgs { a_map: map, b_map: map, c: Ptr::NULL, d: d.at(), x, y, pad: [0; 5] };
        bench.launch(name, 128, 8192, &args)?;
        got.extend(bench.get::<bf16>(&d)?);
        want.extend((0..64 * 64).map(|e| inside(corner, e).map_or(bf16::ZERO, |i| values[i])));
    }
    Ok(equal(name, "bf16", &got, &want))
}

fn tma_store(bench: &Bench, name: &str) -> Result<Row> {
    let tile = half(&bench.numbers(64 * 64, 13));
    let c = bench.put(&tile)?;
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for corner in CORNERS {
        let before = vec![bf16::ONE; ROWS * PITCH];
        let a = bench.put(&before)?;
        let map = hanging(bench, &a)?;
        let (x, y) = corner;
        let args = WrapperMapArgs { a_map: map, b_map: map, c: c.at(), d: Ptr::NULL, x, y, pad: [0; 5] };
        bench.launch(name, 128, 8192, &args)?;
        got.extend(bench.get::<bf16>(&a)?);
        let mut after = before;
        tile.iter().enumerate().filter_map(|(e, v)| Some((inside(corner, e)?, v))).for_each(|(i, v)| after[i] = *v);
        want.extend(after);
    }
    Ok(equal(name, "bf16", &got, &want))
}

/// With C, and without.
fn wgmma(bench: &Bench, name: &str, n: usize, [a_turned, b_turned]: [bool; 2]) -> Result<Row> {
    let (a, b, c) = (bench.numbers(64 * 64, 14), bench.numbers(n * 64, 15), bench.numbers(64 * n, 16));
    // As the kernel reads them: rows of 64, or 64 rows.
    let stored = |v: &[f32], rows: usize, turned: bool| {
        let at = |e: usize| if turned { e % rows * 64 + e / rows } else { e };
        half(&(0..rows * 64).map(|e| v[at(e)]).collect::<Vec<f32>>())
    };
    let at_a = bench.put(&stored(&a, 64, a_turned))?;
    let (at_b, at_c) = (bench.put(&stored(&b, n, b_turned))?, bench.put(&c)?);
    let plane = |at, rows: usize, turned: bool| match turned {
        true => Plane { at, rows: 64, columns: rows, pitch: rows, box_rows: 64, box_columns: 64 },
        false => Plane { at, rows, columns: 64, pitch: 64, box_rows: rows, box_columns: 64 },
    };
    let a_map = bench.device.tensor_map(&plane(at_a.at(), 64, a_turned))?;
    let b_map = bench.device.tensor_map(&plane(at_b.at(), n, b_turned))?;
    let (mut got, mut want) = (Vec::new(), (Vec::new(), Vec::new()));
    for (at, c) in [(at_c.at(), c), (Ptr::NULL, vec![0.0; 64 * n])] {
        let d = bench.put(&vec![f32::NAN; 64 * n])?;
        let args = WrapperMapArgs { a_map, b_map, c: at, d: d.at(), x: 0, y: 0, pad: [0; 5] };
        bench.launch(name, 128, 8192 + 128 * n, &args)?;
        got.extend(bench.get::<f32>(&d)?);
        let (sum, size) = product(&a, &b, &c, [n, 64]);
        want.0.extend(sum);
        want.1.extend(size);
    }
    Ok(multiplied(name, "bf16", &got, want))
}
