//! A model whose images have another size, and one that gets another head: through the verbs.
use super::images::{cifar, json};
use super::support::{done, fails, goldens, tensors, text, tiny};
use std::fs;
use std::path::Path;

fn read(path: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Steps so small that no weight of these sizes changes in f32.
const STILL: [&str; 6] = ["--lr", "1e-30", "--steps", "2", "--batch", "4"];

#[test]
fn a_vision_transformer_is_trained_and_measured_at_another_size() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("cifar10:{}?classes=0-2", text(&cifar(dir.path())));
    let golden = goldens().join("vit_interpolated");
    let out = dir.path().join("run");
    let args = ["train", "--model", text(&golden), "--data", &data, "--image-size", "12x20", "-q", "--out", text(&out)];
    done(&[&args[..], &STILL].concat());
    let model = out.join("model");
    assert_eq!(read(&model.join("config.json"))["image_size"], serde_json::json!([12, 20]));
    let size = serde_json::json!({ "height": 12, "width": 20 });
    assert_eq!(read(&model.join("preprocessor_config.json"))["size"], size);
    assert!(fs::read_to_string(out.join("config.toml")).unwrap().contains("image_size = \"12x20\""));
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("12x20"));

    // Its stored positions are those that `transformers` interpolates to, so its logits are the same.
    let y = dir.path().join("y.safetensors");
    let x = golden.join("inputs.safetensors");
    done(&["forward", "--model", text(&model), "--inputs", text(&x), "--output", text(&y)]);
    let (got, want) = (&tensors(&y)["logits"], &tensors(&golden.join("expected.safetensors"))["logits"]);
    assert_eq!(
        (&got.0, tensors(&model.join("model.safetensors"))["vit.embeddings.position_embeddings"].0[1]),
        (&want.0, 16)
    );
    let scale = want.1.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert!(got.1.iter().zip(&want.1).all(|(g, w)| (g - w).abs() <= 2e-5 * scale), "{got:?} {want:?}");

    // What was interpolated when it was loaded is what is stored.
    let drift = |more: &[&str]| {
        let args = ["drift", text(&golden), text(&model), "--data", &data, "--json", "--image-size", "12x20"];
        json(&[&args[..], more].concat())["distances"]["kl"]["max"].as_f64().unwrap()
    };
    assert!(drift(&[]) <= 1e-12, "{}", drift(&[]));
    let eval = |model: &Path, more: &[&str]| {
        json(&[&["eval", "--model", text(model), "--data", &data, "--json"], more].concat())["metrics"]["loss"].clone()
    };
    assert_eq!(eval(&golden, &["--image-size", "12x20"]), eval(&model, &[]));
    assert_ne!(eval(&model, &["--image-size", "24"]), eval(&model, &[]));
    let listed = json(&["sparsify", "--model", text(&golden), "--image-size", "24", "--dry-run", "--json"]);
    let shape = serde_json::json!([1, 37, 16]);
    assert!(listed["parameters"].as_array().unwrap().iter().any(|p| p["shape"] == shape), "{listed}");

    let eval = |model: &Path, size: &str, code, says: &[&str]| {
        fails(&["eval", "--model", text(model), "--data", &data, "--image-size", size], code, says)
    };
    eval(&tiny(dir.path()), "32", 2, &["--image-size", "mlp", "pixels in a row"]);
    eval(&goldens().join("bert_regression"), "32", 2, &["--image-size", "reads text"]);
    eval(&golden, "2", 4, &["patch_size", "(2, 2)"]);
}

