//! Runs: what they write, that they go on after any end, and that threads change nothing.
use super::support::{command, done, fails, fipk, tensors, text, tiny};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

fn sparsify(model: &Path, out: &Path, more: &[&str]) -> Vec<String> {
    let args =
        ["sparsify", "--model", text(model), "--data", "digits:300?seed=2", "--sparsity", "0.8", "--out", text(out)];
    args.iter().chain(more).map(|s| s.to_string()).collect()
}

pub fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

pub fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("model/model.safetensors")).unwrap_or_else(|e| panic!("{}: {e}", run.display()))
}

#[test]
fn a_run_writes_its_folder_and_speaks_json() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let out = dir.path().join("run");
    let ran = done(&strs(&sparsify(&model, &out, &["--steps", "12", "--evaluate-every", "5", "--json"])));
    let events: Vec<serde_json::Value> = ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(events.iter().filter(|e| e["event"] == "step").count(), 12);
    assert_eq!((&events[0]["event"], &events[events.len() - 1]["status"]), (&"start".into(), &"done".into()));
    assert_eq!(fs::read_to_string(out.join("metrics.jsonl")).unwrap(), ran.stdout);
    for file in ["config.toml", "report.html", "checkpoints", "model/config.json", "model/preprocessor_config.json"] {
        assert!(out.join(file).exists(), "{file}");
    }
    let zeros = tensors(&out.join("model/model.safetensors"))["fc1.weight"].1.iter().filter(|x| **x == 0.0).count();
    assert_eq!(zeros, (0.8 * 784.0 * 48.0_f64).round() as usize);

    // Its configuration gives the same run; a flag over it, another.
    let (again, other) = (dir.path().join("again"), dir.path().join("other"));
    let config = out.join("config.toml");
    done(&["sparsify", "--config", text(&config), "--out", text(&again), "-q"]);
    assert_eq!(weights(&again), weights(&out));
    assert_eq!(fs::read(again.join("config.toml")).unwrap(), fs::read(&config).unwrap());
    done(&["sparsify", "--config", text(&config), "--out", text(&other), "--seed", "5", "-q"]);
    assert_ne!(weights(&other), weights(&out));

    let finished = done(&["resume", text(&out)]);
    assert!(finished.stderr.contains("finished"), "{}", finished.stderr);
    fs::remove_file(out.join("report.html")).unwrap();
    done(&["report", text(&out)]);
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("<svg"));
    fails(&["report", text(dir.path())], 4, &["metrics.jsonl"]);
    fails(&["resume", text(dir.path())], 4, &["config.toml"]);
}

#[test]
fn eval_and_drift_agree_with_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let out = dir.path().join("run");
    let ran = done(&strs(&sparsify(&model, &out, &["--steps", "12", "--eval-data", "digits:90", "--json"])));
    let events: Vec<serde_json::Value> = ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let last = events.iter().rfind(|e| e["event"] == "eval").unwrap();
    let sparse = out.join("model");
    let eval: serde_json::Value =
        serde_json::from_str(&done(&["eval", "--model", text(&sparse), "--data", "digits:90", "--json"]).stdout)
            .unwrap();
    assert_eq!(eval["metrics"]["accuracy"], last["metrics"]["accuracy"]);
    assert_eq!(eval["examples"], 90);

    let drift = |a: &Path, b: &Path| -> serde_json::Value {
        serde_json::from_str(&done(&["drift", text(a), text(b), "--data", "digits:90", "--json"]).stdout).unwrap()
    };
    let same = drift(&model, &model);
    assert_eq!((&same["same_top1"], same["distances"]["kl"]["max"].as_f64()), (&1.0.into(), Some(0.0)));
    let moved = drift(&model, &sparse);
    let kl = moved["distances"]["kl"]["mean"].as_f64().unwrap();
    assert!(kl > 0.0 && (kl - last["distance"].as_f64().unwrap()).abs() <= 1e-6, "{kl} {last}");
    assert!(done(&["drift", text(&model), text(&sparse), "--data", "digits:90"]).stdout.contains("hellinger"));
}

#[test]
fn n_of_m_leaves_n_of_every_m() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let out = dir.path().join("run");
    let args = ["sparsify", "--model", text(&model), "--data", "digits:200", "--scope", "2:4", "--steps", "12"];
    done(&[&args[..], &["--out", text(&out), "-q"]].concat());
    let w = &tensors(&out.join("model/model.safetensors"))["fc1.weight"].1;
    assert!(w.chunks(4).all(|c| c.iter().filter(|x| **x == 0.0).count() == 2));
}

