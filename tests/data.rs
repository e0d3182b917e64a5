//! Data specs against real data sets, against hand-written files of every format, and against every kind of bad input.
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use fipk::Error;
use fipk::data::spec::BadLines;
use fipk::data::{
    self, Batch, Batches, Cursor, Dataset, EVALUATION, NOT_SCORED, Preprocess, Reading, Spec, Targets, Task, Tokenizer,
    Values, table,
};
use proptest::prelude::*;

/// A path in the shared folder of real data, or `None`, said aloud, where this machine has none.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("FIPK_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = root.join(path);
    let here = path.exists();
    if !here {
        eprintln!("SKIPPED: {} is not here", path.display());
    }
    here.then_some(path)
}

fn load(spec: &str, split: &str, how: &Reading) -> fipk::Result<Box<dyn Dataset>> {
    data::load(&spec.parse::<Spec>()?, split, how)
}

fn fails(spec: &str, split: &str, how: &Reading, says: &[&str]) -> Error {
    let error = load(spec, split, how).err().unwrap_or_else(|| panic!("{spec} must fail"));
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    assert!(says.iter().all(|part| text.contains(part)), "`{text}` does not say all of {says:?}");
    error
}

fn index<'a>(batch: &'a Batch, name: &str) -> &'a [i32] {
    match batch.inputs.iter().find(|input| input.name == name).map(|input| &input.values) {
        Some(Values::Index(values)) => values,
        other => panic!("no indices under {name}: {other:?}"),
    }
}

fn real(batch: &Batch) -> &[f32] {
    match &batch.inputs[0].values {
        Values::Real(values) => values,
        other => panic!("{other:?}"),
    }
}

fn classes(data: &dyn Dataset) -> Vec<i32> {
    let all: Vec<usize> = (0..data.len()).collect();
    match data.batch(&all, all.len(), 0).targets {
        Targets::Classes(classes) => classes,
        other => panic!("{other:?}"),
    }
}

fn names(data: &dyn Dataset) -> Vec<String> {
    match data.task() {
        Task::Classification { labels } => labels.clone(),
        other => panic!("{other:?}"),
    }
}

/// The ids of example `i` up to its padding.
fn ids(data: &dyn Dataset, i: usize) -> Vec<i32> {
    let batch = data.batch(&[i], 1, 0);
    index(&batch, "input_ids")[..data.length(i)].to_vec()
}

/// A folder with a WordPiece vocabulary; a token's id is its place. Ids from 5 on: a b c d ##s ! good bad film
fn small_tokenizer() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\nd\n##s\n!\ngood\nbad\nfilm\n";
    fs::write(folder.path().join("vocab.txt"), vocab).unwrap();
    folder
}

fn text_reading(folder: &Path) -> Reading {
    Reading { tokenizer: Some(folder.to_path_buf()), max_length: 16, vocabulary: Some(14), ..Reading::default() }
}

// ---------------------------------------------------------------------------------------------- real data

