//! Safetensors in and out: every type, every way a file can be wrong, and nothing half-written.
//! The `safetensors` crate is the independent writer and judge; exact bits are given by hand.
use fipk::params::atomic::Folder;
use fipk::params::save::{self, Data, Parameter, Precision, Tensor};
use fipk::params::weights::{Dtype, INDEX_FILE, SINGLE_FILE, TensorInfo, Weights};
use fipk::{Error, Result};
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// A file as the format's own crate writes it.
fn write_reference(path: &Path, tensors: &[(&str, Dtype, &[usize], &[u8])]) {
    let views = tensors.iter().map(|(n, d, s, b)| (n.to_string(), TensorView::new(*d, s.to_vec(), b).unwrap()));
    let metadata = HashMap::from([("format".to_string(), "pt".to_string()), ("by".to_string(), "a test".to_string())]);
    fs::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

/// A file from a header of any text and any bytes.
fn raw_file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn bytes_of<const N: usize, T>(values: &[T], f: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(f).collect()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    bytes_of(values, |x| x.to_le_bytes())
}

fn read(weights: &Weights, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let mut out = vec![f32::NAN; shape.iter().product()];
    weights.read(name, shape, &mut out).map(|()| out)
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The error is of the model, on one line, and says each of the words.
#[track_caller]
fn assert_says(error: &Error, words: &[&str]) {
    let text = error.to_string();
    assert!(matches!(error, Error::Model { .. }), "{error:?}");
    assert!(!text.contains('\n'), "{text}");
    for word in words {
        assert!(text.contains(word), "wanted {word:?} in: {text}");
    }
}

#[test]
fn every_type_of_number_is_read_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let exact = [0.0f32, -0.0, 1.0, -2.5, 0.15625, 65504.0];
    let f16_bits = [0x0000u16, 0x8000, 0x3C00, 0xC100, 0x3100, 0x7BFF];
    let bf16_bits = [0x0000u16, 0x8000, 0x3F80, 0xC020, 0x3E20, 0x4780];
    let f16 = bytes_of(&f16_bits, |b| b.to_le_bytes());
    let bf16 = bytes_of(&bf16_bits, |b| b.to_le_bytes());
    let f64 = bytes_of(&exact, |&x| f64::from(x).to_le_bytes());
    // An odd header, so that nothing is aligned.
    let entry = |dtype: &str, shape: Value, from: usize, to: usize| json!({"dtype": dtype, "shape": shape, "data_offsets": [from, to]});
    let header = json!({
        "f64": entry("F64", json!([6]), 0, 48), "f32": entry("F32", json!([3, 2]), 48, 72),
        "f16": entry("F16", json!([6, 1]), 72, 84), "bf16": entry("BF16", json!([6]), 84, 96),
        "scalar": entry("F32", json!([]), 96, 100), "empty": entry("F32", json!([0, 4]), 100, 100),
    });
    let mut header = header.to_string();
    header.push_str(if header.len().is_multiple_of(2) { " " } else { "" });
    let data = [f64, f32s(&exact), f16, bf16, f32s(&[7.0])].concat();
    fs::write(dir.path().join(SINGLE_FILE), raw_file(&header, &data)).unwrap();

    let weights = Weights::open(dir.path()).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["f64", "f32", "f16", "bf16", "scalar", "empty"]);
    for (name, shape) in [("f64", &[6][..]), ("f32", &[3, 2]), ("f16", &[6, 1])] {
        let got = read(&weights, name, shape).unwrap();
        assert_eq!(got.map_bits(), exact.to_vec().map_bits(), "{name}");
    }
    assert_eq!(read(&weights, "bf16", &[6]).unwrap(), [0.0, -0.0, 1.0, -2.5, 0.15625, 65536.0]);
    assert_eq!(read(&weights, "scalar", &[]).unwrap(), [7.0]);
    assert_eq!(read(&weights, "empty", &[0, 4]).unwrap(), [0.0f32; 0]);
    assert_eq!(weights.bytes("scalar").unwrap(), f32s(&[7.0]));
    assert_eq!(weights.info("f16").unwrap(), &TensorInfo { dtype: Dtype::F16, shape: vec![6, 1] });
}

