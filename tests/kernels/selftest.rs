//! The list that `fipk selftest` runs, in the emulator, its threads in a seeded order; and that it sees what is wrong.
use fipk::dual::Dual;
use fipk::gpu::emulator::{Emulator, Options};
use fipk::gpu::{Device, Dtype, Ptr, Queue};
use fipk::ops::{Add, Cost, Cotangent, DeviceIo, Op, Pass, Reads};
use fipk::rng::Rng;
use fipk::selftest::{Case, Check, Make, Row, check_op, checks, coverage, run};
use fipk::tensor::{Shape, View};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

fn rows(emulator: &Rc<Emulator>, seed: u64, wanted: &dyn Fn(&str) -> bool) -> Vec<Row> {
    rows_of(emulator, checks(seed), wanted)
}

fn rows_of(emulator: &Rc<Emulator>, checks: Vec<Check>, wanted: &dyn Fn(&str) -> bool) -> Vec<Row> {
    let device: Rc<dyn Device> = emulator.clone();
    let mut rows = Vec::new();
    run(&device, &checks, wanted, &mut |row| {
        rows.push(row);
        Ok(())
    })
    .unwrap();
    rows
}

#[test]
fn every_kernel_is_launched_and_passes() {
    // The emulator's own tests plant bugs under several orders of threads; all rows once is minutes already.
    let seed = 1;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = &|i: usize| {
        let emulator = Rc::new(Emulator::new(Options { seed: Some(seed), checked: true }));
        let own = checks(seed).into_iter().skip(i).step_by(threads).collect();
        (rows_of(&emulator, own, &|_| true), emulator.launched())
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let spawned: Vec<_> = (0..threads).map(|i| scope.spawn(move || part(i))).collect();
        spawned.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (mut rows, mut launched) = (Vec::new(), BTreeSet::new());
    for (own, kernels) in parts {
        rows.extend(own);
        launched.extend(kernels);
    }
    rows.push(coverage(&launched));
    let wrong: Vec<String> = rows.iter().filter(|r| !r.ok).map(|r| format!("{r:?}")).collect();
    assert!(wrong.is_empty(), "seed {seed}: {} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert!(rows.len() > 1000, "{}", rows.len());
    // The judge of products; of each layout and tile, four pairs of dtypes twice, or two twice by mma, or one twice by
    // wgmma; two outputs of dual ones, three of both products of a reverse pass.
    let products = rows.iter().filter(|r| r.name.starts_with("gemm_")).count();
    assert_eq!(products, 3 + 6 * 8 + 9 * 4 + 9 * 2 + 2 * 4 + 2 * 6);
}

#[test]
fn a_kernel_that_no_row_launches_is_named() {
    let emulator = Rc::new(Emulator::default());
    assert!(rows(&emulator, 1, &|name| name == "add_forward").iter().all(|r| r.ok));
    let row = coverage(&emulator.launched());
    assert!(!row.ok && row.note.contains("flat_dot_f32") && !row.note.contains("add_forward_f32"), "{row:?}");
}

/// a + b, with a wrong launch.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// The right one.
    Not,
    /// Of all elements but the last.
    Short,
    /// Of one element more than there are.
    Long,
    /// Of a and a.
    Twice,
    /// NaN in one place, after the right one.
    Nan,
}

impl Op for Wrong {
    fn name(&self) -> &'static str {
        "add"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        Add.output(x)
    }
    fn reverse_reads(&self) -> Reads {
        Add.reverse_reads()
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        Add.cost(pass, x)
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        Add.reference(x, y);
    }
    fn forward(&self, x: &[View], y: &mut [f32], saved: &mut [f32]) {
        Add.forward(x, y, saved);
    }
    fn jvp(&self, x: &[View], y: &[f32], saved: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        Add.jvp(x, y, saved, dx, dy);
    }
    fn vjp(&self, x: &[View], y: &[f32], saved: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        Add.vjp(x, y, saved, gy, gx);
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> fipk::error::Result<()> {
        let n = io.y.numel();
        let of = |n: usize| {
            let shape = [n];
            let mut x = io.x.to_vec();
            x.iter_mut().for_each(|t| t.shape = &shape);
            let mut y = io.y;
            y.shape = &shape;
            Add.cuda(
                pass,
                &DeviceIo { x: &x, y, saved: Ptr::NULL, kept: io.kept, dx: io.dx, dy: io.dy, gx: io.gx },
                queue,
            )
        };
        match self {
            Self::Short if pass == Pass::Forward => of(n - 1),
            Self::Long if pass == Pass::Forward => of(n + 1),
            Self::Twice if pass == Pass::Forward => Add.cuda(pass, &DeviceIo { x: &[io.x[0], io.x[0]], ..*io }, queue),
            Self::Nan if pass == Pass::Forward => {
                Add.cuda(pass, io, queue)?;
                queue.device.upload(io.y.at.offset(2 * io.y.dtype.bytes()), &[0xff; 4][..io.y.dtype.bytes()])
            }
            _ => Add.cuda(pass, io, queue),
        }
    }
}

#[test]
fn wrong_launches_fail() {
    let device: Rc<dyn Device> = Rc::new(Emulator::default());
    let m = &mut Make(Rng::new(3, 0));
    let inputs = vec![m.normal(&[7, 11], 1.0), m.normal(&[7, 11], 1.0)];
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let forward = |op: Wrong| {
            let rows = check_op(&device, &Case { op: Arc::new(op), inputs: inputs.clone(), ulps: 1.0 }, dtype);
            (rows[0].ok, rows[0].note.clone())
        };
        assert!(forward(Wrong::Not).0, "{:?}", forward(Wrong::Not));
        for op in [Wrong::Short, Wrong::Long, Wrong::Twice, Wrong::Nan] {
            assert!(!forward(op).0, "{op:?} in {dtype:?}: {:?}", forward(op));
        }
    }
}
