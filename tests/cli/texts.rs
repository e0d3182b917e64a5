//! Tiny transformers on text, through every verb: a score, masked words, and a head made for new labels.
use super::support::{done, fails, goldens, tensors, text};
use std::fs;
use std::path::{Path, PathBuf};

const WORDS: [&str; 12] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e", "f", "g"];

/// A golden's model with a vocabulary of its own.
fn model(dir: &Path, case: &str) -> PathBuf {
    let to = dir.join(case);
    fs::create_dir(&to).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(goldens().join(case).join(file), to.join(file)).unwrap();
    }
    fs::write(to.join("vocab.txt"), WORDS.join("\n")).unwrap();
    to
}

/// Lines of words with what `label` gives for each.
fn table(path: &Path, label: impl Fn(usize) -> String) {
    let line = |i: usize| format!("{} {} {}\t{}\n", WORDS[5 + i % 7], WORDS[5 + i % 5], WORDS[5 + i % 3], label(i));
    fs::write(path, format!("text\tlabel\n{}", (0..40).map(line).collect::<String>())).unwrap();
}

fn json(args: &[&str]) -> serde_json::Value {
    let out = done(&[args, &["--json"]].concat()).stdout;
    serde_json::from_str(out.lines().last().expect("a line")).unwrap()
}

/// Sparsifies to half, evaluates and compares.
fn through(dir: &Path, model: &Path, data: &str, metric: &str) {
    let out = dir.join("run");
    let args = ["sparsify", "--model", text(model), "--data", data, "--eval-data", data, "--sparsity", "0.5"];
    let end = json(&[&args[..], &["--steps", "6", "--batch", "8", "--out", text(&out)]].concat());
    assert_eq!(end["status"], "done");
    let sparsity = end["sparsity_prunable"].as_f64().unwrap();
    assert!((sparsity - 0.5).abs() <= 1e-3, "{sparsity}");
    let sparse = out.join("model");
    let eval = json(&["eval", "--model", text(&sparse), "--data", data]);
    assert!(eval["metrics"][metric].as_f64().is_some_and(f64::is_finite), "{eval}");
    let drift = json(&["drift", text(model), text(&sparse), "--data", data]);
    assert!(drift["distances"]["euclidean"]["mean"].as_f64().unwrap() > 0.0, "{drift}");
    let (before, after) = (tensors(&model.join("model.safetensors")), tensors(&sparse.join("model.safetensors")));
    assert!(before.keys().eq(after.keys()), "the names stay");
    assert!(sparse.join("vocab.txt").is_file());
}

#[test]
fn a_network_that_gives_a_score_is_held_by_the_euclidean_distance() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path(), "bert_regression");
    let file = dir.path().join("scores.tsv");
    table(&file, |i| format!("{}.5", i % 5));
    through(dir.path(), &model, &format!("text:{}?task=regression", file.display()), "spearman");
}

#[test]
fn a_masked_language_model_needs_no_labels() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path(), "bert_masked_lm");
    let file = dir.path().join("words.txt");
    fs::write(&file, "a b c d e\nf g a b\nc c c d e f\n".repeat(12)).unwrap();
    through(dir.path(), &model, &format!("lm:{}", file.display()), "perplexity");
}

#[test]
fn training_makes_a_head_for_new_labels() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path(), "bert_masked_lm");
    let file = dir.path().join("classes.tsv");
    table(&file, |i| ["bad", "good", "odd"][i % 3].to_string());
    let (data, out) = (format!("text:{}", file.display()), dir.path().join("tuned"));
    let train =
        ["train", "--model", text(&model), "--data", &data, "--steps", "5", "--batch", "8", "--out", text(&out)];
    assert_eq!(json(&train)["status"], "done");
    let tuned = out.join("model");
    let stored = tensors(&tuned.join("model.safetensors"));
    assert_eq!(stored["classifier.weight"].0[0], 3);
    assert!(!stored.keys().any(|name| name.starts_with("cls.")), "the former head is gone");
    let config: serde_json::Value = serde_json::from_slice(&fs::read(tuned.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"][0], "BertForSequenceClassification");
    assert_eq!(config["id2label"]["2"], "odd");
    through(&out, &tuned, &data, "accuracy");
    // The model as it was has no classes to measure.
    fails(&["eval", "--model", text(&model), "--data", &data], 4, &["hint"]);
}