#[test]
fn mnist_is_read_as_published() {
    let Some(folder) = shared("data/mnist") else { return };
    let spec = format!("mnist:{}", folder.display());
    let test = load(&spec, "test", &Reading::default()).unwrap();
    let train = load(&spec, "train", &Reading::default()).unwrap();
    assert_eq!((train.len(), test.len()), (20_000, 5_000));
    let labels = classes(&*test);
    assert_eq!(labels[..10], [7, 1, 4, 4, 5, 0, 9, 1, 9, 3]);
    let counts: Vec<usize> = (0..10).map(|class| labels.iter().filter(|&&label| label == class).count()).collect();
    assert_eq!(counts, [451, 591, 501, 511, 480, 458, 499, 519, 466, 524]);
    assert_eq!(classes(&*train)[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);

    // The first image's bytes sum to 18454 and begin, at pixel 202, with 84 185 159.
    let batch = test.batch(&[0, 3], 3, 0);
    assert_eq!(
        (batch.rows, batch.inputs[0].name, batch.inputs[0].shape.as_slice()),
        (3, "pixel_values", &[3, 784][..])
    );
    let pixels = real(&batch);
    let sum: f64 = pixels[..784].iter().map(|&pixel| f64::from(pixel)).sum();
    assert!((sum * 255.0 - 18454.0).abs() <= 0.01, "{sum}");
    assert_eq!(pixels[201..205], [0.0, 84.0 / 255.0, 185.0 / 255.0, 159.0 / 255.0]);
    assert!(pixels[2 * 784..].iter().all(|&pixel| pixel == 0.0));
    assert_eq!(batch.targets, Targets::Classes(vec![7, 4, 0]));

    if let Some(model) = shared("models/lenet-300-100-mnist") {
        let how = Reading { preprocess: Preprocess::load(&model).unwrap(), ..Reading::default() };
        let scaled = load(&spec, "test", &how).unwrap();
        let batch = scaled.batch(&[0], 1, 0);
        assert!((real(&batch)[0] - (0.0 - 0.1307) / 0.3081).abs() <= 1e-6);
        assert!((real(&batch)[202] - (84.0 / 255.0 - 0.1307) / 0.3081).abs() <= 1e-6);
        assert_ne!(scaled.fingerprint(), test.fingerprint());
    }
    let five = Reading { labels: Some(data::labels::unnamed(5)), ..Reading::default() };
    fails(&spec, "test", &five, &["t10k-labels-idx1-ubyte.gz: item 0", "label 7", "0..=4"]);
}

#[test]
fn limits_keep_the_first_or_a_seeded_choice() {
    let Some(folder) = shared("data/mnist") else { return };
    let with = |options: &str| {
        let data =
            load(&format!("mnist:{}?split=test{options}", folder.display()), "train", &Reading::default()).unwrap();
        (classes(&*data), data.fingerprint())
    };
    assert_eq!(with("&limit=10").0, [7, 1, 4, 4, 5, 0, 9, 1, 9, 3]);
    let (first, first_print) = with("&limit=200&seed=1");
    assert_eq!(first.len(), 200);
    assert_eq!(with("&limit=200&seed=1"), (first.clone(), first_print.clone()));
    assert_ne!(with("&limit=200&seed=2"), (first, first_print));
    assert_eq!(with("&limit=9999999").0.len(), 5000);
}

/// Counts and first labels as the files' own lines have them.
#[test]
fn every_glue_task_is_read_from_its_real_files() {
    let (Some(text), Some(model)) = (shared("data/text"), shared("models/minilm-l6-v2")) else { return };
    let how = Reading { tokenizer: Some(model), vocabulary: Some(30522), ..Reading::default() };
    let cases: [(&str, &str, usize, &[i32], usize); 7] = [
        ("sst2", "SST-2", 872, &[1, 0, 1, 1, 0, 1], 2),
        ("cola", "CoLA", 527, &[1, 1, 1, 1, 0, 0], 2),
        ("mrpc", "MRPC", 408, &[0, 0, 1, 0, 1, 0], 2),
        ("qqp", "QQP", 3000, &[1, 0, 1, 0, 1, 0], 2),
        ("mnli", "MNLI", 1300, &[0, 2, 2, 0, 1, 0], 3),
        ("qnli", "QNLI", 800, &[0, 1, 1, 0, 1, 1], 2),
        ("rte", "RTE", 277, &[1, 0, 1, 1, 0, 0], 2),
    ];
    for (task, folder, count, first, outputs) in cases {
        let data = load(&format!("glue/{task}:{}", text.join(folder).display()), "test", &how).unwrap();
        assert_eq!(data.len(), count, "{task}");
        assert_eq!(classes(&*data)[..6], *first, "{task}");
        assert_eq!(names(&*data).len(), outputs, "{task}");
    }
    let stsb = load(&format!("glue/stsb:{}", text.join("STS-B").display()), "test", &how).unwrap();
    assert_eq!((stsb.len(), stsb.task()), (1500, &Task::Regression));
    let batch = stsb.batch(&[0, 1, 5], 4, 0);
    assert_eq!(batch.targets, Targets::Scores(vec![5.0, 4.75, 2.615, 0.0]));
    // "A man with a hard hat is dancing." "A man wearing a hard hat is dancing."; ids by Hugging Face's tokenizers.
    let first = [
        101, 1037, 2158, 2007, 1037, 2524, 6045, 2003, 5613, 1012, 102, 1037, 2158, 4147, 1037, 2524, 6045, 2003, 5613,
        1012, 102,
    ];
    assert_eq!(ids(&*stsb, 0), first);
    assert_eq!(index(&batch, "token_type_ids")[..24], [[0; 11].as_slice(), &[1; 10], &[0; 3]].concat());
    assert_eq!(index(&batch, "attention_mask")[..24], [[1; 21].as_slice(), &[0; 3]].concat());

    let sst2 = load(&format!("glue/sst2:{}", text.join("SST-2").display()), "train", &how).unwrap();
    assert_eq!(sst2.len(), 67_349);
    assert_eq!(classes(&*sst2).iter().filter(|&&class| class == 1).count(), 37_569);
    let cola = load(&format!("glue/cola:{}?split=validation", text.join("CoLA").display()), "train", &how).unwrap();
    assert_eq!(ids(&*cola, 0), [101, 1996, 11279, 8469, 1996, 9478, 3154, 1997, 1996, 5749, 1012, 102]);
}

#[test]
fn reviews_and_running_text_are_read() {
    let (Some(text), Some(model)) = (shared("data/text"), shared("models/minilm-l6-v2")) else { return };
    let how = Reading { tokenizer: Some(model), vocabulary: Some(30522), ..Reading::default() };
    let imdb = load(&format!("text:{}", text.join("IMDb").display()), "test", &how).unwrap();
    assert_eq!((imdb.len(), names(&*imdb)), (1000, vec!["0".to_string(), "1".to_string()]));
    assert_eq!(classes(&*imdb).iter().sum::<i32>(), 500);
    assert!((0..imdb.len()).all(|i| imdb.length(i) <= 128));
    let yelp = load(&format!("text:{}", text.join("Yelp5/test.jsonl").display()), "test", &how).unwrap();
    assert_eq!((yelp.len(), names(&*yelp).len()), (1000, 5));
    assert_eq!(classes(&*yelp)[..8], [2, 3, 3, 3, 0, 0, 2, 4]);

    let wiki = load(&format!("lm:{}", text.join("WikiText-2/valid.txt").display()), "test", &how).unwrap();
    // Hugging Face's tokenizers make 260172 ids of its lines: 2064 pieces of 126 between [CLS] and [SEP], and one of 108.
    assert_eq!(wiki.len(), 2065);
    assert_eq!((wiki.length(0), wiki.length(2064)), (128, 110));
    let batch = wiki.batch(&[0], 1, EVALUATION);
    let Targets::Tokens(wanted) = &batch.targets else { panic!("{:?}", batch.targets) };
    let text = [1027, 7570, 7849, 2271, 13091, 7946, 1027, 7570, 7849, 2271, 13091, 7946, 1010, 2124, 2004];
    for (i, id) in text.into_iter().enumerate() {
        assert!(wanted[i + 1] == id || (wanted[i + 1] == NOT_SCORED && index(&batch, "input_ids")[i + 1] == id));
    }
}

#[test]
fn tokens_are_those_of_hugging_face() {
    let Some(model) = shared("models/minilm-l6-v2") else { return };
    // Without tokenizer.json the same ids have to come from the vocabulary.
    let bare = tempfile::tempdir().unwrap();
    fs::copy(model.join("vocab.txt"), bare.path().join("vocab.txt")).unwrap();
    for folder in [model.as_path(), bare.path()] {
        let tokenizer = Tokenizer::load(folder).unwrap();
        assert_eq!((tokenizer.vocabulary(), tokenizer.pad, tokenizer.mask), (30522, 0, Some(103)));
        assert_eq!(tokenizer.special, [0, 100, 101, 102, 103]);
        assert_eq!(tokenizer.frame, (vec![101], vec![102]));
        let check = |first: &str, second: Option<&str>, max_length: usize, ids: &[u32], second_at: usize| {
            let sequences = tokenizer.encode(&[(first, second)], max_length, true).unwrap();
            assert_eq!(sequences.ids(0), ids, "{first}");
            let types: Vec<u8> = (0..ids.len()).map(|i| u8::from(i >= second_at)).collect();
            assert_eq!(sequences.types(0), types, "{first}");
        };
        check(
            "it 's a charming and often affecting journey . ",
            None,
            128,
            &[101, 2009, 1005, 1055, 1037, 11951, 1998, 2411, 12473, 4990, 1012, 102],
            99,
        );
        check(
            "A plane is taking off.",
            Some("An air plane is taking off."),
            128,
            &[101, 1037, 4946, 2003, 2635, 2125, 1012, 102, 2019, 2250, 4946, 2003, 2635, 2125, 1012, 102],
            8,
        );
        check(
            "Thür's Arsinöe: antidisestablishmentarianism 東京 €5 \u{200b} naïve",
            None,
            128,
            &[
                101, 16215, 3126, 1005, 1055, 29393, 5740, 2063, 1024, 3424, 10521, 4355, 7875, 13602, 3672, 12199,
                2964, 1879, 1755, 1574, 2629, 15743, 102,
            ],
            99,
        );
        check(
            "Danny Kennedy, Greenpeace campaigns director, said: \"The burden of proof in the Scott Parkin expulsion case \
             lies morally with the Commonwealth.\"",
            Some("Greenpeace director said that peace is terrorism."),
            16,
            &[101, 6266, 5817, 1010, 2665, 5051, 10732, 8008, 102, 2665, 5051, 10732, 2472, 2056, 2008, 102],
            9,
        );
        check(
            "one two",
            Some("three four five six seven eight nine ten eleven twelve"),
            11,
            &[101, 2028, 2048, 102, 2093, 2176, 2274, 2416, 2698, 2809, 102],
            4,
        );
        check("one two three four five six seven eight", None, 8, &[101, 2028, 2048, 2093, 2176, 2274, 2416, 102], 99);
        check("a [SEP] b [MASK] c", None, 8, &[101, 1037, 102, 1038, 103, 1039, 102], 99);
        check("", None, 8, &[101, 102], 99);
        assert_eq!(tokenizer.plain("a plane").unwrap(), [1037, 4946]);
        assert!(tokenizer.encode(&[("a", None)], 4, true).is_err());
    }
    // Cased, with accents kept: most words are then unknown.
    fs::write(bare.path().join("tokenizer_config.json"), r#"{"do_lower_case": false}"#).unwrap();
    let cased = Tokenizer::load(bare.path()).unwrap();
    assert_eq!(cased.plain("Thür's Plane naïve").unwrap(), [100, 1005, 1055, 100, 100]);
}

// ------------------------------------------------------------------------------------ hand-written files

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
    assert_eq!(scores.batch(&[1, 0], 2, 0).targets, Targets::Scores(vec![-2.0, 0.5]));
    assert_eq!(index(&scores.batch(&[1, 0], 2, 0), "input_ids")[..5], [2, 5, 1, 8, 3]);

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
    let batch = data.batch(&[0, 1], 2, 0);
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
    fails("digits:10", "train", &Reading { preprocess: three, ..Reading::default() }, &["1 channels", "config.json 3"]);
    fails("digits:10?split=extra", "train", &how, &["no split `extra`"]);
    fails(
        "digits:10",
        "train",
        &Reading { labels: Some(data::labels::unnamed(2)), ..Reading::default() },
        &["2 outputs"],
    );
    fails("digits:99999999999999999", "train", &how, &["do not fit in memory"]);
}

// ----------------------------------------------------------------------------------------------- batches

#[test]
fn batches_cover_an_epoch_and_resume_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_tokenizer();
    let path = folder.path().join("a.tsv");
    let lines: String = (0..103).map(|i| format!("{}\t{}\n", "a b c d ".repeat(1 + i * 7 % 4), i % 3)).collect();
    fs::write(&path, format!("text\tlabel\n{lines}")).unwrap();
    let data = load(&format!("text:{}", path.display()), "train", &text_reading(model.path())).unwrap();
    let run = |seed, from| Batches::shuffled(&*data, 10, seed, from).unwrap().collect::<Vec<Batch>>();
    let start = Cursor { epoch: 3, batch: 0 };
    let whole = run(5, start);
    assert_eq!(whole.len(), 11);
    let mut seen: Vec<usize> = whole.iter().flat_map(|batch| batch.examples.clone()).collect();
    assert_ne!(seen, run(5, Cursor { epoch: 4, batch: 0 }).iter().flat_map(|b| b.examples.clone()).collect::<Vec<_>>());
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..103));
    for (i, batch) in whole.iter().enumerate() {
        let width = batch.inputs[0].shape[1];
        assert_eq!((batch.rows, batch.examples.len()), (10, if i == 10 { 3 } else { 10 }));
        assert!(width % 8 == 0 && width <= 16 && batch.inputs.iter().all(|input| input.shape == [10, width]));
        assert!(index(batch, "attention_mask")[batch.examples.len() * width..].iter().all(|&mask| mask == 0));
    }
    assert_eq!(whole, run(5, start));
    for stop in 0..=11 {
        let mut broken = Batches::shuffled(&*data, 10, 5, start).unwrap();
        assert_eq!(broken.by_ref().take(stop).count(), stop);
        let cursor = broken.cursor();
        if stop == 11 {
            assert_eq!(cursor, Cursor { epoch: 4, batch: 0 });
        } else {
            assert_eq!((cursor, run(5, cursor)), (Cursor { epoch: 3, batch: stop }, whole[stop..].to_vec()));
        }
    }
    let cursor = Cursor { epoch: 2, batch: 12 };
    assert!(Batches::shuffled(&*data, 10, 5, cursor).err().unwrap().to_string().contains("11 batches of 10"));
    assert!(matches!(Batches::in_order(&*data, 0), Err(Error::Usage { .. })));

    let ordered: Vec<usize> = Batches::in_order(&*data, 10).unwrap().flat_map(|batch| batch.examples).collect();
    assert!(ordered.windows(2).all(|pair| data.length(pair[0]) >= data.length(pair[1])));
    assert_eq!(ordered.len(), 103);
    let images = load("digits:25?seed=2", "train", &Reading::default()).unwrap();
    let ordered: Vec<usize> = Batches::in_order(&*images, 10).unwrap().flat_map(|batch| batch.examples).collect();
    assert!(ordered.into_iter().eq(0..25));
}