trait MapBits {
    fn map_bits(&self) -> Vec<u32>;
}

impl MapBits for Vec<f32> {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|x| x.to_bits()).collect()
    }
}

#[test]
fn large_tensors_convert_in_blocks_and_bad_numbers_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let n = 100_003;
    let mut values: Vec<f32> = (0..n).map(|i| i as f32 * 0.5 - 1e4).collect();
    let half: Vec<u8> = (0..n).flat_map(|i| (0x3C00u16 + (i % 1024) as u16).to_le_bytes()).collect();
    let good = f32s(&values);
    (values[70_001], values[99_999], values[40_000]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    let bad = f32s(&values);
    let wide = 1e300f64.to_le_bytes();
    let ids = [1, 0, 0, 0, 0, 0, 0, 0];
    let path = dir.path().join(SINGLE_FILE);
    write_reference(
        &path,
        &[
            ("good", Dtype::F32, &[n], &good),
            ("half", Dtype::F16, &[n], &half),
            ("bad", Dtype::F32, &[n], &bad),
            ("wide", Dtype::F64, &[1], &wide),
            ("ids", Dtype::I64, &[1], &ids),
        ],
    );
    let weights = Weights::open(dir.path()).unwrap();
    let got = read(&weights, "good", &[n]).unwrap();
    assert!(got.iter().enumerate().all(|(i, &x)| x == i as f32 * 0.5 - 1e4));
    let got = read(&weights, "half", &[n]).unwrap();
    assert!(got.iter().enumerate().all(|(i, &x)| x == 1.0 + (i % 1024) as f32 / 1024.0));

    assert_says(&read(&weights, "bad", &[n]).unwrap_err(), &["\"bad\"", "3 of 100003", "index 40000", "not finite"]);
    assert_says(&read(&weights, "wide", &[1]).unwrap_err(), &["\"wide\"", "1 of 1", "index 0"]);
    assert_says(&read(&weights, "ids", &[1]).unwrap_err(), &["\"ids\"", "I64", "BF16"]);
    assert_says(&read(&weights, "good", &[n, 1]).unwrap_err(), &["[100003, 1]", "[100003]", "config.json"]);
    assert_says(&read(&weights, "gone", &[1]).unwrap_err(), &["\"gone\"", "found none"]);
}

