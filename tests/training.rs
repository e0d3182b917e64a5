//! Training against PyTorch in float64, losses and final weights: AdamW on a tiny BERT, and SGD on a network whose batch
//! norms take the statistics of their batches.
use fipk::data::{Batch, Input, Targets, Values};
use fipk::engine::{Clip, Engine, Host, Optimizer, Pull, Update};
use fipk::fip::recipe::{BatchNorms, Objective};
use fipk::fip::runner::Runner;
use fipk::models::{ModelFolder, Network};
use fipk::params::weights::Weights;
use fipk::params::{Layout, Roles};
use std::path::PathBuf;

fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(path)
}

fn bytes<'a>(file: &'a Weights, name: &str) -> &'a [u8] {
    file.bytes(name).unwrap_or_else(|| panic!("{name} is in the golden"))
}

fn ints(file: &Weights, name: &str) -> Vec<i32> {
    let words = bytes(file, name).as_chunks::<8>().0;
    words.iter().map(|b| i32::try_from(i64::from_le_bytes(*b)).unwrap()).collect()
}

fn doubles(file: &Weights, name: &str) -> Vec<f64> {
    bytes(file, name).as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

#[test]
fn ten_steps_of_adamw_go_as_in_pytorch() {
    let (inputs, expected) = (golden("training/inputs.safetensors"), golden("training/expected.safetensors"));
    let (inputs, expected) = (Weights::open_file(&inputs).unwrap(), Weights::open_file(&expected).unwrap());
    let folder = ModelFolder::open_dir(&golden("bert_classify_gelu")).unwrap();
    let network = Network::new(folder.config.clone(), folder.head(None).unwrap()).unwrap();
    let layout = Layout::trained(&network.params().unwrap());
    let weights = network.load(&folder, &layout, None).unwrap();
    let mut host = Host::new(layout.clone()).poisoned();
    let [w, g, m, v] = std::array::from_fn(|_| host.zeros().unwrap());
    host.write(w, 0, &weights).unwrap();
    let objective = Objective { distance: 0.0, labels: 1.0, ..Objective::default() };
    let mut runner = Runner::new(Box::new(host), network, objective);

    let (rows, seq) = (4, 13);
    let labels = ints(&inputs, "labels");
    let losses = doubles(&expected, "losses");
    let order = ints(&inputs, "batches");
    assert_eq!((order.len(), losses.len()), (10 * rows, 10));
    for (step, chosen) in order.chunks(rows).enumerate() {
        let pick = |name: &'static str| {
            let all = ints(&inputs, name);
            let values = chosen.iter().flat_map(|&i| all[i as usize * seq..][..seq].to_vec()).collect();
            Input { name, shape: vec![rows, seq], values: Values::Index(values) }
        };
        let batch = Batch {
            examples: chosen.iter().map(|&i| i as usize).collect(),
            rows,
            inputs: vec![pick("input_ids"), pick("attention_mask"), pick("token_type_ids")],
            targets: Targets::Classes(chosen.iter().map(|&i| labels[i as usize]).collect()),
        };
        let found = runner.gradient(w, g, &batch, None, false).unwrap().loss;
        let error = (found - losses[step]).abs() / losses[step];
        assert!(error <= 1e-5, "step {step}: loss {found}, PyTorch has {}", losses[step]);
        let update = Update {
            optimizer: Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.01 },
            step: step as u64 + 1,
            learning_rate: 1e-3,
            gradient_scale: 1.0,
            w,
            g,
            m,
            v: Some(v),
            mask: None,
            pull: Pull::None,
            census: None,
        };
        runner.engine.update(&update).unwrap();
    }

    let mut last = vec![0.0; layout.len()];
    runner.engine.read(w, 0, &mut last).unwrap();
    let finals: Vec<&str> = expected.names().filter(|n| n.starts_with("final.")).collect();
    assert_eq!(finals.len(), 5);
    for name in finals {
        let span = layout.span(name.trim_start_matches("final.")).unwrap();
        let want = doubles(&expected, name);
        let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        for (got, want) in last[span.range()].iter().zip(&want) {
            let error = (f64::from(*got) - want).abs();
            assert!(error <= 1e-5 * scale, "{name}: {got}, PyTorch has {want}");
        }
    }
}

fn floats(file: &Weights, name: &str) -> Vec<f32> {
    bytes(file, name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn batch_norms_train_as_in_pytorch() {
    let file = |name: &str| Weights::open_file(&golden(&format!("batch_norm_training/{name}.safetensors"))).unwrap();
    let (inputs, expected) = (file("inputs"), file("expected"));
    let folder = ModelFolder::open_dir(&golden("vgg_bn")).unwrap();
    let network = Network::new(folder.config.clone(), folder.head(None).unwrap()).unwrap();
    let params = network.params().unwrap();
    let layout = Layout::new(&params, &Roles::default().resolve(&params).unwrap());
    let weights = network.load(&folder, &layout, None).unwrap();
    let mut host = Host::new(layout.clone()).poisoned();
    let [w, g, m] = std::array::from_fn(|_| host.zeros().unwrap());
    host.write(w, 0, &weights).unwrap();
    let objective = Objective { distance: 0.0, labels: 1.0, batch_norm: BatchNorms::Running, ..Objective::default() };
    let mut runner = Runner::new(Box::new(host), network, objective);

    let (rows, each) = (4, 3 * 12 * 12);
    let (pixels, labels) = (floats(&inputs, "pixel_values"), ints(&inputs, "labels"));
    let losses = doubles(&expected, "losses");
    let order = ints(&inputs, "batches");
    assert_eq!((order.len(), losses.len()), (6 * rows, 6));
    for (step, chosen) in order.chunks(rows).enumerate() {
        let values = chosen.iter().flat_map(|&i| pixels[i as usize * each..][..each].to_vec()).collect();
        let pixels = Input { name: "pixel_values", shape: vec![rows, 3, 12, 12], values: Values::Real(values) };
        let batch = Batch {
            examples: chosen.iter().map(|&i| i as usize).collect(),
            rows,
            inputs: vec![pixels],
            targets: Targets::Classes(chosen.iter().map(|&i| labels[i as usize]).collect()),
        };
        let update = Update {
            optimizer: Optimizer::Sgd { momentum: 0.9, decay: 0.0 },
            step: step as u64 + 1,
            learning_rate: 0.02,
            gradient_scale: 1.0,
            w,
            g,
            m,
            v: None,
            mask: None,
            pull: Pull::None,
            census: None,
        };
        let (found, _) = runner.step(&batch, None, false, &update, &Clip { mean: 1.0, limit: 0.0 }).unwrap();
        let error = (found.loss - losses[step]).abs() / losses[step];
        assert!(error <= 1e-4, "step {step}: loss {}, PyTorch has {}", found.loss, losses[step]);
    }

    let mut last = vec![0.0; layout.len()];
    runner.engine.read(w, 0, &mut last).unwrap();
    assert_eq!(expected.names().filter(|n| n.starts_with("final.")).count(), layout.spans().len());
    for span in layout.spans() {
        let want = doubles(&expected, &format!("final.{}", span.name));
        // A convolution's bias before a batch norm has a gradient of zero: what it drifts by is rounding.
        let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        for (got, want) in last[span.range()].iter().zip(&want) {
            let error = (f64::from(*got) - want).abs();
            assert!(error <= 1e-4 * scale, "{}: {got}, PyTorch has {want}", span.name);
        }
    }
}
