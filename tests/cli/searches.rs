//! Drift budgets and frontiers: several runs under one command.
use super::support::{command, done, fails, fipk, text, tiny};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn number(v: &Value) -> f64 {
    v.as_f64().unwrap_or(f64::NAN)
}

#[test]
fn a_drift_budget_is_kept_and_certified_on_what_the_choice_never_saw() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let out = dir.path().join("kept");
    let args = [
        "sparsify",
        "--model",
        text(&model),
        "--data",
        "digits:256",
        "--eval-data",
        "digits:301",
        "--steps",
        "60",
        "--drift",
        "kl<=0.3, flips<=40%",
        "--drift-resolution",
        "0.1",
        "--out",
        text(&out),
        "-q",
    ];
    done(&args);
    let (search, drift) = (json(&out.join("search.json")), json(&out.join("drift.json")));
    let tried = search["tried"].as_array().unwrap();
    let kept: Vec<f64> = tried.iter().filter(|t| t["kept"] == true).map(|t| number(&t["sparsity"])).collect();
    let found = number(&search["found"]);
    assert_eq!(found, kept.iter().copied().fold(f64::NAN, f64::max));
    assert!(found > 0.1 && tried.len() >= 2, "{search}");
    // Every sparsity that was tried is judged by the whole interval.
    for t in tried {
        let surely = t["limits"].as_array().unwrap().iter().zip([0.3, 0.4]).all(|(l, most)| {
            let e = &l["estimate"];
            assert!(number(&e["low"]) <= number(&e["value"]) && number(&e["value"]) <= number(&e["high"]), "{l}");
            number(&e["high"]) <= most
        });
        assert_eq!(t["kept"], surely, "{t}");
    }
    assert!(drift["kept"] == true && drift["statement"].as_str().unwrap().contains("not a guarantee"), "{drift}");
    assert_eq!((number(&drift["examples"]), number(&drift["examples_of_the_choice"])), (151.0, 150.0));
    assert!((number(&drift["sparsity"]) - found).abs() <= 1e-3, "{drift}");
    // Both halves together are what `fipk drift` sees on all of the data.
    let sparse = out.join("model");
    let whole: Value =
        serde_json::from_str(&done(&["drift", text(&model), text(&sparse), "--data", "digits:301", "--json"]).stdout)
            .unwrap();
    let best = tried.iter().find(|t| number(&t["sparsity"]) == found).unwrap();
    let mean = (150.0 * number(&best["limits"][0]["estimate"]["value"])
        + 151.0 * number(&drift["measured"]["kl"]["mean"]["value"]))
        / 301.0;
    let want = number(&whole["distances"]["kl"]["mean"]);
    assert!((mean - want).abs() <= 1e-9 * want, "{mean} {want}");
    let second = &drift["second_order"]["fisher"];
    assert!(number(&second["predicted"]) > 0.0 && number(&second["measured"]) > 0.0, "{second}");
    for file in ["metrics.jsonl", "report.html", "config.toml", "model/model.safetensors"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("Sparsities tried") && page.contains("no guarantee"));
    assert!(done(&["resume", text(&out)]).stderr.contains("finished"));
    // The same again is the same, and a resumed search makes nothing twice.
    let before = fs::read(out.join("drift.json")).unwrap();
    fs::remove_dir_all(&sparse).unwrap();
    let run = fs::metadata(out.join("candidates/0.9900/metrics.jsonl")).unwrap().modified().unwrap();
    done(&["resume", text(&out), "-q"]);
    assert_eq!(fs::read(out.join("drift.json")).unwrap(), before);
    assert_eq!(fs::metadata(out.join("candidates/0.9900/metrics.jsonl")).unwrap().modified().unwrap(), run);
}

