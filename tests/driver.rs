//! The code that calls CUDA's driver, held to a stand-in for the driver's library: it shows that calls are made in an
//! order that a driver accepts and that nothing is read before it is there. It says nothing about any GPU.
#![cfg(all(target_os = "linux", fipk_cuda))]
use fipk::gpu::driver::Driver;
use fipk::gpu::{Device, Launch, Memory, Plane, Ptr, Which, discover, open};
use fipk::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::OnceLock;

const ADD: &str = "add_forward_f32";
const FAULTS: &str = "layer_norm_forward_f32";

/// The folder of the stand-in, compiled.
fn library() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libcuda");
        std::fs::create_dir_all(&folder).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/driver/libcuda.c");
        let made = folder.join(format!("made-{}", std::process::id()));
        compile(&source, &made, &["-O1", "-w", "-Wl,-soname,libcuda.so.1"]);
        // The first name that is looked for. Another run may be at it: renaming is done at once.
        std::fs::rename(made, folder.join("libcuda.so")).unwrap();
        folder
    })
}

fn compile(source: &Path, to: &Path, flags: &[&str]) {
    let mut command = Command::new("cc");
    command.args(flags).args(["-shared", "-fPIC", "-o"]).args([to, source]);
    let out = command.output().expect("a linker is there where Rust is");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn with_library(mut command: Command, state: &str) -> Output {
    // One process loads one library, whose state is set before it starts.
    command.env("LD_LIBRARY_PATH", library()).env("STANDIN", state).env_remove("CUDA_VISIBLE_DEVICES");
    command.output().unwrap()
}

/// Runs a test of this file, one of those below that are ignored, in a process that has the stand-in.
fn inside(test: &str, environment: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).envs(environment.iter().copied());
    let out = with_library(command, "good");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{test}: {text}");
}

#[test]
fn the_doctor_tells_every_state_of_the_driver_apart() {
    let cases = [
        ("stub", "stub", "LD_LIBRARY_PATH"),
        ("old", "CUDA 11.4", "update the driver"),
        ("none", "no device", "nvidia-smi"),
        ("mismatch", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "reboot"),
        ("good", "cuda:0 Stand-in, compute capability 9.0, 132 SMs, 0.1 GiB", "serves CUDA 13.0"),
    ];
    for (state, says, hint) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fipk"));
        command.arg("doctor");
        let out = with_library(command, state);
        let text = String::from_utf8_lossy(&out.stdout);
        assert_eq!(out.status.code(), Some(0), "{state}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(text.contains(says) && text.contains(hint), "{state}: {text}");
    }
}

