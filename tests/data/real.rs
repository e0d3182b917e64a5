//! Counts, labels, pixels and tokens of real data sets, as their own files and other readers have them.
use super::*;

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
    let batch = test.batch(&[0, 3], 3, 0).unwrap();
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
        let batch = scaled.batch(&[0], 1, 0).unwrap();
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
    let batch = stsb.batch(&[0, 1, 5], 4, 0).unwrap();
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
    let batch = wiki.batch(&[0], 1, EVALUATION).unwrap();
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
