//! The emulator as a device: the kernels of kernels/*.cu compiled as C++, one fiber a CUDA thread, with every access to
//! memory checked. docs/emulator.md says what it sees.
use super::{Abilities, Device, Launch, Plane, Ptr, Recorded, TensorMap};
use crate::{Error, Result};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::time::Instant;

/// As `Options` in kernels/emulator/engine.h.
#[derive(Clone, Copy)]
#[repr(C)]
struct RawOptions {
    seed: u64,
    random: u32,
    checked: u32,
    most_switches: u64,
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counts {
    /// From one thread to another.
    pub switches: u64,
    /// Of whole blocks.
    pub barriers: u64,
    /// Calls of shuffles, votes and matrix products, a thread each.
    pub collectives: u64,
}

// SAFETY: these are the functions of kernels/emulator/{api,engine}.cpp, with the same types.
unsafe extern "C" {
    safe fn simt_new() -> *mut c_void;
    fn simt_delete(device: *mut c_void);
    fn simt_alloc(device: *mut c_void, bytes: usize, tracked: c_int) -> *mut u8;
    fn simt_free(device: *mut c_void, at: *mut c_void);
    safe fn simt_kernels() -> usize;
    fn simt_kernel(index: usize, args: *mut usize, threads: *mut u32) -> *const c_char;
    fn simt_launch(
        device: *mut c_void,
        name: *const c_char,
        blocks: *const u32,
        threads: u32,
        shared: usize,
        args: *const c_void,
        options: *const RawOptions,
        counts: *mut Counts,
        error: *mut c_char,
        error_bytes: usize,
    ) -> c_int;
}

/// A kernel that was compiled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub name: String,
    /// Bytes of its argument struct.
    pub args: usize,
    /// The most threads a block may have.
    pub threads: u32,
}

/// All kernels that were compiled in, in the order of their names.
pub fn kernels() -> Vec<Kernel> {
    let kernel = |i| {
        let (mut args, mut threads) = (0, 0);
        // SAFETY: i is below simt_kernels(), the outputs are valid, and names live as long as the program.
        let name = unsafe { CStr::from_ptr(simt_kernel(i, &mut args, &mut threads)) };
        Kernel { name: name.to_string_lossy().into_owned(), args, threads }
    };
    let mut all: Vec<Kernel> = (0..simt_kernels()).map(kernel).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// How kernels are run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Draws the order of threads and blocks; `None` takes them in turn.
    pub seed: Option<u64>,
    /// Check races, bounds, uninitialised reads and the rest; without, only what costs nothing.
    pub checked: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: None, checked: true }
    }
}

/// The arguments of kernels, aligned as a tensor map needs.
#[derive(Clone, Debug)]
#[repr(C, align(128))]
struct AlignedArgs([u8; MOST_ARGS]);

/// What CUDA allows: bytes of arguments, and of a block's shared memory.
const MOST_ARGS: usize = 4096;
const MOST_SHARED: u32 = 227 << 10;

/// What the words of a tensor map start with: `MAGIC` in kernels/emulator/copies.cpp.
const MAP: u64 = 0x4649_5f4d_4150;

/// Something queued.
#[derive(Clone, Debug)]
enum Step {
    Launch { kernel: String, grid: [u32; 3], threads: u32, shared: u32, args: Vec<u8> },
    Copy { to: Ptr, from: Ptr, bytes: usize },
    Fill { to: Ptr, word: u32, words: usize },
}

/// An emulated device. What is queued runs at once, except while it is recorded.
#[derive(Debug)]
pub struct Emulator {
    /// Its state in kernels/emulator: that of this device alone, and made for one thread at a time.
    raw: *mut c_void,
    options: Cell<Options>,
    kernels: BTreeMap<String, Kernel>,
    /// Bytes of what is allocated, by address.
    buffers: RefCell<BTreeMap<u64, usize>>,
    recordings: RefCell<Vec<Vec<Step>>>,
    recording: RefCell<Option<Vec<Step>>>,
    launched: RefCell<BTreeSet<String>>,
    counts: Cell<Counts>,
    abilities: Cell<Abilities>,
}

impl Default for Emulator {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Emulator {
    pub fn new(options: Options) -> Self {
        Self {
            raw: simt_new(),
            options: Cell::new(options),
            kernels: kernels().into_iter().map(|k| (k.name.clone(), k)).collect(),
            buffers: RefCell::default(),
            recordings: RefCell::default(),
            recording: RefCell::default(),
            launched: RefCell::default(),
            counts: Cell::default(),
            abilities: Cell::new(Abilities::AMPERE),
        }
    }

    /// Draw the order of threads and blocks of the launches that follow from another seed.
    pub fn reseed(&self, seed: Option<u64>) {
        self.options.set(Options { seed, ..self.options.get() });
    }

    /// Say to be another device to those who choose kernels by it: an A100 where nothing else is said. All kernels run
    /// either way.
    pub fn act_as(&self, abilities: Abilities) {
        self.abilities.set(abilities);
    }

