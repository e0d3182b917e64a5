//! Recorded launches: nothing runs while they are recorded, and each replay runs them on what memory then holds.
use super::list::Check;
use super::memory::{download, upload};
use super::row::Row;
use crate::Result;
use crate::gpu::{Device, Dtype, Ptr, Queue};
use crate::ops::{Add, DeviceIo, DeviceTensor, Op, Pass};
use std::rc::Rc;

pub(super) fn checks() -> Vec<Check> {
    vec![Check::one("record_replay", record_replay)]
}

/// y = a + b, z = y, y = 0; recorded once, replayed for three values of a.
fn record_replay(device: &Rc<dyn Device>) -> Result<Row> {
    const N: usize = 1009;
    let shape = [N];
    let numbers = |first: f32| (0..N).map(|i| first + i as f32).collect::<Vec<f32>>();
    let b = numbers(0.5);
    let [at_a, at_b] = [upload(device, &b, Dtype::F32)?, upload(device, &b, Dtype::F32)?];
    let [at_y, at_z] = [upload(device, &b, Dtype::F32)?, upload(device, &b, Dtype::F32)?];
    let queue = Queue::new(&**device, crate::gpu::Ptr::NULL);
    let tensor = |memory: &crate::gpu::Memory| DeviceTensor { at: memory.at(), dtype: Dtype::F32, shape: &shape };
    let x = [tensor(&at_a), tensor(&at_b)];
    let io = DeviceIo { x: &x, y: tensor(&at_y), saved: queue.scratch, kept: Ptr::NULL, dx: &[], dy: None, gx: &[] };
    let recorded = device.record(&mut || {
        Add.cuda(Pass::Forward, &io, &queue)?;
        device.copy(at_z.at(), at_y.at(), 4 * N)?;
        device.fill(at_y.at(), 0, N)
    })?;
    let mut wrong = Vec::new();
    if download(device, &at_z, Dtype::F32)? != b {
        wrong.push("it ran while it was recorded".to_string());
    }
    for first in [1.0, -3.0, 100.0] {
        let a = numbers(first);
        device.upload(at_a.at(), bytemuck::cast_slice(&a))?;
        device.replay(recorded)?;
        let want: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        if download(device, &at_z, Dtype::F32)? != want {
            wrong.push(format!("a from {first}: the replay does not give a + b"));
        }
        if download(device, &at_y, Dtype::F32)?.iter().any(|y| *y != 0.0) {
            wrong.push(format!("a from {first}: what was filled last is not zero"));
        }
    }
    let checked = if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) };
    Ok(Row::exact("record_replay", "f32", N.to_string(), checked))
}
