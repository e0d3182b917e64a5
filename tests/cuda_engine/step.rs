//! Whole steps of a path: choice of what is pruned, teacher, gradient, clipping and the fused update, recorded once and
//! replayed, against the host's.
use super::programs::golden_model;
use super::*;
use fipk::Error;
use fipk::data::{Batch, Input, Targets, Values};
use fipk::engine::{Clip, Optimizer, Pull, Update};
use fipk::fip::memory::gradient;
use fipk::fip::recipe::Objective;
use fipk::fip::runner::{Losses, Runner};
use fipk::models::{Network, Sample};
use fipk::ops::Distance;

/// What a path leaves behind.
struct Walked {
    weights: Vec<f32>,
    masks: Vec<Vec<u32>>,
    losses: Vec<Losses>,
    norms: Vec<f64>,
}

fn batch(network: &Network, rows: usize, tokens: usize, rng: &mut Rng) -> Batch {
    let input = |(name, limit): (&'static str, usize)| {
        let word = |i: usize, rng: &mut Rng| match name {
            "attention_mask" => i32::from(i % tokens != tokens - 1),
            _ => rng.below(limit) as i32,
        };
        let values = (0..rows * tokens).map(|i| word(i, rng)).collect();
        Input { name, shape: vec![rows, tokens], values: Values::Index(values) }
    };
    let inputs = network.index_limits().into_iter().map(input).collect();
    let classes = network.head.outputs();
    let targets = Targets::Classes((0..rows).map(|_| rng.below(classes) as i32).collect());
    Batch { examples: (0..rows).collect(), rows, inputs, targets }
}

/// Steps of two accumulated batches, what is pruned chosen anew before every second one.
fn walk(make: impl Fn(Layout) -> Subject, optimizer: Optimizer, pulls: &[Pull]) -> Walked {
    let (network, layout, start) = golden_model("bert_classify_gelu");
    let mut engine = make(layout.clone());
    let [w, g, m, dense] = std::array::from_fn(|_| engine.zeros().unwrap());
    let v = optimizer.second_moments().then(|| engine.zeros().unwrap());
    let mask = engine.mask().unwrap();
    engine.write(w, 0, &start).unwrap();
    engine.write(dense, 0, &start).unwrap();
    let objective = Objective { odist: Distance::Kl, distance: 1.0, labels: 0.5, ..Objective::default() };
    let mut runner = Runner::new(engine, network, objective);
    let mut rng = Rng::new(29, 0);
    let mut found = Walked { weights: vec![0.0; layout.len()], masks: vec![], losses: vec![], norms: vec![] };
    let mut census = None;
    for (step, &pull) in pulls.iter().enumerate() {
        if step % 2 == 0 {
            let how = magnitude(Pattern::Global, 0.3 + 0.1 * step as f64);
            let chosen = runner.engine.select(w, &how, census.take(), mask).unwrap();
            found.masks.push(runner.engine.read_mask(mask).unwrap());
            assert!(chosen.pruned > 0 && chosen.threshold > 0.0);
        }
        let update = Update {
            optimizer,
            step: step as u64 + 1,
            learning_rate: 1e-3 * (step + 1) as f32,
            gradient_scale: f32::NAN, // the clipping decides
            w,
            g,
            m,
            v,
            mask: Some(mask),
            pull,
            census: (step % 2 == 1).then(|| (0.001f32.to_bits(), 0.04f32.to_bits())),
        };
        for part in 0..2 {
            let batch = batch(&runner.network, 3, 9, &mut rng);
            let teacher = Some(runner.logits(dense, &batch).unwrap());
            if part == 0 {
                runner.gradient(w, g, &batch, teacher, false).unwrap();
                continue;
            }
            // Some norms are clipped, some are not.
            let clip = Clip { mean: 0.5, limit: [0.0, 1e-3, 1e3][step % 3] };
            let (losses, stepped) = runner.step(&batch, teacher, true, &update, &clip).unwrap();
            found.losses.push(losses);
            found.norms.push(stepped.gradient_norm);
            assert_eq!(stepped.updated.census.is_some(), update.census.is_some());
            census = stepped.updated.census;
        }
    }
    runner.engine.read(w, 0, &mut found.weights).unwrap();
    found
}

