//! The host twins of the wrappers in ptx.cuh, each against plain arithmetic: what a first run on a device compares too.
use super::bench::SEEDS;
use fipk::gpu::emulator::{Emulator, Options};
use fipk::gpu::{Device, Launch, Plane, Ptr, TensorMap};
use half::bf16;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct WrapperArgs {
    a: Ptr,
    b: Ptr,
    c: Ptr,
    d: Ptr,
    n: u64,
}

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

/// A device under each schedule.
fn devices() -> impl Iterator<Item = Emulator> {
    SEEDS.into_iter().map(|seed| Emulator::new(Options { seed, checked: true }))
}

fn put<T: bytemuck::Pod>(device: &Emulator, values: &[T]) -> Ptr {
    let at = device.alloc(size_of_val(values)).unwrap();
    device.upload(at, bytemuck::cast_slice(values)).unwrap();
    at
}

fn get<T: bytemuck::Pod>(device: &Emulator, at: Ptr, n: usize) -> Vec<T> {
    let mut values = vec![T::zeroed(); n];
    device.download(at, bytemuck::cast_slice_mut(&mut values)).unwrap();
    values
}

fn launch<A: bytemuck::Pod>(device: &Emulator, kernel: &str, threads: u32, shared: usize, args: &A) {
    let (shared, args) = (shared as u32, bytemuck::bytes_of(args));
    device.launch(&Launch { kernel, grid: [1, 1, 1], threads, shared, args }).unwrap();
}

/// Numbers without a pattern, in -1 .. 1, that bf16 holds exactly.
fn numbers(n: usize, salt: u32) -> Vec<f32> {
    let hash = |i: u32| (i.wrapping_add(salt).wrapping_mul(2654435761) >> 16) as f32 / 32768.0 - 1.0;
    (0..n as u32).map(|i| bf16::from_f32(hash(i)).to_f32()).collect()
}
fn half(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|v| bf16::from_f32(*v)).collect()
}

/// A Bᵀ + C in f64: a [m, k], b [n, k], c [m, n].
fn product(a: &[f32], b: &[f32], c: &[f32], m: usize, n: usize, k: usize) -> Vec<f64> {
    let dot = |i: usize, j: usize| (0..k).map(|x| f64::from(a[i * k + x]) * f64::from(b[j * k + x])).sum::<f64>();
    (0..m * n).map(|e| dot(e / n, e % n) + f64::from(c[e])).collect()
}

fn close(got: &[f32], wanted: &[f64], what: &str) {
    assert_eq!(got.len(), wanted.len());
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let error = (f64::from(*got) - wanted).abs();
        assert!(error <= 2e-5, "{what}: element {i} is {got}, wanted {wanted}");
    }
}

/// To 10 bits of mantissa, by the definition.
fn tf32(x: f32) -> f32 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let unit = f64::from(x).abs().log2().floor().exp2() / 1024.0;
    ((f64::from(x) / unit).abs() + 0.5).floor().copysign(f64::from(x)) as f32 * unit as f32
}

#[test]
fn products_of_a_warp() {
    for device in devices() {
        let (a, b, c) = (numbers(16 * 16, 1), numbers(8 * 16, 2), numbers(16 * 8, 3));
        let [a_at, b_at] = [put(&device, &half(&a)), put(&device, &half(&b))];
        let (c_at, d) = (put(&device, &c), put(&device, &[0f32; 128]));
        launch(&device, "wrapper_mma_bf16", 32, 0, &WrapperArgs { a: a_at, b: b_at, c: c_at, d, n: 0 });
        close(&get(&device, d, 128), &product(&a, &b, &c, 16, 8, 16), "mma_bf16");

        let [a, b] = [numbers(16 * 8, 4), numbers(8 * 8, 5)].map(|v| v.iter().map(|x| x * 1.001).collect::<Vec<_>>());
        let [a_at, b_at] = [&a, &b].map(|v| put(&device, v));
        launch(&device, "wrapper_mma_tf32", 32, 0, &WrapperArgs { a: a_at, b: b_at, c: c_at, d, n: 0 });
        let [a, b] = [a, b].map(|v| v.into_iter().map(tf32).collect::<Vec<_>>());
        close(&get(&device, d, 128), &product(&a, &b, &c, 16, 8, 8), "mma_tf32");
    }
}

