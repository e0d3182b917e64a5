//! Model folders: configs read as Hugging Face means them, parameters found by name, folders that load in `transformers`.
use fipk::models::Network;
use fipk::models::config::{Config, ProblemType, RawConfig};
use fipk::models::folder::{self, ModelFolder};
use fipk::models::head::Head;
use fipk::ops::Activation;
use fipk::params::Layout;
use fipk::params::atomic::Folder;
use fipk::params::save::Precision;
use fipk::params::weights::{Dtype, INDEX_FILE, SINGLE_FILE};
use fipk::tensor::View;
use fipk::{Error, Result};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn parse(config: Value) -> Result<Config> {
    Config::parse("config.json", config.to_string().as_bytes()).map(|(config, _)| config)
}

fn with(base: &Value, key: &str, value: Value) -> Value {
    let mut config = base.clone();
    config[key] = value;
    config
}

fn shared(name: &str) -> Option<PathBuf> {
    let shared =
        std::env::var_os("FIPK_SHARED").map_or(Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let dir = shared.join("models").join(name);
    if !dir.exists() {
        eprintln!("skipped: {} is not here", dir.display());
        return None;
    }
    Some(dir)
}

#[test]
fn absent_keys_mean_what_transformers_says() {
    let Config::Bert(bert) = parse(json!({"model_type": "bert"})).unwrap() else { panic!() };
    assert_eq!((bert.vocab_size, bert.hidden_size, bert.num_hidden_layers), (30522, 768, 12));
    assert_eq!((bert.num_attention_heads, bert.intermediate_size, bert.type_vocab_size), (12, 3072, 2));
    assert_eq!((bert.max_position_embeddings, bert.layer_norm_eps, bert.initializer_range), (512, 1e-12, 0.02));
    assert_eq!((bert.hidden_act, bert.pad_token_id, bert.tie_word_embeddings), (Activation::GeluErf, Some(0), true));
    assert_eq!(
        (bert.hidden_dropout_prob, bert.attention_probs_dropout_prob, bert.classifier_dropout),
        (0.1, 0.1, None)
    );
    assert_eq!(bert.task.labels, ["LABEL_0", "LABEL_1"]);

    let Config::DistilBert(d) = parse(json!({"model_type": "distilbert"})).unwrap() else { panic!() };
    assert_eq!((d.vocab_size, d.dim, d.n_layers, d.n_heads, d.hidden_dim), (30522, 768, 6, 12, 3072));
    assert_eq!((d.max_position_embeddings, d.dropout, d.seq_classif_dropout), (512, 0.1, 0.2));
    let alias =
        json!({"model_type": "distilbert", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3});
    let Config::DistilBert(d) = parse(alias).unwrap() else { panic!() };
    assert_eq!((d.dim, d.n_layers, d.n_heads), (24, 2, 3));

    let mlp = json!({"model_type": "mlp", "sizes": [4, 3, 5], "layers": ["a", "b"]});
    let Config::Mlp(mlp) = parse(mlp).unwrap() else { panic!() };
    assert_eq!((mlp.sizes, mlp.hidden_act, mlp.task.labels.len()), (vec![4, 3, 5], Activation::Relu, 5));
}

#[test]
fn real_configs_parse() {
    if let Some(dir) = shared("minilm-l6-v2") {
        let folder = ModelFolder::open(dir.to_str().unwrap()).unwrap();
        let Config::Bert(bert) = &folder.config else { panic!() };
        assert_eq!((bert.hidden_size, bert.num_hidden_layers, bert.intermediate_size), (384, 6, 1536));
        assert_eq!(folder.head(None).unwrap(), Head::None);
        assert_eq!(folder.head(Some(Head::MaskedLm)).unwrap(), Head::MaskedLm);
        let query = "encoder.layer.0.attention.self.query.weight";
        assert_eq!(folder.resolve(&format!("bert.{query}")).as_deref(), Some(query));
        assert_eq!(folder.resolve(query).as_deref(), Some(query));
        assert_eq!(
            folder.resolve("cls.predictions.decoder.weight").as_deref(),
            Some("embeddings.word_embeddings.weight")
        );
        assert_eq!(folder.resolve("classifier.weight"), None);
    }
    if let Some(dir) = shared("lenet-300-100-mnist") {
        let folder = ModelFolder::open_dir(&dir).unwrap();
        let Config::Mlp(mlp) = &folder.config else { panic!() };
        assert_eq!((&mlp.sizes[..], mlp.layers[0].as_str()), (&[784, 300, 100, 10][..], "fc1"));
        assert_eq!(folder.head(None).unwrap(), Head::Classification { labels: 10 });
        assert_eq!(folder.resolve("fc2.bias").as_deref(), Some("fc2.bias"));
    }
}

#[test]
fn a_wrong_config_names_its_key() {
    let bert = json!({"model_type": "bert", "hidden_size": 12, "num_attention_heads": 3});
    let distil = json!({"model_type": "distilbert", "dim": 12, "n_heads": 3});
    let mlp = json!({"model_type": "mlp", "sizes": [4, 3], "layers": ["a"], "num_labels": 3});
    for good in [&bert, &distil, &mlp] {
        parse(good.clone()).unwrap();
    }
    for (config, words) in [
        (json!({"model_type": "resnet_cifar"}), &["depth", "got nothing"][..]),
        (json!({"model_type": "resnet_cifar", "depth": 21}), &["depth", "6 n + 2", "21"]),
        (json!({"model_type": "resnet_cifar", "depth": 20, "shortcut": "C"}), &["shortcut", "A, B", "C"]),
        (json!({"model_type": "resnet", "depths": [2, 2], "hidden_sizes": [8]}), &["depths", "2 and 1"]),
        (json!({"model_type": "resnet", "depths": [1], "hidden_sizes": [6]}), &["hidden_sizes", "multiples of 4", "6"]),
        (json!({"model_type": "vgg", "depth": 15}), &["depth", "11, 13, 16 or 19"]),
        (json!({"model_type": "vgg", "features": ["M"]}), &["features", "at least one convolution"]),
        (json!({"model_type": "vgg", "hidden": [], "classifier": ["a", "b"]}), &["classifier", "2 and 0"]),
        (json!({"model_type": "vgg", "hidden": [8], "classifier": ["a", 3]}), &["classifier", "names", "got 3"]),
        (json!({"model_type": "vgg", "hidden": [8], "classifier": ["a", "a"]}), &["classifier", "distinct"]),
        (json!({"model_type": "lenet5", "image_size": 8}), &["image_size", "16 pixels"]),
        (json!({}), &["model_type", "bert, distilbert, vit, deit, resnet, resnet_cifar, vgg, lenet5, mlp"][..]),
        (with(&bert, "model_type", json!(7)), &["model_type", "7"]),
        (with(&bert, "num_attention_heads", json!(5)), &["hidden_size", "multiple", "12 and 5"]),
        (with(&distil, "n_heads", json!(5)), &["dim", "multiple"]),
        (with(&bert, "hidden_size", json!(0)), &["hidden_size", "from 1", "got 0"]),
        (with(&bert, "hidden_size", json!(-8)), &["hidden_size", "got -8"]),
        (with(&bert, "hidden_size", json!(12.5)), &["hidden_size", "12.5"]),
        (with(&bert, "hidden_size", json!("12")), &["hidden_size", "\"12\""]),
        (with(&bert, "vocab_size", json!(1u64 << 60)), &["vocab_size"]),
        (with(&bert, "num_hidden_layers", json!(1_000_000)), &["num_hidden_layers"]),
        (with(&distil, "n_layers", json!(1_000_000)), &["n_layers"]),
        (with(&bert, "layer_norm_eps", json!("tiny")), &["layer_norm_eps"]),
        (with(&bert, "layer_norm_eps", json!(-1.0)), &["layer_norm_eps"]),
        (with(&bert, "pad_token_id", json!(30522)), &["pad_token_id", "30522"]),
        (with(&bert, "architectures", json!("BertModel")), &["architectures"]),
        (with(&bert, "problem_type", json!("guessing")), &["problem_type", "guessing"]),
        (with(&bert, "id2label", json!({"0": "a", "2": "b"})), &["id2label", "0 to 1"]),
        (
            with(&with(&bert, "id2label", json!({"0": "a"})), "num_labels", json!(2)),
            &["num_labels is 2", "id2label has 1"],
        ),
        (with(&mlp, "sizes", json!([4, 3, 2])), &["3 sizes", "1 layers"]),
        (with(&mlp, "sizes", json!([])), &["0 sizes"]),
        (with(&mlp, "sizes", json!([4, 0])), &["sizes", "got 0"]),
        (with(&mlp, "sizes", Value::Null), &["sizes", "found none"]),
        (with(&mlp, "layers", json!([1])), &["layers", "got 1"]),
        (json!({"model_type": "mlp", "sizes": [1, 1, 1], "layers": ["a", "a"]}), &["layers", "distinct"]),
        (with(&mlp, "num_labels", json!(4)), &["num_labels", "3", "4"]),
    ] {
        let error = parse(config.clone()).expect_err(&config.to_string());
        assert!(matches!(error, Error::Model { .. }), "{config}: {error}");
        let text = error.to_string();
        assert!(
            !text.contains('\n') && words.iter().all(|w| text.contains(w)),
            "{config}: wanted {words:?} in: {text}"
        );
    }
    for text in ["", "[]", "{\"layer_norm_eps\": NaN}", "{\"model_type\": \"bert\""] {
        let error = Config::parse("x/config.json", text.as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Model { .. }) && error.to_string().contains("x/config.json"), "{error}");
    }
}