#[test]
fn masking_is_a_function_of_seed_epoch_and_example() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_tokenizer();
    let path = folder.path().join("a.txt");
    fs::write(&path, "a b c d good bad film\n\nfilms ! a b c d [SEP]\n".repeat(800)).unwrap();
    let how = Reading { max_length: 42, with_types: false, ..text_reading(model.path()) };
    let spec = format!("lm:{}", path.display());
    let data = load(&spec, "train", &how).unwrap();
    // 15 tokens a repeat, 40 of them a piece.
    assert_eq!((data.len(), data.length(0), data.task()), (300, 42, &Task::MaskedLm));
    assert!(data.changes_with_epoch());
    let all: Vec<usize> = (0..300).collect();
    let batch = data.batch(&all, 301, 1);
    assert_eq!(batch.inputs.len(), 2);
    let Targets::Tokens(wanted) = &batch.targets else { panic!("{:?}", batch.targets) };
    let (ids, width) = (index(&batch, "input_ids"), 42);
    assert_eq!(wanted.len(), 301 * width);
    let (mut scored, mut hidden, mut kept, mut changed) = (0, 0, 0, 0);
    for (at, (&id, &target)) in ids.iter().zip(wanted).enumerate() {
        if target != NOT_SCORED {
            assert!(target > 4 && at < 300 * width, "special tokens and padding are never scored");
            scored += 1;
            match id {
                4 => hidden += 1,
                id if id == target => kept += 1,
                _ => changed += 1,
            }
        }
    }
    // 15 % of 37 or 38 ordinary tokens a piece: 6 of each. A random token is the right one in 1 of 14 cases.
    assert_eq!(scored, 300 * 6);
    let share = |n: i32| f64::from(n) / f64::from(scored);
    assert!((share(hidden) - 0.8).abs() <= 0.04, "{hidden} of {scored}");
    assert!((share(kept) - 0.107).abs() <= 0.03 && (share(changed) - 0.093).abs() <= 0.03, "{kept} {changed}");

    // The same example in another batch, in another place.
    let alone = data.batch(&[7], 1, 1);
    assert_eq!(index(&alone, "input_ids"), &ids[7 * width..8 * width]);
    assert_ne!(data.batch(&[7], 1, 2), alone);
    assert_ne!(data.batch(&[7], 1, EVALUATION), alone);
    assert_ne!(load(&format!("{spec}?seed=9"), "train", &how).unwrap().batch(&[7], 1, 1), alone);
    let other = load(&spec, "train", &Reading { seed: 9, ..how.clone() }).unwrap();
    assert_ne!(other.fingerprint(), data.fingerprint());
    let few = load(&format!("{spec}?limit=3"), "train", &how).unwrap();
    assert_eq!((few.len(), few.batch(&[2], 1, 1).inputs), (3, data.batch(&[2], 1, 1).inputs));
}

