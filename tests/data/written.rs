//! Hand-written files in every format and layout, and with every mistake.
use super::*;

#[test]
fn one_table_in_every_format_is_one_data_set() {
    let (folder, model) = (tempfile::tempdir().unwrap(), small_tokenizer());
    let how = text_reading(model.path());
    let mut files = vec![
        ("a.tsv", "sentence\tlabel\na good film\t1\nbads, !\t0\n".as_bytes().to_vec()),
        ("a.csv", "\u{feff}label,sentence\r\n1,a good film\r\n0,\"bads, !\"\r\n".as_bytes().to_vec()),
        (
            "a.jsonl",
            b"{\"sentence\":\"a good film\",\"label\":1,\"idx\":0}\n{\"label\":\"0\",\"sentence\":\"bads, !\"}"
                .to_vec(),
        ),
    ];
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&files[0].1).unwrap();
    files.push(("a.tsv.gz", packed.finish().unwrap()));
    #[cfg(feature = "parquet")]
    files.push(("a.parquet", parquet_file(&[("a good film", 1), ("bads, !", 0)])));
    let mut prints = Vec::new();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        for spec in [format!("text:{}", path.display()), format!("glue/sst2:{}?seed=3", path.display())] {
            let data = load(&spec, "train", &how).unwrap();
            assert_eq!((data.len(), classes(&*data)), (2, vec![1, 0]), "{name}");
            assert_eq!(ids(&*data, 0), [2, 5, 11, 13, 3], "{name}");
            // "bads" is bad and ##s, the comma is unknown.
            assert_eq!(ids(&*data, 1), [2, 12, 9, 1, 10, 3], "{name}");
            prints.push((spec.starts_with("glue"), data.fingerprint()));
        }
    }
    assert!(prints[0].1.len() == 64 && prints[0].1 != prints[1].1, "class names are part of the fingerprint");
    assert!(prints.iter().all(|print| prints[..2].contains(print)));
}

#[test]
fn columns_splits_and_labels_follow_the_spec() {
    let (folder, model) = (tempfile::tempdir().unwrap(), small_tokenizer());
    let how = text_reading(model.path());
    let at = folder.path().display();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("train.csv", "Q,A,Mark,Score\na,b c,yes,0.5\nb,\"a, d\",no,-2\n");
    write("test.csv", "Q,A,Mark,Score\na,b,no,1\n");
    let pairs = format!("text:{at}?text=q&text2=a&label=mark");
    let data = load(&pairs, "train", &how).unwrap();
    assert_eq!((names(&*data), classes(&*data)), (vec!["no".into(), "yes".into()], vec![1, 0]));
    assert_eq!(ids(&*data, 0), [2, 5, 3, 6, 7, 3]);
    let named = load(&format!("{pairs}&labels=yes,no"), "test", &how).unwrap();
    assert_eq!((names(&*named), classes(&*named)), (vec!["yes".into(), "no".into()], vec![1]));
    let model_named = Reading { labels: Some(vec!["YES".into(), "NO".into()]), ..how.clone() };
    assert_eq!(classes(&*load(&pairs, "train", &model_named).unwrap()), [0, 1]);
    let scores = load(&format!("text:{at}?text=A&label=Score&task=regression"), "train", &how).unwrap();
    assert_eq!(scores.task(), &Task::Regression);
    assert_eq!(scores.batch(&[1, 0], 2, 0).unwrap().targets, Targets::Scores(vec![-2.0, 0.5]));
    assert_eq!(index(&scores.batch(&[1, 0], 2, 0).unwrap(), "input_ids")[..5], [2, 5, 1, 8, 3]);

    let one_output = Reading { labels: Some(data::labels::unnamed(1)), ..how.clone() };
    fails(&format!("{pairs}&labels=yes,no"), "train", &one_output, &["classes need a model with an output a class"]);
    let two = Reading { labels: Some(data::labels::unnamed(2)), ..how.clone() };
    fails(&format!("text:{at}?text=A&label=Score&task=regression"), "train", &two, &["one output", "2 outputs"]);
    fails(&pairs, "train", &two, &["train.csv:2", "`yes`", "?labels="]);
    fails(&format!("text:{at}?text=Z&label=mark"), "train", &how, &["wanted a column `Z`", "Q, A, Mark, Score"]);
    fails(&format!("{pairs}&split=dev"), "train", &how, &["wanted a file for split dev", "test.csv, train.csv"]);
    let file = format!("text:{at}/train.csv?text=q&label=mark&split=dev");
    assert!(matches!(fails(&file, "train", &how, &["one file has no splits"]), Error::Usage { .. }));
    assert!(matches!(fails(&format!("text:{at}/none.csv"), "train", &how, &["none.csv"]), Error::Io { .. }));
    write("f.xlsx", "x");
    assert!(matches!(fails(&format!("text:{at}/f.xlsx"), "train", &how, &["`xlsx`"]), Error::Unsupported { .. }));
}