    /// The names of the kernels that have been launched so far.
    pub fn launched(&self) -> BTreeSet<String> {
        self.launched.borrow().clone()
    }

    /// What the last launch did.
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    fn host(&self, at: Ptr, bytes: usize, doing: &str) -> Result<*mut u8> {
        let buffers = self.buffers.borrow();
        let inside = buffers.range(..=at.0).next_back().is_some_and(|(start, size)| {
            let offset = at.0 - start;
            offset <= *size as u64 && bytes as u64 <= *size as u64 - offset
        });
        if inside || bytes == 0 {
            return Ok(at.0 as *mut u8);
        }
        let what = format!("{doing} {bytes} bytes at {:#x}, which are not all in one buffer", at.0);
        Err(Error::device("emulator", what, "a device would read or write what belongs to something else"))
    }

    fn queue(&self, step: Step) -> Result<()> {
        if let Some(steps) = self.recording.borrow_mut().as_mut() {
            self.check(&step)?;
            steps.push(step);
            return Ok(());
        }
        self.run(&step)
    }

    /// What can be said of a step before it runs.
    fn check(&self, step: &Step) -> Result<()> {
        let Step::Launch { kernel, grid, threads, shared, args } = step else { return Ok(()) };
        let wrong = |what: String, hint: &str| Err(Error::device(format!("kernel {kernel}"), what, hint));
        let Some(known) = self.kernels.get(kernel) else {
            return wrong("there is no such kernel".into(), "kernels are the FIPK_KERNEL(name, ..) of kernels/*.cu");
        };
        if args.len() != known.args {
            let what = format!("takes {} bytes of arguments, got {}", known.args, args.len());
            return wrong(what, "the struct in src/ and that in kernels/ must be the same words");
        }
        if *threads == 0 || threads % 32 != 0 || *threads > known.threads {
            let what = format!("launched with blocks of {threads} threads, its definition allows {}", known.threads);
            return wrong(what, "a block is whole warps, no more than FIPK_KERNEL says");
        }
        if *shared > MOST_SHARED {
            let what = format!("launched with {shared} bytes of dynamic shared memory");
            return wrong(what, "a block may have 227 KiB on sm_90, of which its static arrays are a part");
        }
        if grid.contains(&0) || grid[1] > 65535 || grid[2] > 65535 || grid[0] > i32::MAX as u32 {
            let what = format!("launched with a grid of {grid:?} blocks");
            return wrong(what, "each axis is 1 or more; the second and third at most 65535");
        }
        Ok(())
    }

    fn run(&self, step: &Step) -> Result<()> {
        self.check(step)?;
        match step {
            Step::Launch { kernel, grid, threads, shared, args } => {
                self.run_kernel(kernel, *grid, *threads, *shared, args)
            }
            Step::Copy { to, from, bytes } => {
                let (from, to) = (self.host(*from, *bytes, "copies from")?, self.host(*to, *bytes, "copies to")?);
                // SAFETY: both are inside of buffers of this device; `copy` allows them to overlap.
                unsafe { std::ptr::copy(from, to, *bytes) };
                Ok(())
            }
            Step::Fill { to, word, words } => {
                let at = self.host(*to, 4 * words, "fills")?;
                for i in 0..*words {
                    // SAFETY: inside of a buffer of this device, as the whole was found to be.
                    unsafe { at.add(4 * i).cast::<u32>().write_unaligned(*word) };
                }
                Ok(())
            }
        }
    }

