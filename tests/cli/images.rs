//! Images through the verbs: trained on, evaluated, sparsified, looked at.
use super::support::{done, fails, text, tiny};
use std::fs;
use std::path::{Path, PathBuf};

pub fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&done(args).stdout).unwrap()
}

/// CIFAR-10's binary files with two easy classes: dark and bright.
pub fn cifar(dir: &Path) -> PathBuf {
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

    // The run's configuration names a preprocessor; with the model that came of it, that is the model's matter.
    let settings = out.join("config.toml");
    assert!(fs::read_to_string(&settings).unwrap().contains("preprocessor = "));
    for verb in [&["train"][..], &["sparsify", "--sparsity", "0.5"]] {
        let next = dir.path().join(verb[0]);
        let args = ["--config", text(&settings), "--model", text(&model), "--steps", "2", "--out", text(&next), "-q"];
        done(&[verb, &args].concat());
        assert_eq!(
            fs::read(next.join("model/preprocessor_config.json")).unwrap(),
            fs::read(model.join("preprocessor_config.json")).unwrap()
        );
        assert!(!fs::read_to_string(next.join("config.toml")).unwrap().contains("preprocessor = "));
    }
    fs::write(dir.path().join("of.toml"), format!("model = {:?}\n", text(&model))).unwrap();
    let of = dir.path().join("of.toml");
    let args = ["train", "--config", text(&of), "--preprocessor", text(&config)];
    fails(&[&args[..], &["--data", &data, "--out", "x"]].concat(), 2, &["--preprocessor", "of its own"]);
}

/// A folder a class, each with one image of this height and width.
fn folder(dir: &Path, sizes: [(u32, u32); 2]) -> String {
    for (class, (height, width)) in ["dark", "bright"].iter().zip(sizes) {
        fs::create_dir_all(dir.join(class)).unwrap();
        let mut encoder = png::Encoder::new(fs::File::create(dir.join(class).join("0.png")).unwrap(), width, height);
        encoder.set_color(png::ColorType::Rgb);
        let shade = if *class == "dark" { 10 } else { 235 };
        encoder.write_header().unwrap().write_image_data(&vec![shade; (3 * height * width) as usize]).unwrap();
    }
    format!("images:{}", text(dir))
}

#[test]
fn grey_data_is_measured_as_a_network_of_one_channel_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let looked = json(&["data", "digits:60", "--json"]);
    let config = &looked["preprocessor_config"];
    assert_eq!((config["image_mean"].as_array().unwrap().len(), config["image_std"].as_array().unwrap().len()), (1, 1));
    assert_eq!(config["image_processor_type"], "ViTImageProcessor");
    let file = dir.path().join("scale.json");
    fs::write(&file, config.to_string()).unwrap();
    let out = dir.path().join("run");
    let args = ["train", "--arch", "lenet5", "--data", "digits:60", "--preprocessor", text(&file), "--steps", "2"];
    done(&[&args[..], &["--out", text(&out), "-q"]].concat());
    let said = done(&["data", "digits:60"]).stderr;
    assert!(said.contains("--preprocessor"), "{said}");

    // Images of several sizes: a file says to which they are brought, and is written with what was measured.
    let data = folder(&dir.path().join("images"), [(6, 8), (9, 5)]);
    fails(&["data", &data], 4, &["wanted an image of 9x5 as the first one is, got 6x8", "--preprocessor"]);
    let size = dir.path().join("size.json");
    fs::write(&size, r#"{"size": {"height": 4, "width": 6}, "resample": 2, "image_mean": [9], "image_std": [9]}"#)
        .unwrap();
    let looked = json(&["data", &data, "--preprocessor", text(&size), "--json"]);
    let config = &looked["preprocessor_config"];
    assert_eq!((&looked["size"], &config["size"]["width"]), (&serde_json::json!([4, 6]), &6.into()));
    // (10 + 235) / 2 and (235 - 10) / 2 of 255.
    let third = |key: &str| config[key][2].as_f64().unwrap();
    assert!((third("image_mean") - 0.480_4).abs() <= 1e-4 && (third("image_std") - 0.441_2).abs() <= 1e-4, "{config}");
}

#[test]
fn what_does_not_fit_an_image_is_said_before_a_run_starts() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("no");
    let train = |arch: &str, data: &str| {
        let args = ["train", "--arch", arch, "--data", data, "--out", text(&out), "--steps", "1"];
        args.map(String::from)
    };
    let says = |arch: &str, data: &str, code, says: &[&str]| {
        fails(&train(arch, data).iter().map(String::as_str).collect::<Vec<_>>(), code, says);
    };
    says("lenet-300-100", "digits:20?augment=crop:28", 2, &["crop:28", "28x28", "at most crop:27"]);
    let cifar = format!("cifar10:{}", text(&cifar(dir.path())));
    let wanted = "wanted images of 1 channel (grey), as the network takes them, got 3";
    says("lenet5", &cifar, 4, &[wanted, "data_batch_1.bin: row 1", "num_channels"]);
    says("resnet21", &cifar, 2, &["resnet20, resnet32, resnet44, resnet56, vgg16, vgg16_bn", "lenet5"]);
    assert!(!out.exists());
    let edge = train("lenet-300-100", "digits:20?augment=crop:27");
    done(&[&edge.iter().map(String::as_str).collect::<Vec<_>>()[..], &["-q"]].concat());
}

#[test]
fn a_named_network_is_trained_from_scratch_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("cifar10:{}", text(&cifar(dir.path())));
    let out = dir.path().join("run");
    let args = ["train", "--arch", "resnet20", "--data", &data, "--image-size", "16", "--steps", "1", "--batch", "4"];
    done(&[&args[..], &["--eval-data", "none", "--out", text(&out), "-q"]].concat());
    let config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(out.join("model/config.json")).unwrap()).unwrap();
    assert_eq!(
        (&config["model_type"], &config["depth"], &config["image_size"]),
        (&"resnet_cifar".into(), &20.into(), &16.into())
    );
    let found = json(&["eval", "--model", text(&out.join("model")), "--data", &data, "--json"]);
    assert_eq!(found["examples"], 16);
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

/// The accuracy that PyTorch measures on the same 3,000 images.
#[test]
fn a_trained_resnet_classifies_as_pytorch_does() {
    let shared = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let (model, data) = (shared.join("models/resnet20-cifar10"), shared.join("data/cifar10"));
    if !model.is_dir() || !data.is_dir() {
        eprintln!("SKIPPED ResNet20 on CIFAR-10: there is no {} and {}", model.display(), data.display());
        return;
    }
    let spec = format!("cifar10:{}", data.display());
    let out = done(&["eval", "--model", text(&model), "--data", &spec, "--batch", "100", "--json"]).stdout;
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["examples"], 3000);
    let accuracy = found["metrics"]["accuracy"].as_f64().unwrap();
    assert!((accuracy - 0.9167).abs() <= 5e-4, "{accuracy}");
}
