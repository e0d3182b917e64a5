//! Running averages of batch norms along a run, against plain loops.
use fipk::data::{Batch, Input, Targets, Values};
use fipk::engine::{Engine, Host, Vector};
use fipk::fip::drift::second_order;
use fipk::fip::observed::Drawn;
use fipk::fip::recipe::{BatchNorms, Objective};
use fipk::fip::runner::Runner;
use fipk::geometry::{OnEngine, OutputMetric, Pullback, Space};
use fipk::models::{Config, Head, Network};
use fipk::params::{Layout, Roles};
use fipk::rng::Rng;

/// One convolution of three channels to two, its batch norm, and a classifier.
const CONFIG: &str = r#"{"model_type": "vgg", "features": [2], "batch_norm": true, "image_size": 4, "pool_size": 1,
    "hidden": [], "num_labels": 3}"#;

fn network() -> Network {
    let (config, _) = Config::parse("config.json", CONFIG.as_bytes()).unwrap();
    Network::new(config, Head::Classification { labels: 3 }).unwrap()
}

/// `examples` images of noise in a batch of `rows`; what is padding is zero.
fn batch(rows: usize, examples: usize, seed: u64) -> Batch {
    let mut rng = Rng::new(seed, 3);
    let mut pixels: Vec<f32> = (0..examples * 48).map(|_| 0.5 + rng.normal()).collect();
    pixels.resize(rows * 48, 0.0);
    Batch {
        examples: (0..examples).collect(),
        rows,
        inputs: vec![Input { name: "pixel_values", shape: vec![rows, 3, 4, 4], values: Values::Real(pixels) }],
        targets: Targets::Classes(vec![1; rows]),
    }
}

/// Mean and unbiased variance a channel of the convolution of a batch's first images.
fn moments(batch: &Batch, weight: &[f32], bias: &[f32]) -> [Vec<f64>; 2] {
    let Values::Real(x) = &batch.inputs[0].values else { panic!("pixels are real") };
    let mut found: Vec<Vec<f64>> = vec![Vec::new(); 2];
    for image in x.chunks(48).take(batch.examples.len()) {
        for (o, found) in found.iter_mut().enumerate() {
            for at in 0..16 {
                let (row, column) = (at / 4, at % 4);
                let mut sum = f64::from(bias[o]);
                for tap in 0..27 {
                    let (c, i, j) = (tap / 9, row + tap / 3 % 3, column + tap % 3);
                    if (1..5).contains(&i) && (1..5).contains(&j) {
                        let pixel = image[c * 16 + (i - 1) * 4 + j - 1];
                        sum += f64::from(weight[o * 27 + tap]) * f64::from(pixel);
                    }
                }
                found.push(sum);
            }
        }
    }
    let mean: Vec<f64> = found.iter().map(|y| y.iter().sum::<f64>() / y.len() as f64).collect();
    let variance =
        found.iter().zip(&mean).map(|(y, m)| y.iter().map(|y| (y - m) * (y - m)).sum::<f64>() / (y.len() - 1) as f64);
    [mean.clone(), variance.collect()]
}

struct Rig {
    runner: Runner,
    layout: Layout,
    weights: Vec<f32>,
    w: Vector,
}

fn rig(batch_norm: BatchNorms) -> Rig {
    let network = network();
    let params = network.params().unwrap();
    let layout = Layout::new(&params, &Roles::default().resolve(&params).unwrap());
    let mut weights = network.initial(&layout, 5);
    let bias = layout.span("features.0.bias").unwrap().range();
    weights[bias].copy_from_slice(&[0.3, -0.7]);
    let mut engine = Host::new(layout.clone()).poisoned();
    let w = engine.zeros().unwrap();
    engine.write(w, 0, &weights).unwrap();
    let objective = Objective { labels: 1.0, distance: 1.0, batch_norm, ..Objective::default() };
    Rig { runner: Runner::new(Box::new(engine), network, objective), layout, weights, w }
}

impl Rig {
    fn read(&self, name: &str) -> Vec<f64> {
        let span = self.layout.span(name).unwrap();
        let mut numbers = vec![0.0; span.len];
        self.runner.engine.read(self.w, span.at, &mut numbers).unwrap();
        numbers.into_iter().map(f64::from).collect()
    }
    fn moments(&self, batch: &Batch) -> [Vec<f64>; 2] {
        let of = |name: &str| &self.weights[self.layout.span(name).unwrap().range()];
        moments(batch, of("features.0.weight"), of("features.0.bias"))
    }
}

