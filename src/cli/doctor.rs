//! `fipk doctor`: what this build can do on this machine.
use super::globals::Context;
use super::output::facts;
use crate::Result;
use crate::gpu::{discover, images};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Show what this build finds on this machine: processor, memory, GPU driver, caches
///
/// Never fails: what cannot be found out is said to be unknown. Include its output in bug reports.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk doctor
  fipk doctor --json

Environment:
  CUDA_VISIBLE_DEVICES=N   the devices that CUDA shows, by number
  FIPK_CUDA_SYNC=1         wait for every kernel, so that an error names the one that failed; slow")]
pub struct Args {}

pub fn run(_: &Args, context: &Context) -> Result<()> {
    let unknown = || "unknown".to_string();
    let cores = std::thread::available_parallelism().map_or_else(|_| unknown(), |n| n.to_string());
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let facts_of = [
        (
            "version",
            format!("{} ({})", env!("CARGO_PKG_VERSION"), if cfg!(debug_assertions) { "debug" } else { "release" }),
        ),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("processor", processor().unwrap_or_else(unknown)),
        ("instructions", instructions()),
        ("threads", format!("{} of {cores}", rayon::current_num_threads())),
        ("memory", memory().unwrap_or_else(unknown)),
        ("cuda kernels", kernels()),
        ("cuda driver", driver()),
        ("gpu", gpus()),
        ("features", if cfg!(feature = "parquet") { "parquet" } else { "none" }.into()),
        (
            "model cache",
            hub_cache().map_or_else(unknown, |path| {
                format!("{}{}", path.display(), if path.is_dir() { "" } else { " (not there yet)" })
            }),
        ),
        ("disk", disk(&cwd).unwrap_or_else(unknown)),
    ];
    let object: serde_json::Map<_, _> =
        facts_of.iter().map(|(name, value)| (name.replace(' ', "_"), json!(value))).collect();
    context.output.result(&object, &[facts(&facts_of)])
}

/// A line `key : value` of a /proc file.
pub fn proc_line(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn processor() -> Option<String> {
    proc_line("/proc/cpuinfo", "model name").or_else(|| proc_line("/proc/cpuinfo", "Model"))
}

/// What the loops and the matrix products can use.
fn instructions() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let has = [
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
        ];
        let found: Vec<&str> = has.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        if found.is_empty() { "none beyond the baseline".into() } else { found.join(" ") }
    }
    #[cfg(not(target_arch = "x86_64"))]
    "the target's baseline".into()
}

fn memory() -> Option<String> {
    let gib = |key| {
        let kib: f64 = proc_line("/proc/meminfo", key)?.split_whitespace().next()?.parse().ok()?;
        Some(kib / (1 << 20) as f64)
    };
    Some(format!("{:.1} GiB, {:.1} GiB available", gib("MemTotal")?, gib("MemAvailable")?))
}

/// What this build carries.
fn kernels() -> String {
    match images::nvcc_release() {
        Some(release) => {
            format!("{} for {} by nvcc {release}", images::KERNELS.len(), images::archs())
        }
        None => "built without CUDA kernels".into(),
    }
}

/// The driver, and the module of it that the kernel of the system has, which tells apart what is missing.
fn driver() -> String {
    let module = std::fs::read_to_string("/proc/driver/nvidia/version").ok().and_then(|text| {
        let version = |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
        Some(format!("{}, ", text.split_whitespace().find(version)?))
    });
    let cuda = match discover::version() {
        Ok(version) => format!("serves CUDA {}.{}", version / 1000, version % 1000 / 10),
        Err(why) => format!("{} (hint: {})", why.what(), why.hint()),
    };
    module.unwrap_or_default() + &cuda
}

/// The devices; what is wrong with the driver, its own line says.
fn gpus() -> String {
    let carries = |device: &discover::Found| match images::nvcc_release() {
        Some(_) if !images::run_on(images::archs(), device.capability) => {
            format!("{device} (this build has no kernels for it)")
        }
        _ => device.to_string(),
    };
    match (discover::version(), discover::devices()) {
        (Err(_), _) => "none".into(),
        (Ok(_), Err(why)) => format!("{} (hint: {})", why.what(), why.hint()),
        (Ok(_), Ok(devices)) => devices.iter().map(carries).collect::<Vec<_>>().join("; "),
    }
}

/// Where Hugging Face models are looked for.
fn hub_cache() -> Option<PathBuf> {
    crate::models::hub::cache_dir()
}

/// Free space where a run would be written, as `df` says.
fn disk(at: &Path) -> Option<String> {
    let out = std::process::Command::new("df").arg("-Pk").arg(at).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(out.stdout).ok()?;
    let kib: f64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(format!("{:.1} GiB free at {}", kib / (1 << 20) as f64, at.display()))
}
