//! Arbitrary bytes: every reader answers with data or with an error, never with a panic.
use super::*;
use fipk::data::images::decode::decode;
use fipk::data::images::picture::Picture;
use fipk::data::images::resize::{Filter, resize};

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
    fn no_spec_makes_the_parser_panic(text in "(mnist|digits|cifar100|parquet|glue/sst2|text|lm|\\PC{0,5}):?\\PC{0,9}(\\?(limit|seed|labels|classes|augment|task|\\PC)=?\\PC{0,5}&?){0,2}") {
        if let Ok(spec) = text.parse::<Spec>() {
            prop_assert_eq!(spec.to_string(), text);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_bytes_make_the_picture_reader_panic(cut in any::<bool>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for name in ["rgb.png", "palette_transparent.png", "turned.png", "half_chroma.jpg", "progressive.jpg", "cmyk.jpg", "turned.jpg"] {
            let mut damaged = fs::read(pictures::golden(name)).unwrap();
            for (at, byte) in &changes {
                let at = at.index(damaged.len());
                damaged[at] = *byte;
            }
            if cut {
                damaged.truncate(changes[0].0.index(damaged.len()));
            }
            let headed = [&damaged[..damaged.len().min(8)], &bytes].concat();
            for bytes in [damaged, headed, bytes.clone()] {
                match decode(&bytes, &name) {
                    Ok(picture) => prop_assert_eq!(picture.bytes.len(), picture.channels * picture.height * picture.width),
                    Err(error) => prop_assert!(error.to_string().contains(name)),
                }
            }
        }
    }

    #[test]
    fn no_size_makes_resizing_panic(from in (1usize..40, 1usize..40), to in (1usize..40, 1usize..40), filter in 0u64..6, crop in (1usize..40, 1usize..40)) {
        let input = Picture { channels: 1, height: from.0, width: from.1, bytes: vec![77; from.0 * from.1] };
        let resized = resize(input, to, Filter::numbered(filter).unwrap());
        // An even grey stays what it is, whatever the kernel.
        prop_assert!(resized.size() == to && resized.bytes.iter().all(|&byte| byte == 77));
        let middle = resized.centre(crop);
        prop_assert_eq!(middle.bytes.iter().filter(|&&byte| byte == 77).count(), to.0.min(crop.0) * to.1.min(crop.1));
    }

    #[test]
    fn no_preprocessor_config_makes_its_reader_panic(key in "(do_)?(resize|size|resample|crop_pct|center_crop|crop_size|rescale|image_mean|image_std)", value in "(true|-?[0-9]{1,3}(.5)?|null|\"a\"|\\[[0-9, ]{0,4}\\]|\\{\"(height|width|shortest_edge)\": ?[0-9]{1,20}\\})") {
        if let Ok(map) = serde_json::from_str(&format!("{{\"{key}\": {value}}}"))
            && let Ok(preprocess) = Preprocess::from_map(&map, "f")
        {
            prop_assert_eq!(Preprocess::from_map(&preprocess.to_map(), "f").unwrap(), preprocess);
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
            let spec = format!("parquet:{}?image=sentence", path.display());
            prop_assert!(load(&spec, "train", &Reading::default()).err().unwrap().to_string().contains("f.parquet"));
        }
    }
}