#[test]
fn glue_in_its_published_layouts() {
    let (folder, model) = (tempfile::tempdir().unwrap(), small_tokenizer());
    let how = text_reading(model.path());
    let at = folder.path().display();
    let case = |task: &str, text: &str, first: &[i32], wanted: &[i32]| {
        fs::write(folder.path().join("Train.tsv"), text).unwrap();
        let data = load(&format!("glue/{task}:{at}"), "train", &how).unwrap();
        assert_eq!((ids(&*data, 0).as_slice(), classes(&*data).as_slice()), (first, wanted), "{task}");
    };
    case("cola", "gj04\t1\t\ta film\nbc73\t0\t*\tbad\n", &[2, 5, 13, 3], &[1, 0]);
    case(
        "MRPC",
        "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\ta \"b\tc\n",
        &[2, 5, 1, 6, 3, 7, 3],
        &[1],
    );
    case("qqp", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta\tb\t0\n", &[2, 5, 3, 6, 3], &[0]);
    case("rte", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n", &[2, 5, 3, 6, 3], &[1]);
    case("qnli", "index\tquestion\tsentence\tlabel\n0\ta\tb\tEntailment\n", &[2, 5, 3, 6, 3], &[0]);
    case("mnli", "sentence1\tlabel1\tsentence2\tgold_label\na\tneutral\tb\tcontradiction\n", &[2, 5, 3, 6, 3], &[2]);
    fs::write(folder.path().join("test.tsv"), "index\tsentence\n0\ta film\n").unwrap();
    fails(&format!("glue/sst2:{at}?split=test"), "train", &how, &["test.tsv", "`label`", "split=dev"]);
    // Without a dev file the test file is what an evaluation finds.
    fails(&format!("glue/sst2:{at}"), "test", &how, &["test.tsv", "`label`"]);
    fs::write(folder.path().join("validation.jsonl"), "{\"sentence\":\"a\",\"label\":-1,\"idx\":0}\n").unwrap();
    fails(&format!("glue/sst2:{at}"), "test", &how, &["validation.jsonl:1", "`-1`", "0..=1", "kept back"]);
    let three = Reading { labels: Some(data::labels::unnamed(2)), ..how.clone() };
    fs::write(folder.path().join("dev.tsv"), "premise\thypothesis\tlabel\na\tb\t2\n").unwrap();
    fs::remove_file(folder.path().join("validation.jsonl")).unwrap();
    fails(&format!("glue/mnli:{at}"), "test", &three, &["entailment, neutral, contradiction", "LABEL_0, LABEL_1"]);
    fs::write(folder.path().join("dev.tsv"), "sentence1\tsentence2\tscore\na\tb\t5.5\n").unwrap();
    fails(&format!("glue/stsb:{at}"), "test", &how, &["dev.tsv:2", "from 0 to 5", "`5.5`"]);
    fs::write(folder.path().join("dev.tsv"), "sentence1\tsentence2\tscore\na\tb\tNaN\n").unwrap();
    fails(&format!("glue/stsb:{at}"), "test", &how, &["dev.tsv:2", "`NaN`"]);
}

#[test]
fn bad_tables_say_which_line() {
    let (folder, model) = (tempfile::tempdir().unwrap(), small_tokenizer());
    let how = text_reading(model.path());
    let path = |name: &str| folder.path().join(name);
    let check = |name: &str, bytes: &[u8], says: &[&str]| {
        fs::write(path(name), bytes).unwrap();
        let error = fails(&format!("text:{}", path(name).display()), "train", &how, says);
        assert!(matches!(error, Error::Data { .. }), "{error:?}");
    };
    check("e.tsv", b"", &["e.tsv", "wanted rows"]);
    check("e.jsonl", b"", &["e.jsonl", "wanted rows"]);
    check("h.csv", b"text,label\n", &["h.csv", "wanted rows"]);
    check("a.tsv", b"text\tlabel\na\t1\n\nb\t0\n", &["a.tsv:3", "empty"]);
    check("b.tsv", b"text\tlabel\na\t1\nb\n", &["b.tsv:3", "wanted 2 columns", "got 1", "bad_lines=skip"]);
    check("c.tsv", b"text\tlabel\na\t1\n \t0\n", &["c.tsv:3", "`text` is empty"]);
    check("d.tsv", b"text\tlabel\na\t1\n\xff\t0\n", &["d.tsv:3", "UTF-8"]);
    check("f.jsonl", b"{\"text\":\"a\",\"label\":1}\n{\"text\":\"a\"\n", &["f.jsonl:2", "not JSON"]);
    check("g.jsonl", b"{\"text\":\"a\",\"label\":1}\n{\"text\":\"a\"}\n", &["g.jsonl:2", "no `label`"]);
    check("i.csv", b"text,label\n\"a,1\n", &["i.csv:2", "not closed"]);
    check("j.csv", b"text,label\na,1\nb,2.5\n", &["j.csv:3", "fraction `2.5`"]);
    #[cfg(feature = "parquet")]
    check("k.parquet", b"PAR1 nothing PAR1", &["k.parquet"]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(b"text\tlabel\na\t1\n").unwrap();
    let packed = packed.finish().unwrap();
    check("l.tsv.gz", &packed[..packed.len() - 6], &["l.tsv.gz", "cut short"]);
    check("m.tsv.gz", b"text\tlabel\na\t1\n", &["m.tsv.gz", "gzip"]);

    fs::write(path("n.tsv"), "text\tlabel\na\t1\nb\n\nc\t0\n").unwrap();
    let data = load(&format!("text:{}?bad_lines=skip", path("n.tsv").display()), "train", &how).unwrap();
    assert_eq!(classes(&*data), [1, 0]);

    fs::write(path("o.txt"), " \n\n").unwrap();
    fails(&format!("lm:{}", path("o.txt").display()), "train", &how, &["o.txt", "wanted text, got none"]);
    fs::write(path("p.txt"), b"a\nb \xc3\x28\n").unwrap();
    fails(&format!("lm:{}", path("p.txt").display()), "train", &how, &["p.txt:2", "UTF-8"]);
}

#[test]
fn a_missing_or_foreign_tokenizer_is_an_error() {
    let (folder, model) = (tempfile::tempdir().unwrap(), small_tokenizer());
    let path = folder.path().join("a.tsv");
    fs::write(&path, "text\tlabel\na\t1\n").unwrap();
    let spec = format!("text:{}", path.display());
    fails(&spec, "train", &Reading::default(), &["needs a tokenizer"]);
    let how = text_reading(folder.path());
    assert!(matches!(fails(&spec, "train", &how, &["tokenizer.json or vocab.txt"]), Error::Model { .. }));
    fs::write(folder.path().join("tokenizer.json"), "{\"version\": \"1.0\"").unwrap();
    assert!(matches!(fails(&spec, "train", &how, &["tokenizer.json", "no tokenizer"]), Error::Model { .. }));
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    fs::write(folder.path().join("vocab.txt"), "hello\nworld\n").unwrap();
    fails(&spec, "train", &how, &["vocab.txt", "no `[UNK]`"]);
    let small = Reading { vocabulary: Some(5), ..text_reading(model.path()) };
    fails(&spec, "train", &small, &["gives the id 5", "vocabulary has 5"]);
    let short = Reading { max_length: 4, ..text_reading(model.path()) };
    fails(&spec, "train", &short, &["4 tokens leave no room"]);
    // Without a mask token there is no masked-language modelling.
    fs::write(folder.path().join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n").unwrap();
    fails(&format!("lm:{}", path.display()), "train", &how, &["no mask token"]);
}

#[test]
fn bad_idx_files_say_which_file() {
    let folder = tempfile::tempdir().unwrap();
    let spec = format!("mnist:{}", folder.path().display());
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let how = Reading::default();
    fails(&spec, "train", &how, &["train-images-idx3-ubyte", "found neither"]);
    let images =
        [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3][..], &[0, 51, 255, 0, 0, 0, 1, 2, 3, 4, 5, 6]].concat();
    let labels = [0, 0, 8, 1, 0, 0, 0, 2, 9, 4];
    write("train-images-idx3-ubyte", &images);
    write("train-labels.idx1-ubyte", &labels);
    let data = load(&spec, "train", &how).unwrap();
    let batch = data.batch(&[0, 1], 2, 0).unwrap();
    assert_eq!((batch.inputs[0].shape.as_slice(), classes(&*data)), (&[2, 6][..], vec![9, 4]));
    let wanted = [0.0, 0.2, 1.0, 0.0];
    assert!(real(&batch)[..4].iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() <= 1e-7));

    fails(&format!("{spec}?split=dev"), "train", &how, &["no split `dev`"]);
    write("train-labels.idx1-ubyte", &[0, 0, 8, 1, 0, 0, 0, 1, 9]);
    fails(&spec, "train", &how, &["train-labels.idx1-ubyte", "a label for each of the 2 images, got 1"]);
    write("train-labels.idx1-ubyte", &images);
    fails(&spec, "train", &how, &["train-labels.idx1-ubyte", "0x00000801", "0x00000803"]);
    write("train-images-idx3-ubyte", &images[..20]);
    fails(&spec, "train", &how, &["train-images-idx3-ubyte", "[2, 2, 3]", "got 4"]);
    fs::remove_file(folder.path().join("train-images-idx3-ubyte")).unwrap();
    write("train-images-idx3-ubyte.gz", &[0x1f, 0x8b, 8, 0, 0]);
    fails(&spec, "train", &how, &["train-images-idx3-ubyte.gz", "cut short"]);
    let three = Preprocess { mean: vec![0.5; 3], std: vec![0.5; 3], ..Preprocess::default() };
    fails(
        "digits:10",
        "train",
        &Reading { preprocess: three, ..Reading::default() },
        &["images' 1 channel, got image_mean and image_std of 3"],
    );
    fails("digits:10?split=extra", "train", &how, &["no split `extra`"]);
    fails(
        "digits:10",
        "train",
        &Reading { labels: Some(data::labels::unnamed(2)), ..Reading::default() },
        &["2 outputs"],
    );
    fails("digits:99999999999999999", "train", &how, &["do not fit in memory"]);
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_shards_are_one_split_and_rows_are_numbered() {
    let (folder, model) = (tempfile::tempdir().unwrap(), small_tokenizer());
    let how = text_reading(model.path());
    fs::create_dir(folder.path().join("data")).unwrap();
    let write = |name: &str, rows: &[(&str, i64)]| {
        fs::write(folder.path().join("data").join(name), parquet_file(rows)).unwrap()
    };
    write("train-00001-of-00002.parquet", &[("b", 0)]);
    write("train-00000-of-00002.parquet", &[("a", 1), ("c", 0), ("d", 1)]);
    let spec = format!("glue/sst2:{}", folder.path().display());
    let data = load(&spec, "train", &how).unwrap();
    assert_eq!(classes(&*data), [1, 0, 1, 0]);
    assert_eq!(ids(&*data, 3), [2, 6, 3]);
    write("train-00001-of-00002.parquet", &[("b", 0), ("a", 0), (" ", 1)]);
    fails(&spec, "train", &how, &["00001-of-00002.parquet: row 3", "`sentence` is empty"]);
    write("train-00001-of-00002.parquet", &[("b", 0), ("a", 7)]);
    fails(&spec, "train", &how, &["00001-of-00002.parquet: row 2", "`7`", "0..=1"]);
    if let Some(path) = shared("data/cifar10/test.parquet") {
        fails(&format!("text:{}", path.display()), "test", &how, &["wanted a column `text`", "img", "label"]);
        let image = fails(&format!("text:{}?text=img", path.display()), "test", &how, &["test.parquet: row 1"]);
        assert!(image.to_string().contains("a group of columns"), "{image}");
    }
}
