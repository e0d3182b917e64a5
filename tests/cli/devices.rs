//! `--device`, `--dtype` and `fipk plan`.
use super::support::{done, fails, goldens, text};
use std::fs;

#[test]
fn numbers_that_the_cpu_has_not_are_usage() {
    let dir = tempfile::tempdir().unwrap();
    let mlp = goldens().join("mlp");
    let out = dir.path().join("out");
    let verbs: [&[&str]; 4] = [
        &["eval", "--model", text(&mlp), "--data", "digits:9"],
        &["project", "--model", text(&mlp), "--sparsity", "0.5", "--out", text(&out)],
        &["sparsify", "--model", text(&mlp), "--data", "digits:9", "--sparsity", "0.5", "--out", text(&out)],
        &["resume", text(&out)],
    ];
    for verb in verbs {
        for dtype in ["bf16", "tf32"] {
            let args = [verb, &["--device", "cpu", "--dtype", dtype]].concat();
            fails(&args, 2, &[&format!("--dtype {dtype}"), "f32 alone", "hint"]);
        }
    }
    assert!(!out.exists());
    done(&[
        "project",
        "--model",
        text(&mlp),
        "--sparsity",
        "0.5",
        "--out",
        text(&out),
        "--dtype",
        "f32",
        "--device",
        "cpu",
    ]);
}

#[test]
fn a_run_records_where_it_computes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let train = ["train", "--arch", "mlp:784,8,10", "--data", "digits:64", "--steps", "2", "-q", "--device", "cpu"];
    done(&[&train[..], &["--eval-data", "none", "--out", text(&out)]].concat());
    let config = fs::read_to_string(out.join("config.toml")).unwrap();
    assert!(config.contains("device = \"cpu\"") && config.contains("dtype = \"f32\""), "{config}");
    // A file may name what only a flag over it makes possible here.
    let (file, again) = (dir.path().join("f.toml"), dir.path().join("again"));
    fs::write(&file, config.replace("device = \"cpu\"", "device = \"cuda:9\"").replace("\"f32\"", "\"bf16\"")).unwrap();
    let text_of = fs::read_to_string(&file).unwrap().replace("save_dtype = \"bf16\"", "save_dtype = \"f32\"");
    fs::write(&file, text_of).unwrap();
    let from_file = ["train", "--config", text(&file), "--out", text(&again), "-q"];
    let refused = super::support::fipk(&from_file);
    assert!(refused.code != Some(0) && refused.stderr.contains("cuda:9"), "{}", refused.stderr);
    done(&[&from_file[..], &["--device", "cpu"]].concat());
}

#[test]
fn plan_counts_what_a_run_takes() {
    let bert = goldens().join("bert_classify_gelu");
    let plan = |more: &[&str]| -> serde_json::Value {
        let args = [&["plan", "--model", text(&bert), "--json"], more].concat();
        serde_json::from_str(&done(&args).stdout).unwrap()
    };
    let device = ["--batch", "8", "--tokens", "12", "--memory", "1MiB"];
    let bf16 = plan(&[&device[..], &["--dtype", "bf16"]].concat());
    let f32s = plan(&[&device[..], &["--dtype", "f32"]].concat());
    for found in [&bf16, &f32s] {
        let parts = found["bytes"].as_object().unwrap();
        let sum: u64 = parts.values().map(|n| n.as_u64().unwrap()).sum();
        assert_eq!(Some(sum), found["total"].as_u64());
        assert_eq!(found["fits"], true);
        let by_program = &found["activations_by_program"];
        let most = by_program["forward"].as_u64().max(by_program["reverse"].as_u64());
        assert_eq!(parts["activations"].as_u64(), most);
    }
    // w and dense and projected in bf16: 2 bytes for every 4 of each.
    assert_eq!(2 * bf16["bytes"]["bf16_shadows"].as_u64().unwrap(), 3 * bf16["bytes"]["weights"].as_u64().unwrap());
    assert_eq!(f32s["bytes"]["bf16_shadows"], 0);
    assert!(bf16["bytes"]["activations"].as_u64() < f32s["bytes"]["activations"].as_u64());
    // The batch that is said to fit fits, and one more does not.
    let largest = bf16["largest_batch"].as_u64().unwrap();
    for (batch, fits) in [(largest, true), (largest + 1, false)] {
        let found = plan(&["--batch", &batch.to_string(), "--tokens", "12", "--memory", "1MiB", "--dtype", "bf16"]);
        assert_eq!(found["fits"], fits, "{found}");
    }
    let none = plan(&["--memory", "1kb"]);
    assert_eq!((&none["fits"], none["largest_batch"].is_null()), (&false.into(), true));

    let table = done(&["plan", "--model", text(&bert), "--batch", "4", "--memory", "80GiB"]).stdout;
    for part in ["weights", "gradient", "moments", "activations", "total", "80.0 GiB given: it fits"] {
        assert!(table.contains(part), "{part} is not in:\n{table}");
    }
    fails(&["plan", "--batch", "4"], 2, &["--model"]);
    assert!(super::support::fipk(&["plan", "--model", "m", "--memory", "lots"]).stderr.contains("80GiB"));
}