fn close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= 2e-6 * want.abs().max(1.0), "{got} {want}");
    }
}

#[test]
fn running_averages_follow_the_batches_of_training() {
    let mut rig = rig(BatchNorms::Running);
    let g = rig.runner.engine.zeros().unwrap();
    let (mut mean, mut variance) = (vec![0.0; 2], vec![1.0; 2]);
    // The second is padded, and padding is no image.
    for (seed, (rows, examples)) in [(4, 4), (4, 3)].into_iter().enumerate() {
        let batch = batch(rows, examples, seed as u64);
        rig.runner.gradient(rig.w, g, &batch, Some(vec![0.5; batch.rows * 3]), false).unwrap();
        let [m, v] = rig.moments(&batch);
        for c in 0..2 {
            mean[c] += 0.1 * (m[c] - mean[c]);
            variance[c] += 0.1 * (v[c] - variance[c]);
        }
        close(&rig.read("features.1.running_mean"), &mean);
        close(&rig.read("features.1.running_var"), &variance);
    }
}

#[test]
fn frozen_averages_stay_and_estimates_are_means_over_full_batches() {
    let mut rig = rig(BatchNorms::Frozen);
    let g = rig.runner.engine.zeros().unwrap();
    let batches = [batch(4, 4, 1), batch(4, 4, 2), batch(4, 2, 3)];
    rig.runner.gradient(rig.w, g, &batches[0], Some(vec![0.5; 12]), false).unwrap();
    close(&rig.read("features.1.running_mean"), &[0.0, 0.0]);
    close(&rig.read("features.1.running_var"), &[1.0, 1.0]);

    let all = batches.iter().cloned().map(Ok);
    rig.runner.reestimate(rig.w, all).unwrap();
    let found = [rig.moments(&batches[0]), rig.moments(&batches[1])];
    for (i, name) in ["features.1.running_mean", "features.1.running_var"].iter().enumerate() {
        let want: Vec<f64> = (0..2).map(|c| 0.5 * (found[0][i][c] + found[1][i][c])).collect();
        close(&rig.read(name), &want);
    }
    let none = [Ok(batches[2].clone())].into_iter();
    let refused = rig.runner.reestimate(rig.w, none).unwrap_err();
    assert!(refused.to_string().contains("no full batch"), "{refused}");
}

#[test]
fn a_predicted_drift_is_one_mean_however_the_rows_are_batched() {
    let mut rig = rig(BatchNorms::Frozen);
    let engine = &mut *rig.runner.engine;
    let other: Vec<f32> = rig.weights.iter().enumerate().map(|(i, w)| w + 0.01 * (i % 3) as f32).collect();
    let w = engine.zeros().unwrap();
    engine.write(w, 0, &other).unwrap();
    let network = network();
    // Batches that count differently: a mean over rows is none over batches.
    let batches = [batch(4, 4, 1), batch(4, 1, 2)];
    let drawn = Drawn { network: &network, batches: &batches };
    let found = second_order(&mut *engine, &drawn, (rig.w, w), true).unwrap();
    let mut map = OnEngine::new(&mut *engine, &drawn).unwrap();
    let mut way = map.copied(&w).unwrap();
    map.axpy(-1.0, &rig.w, &mut way).unwrap();
    for (got, kind) in [(found.fisher.unwrap(), OutputMetric::Fisher), (found.euclidean, OutputMetric::Euclidean)] {
        let want = 0.5 * Pullback::new(&mut map, &rig.w, kind).unwrap().squared(&way).unwrap();
        assert!(want > 0.0 && (got - want).abs() <= 1e-9 * want, "{got} {want}");
    }
}

#[test]
fn a_direction_has_a_number_for_each_weight_that_is_trained() {
    // 54 + 2 of the convolution, 4 of the norm and 9 of the classifier; the two running averages are no weights.
    for (freeze, dim) in [(vec![], 69), (vec!["features.*".to_string()], 9)] {
        let network = network();
        let params = network.params().unwrap();
        let roles = Roles { freeze, ..Roles::default() };
        let mut engine = Host::new(Layout::new(&params, &roles.resolve(&params).unwrap()));
        let batches = [batch(2, 2, 1)];
        let drawn = Drawn { network: &network, batches: &batches };
        let map = OnEngine::new(&mut engine, &drawn).unwrap();
        assert_eq!(map.dim(), dim);
    }
}