#[test]
fn every_lie_in_a_header_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SINGLE_FILE);
    let a = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let two = |b: &str| format!(r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}},{b}}}"#);
    let good = raw_file(a, &[0; 8]);
    let with = |dtype: &str, shape: &str, offsets: &str| {
        raw_file(&format!(r#"{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}"#), &[0; 8])
    };
    let oversized = |n: u64| [&n.to_le_bytes()[..], &good[8..]].concat();
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", vec![], &["got 0 bytes"]),
        ("five bytes", vec![1; 5], &["got 5 bytes"]),
        ("oversized header", oversized(10_000), &["10000 bytes of JSON", "at most"]),
        ("absurd header", oversized(u64::MAX), &["18446744073709551615"]),
        ("truncated data", good[..good.len() - 1].to_vec(), &["\"a\"", "0..8", "file's 7"]),
        ("truncated header", good[..20].to_vec(), &["bytes of JSON"]),
        ("trailing bytes", [&good[..], &[0; 3]].concat(), &["take 8 bytes", "holds 11"]),
        ("not JSON", raw_file("not json", &[]), &["not safetensors JSON"]),
        ("not UTF-8", [&8u64.to_le_bytes()[..], &[0xFF; 8]].concat(), &["not safetensors JSON"]),
        ("not an object", raw_file("[1]", &[]), &["not safetensors JSON", "an object of tensors"]),
        ("metadata of numbers", raw_file(r#"{"__metadata__":{"n":1}}"#, &[]), &["expected a string"]),
        ("unknown dtype", with(r#""F99""#, "[2]", "[0,8]"), &["\"a\"", "unknown dtype \"F99\""]),
        ("negative shape", with(r#""F32""#, "[-2]", "[0,8]"), &["not safetensors JSON"]),
        ("overflowing shape", with(r#""F32""#, "[4611686018427387904,8]", "[0,8]"), &["\"a\"", "out of range"]),
        ("wrong length", with(r#""F32""#, "[3]", "[0,8]"), &["\"a\"", "[3]", "takes 12 bytes", "span 8"]),
        ("wrong dtype", with(r#""F16""#, "[2]", "[0,8]"), &["takes 4 bytes"]),
        ("outside", with(r#""F32""#, "[2]", "[4,12]"), &["\"a\"", "4..12"]),
        ("backwards", with(r#""F32""#, "[2]", "[8,0]"), &["8..0"]),
        (
            "a gap",
            raw_file(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#, &[0; 8]),
            &["4 bytes before", "\"a\""],
        ),
        (
            "an overlap",
            raw_file(&two(r#""b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#), &[0; 8]),
            &["\"a\"", "\"b\"", "overlap"],
        ),
        (
            "a name twice",
            raw_file(&two(r#""a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}"#), &[0; 12]),
            &["\"a\"", "twice"],
        ),
    ];
    fs::write(&path, &good).unwrap();
    assert_eq!(read(&Weights::open(dir.path()).unwrap(), "a", &[2]).unwrap(), [0.0; 2]);
    for (what, file, words) in cases {
        fs::write(&path, file).unwrap();
        let error = Weights::open(dir.path()).expect_err(what);
        assert_says(&error, words);
        assert_says(&error, &[SINGLE_FILE, "hint"]);
    }
}

/// Two shards with three tensors.
fn sharded(dir: &Path) -> Value {
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let half = bytes_of(&[0x3C00u16, 0x4000, 0x3555], |b| b.to_le_bytes());
    write_reference(
        &dir.join(shards[0]),
        &[("a", Dtype::F32, &[2], &f32s(&[1.5, -2.0])), ("ids", Dtype::I64, &[1], &[9; 8])],
    );
    write_reference(&dir.join(shards[1]), &[("b", Dtype::F16, &[3], &half)]);
    let index = json!({"metadata": {"total_size": 22, "total_parameters": 5, "note": "kept"},
        "weight_map": {"a": shards[0], "ids": shards[0], "b": shards[1]}});
    fs::write(dir.join(INDEX_FILE), index.to_string()).unwrap();
    index
}

#[test]
fn every_lie_in_an_index_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let good = sharded(dir.path());
    let weights = Weights::open(dir.path()).unwrap();
    assert_eq!(read(&weights, "a", &[2]).unwrap(), [1.5, -2.0]);
    assert_eq!(read(&weights, "b", &[3]).unwrap(), [1.0, 2.0, 0.333_251_95]);
    assert_eq!(weights.shard("b"), Some(1));

    let outside = tempfile::tempdir().unwrap();
    let stray = outside.path().join("stray.safetensors");
    write_reference(&stray, &[("a", Dtype::F32, &[2], &[0; 8])]);
    write_reference(
        &dir.path().join("copy.safetensors"),
        &[("a", Dtype::F32, &[2], &[0; 8]), ("c", Dtype::U8, &[1], &[0])],
    );
    let up = format!("../{}/stray.safetensors", outside.path().file_name().unwrap().to_str().unwrap());
    let changed = |tensor: &str, file: Value| {
        let mut index = good.clone();
        index["weight_map"][tensor] = file;
        index.to_string()
    };
    let cases: Vec<(String, &[&str])> = vec![
        ("{".into(), &["not a JSON object"]),
        ("{}".into(), &["weight_map"]),
        (changed("a", json!(up)), &["outside the folder", ".."]),
        (changed("a", json!(stray)), &["outside the folder"]),
        (changed("a", json!("")), &["outside the folder"]),
        (changed("a", json!("sub\\..\\x.safetensors")), &["outside the folder"]),
        (changed("a", json!("gone.safetensors")), &["\"gone.safetensors\"", "not in the folder"]),
        (changed("a", json!(3)), &["file name", "\"a\"", "3"]),
        (changed("a", json!("model-00002-of-00002.safetensors")), &["\"a\"", "model-00001", "model-00002"]),
        (changed("ghost", json!("model-00002-of-00002.safetensors")), &["\"ghost\"", "is not in"]),
        (changed("c", json!("copy.safetensors")), &["\"a\"", "also in"]),
        (
            json!({"weight_map": {"b": "model-00002-of-00002.safetensors", "a": "model-00001-of-00002.safetensors"}})
                .to_string(),
            &["\"ids\"", "not listed"],
        ),
    ];
    for (index, words) in cases {
        fs::write(dir.path().join(INDEX_FILE), &index).unwrap();
        assert_says(&Weights::open(dir.path()).expect_err(&index), words);
    }
}

#[test]
fn a_folder_without_safetensors_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    assert_says(&Weights::open(dir.path()).unwrap_err(), &["model.safetensors", "found neither"]);
    fs::write(dir.path().join("pytorch_model.bin"), "pickle").unwrap();
    let words = ["pytorch_model.bin", "convert it: python -c", "torch.load", "weights_only=True", "save_file"];
    assert_says(&Weights::open(dir.path()).unwrap_err(), &words);
    fs::create_dir(dir.path().join(SINGLE_FILE)).unwrap();
    assert!(Weights::open(dir.path()).is_err(), "a folder is not a file");
}

/// Judged by the format's own crate.
fn stored(path: &Path) -> HashMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let file = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    tensors.iter().map(|(n, t)| (n.to_string(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect()
}

#[test]
fn numbers_round_to_nearest_even_and_keep_their_types() {
    // Halfway between two neighbours of f16, and of bf16: down to even, up to even, and just above half.
    let f16_ties = [1.0 + 2f32.powi(-11), 1.0 + 3.0 * 2f32.powi(-11), 1.0 + 2f32.powi(-11) + 2f32.powi(-20), 6.1e-5];
    let bf16_ties = [1.0 + 2f32.powi(-8), 1.0 + 3.0 * 2f32.powi(-8), 1.0 + 2f32.powi(-8) + 2f32.powi(-20), 3e38];
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source.safetensors");
    let zeros = [0; 32];
    write_reference(
        &source,
        &[
            ("half", Dtype::F16, &[4], &zeros[..8]),
            ("brain", Dtype::BF16, &[4], &zeros[..8]),
            ("double", Dtype::F64, &[4], &zeros),
            ("odd", Dtype::U8, &[3], b"\x01\xFE\x80"),
        ],
    );
    let source = Weights::open_file(&source).unwrap();
    let parameter = |name, data| Parameter { name, source: Some(name.into()), shape: &[4], data };
    let parameters = [
        parameter("brain", &bf16_ties[..]),
        parameter("half", &f16_ties),
        parameter("double", &f16_ties),
        Parameter { name: "head", source: None, shape: &[2, 2], data: &f16_ties },
    ];
    let save = |precision| {
        let out = Folder::create(&dir.path().join(format!("{precision:?}")), false).unwrap();
        save::write_weights(&out, &parameters, Some(&source), |n| Some(format!("kept.{n}")), &[], precision).unwrap();
        let out = out.commit().unwrap();
        assert_eq!(listing(&out), [SINGLE_FILE]);
        (stored(&out.join(SINGLE_FILE)), Weights::open(&out).unwrap())
    };
    let (keep, opened) = save(Precision::Keep);
    let half = bytes_of(&[0x3C00u16, 0x3C02, 0x3C01, 0x03FF], |b| b.to_le_bytes());
    let brain = bytes_of(&[0x3F80u16, 0x3F82, 0x3F81, 0x7F62], |b| b.to_le_bytes());
    assert_eq!(keep["half"], (Dtype::F16, vec![4], half));
    assert_eq!(keep["brain"], (Dtype::BF16, vec![4], brain));
    assert_eq!(keep["double"].2, bytes_of(&f16_ties, |&x| f64::from(x).to_le_bytes()));
    assert_eq!(keep["head"], (Dtype::F32, vec![2, 2], f32s(&f16_ties)));
    assert_eq!(keep["kept.odd"], (Dtype::U8, vec![3], b"\x01\xFE\x80".to_vec()));
    assert_eq!(opened.metadata().unwrap()["format"], "pt");
    assert_eq!(opened.metadata().unwrap()["by"], "a test");
    // Wide types first, the source's order within one, new ones last.
    assert_eq!(opened.names().collect::<Vec<_>>(), ["double", "head", "brain", "half", "kept.odd"]);

    let (full, _) = save(Precision::F32);
    for (name, values) in [("half", f16_ties), ("brain", bf16_ties), ("double", f16_ties), ("head", f16_ties)] {
        assert_eq!((full[name].0, &full[name].2), (Dtype::F32, &f32s(&values)), "{name}");
    }
}

#[test]
fn a_sharded_source_stays_sharded() {
    let dir = tempfile::tempdir().unwrap();
    let source_dir = dir.path().join("source");
    fs::create_dir(&source_dir).unwrap();
    sharded(&source_dir);
    let source = Weights::open(&source_dir).unwrap();
    let parameters = [
        Parameter { name: "base.b", source: Some("b".into()), shape: &[3], data: &[0.1, 0.2, 0.3] },
        Parameter { name: "new", source: None, shape: &[1], data: &[4.0] },
    ];
    let out = Folder::create(&dir.path().join("out"), false).unwrap();
    let carry = |n: &str| Some(n.to_string());
    save::write_weights(&out, &parameters, Some(&source), carry, &[], Precision::F32).unwrap();
    let out = out.commit().unwrap();

    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    assert_eq!(listing(&out), [shards[0], shards[1], INDEX_FILE]);
    let (first, second) = (stored(&out.join(shards[0])), stored(&out.join(shards[1])));
    assert_eq!(first, stored(&source_dir.join(shards[0])), "what is not a parameter is carried byte for byte");
    assert_eq!(second["base.b"], (Dtype::F32, vec![3], f32s(&[0.1, 0.2, 0.3])));
    assert_eq!(second["new"], (Dtype::F32, vec![1], f32s(&[4.0])));
    let index: Value = serde_json::from_slice(&fs::read(out.join(INDEX_FILE)).unwrap()).unwrap();
    assert_eq!(index["metadata"], json!({"total_size": 8 + 8 + 12 + 4, "total_parameters": 2 + 3 + 1, "note": "kept"}));
    let map = json!({"a": shards[0], "ids": shards[0], "base.b": shards[1], "new": shards[1]});
    assert_eq!(index["weight_map"], map);
    assert_eq!(read(&Weights::open(&out).unwrap(), "new", &[1]).unwrap(), [4.0]);
}

#[test]
fn what_cannot_be_stored_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let tensor = |name: &str, dtype, shape: &[usize], data| Tensor {
        name: name.into(),
        info: TensorInfo { dtype, shape: shape.to_vec() },
        data: Data::Real(data),
    };
    let write = |tensors: &[Tensor]| save::write_file(&path, tensors, &Default::default());
    let nan = write(&[tensor("w", Dtype::F32, &[3], &[0.0, 1.0, f32::NAN])]).unwrap_err();
    assert!(matches!(nan, Error::NotFinite { .. }) && nan.to_string().contains("index 2"), "{nan}");
    assert_says(
        &write(&[tensor("w", Dtype::F16, &[2], &[0.0, 65520.0])]).unwrap_err(),
        &["\"w\"", "index 1", "too large for F16"],
    );
    assert_says(&write(&[tensor("w", Dtype::BF16, &[1], &[f32::MAX])]).unwrap_err(), &["too large for BF16"]);
    assert_says(&write(&[tensor("w", Dtype::I64, &[1], &[1.0])]).unwrap_err(), &["I64 cannot hold"]);
    assert_says(&write(&[tensor("w", Dtype::F32, &[3], &[1.0])]).unwrap_err(), &["[3]", "does not fit"]);
    let twice = [tensor("w", Dtype::F32, &[1], &[1.0]), tensor("w", Dtype::F32, &[1], &[1.0])];
    assert_says(&write(&twice).unwrap_err(), &["\"w\"", "twice"]);
    assert!(listing(dir.path()).is_empty());

    write(&[tensor("w", Dtype::F16, &[1], &[65519.0])]).unwrap();
    assert_eq!(stored(&path)["w"].2, 0x7BFFu16.to_le_bytes());
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).arg(dir.path()).output();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]).is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: no right to mount a small file system, so a full disk is not tested");
        return;
    }
    let run = || {
        let numbers = vec![1.0; 100_000];
        let out = dir.path().join("runs/model");
        let folder = Folder::create(&out, false).unwrap();
        let parameters = [Parameter { name: "w", source: None, shape: &[100_000], data: &numbers }];
        let full = save::write_weights(&folder, &parameters, None, |_| None, &[], Precision::F32).unwrap_err();
        drop(folder);
        let info = TensorInfo { dtype: Dtype::F32, shape: vec![100_000] };
        let file = dir.path().join("y.safetensors");
        let tensor = Tensor { name: "w".into(), info, data: Data::Real(&numbers) };
        let full_file = save::write_file(&file, &[tensor], &Default::default()).unwrap_err();
        (full, out.join(SINGLE_FILE), full_file, file, listing(dir.path()))
    };
    let outcome = std::panic::catch_unwind(run);
    mount(&["umount"]).unwrap();
    let (folder, model, file, path, left) = outcome.unwrap();
    for (error, wanted) in [(folder, model), (file, path)] {
        let text = error.to_string();
        let Error::Io { path, source, .. } = error else { panic!("{text}") };
        assert_eq!((path, source.kind()), (wanted, std::io::ErrorKind::StorageFull), "{text}");
    }
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn real_checkpoints_open() {
    let shared =
        std::env::var_os("FIPK_SHARED").map_or(Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), Into::into);
    for (folder, tensors, name, shape, dtype) in [
        ("minilm-l6-v2", 103, "encoder.layer.5.intermediate.dense.weight", &[1536, 384][..], Dtype::F16),
        ("lenet-300-100-mnist", 6, "fc1.weight", &[300, 784], Dtype::F32),
    ] {
        let dir = shared.join("models").join(folder);
        if !dir.exists() {
            eprintln!("skipped: {} is not here", dir.display());
            continue;
        }
        let weights = Weights::open(&dir).unwrap();
        assert_eq!(weights.names().len(), tensors, "{folder}");
        assert_eq!(weights.info(name).unwrap(), &TensorInfo { dtype, shape: shape.to_vec() });
        for (name, (dtype, shape, bytes)) in stored(&dir.join(SINGLE_FILE)) {
            let wanted: Vec<f32> = match dtype {
                Dtype::F16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
                _ => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            };
            assert!(read(&weights, &name, &shape).unwrap() == wanted, "{name}");
        }
    }
}

fn valid_file() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"F16","shape":[4],"data_offsets":[24,32]}}"#;
    raw_file(header, &[0x11; 32])
}

/// Opening never panics; what opens agrees with the format's own crate, tensor by tensor.
fn judge(file: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SINGLE_FILE);
    fs::write(&path, file).unwrap();
    let Ok(weights) = Weights::open(dir.path()) else { return };
    let reference = SafeTensors::deserialize(file).expect("what fipk opens is valid");
    assert_eq!(weights.names().len(), reference.len());
    for (name, tensor) in reference.iter() {
        let info = weights.info(name).unwrap();
        assert_eq!((info.dtype, &info.shape[..]), (tensor.dtype(), tensor.shape()));
        assert_eq!(weights.bytes(name).unwrap(), tensor.data());
        let n = info.shape.iter().product::<usize>();
        let mut out = vec![0.0; n];
        if weights.read(name, &info.shape, &mut out).is_ok() {
            assert!(out.iter().all(|x| x.is_finite()));
        }
        assert!(weights.read(name, &info.shape, &mut vec![0.0; n + 1]).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(file in prop::collection::vec(any::<u8>(), 0..200)) {
        judge(&file);
    }

    #[test]
    fn mutated_files_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in 0usize..40) {
        let mut file = valid_file();
        for (at, byte) in edits {
            let at = at.index(file.len());
            file[at] = byte;
        }
        file.truncate(file.len().saturating_sub(if cut > 20 { 0 } else { cut }));
        judge(&file);
    }

    #[test]
    fn mutated_numbers_never_panic(shape in prop::collection::vec(prop_oneof![0u64..5, any::<u64>()], 0..4), from in 0u64..40, to in prop_oneof![0u64..40, any::<u64>()], dtype in 0usize..6) {
        let dtype = ["F32", "F16", "U8", "F4", "I64", "nope"][dtype];
        let header = json!({"a": {"dtype": dtype, "shape": shape, "data_offsets": [from, to]}}).to_string();
        judge(&raw_file(&header, &[0x22; 32]));
    }
}
