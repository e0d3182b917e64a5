//! Steps in the metric and stored paths, through the command: killed and resumed to the same bytes, refused, planned.
use super::runs::{history, started, strs, weights};
use super::support::{done, fails, tensors, text, tiny};
use fipk::fip::path::Stored;
use serde_json::Value;
use std::fs;
use std::path::Path;

fn exact(model: &Path, out: &Path, path: &Path, more: &[&str]) -> Vec<String> {
    let args = [
        "sparsify",
        "--model",
        text(model),
        "--data",
        "digits:300?seed=2",
        "--sparsity",
        "0.8",
        "--out",
        text(out),
        "--path",
        text(path),
        "--step",
        "exact",
        "--batch",
        "32",
        "--products",
        "15",
        "--steps",
        "120",
        "--refresh",
        "5",
        "--checkpoint-every",
        "7",
        "--evaluate-every",
        "50",
        "-q",
    ];
    args.iter().chain(more).map(|s| s.to_string()).collect()
}

#[test]
fn a_killed_run_of_exact_steps_and_its_path_resume_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    for precondition in ["none", "diagonal"] {
        let place = |name: &str| dir.path().join(format!("{name}-{precondition}"));
        let (whole, way, out, other) = (place("whole"), place("way"), place("broken"), place("other"));
        let more = ["--precondition", precondition];
        done(&strs(&exact(&model, &whole, &way, &more)));
        let mut child = started(&exact(&model, &out, &other, &more), &out, 24);
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        assert!(!out.join("model").exists());
        done(&["resume", text(&out), "-q"]);
        assert!(weights(&out) == weights(&whole), "{precondition}: the resumed run ends elsewhere");
        assert_eq!(history(&out), history(&whole));
        let files = |path: &Path| {
            let all = fs::read_dir(path.join("points")).unwrap().map(|e| e.unwrap().path());
            // A kill in the middle of a write leaves its hidden temporary file.
            let mut names: Vec<_> = all.filter(|p| p.extension().is_some_and(|e| e == "delta")).collect();
            names.sort();
            names.into_iter().map(|p| fs::read(p).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(files(&other), files(&way));
        let [a, b] = [&other, &way].map(|path| Stored::open(path).unwrap());
        assert_eq!(a.points().len(), b.points().len());
        for (a, b) in a.points().iter().zip(b.points()) {
            assert_eq!((a.time, &a.operation), (b.time, &b.operation));
            // Numbers of a file that was read and written again are within a last place.
            assert!((a.weight_distance - b.weight_distance).abs() <= 1e-12 * b.weight_distance, "{a:?} {b:?}");
        }
    }
}

#[test]
fn a_stored_path_leads_from_the_model_to_the_sparse_one() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let (out, path, last) = (dir.path().join("run"), dir.path().join("path"), dir.path().join("last"));
    let args = ["sparsify", "--model", text(&model), "--data", "digits:300", "--sparsity", "0.8", "--steps", "40"];
    let keep = ["--path", text(&path), "--path-every", "8", "-q"];
    done(&[&args[..], &["--out", text(&out)], &keep].concat());
    let stored = Stored::open(&path).unwrap();
    let seen: Vec<(f64, &str)> = stored.points().iter().map(|p| (p.time, p.operation.as_str())).collect();
    let inside = "inside the subspace";
    // The projection stands before step 21, so the network after step 24 is inside already.
    let want =
        [(0.0, "start"), (8.0, "sparsify"), (16.0, "sparsify"), (24.0, inside), (32.0, inside), (40.0, "projected")];
    assert_eq!(seen, want);
    done(&["path", "export", text(&path), "--point", "5", "--out", text(&last), "-q"]);
    let tensor = |dir: &Path| tensors(&dir.join("model.safetensors"));
    assert_eq!(tensor(&last), tensor(&out.join("model")));
    let first = dir.path().join("first");
    done(&["path", "export", text(&path), "--point", "0", "--out", text(&first), "-q"]);
    assert_eq!(tensor(&first), tensor(&model));
    // Another run may not write into it.
    let again = dir.path().join("again");
    fails(&[&args[..], &["--out", text(&again)], &keep].concat(), 2, &["--path", "not empty"]);
}

