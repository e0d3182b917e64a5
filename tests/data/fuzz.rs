//! Arbitrary bytes: every reader answers with data or with an error, never with a panic.
use super::*;

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