#[test]
fn plan_prints_the_calls_as_they_are_or_as_devices_make_them() {
    let bert = goldens().join("bert_classify_gelu");
    let args = ["plan", "--model", text(&bert), "--batch", "2", "--tokens", "5", "--calls"];
    let calls = |more: &[&str], fuse: &str| {
        let out = super::support::command(&[&args[..], more].concat()).env("FIPK_FUSE", fuse).output().unwrap();
        let ran = super::support::Ran::from(out);
        assert_eq!(ran.code, Some(0), "{more:?}: {}", ran.stderr);
        ran.stdout
    };
    for mode in ["forward", "tangent", "reverse"] {
        let plain = calls(&[mode], "1");
        assert!(plain.starts_with(&format!("{mode}: ")) && plain.contains("\nadd forward: "), "{plain}");
        let lowered = calls(&[mode, "--lowered"], "1");
        let last = if mode == "tangent" { "dual" } else { "forward" };
        for part in [format!("\nadd_layer_norm {last}: "), format!("\nlinear_gelu {last}: ")] {
            assert!(lowered.contains(&part) && !plain.contains(&part), "{mode}: no {part:?} in\n{lowered}");
        }
        // The sum of losses is marked, and stays.
        let sums = |text: &str| text.matches("\nadd forward: ").count();
        assert!(sums(&lowered) <= usize::from(mode == "reverse") && sums(&plain) > 1, "{lowered}");
        assert!(!lowered.contains("\ngelu forward"), "{lowered}");
        assert!(lowered.lines().count() < plain.lines().count());
        assert_eq!(calls(&[mode, "--lowered"], "0"), plain, "FIPK_FUSE=0 leaves the calls as they are");
        let json: serde_json::Value = serde_json::from_str(&calls(&[mode, "--lowered", "--json"], "1")).unwrap();
        assert_eq!((json["mode"].as_str(), json["lowered"].as_bool()), (Some(mode), Some(true)));
        assert_eq!(json["calls"].as_array().unwrap().len() + 1, lowered.lines().count());
    }
    fails(&["plan", "--model", text(&bert), "--lowered"], 2, &["--calls"]);
}

/// The losses of a run's steps.
#[cfg(feature = "emulator")]
fn losses(run: &std::path::Path) -> Vec<f64> {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let events = metrics.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    events.filter(|e| e["event"] == "step").map(|e| e["loss"].as_f64().unwrap()).collect()
}

#[cfg(feature = "emulator")]
#[test]
fn a_run_on_the_emulated_device_goes_as_on_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let run = |device: &str, dtype: &str| {
        let out = dir.path().join(format!("{device}-{dtype}"));
        let train = ["train", "--arch", "mlp:784,8,10", "--data", "digits:24", "--batch", "8", "--steps", "3", "-q"];
        let more = ["--eval-data", "none", "--device", device, "--dtype", dtype, "--out", text(&out)];
        done(&[&train[..], &more].concat());
        let config = fs::read_to_string(out.join("config.toml")).unwrap();
        assert!(config.contains(&format!("device = \"{device}\"")), "{config}");
        losses(&out)
    };
    let cpu = run("cpu", "f32");
    assert_eq!(cpu.len(), 3);
    for (dtype, tol) in [("f32", 1e-5), ("tf32", 0.0025), ("bf16", 0.02)] {
        for (a, b) in cpu.iter().zip(run("emulated", dtype)) {
            assert!((a - b).abs() <= tol * a, "{dtype}: {a} on the CPU, {b} on the emulated device");
        }
    }
}