#[test]
fn what_is_not_computed_exactly_is_refused_by_name() {
    let bert = json!({"model_type": "bert"});
    for (key, value) in [
        ("model_type", json!("gpt2")),
        ("model_type", json!("mobilenet_v2")),
        ("position_embedding_type", json!("relative_key_query")),
        ("is_decoder", json!(true)),
        ("add_cross_attention", json!(true)),
        ("pruned_heads", json!({"0": [1]})),
        ("hidden_act", json!("silu")),
        ("quantization_config", json!({"bits": 4})),
        ("auto_map", json!({"AutoModel": "modeling.Mine"})),
    ] {
        let error = parse(with(&bert, key, value.clone())).expect_err(key);
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(key) && error.to_string().contains("not supported"), "{error}");
    }
    for (key, value) in [
        ("position_embedding_type", json!("absolute")),
        ("is_decoder", json!(false)),
        ("pruned_heads", json!({})),
        ("chunk_size_feed_forward", json!(16)),
        ("hidden_act", json!("gelu_new")),
        ("pad_token_id", Value::Null),
        ("something_new", json!([1])),
    ] {
        parse(with(&bert, key, value)).unwrap();
    }
}

#[test]
fn the_head_follows_from_the_architecture_or_the_wish() {
    let bert = |class: &str, key: &str, value: Value| {
        parse(with(&json!({"model_type": "bert", "architectures": [class]}), key, value))
            .unwrap()
            .head("config.json", None)
    };
    let class = "BertForSequenceClassification";
    let three = json!({"0": "a", "1": "b", "2": "c"});
    assert_eq!(bert(class, "x", json!(0)).unwrap(), Head::Classification { labels: 2 });
    assert_eq!(bert(class, "id2label", three).unwrap(), Head::Classification { labels: 3 });
    assert_eq!(bert(class, "num_labels", json!(1)).unwrap(), Head::Regression);
    assert_eq!(bert("BertForMaskedLM", "x", json!(0)).unwrap(), Head::MaskedLm);
    assert_eq!(bert("BertModel", "x", json!(0)).unwrap(), Head::None);
    for (class, key, value) in [
        ("BertForTokenClassification", "x", json!(0)),
        (class, "problem_type", json!("multi_label_classification")),
        (class, "problem_type", json!("regression")),
    ] {
        assert!(matches!(bert(class, key, value), Err(Error::Unsupported { .. })));
    }
    let token = parse(json!({"model_type": "bert", "architectures": ["BertForTokenClassification"]})).unwrap();
    assert_eq!(token.head("c", Some(Head::Classification { labels: 4 })).unwrap(), Head::Classification { labels: 4 });
    assert!(token.head("c", Some(Head::Classification { labels: 1 })).is_err());
    let distil = parse(json!({"model_type": "distilbert"})).unwrap();
    assert_eq!(distil.head("c", None).unwrap(), Head::None);
    assert!(matches!(distil.head("c", Some(Head::MaskedLm)), Err(Error::Unsupported { .. })));
}