/// The epsilon keeps gradients that are nothing but rounding (of a bias of keys, which moves no softmax) from being
/// scaled up to whole steps.
const ADAMW: Optimizer = Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-5, decay: 0.01 };
const SGD: Optimizer = Optimizer::Sgd { momentum: 0.9, decay: 0.01 };

fn pulls() -> [Pull; 6] {
    let (by, coefficient) = (2e-3, 0.3);
    [Pull::Shrink { by }, Pull::Shrink { by }, Pull::Gradient { coefficient }, Pull::None, Pull::Hold, Pull::Hold]
}

fn host(layout: Layout) -> Subject {
    Box::new(fipk::engine::Host::new(layout).poisoned())
}

#[test]
fn a_whole_step_of_a_tiny_bert_equals_the_host() {
    for optimizer in [ADAMW, SGD] {
        let host = walk(host, optimizer, &pulls());
        let cuda = walk(|layout| Box::new(emulated(layout, Dtype::F32).poisoned()), optimizer, &pulls());
        assert!(host.masks == cuda.masks, "{optimizer:?}: another choice");
        for (step, (a, b)) in host.losses.iter().zip(&cuda.losses).enumerate() {
            close(b.loss, a.loss, 1e-5 * a.loss.abs(), &format!("{optimizer:?} loss of step {step}"));
            close(b.labels.unwrap(), a.labels.unwrap(), 1e-5, &format!("{optimizer:?} labels of step {step}"));
            close(cuda.norms[step], host.norms[step], 1e-4 * host.norms[step], &format!("norm of step {step}"));
        }
        let scale = host.weights.iter().fold(0.0f64, |m, x| m.max(x.abs().into()));
        for (i, (a, b)) in host.weights.iter().zip(&cuda.weights).enumerate() {
            close((*b).into(), (*a).into(), 2e-5 * scale, &format!("{optimizer:?} weight {i}"));
        }
    }
}

#[test]
fn a_step_in_bf16_stays_near_the_one_in_f32() {
    let f32s = walk(|layout| Box::new(emulated(layout, Dtype::F32)), SGD, &pulls()[..2]);
    let bf16 = walk(|layout| Box::new(emulated(layout, Dtype::Bf16).poisoned()), SGD, &pulls()[..2]);
    assert!(f32s.masks == bf16.masks, "before any step the weights are the same");
    for (a, b) in f32s.losses.iter().zip(&bf16.losses) {
        close(b.labels.unwrap(), a.labels.unwrap(), 0.02 * a.labels.unwrap(), "loss on labels");
    }
    for (a, b) in f32s.norms.iter().zip(&bf16.norms) {
        close(*b, *a, 0.1 * a, "norm of the gradient");
    }
}

#[test]
fn a_batch_without_room_names_the_one_that_fits() {
    let (network, layout, start) = golden_model("bert_classify_gelu");
    let mut subject: Subject = Box::new(emulated(layout.clone(), Dtype::F32));
    let (w, g) = (subject.zeros().unwrap(), subject.zeros().unwrap());
    subject.write(w, 0, &start).unwrap();
    let objective = Objective { distance: 0.0, labels: 1.0, ..Objective::default() };
    let mut runner = Runner::new(subject, network.clone(), objective.clone());
    let mut rng = Rng::new(5, 0);
    let large = batch(&network, 1 << 20, 9, &mut rng);
    let error = runner.gradient(w, g, &large, None, false).unwrap_err();
    let Error::Memory { wanted, free, hint, .. } = &error else { panic!("an error of memory, not {error}") };
    let named: usize = hint.split(' ').find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("{hint}"));
    let needs =
        |rows| gradient(&network, &objective, &layout, rows, Sample::Tokens(9), Some(Dtype::F32)).unwrap().total();
    assert!(needs(named) <= *free && needs(named + 1) > *free && wanted > free, "{error}");
    // What found no room takes none from what does.
    let small = batch(&network, 2, 9, &mut rng);
    assert!(runner.gradient(w, g, &small, None, false).unwrap().loss > 0.0);
}