#[test]
fn budgets_that_cannot_be_kept_or_read_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let out = dir.path().join("none");
    let args = ["sparsify", "--model", text(&model), "--data", "digits:100", "--steps", "4", "--out", text(&out), "-q"];
    let none =
        fipk(&[&args[..], &["--eval-data", "digits:120", "--drift", "kl<=0", "--drift-resolution", "0.9"]].concat());
    assert!(none.code == Some(3) && none.stderr.contains("kl<=0"), "{}", none.stderr);
    assert_eq!(json(&out.join("search.json"))["tried"].as_array().unwrap().len(), 2);
    assert!(!out.join("model").exists());

    // A run that diverges keeps nothing, and the search goes on.
    let wild = dir.path().join("wild");
    let args = ["sparsify", "--model", text(&model), "--data", "digits:100", "--steps", "4", "--out", text(&wild)];
    let more = ["--eval-data", "digits:120", "--drift", "kl<=9", "--drift-resolution", "0.9"];
    let ran = fipk(&[&args[..], &more, &["--learning-rate", "1e30", "--clip", "0"]].concat());
    assert!(ran.code == Some(3) && ran.stderr.contains("not finite"), "{}", ran.stderr);
    let found = json(&wild.join("search.json"));
    let tried = found["tried"].as_array().unwrap();
    assert!(tried.len() == 2 && tried.iter().all(|t| t["kept"] == false && t["diverged"].is_string()), "{found}");

    let other = dir.path().join("other");
    let args = ["sparsify", "--model", text(&model), "--data", "digits:100", "--out", text(&other)];
    let with = |more: &[&'static str]| [&args[..], more].concat();
    for (budget, says) in [("kl<0.1", "no <="), ("kl<=NaN", "no limit"), ("accuracy<=0.1", "'accuracy'")] {
        let ran = fipk(&with(&["--drift", budget]));
        assert!(ran.code == Some(2) && ran.stderr.contains(says), "{budget}: {}", ran.stderr);
    }
    fails(&with(&["--drift", "kl<=0.1", "--eval-data", "digits:99"]), 2, &["--drift", "100", "50", "99"]);
    fails(&with(&["--drift", "kl<=0.1", "--eval-data", "none"]), 2, &["--drift", "--eval-data"]);
    fails(&with(&["--drift", "kl<=0.1", "--scope", "2:4"]), 2, &["--drift", "2:4"]);
    fails(&with(&["--drift", "kl<=0.1", "--path", "p"]), 2, &["--path"]);
    fails(&with(&["--drift", "kl<=0.1", "--drift-resolution", "0"]), 2, &["--drift-resolution"]);
    assert!(!other.exists());
}

fn frontier<'a>(model: &'a str, out: &'a str) -> Vec<&'a str> {
    let args = [
        "frontier",
        "--model",
        model,
        "--data",
        "digits:256",
        "--eval-data",
        "digits:120",
        "--sparsities",
        "90%,0.5",
        "--methods",
        "one-shot,fip",
        "--steps",
        "300",
        "--checkpoint-every",
        "20",
        "--out",
        out,
    ];
    args.to_vec()
}

#[test]
fn a_frontier_has_a_run_a_point_and_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let out = dir.path().join("frontier");
    let ran = done(&frontier(text(&model), text(&out)));
    for part in ["zeros", "FIP", "one-shot magnitude", "50.00 %", "90.00 %", "dense"] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let found = json(&out.join("frontier.json"));
    let points = found["points"].as_array().unwrap();
    assert_eq!(points.len(), 4);
    let eval = |model: &Path| {
        let args = ["eval", "--model", text(model), "--data", "digits:120", "--json"];
        let value: Value = serde_json::from_str(&done(&args).stdout).unwrap();
        number(&value["metrics"]["accuracy"])
    };
    assert_eq!(number(&found["dense"]), eval(&model));
    for p in points {
        let run = out.join(format!("{}-{}", p["method"].as_str().unwrap(), p["sparsity_target"]));
        assert_eq!(number(&p["metrics"]["accuracy"]), eval(&run.join("model")), "{p}");
        assert!((number(&p["sparsity"]) - number(&p["sparsity_target"])).abs() <= 1e-3, "{p}");
    }
    let svg = fs::read_to_string(out.join("frontier.svg")).unwrap();
    assert!(svg.contains("<svg") && svg.contains("in passing"));
    assert!(found["in_passing"].as_array().unwrap().len() > 2);
    assert_eq!(found["one_path"].as_array().unwrap().len(), 2);
    fails(&frontier(text(&model), text(&out)), 2, &["--overwrite"]);
    let refused = [&frontier(text(&model), "elsewhere")[..], &["--scope", "2:4"]].concat();
    fails(&refused, 2, &["--scope"]);
}