#[test]
fn threads_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let run = |threads: &str| {
        let out = dir.path().join(threads);
        done(&strs(&sparsify(&model, &out, &["--steps", "25", "--threads", threads, "-q"])));
        weights(&out)
    };
    assert!(run("1") == run("2"), "1 and 2 threads differ");
}

/// Starts a run and waits until it has recorded `steps` steps.
pub fn started(args: &[String], out: &Path, steps: usize) -> Child {
    started_by(&mut command(&strs(args)), out, steps)
}

pub fn started_by(command: &mut std::process::Command, out: &Path, steps: usize) -> Child {
    let mut child = command.spawn().expect("the binary starts");
    let metrics = out.join("metrics.jsonl");
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let seen = fs::read_to_string(&metrics).unwrap_or_default().matches("\"event\":\"step\"").count();
        if seen >= steps {
            return child;
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("ended before step {steps}: {status}");
        }
        assert!(Instant::now() < limit, "no step {steps} within a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A run on `data` that nobody stops, and the place for the same run to be stopped in.
fn unbroken(dir: &Path, data: &str) -> (PathBuf, Vec<String>, Vec<u8>, PathBuf) {
    let model = tiny(dir);
    let settings = ["--steps", "600", "--checkpoint-every", "30", "--evaluate-every", "100", "-q"];
    let run = |out: &Path| {
        let mut args = sparsify(&model, out, &settings);
        let at = args.iter().position(|arg| arg == "--data").unwrap() + 1;
        args[at] = data.into();
        args
    };
    let (whole, out) = (dir.join("whole"), dir.join("broken"));
    done(&strs(&run(&whole)));
    (whole.clone(), run(&out), weights(&whole), out)
}

/// Events without their times and places.
pub fn history(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let timeless = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        let map = value.as_object_mut().unwrap();
        ["seconds", "milliseconds", "data_wait", "command"].iter().for_each(|key| drop(map.remove(*key)));
        value.to_string()
    };
    text.lines().map(timeless).collect()
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, args, bytes, out) = unbroken(dir.path(), "digits:300?seed=2&augment=crop:2");
    let mut child = started(&args, &out, 137);
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    assert!(!out.join("model").exists());
    // And once more on the way.
    let mut child = started(&["resume".into(), text(&out).into(), "-q".into()], &out, 301);
    child.kill().unwrap();
    child.wait().unwrap();
    done(&["resume", text(&out), "-q"]);
    assert!(weights(&out) == bytes, "the resumed run ends elsewhere");
    assert_eq!(history(&out), history(&whole));
}

/// Under nohup a run outlives its terminal, and is stopped by Ctrl-C all the same.
#[cfg(unix)]
#[test]
fn a_run_that_ignores_hangups_goes_on_until_it_is_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let (_, args, _, out) = unbroken(dir.path(), "digits:300?seed=2");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_fipk")]).args(&args);
    shell.stderr(std::process::Stdio::piped());
    let child = started_by(&mut shell, &out, 31);
    let send =
        |signal: &str| std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(send("-HUP").success());
    let at = fs::read_to_string(out.join("metrics.jsonl")).unwrap().len();
    let limit = Instant::now() + Duration::from_secs(60);
    while fs::read_to_string(out.join("metrics.jsonl")).unwrap().len() < at + 500 {
        assert!(Instant::now() < limit, "it went no further");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(send("-INT").success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_says_how_to_go_on_and_does() {
    let dir = tempfile::tempdir().unwrap();
    let (_, args, bytes, out) = unbroken(dir.path(), "digits:300?seed=2");
    let child = started(&args, &out, 47);
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains(&format!("fipk resume {}", out.display())), "{stderr}");
    assert!(out.join("report.html").is_file());
    done(&["resume", text(&out), "-q"]);
    assert!(weights(&out) == bytes, "the resumed run ends elsewhere");
}

#[test]
fn the_quick_start_compares_and_reports() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("quick");
    let args = ["quickstart", "--digits", "400", "--steps", "30", "--out", text(&out)];
    let ran = done(&args);
    for part in ["dense", "invariant path", "gradual", "one-shot", "90.00 %"] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("one-shot magnitude"));
    for model in ["model", "dense/model", "gradual/model", "one-shot/model"] {
        assert!(out.join(model).join("model.safetensors").is_file(), "{model}");
    }
    assert_eq!(fipk(&args).code, Some(2), "it replaces nothing unasked");
}
