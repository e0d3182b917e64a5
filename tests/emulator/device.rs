//! The device: memory, launches, recordings.
use fipk::gpu::emulator::{Emulator, Options};
use fipk::gpu::{Device, Launch};

#[test]
fn a_right_kernel_runs() {
    for seed in [None, Some(1), Some(2), Some(3)] {
        let device = Emulator::new(Options { seed, checked: true });
        for n in [1usize, 31, 33, 1009] {
            let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let b: Vec<f32> = (0..n).map(|i| 0.5 * i as f32 - 3.0).collect();
            let at = [(); 3].map(|_| device.alloc(4 * n).unwrap());
            device.upload(at[0], bytemuck::cast_slice(&a)).unwrap();
            device.upload(at[1], bytemuck::cast_slice(&b)).unwrap();
            let args = [at[0].0, at[1].0, at[2].0, n as u64];
            let args = bytemuck::cast_slice(&args);
            let launch = Launch { kernel: "add_forward_f32", grid: [3, 1, 1], threads: 256, shared: 0, args };
            device.launch(&launch).unwrap();
            let mut y = vec![0f32; n];
            device.download(at[2], bytemuck::cast_slice_mut(&mut y)).unwrap();
            for i in 0..n {
                assert_eq!(y[i], 1.5 * i as f32 - 3.0, "element {i} of {n}");
            }
            at.iter().for_each(|at| device.free(*at));
        }
    }
}

#[test]
fn one_element_too_many_is_caught() {
    let device = Emulator::default();
    let at = [(); 3].map(|_| device.alloc(4 * 10).unwrap());
    let args = [at[0].0, at[1].0, at[2].0, 11];
    let args = bytemuck::cast_slice(&args);
    let launch = Launch { kernel: "add_forward_f32", grid: [1, 1, 1], threads: 32, shared: 0, args };
    let error = device.launch(&launch).unwrap_err().to_string();
    assert!(error.contains("out of bounds") && error.contains("add_forward_f32"), "{error}");
    println!("{error}");
    at.iter().for_each(|at| device.free(*at));
}
