//! project, forward, jvp and vjp against values from elsewhere: PyTorch's goldens, and a sort.
use super::support::{done, fails, goldens, tensors, text};
use safetensors::tensor::TensorView;
use std::path::Path;

/// The largest error, as a share of the largest of `want`, or of `floor` if that is larger.
fn error(got: &[f64], want: &[f64], floor: f64) -> f64 {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(floor, |m, x| m.max(x.abs()));
    // A NaN must not get lost in a maximum.
    got.iter().zip(want).map(|(g, w)| (g - w).abs() / scale).fold(0.0, |m, e| if e <= m { m } else { e })
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |m, x| m.max(x.abs()))
}

const CASES: [&str; 16] = [
    "mlp",
    "bert_classify_gelu",
    "bert_classify_gelu_new",
    "bert_regression",
    "bert_masked_lm",
    "distilbert_classify",
    "vit",
    "vit_interpolated",
    "deit",
    "deit_with_teacher",
    "resnet_basic",
    "resnet_bottleneck",
    "resnet_cifar",
    "vgg",
    "vgg_bn",
    "lenet5",
];

#[test]
fn logits_directions_and_gradients_are_pytorchs() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    for case in CASES {
        let at = goldens().join(case);
        let expected = tensors(&at.join("expected.safetensors"));
        let run = |verb: &str, more: &[&str]| {
            let inputs = at.join("inputs.safetensors");
            let args = [verb, "--model", text(&at), "--inputs", text(&inputs), "--output", text(&out)];
            done(&[&args[..], more].concat());
            tensors(&out)
        };
        let logits = &expected["logits"];
        let got = run("forward", &[]);
        assert_eq!(got["logits"].0, logits.0, "{case}");
        let e = error(&got["logits"].1, &logits.1, 0.0);
        assert!(e <= 2e-5, "{case}: logits off by {e}");

        let got = run("jvp", &["--tangents", text(&at.join("tangents.safetensors"))]);
        let e = error(&got["logits"].1, &logits.1, 0.0);
        assert!(e <= 2e-5, "{case}: logits of the jvp off by {e}");
        let e = error(&got["tangent.logits"].1, &expected["tangent.logits"].1, 0.0);
        assert!(e <= 1e-4, "{case}: J v off by {e}");

        let got = run("vjp", &["--cotangents", text(&at.join("cotangents.safetensors"))]);
        let gradients: Vec<_> = expected.iter().filter_map(|(n, t)| Some((n.strip_prefix("grad.")?, t))).collect();
        assert_eq!(got.len(), gradients.len(), "{case}: {:?}", got.keys());
        // Some gradients are zero on paper (a key's bias), and in float64: theirs is the rounding of terms that cancel, each
        // as large as the others' gradients. Of one such term it is 6e-8 of it, at another width of vectors another one.
        let whole = gradients.iter().map(|(_, t)| largest(&t.1)).fold(0.0, f64::max);
        for (name, (shape, want)) in gradients {
            assert_eq!(&got[name].0, shape, "{case}: {name}");
            let least = if largest(want) <= 1e-9 * whole { 1e-2 } else { 1e-3 };
            let e = error(&got[name].1, want, least * whole);
            assert!(e <= 1e-4, "{case}: gradient of {name} off by {e}");
        }
    }
}

/// As stored: name, element type, shape, bytes.
type Raw<'a> = (&'a str, safetensors::Dtype, Vec<usize>, Vec<u8>);

