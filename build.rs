//! Compiles `kernels/*.cu` with nvcc, one fat binary a file, into the table that `src/gpu/images.rs` embeds. Without
//! nvcc the crate is built without CUDA kernels and runs on the CPU. The feature `emulator` compiles the same files for
//! the host as well.
//!
//! `FIPK_CUDA` is `auto` (default), `require` (no nvcc is an error) or `off`; `FIPK_CUDA_ARCHS` lists architectures
//! (`build/archs.rs`); nvcc comes from `NVCC`, `CUDA_HOME`, `CUDA_PATH`, `PATH`, the usual folders, or PyPI's wheels in
//! `.cuda` or in the active Python. What registers and shared memory each kernel takes stands in
//! `target/kernels/report.txt`.
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

#[path = "build/archs.rs"]
mod archs;
#[cfg(feature = "emulator")]
#[path = "kernels/emulator/build.rs"]
mod emulator;
#[path = "build/report.rs"]
mod report;

use report::Entry;

/// The first release that knows `--compress-mode`.
const LEAST_RELEASE: (u32, u32) = (12, 8);

const HOW: &str = "pip install --target .cuda 'cuda-toolkit[nvcc,crt,nvvm,cudart,cccl]==13.0.2', \
                   then build with FIPK_CUDA=require; docs/cuda.md says more";

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rustc-check-cfg=cfg(fipk_cuda)");
    #[cfg(feature = "emulator")]
    emulator::build();
    match kernels() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// A variable of the environment, empty being unset; the build follows its changes.
fn var(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

fn kernels() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?);
    let out = PathBuf::from(env::var("OUT_DIR").map_err(|e| e.to_string())?);
    let mode = var("FIPK_CUDA").unwrap_or_else(|| "auto".into());
    let list = var("FIPK_CUDA_ARCHS").unwrap_or_else(|| archs::DEFAULT.into());
    let found = match mode.as_str() {
        "off" => return without(&out),
        "auto" | "require" => find_nvcc(&root),
        _ => return Err(format!("FIPK_CUDA '{mode}': wanted require, off or auto")),
    };
    let nvcc = match found {
        Ok(nvcc) => nvcc,
        Err(NoNvcc::Named(message)) => return Err(message),
        Err(NoNvcc::Nowhere(what)) if mode == "require" => {
            return Err(format!("FIPK_CUDA=require, but {what} (hint: {HOW})"));
        }
        Err(NoNvcc::Nowhere(what)) => {
            println!("cargo::warning={what}: built without CUDA kernels, for the CPU alone (hint: {HOW})");
            return without(&out);
        }
    };
    println!("cargo::rerun-if-changed={}", nvcc.path.display());
    let compiler = Compiler::new(nvcc, &root, &out, &list)?;
    let compiled = compiler.compile_all()?;
    compiler.write(&out, &compiled)?;
    println!("cargo::rustc-cfg=fipk_cuda");
    println!("cargo::rustc-env=FIPK_NVCC_RELEASE={}", compiler.nvcc.release);
    println!("cargo::rustc-env=FIPK_CUDA_ARCHS={list}");
    Ok(())
}

/// The tables of a build that has no kernels.
fn without(out: &Path) -> Result<()> {
    println!("cargo::rustc-env=FIPK_NVCC_RELEASE=");
    println!("cargo::rustc-env=FIPK_CUDA_ARCHS=");
    println!("cargo::rustc-env=FIPK_KERNEL_REPORT=");
    write(&out.join("kernels.rs"), tables(&[], &BTreeMap::new()))
}

struct Nvcc {
    path: PathBuf,
    /// 13.0.88
    release: String,
}

enum NoNvcc {
    /// `NVCC` names one that cannot be used.
    Named(String),
    Nowhere(String),
}