#[test]
fn a_classifier_gets_a_new_head_for_other_classes() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("cifar10:{}", text(&cifar(dir.path())));
    let golden = goldens().join("vit");
    let run = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let args = ["train", "--data", &data, "--out", text(&out)];
        (done(&[&args[..], &STILL, more].concat()).stderr, out)
    };
    let model = ["--model", text(&golden), "--image-size", "9x14"];
    let no = dir.path().join("no");
    let train = [&["train", "--data", &data, "--out", text(&no)][..], &STILL, &model].concat();
    fails(&train, 4, &["the data has 10 classes, the model 3 outputs", "fipk train --new-head"]);

    let (said, out) = run("new", &[&model[..], &["--new-head", "--seed", "5"]].concat());
    assert!(said.contains("10 classes (classifier), drawn with seed 5; the model had 3 classes"), "{said}");
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("drawn with seed 5"));
    let (got, before) = (tensors(&out.join("model/model.safetensors")), tensors(&golden.join("model.safetensors")));
    assert_eq!(got.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (name, (shape, values)) in &got {
        match name.strip_prefix("classifier.") {
            None => assert_eq!((shape, values), (&before[name].0, &before[name].1), "{name}"),
            Some("bias") => assert!(values.len() == 10 && values.iter().all(|b| b.abs() <= 1e-20), "{values:?}"),
            Some(_) => {
                // Normal numbers of initializer_range, 0.02: 200 of them.
                let std = (values.iter().map(|w| w * w).sum::<f64>() / values.len() as f64).sqrt();
                assert!(shape == &[10, 20] && (std - 0.02).abs() <= 0.004, "{shape:?} {std}");
            }
        }
    }
    let config = read(&out.join("model/config.json"));
    assert_eq!((&config["id2label"]["1"], config["id2label"].as_object().unwrap().len()), (&"automobile".into(), 10));
    let weights = |out: &Path| fs::read(out.join("model/model.safetensors")).unwrap();
    // From its configuration, the same run; with another seed, another head.
    let config = out.join("config.toml");
    let (_, again) = run("again", &["--config", text(&config), "-q"]);
    assert!(weights(&again) == weights(&out));
    let (_, other) = run("other", &["--config", text(&config), "--seed", "6", "-q"]);
    assert!(weights(&other) != weights(&out));
    // The new head stays when the model goes on: a configuration's `new_head` is for the run that made it.
    let sparse = dir.path().join("sparse");
    let model = out.join("model");
    let args = ["sparsify", "--config", text(&config), "--model", text(&model), "--sparsity", "0.5", "-q"];
    done(&[&args[..], &["--method", "one-shot", "--out", text(&sparse)]].concat());
    assert_eq!(tensors(&sparse.join("model/model.safetensors"))["classifier.weight"], got["classifier.weight"]);
}

#[test]
fn a_head_for_scores_is_no_head_for_classes() {
    let dir = tempfile::tempdir().unwrap();
    let (golden, out) = (goldens().join("bert_regression"), dir.path().join("out"));
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden.join(file), model.join(file)).unwrap();
    }
    let vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"].join("\n");
    fs::write(model.join("vocab.txt"), vocab).unwrap();
    let table = dir.path().join("t.tsv");
    fs::write(&table, "text\tlabel\na b\tyes\nb a\tno\nb b\tmaybe\n").unwrap();
    let data = format!("text:{}?text=text&label=label", text(&table));
    let args = [&["train", "--model", text(&model), "--data", &data, "--out", text(&out), "-q"][..], &STILL].concat();
    fails(&args, 2, &["wanted a head for classes, as the data has, got one for one score", "--new-head"]);
    done(&[&args[..], &["--new-head"]].concat());
    assert_eq!(tensors(&out.join("model/model.safetensors"))["classifier.weight"].0[0], 3);
    let (lm, words) = (goldens().join("bert_masked_lm"), dir.path().join("w.txt"));
    fs::write(&words, "a b\nb a\n").unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(lm.join(file), model.join(file)).unwrap();
    }
    let args = ["train", "--model", text(&model), "--data", &format!("lm:{}", text(&words)), "--new-head"];
    fails(&[&args[..], &["--out", text(&dir.path().join("lm"))]].concat(), 2, &["--new-head", "an output a word"]);
}