#[test]
fn steps_are_named_and_bad_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let out = dir.path().join("run");
    let args = ["sparsify", "--model", text(&model), "--data", "digits:100", "--sparsity", "0.5", "--out", text(&out)];
    let with = |more: &[&'static str]| [&args[..], more].concat();
    let cases: [(&[&str], &[&str]); 23] = [
        (&["--step", "exact", "--beta", "0"], &["--beta", "above 0"]),
        (&["--step", "null", "--damping", "NaN"], &["--damping", "NaN"]),
        (&["--step", "exact", "--products", "0"], &["--products", "at least 1"]),
        (&["--step", "exact", "--solve-tolerance", "2"], &["--solve-tolerance", "between 0 and 1"]),
        (&["--step", "exact", "--accumulation", "2"], &["--metric-batches"]),
        (&["--step", "null", "--method", "gradual"], &["--step null", "--method fip"]),
        (&["--step", "exact", "--batch-norm", "running"], &["--step exact", "frozen"]),
        (&["--step", "exact", "--labels-weight", "0.5"], &["--labels-weight", "--step gradient"]),
        (&["--step", "exact", "--distance", "hellinger"], &["--distance hellinger", "--distance kl"]),
        (&["--step", "exact", "--output-metric", "euclidean"], &["--distance kl", "--output-metric fisher"]),
        // What would say nothing.
        (&["--beta", "1"], &["--beta", "--step exact"]),
        (&["--damping", "1"], &["--damping", "--step null"]),
        (&["--output-metric", "fisher"], &["--output-metric", "--step exact or null"]),
        (&["--metric-batches", "2"], &["--metric-batches", "--step exact or null"]),
        (&["--products", "9"], &["--products", "--step exact or null"]),
        (&["--solve-tolerance", "0.1"], &["--solve-tolerance", "--step exact or null"]),
        (&["--precondition", "none"], &["--precondition", "--step exact or null"]),
        (&["--step", "null", "--beta", "1"], &["--beta", "--step exact"]),
        (&["--step", "exact", "--damping", "1"], &["--damping", "--step null"]),
        (&["--step", "exact", "--pull", "l2"], &["--pull", "--step gradient"]),
        (&["--step", "null", "--pull", "prox"], &["--pull", "--step gradient"]),
        (&["--path-every", "5"], &["--path-every", "--path"]),
        (&["--drift-resolution", "0.1"], &["--drift-resolution", "--drift"]),
    ];
    for (more, says) in cases {
        fails(&with(more), 2, says);
        assert!(!out.exists(), "{more:?} left something");
    }
    let ran = super::support::fipk(&with(&["--step", "sideways"]));
    assert!(ran.code == Some(2) && ran.stderr.contains("exact"), "{}", ran.stderr);

    let ran = done(&with(&["--step", "null", "--steps", "12", "--refresh", "3", "--products", "10", "--json"]));
    let events: Vec<Value> = ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(events[0]["step"].as_str().is_some_and(|s| s.starts_with("null")), "{}", events[0]);
    let solves: Vec<&Value> = events.iter().filter_map(|e| e.get("solve")).collect();
    assert_eq!(solves.len(), 6);
    assert!(solves[3]["products"].as_u64().is_some_and(|n| (1..=10).contains(&n)), "{}", solves[3]);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("Steps in the metric, null") && page.contains("residual"), "the report names the steps");

    // Two products are too few, which is said once.
    let few = ["--step", "exact", "--precondition", "diagonal", "--products", "2", "--steps", "12", "--refresh", "3"];
    let ran = done(&[&with(&few)[..], &["--overwrite", "--json"]].concat());
    let events: Vec<Value> = ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let warnings: Vec<&Value> = events.iter().filter(|e| e["event"] == "warning").collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0]["message"].as_str().unwrap().contains("--products"), "{}", warnings[0]);

    // The metric goes with the distance.
    let more = ["--step", "exact", "--distance", "euclidean", "--steps", "4", "--refresh", "2", "--overwrite", "-q"];
    done(&with(&more));
    let config = fs::read_to_string(out.join("config.toml")).unwrap();
    assert!(config.contains("output_metric = \"euclidean\""), "{config}");

    let plan = |kind: &str| -> Value {
        let args = ["plan", "--model", text(&model), "--step", kind, "--memory", "80GiB", "--json"];
        serde_json::from_str(&done(&args).stdout).unwrap()
    };
    let (gradient, exact) = (plan("gradient"), plan("exact"));
    let more = exact["total"].as_u64().unwrap() - gradient["total"].as_u64().unwrap();
    assert!(exact["step"] == "exact" && more >= exact["bytes"]["steps_in_the_metric"].as_u64().unwrap(), "{exact}");
    assert!(exact["bytes"]["steps_in_the_metric"].as_u64().unwrap() > 0);
    assert!(done(&["plan", "--model", text(&model), "--step", "exact"]).stdout.contains("products with the metric"));
}

#[test]
fn exact_steps_keep_a_trained_network_nearer_than_as_many_of_the_gradient() {
    let root = std::env::var_os("FIPK_SHARED")
        .map_or(Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), std::path::PathBuf::from);
    let (model, data) = (root.join("models/lenet-300-100-mnist"), root.join("data/mnist"));
    if !model.exists() || !data.exists() {
        eprintln!("SKIPPED exact steps on LeNet-300-100: no {} or {}", model.display(), data.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let spec = format!("mnist:{}?limit=2000", data.display());
    let held_out = format!("mnist:{}?split=test&limit=1000", data.display());
    let distance = |kind: &str| {
        let out = dir.path().join(kind);
        let args = [
            "sparsify",
            "--model",
            text(&model),
            "--data",
            &spec,
            "--eval-data",
            &held_out,
            "--sparsity",
            "0.9",
            "--step",
            kind,
            "--steps",
            "40",
            "--refresh",
            "5",
            "--evaluate-every",
            "0",
            "--out",
            text(&out),
            "--json",
        ];
        let ran = done(&args);
        let events: Vec<Value> = ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let last = events.iter().rfind(|e| e["event"] == "eval").unwrap();
        assert_eq!(last["network"], "final");
        last["distance"].as_f64().unwrap_or(f64::NAN)
    };
    let [gradient, exact, null] = ["gradient", "exact", "null"].map(distance);
    assert!(exact > 0.0 && exact <= 0.9 * gradient, "exact {exact}, gradient {gradient}, null {null}");
    assert!(exact <= null, "exact {exact}, null {null}");
}