#[test]
fn a_head_is_described_as_transformers_writes_it() {
    let raw: RawConfig =
        serde_json::from_str(r#"{"zeta": 1, "architectures": ["BertModel"], "model_type": "bert"}"#).unwrap();
    let config = Config::from_raw("c", &raw).unwrap();
    let labels = ["neg".to_string(), "pos".to_string()];
    let new = Head::Classification { labels: 3 }.describe(&config, &raw, &labels);
    let wanted = json!({"zeta": 1, "architectures": ["BertForSequenceClassification"], "model_type": "bert",
        "id2label": {"0": "neg", "1": "pos", "2": "LABEL_2"}, "label2id": {"neg": 0, "pos": 1, "LABEL_2": 2},
        "problem_type": "single_label_classification"});
    assert_eq!(Value::Object(new.clone()).to_string(), wanted.to_string(), "in this order");
    let again = Config::from_raw("c", &new).unwrap();
    assert_eq!(again.head("c", None).unwrap(), Head::Classification { labels: 3 });
    assert_eq!(again.task().problem_type, Some(ProblemType::SingleLabel));
    let number = Config::from_raw("c", &Head::Regression.describe(&config, &raw, &[])).unwrap();
    assert_eq!(number.head("c", None).unwrap(), Head::Regression);

    let raw: RawConfig =
        serde_json::from_str(r#"{"model_type": "mlp", "sizes": [4, 3, 5], "layers": ["a", "b"]}"#).unwrap();
    let new = Head::Classification { labels: 7 }.describe(&Config::from_raw("c", &raw).unwrap(), &raw, &[]);
    assert_eq!((&new["sizes"], &new["num_labels"]), (&json!([4, 3, 7]), &json!(7)));
    Config::from_raw("c", &new).unwrap();
}

/// A folder of the given tensors (all f16, three numbers each) and config.
fn model(dir: &Path, config: &str, names: &[&str]) -> ModelFolder {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("config.json"), config).unwrap();
    let bytes = [0x00, 0x3C, 0x00, 0x40, 0x00, 0x42];
    let views = names.iter().map(|n| (n.to_string(), TensorView::new(Dtype::F16, vec![3], &bytes).unwrap()));
    fs::write(dir.join(SINGLE_FILE), safetensors::serialize(views, None).unwrap()).unwrap();
    ModelFolder::open_dir(dir).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let file = fs::read(dir.join(SINGLE_FILE)).unwrap();
    let mut names: Vec<_> =
        safetensors::SafeTensors::deserialize(&file).unwrap().names().into_iter().map(String::from).collect();
    names.sort();
    names
}

const NUMBERS: View = View { data: &[5.0, 6.0, 7.0], shape: &[3] };

#[test]
fn everything_unknown_goes_along() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"zeta": 1.50, "model_type":"bert","architectures":["BertForMaskedLM"],"torch_dtype":"float16","mine":{"b":[1],"a":null}}"#;
    let tensors =
        ["bert.embeddings.word_embeddings.weight", "bert.embeddings.position_ids", "cls.predictions.bias", "adapter.x"];
    let source = model(&dir.path().join("in"), config, &tensors);
    for (file, text) in [("vocab.txt", "[PAD]\n"), ("tokenizer.json", "{ }"), ("README.md", "not carried")] {
        fs::write(source.dir.join(file), text).unwrap();
    }
    let word = "bert.embeddings.word_embeddings.weight";
    // With the duplicate or without it: this source does not store it.
    let both = [(word, NUMBERS), ("cls.predictions.decoder.weight", NUMBERS)];
    for (out, tensors, precision) in [("keep", &both[..1], Precision::Keep), ("full", &both[..], Precision::F32)] {
        let out = Folder::create(&dir.path().join(out), false).unwrap();
        source.write(&out, tensors, &source.raw, precision, 0).unwrap();
        let out = out.commit().unwrap();
        let mut files: Vec<_> =
            fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, ["config.json", SINGLE_FILE, "tokenizer.json", "vocab.txt"]);
        let written = ModelFolder::open_dir(&out).unwrap();
        let mut numbers = [0.0; 3];
        written.weights.read(word, &[3], &mut numbers).unwrap();
        assert_eq!(numbers, [5.0, 6.0, 7.0]);
        assert_eq!(written.weights.names().len(), tensors_of(&source), "no more and no fewer");
        for kept in ["bert.embeddings.position_ids", "cls.predictions.bias", "adapter.x"] {
            assert_eq!(written.weights.bytes(kept), source.weights.bytes(kept), "{kept}");
        }
        let text = fs::read_to_string(out.join("config.json")).unwrap();
        match precision {
            Precision::Keep => assert_eq!(text, config, "nothing changed, so not a byte did"),
            Precision::F32 => {
                let raw: RawConfig = serde_json::from_str(&text).unwrap();
                assert_eq!(raw["torch_dtype"], "float32");
                let keys = |raw: &RawConfig| raw.keys().cloned().collect::<Vec<_>>();
                assert_eq!((keys(&raw), &raw["mine"]), (keys(&source.raw), &source.raw["mine"]));
            }
        }
    }

    fn tensors_of(folder: &ModelFolder) -> usize {
        folder.weights.names().len()
    }
}