#[test]
fn rounding_to_tf32() {
    let device = Emulator::default();
    let mut values: Vec<f32> = numbers(500, 6).iter().map(|x| x * 1.2345).collect();
    // Halfway between two tf32, on both sides of zero.
    values.extend([
        1.0 + 0.5 / 1024.0,
        -1.0 - 0.5 / 1024.0,
        1.0 + 1.5 / 1024.0,
        0.0,
        3e38,
        f32::INFINITY,
        2f32.powi(-100),
    ]);
    let (a, d) = (put(&device, &values), put(&device, &vec![0f32; values.len()]));
    let args = WrapperArgs { a, b: Ptr::NULL, c: Ptr::NULL, d, n: values.len() as u64 };
    launch(&device, "wrapper_to_tf32", 32, 0, &args);
    let wanted: Vec<f32> = values.into_iter().map(tf32).collect();
    assert_eq!(get::<f32>(&device, d, wanted.len()), wanted);
}

#[test]
fn matrices_load_and_transpose() {
    for device in devices() {
        for (kernel, matrices, transposed) in [
            ("wrapper_ldmatrix_x4", 4, false),
            ("wrapper_ldmatrix_x4_trans", 4, true),
            ("wrapper_ldmatrix_x2", 2, false),
            ("wrapper_ldmatrix_x2_trans", 2, true),
        ] {
            let values: Vec<u16> = (0..64 * matrices).collect();
            let (a, d) = (put(&device, &values), put(&device, &vec![0u16; values.len()]));
            launch(&device, kernel, 32, 0, &WrapperArgs { a, b: Ptr::NULL, c: Ptr::NULL, d, n: 0 });
            let turned = |e: u16| e / 64 * 64 + e % 8 * 8 + e / 8 % 8;
            let wanted: Vec<u16> = (0..64 * matrices).map(|e| if transposed { turned(e) } else { e }).collect();
            assert_eq!(get::<u16>(&device, d, wanted.len()), wanted, "{kernel}");
        }
    }
}

#[test]
fn copies_of_a_thread() {
    for device in devices() {
        for (kernel, n, size) in [("wrapper_cp_async_16", 300, 512), ("wrapper_cp_async_4", 77, 128)] {
            let values = numbers(n, 7);
            let (a, d) = (put(&device, &values), put(&device, &vec![1f32; size]));
            launch(&device, kernel, 128, 0, &WrapperArgs { a, b: Ptr::NULL, c: Ptr::NULL, d, n: n as u64 });
            let wanted: Vec<f32> = (0..size).map(|i| if i < n { values[i] } else { 0.0 }).collect();
            assert_eq!(get::<f32>(&device, d, size), wanted, "{kernel}");
        }
        let values = numbers(7 * 128, 8);
        let (a, d) = (put(&device, &values), put(&device, &vec![0f32; values.len()]));
        let args = WrapperArgs { a, b: Ptr::NULL, c: Ptr::NULL, d, n: values.len() as u64 };
        launch(&device, "wrapper_cp_async_wait", 128, 0, &args);
        assert_eq!(get::<f32>(&device, d, values.len()), values);
    }
}

#[test]
fn barriers_of_some_warps() {
    for device in devices() {
        let values = numbers(128, 9);
        let (a, d) = (put(&device, &values), put(&device, &[0f32; 128]));
        launch(&device, "wrapper_bar_sync", 128, 0, &WrapperArgs { a, b: Ptr::NULL, c: Ptr::NULL, d, n: 0 });
        let wanted: Vec<f32> = (0..128).map(|i| values[i ^ 63]).collect();
        assert_eq!(get::<f32>(&device, d, 128), wanted);
        for kernel in ["wrapper_bar_arrive", "wrapper_mbarrier"] {
            let values = numbers(64 * 5, 10);
            let (a, d) = (put(&device, &values), put(&device, &vec![0f32; values.len()]));
            launch(&device, kernel, 128, 0, &WrapperArgs { a, b: Ptr::NULL, c: Ptr::NULL, d, n: 5 });
            assert_eq!(get::<f32>(&device, d, values.len()), values, "{kernel}");
        }
    }
}

#[test]
fn copies_in_bulk() {
    for device in devices() {
        let values = numbers(1000, 11);
        let (a, d) = (put(&device, &values), put(&device, &vec![0f32; 1000]));
        launch(&device, "wrapper_bulk_load", 128, 4000, &WrapperArgs { a, b: Ptr::NULL, c: Ptr::NULL, d, n: 1000 });
        assert_eq!(get::<f32>(&device, d, 1000), values);
    }
}