#[test]
fn a_library_without_its_functions_is_no_driver() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.c");
    std::fs::write(&empty, "int cuInit(unsigned flags) { return 0; }\n").unwrap();
    let to = folder.path().join("libcuda.so");
    compile(&empty, &to, &[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_fipk"));
    let out = command.arg("doctor").env("LD_LIBRARY_PATH", folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("libcuda lacks cuDriverGetVersion"), "{text}");
}

#[test]
fn memory_goes_there_and_comes_back() {
    inside("memory", &[]);
}

#[test]
fn kernels_are_launched_as_they_were_compiled() {
    inside("launches", &[]);
}

#[test]
fn recordings_replay_on_what_memory_holds_by_then() {
    inside("recordings", &[]);
}

#[test]
fn a_fault_names_the_kernel_that_was_launched_last() {
    inside("faults", &[]);
    inside("faults_when_waiting", &[("FIPK_CUDA_SYNC", "1")]);
}

#[test]
fn devices_are_opened_by_number_and_given_back() {
    inside("opening", &[]);
}

fn device() -> Rc<dyn Device> {
    open(Which::Cuda(0)).unwrap().unwrap()
}

fn put(device: &Rc<dyn Device>, data: &[f32]) -> Memory {
    let memory = Memory::new(device, 4 * data.len()).unwrap();
    device.upload(memory.at(), bytemuck::cast_slice(data)).unwrap();
    memory
}

fn get(device: &Rc<dyn Device>, at: Ptr, count: usize) -> Vec<f32> {
    let mut data = vec![f32::NAN; count];
    device.download(at, bytemuck::cast_slice_mut(&mut data)).unwrap();
    data
}

fn add(device: &dyn Device, [a, b, y]: [Ptr; 3], n: usize) -> Result<()> {
    let args = [a.0, b.0, y.0, n as u64, 0];
    let args = bytemuck::cast_slice(&args);
    device.launch(&Launch { kernel: ADD, grid: [1, 1, 1], threads: 256, shared: 0, args })
}

#[test]
#[ignore = "needs the stand-in: see memory_goes_there_and_comes_back"]
fn memory() {
    let device = device();
    // One byte, pieces that fill the pinned buffers exactly, one more, several and a rest.
    for bytes in [1, 3, 4096, 8 << 20, (8 << 20) + 1, (20 << 20) + 5] {
        let data: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect();
        let (one, two) = (Memory::new(&device, bytes).unwrap(), Memory::new(&device, bytes).unwrap());
        assert_eq!((one.at().0 % 256, two.at().0 % 256), (0, 0));
        device.upload(one.at(), &data).unwrap();
        device.copy(two.at(), one.at(), bytes).unwrap();
        let mut back = vec![0; bytes];
        device.download(two.at(), &mut back).unwrap();
        assert!(back == data, "{bytes} bytes");
    }
    // Many uploads before the queue runs: no buffer may be written again too early.
    let parts: Vec<Memory> = (0..9).map(|i| put(&device, &[i as f32; 1000])).collect();
    for (i, part) in parts.iter().enumerate() {
        assert_eq!(get(&device, part.at(), 1000), vec![i as f32; 1000]);
    }
    device.fill(parts[0].at().offset(8), 2f32.to_bits(), 3).unwrap();
    assert_eq!(get(&device, parts[0].at(), 6), [0.0, 0.0, 2.0, 2.0, 2.0, 0.0]);
    // Nothing is nothing.
    device.upload(Ptr::NULL, &[]).unwrap();
    device.download(Ptr::NULL, &mut []).unwrap();
    device.copy(Ptr::NULL, Ptr::NULL, 0).unwrap();
    device.fill(Ptr::NULL, 0, 0).unwrap();

    let (free, total) = device.memory().unwrap();
    assert_eq!((total, free), (64 << 20, (64 << 20) - 9 * 4000));
    match Memory::new(&device, 65 << 20) {
        Err(Error::Memory { wanted, free: said, .. }) => assert_eq!((wanted, said), (65 << 20, free)),
        other => panic!("{other:?}"),
    }
    drop(parts);
    assert_eq!(device.memory().unwrap(), (total, total));
}

#[test]
#[ignore = "needs the stand-in: see kernels_are_launched_as_they_were_compiled"]
fn launches() {
    let device = device();
    let (a, b, y) = (put(&device, &[1.0, 2.0, 3.0]), put(&device, &[10.0, 20.0, 30.0]), put(&device, &[0.0; 3]));
    let abc = [a.at(), b.at(), y.at()];
    add(&*device, abc, 3).unwrap();
    assert_eq!(get(&device, y.at(), 3), [11.0, 22.0, 33.0]);
    assert!(device.time(&mut || add(&*device, abc, 3)).unwrap() > 0.0);

    let words = [abc[0].0, abc[1].0, abc[2].0, 3, 0];
    let good = Launch { kernel: ADD, grid: [1, 1, 1], threads: 256, shared: 0, args: bytemuck::cast_slice(&words) };
    // Any dynamic shared memory is asked for first; more than a block can have is refused.
    for shared in [1, 48 << 10, 200 << 10, 100] {
        device.launch(&Launch { shared, ..good }).unwrap();
    }
    let refused = [
        (Launch { shared: 228 << 10, ..good }, "233472 bytes of shared memory"),
        (Launch { kernel: "no_such_kernel", ..good }, "no kernel no_such_kernel"),
        (Launch { kernel: "zero\0inside", ..good }, "no kernel"),
        (Launch { args: &good.args[..32], ..good }, "wanted 40 bytes of arguments, got 32"),
        (Launch { threads: 257, ..good }, "wanted 1 to 256 threads a block, got 257"),
        (Launch { threads: 0, ..good }, "got 0"),
        (Launch { grid: [1, 0, 1], ..good }, "grid of [1, 0, 1]"),
    ];
    for (launch, says) in refused {
        let error = device.launch(&launch).unwrap_err();
        assert!(matches!(error, Error::Device { .. }) && error.to_string().contains(says), "{error}");
    }
    // The stand-in leaves in a map what it was given: a type of 9 is bf16, 3 the swizzle, 2 the promotion to L2.
    let plane = Plane { at: y.at(), rows: 5, columns: 11, pitch: 16, box_rows: 4, box_columns: 8 };
    let map = device.tensor_map(&plane).unwrap();
    let wanted: [u64; 16] = [9, 2, y.at().0, 11, 5, 32, 8, 4, 1, 1, 0, 3, 2, 0, 0, 0];
    assert_eq!(bytemuck::bytes_of(&map), bytemuck::bytes_of(&wanted));
    assert!(device.tensor_map(&Plane { pitch: 12, ..plane }).unwrap_err().to_string().contains("8 elements"));
    // None of them did any harm.
    device.launch(&good).unwrap();
    device.synchronize().unwrap();
}

#[test]
#[ignore = "needs the stand-in: see recordings_replay_on_what_memory_holds_by_then"]
fn recordings() {
    let device = device();
    let (a, y) = (put(&device, &[1.0, 2.0]), put(&device, &[0.0; 2]));
    let step = || {
        // The kernel's image is loaded within the recording, as it was not asked for before.
        add(&*device, [y.at(), a.at(), y.at()], 2)?;
        device.fill(a.at(), 5f32.to_bits(), 1)
    };
    let recorded = device.record(&mut || step()).unwrap();
    assert_eq!(get(&device, y.at(), 2), [0.0, 0.0], "recording runs nothing");
    for wanted in [[1.0, 2.0], [6.0, 4.0], [11.0, 6.0]] {
        device.replay(recorded).unwrap();
        assert_eq!(get(&device, y.at(), 2), wanted);
    }
    let other = device.record(&mut || device.copy(y.at(), a.at(), 8)).unwrap();
    assert_ne!(other, recorded);
    device.replay(other).unwrap();
    assert_eq!(get(&device, y.at(), 2), [5.0, 2.0]);

    // What a recording cannot hold is refused by name and leaves the device as it was.
    let mut bytes = [0; 4];
    type Refused<'a> = Box<dyn FnMut() -> Result<()> + 'a>;
    let fails: [(&str, Refused); 5] = [
        ("upload", Box::new(|| device.upload(y.at(), &[0; 4]))),
        ("download", Box::new(|| device.download(y.at(), &mut bytes))),
        ("memory", Box::new(|| device.alloc(4).map(|_| ()))),
        ("wait", Box::new(|| device.synchronize())),
        ("recording", Box::new(|| device.record(&mut || Ok(())).map(|_| ()))),
    ];
    for (says, mut body) in fails {
        let error = device.record(&mut *body).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("recorded"), "{says}: {error}");
        device.synchronize().unwrap();
    }
    device.replay(recorded).unwrap();
    assert_eq!(get(&device, y.at(), 2), [10.0, 4.0]);
}

