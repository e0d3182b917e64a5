//! Networks at another size of images than their own, and layers of outputs that are drawn anew.
use fipk::data::{Batch, Input, Targets, Values};
use fipk::engine::{Engine, Host};
use fipk::fip::recipe::Objective;
use fipk::fip::runner::Runner;
use fipk::models::config::Config;
use fipk::models::{Head, ModelFolder, Network};
use fipk::params::Layout;
use fipk::params::weights::Weights;
use std::collections::BTreeSet;
use std::path::PathBuf;

fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(path)
}

fn doubles(file: &Weights, name: &str) -> Vec<f64> {
    file.bytes(name).unwrap().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

fn at_size(folder: &ModelFolder, size: (usize, usize)) -> Network {
    let (config, _) = folder.config.at_size("config.json", &folder.raw, size, true).unwrap();
    Network::new(config, folder.head(None).unwrap()).unwrap()
}

/// `transformers` interpolates the positions in the network, with `interpolate_pos_encoding`; here they are when they
/// are loaded, and the network is one for such images.
#[test]
fn a_vit_at_another_size_is_transformers_with_interpolated_positions() {
    let at = golden("vit_interpolated");
    let folder = ModelFolder::open_dir(&at).unwrap();
    let network = at_size(&folder, (12, 20));
    let layout = Layout::trained(&network.params().unwrap());
    assert_eq!(layout.span("vit.embeddings.position_embeddings").unwrap().shape, [1, 1 + 3 * 5, 16]);
    let weights = network.load(&folder, &layout, None).unwrap();
    let inputs = Weights::open_file(&at.join("inputs.safetensors")).unwrap();
    let expected = Weights::open_file(&at.join("expected.safetensors")).unwrap();
    let rows = 2;
    let mut pixels = vec![0.0; rows * 3 * 12 * 20];
    inputs.read("pixel_values", &[rows, 3, 12, 20], &mut pixels).unwrap();
    let batch = Batch {
        examples: (0..rows).collect(),
        rows,
        inputs: vec![Input { name: "pixel_values", shape: vec![rows, 3, 12, 20], values: Values::Real(pixels) }],
        targets: Targets::Classes(vec![0; rows]),
    };
    let mut host = Host::new(layout).poisoned();
    let w = host.zeros().unwrap();
    host.write(w, 0, &weights).unwrap();
    let mut runner = Runner::new(Box::new(host), network, Objective::default());
    let got = runner.logits(w, &batch).unwrap();
    let want = doubles(&expected, "logits");
    assert_eq!((got.len(), want.len()), (rows * 3, rows * 3));
    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (got, want) in got.iter().zip(&want) {
        assert!((f64::from(*got) - want).abs() <= 2e-5 * scale, "{got} {want}");
    }
}

#[test]
fn the_own_size_changes_no_weight_and_others_keep_the_class_tokens_position() {
    for name in ["vit", "deit", "deit_with_teacher", "resnet_basic", "vgg"] {
        let folder = ModelFolder::open_dir(&golden(name)).unwrap();
        let own = Network::new(folder.config.clone(), folder.head(None).unwrap()).unwrap();
        let layout = Layout::trained(&own.params().unwrap());
        let weights = own.load(&folder, &layout, None).unwrap();
        let Some(fipk::models::Pixels::Image { height, width, .. }) = own.pixels() else { panic!("{name}") };
        let same = at_size(&folder, (height, width));
        assert_eq!(same.load(&folder, &layout, None).unwrap(), weights, "{name}");

        // A grid that is not square to begin with is the config's, not guessed: vit's images are 9 x 14.
        let other = at_size(&folder, (2 * height, width));
        let larger = Layout::trained(&other.params().unwrap());
        let moved = other.load(&folder, &larger, None).unwrap();
        for span in layout.spans() {
            let at = larger.span(&span.name).unwrap();
            let (before, after) = (&weights[span.range()], &moved[at.range()]);
            if span.name.ends_with("position_embeddings") {
                assert!(after.len() > before.len(), "{name}");
                let special = if name == "vit" { 1 } else { 2 } * span.shape[2];
                assert_eq!(before[..special], after[..special], "{name}");
            } else {
                assert_eq!(before, after, "{name}: {}", span.name);
            }
        }
    }
}

#[test]
fn networks_that_have_one_size_refuse_another() {
    for (name, says) in [("bert_regression", "reads text"), ("mlp", "pixels in a row"), ("lenet5", "one size")] {
        let folder = ModelFolder::open_dir(&golden(name)).unwrap();
        let error = folder.config.at_size("dir", &folder.raw, (32, 32), true).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(says), "{error}");
    }
    // Before it has weights, LeNet-5 takes any.
    let folder = ModelFolder::open_dir(&golden("lenet5")).unwrap();
    let (config, raw) = folder.config.at_size("c", &folder.raw, (40, 32), false).unwrap();
    assert_eq!((config, raw["image_size"].to_string()), (Config::from_raw("c", &raw).unwrap(), "[40,32]".into()));
    let vit = ModelFolder::open_dir(&golden("vit")).unwrap();
    let error = vit.config.at_size("c", &vit.raw, (3, 3), true).unwrap_err().to_string();
    assert!(error.contains("patch_size") && error.contains("(3, 3)"), "{error}");
}

const CLASSIFIERS: [&str; 12] = [
    "bert_classify_gelu",
    "distilbert_classify",
    "vit",
    "deit",
    "deit_with_teacher",
    "resnet_basic",
    "resnet_cifar",
    "vgg",
    "vgg_bn",
    "lenet5",
    "mlp",
    "bert_regression",
];

#[test]
fn layers_of_outputs_are_those_that_the_labels_size() {
    for name in CLASSIFIERS {
        let folder = ModelFolder::open_dir(&golden(name)).unwrap();
        let own = Network::new(folder.config.clone(), folder.head(None).unwrap()).unwrap();
        let head = Head::Classification { labels: own.head.outputs() + 4 };
        let raw = head.describe(&folder.config, &folder.raw, &[]);
        let other = Network::new(Config::from_raw("c", &raw).unwrap(), head).unwrap();
        let changed: BTreeSet<String> = own
            .params()
            .unwrap()
            .iter()
            .zip(other.params().unwrap())
            .filter(|(a, b)| a.shape != b.shape)
            .map(|(a, _)| a.name.rsplit_once('.').unwrap().0.to_string())
            .collect();
        let told: BTreeSet<String> = other.output_layers().into_iter().map(String::from).collect();
        assert_eq!(told, changed, "{name}");

        // They are drawn as for a network from nothing, with the same seed; everything else is the folder's.
        let layout = Layout::trained(&other.params().unwrap());
        let (got, anew) = (other.load_with_new_outputs(&folder, &layout, 7).unwrap(), other.initial(&layout, 7));
        let stored = own.load(&folder, &Layout::trained(&own.params().unwrap()), None).unwrap();
        let own_layout = Layout::trained(&own.params().unwrap());
        for span in layout.spans() {
            let drawn = told.contains(span.name.rsplit_once('.').map_or("", |n| n.0));
            let wanted = match drawn {
                true => &anew[span.range()],
                false => &stored[own_layout.span(&span.name).unwrap().range()],
            };
            assert_eq!(&got[span.range()], wanted, "{name}: {}", span.name);
        }
        assert_ne!(got, other.load_with_new_outputs(&folder, &layout, 8).unwrap(), "{name}");
    }
    let masked = ModelFolder::open_dir(&golden("bert_masked_lm")).unwrap();
    let masked = Network::new(masked.config.clone(), masked.head(None).unwrap()).unwrap();
    assert!(masked.output_layers().is_empty());
}