/// The first nvcc that runs and is new enough.
fn find_nvcc(root: &Path) -> std::result::Result<Nvcc, NoNvcc> {
    if let Some(named) = var("NVCC") {
        return usable(Path::new(&named)).map_err(|e| NoNvcc::Named(format!("NVCC={named} {e}")));
    }
    let mut folders = Vec::new();
    for name in ["CUDA_HOME", "CUDA_PATH"] {
        folders.extend(var(name).map(|home| Path::new(&home).join("bin")));
    }
    // Not followed for changes: it differs between a shell and an editor, and each would undo the other's build.
    folders.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    folders.extend(["/usr/local/cuda/bin", "/opt/cuda/bin"].map(PathBuf::from));
    // PyPI's wheels, where the environment and the project have them.
    let mut sites = vec![root.join(".cuda")];
    let prefixes = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(var).map(PathBuf::from);
    for prefix in prefixes.chain([root.join(".venv")]) {
        let versions = fs::read_dir(prefix.join("lib")).into_iter().flatten().flatten();
        sites.extend(versions.map(|version| version.path().join("site-packages")));
    }
    folders.extend(sites.iter().map(|site| site.join("nvidia/cu13/bin")));
    let mut refused = None;
    let of_python = std::iter::once_with(python_site).flatten().map(|site| site.join("nvidia/cu13/bin"));
    for path in folders.into_iter().chain(of_python).map(|folder| folder.join("nvcc")).filter(|path| path.is_file()) {
        match usable(&path) {
            Ok(nvcc) => return Ok(nvcc),
            Err(e) => refused = Some(format!("{} {e}", path.display())),
        }
    }
    Err(NoNvcc::Nowhere(refused.unwrap_or_else(|| "no nvcc was found".into())))
}

/// Where `python3` keeps its packages; asked last, since it takes a process.
fn python_site() -> Option<PathBuf> {
    let ask = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let out = Command::new("python3").args(["-c", ask]).output().ok().filter(|out| out.status.success())?;
    Some(PathBuf::from(String::from_utf8(out.stdout).ok()?.trim()))
}