#[test]
fn a_tied_duplicate_that_is_stored_follows_its_original() {
    let dir = tempfile::tempdir().unwrap();
    let (word, copy) = ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight");
    let source =
        model(&dir.path().join("in"), r#"{"model_type":"bert","architectures":["BertForMaskedLM"]}"#, &[word, copy]);
    let out = Folder::create(&dir.path().join("out"), false).unwrap();
    source.write(&out, &[(word, NUMBERS)], &source.raw, Precision::Keep, 0).unwrap();
    let written = ModelFolder::open_dir(&out.commit().unwrap()).unwrap();
    let five_six_seven = [0x00, 0x45, 0x00, 0x46, 0x00, 0x47];
    assert_eq!(written.weights.bytes(word).unwrap(), five_six_seven);
    assert_eq!(written.weights.bytes(copy).unwrap(), five_six_seven);
}

#[test]
fn base_prefixes_old_names_and_new_heads() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"model_type":"bert","architectures":["BertModel"]}"#;
    let tensors = [
        "embeddings.LayerNorm.gamma",
        "embeddings.LayerNorm.beta",
        "embeddings.position_ids",
        "pooler.dense.bias",
        "cls.x",
    ];
    let source = model(&dir.path().join("in"), config, &tensors);
    assert_eq!(source.resolve("bert.embeddings.LayerNorm.weight").as_deref(), Some("embeddings.LayerNorm.gamma"));
    assert_eq!(source.resolve("bert.embeddings.LayerNorm.bias").as_deref(), Some("embeddings.LayerNorm.beta"));
    assert_eq!(source.resolve("bert.embeddings.LayerNorm"), None);

    let norm = ["bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.bias"].map(|name| (name, NUMBERS));
    let write = |out: &str, tensors: &[(&str, View)], raw: &RawConfig| {
        let out = Folder::create(&dir.path().join(out), false).unwrap();
        source.write(&out, tensors, raw, Precision::Keep, 0).unwrap();
        names(&out.commit().unwrap())
    };
    let same = write("base", &norm, &source.raw);
    assert_eq!(
        same,
        [
            "cls.x",
            "embeddings.LayerNorm.bias",
            "embeddings.LayerNorm.weight",
            "embeddings.position_ids",
            "pooler.dense.bias"
        ]
    );
    let head = |head: Head| head.describe(&source.config, &source.raw, &[]);
    let body = ["bert.embeddings.LayerNorm.bias", "bert.embeddings.LayerNorm.weight", "bert.embeddings.position_ids"];
    let with_classes = [norm[0], norm[1], ("classifier.weight", NUMBERS)];
    let wanted = [&body[..], &["bert.pooler.dense.bias", "classifier.weight"]].concat();
    assert_eq!(write("classes", &with_classes, &head(Head::Classification { labels: 2 })), wanted);
    assert_eq!(write("words", &norm, &head(Head::MaskedLm)), body);
}