/// What one path is said to have at a sparsity is what `fipk project` makes of the network that the same path, walked alone,
/// stored at that step.
#[test]
fn one_path_passes_all_sparsities() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let (out, way) = (dir.path().join("frontier"), dir.path().join("way"));
    let args = [&frontier(text(&model), text(&out))[..], &["--one-path"]].concat();
    let ran = done(&args);
    assert!(ran.stdout.contains("FIP, one path"), "{}", ran.stdout);
    assert!(out.join("fip-0.9/model").is_dir() && out.join("one-shot-0.5/model").is_dir());
    assert!(!out.join("fip-0.5").exists());
    let found = json(&out.join("frontier.json"));
    let passed = found["one_path"].as_array().unwrap();
    assert_eq!(passed.iter().map(|p| number(&p["sparsity"])).collect::<Vec<_>>(), [0.5, 0.9]);

    let (config, alone) = (out.join("fip-0.9/config.toml"), dir.path().join("alone"));
    let again = ["sparsify", "--config", text(&config), "--out", text(&alone), "--path", text(&way)];
    done(&[&again[..], &["--path-every", "10", "-q"]].concat());
    for p in passed {
        let (step, sparsity) = (p["step"].as_u64().unwrap(), p["sparsity"].to_string());
        let [moved, sparse] = ["moved", "sparse"].map(|name| dir.path().join(format!("{name}-{sparsity}")));
        // A point every ten steps, after the start.
        let point = (step / 10).to_string();
        done(&["path", "export", text(&way), "--point", &point, "--out", text(&moved)]);
        done(&["project", "--model", text(&moved), "--sparsity", &sparsity, "--out", text(&sparse)]);
        let said = done(&["eval", "--model", text(&sparse), "--data", "digits:120", "--json"]).stdout;
        let value: Value = serde_json::from_str(&said).unwrap();
        let of = |v: &Value, name: &str| number(&v["metrics"][name]);
        assert_eq!(of(p, "accuracy"), of(&value, "accuracy"), "{p}");
        assert!((of(p, "loss") - of(&value, "loss")).abs() <= 1e-5, "{p} {value}");
    }
    let refused =
        ["frontier", "--model", text(&model), "--data", "digits:64", "--eval-data", "digits:50", "--one-path"];
    fails(
        &[&refused[..], &["--sparsities", "0.5", "--methods", "one-shot", "--out", "elsewhere"]].concat(),
        2,
        &["--one-path"],
    );
}

#[test]
fn the_ways_of_a_frontier_stay_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let (out, file) = (dir.path().join("frontier"), dir.path().join("asked.toml"));
    // No point meets the requirement, which is none of a frontier's.
    let asked = "require = [\"loss<=0\"]\n[path]\nfinish = 0.25\n[optimization]\nclip = 0.5\n";
    fs::write(&file, asked).unwrap();
    let args = ["frontier", "--model", text(&model), "--data", "digits:64", "--eval-data", "digits:50", "--steps", "8"];
    let more = ["--sparsities", "0.5", "--methods", "fip,paper,one-shot,random", "--refresh", "3", "--anchor", "dense"];
    let last = ["--step", "null", "--config", text(&file), "--out", text(&out), "-q"];
    done(&[&args[..], &more, &last].concat());
    let config = |way: &str| -> toml::Table {
        fs::read_to_string(out.join(format!("{way}-0.5/config.toml"))).unwrap().parse().unwrap()
    };
    let want = [("fip", 0.25, 3, "dense", "null"), ("paper", 0.0, 1, "projected", "gradient")];
    for (way, finish, refresh, anchor, step) in want {
        let c = config(way);
        assert_eq!((c["path"]["finish"].as_float(), c["path"]["refresh"].as_integer()), (Some(finish), Some(refresh)));
        assert_eq!((c["objective"]["anchor"].as_str(), c["step"]["kind"].as_str()), (Some(anchor), Some(step)));
        assert_eq!(c["optimization"]["clip"].as_float(), Some(0.5), "{way}");
    }
    let found = json(&out.join("frontier.json"));
    for p in found["points"].as_array().unwrap() {
        let steps = p["steps"].as_u64().unwrap();
        assert_eq!(steps > 0, ["fip", "paper"].contains(&p["method"].as_str().unwrap()), "{p}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_frontier_goes_on_to_the_same_table() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let (whole, out) = (dir.path().join("whole"), dir.path().join("broken"));
    done(&[&frontier(text(&model), text(&whole))[..], &["-q"]].concat());
    let child = command(&frontier(text(&model), text(&out))).spawn().unwrap();
    let metrics = out.join("fip-0.5/metrics.jsonl");
    let limit = Instant::now() + Duration::from_secs(60);
    while fs::read_to_string(&metrics).unwrap_or_default().matches("\"event\":\"step\"").count() < 40 {
        assert!(Instant::now() < limit, "no step 40 within a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains(&format!("fipk resume {}", out.display())), "{stderr}");
    assert!(!out.join("frontier.json").exists());
    done(&["resume", text(&out), "-q"]);
    let metrics = |out: &Path| {
        let found = json(&out.join("frontier.json"));
        found["points"].as_array().unwrap().iter().map(|p| p["metrics"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(metrics(&out), metrics(&whole));
}