// ----------------------------------------------------------------------------------------------- parquet

/// A parquet file with the columns sentence (text), pair (a group) and label (64-bit), in two row groups.
#[cfg(feature = "parquet")]
fn parquet_file(rows: &[(&str, i64)]) -> Vec<u8> {
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::writer::SerializedFileWriter;
    let schema = "message schema { required binary sentence (UTF8); required int64 label; }";
    let schema = parquet::schema::parser::parse_message_type(schema).unwrap();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema.into(), Default::default()).unwrap();
    for group in rows.chunks(rows.len().div_ceil(2)) {
        let mut columns = writer.next_row_group().unwrap();
        let mut column = columns.next_column().unwrap().unwrap();
        let texts: Vec<ByteArray> = group.iter().map(|(text, _)| ByteArray::from(*text)).collect();
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
        let mut column = columns.next_column().unwrap().unwrap();
        let labels: Vec<i64> = group.iter().map(|&(_, label)| label).collect();
        column.typed::<Int64Type>().write_batch(&labels, None, None).unwrap();
        column.close().unwrap();
        columns.close().unwrap();
    }
    writer.into_inner().unwrap()
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

// ------------------------------------------------------------------------------------------ arbitrary bytes

fn any_columns(_: &str, names: &[String]) -> fipk::Result<table::Columns> {
    Ok(table::Columns { keep: (0..names.len().min(2)).collect(), headless: false })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_a_table_reader_panic(text in "[\\PC\n\r\t,\"{}:\\[\\]0-9]{0,200}") {
        for bad in [BadLines::Refuse, BadLines::Skip] {
            for parse in [table::csv, table::tsv, table::jsonl] {
                if let Ok(table) = parse(&text, "f", &any_columns, bad) {
                    prop_assert!(!table.rows.is_empty());
                    prop_assert!(table.rows.iter().all(|row| row.cells.iter().all(|cell| !cell.trim().is_empty())));
                }
            }
        }
    }

    #[test]
    fn csv_gives_back_what_was_quoted(rows in prop::collection::vec(("[a,\"\r\n]{0,9}x", "[a,\"\r\n]{0,9}x"), 1..9)) {
        let quote = |cell: &str| format!("\"{}\"", cell.replace('"', "\"\""));
        let lines: String = rows.iter().map(|(a, b)| format!("{},{}\r\n", quote(a), quote(b))).collect();
        let table = table::csv(&format!("p,q\n{lines}"), "f", &any_columns, BadLines::Refuse).unwrap();
        let cells: Vec<(String, String)> = table.rows.into_iter().map(|row| (row.cells[0].clone(), row.cells[1].clone())).collect();
        prop_assert_eq!(cells, rows);
    }

    #[test]
    fn no_bytes_make_the_idx_reader_panic(head in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let bytes = if head { [&[0, 0, 8, 3, 0, 0, 0][..], &bytes].concat() } else { bytes };
        for rank in [1, 3] {
            if let Ok(idx) = data::idx::parse(&bytes, rank, "f") {
                prop_assert_eq!(idx.dimensions.iter().product::<usize>(), idx.bytes.len());
            }
        }
    }

    #[test]
    fn no_bytes_make_the_file_reader_panic(head in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let bytes = if head { [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &bytes].concat() } else { bytes };
        let folder = tempfile::tempdir().unwrap();
        for name in ["f.gz", "f.txt"] {
            fs::write(folder.path().join(name), &bytes).unwrap();
            if let Err(error) = data::files::read_text(&folder.path().join(name)) {
                prop_assert!(error.to_string().contains(name));
            }
        }
    }

    #[test]
    fn no_spec_makes_the_parser_panic(text in "(mnist|digits|glue/sst2|text|lm|\\PC{0,5}):?\\PC{0,9}(\\?(limit|seed|labels|\\PC)=?\\PC{0,5}&?){0,2}") {
        if let Ok(spec) = text.parse::<Spec>() {
            prop_assert_eq!(spec.to_string(), text);
        }
    }
}

#[cfg(feature = "parquet")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_bytes_make_the_parquet_reader_panic(cut in any::<bool>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.parquet");
        let mut damaged = parquet_file(&[("a good film", 1), ("bad", 0), ("a", 1)]);
        for (at, byte) in &changes {
            let at = at.index(damaged.len());
            damaged[at] = *byte;
        }
        if cut {
            damaged.truncate(changes[0].0.index(damaged.len()));
        }
        for bytes in [damaged, [b"PAR1", bytes.as_slice(), b"PAR1"].concat()] {
            fs::write(&path, bytes).unwrap();
            if let Err(error) = table::read(&path, &any_columns, BadLines::Refuse) {
                prop_assert!(error.to_string().contains("f.parquet"));
            }
        }
    }
}