    fn run_kernel(&self, kernel: &str, grid: [u32; 3], threads: u32, shared: u32, args: &[u8]) -> Result<()> {
        let options = self.options.get();
        let raw = RawOptions {
            seed: options.seed.unwrap_or_default(),
            random: options.seed.is_some().into(),
            checked: options.checked.into(),
            most_switches: 0,
        };
        let fail = |what: String| {
            let hint = match options.seed {
                Some(seed) => format!("runs the same again with seed {seed}; docs/emulator.md explains the check"),
                None => "docs/emulator.md explains the check".into(),
            };
            Err(Error::device(format!("kernel {kernel}"), what, hint))
        };
        if args.len() > MOST_ARGS {
            return fail(format!("takes {} bytes of arguments, a kernel may have {MOST_ARGS}", args.len()));
        }
        let mut aligned = AlignedArgs([0; MOST_ARGS]);
        aligned.0[..args.len()].copy_from_slice(args);
        let Ok(name) = CString::new(kernel) else { return fail("its name holds a zero byte".into()) };
        let (mut counts, mut error) = (Counts::default(), [0u8; 4096]);
        self.launched.borrow_mut().insert(kernel.to_string());
        // SAFETY: the state is this device's and runs nothing else, the name ends in a zero, the arguments are as large as
        // the kernel reads (checked), all outputs are valid; the kernel touches its buffers, and what it does wrong is
        // what the checker reports.
        let status = unsafe {
            simt_launch(
                self.raw,
                name.as_ptr(),
                grid.as_ptr(),
                threads,
                shared as usize,
                aligned.0.as_ptr().cast(),
                &raw,
                &mut counts,
                error.as_mut_ptr().cast(),
                error.len(),
            )
        };
        self.counts.set(counts);
        if status == 0 {
            return Ok(());
        }
        let text = CStr::from_bytes_until_nul(&error).map(CStr::to_string_lossy).unwrap_or_default();
        fail(text.into_owned())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // SAFETY: it came from simt_new and nothing uses it any more; what is still allocated goes with it.
        unsafe { simt_delete(self.raw) };
    }
}

impl Device for Emulator {
    fn describe(&self) -> String {
        let options = self.options.get();
        let order = options.seed.map_or("threads in turn".to_string(), |s| format!("threads by seed {s}"));
        format!("emulator ({}, {order})", if options.checked { "checked" } else { "unchecked" })
    }
    fn multiprocessors(&self) -> u32 {
        2
    }
    fn abilities(&self) -> Abilities {
        self.abilities.get()
    }
    fn memory(&self) -> Result<(usize, usize)> {
        let used: usize = self.buffers.borrow().values().sum();
        let total = 16 << 30;
        Ok((total - used.min(total), total))
    }
    fn alloc(&self, bytes: usize) -> Result<Ptr> {
        let (free, _) = self.memory()?;
        let none = || Error::Memory {
            place: "emulator".into(),
            wanted: bytes,
            free,
            hint: "the emulator is for small tests".into(),
        };
        if bytes > free {
            return Err(none());
        }
        // SAFETY: this device is there, and no launch runs: one holds `self` until it is done.
        let at = unsafe { simt_alloc(self.raw, bytes, self.options.get().checked.into()) };
        if at.is_null() {
            return Err(none());
        }
        self.buffers.borrow_mut().insert(at as u64, bytes);
        Ok(Ptr(at as u64))
    }
    fn free(&self, at: Ptr) {
        if self.buffers.borrow_mut().remove(&at.0).is_some() {
            // SAFETY: `at` came from simt_alloc, and has not been freed: it was still listed.
            unsafe { simt_free(self.raw, at.0 as *mut c_void) };
        }
    }
    fn upload(&self, to: Ptr, data: &[u8]) -> Result<()> {
        let at = self.host(to, data.len(), "uploads to")?;
        // SAFETY: inside of a buffer of this device, which no Rust reference points into.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), at, data.len()) };
        Ok(())
    }
    fn download(&self, from: Ptr, data: &mut [u8]) -> Result<()> {
        let at = self.host(from, data.len(), "downloads from")?;
        // SAFETY: inside of a buffer of this device, which no Rust reference points into.
        unsafe { std::ptr::copy_nonoverlapping(at, data.as_mut_ptr(), data.len()) };
        Ok(())
    }
    fn copy(&self, to: Ptr, from: Ptr, bytes: usize) -> Result<()> {
        self.queue(Step::Copy { to, from, bytes })
    }
    fn fill(&self, to: Ptr, word: u32, words: usize) -> Result<()> {
        self.queue(Step::Fill { to, word, words })
    }
    fn launch(&self, launch: &Launch) -> Result<()> {
        self.queue(Step::Launch {
            kernel: launch.kernel.to_string(),
            grid: launch.grid,
            threads: launch.threads,
            shared: launch.shared,
            args: launch.args.to_vec(),
        })
    }
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    fn tensor_map(&self, plane: &Plane) -> Result<TensorMap> {
        plane.check()?;
        let Plane { at, rows, columns, pitch, box_rows, box_columns } = *plane;
        self.host(at, 2 * ((rows - 1) * pitch + columns), "maps")?;
        // As `Map` in kernels/emulator/copies.cpp.
        let mut words = [0; 16];
        let swizzled = 1;
        let numbers = [columns, rows, 2 * pitch, box_columns, box_rows, swizzled];
        words[..2].copy_from_slice(&[MAP, at.0]);
        words[2..8].copy_from_slice(&numbers.map(|n| n as u64));
        Ok(TensorMap(words))
    }
    fn record(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<Recorded> {
        if self.recording.borrow_mut().replace(Vec::new()).is_some() {
            return Err(Error::device("emulator", "a recording inside of a recording", "record one after the other"));
        }
        let done = body();
        let steps = self.recording.borrow_mut().take().unwrap_or_default();
        done?;
        let mut recordings = self.recordings.borrow_mut();
        recordings.push(steps);
        Ok(Recorded(recordings.len() - 1))
    }
    fn replay(&self, recorded: Recorded) -> Result<()> {
        let steps = self.recordings.borrow().get(recorded.0).cloned().unwrap_or_default();
        steps.into_iter().try_for_each(|step| self.queue(step))
    }
    fn time(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let start = Instant::now();
        body()?;
        Ok(start.elapsed().as_secs_f64())
    }
}
