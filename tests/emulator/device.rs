//! The device: memory, launches that are refused, recordings, and seeds.
use super::bench::{Bench, ONE_BLOCK};
use fipk::gpu::emulator::{Emulator, Options, kernels};
use fipk::gpu::{Device, Launch, Memory, Plane, Ptr};
use std::rc::Rc;

fn floats(device: &dyn Device, at: Ptr, n: usize) -> Vec<f32> {
    let mut y = vec![0f32; n];
    device.download(at, bytemuck::cast_slice_mut(&mut y)).unwrap();
    y
}

fn memory(device: &Rc<dyn Device>, values: &[f32]) -> Memory {
    let memory = Memory::new(device, 4 * values.len()).unwrap();
    device.upload(memory.at(), bytemuck::cast_slice(values)).unwrap();
    memory
}

/// y = a + b by a kernel whose blocks stride over them.
fn add(device: &dyn Device, a: Ptr, b: Ptr, y: Ptr, n: usize, threads: u32) -> fipk::Result<()> {
    let args = [a.0, b.0, y.0, n as u64];
    let args = bytemuck::cast_slice(&args);
    device.launch(&Launch { kernel: "right_sum", grid: [3, 1, 1], threads, shared: 0, args })
}

#[test]
fn any_number_of_blocks_does_any_size() {
    for seed in [None, Some(1), Some(2), Some(3)] {
        let device: Rc<dyn Device> = Rc::new(Emulator::new(Options { seed, checked: true }));
        for n in [1, 31, 33, 1009] {
            let [a, b] = [1.0f32, 0.5].map(|s| memory(&device, &(0..n).map(|i| s * i as f32).collect::<Vec<_>>()));
            let y = memory(&device, &vec![0.0; n]);
            add(&*device, a.at(), b.at(), y.at(), n, 256).unwrap();
            let wanted: Vec<f32> = (0..n).map(|i| 1.5 * i as f32).collect();
            assert_eq!(floats(&*device, y.at(), n), wanted);
        }
    }
}

#[test]
fn one_element_past_the_end_is_caught() {
    let device: Rc<dyn Device> = Rc::new(Emulator::default());
    let [a, b, y] = [(); 3].map(|_| memory(&device, &[1.0; 10]));
    let error = add(&*device, a.at(), b.at(), y.at(), 11, 32).unwrap_err().to_string();
    let wanted = ["kernel right_sum", "out of bounds: read of 4 bytes, 0 bytes past the end", "kernels/vector.cuh:"];
    assert!(wanted.iter().all(|w| error.contains(w)), "{error}");
}

#[test]
fn launches_that_cannot_be_right_are_refused() {
    let device = Emulator::default();
    let args = [0u8; 32];
    let good = Launch { kernel: "right_sum", grid: [1, 1, 1], threads: 32, shared: 0, args: &args };
    device.launch(&good).unwrap();
    let cases = [
        (Launch { kernel: "right_summ", ..good }, "no such kernel"),
        (Launch { args: &args[..24], ..good }, "takes 32 bytes of arguments, got 24"),
        (Launch { threads: 0, ..good }, "blocks of 0 threads"),
        (Launch { threads: 48, ..good }, "blocks of 48 threads"),
        (Launch { threads: 288, ..good }, "its definition allows 256"),
        (Launch { grid: [1, 0, 1], ..good }, "grid of [1, 0, 1]"),
        (Launch { grid: [1, 70000, 1], ..good }, "grid of [1, 70000, 1]"),
        (Launch { shared: 300 << 10, ..good }, "dynamic shared memory"),
    ];
    for (launch, wanted) in cases {
        let error = device.launch(&launch).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}, wanted {wanted:?}");
    }
}

#[test]
fn memory_is_poisoned_and_bounded() {
    let device = Emulator::default();
    let at = device.alloc(40).unwrap();
    assert!(floats(&device, at, 10).iter().all(|x| x.is_nan()));
    assert!(device.upload(at, &[0; 41]).is_err());
    assert!(device.download(at.offset(8), &mut [0; 33]).is_err());
    assert!(device.fill(at, 0, 11).is_err());
    assert!(device.copy(at, at.offset(4), 40).is_err());
    device.fill(at, 2.5f32.to_bits(), 10).unwrap();
    assert_eq!(floats(&device, at, 10), [2.5; 10]);
    let before = device.memory().unwrap();
    device.free(at);
    device.free(at);
    assert_eq!(device.memory().unwrap().0, before.0 + 40);
    assert!(device.download(at, &mut [0; 4]).is_err());
    let error = device.alloc(1 << 50).unwrap_err().to_string();
    assert!(error.contains("1125899906842624 bytes"), "{error}");
}

