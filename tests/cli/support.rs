//! Running the binary, and reading what it wrote.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub const FIPK: &str = env!("CARGO_BIN_EXE_fipk");

pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(FIPK);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl From<Output> for Ran {
    fn from(out: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Self { code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) }
    }
}

pub fn fipk(args: &[&str]) -> Ran {
    command(args).output().expect("the binary starts").into()
}

/// Runs it and wants exit code 0.
pub fn done(args: &[&str]) -> Ran {
    let ran = fipk(args);
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.stderr);
    ran
}

/// Runs it and wants this exit code, an error of one line, and these parts in it.
pub fn fails(args: &[&str], code: i32, says: &[&str]) {
    let ran = fipk(args);
    assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.stderr);
    assert_eq!(ran.stdout, "", "{args:?}");
    let errors: Vec<&str> = ran.stderr.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{args:?}: {}", ran.stderr);
    for part in says {
        assert!(ran.stderr.contains(part), "{args:?}: `{}` does not say `{part}`", ran.stderr);
    }
}

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// Tensors of a file as f64, by name, with their shapes.
pub fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let values = |t: &safetensors::tensor::TensorView| match t.dtype() {
        safetensors::Dtype::F32 => t.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        safetensors::Dtype::F64 => t.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        // Batches that norms have counted.
        safetensors::Dtype::I64 => t.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
        other => panic!("{other}"),
    };
    file.tensors().iter().map(|(name, t)| (name.clone(), (t.shape().to_vec(), values(t)))).collect()
}

/// A tiny mlp, trained a few steps on drawn digits.
pub fn tiny(dir: &Path) -> PathBuf {
    let out = dir.join("tiny");
    done(&["train", "--arch", "mlp:784,48,10", "--data", "digits:256", "--steps", "30", "--out", text(&out), "-q"]);
    out.join("model")
}