/// A plane of 50 x 90, rows 96 apart, in boxes of 64 x 64.
fn odd_plane(at: Ptr) -> Plane {
    Plane { at, rows: 50, columns: 90, pitch: 96, box_rows: 64, box_columns: 64 }
}

/// Corners of boxes: inside, over each edge, and off the plane.
const CORNERS: [(i32, i32); 5] = [(0, 0), (37, 13), (-5, -3), (80, 0), (200, 100)];

fn inside(x: i32, y: i32, e: usize) -> Option<usize> {
    let (row, column) = (y + e as i32 / 64, x + e as i32 % 64);
    ((0..50).contains(&row) && (0..90).contains(&column)).then_some((row * 96 + column) as usize)
}

#[test]
fn tma_loads_boxes() {
    for device in devices() {
        let values = half(&numbers(50 * 96, 12));
        let a = put(&device, &values);
        let map = device.tensor_map(&odd_plane(a)).unwrap();
        let d = put(&device, &[bf16::ONE; 64 * 64]);
        for (x, y) in CORNERS {
            let args = WrapperMapArgs { a_map: map, b_map: map, c: Ptr::NULL, d, x, y, pad: [0; 5] };
            launch(&device, "wrapper_tma_load", 128, 8192, &args);
            let at = |e| inside(x, y, e).map_or(bf16::ZERO, |i| values[i]);
            let wanted: Vec<bf16> = (0..64 * 64).map(at).collect();
            assert_eq!(get::<bf16>(&device, d, 64 * 64), wanted, "at column {x}, row {y}");
        }
    }
}

#[test]
fn tma_stores_boxes() {
    for device in devices() {
        let tile = half(&numbers(64 * 64, 13));
        let c = put(&device, &tile);
        for (x, y) in CORNERS {
            let a = put(&device, &[bf16::ONE; 50 * 96]);
            let map = device.tensor_map(&odd_plane(a)).unwrap();
            let args = WrapperMapArgs { a_map: map, b_map: map, c, d: Ptr::NULL, x, y, pad: [0; 5] };
            launch(&device, "wrapper_tma_store", 128, 8192, &args);
            let mut wanted = vec![bf16::ONE; 50 * 96];
            for (e, value) in tile.iter().enumerate() {
                if let Some(i) = inside(x, y, e) {
                    wanted[i] = *value;
                }
            }
            assert_eq!(get::<bf16>(&device, a, 50 * 96), wanted, "at column {x}, row {y}");
        }
    }
}

#[test]
fn products_of_a_warpgroup() {
    for device in devices() {
        for n in [64, 128, 192, 256] {
            let (a, b, c) = (numbers(64 * 64, 14), numbers(n * 64, 15), numbers(64 * n, 16));
            let plane = |at, rows| Plane { at, rows, columns: 64, pitch: 64, box_rows: rows, box_columns: 64 };
            let a_map = device.tensor_map(&plane(put(&device, &half(&a)), 64)).unwrap();
            let b_map = device.tensor_map(&plane(put(&device, &half(&b)), n)).unwrap();
            let (c_at, d) = (put(&device, &c), put(&device, &vec![0f32; 64 * n]));
            let kernel = format!("wrapper_wgmma_{n}");
            for (c_at, c) in [(c_at, c), (Ptr::NULL, vec![0.0; 64 * n])] {
                let args = WrapperMapArgs { a_map, b_map, c: c_at, d, x: 0, y: 0, pad: [0; 5] };
                launch(&device, &kernel, 128, 8192 + 128 * n, &args);
                close(&get(&device, d, 64 * n), &product(&a, &b, &c, 64, n, 64), &kernel);
            }
        }
    }
}

#[test]
fn registers_move() {
    for device in devices() {
        let values = numbers(256, 17);
        let (a, d) = (put(&device, &values), put(&device, &[0f32; 256]));
        launch(&device, "wrapper_registers", 256, 0, &WrapperArgs { a, b: Ptr::NULL, c: Ptr::NULL, d, n: 0 });
        assert_eq!(get::<f32>(&device, d, 256), values);
    }
}

#[test]
fn every_wrapper_kernel_is_tested() {
    let text = include_str!("wrappers.rs");
    let all = fipk::gpu::emulator::kernels().into_iter().map(|k| k.name).filter(|n| n.starts_with("wrapper_"));
    let untested: Vec<String> =
        all.filter(|n| !n.starts_with("wrapper_wgmma_") && !text.contains(&format!("\"{n}\""))).collect();
    assert!(untested.is_empty(), "{untested:?}");
}
