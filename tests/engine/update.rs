//! `Host::update`: PyTorch's optimizers, and pull, shrink, hold, mask and norms against a plain loop in f64.
use super::*;
use fipk::engine::{Optimizer, Pull, Update, Updated};

const ADAMW: Optimizer = Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.1 };
const ADAM: Optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.1 };
const SGD: Optimizer = Optimizer::Sgd { momentum: 0.9, decay: 0.0 };
const SGD_DECAY: Optimizer = Optimizer::Sgd { momentum: 0.9, decay: 0.1 };
const ALL: [Optimizer; 4] = [ADAMW, ADAM, SGD, SGD_DECAY];

/// Vectors for one run of steps.
struct Run {
    host: Subject,
    w: Vector,
    g: Vector,
    m: Vector,
    v: Vector,
    mask: Mask,
}

impl Run {
    fn new(layout: Layout, values: &[f32]) -> Self {
        let mut host = engine(layout);
        let w = put(&mut host, values);
        let mut zeros = || host.zeros().unwrap();
        let (g, m, v) = (zeros(), zeros(), zeros());
        let mask = host.mask().unwrap();
        Self { host, w, g, m, v, mask }
    }
    fn gradient(&mut self, values: &[f32]) {
        let mut rest = values;
        for s in self.host.layout().spans().to_vec() {
            self.host.write(self.g, s.at, &rest[..s.len]).unwrap();
            rest = &rest[s.len..];
        }
    }
    /// Learning rate 0.01, no pull, no mask, gradients as they are.
    fn plain(&self, optimizer: Optimizer, step: u64) -> Update {
        let (w, g, m, mask, census) = (self.w, self.g, self.m, None, None);
        let v = optimizer.second_moments().then_some(self.v);
        Update { optimizer, step, learning_rate: 0.01, gradient_scale: 1.0, w, g, m, v, mask, pull: Pull::None, census }
    }
}

/// A weight of f32 is rounded at most three times a step (decay, step, pull), half an ulp (6e-8 of it) each, and
/// a step's own relative error is a few ulp of its length: over five steps below 1e-6 of the largest size on the way.
const ROUNDING: f64 = 1e-6;

#[test]
fn weights_follow_pytorchs_optimizers() {
    let golden = Golden::open("update/update.safetensors");
    let (start, grads) = (golden.f32("weights"), golden.f32("grads"));
    let n = start.len();
    let shape: &[usize] = &[n];
    // The same vector pruned or not must move the same; 257 leaves a tail of one in the last word.
    let layout = layout(&[(shape, Kind::Weight, Role::Free), (shape, Kind::Weight, Role::Prunable)]);
    for (name, optimizer) in [("adamw", ADAMW), ("adam", ADAM), ("sgd", SGD), ("sgd_decay", SGD_DECAY)] {
        let trace = golden.f64(name);
        let mut run = Run::new(layout.clone(), &[&start[..], &start].concat());
        for (step, (g, expected)) in grads.chunks(n).zip(trace.chunks(n)).enumerate() {
            run.gradient(&[g, g].concat());
            run.host.update(&run.plain(optimizer, step as u64 + 1)).unwrap();
            for (i, &w) in get(&run.host, run.w).iter().enumerate() {
                let way = trace
                    .iter()
                    .skip(i % n)
                    .step_by(n)
                    .take(step + 1)
                    .fold(f64::from(start[i % n]).abs(), |s, x| s.max(x.abs()));
                close(f64::from(w), expected[i % n], ROUNDING * way.max(0.01), &format!("{name} {i} step {step}"));
            }
        }
    }
}

/// The step on one coordinate in f64: METHOD's pulls around the optimizers' published rules.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    w: f64,
    m: f64,
    v: f64,
}

impl State {
    fn step(&mut self, u: &Update, g: f32, pruned: bool, decays: bool) {
        let (rate, keep_decay) = (f64::from(u.learning_rate), if decays { 1.0 } else { 0.0 });
        let mut g = f64::from(g) * f64::from(u.gradient_scale);
        if let (Pull::Gradient { coefficient }, true) = (u.pull, pruned) {
            g += f64::from(coefficient) * self.w;
        }
        match u.optimizer {
            Optimizer::Sgd { momentum, decay } => {
                self.m = f64::from(momentum) * self.m + g + keep_decay * f64::from(decay) * self.w;
                self.w -= rate * self.m;
            }
            Optimizer::AdamW { beta1, beta2, epsilon, decay } | Optimizer::Adam { beta1, beta2, epsilon, decay } => {
                let (beta1, beta2, decay) = (f64::from(beta1), f64::from(beta2), keep_decay * f64::from(decay));
                match u.optimizer {
                    Optimizer::AdamW { .. } => self.w *= 1.0 - rate * decay,
                    _ => g += decay * self.w,
                }
                self.m = beta1 * self.m + (1.0 - beta1) * g;
                self.v = beta2 * self.v + (1.0 - beta2) * g * g;
                let t = i32::try_from(u.step).unwrap();
                let (m, v) = (self.m / (1.0 - beta1.powi(t)), self.v / (1.0 - beta2.powi(t)));
                self.w -= rate * m / (v.sqrt() + f64::from(epsilon));
            }
        }
        match u.pull {
            Pull::Shrink { by } if pruned => self.w = self.w.signum() * (self.w.abs() - f64::from(by)).max(0.0),
            Pull::Hold if pruned => *self = Self::default(),
            _ => {}
        }
    }
}

