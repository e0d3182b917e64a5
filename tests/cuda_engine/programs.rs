//! Whole networks in the three modes: f32 to rounding, bf16 to twice what rounding after every op costs.
use super::naive::{Found, Naive};
use super::*;
use fipk::engine::{Bindings, Data};
use fipk::graph::{Graph, Lowering, Mode, Program, Wrt, build};
use fipk::models::{ModelFolder, Network};
use fipk::tensor::Element;

const MODELS: [&str; 8] = [
    "mlp",
    "bert_classify_gelu",
    "bert_classify_gelu_new",
    "bert_regression",
    "bert_masked_lm",
    "distilbert_classify",
    "vit",
    "deit_with_teacher",
];

/// What normalises by its batch, as in training.
const TRAINING: &str = " in training";
/// Convolutions with and without bias, of strides 1 and 2; batch norms; both pools; shortcuts of both kinds.
const CONVOLUTIONAL: [&str; 5] = ["lenet5", "vgg_bn", "resnet_basic", "resnet_cifar", "resnet_cifar in training"];

/// A network with weights, a direction, inputs, and a cotangent, at an awkward batch shape.
struct Case {
    graph: Graph,
    layout: Layout,
    w: Vec<f32>,
    v: Vec<f32>,
    inputs: Vec<(String, Vec<f32>)>,
    u: Vec<f32>,
}

/// Of a golden model, at random inputs; the last token of every second row is padding.
fn case(model: &str) -> Case {
    let (network, layout, w) = golden_model(model.trim_end_matches(TRAINING));
    let (rows, tokens) = (3, network.max_tokens().map_or(1, |n| n.min(7)));
    let sample = network.max_tokens().map_or(network.sample(), |_| tokens.into());
    let graph = match model.ends_with(TRAINING) {
        true => build(|s| s.mark("logits", network.logits(&s.batch_statistics(), rows, sample))),
        false => network.graph(rows, sample),
    };
    let graph = graph.unwrap();
    let mut rng = Rng::new(17, 0);
    let limits = network.index_limits();
    let input = |&input: &fipk::graph::Value| {
        let t = graph.tensor(input);
        let limit = limits.iter().find(|l| l.0 == t.name).map_or(1, |l| l.1);
        let word = |i: usize, rng: &mut Rng| match (t.element, t.name.as_str()) {
            (Element::Real, _) => rng.normal(),
            (_, "attention_mask") => f32::from_bits(u32::from(i % (2 * tokens) != tokens - 1)),
            _ => f32::from_bits(rng.below(limit) as u32),
        };
        (t.name.clone(), (0..t.numel()).map(|i| word(i, &mut rng)).collect())
    };
    let inputs = graph.inputs.iter().map(input).collect();
    let mut rng = Rng::new(18, 0);
    let mut v = vec![0.0; layout.len()];
    for s in layout.spans() {
        v[s.range()].iter_mut().for_each(|v| *v = 0.1 * rng.normal());
    }
    let outputs = graph.tensor(graph.mark("logits").unwrap()).numel();
    Case { u: normals(&mut rng, outputs), graph, layout, w, v, inputs }
}

pub fn golden_model(model: &str) -> (Network, Layout, Vec<f32>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(model);
    let folder = ModelFolder::open_dir(&path).unwrap();
    let network = Network::new(folder.config.clone(), folder.head(None).unwrap()).unwrap();
    let params = network.params().unwrap();
    let roles = fipk::params::Roles::default().resolve(&params).unwrap();
    let layout = Layout::new(&params, &roles);
    let weights = network.load(&folder, &layout, None).unwrap();
    (network, layout, weights)
}

impl Case {
    fn program(&self, mode: Mode) -> Program {
        let wrt = if mode == Mode::Forward { Wrt::default() } else { Wrt::params() };
        Program::compile(&self.graph, mode, &wrt, "logits").unwrap()
    }

    /// In f32, or rounded after every op, of those that `how` leaves.
    fn naive(&self, mode: Mode, rounds: bool, how: Lowering) -> Found {
        let program = self.program(mode).lowered(how).unwrap();
        let (program, layout, inputs) = (&program, &self.layout, &self.inputs[..]);
        Naive { program, layout, rounds, params: &self.w, tangents: &self.v, inputs, seed: &self.u }.run()
    }

    /// (logits, J v or nothing, Jᵀ u or nothing), twice over, so that what the first run leaves is met by the second.
    fn run(&self, mode: Mode, dtype: Dtype) -> [Vec<f32>; 3] {
        let mut subject: Subject = Box::new(emulated(self.layout.clone(), dtype).poisoned());
        let [w, v, g] = std::array::from_fn(|_| subject.zeros().unwrap());
        subject.write(w, 0, &self.w).unwrap();
        subject.write(v, 0, &self.v).unwrap();
        let program = subject.load(self.program(mode)).unwrap();
        let words: Vec<(&str, Vec<i32>)> = self
            .inputs
            .iter()
            .map(|(name, words)| (name.as_str(), words.iter().map(|w| w.to_bits() as i32).collect()))
            .collect();
        let bound: Vec<(&str, Data)> = self
            .graph
            .inputs
            .iter()
            .zip(&self.inputs)
            .zip(&words)
            .map(|((&input, (name, real)), (_, index))| match self.graph.tensor(input).element {
                Element::Real => (name.as_str(), Data::Real(real)),
                Element::Index => (name.as_str(), Data::Index(index)),
            })
            .collect();
        let with = Bindings {
            tangents: (mode == Mode::Tangent).then_some(v),
            cotangents: (mode == Mode::Reverse).then_some(g),
            seed: Some(&self.u),
            ..Bindings::new(w, &bound)
        };
        for _ in 0..2 {
            subject.run(program, &with).unwrap();
        }
        let tangent = if mode == Mode::Tangent { subject.fetch(program, "tangent").unwrap() } else { Vec::new() };
        let gradient = if mode == Mode::Reverse { whole(&subject, g) } else { Vec::new() };
        [subject.fetch(program, "logits").unwrap(), tangent, gradient]
    }
}

