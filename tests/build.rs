//! What build.rs is made of: lists of architectures, ptxas's words, and the report on every kernel of this build.
use std::collections::BTreeSet;
use std::path::Path;

#[path = "../build/archs.rs"]
mod archs;
#[path = "../build/report.rs"]
mod report;

use report::Entry;

/// A log as ptxas writes it, cut short: a kernel that spills, one with a function of its own, one without fault.
const LOG: &str = "\
ptxas info    : 27 bytes gmem, 24 bytes cmem[4]
ptxas info    : Compiling entry function 'calls' for 'sm_80'
ptxas info    : Function properties for calls
    200 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 58 registers, used 0 barriers, 208 bytes cumulative stack size, 368 bytes cmem[0]
ptxas info    : Compile time = 4.082 ms
ptxas info    : Function properties for _Z6helperPf
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Compiling entry function 'spills' for 'sm_90a'
ptxas info    : Function properties for spills
    2744 bytes stack frame, 4936 bytes spill stores, 5024 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 2744 bytes cumulative stack size, 400 bytes smem
ptxas info    : Compiling entry function 'good' for 'sm_90a'
ptxas info    : Function properties for good
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 13 registers, used 0 barriers
";

fn entry(kernel: &str, arch: &str, [registers, shared, spills, stack]: [u32; 4]) -> Entry {
    Entry { kernel: kernel.into(), arch: arch.into(), registers, shared, spills, stack }
}

#[test]
fn architectures_are_machine_code_or_ptx() {
    let flags = |list| archs::parse(list).map(|archs| archs.iter().map(archs::Arch::gencode).collect::<Vec<_>>());
    let wanted = [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_80,code=compute_80",
    ];
    assert_eq!(flags(archs::DEFAULT).unwrap(), wanted);
    assert_eq!(flags("80, 90a ,+80").unwrap(), wanted);
    assert_eq!(flags("80,86,89,90a,100,120,+80").unwrap().len(), 7);
    assert_eq!(flags("100f").unwrap(), ["-gencode=arch=compute_100f,code=sm_100f"]);
}

#[test]
fn bad_lists_of_architectures_are_refused_in_a_line() {
    let cases = [
        ("", "no architecture"),
        ("80,,90a", "no architecture"),
        ("sm_80", "no architecture"),
        ("80;90", "no architecture"),
        ("90b", "no architecture"),
        ("90aa", "no architecture"),
        ("+", "no architecture"),
        ("++80", "no architecture"),
        ("80 -Xptxas", "no architecture"),
        ("99999999999", "no architecture"),
        ("75,+75", "too old"),
        ("80,90a,+90a", "write 90a for its machine code"),
        ("80,80", "twice"),
        ("+80", "PTX alone"),
    ];
    for (list, says) in cases {
        let error = archs::parse(list).unwrap_err();
        assert!(error.contains(says) && error.contains(list) && error.lines().count() == 1, "'{list}': {error}");
    }
}

#[test]
fn the_log_of_ptxas_is_understood() {
    let wanted = [
        entry("calls", "sm_80", [58, 0, 16, 208]),
        entry("spills", "sm_90a", [64, 400, 9960, 2744]),
        entry("good", "sm_90a", [13, 0, 0, 0]),
    ];
    assert_eq!(report::parse(LOG), wanted);
    assert_eq!(report::parse(""), []);
    assert_eq!(report::parse("Used 9 registers\nCompiling entry function 'cut off"), []);
    let odd = "Compiling entry function 'k' for 'sm_80'\n bytes stack frame\nUsed many registers";
    assert_eq!(report::parse(odd), [entry("k", "sm_80", [0; 4])]);
}

#[test]
fn the_report_reads_back() {
    let entries: Vec<_> = report::parse(LOG).into_iter().map(|e| ("some.cu".to_string(), e)).collect();
    let text = report::table(&entries);
    let heads = "file     kernel  arch    registers  shared  spills  stack";
    assert_eq!(text.lines().next(), Some(heads));
    assert_eq!(report::read(&text).unwrap(), entries);
    for bad in ["", "kernel\n", &text.replace("13", "many"), &text.replace("good", "")] {
        assert!(report::read(bad).is_err(), "{bad}");
    }
}

/// Names between `FIPK_KERNEL(` and a comma, those that macros put together left out.
fn kernels_of(text: &str) -> BTreeSet<String> {
    let (mut code, mut macros) = (String::new(), false);
    for line in text.lines() {
        if !macros && !line.trim_start().starts_with("#define") {
            code.extend([line.split("//").next().unwrap_or_default(), "\n"]);
            continue;
        }
        macros = line.ends_with('\\');
    }
    let names = code.split("FIPK_KERNEL(").skip(1).filter_map(|rest| Some(rest.split_once(',')?.0.trim()));
    names.filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_')).map(String::from).collect()
}

#[test]
fn every_kernel_is_compiled_for_every_architecture_and_spills_nothing() {
    let path = env!("FIPK_KERNEL_REPORT");
    if path.is_empty() {
        eprintln!("SKIPPED the report on kernels: built without CUDA kernels");
        return;
    }
    let entries = report::read(&std::fs::read_to_string(path).unwrap()).unwrap();
    let archs = archs::parse(env!("FIPK_CUDA_ARCHS")).unwrap();
    let mut wrong = Vec::new();
    for (file, e) in &entries {
        if e.spills > 0 {
            wrong.push(format!("{file}: {} spills {} bytes on {}", e.kernel, e.spills, e.arch));
        }
        if e.registers == 0 {
            wrong.push(format!("{file}: {} has no registers on {}", e.kernel, e.arch));
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut seen = 0;
    for path in files.filter(|path| path.extension().is_some_and(|e| e == "cu")) {
        let file = path.file_name().unwrap().to_str().unwrap().to_string();
        let of_file = |e: &&(String, Entry)| e.0 == file;
        let text = std::fs::read_to_string(&path).unwrap();
        let mut kernels = kernels_of(&text);
        // What stands between these lines is for sm_90a alone.
        let hopper = text.split("#if FIPK_SM90A").skip(1).map(|rest| rest.split("#endif").next().unwrap_or(rest));
        let hopper: Vec<&str> = hopper.collect();
        kernels.extend(entries.iter().filter(of_file).map(|(_, e)| e.kernel.clone()));
        // A file for sm_90a alone has none in a build without it.
        if kernels.is_empty() && (hopper.is_empty() || archs.iter().any(|arch| arch.number == "90a")) {
            wrong.push(format!("{file} has no kernel"));
        }
        for (kernel, arch) in kernels.iter().flat_map(|k| archs.iter().filter(|a| !a.ptx).map(move |a| (k, a))) {
            let number = &arch.number;
            // Names that a macro pastes end in its argument there.
            let pasted = kernel.rsplit_once('_').map(|(stem, _)| format!("{stem}_##"));
            let named =
                |part: &&str| part.contains(kernel.as_str()) || pasted.as_ref().is_some_and(|p| part.contains(p));
            if number != "90a" && hopper.iter().any(named) {
                continue;
            }
            let arch = format!("sm_{number}");
            if !entries.iter().filter(of_file).any(|(_, e)| e.kernel == *kernel && e.arch == arch) {
                wrong.push(format!("{file}: {kernel} is not in the report for {arch}"));
            }
        }
        seen += kernels.len();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 0, "no kernels at all");
}
