//! What goes wrong is said in one line with what to do, and leaves nothing behind.
use super::support::{done, fails, fipk, goldens, text, tiny};
use std::fs;

#[test]
fn wrong_models_and_data_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mlp = goldens().join("mlp");
    let mlp = text(&mlp);
    let sparsify = |more: &[&str]| {
        let mut args = vec!["sparsify", "--out", text(&out)];
        args.extend(more);
        args.iter().map(|s| s.to_string()).collect::<Vec<_>>()
    };
    let cases: [(&[&str], i32, &[&str]); 12] = [
        (&["--model", "/no/such", "--data", "digits:9", "--sparsity", "0.5"], 4, &["/no/such", "hint"]),
        (&["--model", mlp, "--sparsity", "0.5"], 2, &["--data", "glue/sst2:DIR"]),
        (&["--data", "digits:9", "--sparsity", "0.5"], 2, &["--model"]),
        (&["--model", mlp, "--data", "digits:9"], 2, &["--sparsity"]),
        (&["--model", mlp, "--data", "digits:9", "--sparsity", "1.5"], 2, &["--sparsity", "1.5"]),
        (&["--model", mlp, "--data", "digits", "--sparsity", "0.5"], 2, &["digits", "colon"]),
        (&["--model", mlp, "--data", "digitz:9", "--sparsity", "0.5"], 2, &["digitz"]),
        (&["--model", mlp, "--data", "mnist:/no/such", "--sparsity", "0.5"], 4, &["/no/such"]),
        (
            &["--model", mlp, "--data", "digits:9", "--sparsity", "0.5", "--include", "encoder.*"],
            2,
            &["--include 'encoder.*'", "--dry-run"],
        ),
        (
            &["--model", mlp, "--data", "digits:9", "--sparsity", "0.5", "--freeze", "[oops"],
            2,
            &["--freeze '[oops'", "not a glob"],
        ),
        (&["--model", mlp, "--data", "digits:9", "--scope", "2:4", "--sparsity", "0.9"], 2, &["2:4", "0.5"]),
        (&["--model", mlp, "--data", "digits:9", "--sparsity", "0.5", "--steps", "0"], 2, &["--steps"]),
    ];
    for (more, code, says) in cases {
        let args = sparsify(more);
        fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, says);
        assert!(!out.exists(), "{more:?} left {}", out.display());
    }
    let scope = fipk(&["sparsify", "--scope", "columns"]);
    assert!(scope.code == Some(2) && scope.stderr.contains("n:m"), "{}", scope.stderr);
    let method = fipk(&["sparsify", "--method", "magic"]);
    assert!(method.code == Some(2) && method.stderr.contains("one-shot"), "{}", method.stderr);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing may be left behind");
}

#[test]
fn a_configuration_file_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.toml");
    for (content, says) in
        [("[path]\nsparsty = 0.5\n", "sparsty"), ("[path\n", "f.toml:1"), ("method = \"magic\"\n", "magic")]
    {
        fs::write(&file, content).unwrap();
        fails(&["sparsify", "--config", text(&file), "--model", "m", "--out", "o"], 2, &[says]);
    }
    fails(&["drift", "a", "b", "--data", "digits:3", "--config", text(&file)], 2, &["--config"]);
    fails(&["doctor", "--config", "/no/such.toml"], 1, &["/no/such.toml"]);
}

#[test]
fn folders_that_are_there_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let out = dir.path().join("mine");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    let project = |more: &[&str]| {
        let args = ["project", "--model", text(&model), "--sparsity", "0.5", "--out", text(&out)];
        args.iter().chain(more).map(|s| s.to_string()).collect::<Vec<_>>()
    };
    for more in [&[][..], &["--overwrite"]] {
        let args = project(more);
        fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), 2, &["--out"]);
    }
    assert_eq!(fs::read_to_string(out.join("notes.txt")).unwrap(), "mine");
    let other = dir.path().join("other");
    let args = ["project", "--model", text(&model), "--sparsity", "0.5", "--out", text(&other)];
    done(&args);
    fails(&args, 2, &["--overwrite"]);
    done(&[&args[..], &["--overwrite"]].concat());
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let mlp = goldens().join("mlp");
    let out = closed.join("out");
    if fs::write(closed.join("probe"), "").is_ok() {
        eprintln!("SKIPPED the unwritable folder: this user (root?) may write anywhere");
    } else {
        fails(
            &["project", "--model", text(&mlp), "--sparsity", "0.5", "--out", text(&out)],
            1,
            &["cannot", text(&out)],
        );
    }
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    fails(&["project", "--model", text(&mlp), "--sparsity", "0.5", "--out", text(&file)], 2, &["got a file"]);
    fails(&["project", "--model", text(&mlp), "--sparsity", "0.5", "--out", text(&file.join("below"))], 1, &["cannot"]);
}

#[test]
fn targets_not_met_end_with_three() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let eval = |require: &str| fipk(&["eval", "--model", text(&model), "--data", "digits:100", "--require", require]);
    let missed = eval("accuracy>=1.01");
    assert_eq!(missed.code, Some(3), "{}", missed.stderr);
    assert!(missed.stderr.contains("accuracy>=1.01") && missed.stdout.contains("accuracy"), "{}", missed.stderr);
    assert_eq!(eval("accuracy>=0").code, Some(0));
    let unknown = eval("f2>=0");
    assert!(unknown.code == Some(2) && unknown.stderr.contains("accuracy"), "{}", unknown.stderr);

    let out = dir.path().join("run");
    let args = ["sparsify", "--model", text(&model), "--data", "digits:100", "--sparsity", "0.5", "--steps", "4"];
    let ran = fipk(&[&args[..], &["--out", text(&out), "--require", "accuracy>=1.01"]].concat());
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(out.join("model/model.safetensors").is_file(), "what was reached is stored");
}
