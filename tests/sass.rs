//! What the compiler made of the kernels for tensor cores, by the disassembler: that their products are the instructions
//! they were written for, fed by TMA where there is TMA, and that no sum is kept in local memory. Skipped, aloud, where
//! this build has no kernels or there is no disassembler; with FIPK_CUDA=require a missing one fails.
use fipk::gpu::images;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const HOW: &str = "pip install --target .cuda 'nvidia-cuda-cuobjdump==13.2.51' 'nvidia-cuda-nvdisasm==13.2.51' together with \
                   nvcc's wheels, as .ci/run does; or name the toolkit by CUDA_HOME";

/// How often each instruction stands in a kernel, by its name without what follows a point: `HGMMA`, `STL`.
type Counts = BTreeMap<String, usize>;

/// The instructions of every kernel in the words of `cuobjdump -sass`, by architecture and name.
fn parse(text: &str) -> BTreeMap<(String, String), Counts> {
    let (mut all, mut arch, mut kernel) = (BTreeMap::new(), String::new(), None::<String>);
    for line in text.lines() {
        let line = line.trim();
        if let Some(named) = line.strip_prefix("arch = ") {
            (arch, kernel) = (named.to_string(), None);
        } else if let Some(name) = line.strip_prefix("Function : ") {
            kernel = Some(name.to_string());
            all.entry((arch.clone(), name.to_string())).or_insert_with(Counts::new);
        }
        // `/*0ed0*/  @!P1 HGMMA.64x256x16.F32.BF16 R24, ..` or, where only the encoding goes on, `/* 0x000fe2.. */`.
        let Some(kernel) = &kernel else { continue };
        let Some((place, rest)) = line.strip_prefix("/*").and_then(|line| line.split_once("*/")) else { continue };
        if place.is_empty() || !place.bytes().all(|b| b.is_ascii_hexdigit()) {
            continue;
        }
        let mut words = rest.split_whitespace().skip_while(|word| word.starts_with(['@', '{']));
        let Some(word) = words.next() else { continue };
        let name = word.split(['.', ';']).next().unwrap_or_default().to_string();
        if let Some(counts) = all.get_mut(&(arch.clone(), kernel.clone())) {
            *counts.entry(name).or_default() += 1;
        }
    }
    all
}

#[test]
fn a_disassembly_is_understood() {
    let text = "
Fatbin ptx code:
arch = sm_80
Fatbin elf code:
arch = sm_80
\tcode for sm_80
\t\tFunction : first
\t.headerflags\t@\"EF_CUDA_SM80\"
        /*0000*/                   MOV R1, c[0x0][0x28] ;            /* 0x00000a0000017a02 */
                                                                     /* 0x000fc40000000f00 */
        /*0010*/              @!P0 STL.64 [R1], R2 ;                 /* 0x00000a0000017a02 */
        /*0020*/                   HMMA.16816.F32.BF16 R4, R8, R10, R4 ;
        /*0030*/                   HMMA.16816.F32.BF16 R4, R8, R10, R4 ;
        /*0040*/                   EXIT;
Fatbin elf code:
arch = sm_90a
\t\tFunction : first
        /*0000*/                   HGMMA.64x256x16.F32.BF16 R24, gdesc[UR16], R24, gsb0 ;
";
    let counts = |of: &[(&str, usize)]| of.iter().map(|(name, n)| (name.to_string(), *n)).collect::<Counts>();
    let key = |arch: &str| (arch.to_string(), "first".to_string());
    let want = BTreeMap::from([
        (key("sm_80"), counts(&[("MOV", 1), ("STL", 1), ("HMMA", 2), ("EXIT", 1)])),
        (key("sm_90a"), counts(&[("HGMMA", 1)])),
    ]);
    assert_eq!(parse(text), want);
}

/// `cuobjdump`, which calls `nvdisasm` of its own folder: beside the nvcc that is named, in the toolkit's usual folders
/// and in the project's wheels.
fn disassembler() -> Option<PathBuf> {
    let named = std::env::var_os("NVCC").map(PathBuf::from).and_then(|nvcc| Some(nvcc.parent()?.to_path_buf()));
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let wheels = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cuda/nvidia/cu13/bin");
    let folders = named.into_iter().chain(homes.map(|home| Path::new(&home).join("bin")));
    let folders = folders.chain(std::env::split_paths(&path));
    let mut folders = folders.chain(["/usr/local/cuda/bin", "/opt/cuda/bin"].map(PathBuf::from)).chain([wheels]);
    folders.find(|folder| ["cuobjdump", "nvdisasm"].iter().all(|tool| folder.join(tool).is_file()))
}

