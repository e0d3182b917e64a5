//! The fused update: the host engine's numbers bit for bit, a plain loop in f64, clipping, and a recorded step.
use super::space::*;
use fipk::engine::cuda::{At, Knobs, Sizes};
use fipk::engine::{Criterion, Engine, Optimizer, Pattern, Pull, Score, Update};
use fipk::gpu::{Memory, Ptr};
use fipk::graph::Kind;
use fipk::params::{Role, Span};

const ADAMW: Optimizer = Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.1 };
const ADAM: Optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.1 };
const SGD: Optimizer = Optimizer::Sgd { momentum: 0.9, decay: 0.1 };
/// Padding must stay zero here too, where 0 / 0 stands in the formula.
const BARE: Optimizer = Optimizer::Adam { beta1: 0.5, beta2: 0.5, epsilon: 0.0, decay: 0.0 };
const SMALL: Sizes = Sizes { tile: 64, room: 4096 };

/// Vectors for one run of steps, on both.
struct Run {
    space: Space,
    at: At,
    step: Update,
    /// What `at` points to.
    _memory: Vec<Memory>,
    shadow: Memory,
    g: Memory,
}

impl Run {
    /// Prunes 60 % from the start; learning rate 0.01, gradients as they are.
    fn new(mut space: Space, start: &[f32], optimizer: Optimizer, pull: Pull) -> Self {
        let zeros = vec![0.0; start.len()];
        let ((w, hw), (g, hg), (m, hm), (v, hv)) =
            (space.put(start), space.put(&zeros), space.put(&zeros), space.put(&zeros));
        let host_mask = space.host.mask().unwrap();
        let how = Criterion { pattern: Pattern::Global, score: Score::Magnitude, sparsity: 0.6 };
        space.host.select(hw, &how, None, host_mask).unwrap();
        let mask = space.upload(&space.host.read_mask(host_mask).unwrap());
        let shadow = space.upload(&vec![0u16; start.len()]);
        let second = optimizer.second_moments();
        let at = At {
            w: w.at(),
            g: g.at(),
            m: m.at(),
            v: if second { v.at() } else { Ptr::NULL },
            shadow: shadow.at(),
            mask: mask.at(),
        };
        let step = Update {
            optimizer,
            step: 1,
            learning_rate: 0.01,
            gradient_scale: 1.0,
            w: hw,
            g: hg,
            m: hm,
            v: second.then_some(hv),
            mask: Some(host_mask),
            pull,
            census: None,
        };
        Self { space, at, step, _memory: vec![w, m, v, mask], shadow, g }
    }
    fn gradient(&mut self, g: &[f32]) {
        self.space.device.upload(self.g.at(), bytemuck::cast_slice(g)).unwrap();
        self.space.host.write(self.step.g, 0, g).unwrap();
    }
    /// w, m, v of the device and of the host.
    fn vectors(&self) -> [(Vec<f32>, Vec<f32>); 3] {
        let v = self.step.v.unwrap_or(self.step.m);
        let at_v = if self.at.v.is_null() { self.at.m } else { self.at.v };
        [(self.at.w, self.step.w), (self.at.m, self.step.m), (at_v, v)]
            .map(|(at, host)| (self.space.floats(at), self.space.read(host)))
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
        let (rate, decays) = (f64::from(u.learning_rate), if decays { 1.0 } else { 0.0 });
        let mut g = f64::from(g) * f64::from(u.gradient_scale);
        if let (Pull::Gradient { coefficient }, true) = (u.pull, pruned) {
            g += f64::from(coefficient) * self.w;
        }
        match u.optimizer {
            Optimizer::Sgd { momentum, decay } => {
                self.m = f64::from(momentum) * self.m + g + decays * f64::from(decay) * self.w;
                self.w -= rate * self.m;
            }
            Optimizer::AdamW { beta1, beta2, epsilon, decay } | Optimizer::Adam { beta1, beta2, epsilon, decay } => {
                let (beta1, beta2, decay) = (f64::from(beta1), f64::from(beta2), decays * f64::from(decay));
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

/// A weight of f32 is rounded at most three times a step, half an ulp each: over a few steps below 1e-6 of its size.
const ROUNDING: f64 = 1e-6;

#[test]
fn every_pull_under_every_optimizer_is_the_hosts_and_the_plain_loop() {
    let pulls = [Pull::None, Pull::Gradient { coefficient: 0.7 }, Pull::Shrink { by: 0.004 }, Pull::Hold];
    for (turn, (optimizer, pull)) in [ADAMW, ADAM, SGD, BARE].iter().flat_map(|&o| pulls.map(|p| (o, p))).enumerate() {
        let schedule = SCHEDULES[turn % SCHEDULES.len()];
        let start = normals(&mixed(), 11);
        let sizes = if turn % 2 == 0 { SMALL } else { Sizes { tile: 4096, room: 4096 } };
        let mut run = Run::new(Space::new(mixed(), schedule, sizes), &start, optimizer, pull);
        let layout = run.space.layout.clone();
        let words = run.space.host.read_mask(run.step.mask.unwrap()).unwrap();
        let pruned = |i: usize| words.get(i / 32).is_some_and(|w| w >> (i % 32) & 1 == 1);
        let mut expected: Vec<State> = start.iter().map(|&w| State { w: w.into(), ..State::default() }).collect();
        let mut largest: Vec<f64> = expected.iter().map(|s| s.w.abs()).collect();
        for step in 1..=3 {
            let g = normals(&layout, 100 + step);
            run.gradient(&g);
            run.step = Update { step, gradient_scale: 0.5, ..run.step.clone() };
            run.space.flat.write_knobs(&Knobs::new(&run.step)).unwrap();
            run.space.flat.queue_update(&optimizer, &run.at).unwrap();
            let (found, _) = run.space.flat.read_updated().unwrap();
            let host = run.space.host.update(&run.step).unwrap();
            let what = format!("{optimizer:?} {pull:?} step {step}");
            let [(w, hw), (m, hm), (v, hv)] = run.vectors();
            for (name, found, host) in [("w", &w, &hw), ("m", &m, &hm), ("v", &v, &hv)] {
                assert_eq!(bits(found), bits(host), "{what}: {name}");
            }
            let inside = |s: &Span, i: usize| s.range().contains(&i);
            for i in 0..layout.len() {
                let Some(span) = layout.spans().iter().find(|s| inside(s, i)) else {
                    assert_eq!([w[i], m[i], v[i]].map(f32::to_bits), [0; 3], "{what}: padding {i}");
                    continue;
                };
                let e = &mut expected[i];
                if span.role != Role::Frozen {
                    e.step(&run.step, g[i], pruned(i), !matches!(span.kind, Kind::Norm | Kind::Bias));
                }
                largest[i] = largest[i].max(e.w.abs());
                let what = format!("{what}: {i} of {}", span.name);
                close(w[i].into(), e.w, ROUNDING * largest[i].max(0.01), &what);
                close(m[i].into(), e.m, ROUNDING * 5.0, &what);
            }
            // The copy in bf16 of what is trained.
            let shadow: Vec<u16> = run.space.download(run.shadow.at(), layout.len());
            for s in layout.spans() {
                for i in s.range() {
                    let copy = if s.role == Role::Frozen { 0 } else { half::bf16::from_f32(w[i]).to_bits() };
                    assert_eq!(shadow[i], copy, "{what}: shadow {i}");
                }
            }
            let sum = |keep: &dyn Fn(&Span, usize) -> bool| -> f64 {
                let all = layout.spans().iter().flat_map(|s| s.range().map(move |i| (s, i)));
                all.filter(|(s, i)| keep(s, *i)).map(|(_, i)| f64::from(w[i]) * f64::from(w[i])).sum()
            };
            let sums = [
                (found.squares, host.squares, sum(&|s, _| s.role != Role::Frozen)),
                (found.prunable_squares, host.prunable_squares, sum(&|s, _| s.role == Role::Prunable)),
                (found.pruned_squares, host.pruned_squares, sum(&|_, i| pruned(i))),
            ];
            for (found, host, plain) in sums {
                close(found, plain, 1e-12 * plain, &what);
                // The host sums squares of a lane in f32.
                close(found, host, 512.0 * 6e-8 * plain, &what);
            }
        }
    }
}

#[test]
fn a_number_that_is_not_finite_shows_in_the_norms_and_nowhere_else() {
    let layout = mixed();
    let trained = layout.range(Role::Frozen).start;
    for (turn, bad) in [f32::NAN, f32::INFINITY].into_iter().enumerate() {
        for at in [0, 100, trained - 32, trained] {
            let start = normals(&layout, 2);
            let mut run = Run::new(Space::new(mixed(), SCHEDULES[turn], SMALL), &start, ADAMW, Pull::None);
            let mut g = vec![0.0; layout.len()];
            g[at] = bad;
            run.gradient(&g);
            run.space.flat.write_knobs(&Knobs::new(&run.step)).unwrap();
            run.space.flat.queue_update(&ADAMW, &run.at).unwrap();
            let (found, _) = run.space.flat.read_updated().unwrap();
            assert_eq!(found.squares.is_finite(), at >= trained, "{bad} at {at}: {found:?}");
            run.space.host.update(&run.step).unwrap();
            let [(w, host), ..] = run.vectors();
            let strange = |x: &[f32]| x.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
            assert_eq!(strange(&w), strange(&host));
        }
    }
}

#[test]
fn a_gradient_is_clipped_by_the_norm_that_the_device_found() {
    for (turn, (limit, mean)) in [(1.0, 0.25), (0.0, 0.25), (1e9, 1.0), (0.3, 1.0)].into_iter().enumerate() {
        let start = normals(&mixed(), 5);
        let mut run = Run::new(Space::new(mixed(), SCHEDULES[turn % 3], SMALL), &start, SGD, Pull::None);
        let g = normals(&run.space.layout, 6);
        run.gradient(&g);
        let trained = 0..run.space.layout.range(Role::Frozen).start;
        let squares: f64 = g[trained].iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let norm = squares.sqrt() * mean;
        let clip = if limit > 0.0 && norm > limit { limit / norm } else { 1.0 };
        run.space.flat.queue_norm(run.at.g).unwrap();
        run.space.flat.write_knobs(&Knobs::new(&run.step).clipped(mean, limit)).unwrap();
        run.space.flat.queue_update(&SGD, &run.at).unwrap();
        let (_, found) = run.space.flat.read_updated().unwrap();
        close(found, squares, 1e-12 * squares, "the gradient's norm");
        run.step.gradient_scale = (clip * mean) as f32;
        run.space.host.update(&run.step).unwrap();
        let [(w, host), (m, host_m), _] = run.vectors();
        // The two scales may differ by the last bit.
        for i in 0..w.len() {
            close(m[i].into(), host_m[i].into(), 3e-7 * f64::from(host_m[i].abs()), &format!("m {i}, limit {limit}"));
            close(w[i].into(), host[i].into(), 3e-7 * f64::from(host[i].abs() + host_m[i].abs()), &format!("w {i}"));
        }
    }
}

#[test]
fn a_recorded_step_computes_with_the_knobs_that_stand_when_it_is_replayed() {
    for schedule in SCHEDULES {
        let start = normals(&mixed(), 7);
        let mut run = Run::new(Space::new(mixed(), schedule, SMALL), &start, ADAMW, Pull::None);
        let recorded = {
            let (flat, at) = (&run.space.flat, run.at);
            let mut body = || {
                flat.queue_norm(at.g)?;
                flat.queue_update(&ADAMW, &at)
            };
            run.space.device.record(&mut body).unwrap()
        };
        for step in 1..=3 {
            let g = normals(&run.space.layout, 30 + step);
            run.gradient(&g);
            let pull = if step == 2 { Pull::Shrink { by: 0.01 } } else { Pull::Gradient { coefficient: 0.1 } };
            run.step = Update { step, learning_rate: 0.01 / step as f32, pull, ..run.step.clone() };
            run.space.flat.write_knobs(&Knobs::new(&run.step)).unwrap();
            run.space.device.replay(recorded).unwrap();
            run.space.host.update(&run.step).unwrap();
            for (found, host) in run.vectors() {
                assert_eq!(bits(&found), bits(&host), "step {step}");
            }
        }
    }
}

#[test]
fn without_a_mask_or_a_shadow_nothing_is_pruned_or_copied() {
    let start = normals(&mixed(), 8);
    let mut run = Run::new(Space::plain(mixed(), Some(4)), &start, ADAM, Pull::Hold);
    let g = normals(&run.space.layout, 9);
    run.gradient(&g);
    run.step.mask = None;
    run.at = At { mask: Ptr::NULL, shadow: Ptr::NULL, ..run.at };
    run.space.flat.write_knobs(&Knobs::new(&run.step)).unwrap();
    run.space.flat.queue_update(&ADAM, &run.at).unwrap();
    let (found, _) = run.space.flat.read_updated().unwrap();
    run.space.host.update(&run.step).unwrap();
    assert_eq!((found.pruned_squares, found.census), (0.0, None));
    let [(w, host), ..] = run.vectors();
    assert_eq!(bits(&w), bits(&host));
    assert!(run.space.download::<u16>(run.shadow.at(), start.len()).iter().all(|&x| x == 0));
}
