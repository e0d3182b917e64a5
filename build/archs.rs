//! The list of architectures that kernels are compiled for: `80,90a,+80`.

/// What is built where `FIPK_CUDA_ARCHS` says nothing else: A100 and its like, H100 and H200 with what only they have,
/// and PTX that the driver compiles for everything later.
pub const DEFAULT: &str = "80,90a,+80";

/// bf16 arithmetic, cp.async and the tensor-core shapes of the kernels begin here.
const LEAST: u32 = 80;

/// One image in a fat binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arch {
    /// As nvcc writes it: `80`, `90a`.
    pub number: String,
    /// PTX, which a driver compiles as it loads it, instead of machine code.
    pub ptx: bool,
}

impl Arch {
    pub fn gencode(&self) -> String {
        let (number, code) = (&self.number, if self.ptx { "compute" } else { "sm" });
        format!("-gencode=arch=compute_{number},code={code}_{number}")
    }
}

/// A number is machine code of that architecture; a plus before it makes it PTX.
///
/// # Errors
/// One line: which entry, and what would do.
pub fn parse(list: &str) -> Result<Vec<Arch>, String> {
    let mut archs = Vec::<Arch>::new();
    for entry in list.split(',').map(str::trim) {
        let wrong = |what: &str| Err(format!("FIPK_CUDA_ARCHS '{list}': '{entry}' {what}"));
        let (ptx, number) = entry.strip_prefix('+').map_or((false, entry), |rest| (true, rest));
        let digits = number.trim_end_matches(|c: char| c.is_ascii_lowercase());
        let Ok(least) = digits.parse::<u32>() else {
            return wrong(&format!("is no architecture; wanted a list like {DEFAULT}"));
        };
        if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(&number[digits.len()..], "" | "a" | "f") {
            return wrong(&format!("is no architecture; wanted a list like {DEFAULT}"));
        }
        if least < LEAST {
            return wrong(&format!("is too old: the kernels need {LEAST} or later"));
        }
        if ptx && digits != number {
            return wrong(&format!(
                "would be PTX that later devices refuse; write {number} for its machine code, +{LEAST} for PTX"
            ));
        }
        let arch = Arch { number: number.to_string(), ptx };
        if archs.contains(&arch) {
            return wrong("stands there twice");
        }
        archs.push(arch);
    }
    if archs.iter().all(|a| a.ptx) {
        return Err(format!(
            "FIPK_CUDA_ARCHS '{list}' has PTX alone; wanted one machine code at least, as in {DEFAULT}"
        ));
    }
    Ok(archs)
}