/// Spans with tails of every kind: prunable (one of them longer than a block), a bias, an embedding, frozen ones.
fn mixed() -> Layout {
    layout(&[
        (&[3, 11], Kind::Weight, Role::Prunable),
        (&[17], Kind::Bias, Role::Free),
        (&[], Kind::Norm, Role::Free),
        (&[16_385], Kind::Weight, Role::Prunable),
        (&[9, 7], Kind::Embedding, Role::Free),
        (&[1], Kind::Weight, Role::Prunable),
        (&[31], Kind::Weight, Role::Frozen),
        (&[33], Kind::Bias, Role::Frozen),
    ])
}

#[test]
fn every_pull_under_every_optimizer_is_the_plain_loop() {
    let layout = mixed();
    let n = layout.parameters();
    let spans: Vec<&Span> = layout.spans().iter().flat_map(|s| std::iter::repeat_n(s, s.len)).collect();
    let pulls = [Pull::None, Pull::Gradient { coefficient: 0.7 }, Pull::Shrink { by: 0.004 }, Pull::Hold];
    for (optimizer, pull) in ALL.iter().flat_map(|&o| pulls.map(|p| (o, p))) {
        let mut rng = Rng::new(11, 0);
        let start = normals(&mut rng, n);
        let mut run = Run::new(layout.clone(), &start);
        let (w, mask) = (run.w, run.mask);
        run.host.select(w, &magnitude(Pattern::Global, 0.6), None, mask).unwrap();
        let mut pruned = bits(&run.host, mask);
        pruned.resize(n, false);
        let mut expected: Vec<State> = start.iter().map(|&w| State { w: w.into(), ..State::default() }).collect();
        let mut largest: Vec<f64> = expected.iter().map(|s| s.w.abs()).collect();
        for step in 1..=5 {
            let g = normals(&mut rng, n);
            run.gradient(&g);
            let u = Update { mask: Some(mask), pull, gradient_scale: 0.5, ..run.plain(optimizer, step) };
            let found = run.host.update(&u).unwrap();
            for (i, e) in expected.iter_mut().enumerate().filter(|(i, _)| spans[*i].role != Role::Frozen) {
                let decays = !matches!(spans[i].kind, Kind::Norm | Kind::Bias);
                e.step(&u, g[i], pruned[i], decays);
                largest[i] = largest[i].max(e.w.abs());
            }
            let what =
                |i: usize, of: &str| format!("{optimizer:?} {pull:?} step {step}: {of} of {} {i}", spans[i].name);
            let [w, m, v] = [run.w, run.m, run.v].map(|v| get(&run.host, v));
            for (i, e) in expected.iter().enumerate() {
                close(w[i].into(), e.w, ROUNDING * largest[i].max(0.01), &what(i, "w"));
                // Moments are sums of a few terms no larger than 3 or so, each rounded.
                close(m[i].into(), e.m, ROUNDING * 5.0, &what(i, "m"));
                if optimizer.second_moments() {
                    close(v[i].into(), e.v, ROUNDING * (e.v + 0.001), &what(i, "v"));
                }
                if pull == Pull::Hold && pruned[i] {
                    assert_eq!([w[i], m[i], v[i]], [0.0; 3], "{}", what(i, "held"));
                }
                if matches!(pull, Pull::Shrink { .. }) && e.w == 0.0 && pruned[i] {
                    assert!(w[i].abs() <= 1e-6, "{}", what(i, "shrunk"));
                }
            }
            check_norms(&found, &w, &spans, &pruned);
        }
        if matches!(pull, Pull::Shrink { .. }) {
            let zeros = (0..n).filter(|&i| expected[i].w == 0.0 && spans[i].role != Role::Frozen).count();
            assert!(zeros > 0, "no weight was small enough to reach zero: the test tests nothing");
        }
        let flat = whole(&run.host, run.w);
        for vector in [run.w, run.m, run.v] {
            padding_is_zero(&layout, &whole(&run.host, vector));
        }
        for s in layout.with_role(Role::Frozen) {
            let at = spans.iter().position(|t| t.name == s.name).unwrap();
            assert_eq!(to_bits(&flat[s.range()]), to_bits(&start[at..at + s.len]), "a frozen span moved");
        }
    }
}

