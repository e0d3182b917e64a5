//! A run as it might go: what the report is tried on.
use fipk::report::*;
use std::collections::BTreeMap;

/// Uniform in 0..1, the same on every machine.
pub fn noise(seed: u64) -> f64 {
    let mut x = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x >> 11) as f64 / (1u64 << 53) as f64
}

fn gauss(seed: u64) -> f32 {
    ((0..12).map(|i| noise(seed * 12 + i)).sum::<f64>() - 6.0) as f32
}

pub fn metrics(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs.iter().map(|&(name, value)| (name.to_string(), value)).collect()
}

pub fn layer(name: &str, shape: &[usize], prunable: bool, seed: u64, sparsity: f64) -> Layer {
    let parameters: usize = shape.iter().product();
    let scale = (2.0 / shape.last().copied().unwrap_or(1) as f32).sqrt();
    let before: Vec<f32> = (0..parameters).map(|i| scale * gauss(seed * 1_000_003 + i as u64)).collect();
    let mut sorted: Vec<f32> = before.iter().map(|w| w.abs()).collect();
    sorted.sort_by(f32::total_cmp);
    let cut = if prunable { sorted[((sorted.len() - 1) as f64 * sparsity) as usize] } else { 0.0 };
    let after: Vec<f32> = before.iter().map(|&w| if w.abs() < cut { 0.0 } else { w * 1.08 }).collect();
    let zeros = if prunable { (parameters as f64 * sparsity).round() as u64 } else { 0 };
    Layer {
        name: name.into(),
        shape: shape.to_vec(),
        parameters: parameters as u64,
        zeros,
        prunable,
        histogram: Some(Histogram::of(&before, &after, 60)),
        filters: Vec::new(),
    }
}

/// A sparsification of LeNet-300-100 as it might go.
pub fn synthetic(steps: u64) -> Vec<Event> {
    let mut events: Vec<Event> = vec![
        Start {
            command:
                "fipk sparsify --model runs/lenet --data mnist:data/mnist --sparsity 0.9 --method fip --out runs/a"
                    .into(),
            method: "fip".into(),
            model: "runs/lenet (mlp 784-300-100-10)".into(),
            data: "mnist:data/mnist, 60000 examples".into(),
            seed: 17,
            threads: 2,
            device: "cpu".into(),
            version: "0.1.0".into(),
            parameters: 266_610,
            prunable: 265_200,
            step: String::new(),
            target_sparsity: Some(0.9),
            ..Start::default()
        }
        .into(),
    ];
    let eval = |step, network, accuracy: f64, distance, sparsity| Eval {
        step,
        split: "test".into(),
        network,
        metrics: metrics(&[("accuracy", accuracy), ("loss", 4.0 * (1.0 - accuracy))]),
        distance,
        sparsity,
    };
    events.push(eval(0, Network::Dense, 0.9821, None, 0.0).into());
    for step in 1..=steps {
        let t = step as f64 / steps as f64;
        let ramp = 0.9 * (1.0 - (1.0 - t).powi(3));
        let distance = 0.004 + 0.02 * ramp * (1.0 + 0.5 * noise(step)) * (1.2 - t);
        let event = Step {
            step,
            steps,
            epoch: step as f64 * 128.0 / 60_000.0,
            loss: distance + 0.3 * (1.0 - t).powi(2) + 0.02 * noise(step + 7),
            distance: Some(distance),
            pull: Some(12.0 * (-6.0 * t).exp() + 0.01),
            pull_relative: Some(0.4 * (-6.0 * t).exp() + 0.0004),
            sparsity_target: Some(ramp),
            learning_rate: 1e-3 * (step as f64 / (0.05 * steps as f64)).min(1.0) * (1.0 - t).max(0.0),
            gradient_norm: 0.2 + 0.6 * noise(step + 99) * (1.0 - 0.8 * t),
            milliseconds: 11.5 + noise(step),
            data_wait: 0.125,
            examples: 128,
            ..Step::default()
        };
        events.push(event.into());
        if step % (steps / 20).max(1) == 0 {
            let lost = 0.02 * ramp * noise(step) * (1.3 - t);
            events.push(eval(step, Network::Projected, 0.9815 - lost, Some(distance), ramp).into());
            events.push(eval(step, Network::Unprojected, 0.9822 - 0.002 * noise(step), Some(distance), 0.0).into());
        }
    }
    events.push(eval(steps, Network::Final, 0.9807, Some(0.0123), 0.9).into());
    events.push(layer("fc1.weight", &[300, 784], true, 1, 0.913).into());
    events.push(layer("fc1.bias", &[300], false, 2, 0.0).into());
    events.push(layer("fc2.weight", &[100, 300], true, 3, 0.806).into());
    events.push(layer("fc2.bias", &[100], false, 4, 0.0).into());
    events.push(layer("fc3.weight", &[10, 100], true, 5, 0.41).into());
    let quantiles = Quantiles { mean: 0.0123, median: 0.0011, p90: 0.0312, p99: 0.188, max: 1.41 };
    let drift = Drift {
        a: "runs/lenet".into(),
        b: "runs/a/model".into(),
        examples: 10_000,
        distances: [("kl".to_string(), quantiles), ("hellinger".to_string(), quantiles)].into(),
        same_top1: Some(0.9931),
    };
    events.push(drift.into());
    events.push(comparison().into());
    events.push(Warning { message: "3 examples were longer than 512 tokens and were cut".into() }.into());
    let end = End {
        status: "done".into(),
        sparsity_prunable: Some(0.9),
        sparsity_model: Some(0.895_24),
        message: "stored runs/a/model".into(),
    };
    events.push(end.into());
    events
}

pub fn comparison() -> Table {
    let rows = [
        ["functionally invariant path", "98.07 %", "−0.14", "0.0123"],
        ["gradual magnitude, with labels", "97.90 %", "−0.31", "0.0644"],
        ["one-shot magnitude", "91.55 %", "−6.66", "0.871"],
    ];
    Table {
        title: "LeNet-300-100 at 90 %".into(),
        columns: ["Method", "Accuracy", "Change (points)", "KL to dense"].map(String::from).to_vec(),
        rows: rows.iter().map(|row| row.map(String::from).to_vec()).collect(),
    }
}