fn disassemble(folder: &Path, stem: &str, image: &[u8]) -> BTreeMap<(String, String), Counts> {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join(format!("{stem}.fatbin"));
    std::fs::write(&file, image).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&path))).unwrap();
    let out = Command::new(folder.join("cuobjdump")).arg("-sass").arg(&file).env("PATH", path).output().unwrap();
    assert!(out.status.success(), "{stem}: {}", String::from_utf8_lossy(&out.stderr));
    parse(&String::from_utf8_lossy(&out.stdout))
}

/// Whether a kernel multiplies matrices by tensor cores, and by which instruction on sm_90a, as its name says.
fn products(kernel: &str) -> Option<&'static str> {
    // The only one of attention's that multiplies no matrices.
    let none = kernel.contains("delta");
    match kernel {
        _ if kernel.starts_with("gemm_wgmma_") => Some("HGMMA"),
        _ if ["gemm_mma_", "gemm_dual_", "gemm_reverse_"].iter().any(|name| kernel.starts_with(name)) => Some("HMMA"),
        _ if kernel.starts_with("attention_mma_") && !none => Some("HMMA"),
        _ => None,
    }
}

#[test]
fn products_are_tensor_core_instructions_and_nothing_spills() {
    if images::IMAGES.is_empty() {
        eprintln!("SKIPPED the disassembly of kernels: built without CUDA kernels");
        return;
    }
    let Some(folder) = disassembler() else {
        let what = format!("no folder has both cuobjdump and nvdisasm ({HOW})");
        assert!(std::env::var("FIPK_CUDA").as_deref() != Ok("require"), "FIPK_CUDA=require, but {what}");
        eprintln!("SKIPPED the disassembly of kernels: {what}");
        return;
    };
    let built: Vec<&str> = images::archs().split(',').filter(|arch| !arch.starts_with('+')).collect();
    let (mut wrong, mut seen) = (Vec::new(), BTreeMap::<&str, usize>::new());
    let wanted = |stem: &str| ["gemm", "attention"].iter().any(|of| stem.starts_with(of));
    for (stem, image) in images::IMAGES.iter().filter(|(stem, _)| wanted(stem)) {
        let kernels = disassemble(&folder, stem, image);
        for arch in built.iter().map(|number| format!("sm_{number}")) {
            let hopper = arch == "sm_90a";
            let of_arch: Vec<_> = kernels.iter().filter(|((a, _), _)| *a == arch).collect();
            // wgmma is of sm_90a alone; all others are everywhere.
            if of_arch.is_empty() == (hopper || *stem != "gemm_wgmma") {
                wrong.push(format!("{stem}: {} kernels on {arch}", of_arch.len()));
            }
            for ((_, kernel), counts) in of_arch {
                let count = |name: &str| counts.get(name).copied().unwrap_or(0);
                *seen.entry(if hopper { "sm_90a" } else { "others" }).or_default() += 1;
                if count("EXIT") == 0 {
                    wrong.push(format!("{kernel} on {arch}: no EXIT among {} instructions", counts.len()));
                }
                for local in ["STL", "LDL"].into_iter().filter(|name| count(name) > 0) {
                    wrong.push(format!("{kernel} on {arch}: {} {local}, which is local memory", count(local)));
                }
                for needed in products(kernel).into_iter().chain(kernel.contains("_wgmma_").then_some("UTMALDG")) {
                    if count(needed) == 0 {
                        wrong.push(format!("{kernel} on {arch}: no {needed}"));
                    }
                }
                // 64 deep, so four steps of sixteen; 128 rows by one group are two tiles of wgmma. No step is there twice.
                let steps = if kernel.ends_with("x256") { 4 } else { 8 };
                if kernel.starts_with("gemm_wgmma_") && count("HGMMA") != steps {
                    wrong.push(format!("{kernel}: {} HGMMA, wanted {steps}", count("HGMMA")));
                }
                // The producer gives registers away and the consumers take them; ptxas leaves both out where it cannot.
                if kernel.starts_with("gemm_wgmma_") && count("USETMAXREG") != 2 {
                    wrong.push(format!("{kernel}: {} USETMAXREG, wanted 2", count("USETMAXREG")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.values().all(|kernels| *kernels > 20) && !seen.is_empty(), "{seen:?}");
    println!("disassembled: {seen:?}");
}