/// nvcc reads its profile beside the path it was started by, so a link to it is followed first.
fn usable(path: &Path) -> Result<Nvcc> {
    let path = path.canonicalize().map_err(|e| format!("cannot be used: {e}"))?;
    let out = Command::new(&path).arg("--version").output().map_err(|e| format!("does not run: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let release = text.split_whitespace().filter_map(|word| word.strip_prefix('V')).next_back();
    let Some(release) = release.filter(|_| out.status.success()) else {
        return Err("does not say its release".into());
    };
    let mut numbers = release.split('.').map_while(|n| n.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) < LEAST_RELEASE {
        return Err(format!("is release {release}; wanted {}.{} or later", LEAST_RELEASE.0, LEAST_RELEASE.1));
    }
    Ok(Nvcc { path, release: release.into() })
}

struct Compiler {
    nvcc: Nvcc,
    kernels: PathBuf,
    flags: Vec<String>,
    /// Fat binaries by the hash of what made them, shared by all profiles and features.
    cache: PathBuf,
}

/// One file of kernels.
struct Compiled {
    stem: String,
    image: PathBuf,
    entries: Vec<Entry>,
}

impl Compiler {
    fn new(nvcc: Nvcc, root: &Path, out: &Path, list: &str) -> Result<Self> {
        let kernels = root.join("kernels");
        // -v is for the report.
        let mut flags =
            ["-O3", "-std=c++17", "-fatbin", "--compress-mode=size", "-Xptxas", "-v"].map(String::from).to_vec();
        flags.extend(archs::parse(list)?.iter().map(archs::Arch::gencode));
        // OUT_DIR is TARGET/PROFILE/build/NAME/out.
        let target = out.ancestors().find(|dir| dir.ends_with("build")).and_then(|dir| dir.parent()?.parent());
        let cache = target.unwrap_or(out).join("kernels");
        fs::create_dir_all(&cache).map_err(|e| format!("cannot create {}: {e}", cache.display()))?;
        Ok(Self { nvcc, kernels, flags, cache })
    }

    fn compile_all(&self) -> Result<Vec<Compiled>> {
        let entries =
            fs::read_dir(&self.kernels).map_err(|e| format!("cannot read {}: {e}", self.kernels.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|e| e == "cu"));
        files.sort();
        // What nvcc itself takes from the environment.
        let taken = ["NVCC_CCBIN", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"].map(var);
        let jobs =
            env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1usize).clamp(1, files.len().max(1));
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let compiled = self.compile(file, &taken);
                        done.lock().unwrap_or_else(|e| e.into_inner()).push(compiled);
                    }
                });
            }
        });
        let done = done.into_inner().unwrap_or_else(|e| e.into_inner());
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for compiled in done {
            match compiled {
                Ok(compiled) => good.push(compiled),
                Err(message) => bad.push(message),
            }
        }
        bad.sort();
        good.sort_by(|a, b| a.stem.cmp(&b.stem));
        if bad.is_empty() { Ok(good) } else { Err(bad.join("\n")) }
    }

    /// Compiles a file, unless the cache has what comes of it.
    fn compile(&self, file: &Path, taken: &[Option<String>]) -> Result<Compiled> {
        let mut texts = BTreeMap::new();
        self.collect(file, &mut texts)?;
        let mut hash = DefaultHasher::new();
        (&self.nvcc.release, &self.flags, taken, texts).hash(&mut hash);
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let image = self.cache.join(format!("{stem}-{:016x}.fatbin", hash.finish()));
        let log_file = image.with_extension("log");
        if !(image.is_file() && log_file.is_file()) {
            // Another build may make the same; whoever is last replaces like by like.
            let temporary = self.cache.join(format!("{stem}-{}.tmp", std::process::id()));
            let mut command = Command::new(&self.nvcc.path);
            command.args(&self.flags).arg("-I").arg(&self.kernels).arg(file).arg("-o").arg(&temporary);
            let out = command.output().map_err(|e| format!("{} does not run: {e}", self.nvcc.path.display()))?;
            let log = [out.stdout, out.stderr].concat();
            let log = String::from_utf8_lossy(&log);
            if !out.status.success() {
                return Err(format!("nvcc refuses {}:\n{command:?}\n{log}", file.display()));
            }
            write(&log_file, log.as_bytes())?;
            fs::rename(&temporary, &image).map_err(|e| format!("cannot write {}: {e}", image.display()))?;
        }
        let log = read(&log_file)?;
        // ptxas says in passing that it has put wgmma in sequence, or left setmaxnreg out.
        let told = |line: &&str| line.contains("warning") || line.contains("Potential Performance Loss");
        for line in log.lines().filter(told) {
            println!("cargo::warning={stem}.cu: {}", line.trim());
        }
        let entries = report::parse(&log);
        for e in entries.iter().filter(|e| e.spills > 0) {
            println!("cargo::warning={stem}.cu: {} spills {} bytes on {}", e.kernel, e.spills, e.arch);
        }
        Ok(Compiled { stem, image, entries })
    }

    /// A file and all that it includes by quotes; the emulator's headers are none of nvcc's.
    fn collect(&self, file: &Path, texts: &mut BTreeMap<PathBuf, String>) -> Result<()> {
        let text = read(file)?;
        let quoted = |line: &str| Some(line.trim().strip_prefix("#include \"")?.split_once('"')?.0.to_string());
        let names: Vec<String> = text.lines().filter_map(quoted).filter(|name| !name.contains("emulator/")).collect();
        texts.insert(file.to_path_buf(), text);
        for name in names {
            let beside = file.parent().unwrap_or(&self.kernels).join(&name);
            let path = if beside.is_file() { beside } else { self.kernels.join(&name) };
            if path.is_file() && !texts.contains_key(&path) {
                self.collect(&path, texts)?;
            }
        }
        Ok(())
    }

    /// The images and the tables for the crate, and the report.
    fn write(&self, out: &Path, compiled: &[Compiled]) -> Result<()> {
        let (mut lines, mut of_image) = (Vec::new(), BTreeMap::new());
        for (image, file) in compiled.iter().enumerate() {
            let to = out.join(format!("{}.fatbin", file.stem));
            fs::copy(&file.image, &to).map_err(|e| format!("cannot write {}: {e}", to.display()))?;
            let names: BTreeSet<&str> = file.entries.iter().map(|e| e.kernel.as_str()).collect();
            for name in names {
                if let Some(other) = of_image.insert(name.to_string(), image) {
                    return Err(format!("kernel {name} is in {}.cu and {}.cu", compiled[other].stem, file.stem));
                }
            }
            lines.extend(file.entries.iter().map(|e| (format!("{}.cu", file.stem), e.clone())));
        }
        lines.sort();
        let (report, beside) = (out.join("kernels.txt"), self.cache.join("report.txt"));
        let text = report::table(&lines);
        write(&report, &text)?;
        write(&beside, &text)?;
        println!("cargo::rustc-env=FIPK_KERNEL_REPORT={}", report.display());
        println!("{} kernels of {} files; what they take: {}", of_image.len(), compiled.len(), beside.display());
        let stems: Vec<&str> = compiled.iter().map(|file| file.stem.as_str()).collect();
        write(&out.join("kernels.rs"), tables(&stems, &of_image))
    }
}

/// The source of the tables: the images by their files' names, and which image a kernel is in, by name.
fn tables(stems: &[&str], of_image: &BTreeMap<String, usize>) -> String {
    let image = |stem: &&str| format!("    ({stem:?}, aligned!(concat!(env!(\"OUT_DIR\"), \"/{stem}.fatbin\"))),\n");
    let images: String = stems.iter().map(image).collect();
    let kernels: String = of_image.iter().map(|(name, image)| format!("    ({name:?}, {image}),\n")).collect();
    format!(
        "pub static IMAGES: &[(&str, &[u8])] = &[\n{images}];\n\
         pub static KERNELS: &[(&str, usize)] = &[\n{kernels}];\n"
    )
}
