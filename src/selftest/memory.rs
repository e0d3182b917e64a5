//! Pieces of a device's memory, a tensor each.
use crate::Result;
use crate::gpu::{Device, Dtype, Memory};
use std::rc::Rc;

/// Memory that holds `data` as `dtype`, and nothing else.
pub fn upload(device: &Rc<dyn Device>, data: &[f32], dtype: Dtype) -> Result<Memory> {
    let memory = Memory::new(device, data.len() * dtype.bytes())?;
    match dtype {
        Dtype::F32 => device.upload(memory.at(), bytemuck::cast_slice(data))?,
        Dtype::Bf16 => {
            let data: Vec<half::bf16> = data.iter().map(|v| half::bf16::from_f32(*v)).collect();
            device.upload(memory.at(), bytemuck::cast_slice(&data))?;
        }
    }
    Ok(memory)
}

/// Memory whose every element is NaN, in either dtype.
pub fn poisoned(device: &Rc<dyn Device>, bytes: usize) -> Result<Memory> {
    let memory = Memory::new(device, bytes)?;
    device.upload(memory.at(), &vec![0xff; bytes])?;
    Ok(memory)
}

/// All that `memory` holds, as f32.
pub fn download(device: &Rc<dyn Device>, memory: &Memory, dtype: Dtype) -> Result<Vec<f32>> {
    let n = memory.bytes() / dtype.bytes();
    match dtype {
        Dtype::F32 => {
            let mut data = vec![0.0f32; n];
            device.download(memory.at(), bytemuck::cast_slice_mut(&mut data))?;
            Ok(data)
        }
        Dtype::Bf16 => {
            let mut data = vec![half::bf16::ZERO; n];
            device.download(memory.at(), bytemuck::cast_slice_mut(&mut data))?;
            Ok(data.iter().map(|v| v.to_f32()).collect())
        }
    }
}