/// A base class leaves its prefix out; in a task's folder every tensor of the base has it, known or not.
#[test]
fn what_goes_along_gets_the_prefix_of_its_family() {
    let dir = tempfile::tempdir().unwrap();
    for (family, class, prefix, modules) in [
        ("bert", "BertModel", "bert.", &["embeddings.x", "encoder.layer.0.x", "pooler.x"][..]),
        ("distilbert", "DistilBertModel", "distilbert.", &["embeddings.x", "transformer.layer.0.x"]),
        ("vit", "ViTModel", "vit.", &["embeddings.x", "encoder.layer.0.x", "layernorm.x"]),
        ("deit", "DeiTModel", "deit.", &["embeddings.x", "encoder.layer.0.x", "layernorm.x"]),
        ("resnet", "ResNetModel", "resnet.", &["embedder.embedder.x", "encoder.stages.0.x"]),
    ] {
        let config = json!({"model_type": family, "architectures": [class]}).to_string();
        let source = model(&dir.path().join(family), &config, modules);
        let raw = Head::Classification { labels: 2 }.describe(&source.config, &source.raw, &[]);
        let out = Folder::create(&dir.path().join(format!("{family}-out")), false).unwrap();
        source.write(&out, &[("classifier.weight", NUMBERS)], &raw, Precision::Keep, 0).unwrap();
        let mut wanted: Vec<String> = modules.iter().map(|name| format!("{prefix}{name}")).collect();
        wanted.push("classifier.weight".into());
        wanted.sort();
        assert_eq!(names(&out.commit().unwrap()), wanted, "{family}");
    }
}

