//! Help is complete: every verb, every flag, its default.
use super::support::{done, fails, fipk};

const VERBS: [&str; 21] = [
    "sparsify",
    "frontier",
    "train",
    "resume",
    "eval",
    "drift",
    "data",
    "metric",
    "geodesic",
    "path",
    "plan",
    "project",
    "forward",
    "jvp",
    "vjp",
    "report",
    "quickstart",
    "bench",
    "selftest",
    "doctor",
    "completions",
];

#[test]
fn the_overview_names_every_verb_and_nothing_that_is_not_there() {
    let help = done(&["--help"]).stdout;
    for verb in VERBS {
        assert!(help.lines().any(|l| l.trim_start().starts_with(verb)), "{verb} is not in:\n{help}");
    }
    for coming in ["learn", "ensemble"] {
        assert!(!help.lines().any(|l| l.trim_start().starts_with(&format!("{coming} "))), "{coming} is in:\n{help}");
    }
    for part in ["glue/TASK:DIR", "Exit codes", "Examples:"] {
        assert!(help.contains(part), "{part}");
    }
}

#[test]
fn every_verb_has_help_with_an_example() {
    for verb in VERBS {
        let help = done(&[verb, "--help"]).stdout;
        assert!(help.contains("Example") && help.contains(&format!("fipk {verb}")), "{verb}:\n{help}");
        assert!(help.contains("--threads") && help.contains("--json"), "{verb} lacks the global options");
        assert_eq!(done(&[verb, "-h"]).code, Some(0));
    }
}

/// Flags that switch something on, must be given, or mean nothing where they are not.
const WITHOUT_DEFAULT: [&str; 33] = [
    "new-head",
    "drift",
    "path",
    "sparsities",
    "exact",
    "density",
    "vectors",
    "model",
    "arch",
    "data",
    "out",
    "overwrite",
    "require",
    "dry-run",
    "sparsity",
    "no-teacher-cache",
    "steps",
    "exclude",
    "freeze",
    "config",
    "verbose",
    "quiet",
    "json",
    "help",
    "version",
    "inputs",
    "output",
    "tangents",
    "cotangents",
    "lr",
    "emulated",
    "calls",
    "lowered",
];

#[test]
fn every_flag_says_its_default() {
    for verb in VERBS {
        let help = done(&[verb, "--help"]).stdout;
        let mut lines = help.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(at) = line.find("--").filter(|_| line.trim_start().starts_with('-')) else { continue };
            let name: String = line[at + 2..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            let mut entry = line.to_string();
            while let Some(more) =
                lines.next_if(|l| !l.trim_start().starts_with('-') && (l.is_empty() || l.starts_with(' ')))
            {
                entry.push(' ');
                entry.push_str(more.trim());
            }
            let fine = WITHOUT_DEFAULT.contains(&name.as_str()) || entry.contains("[default: ");
            assert!(fine, "{verb} --{name} does not say its default: {entry}");
        }
    }
}

#[test]
fn unknown_flags_and_verbs_are_usage() {
    for args in [&["sparsify", "--no-such-flag"][..], &["no-such-verb"], &[], &["resume"], &["eval", "--seed", "-1"]] {
        let ran = fipk(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
    // No machine has so many; what is wrong with the device is said before the model is looked for.
    let absent = ["eval", "--device", "cuda:99", "--model", "m", "--data", "digits:3"];
    match env!("FIPK_NVCC_RELEASE") {
        "" => fails(&absent, 4, &["built without the CUDA engine", "--device cpu"]),
        _ => fails(&absent, 1, &["cuda:99", "hint"]),
    }
    assert!(fipk(&["eval", "--device", "gpu"]).stderr.contains("cuda:N"));
}

#[test]
fn completions_come_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = done(&["completions", shell]).stdout;
        assert!(script.contains("sparsify") && script.contains("no-teacher-cache"), "{shell}");
        // Some shells complete values as well.
        assert!(script.contains("one-shot") || ["elvish", "powershell"].contains(&shell), "{shell}");
    }
}

#[test]
fn the_doctor_never_fails_and_speaks_json() {
    let kernels = if cfg!(fipk_cuda) { "by nvcc" } else { "built without CUDA kernels" };
    assert!(done(&["doctor"]).stdout.contains(kernels));
    let value: serde_json::Value = serde_json::from_str(&done(&["doctor", "--json"]).stdout).unwrap();
    for key in
        ["version", "processor", "instructions", "threads", "memory", "cuda_kernels", "cuda_driver", "gpu", "disk"]
    {
        assert!(value[key].is_string(), "{key}: {value}");
    }
}