#[test]
fn what_nobody_wrote_is_a_nan() {
    let bench = Bench::new(None);
    bench.launch("right_poison", ONE_BLOCK).unwrap();
    assert!(bench.y().iter().all(|y| y.is_nan()));
}

#[test]
fn recordings_run_when_they_are_replayed() {
    let device: Rc<dyn Device> = Rc::new(Emulator::default());
    let [a, b, y] = [1.0, 10.0, 0.0].map(|v| memory(&device, &[v; 4]));
    let mut body = || {
        add(&*device, a.at(), b.at(), y.at(), 4, 32)?;
        device.copy(a.at(), y.at(), 16)
    };
    let recorded = device.record(&mut body).unwrap();
    assert_eq!(floats(&*device, y.at(), 4), [0.0; 4]);
    for wanted in [11.0, 21.0, 31.0] {
        device.replay(recorded).unwrap();
        assert_eq!(floats(&*device, y.at(), 4), [wanted; 4]);
    }
    device.fill(b.at(), 0, 4).unwrap();
    device.replay(recorded).unwrap();
    assert_eq!(floats(&*device, y.at(), 4), [31.0; 4], "arguments are recorded, memory is not");
    let wrong = device.record(&mut || add(&*device, a.at(), b.at(), y.at(), 4, 33));
    assert!(wrong.is_err(), "a launch that cannot be right is refused where it is queued");
    device.replay(recorded).unwrap();
}

#[test]
fn a_seed_is_a_schedule() {
    let order = |seed| {
        let bench = Bench::new(seed);
        bench.launch("right_order", ONE_BLOCK).unwrap();
        (bench.y(), bench.device.counts())
    };
    let orders = [None, Some(1), Some(2), Some(3)].map(order);
    for (i, seed) in [None, Some(1), Some(2), Some(3)].into_iter().enumerate() {
        assert_eq!(order(seed), orders[i], "seed {seed:?} again");
        assert!(orders[..i].iter().all(|o| o.0 != orders[i].0), "seed {seed:?} is another order");
    }
    let message = |seed| Bench::new(Some(seed)).launch("bug_no_barrier", ONE_BLOCK).unwrap_err().to_string();
    assert_eq!(message(5), message(5));
    assert!(message(5).contains("seed 5"), "{}", message(5));
}

#[test]
fn an_unchecked_device_runs_what_a_checked_one_refuses() {
    let device = Emulator::new(Options { checked: false, ..Options::default() });
    let y = device.alloc(4 * 256).unwrap();
    let args = [0u64, y.0, y.0, 0];
    assert!(
        device
            .launch(&Launch {
                kernel: "right_sum",
                grid: [1, 1, 1],
                threads: 32,
                shared: 0,
                args: bytemuck::cast_slice(&args)
            })
            .is_ok()
    );
    assert!(device.describe().contains("unchecked"));
}

#[test]
fn launched_kernels_are_remembered() {
    let bench = Bench::new(None);
    assert!(bench.device.launched().is_empty());
    bench.launch("right_barrier", ONE_BLOCK).unwrap();
    assert_eq!(bench.device.launched().into_iter().collect::<Vec<_>>(), ["right_barrier"]);
    let known = kernels();
    let add = known.iter().find(|k| k.name == "right_sum").unwrap();
    assert_eq!((add.args, add.threads), (32, 256));
    assert!(known.windows(2).all(|w| w[0].name < w[1].name), "two kernels of one name");
}

#[test]
fn planes_that_no_hardware_copies_are_refused() {
    let device = Emulator::default();
    let at = device.alloc(2 * 64 * 100).unwrap();
    let good = Plane { at, rows: 100, columns: 60, pitch: 64, box_rows: 32, box_columns: 64 };
    device.tensor_map(&good).unwrap();
    let cases = [
        (Plane { at: at.offset(8), ..good }, "starts at"),
        (Plane { pitch: 60, ..good }, "rows 60 elements apart"),
        (Plane { pitch: 56, ..good }, "rows 56 elements apart"),
        (Plane { box_columns: 72, ..good }, "boxes of 32 x 72"),
        (Plane { box_rows: 257, ..good }, "boxes of 257 x 64"),
        (Plane { rows: 0, ..good }, "0 x 60"),
        (Plane { rows: 101, ..good }, "not all in one buffer"),
    ];
    for (plane, wanted) in cases {
        let error = device.tensor_map(&plane).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}, wanted {wanted:?}");
    }
}