fn worst(a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
    // Not `max`, which loses a NaN.
    differences.fold(0.0, |m, d| if d <= m { m } else { d })
}

fn norm(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt()
}

#[track_caller]
fn no_further(what: &str, got: &[f32], expected: &[f32], by: (f64, f64)) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let (worst, norm) = (worst(got, expected), norm(got, expected));
    assert!(worst <= by.0, "{what}: the worst element is off by {worst:e}, more than {:e}", by.0);
    assert!(norm <= by.1, "{what}: off by {norm:e} in norm, more than {:e}", by.1);
}

fn largest(x: &[f32]) -> f64 {
    x.iter().fold(0.0, |m, &x| f64::max(m, x.abs().into()))
}

/// The parts that are judged by themselves: all of logits and J v, each parameter's gradient.
fn parts(layout: &Layout, mode: Mode, which: usize, len: usize) -> Vec<(String, std::ops::Range<usize>)> {
    match (which, mode) {
        (0, _) => vec![("y".into(), 0..len)],
        (1, Mode::Tangent) => vec![("J v".into(), 0..len)],
        (2, Mode::Reverse) => layout.spans().iter().map(|s| (format!("Jᵀ u at {}", s.name), s.range())).collect(),
        _ => vec![],
    }
}

fn of(f: &Found) -> [&[f32]; 3] {
    [&f.output, &f.tangent, &f.gradient]
}

/// Networks against the host in f32. A few layers, each rounding sums of up to a few hundred terms; some gradients are sums
/// that cancel.
fn hold_in_f32(models: &[&str]) {
    for model in models {
        let case = case(model);
        for mode in [Mode::Forward, Mode::Tangent, Mode::Reverse] {
            let host = case.naive(mode, false, Lowering::NONE);
            for (i, (got, wanted)) in case.run(mode, Dtype::F32).iter().zip(of(&host)).enumerate() {
                for (part, at) in parts(&case.layout, mode, i, got.len()) {
                    let (what, got, part) = (format!("{model} {mode:?} {part}"), &got[at.clone()], &wanted[at]);
                    let tol = 2e-5 * largest(part) + 1e-6 * largest(wanted);
                    no_further(&what, got, part, (tol, tol * (part.len() as f64).sqrt()));
                }
            }
        }
    }
}

/// Networks in bf16 against twice what rounding after every op costs: of the ops as they are or of those that the engine
/// has, whichever is worse, since the worst element of one rounding is a matter of luck.
fn hold_in_bf16(models: &[&str]) {
    for model in models {
        let case = case(model);
        for mode in [Mode::Forward, Mode::Tangent, Mode::Reverse] {
            let host = case.naive(mode, false, Lowering::NONE);
            let fused = Lowering { dual: false, ..Lowering::ALL };
            let naive = [Lowering::NONE, fused].map(|how| case.naive(mode, true, how));
            for (i, got) in case.run(mode, Dtype::Bf16).iter().enumerate() {
                let (all, naive) = (of(&host)[i], naive.each_ref().map(|naive| of(naive)[i]));
                for (part, at) in parts(&case.layout, mode, i, got.len()) {
                    let (got, wanted) = (&got[at.clone()], &all[at.clone()]);
                    let off = |by: fn(&[f32], &[f32]) -> f64| {
                        let [a, b] = naive.map(|naive| by(&naive[at.clone()], wanted));
                        assert!(a.is_finite() && b.is_finite(), "{model} {mode:?} {part}");
                        2.0 * a.max(b)
                    };
                    // What cancels to nothing keeps the rounding of what cancelled.
                    let floor = 1e-3 * largest(all);
                    let by = (off(worst) + floor, off(norm) + floor);
                    no_further(&format!("{model} {mode:?} {part}"), got, wanted, by);
                }
            }
        }
    }
}

#[test]
fn networks_in_f32_equal_the_hosts() {
    hold_in_f32(&MODELS);
}

#[test]
fn convolutional_networks_in_f32_equal_the_hosts() {
    hold_in_f32(&CONVOLUTIONAL);
}

#[test]
fn networks_in_bf16_are_as_near_as_rounding_lets_them() {
    hold_in_bf16(&MODELS);
}

#[test]
fn convolutional_networks_in_bf16_are_as_near_as_rounding_lets_them() {
    hold_in_bf16(&CONVOLUTIONAL);
}