/// What each of two calls says after a kernel that faults and one that does not.
fn after_a_fault() -> (Result<()>, String) {
    let device = device();
    let y = put(&device, &[0.0]);
    let args = [y.at().0, y.at().0, y.at().0, 1, 0];
    let args = bytemuck::cast_slice(&args);
    let launched = device.launch(&Launch { kernel: FAULTS, grid: [1, 1, 1], threads: 32, shared: 0, args });
    let error = device.download(y.at(), &mut [0; 4]).unwrap_err().to_string();
    (launched, error)
}

#[test]
#[ignore = "needs the stand-in: see a_fault_names_the_kernel_that_was_launched_last"]
fn faults() {
    let (launched, error) = after_a_fault();
    launched.unwrap();
    for part in ["CUDA_ERROR_ILLEGAL_ADDRESS", "illegal memory access", FAULTS, "FIPK_CUDA_SYNC=1"] {
        assert!(error.contains(part), "`{error}` does not say {part}");
    }
}

#[test]
#[ignore = "needs the stand-in: see a_fault_names_the_kernel_that_was_launched_last"]
fn faults_when_waiting() {
    let (launched, _) = after_a_fault();
    let error = launched.unwrap_err().to_string();
    assert!(error.contains("CUDA_ERROR_ILLEGAL_ADDRESS") && error.contains(FAULTS), "{error}");
}

#[test]
#[ignore = "needs the stand-in: see devices_are_opened_by_number_and_given_back"]
fn opening() {
    assert_eq!(discover::version(), Ok(13000));
    let error = open(Which::Cuda(3)).unwrap_err();
    assert!(error.exit_code() == 1 && error.to_string().contains("1 device"), "{error}");
    {
        let device = open(Which::Auto).unwrap().expect("auto takes the first");
        assert!(device.describe().contains("cuda:0 Stand-in") && device.multiprocessors() == 132);
        let y = put(&device, &[1.0; 1000]);
        add(&*device, [y.at(); 3], 1000).unwrap();
        let recorded = device.record(&mut || add(&*device, [y.at(); 3], 1000)).unwrap();
        device.replay(recorded).unwrap();
        assert_eq!(get(&device, y.at(), 1000), [4.0; 1000]);
        // The same number again is the same device.
        let again = Driver::open(0).unwrap();
        assert_eq!(again.describe(), device.describe());
    }
    // SAFETY: the stand-in is loaded, under its name, and has this function.
    let held = unsafe {
        let library = libloading::Library::new("libcuda.so").unwrap();
        library.get::<unsafe extern "C" fn() -> i32>("standin_held").unwrap()()
    };
    assert_eq!(held, 0, "handles that were not given back");
}