/// Sums of f32 squares, 32 lanes of at most 512 terms each: 512 roundings of half an ulp at the very worst.
fn check_norms(found: &Updated, w: &[f32], spans: &[&Span], pruned: &[bool]) {
    let sum = |keep: &dyn Fn(usize) -> bool| -> f64 {
        (0..w.len()).filter(|&i| keep(i)).map(|i| f64::from(w[i]) * f64::from(w[i])).sum()
    };
    let sums = [
        ("squares", found.squares, sum(&|i| spans[i].role != Role::Frozen)),
        ("prunable", found.prunable_squares, sum(&|i| spans[i].role == Role::Prunable)),
        ("pruned", found.pruned_squares, sum(&|i| pruned[i])),
    ];
    for (what, found, expected) in sums {
        close(found, expected, 512.0 * 6e-8 * expected, what);
    }
}

fn padding_is_zero(layout: &Layout, flat: &[f32]) {
    let inside = |i: usize| layout.spans().iter().any(|s| s.range().contains(&i));
    // Padding stands between the end of a span and the next word.
    for s in layout.spans() {
        let end = s.range().end;
        for i in (end..end.next_multiple_of(32)).filter(|&i| !inside(i)) {
            assert_eq!(flat[i].to_bits(), 0, "padding at {i}");
        }
    }
}

#[test]
fn a_number_that_is_not_finite_shows_in_the_norms() {
    let layout = mixed();
    let n = layout.parameters();
    let start = normals(&mut Rng::new(2, 0), n);
    let prunable = layout.count(Role::Prunable);
    let trained = n - layout.count(Role::Frozen);
    for (optimizer, bad) in ALL.iter().flat_map(|&o| [f32::NAN, f32::INFINITY].map(|b| (o, b))) {
        for pull in [Pull::None, Pull::Gradient { coefficient: 0.1 }, Pull::Shrink { by: 0.01 }, Pull::Hold] {
            // In a lane, in a tail, in a norm or bias; and in what is not trained.
            for at in [0, 40, prunable - 1, prunable, trained - 1, trained] {
                let mut run = Run::new(layout.clone(), &start);
                let mut g = vec![0.0; n];
                g[at] = bad;
                run.gradient(&g);
                let (w, mask) = (run.w, run.mask);
                run.host.select(w, &magnitude(Pattern::Global, 1.0), None, mask).unwrap();
                let u = Update { mask: Some(mask), pull, ..run.plain(optimizer, 1) };
                let found = run.host.update(&u).unwrap();
                let what = format!("{optimizer:?} {pull:?} {bad} at {at}: {found:?}");
                assert_eq!(found.squares.is_finite(), at >= trained, "{what}");
                assert_eq!(found.prunable_squares.is_finite(), at >= prunable, "{what}");
                // One that is trained but never pruned may show here too, or not.
                assert!(at >= prunable || !found.pruned_squares.is_finite(), "{what}");
                assert!(at < trained || found.pruned_squares.is_finite(), "{what}");
            }
        }
    }
}

#[test]
fn vectors_that_are_missing_or_the_same_are_errors() {
    let mut run = Run::new(mixed(), &vec![1.0; mixed().parameters()]);
    let refuse = |run: &mut Run, u: Update, word: &str| {
        let error = run.host.update(&u).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains('\n'), "{error}");
        assert!(get(&run.host, run.w).iter().all(|&w| w == 1.0), "an error moved the weights");
    };
    let u = run.plain(ADAMW, 1);
    refuse(&mut run, Update { v: None, ..u.clone() }, "second moments");
    refuse(&mut run, Update { g: u.w, ..u.clone() }, "differ");
    refuse(&mut run, Update { m: u.v.unwrap(), ..u.clone() }, "differ");
    // Handles of an engine that has more than this one.
    let mut other = Run::new(mixed(), &vec![1.0; mixed().parameters()]);
    let (_, strange, _, mask) = (other.host.mask(), other.host.zeros().unwrap(), other.host.mask(), other.host.mask());
    refuse(&mut run, Update { w: strange, ..u.clone() }, "there");
    refuse(&mut run, Update { mask: Some(mask.unwrap()), ..u }, "masks");
}
