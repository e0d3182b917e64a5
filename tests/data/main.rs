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

mod fuzz;
mod pictures;
mod processors;
mod real;
mod written;

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
    match data.batch(&all, all.len(), 0).unwrap().targets {
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
    let batch = data.batch(&[i], 1, 0).unwrap();
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

#[test]
fn batches_cover_an_epoch_and_resume_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_tokenizer();
    let path = folder.path().join("a.tsv");
    let lines: String = (0..103).map(|i| format!("{}\t{}\n", "a b c d ".repeat(1 + i * 7 % 4), i % 3)).collect();
    fs::write(&path, format!("text\tlabel\n{lines}")).unwrap();
    let data = load(&format!("text:{}", path.display()), "train", &text_reading(model.path())).unwrap();
    let run =
        |seed, from| Batches::shuffled(&*data, 10, seed, from).unwrap().collect::<fipk::Result<Vec<Batch>>>().unwrap();
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

    let ordered: Vec<usize> =
        Batches::in_order(&*data, 10).unwrap().flat_map(|batch| batch.unwrap().examples).collect();
    assert!(ordered.windows(2).all(|pair| data.length(pair[0]) >= data.length(pair[1])));
    assert_eq!(ordered.len(), 103);
    let images = load("digits:25?seed=2", "train", &Reading::default()).unwrap();
    let ordered: Vec<usize> =
        Batches::in_order(&*images, 10).unwrap().flat_map(|batch| batch.unwrap().examples).collect();
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
    let batch = data.batch(&all, 301, 1).unwrap();
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
    let alone = data.batch(&[7], 1, 1).unwrap();
    assert_eq!(index(&alone, "input_ids"), &ids[7 * width..8 * width]);
    assert_ne!(data.batch(&[7], 1, 2).unwrap(), alone);
    assert_ne!(data.batch(&[7], 1, EVALUATION).unwrap(), alone);
    assert_ne!(load(&format!("{spec}?seed=9"), "train", &how).unwrap().batch(&[7], 1, 1).unwrap(), alone);
    let other = load(&spec, "train", &Reading { seed: 9, ..how.clone() }).unwrap();
    assert_ne!(other.fingerprint(), data.fingerprint());
    let few = load(&format!("{spec}?limit=3"), "train", &how).unwrap();
    assert_eq!((few.len(), few.batch(&[2], 1, 1).unwrap().inputs), (3, data.batch(&[2], 1, 1).unwrap().inputs));
}