fn write(path: &Path, tensors: &[Raw]) {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn ids(name: &'static str, shape: [usize; 2], values: &[i32]) -> Raw<'static> {
    (name, safetensors::Dtype::I32, shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

#[test]
fn missing_masks_are_ones_missing_types_zeros_and_rows_stand_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (x, y) = (dir.path().join("x.safetensors"), dir.path().join("y.safetensors"));
    let model = goldens().join("bert_classify_gelu");
    let forward = |tensors_of: &[Raw]| {
        write(&x, tensors_of);
        done(&["forward", "--model", text(&model), "--inputs", text(&x), "--output", text(&y)]);
        tensors(&y)["logits"].1.clone()
    };
    let rows = 2000; // more than one block
    let tokens: Vec<i32> = (0..rows * 5).map(|i| 1 + (i % 3)).collect();
    let shape = [rows as usize, 5];
    let bare = forward(&[ids("input_ids", shape, &tokens)]);
    let full = forward(&[
        ids("input_ids", shape, &tokens),
        ids("attention_mask", shape, &vec![1; tokens.len()]),
        ids("token_type_ids", shape, &vec![0; tokens.len()]),
    ]);
    assert_eq!(bare, full);
    // The tokens repeat every 3 rows (15 tokens), within a block and across them.
    for row in 0..rows as usize - 3 {
        assert_eq!(bare[row * 3..row * 3 + 3], bare[(row + 3) * 3..(row + 3) * 3 + 3], "row {row}");
    }
}

#[test]
fn wrong_inputs_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (x, y) = (dir.path().join("x.safetensors"), dir.path().join("y.safetensors"));
    let model = goldens().join("bert_classify_gelu");
    let cases: [(&[Raw], &[&str]); 5] = [
        (&[ids("ids", [1, 2], &[1, 2])], &["input_ids", "ids"]),
        (&[ids("input_ids", [1, 2], &[1, 1_000_000])], &["input_ids", "1000000"]),
        (&[ids("input_ids", [1, 2], &[-1, 1])], &["input_ids", "-1"]),
        (&[ids("input_ids", [1, 40], &[1; 40])], &["40 tokens", "19 positions"]),
        (&[ids("input_ids", [1, 2], &[1, 2]), ids("attention_mask", [1, 3], &[1; 3])], &["attention_mask", "[1, 2]"]),
    ];
    for (tensors_of, says) in cases {
        write(&x, tensors_of);
        fails(&["forward", "--model", text(&model), "--inputs", text(&x), "--output", text(&y)], 4, says);
        assert!(!y.exists());
    }
    write(&x, &[ids("input_ids", [1, 2], &[1, 2])]);
    let v = dir.path().join("v.safetensors");
    write(&v, &[("nope", safetensors::Dtype::F32, vec![1], vec![0; 4])]);
    let args = ["jvp", "--model", text(&model), "--inputs", text(&x), "--output", text(&y), "--tangents", text(&v)];
    fails(&args, 4, &["'nope'", "no such parameter"]);
    let args = ["vjp", "--model", text(&model), "--inputs", text(&x), "--output", text(&y), "--cotangents", text(&v)];
    fails(&args, 4, &["logits"]);
}

#[test]
fn projection_zeroes_exactly_the_smallest() {
    let dir = tempfile::tempdir().unwrap();
    let model = goldens().join("mlp");
    let before = tensors(&model.join("model.safetensors"));
    for (nth, share) in [0.5, 0.9].into_iter().enumerate() {
        let out = dir.path().join(format!("out{nth}"));
        let ran = done(&[
            "project",
            "--model",
            text(&model),
            "--sparsity",
            &share.to_string(),
            "--out",
            text(&out),
            "--json",
        ]);
        let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();

        let mut body: Vec<(&str, usize, f64)> = Vec::new();
        for name in ["fc1.weight", "fc2.weight"] {
            body.extend(before[name].1.iter().enumerate().map(|(i, x)| (name, i, x.abs())));
        }
        let k = (share * body.len() as f64).round() as usize;
        body.sort_by(|a, b| a.2.total_cmp(&b.2)); // stable: ties by index
        let mut want = before.clone();
        for (name, i, _) in &body[..k] {
            want.get_mut(*name).unwrap().1[*i] = 0.0;
        }
        let after = tensors(&out.join("model.safetensors"));
        assert_eq!(after, want);
        assert_eq!(said["pruned"], k);
        assert_eq!(said["prunable"], body.len());
        // It loads back, and projecting it again changes nothing.
        let again = dir.path().join(format!("again{nth}"));
        done(&["project", "--model", text(&out), "--sparsity", &share.to_string(), "--out", text(&again)]);
        assert_eq!(tensors(&again.join("model.safetensors")), after);
    }
    let two = dir.path().join("two");
    done(&["project", "--model", text(&model), "--scope", "2:4", "--include", "fc1.weight", "--out", text(&two)]);
    let after = tensors(&two.join("model.safetensors"));
    assert!(after["fc1.weight"].1.chunks(4).all(|c| c.iter().filter(|x| **x == 0.0).count() == 2));
}

/// A row of a convolution is a filter: each loses as many weights, its own smallest.
#[test]
fn the_scope_of_rows_takes_the_smallest_of_every_filter() {
    let dir = tempfile::tempdir().unwrap();
    for case in ["resnet_bottleneck", "vgg", "lenet5"] {
        let (model, out) = (goldens().join(case), dir.path().join(case));
        let before = tensors(&model.join("model.safetensors"));
        done(&["project", "--model", text(&model), "--scope", "row", "--sparsity", "0.7", "--out", text(&out)]);
        let after = tensors(&out.join("model.safetensors"));
        let mut filters = 0;
        for (name, (shape, values)) in before.iter().filter(|(_, (shape, _))| shape.len() == 4) {
            let each = shape[1..].iter().product::<usize>();
            let k = (0.7 * each as f64).round() as usize;
            for (nth, (filter, left)) in values.chunks(each).zip(after[name].1.chunks(each)).enumerate() {
                let mut order: Vec<usize> = (0..each).collect();
                order.sort_by(|&a, &b| filter[a].abs().total_cmp(&filter[b].abs())); // stable: ties by index
                let mut want = filter.to_vec();
                order[..k].iter().for_each(|&i| want[i] = 0.0);
                assert_eq!(left, want, "{case}: filter {nth} of {name}");
                filters += 1;
            }
        }
        assert!(filters > 10, "{case}: {filters}");
    }
}

#[test]
fn a_dry_run_lists_roles_and_trains_nothing() {
    let model = goldens().join("bert_classify_gelu");
    let args =
        ["sparsify", "--model", text(&model), "--dry-run", "--freeze", "bert.embeddings.*", "--exclude", "*.layer.0.*"];
    let value: serde_json::Value = serde_json::from_str(&done(&[&args[..], &["--json"]].concat()).stdout).unwrap();
    let role = |name: &str| {
        let all = value["parameters"].as_array().unwrap();
        all.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("{name}"))["role"].as_str().unwrap().to_string()
    };
    assert_eq!(role("bert.embeddings.word_embeddings.weight"), "frozen");
    assert_eq!(role("bert.encoder.layer.0.output.dense.weight"), "trained");
    assert_eq!(role("bert.encoder.layer.1.output.dense.weight"), "prunable");
    assert_eq!((role("classifier.weight"), role("bert.pooler.dense.weight")), ("trained".into(), "trained".into()));
    let stored: usize = tensors(&model.join("model.safetensors")).values().map(|t| t.1.len()).sum();
    assert_eq!(value["totals"]["all"], stored);
    let human = done(&args).stdout;
    assert!(human.contains("classifier.weight") && human.contains("prunable"), "{human}");
}
