//! Compiles the kernels for the emulator, and the emulator: each file on its own, in parallel, and only what changed.
//! The root's build.rs includes this file under the feature `emulator`.
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The engine and its headers are not instrumented; kernels are, and their hooks are the engine's (hooks.cpp).
const ALL: [&str; 6] = ["-std=c++17", "-g1", "-fPIC", "-fno-omit-frame-pointer", "-Wall", "-Wextra"];
const ENGINE: [&str; 1] = ["-O2"];
const KERNEL: [&str; 7] = [
    "-O1",
    "-fsanitize=thread,undefined",
    "-ffp-contract=off",
    "-Wno-unknown-pragmas",
    "-Wno-unused-function",
    "-Wno-unused-variable",
    "-Wno-unused-but-set-variable",
];

struct Job {
    source: PathBuf,
    object: PathBuf,
    flags: Vec<String>,
}

fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot read {}: {e}", folder.display()));
    let wanted = |p: &PathBuf| p.extension().is_some_and(|e| extensions.iter().any(|w| e == *w));
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(wanted).collect();
    found.sort();
    found
}

fn env(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}")))
}

/// A file is written only when it differs, so that its time tells what changed.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::write(path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    }
}

pub fn build() {
    let (root, out) = (env("CARGO_MANIFEST_DIR"), env("OUT_DIR").join("emulator"));
    let (kernels, planted) = (root.join("kernels"), root.join("tests/emulator"));
    fs::create_dir_all(&out).unwrap_or_else(|e| panic!("cannot create {}: {e}", out.display()));
    println!("cargo:rerun-if-changed=kernels");
    for file in files(&planted, &["cu", "cuh"]) {
        println!("cargo:rerun-if-changed={}", file.display());
    }

    let compiler = cc::Build::new().cpp(true).warnings(false).opt_level(0).debug(false).try_get_compiler();
    let compiler = compiler.unwrap_or_else(|e| {
        panic!("the feature `emulator` compiles kernels as C++ and finds no compiler: {e}\nInstall g++, or set CXX.")
    });

    // Objects are named by what they are made of: an unchanged one is there already.
    let mut common = DefaultHasher::new();
    (compiler.path(), compiler.args(), ALL, ENGINE, KERNEL).hash(&mut common);
    for header in
        [(&kernels, "cuh"), (&kernels.join("emulator"), "h"), (&planted, "cuh")].map(|(d, e)| files(d, &[e])).concat()
    {
        (&header, fs::read(&header).ok()).hash(&mut common);
    }
    let prefix = format!("-ffile-prefix-map={}/=", root.display());
    let include = format!("-I{}", kernels.display());
    let job = |source: &Path, hashed: &Path, own: &[&str]| {
        let mut hasher = common.clone();
        (source, fs::read(source).ok(), fs::read(hashed).ok()).hash(&mut hasher);
        let stem = source.file_stem().unwrap_or_default().to_string_lossy();
        let object = out.join(format!("{stem}-{:016x}.o", hasher.finish()));
        let flags = ALL.iter().chain(own).map(|f| f.to_string()).chain([prefix.clone(), include.clone()]).collect();
        Job { source: source.to_path_buf(), object, flags }
    };
    let mut jobs: Vec<Job> = Vec::new();
    for source in [files(&kernels, &["cu"]), files(&planted, &["cu"])].concat() {
        // All of a kernel file in a namespace without a name, as names are a file's own under nvcc.
        let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let unit = out.join(format!("kernels_{stem}.cpp"));
        let text = format!(
            "#include \"emulator/simt.h\"\nnamespace {{\n#include \"{}\"\n}}\n",
            source.display().to_string().replace('\\', "/")
        );
        write(&unit, &text);
        jobs.push(job(&unit, &source, &KERNEL));
    }
    for source in files(&kernels.join("emulator"), &["cpp"]) {
        jobs.push(job(&source, &source, &ENGINE));
    }
    compile(&compiler, &jobs);
    remove_others(&out, &jobs);

    // Kernels register themselves before main, which the linker must not take for unused.
    let mut archive = cc::Build::new();
    archive.cpp(true).cargo_metadata(false).out_dir(&out);
    for job in &jobs {
        archive.object(&job.object);
    }
    archive.compile("fipk_emulator");
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static:+whole-archive=fipk_emulator");
    let apple = std::env::var("CARGO_CFG_TARGET_VENDOR").is_ok_and(|v| v == "apple");
    println!("cargo:rustc-link-lib={}", if apple { "c++" } else { "stdc++" });
}

fn compile(compiler: &cc::Tool, jobs: &[Job]) {
    let threads = std::env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(2).clamp(1, jobs.len().max(1));
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if job.object.exists() {
                continue;
            }
            let error = compile_one(compiler, job);
            if let (Some(error), Ok(mut failed)) = (error, failed.lock()) {
                failed.push(error);
            }
        }
    };
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    assert!(failed.is_empty(), "kernels do not compile as C++:\n{}", failed.join("\n"));
}

/// What went wrong; warnings are passed on. The object appears whole or not at all.
fn compile_one(compiler: &cc::Tool, job: &Job) -> Option<String> {
    let partial = job.object.with_extension("partial");
    let mut command: Command = compiler.to_command();
    command.args(&job.flags).arg("-c").arg(&job.source).arg("-o").arg(&partial);
    let output = match command.output() {
        Ok(output) => output,
        Err(e) => return Some(format!("cannot run {command:?}: {e}")),
    };
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Some(format!("{}:\n{log}", job.source.display()));
    }
    for line in log.lines().filter(|l| l.contains("warning:")) {
        println!("cargo:warning={line}");
    }
    fs::rename(&partial, &job.object).err().map(|e| format!("cannot rename {}: {e}", partial.display()))
}

/// Objects of earlier versions.
fn remove_others(out: &Path, jobs: &[Job]) {
    for object in files(out, &["o", "partial"]) {
        if jobs.iter().all(|j| j.object != object) {
            let _ = fs::remove_file(object);
        }
    }
}
