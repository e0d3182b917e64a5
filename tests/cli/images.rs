//! Images through the verbs: trained on, evaluated, sparsified, looked at.
use super::support::{done, fails, text, tiny};
use std::fs;
use std::path::{Path, PathBuf};

fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&done(args).stdout).unwrap()
}

/// CIFAR-10's binary files with two easy classes: dark and bright.
fn cifar(dir: &Path) -> PathBuf {
    let folder = dir.join("cifar");
    fs::create_dir(&folder).unwrap();
    let image = |i: usize| {
        let bright = i.is_multiple_of(2);
        let byte = move |p: usize| (if bright { 150 } else { 20 }) + ((i * 31 + p * 7) % 40) as u8;
        std::iter::once(u8::from(bright)).chain((0..3072).map(byte)).collect::<Vec<u8>>()
    };
    let write = |name: &str, from: usize| {
        let bytes: Vec<u8> = (from..from + 16).flat_map(image).collect();
        fs::write(folder.join(name), bytes).unwrap();
    };
    (1..=5).for_each(|i| write(&format!("data_batch_{i}.bin"), 16 * i));
    write("test_batch.bin", 200);
    folder
}

#[test]
fn a_network_is_trained_on_cifar_and_reads_it_the_same_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("cifar10:{}", text(&cifar(dir.path())));
    let looked = json(&["data", &data, "--json"]);
    assert_eq!((&looked["examples"], &looked["size"]), (&80.into(), &serde_json::json!([32, 32])));
    assert_eq!(looked["classes"][1], serde_json::json!({ "name": "automobile", "examples": 40 }));
    let config = dir.path().join("scale.json");
    fs::write(&config, looked["preprocessor_config"].to_string()).unwrap();
    // Half of the pixels about 169.5, half about 39.5, out of 255.
    let mean = looked["preprocessor_config"]["image_mean"][0].as_f64().unwrap();
    assert!((mean - 104.5 / 255.0).abs() <= 2e-3, "{mean}");

    let out = dir.path().join("run");
    let augmented = format!("{data}?augment=flip,crop:4");
    let args =
        ["train", "--arch", "mlp:3072,32,10", "--data", &augmented, "--preprocessor", text(&config), "--lr", "1e-2"];
    done(&[&args[..], &["--steps", "60", "--batch", "16", "--out", text(&out), "-q"]].concat());
    let model = out.join("model");
    let stored: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(model.join("preprocessor_config.json")).unwrap()).unwrap();
    assert_eq!(stored, looked["preprocessor_config"]);
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("Data wait"));
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let step = metrics.lines().find(|line| line.contains("\"event\":\"step\"")).unwrap();
    assert!(step.contains("\"data_wait\":"), "{step}");

    let found = json(&["eval", "--model", text(&model), "--data", &data, "--json"]);
    assert_eq!((found["examples"].as_u64(), found["metrics"]["accuracy"].as_f64()), (Some(16), Some(1.0)));
    let all = json(&["eval", "--model", text(&model), "--data", &format!("{data}?classes=automobile"), "--json"]);
    assert_eq!(all["examples"], 8);
    fails(&["eval", "--model", text(&model), "--data", &format!("{data}?classes=11")], 2, &["`11` is none of 0..=9"]);
    let small = tiny(dir.path());
    fails(&["eval", "--model", text(&small), "--data", &data], 4, &["3072"]);
    fails(&["train", "--model", text(&model), "--preprocessor", "x.json"], 2, &["--preprocessor"]);
}

/// A teacher's logits that were kept over epochs would be those of other pictures.
#[test]
fn augmented_images_are_held_to_the_teacher_on_the_same_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let run = |name: &str, data: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let args = ["sparsify", "--model", text(&model), "--data", data, "--sparsity", "0.5", "--steps", "20", "-q"];
        done(&[&args[..], &["--out", text(&out)], more].concat());
        fs::read(out.join("model/model.safetensors")).unwrap()
    };
    let augmented = "digits:100?augment=crop:3";
    let anew = run("anew", augmented, &["--no-teacher-cache"]);
    assert!(run("default", augmented, &[]) == anew, "the teacher saw other pictures than the student");
    assert!(run("plain", "digits:100", &[]) != anew);
}

/// The accuracy of the trained network that lies beside real data, where both are here.
#[cfg(feature = "parquet")]
#[test]
fn real_cifar_goes_through_train_and_eval() {
    let root = std::env::var_os("FIPK_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = root.join("data/cifar10");
    if !folder.exists() {
        eprintln!("SKIPPED: {} is not here", folder.display());
        return;
    }
    let (dir, data) = (tempfile::tempdir().unwrap(), format!("cifar10:{}", text(&folder)));
    let out = dir.path().join("run");
    let args = ["train", "--arch", "mlp:3072,32,10", "--data", &data, "--eval-data", "none", "--steps", "100"];
    done(&[&args[..], &["--out", text(&out), "-q"]].concat());
    let found = json(&["eval", "--model", text(&out.join("model")), "--data", &data, "--batch", "500", "--json"]);
    assert_eq!(found["examples"], 3000);
    // Ten classes by chance: 10 %.
    assert!(found["metrics"]["accuracy"].as_f64().unwrap() >= 0.2, "{found}");
}