#[test]
fn a_failed_write_leaves_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let source = model(&dir.path().join("in"), r#"{"model_type":"bert"}"#, &["bert.a"]);
    let bad = View { data: &[1.0, f32::NAN, 1.0], shape: &[3] };
    let broken: RawConfig = serde_json::from_str(r#"{"model_type":"bert","hidden_size":0}"#).unwrap();
    for (view, raw) in [(bad, &source.raw), (NUMBERS, &broken)] {
        let out = Folder::create(&dir.path().join("runs/out"), false).unwrap();
        assert!(source.write(&out, &[("bert.a", view)], raw, Precision::Keep, 0).is_err());
        drop(out);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the source is left");
    }
    for missing in ["config.json", SINGLE_FILE] {
        fs::remove_file(source.dir.join(missing)).unwrap();
        let error = ModelFolder::open_dir(&source.dir).unwrap_err();
        assert!(matches!(error, Error::Model { .. }), "{error}");
        fs::write(source.dir.join("config.json"), r#"{"model_type":"bert"}"#).unwrap();
    }
}

#[test]
fn overwriting_the_source_itself_is_safe() {
    let dir = tempfile::tempdir().unwrap();
    let source = model(&dir.path().join("in"), r#"{"model_type":"bert"}"#, &["bert.a", "bert.b"]);
    let out = Folder::create(&source.dir, true).unwrap();
    source.write(&out, &[("bert.a", NUMBERS)], &source.raw, Precision::Keep, 0).unwrap();
    out.commit().unwrap();
    let again = ModelFolder::open_dir(&source.dir).unwrap();
    assert_eq!(again.weights.bytes("bert.b"), source.weights.bytes("bert.b"), "the old map still reads");
    assert_ne!(again.weights.bytes("bert.a"), source.weights.bytes("bert.a"));
}

#[test]
fn the_fingerprint_sees_every_byte_but_not_the_sharding() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"model_type":"bert"}"#;
    let one = model(&dir.path().join("one"), config, &["bert.a", "bert.b"]).fingerprint().unwrap();
    assert_eq!(one.len(), 64);
    assert_eq!(one, model(&dir.path().join("two"), config, &["bert.a", "bert.b"]).fingerprint().unwrap());
    assert_ne!(one, model(&dir.path().join("name"), config, &["bert.a", "bert.c"]).fingerprint().unwrap());
    assert_ne!(
        one,
        model(&dir.path().join("config"), r#"{"model_type":"bert" }"#, &["bert.a", "bert.b"]).fingerprint().unwrap()
    );

    let sharded = dir.path().join("sharded");
    model(&sharded, config, &["bert.a"]);
    model(&dir.path().join("other"), config, &["bert.b"]);
    fs::rename(sharded.join(SINGLE_FILE), sharded.join("s1.safetensors")).unwrap();
    fs::rename(dir.path().join("other").join(SINGLE_FILE), sharded.join("s2.safetensors")).unwrap();
    let index = json!({"weight_map": {"bert.a": "s1.safetensors", "bert.b": "s2.safetensors"}});
    fs::write(sharded.join(INDEX_FILE), index.to_string()).unwrap();
    assert_eq!(one, ModelFolder::open_dir(&sharded).unwrap().fingerprint().unwrap());
}

#[test]
fn a_network_made_here_is_a_folder_too() {
    let dir = tempfile::tempdir().unwrap();
    let raw: RawConfig =
        serde_json::from_str(r#"{"model_type":"mlp","sizes":[3,1],"layers":["fc"],"problem_type":"regression"}"#)
            .unwrap();
    let out = Folder::create(&dir.path().join("net"), false).unwrap();
    let weight = View { data: &[1.0, 2.0, 3.0], shape: &[1, 3] };
    folder::write_new(&out, &[("fc.weight", weight), ("fc.bias", View { data: &[0.5], shape: &[1] })], &raw, 0)
        .unwrap();
    let net = ModelFolder::open(out.commit().unwrap().to_str().unwrap()).unwrap();
    assert_eq!(net.head(None).unwrap(), Head::Regression);
    let mut got = [0.0; 3];
    net.weights.read("fc.weight", &[1, 3], &mut got).unwrap();
    assert_eq!(got, [1.0, 2.0, 3.0]);
    assert_eq!(net.weights.metadata().unwrap()["format"], "pt");
}

#[test]
fn batch_norms_count_the_batches_they_took_in() {
    let count = |folder: &ModelFolder, name: &str| {
        let bytes = folder.weights.bytes(name).unwrap_or_else(|| panic!("no {name}"));
        (folder.weights.info(name).unwrap().shape.clone(), i64::from_le_bytes(bytes.try_into().unwrap()))
    };
    let dir = tempfile::tempdir().unwrap();
    let source =
        ModelFolder::open_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/resnet_basic")).unwrap();
    let name = "resnet.embedder.embedder.normalization.num_batches_tracked";
    let (shape, before) = count(&source, name);
    let network = Network::new(source.config.clone(), source.head(None).unwrap()).unwrap();
    let layout = Layout::trained(&network.params().unwrap());
    let weights = network.load(&source, &layout, None).unwrap();
    let tensors = network.tensors(&layout, &weights);
    for batches in [0, 5] {
        let out = Folder::create(&dir.path().join(batches.to_string()), false).unwrap();
        source.write(&out, &tensors, &source.raw, Precision::F32, batches).unwrap();
        let written = ModelFolder::open_dir(&out.commit().unwrap()).unwrap();
        assert_eq!(count(&written, name), (shape.clone(), before + batches as i64));
    }
    // One that comes from no folder has the counts as well, for PyTorch expects them.
    let out = Folder::create(&dir.path().join("new"), false).unwrap();
    folder::write_new(&out, &tensors, &source.raw, 7).unwrap();
    assert_eq!(count(&ModelFolder::open_dir(&out.commit().unwrap()).unwrap(), name), (vec![], 7));
}

/// The Python that has `transformers`: `FIPK_PYTHON`, else `python3`.
fn python(script: &str, args: &[&Path]) -> Option<String> {
    let python = std::env::var("FIPK_PYTHON").unwrap_or("python3".into());
    let run = |script: &str, args: &[&Path]| Command::new(&python).arg("-c").arg(script).args(args).output();
    if !run("import torch, transformers", &[]).is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: {python} has no torch and transformers (set FIPK_PYTHON)");
        return None;
    }
    let output = run(script, args).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    Some(String::from_utf8(output.stdout).unwrap())
}

const MAKE: &str = r#"
import sys, torch
from transformers import *
torch.manual_seed(0)
sizes = dict(vocab_size=40, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20, max_position_embeddings=16)
small = dict(vocab_size=40, dim=12, n_layers=2, n_heads=3, hidden_dim=20, max_position_embeddings=16)
out = sys.argv[1]
BertModel(BertConfig(**sizes)).half().save_pretrained(out + "/base")
BertForMaskedLM(BertConfig(**sizes)).save_pretrained(out + "/mlm", max_shard_size="5KB")
BertForSequenceClassification(BertConfig(**sizes, num_labels=3)).bfloat16().save_pretrained(out + "/classes")
DistilBertModel(DistilBertConfig(**small)).save_pretrained(out + "/distil")
"#;

/// Loads each folder with its own class, insists that every key is there and none is left over, prints what it holds.
const LOAD: &str = r#"
import sys, json, transformers
for folder in sys.argv[1:]:
    classes = json.load(open(folder + "/config.json"))["architectures"]
    model, info = getattr(transformers, classes[0]).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    for name, p in model.named_parameters():
        print(folder, name, str(p.dtype).split(".")[1], float(p.min()), float(p.max()), sep="\t")
"#;

#[test]
fn what_is_written_loads_in_transformers() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_) = python(MAKE, &[dir.path()]) else { return };
    let classes = [0.25; 36];
    let distil = [0.25; 144];
    let bias = [0.25; 12];
    let bert_head = [
        ("classifier.weight", View { data: &classes, shape: &[3, 12] }),
        ("classifier.bias", View { data: &classes[..3], shape: &[3] }),
    ];
    let distil_head = [
        ("pre_classifier.weight", View { data: &distil, shape: &[12, 12] }),
        ("pre_classifier.bias", View { data: &bias, shape: &[12] }),
        bert_head[0],
        bert_head[1],
    ];
    let head = Some(Head::Classification { labels: 3 });
    let cases = [
        ("base", head, &bert_head[..], Precision::Keep, "float16"),
        ("base", head, &bert_head, Precision::F32, "float32"),
        ("base", None, &[], Precision::Keep, "float16"),
        ("mlm", None, &[], Precision::Keep, "float32"),
        ("mlm", None, &[], Precision::F32, "float32"),
        ("classes", None, &[], Precision::Keep, "bfloat16"),
        ("classes", None, &[], Precision::F32, "float32"),
        ("distil", head, &distil_head, Precision::F32, "float32"),
    ];
    let mut outputs = Vec::new();
    for (i, (name, head, extra, precision, _)) in cases.iter().enumerate() {
        let source = ModelFolder::open_dir(&dir.path().join(name)).unwrap();
        let prefix = source.config.base_prefix().unwrap();
        // Every parameter becomes a constant, under the name the task model has for it.
        let mut values = Vec::new();
        for stored in source.weights.names() {
            let long = format!("{prefix}{stored}");
            let task = if source.resolve(&long).as_deref() == Some(stored) { long } else { stored.to_string() };
            let shape = source.weights.info(stored).unwrap().shape.clone();
            values.push((task, vec![0.5f32; shape.iter().product()], shape));
        }
        let mut tensors: Vec<_> = values.iter().map(|(n, data, shape)| (n.as_str(), View { data, shape })).collect();
        tensors.extend(*extra);
        let raw = head.map_or(source.raw.clone(), |h| h.describe(&source.config, &source.raw, &[]));
        let out = Folder::create(&dir.path().join(format!("out{i}")), false).unwrap();
        source.write(&out, &tensors, &raw, *precision, 0).unwrap();
        let out = out.commit().unwrap();
        assert_eq!(out.join(INDEX_FILE).exists(), *name == "mlm", "sharded as the source was");
        outputs.push(out);
    }
    let loaded = python(LOAD, &outputs.iter().map(PathBuf::as_path).collect::<Vec<_>>()).unwrap();
    for ((name, _, extra, precision, dtype), out) in cases.iter().zip(&outputs) {
        let mine = loaded.lines().map(|line| line.split('\t').collect::<Vec<_>>()).filter(|f| Path::new(f[0]) == out);
        let mine: Vec<_> = mine.collect();
        assert!(mine.len() > 30, "{name}: {loaded}");
        for fields in mine {
            let wanted = if extra.iter().any(|(n, _)| *n == fields[1]) { "0.25" } else { "0.5" };
            assert_eq!(fields[2..], [dtype, wanted, wanted], "{name} {precision:?}: {fields:?}");
        }
    }
}
