//! Whole runs on a small network and drawn digits: exact zeros, held outputs, early stops, accumulation, failures.
use fipk::data::{self, Batches, Dataset, Reading};
use fipk::engine::{Clip, Engine, Host, Pattern, Pull, Update};
use fipk::fip::observed::Drawn;
use fipk::fip::recipe::{Anchor, Method, Preset, PullKind, Recipe};
use fipk::fip::run::{Job, Outcome, Run};
use fipk::fip::runner::Runner;
use fipk::fip::step::{Given, Goal, Precondition, Seen, StepKind, Stepping};
use fipk::geometry::{OnEngine, OutputMetric, Pullback, Space, Symmetric};
use fipk::models::{Config, Head, Network};
use fipk::ops::Distance;
use fipk::params::{Layout, Role, Roles};
use fipk::report::{Event, Recorder};
use fipk::{Error, Result};
use serde_json::json;
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

static TRAIN: LazyLock<Box<dyn Dataset>> = LazyLock::new(|| digits("digits:1500?seed=1"));
static TEST: LazyLock<Box<dyn Dataset>> = LazyLock::new(|| digits("digits:500?seed=2&split=test"));
/// A network trained on [`TRAIN`], in the layout of [`layout`] with default roles.
static DENSE: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let mut recipe = recipe(Method::Train);
    recipe.budget.epochs = 12.0;
    let start = network().initial(&layout(&recipe), 3);
    go(&recipe, &start).unwrap().0.weights
});

fn digits(spec: &str) -> Box<dyn Dataset> {
    data::load(&spec.parse().unwrap(), "train", &Reading::default()).unwrap()
}

fn network() -> Network {
    let raw = json!({ "model_type": "mlp", "sizes": [784, 40, 24, 10], "layers": ["fc1", "fc2", "fc3"], "hidden_act": "relu" });
    Network::new(Config::from_raw("test", raw.as_object().unwrap()).unwrap(), Head::Classification { labels: 10 })
        .unwrap()
}

fn layout(recipe: &Recipe) -> Layout {
    let params = network().params().unwrap();
    Layout::new(&params, &recipe.roles.resolve(&params).unwrap())
}

fn recipe(method: Method) -> Recipe {
    let mut recipe = Preset::Fip.recipe(method, 50);
    recipe.optimization.learning_rate = 2e-3;
    recipe.budget.epochs = 6.0;
    recipe.path.sparsity = 0.8;
    recipe
}

/// A run on a poisoned engine, with its events.
fn go(recipe: &Recipe, start: &[f32]) -> Result<(Outcome, Vec<Event>)> {
    go_on(&**TRAIN, recipe, start)
}

fn go_on(train: &dyn Dataset, recipe: &Recipe, start: &[f32]) -> Result<(Outcome, Vec<Event>)> {
    let job = Job {
        network: network(),
        weights: start,
        train,
        held_out: Some((&**TEST, "test".into())),
        recipe: recipe.clone(),
        checkpoints: None,
        path: None,
        model: "test".into(),
    };
    let mut events = Vec::new();
    let run = Run::new(&job, Box::new(Host::new(layout(recipe)).poisoned()))?;
    let outcome = run.drive(&mut Recorder::none(), &mut |e| events.push(e.clone()), &AtomicBool::new(false))?;
    Ok((outcome, events))
}

fn accuracy(outcome: &Outcome) -> f64 {
    outcome.last.as_ref().unwrap().metrics["accuracy"]
}

/// Zeros among the prunable weights.
fn zeros(recipe: &Recipe, weights: &[f32]) -> usize {
    let layout = layout(recipe);
    layout.with_role(Role::Prunable).map(|s| weights[s.range()].iter().filter(|x| **x == 0.0).count()).sum()
}

const PRUNABLE: usize = 784 * 40 + 40 * 24;

#[test]
fn every_pull_ramp_and_anchor_ends_with_exactly_k_zeros() {
    let k = (0.8 * PRUNABLE as f64).round() as usize;
    for pull in [PullKind::Prox, PullKind::L2, PullKind::L2Sq] {
        for anchor in [Anchor::Dense, Anchor::Projected] {
            let mut r = recipe(Method::Fip);
            (r.path.pull, r.objective.anchor, r.budget.epochs) = (pull, anchor, 1.0);
            let (outcome, _) = go(&r, &DENSE).unwrap();
            assert_eq!(zeros(&r, &outcome.weights), k, "{pull:?} {anchor:?}");
            assert_eq!(outcome.sparsity, k as f64 / PRUNABLE as f64);
        }
    }
    for method in [Method::OneShot, Method::Random, Method::Gradual] {
        let (outcome, _) = go(&recipe(method), &DENSE).unwrap();
        assert_eq!(zeros(&recipe(method), &outcome.weights), k, "{method:?}");
    }
}

#[test]
fn a_path_keeps_what_one_stroke_and_chance_lose() {
    let [fip, one_shot, random] =
        [Method::Fip, Method::OneShot, Method::Random].map(|m| accuracy(&go(&recipe(m), &DENSE).unwrap().0));
    let dense = go(&recipe(Method::OneShot), &DENSE).unwrap().0.dense.unwrap().metrics["accuracy"];
    assert!(dense >= 0.8, "the dense network learned the digits: {dense}");
    assert!(fip >= dense - 0.05 && fip >= one_shot + 0.03, "dense {dense}, path {fip}, one-shot {one_shot}");
    assert!(one_shot >= random, "one-shot {one_shot}, random {random}");
}

#[test]
fn scopes_hold_row_by_row() {
    let layout = layout(&recipe(Method::Fip));
    for (scope, share) in [(Pattern::Layer, 0.8), (Pattern::Row, 0.8), (Pattern::NofM { n: 2, m: 4 }, 0.5)] {
        let mut r = recipe(Method::Fip);
        (r.path.scope, r.path.sparsity, r.budget.epochs) = (scope, share, 1.0);
        let (outcome, _) = go(&r, &DENSE).unwrap();
        for span in layout.with_role(Role::Prunable) {
            let w = &outcome.weights[span.range()];
            let (group, k) = match scope {
                Pattern::Layer => (w.len(), (share * w.len() as f64).round() as usize),
                Pattern::Row => (span.matrix().1, (share * span.matrix().1 as f64).round() as usize),
                _ => (4, 2),
            };
            let exact = w.chunks(group).all(|g| g.iter().filter(|x| **x == 0.0).count() == k);
            assert!(exact, "{scope}: {} has a group without {k} zeros", span.name);
        }
    }
}

#[test]
fn frozen_parameters_keep_their_bits() {
    let mut r = recipe(Method::Fip);
    r.roles = Roles { freeze: vec!["fc3.*".into()], ..Roles::default() };
    let (from, to) = (layout(&recipe(Method::Fip)), layout(&r));
    let mut start = vec![0.0; to.len()];
    for s in to.spans() {
        start[s.range()].copy_from_slice(&DENSE[from.span(&s.name).unwrap().range()]);
    }
    let (outcome, _) = go(&r, &start).unwrap();
    for s in to.spans() {
        let same = outcome.weights[s.range()] == start[s.range()];
        assert_eq!(same, s.role == Role::Frozen, "{}", s.name);
    }
}

#[test]
fn the_tolerance_ends_a_path_early_and_the_finish_stays() {
    let mut r = recipe(Method::Fip);
    (r.path.tolerance, r.path.ramp_share) = (0.02, 0.3);
    let (outcome, events) = go(&r, &DENSE).unwrap();
    let steps: Vec<_> = events.iter().filter_map(|e| if let Event::Step(s) = e { Some(s) } else { None }).collect();
    // 6 epochs of 30 batches, half of them on the path.
    assert!(outcome.steps < 180 && outcome.steps >= 90, "{} steps", outcome.steps);
    let ended = steps.iter().position(|s| s.pull_relative.unwrap() < 0.02 && s.sparsity_target == Some(0.8)).unwrap();
    assert_eq!(outcome.steps as usize, ended + 1 + 90);
    assert!(steps[ended + 1..].iter().all(|s| s.pull == Some(0.0)), "steps after the projection leave the subspace");
}

#[test]
fn accumulated_batches_make_the_step_of_one_large_batch() {
    let mut large = recipe(Method::Train);
    (large.budget.batch, large.budget.steps) = (50, Some(1));
    let mut small = large.clone();
    (small.budget.batch, small.optimization.accumulation) = (25, 2);
    let fifty = digits("digits:50");
    let gradient = |r: &Recipe| match &go_on(&*fifty, r, &DENSE).unwrap().1[1] {
        Event::Step(s) => (s.loss, s.gradient_norm, s.examples),
        other => panic!("a step, not {other:?}"),
    };
    let ((a, na, ea), (b, nb, eb)) = (gradient(&large), gradient(&small));
    assert_eq!((ea, eb), (50, 50));
    assert!((a - b).abs() <= 1e-5 * a && (na - nb).abs() <= 1e-4 * na, "{a} {na}, {b} {nb}");
}

#[test]
fn cached_and_fresh_teachers_lead_to_the_same_place() {
    let mut fresh = recipe(Method::Fip);
    fresh.objective.cache_teacher = false;
    let (a, b) = (go(&recipe(Method::Fip), &DENSE).unwrap().0, go(&fresh, &DENSE).unwrap().0);
    assert!((accuracy(&a) - accuracy(&b)).abs() <= 0.02, "{} and {}", accuracy(&a), accuracy(&b));
}

/// A path whose steps are solved for in the metric.
fn in_metric(kind: StepKind) -> Recipe {
    let mut r = recipe(Method::Fip);
    (r.step.kind, r.budget.steps, r.path.refresh) = (kind, Some(60), 5);
    r
}

fn steps(events: &[Event]) -> Vec<&fipk::report::Step> {
    events.iter().filter_map(|e| if let Event::Step(s) = e { Some(s) } else { None }).collect()
}

#[test]
fn steps_in_the_metric_reach_the_subspace_with_the_outputs_in_place() {
    let one_shot = accuracy(&go(&recipe(Method::OneShot), &DENSE).unwrap().0);
    let k = (0.8 * PRUNABLE as f64).round() as usize;
    for kind in [StepKind::Exact, StepKind::Null] {
        for precondition in [Precondition::None, Precondition::Diagonal] {
            let mut r = in_metric(kind);
            r.step.precondition = precondition;
            let (outcome, events) = go(&r, &DENSE).unwrap();
            assert_eq!(zeros(&r, &outcome.weights), k, "{kind:?} {precondition:?}");
            let all = steps(&events);
            let solved: Vec<_> = all.iter().filter_map(|s| s.solve.as_ref()).collect();
            // Half of the steps are the path's, and the first five have nothing to draw to zero yet.
            assert_eq!((all.len(), solved.len()), (60, 30), "{kind:?}");
            assert!(solved[..5].iter().all(|s| s.length == 0.0 && s.products == 0), "{kind:?}");
            for (s, step) in solved[5..].iter().zip(&all[5..]) {
                assert!(s.length > 0.0 && s.mu > 0.0 && s.products > 0 && s.kind == r.step.kind.as_str(), "{s:?}");
                assert!(s.residual <= 0.02 && s.drift >= 0.0 && !s.hard, "{kind:?} {precondition:?}: {s:?}");
                assert!(step.distance.is_some_and(|d| d >= 0.0), "{step:?}");
            }
            let found = accuracy(&outcome);
            assert!(found >= one_shot + 0.03, "{kind:?} {precondition:?}: {found}, one-shot {one_shot}");
        }
    }
}

#[test]
fn an_exact_step_drifts_less_than_the_straight_one() {
    // The first step that has something to draw to zero, from the same network over the same batch: with a large β it is
    // the straight line to the projected network, and the smaller β, the less the outputs feel of it.
    let drift = |beta: f64| {
        let mut r = in_metric(StepKind::Exact);
        (r.step.beta, r.path.refresh, r.path.ramp) = (beta, 1, fipk::fip::schedule::Ramp::Direct);
        r.budget.steps = Some(2);
        let (_, events) = go(&r, &DENSE).unwrap();
        let first = steps(&events)[0].solve.clone().unwrap();
        (first.drift, first.length)
    };
    let (straight, length) = drift(1e6);
    let (mild, same) = drift(1.0);
    let (bent, also) = drift(0.01);
    assert!((length - same).abs() <= 1e-9 * length && (length - also).abs() <= 1e-9 * length);
    assert!(bent < 0.2 * straight && bent < mild && mild < straight, "{bent} {mild} {straight}");
}

#[test]
fn a_step_without_a_goal_has_its_length_and_is_hardly_felt() {
    let r = recipe(Method::Train);
    // What ensembles ask for: L = 0, any direction that leaves the outputs alone; no mask, no anchor.
    let step = |kind: StepKind, damping: f64, seed: u64| {
        let mut engine = Host::new(layout(&r)).poisoned();
        let [w, g, m] = [0; 3].map(|_| engine.zeros().unwrap());
        engine.write(w, 0, &DENSE).unwrap();
        let mut runner = Runner::new(Box::new(engine), network(), r.objective.clone());
        let update = Update {
            optimizer: r.optimization.rule(),
            step: 1,
            learning_rate: 0.0,
            gradient_scale: 1.0,
            w,
            g,
            m,
            v: None,
            mask: None,
            pull: Pull::None,
            census: None,
        };
        let clip = Clip { mean: 1.0, limit: 0.0 };
        let goal = Goal::Anywhere { seed, stream: 0 };
        let given = Given { update: &update, clip: &clip, goal, length: 0.5, largest: None, seed };
        let batches = Batches::in_order(&**TRAIN, 16).unwrap();
        let seen = |nth| Seen { batch: batches.get(nth).unwrap(), anchor: None };
        let mut stepper = Stepping { kind, damping, metric_batches: 2, ..Stepping::default() }.stepper();
        stepper.look(&mut runner, seen(0), &given).unwrap();
        let taken = stepper.step(&mut runner, seen(1), &given).unwrap();
        let mut after = vec![0.0; DENSE.len()];
        runner.engine.read(w, 0, &mut after).unwrap();
        let squares = after.iter().zip(&*DENSE).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
        let moved = squares.sum::<f64>().sqrt();
        assert!((moved - 0.5).abs() <= 1e-3 && taken.examples == 32, "{moved} {}", taken.examples);
        let trained: f64 = after.iter().map(|w| f64::from(*w).powi(2)).sum();
        assert!((taken.stepped.updated.squares - trained).abs() <= 1e-6 * trained);
        (taken.solved.unwrap().drift, after)
    };
    let (filtered, at) = step(StepKind::Null, 1e-3, 3);
    let (unfiltered, _) = step(StepKind::Null, 1e6, 3);
    assert!(filtered >= 0.0 && filtered <= 0.05 * unfiltered, "{filtered} {unfiltered}");
    // Equation 4 without an L is equation 3; another seed leads elsewhere.
    assert!(step(StepKind::Exact, 1e-3, 3).1 == at && step(StepKind::Null, 1e-3, 4).1 != at);
}

#[test]
fn steps_in_the_metric_are_the_same_again() {
    let r = in_metric(StepKind::Exact);
    let (a, b) = (go(&r, &DENSE).unwrap().0, go(&r, &DENSE).unwrap().0);
    assert!(a.weights.iter().zip(&b.weights).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn a_weight_of_the_distance_is_a_smaller_beta() {
    let weights = |distance: f64, beta: f64| {
        let mut r = in_metric(StepKind::Exact);
        (r.objective.distance, r.step.beta, r.path.finish, r.budget.steps) = (distance, beta, 0.0, Some(10));
        go(&r, &DENSE).unwrap().0.weights
    };
    let heavy = weights(4.0, 0.04);
    assert!(heavy == weights(1.0, 0.01) && heavy != weights(1.0, 0.04));
}

/// The last layer alone: 250 weights, few enough for dense matrices.
fn last_layer() -> Layout {
    let params = network().params().unwrap();
    let roles = Roles { freeze: vec!["fc1*".into(), "fc2*".into()], ..Roles::default() };
    Layout::new(&params, &roles.resolve(&params).unwrap())
}

/// By how much a preconditioned exact step of the last layer moves it from `start` against `gradient`: the number of the
/// step, and of its examples. β is 1, and the length 0.3 of the gradient's.
fn preconditioned(start: &[f32], gradient: &[f32], step: u64, examples: usize) -> Vec<f64> {
    let mut engine = Host::new(last_layer()).poisoned();
    let [w, g, m] = [0; 3].map(|_| engine.zeros().unwrap());
    engine.write(w, 0, start).unwrap();
    engine.write(g, 0, gradient).unwrap();
    let r = recipe(Method::Train);
    let mut runner = Runner::new(Box::new(engine), network(), r.objective.clone());
    let update = Update {
        optimizer: r.optimization.rule(),
        step,
        learning_rate: 0.0,
        gradient_scale: 1.0,
        w,
        g,
        m,
        v: None,
        mask: None,
        pull: Pull::None,
        census: None,
    };
    let clip = Clip { mean: 1.0, limit: 0.0 };
    let goal = Goal::Against { gradient: g, norm: 1.0 };
    let given = Given { update: &update, clip: &clip, goal, length: 0.3, largest: Some(1.0), seed: 4 };
    let how = Stepping {
        kind: StepKind::Exact,
        beta: 1.0,
        solve_tolerance: 1e-6,
        precondition: Precondition::Diagonal,
        ..Stepping::default()
    };
    let batch = Batches::in_order(&**TRAIN, examples).unwrap().get(0).unwrap();
    how.stepper().step(&mut runner, Seen { batch, anchor: None }, &given).unwrap();
    let mut after = vec![0.0; start.len()];
    runner.engine.read(w, 0, &mut after).unwrap();
    after.iter().zip(start).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect()
}

#[test]
fn a_preconditioned_step_is_the_dense_one_in_its_coordinates() {
    let layout = last_layer();
    let start = network().initial(&layout, 3);
    let trained: Vec<usize> =
        layout.spans().iter().filter(|s| s.role != Role::Frozen).flat_map(|s| s.range()).collect();
    let n = trained.len();
    assert_eq!(n, 250);
    let mut rng = fipk::rng::Rng::new(8, 0);
    let mut gradient = vec![0.0f32; start.len()];
    trained.iter().for_each(|&i| gradient[i] = rng.normal());

    // g column by column, of one example: its 10 rows give the diagonal exactly.
    let mut engine = Host::new(last_layer());
    let [w, unit, column] = [0; 3].map(|_| engine.zeros().unwrap());
    engine.write(w, 0, &start).unwrap();
    let network = network();
    let batches = [Batches::in_order(&**TRAIN, 1).unwrap().get(0).unwrap()];
    let drawn = Drawn { network: &network, batches: &batches };
    let mut map = OnEngine::new(&mut engine, &drawn).unwrap();
    assert_eq!(map.dim(), n);
    let mut g = faer::Mat::<f64>::zeros(n, n);
    for (j, &at) in trained.iter().enumerate() {
        let mut numbers = vec![0.0f32; start.len()];
        numbers[at] = 1.0;
        map.engine().write(unit, 0, &numbers).unwrap();
        Pullback::new(&mut map, &w, OutputMetric::Fisher).unwrap().apply(&unit, &mut { column }).unwrap();
        map.engine().read(column, 0, &mut numbers).unwrap();
        trained.iter().enumerate().for_each(|(i, &at)| g[(i, j)] = f64::from(numbers[at]));
    }
    let mean = (0..n).map(|i| g[(i, i)]).sum::<f64>() / n as f64;
    let d: Vec<f64> = (0..n).map(|i| (g[(i, i)] + 0.1 * mean).powf(-0.5)).collect();

    // ψ = D φ with (D g D + μ) φ = −½ D⁻¹ ∇L, and ‖φ‖ a share of ‖D⁻¹ ∇L‖.
    let goal: Vec<f64> = trained.iter().zip(&d).map(|(&i, d)| f64::from(gradient[i]) / d).collect();
    let length = 0.3 * goal.iter().map(|x| x * x).sum::<f64>().sqrt();
    let scaled = faer::Mat::from_fn(n, n, |i, j| 0.5 * d[i] * (g[(i, j)] + g[(j, i)]) * d[j]);
    let found = scaled.self_adjoint_eigen(faer::Side::Lower).unwrap();
    let (values, u) = (found.S().column_vector(), found.U());
    let along: Vec<f64> = (0..n).map(|k| (0..n).map(|i| -0.5 * u[(i, k)] * goal[i]).sum()).collect();
    let (mut low, mut high) = (1e-9, 1e9);
    for _ in 0..200 {
        let mu = 0.5 * (low + high);
        let long = (0..n).map(|k| (along[k] / (values[k] + mu)).powi(2)).sum::<f64>().sqrt();
        *(if long > length { &mut low } else { &mut high }) = mu;
    }
    let phi = |i: usize| (0..n).map(|k| u[(i, k)] * along[k] / (values[k] + low)).sum::<f64>();
    let want: Vec<f64> = (0..n).map(|i| d[i] * phi(i)).collect();

    let moved = preconditioned(&start, &gradient, 1, 1);
    let off = trained.iter().zip(&want).map(|(&i, w)| (moved[i] - w).powi(2)).sum::<f64>();
    let whole = want.iter().map(|w| w * w).sum::<f64>();
    assert!((off / whole).sqrt() <= 1e-3, "{}", (off / whole).sqrt());
    // The metric bends it: it is not the straight way.
    let straight: f64 = trained.iter().zip(&want).map(|(&i, w)| -f64::from(gradient[i]) * w).sum();
    let norm = gradient.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    assert!(straight / (norm * whole.sqrt()) <= 0.999, "{}", straight / (norm * whole.sqrt()));

    // Of more rows the diagonal is estimated, by other combinations of them in another step.
    let of = |step| preconditioned(&start, &gradient, step, 16);
    assert!(of(1) == of(1) && of(1) != of(2));
}

#[test]
fn a_run_that_diverges_says_so() {
    let mut r = recipe(Method::Train);
    (r.optimization.learning_rate, r.optimization.clip, r.budget.epochs) = (1e30, 0.0, 2.0);
    let error = go(&r, &DENSE).map(drop).unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
}

#[test]
fn steps_in_the_metric_that_diverge_say_what_makes_them_shorter() {
    for lambda in [1e20, 1e45] {
        let mut r = in_metric(StepKind::Exact);
        r.path.lambda = lambda;
        let error = go(&r, &DENSE).map(drop).unwrap_err();
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
        assert!(error.to_string().contains("--lambda"), "{error}");
    }
}

#[test]
fn recipes_that_make_no_sense_are_refused() {
    type Change = fn(&mut Recipe);
    let changes: [(&str, Change); 17] = [
        ("--sparsity", |r| r.path.sparsity = 1.0),
        ("--sparsity", |r| r.path.sparsity = f64::NAN),
        ("--learning-rate", |r| r.optimization.learning_rate = 0.0),
        ("--refresh", |r| r.path.refresh = 0),
        ("--finish", |r| r.path.finish = 1.0),
        ("--accumulation", |r| r.optimization.accumulation = 0),
        ("--beta", |r| r.step.beta = f64::NAN),
        ("--damping", |r| r.step.damping = 0.0),
        ("--products", |r| r.step.products = 0),
        ("--metric-batches", |r| r.step.metric_batches = 0),
        ("--solve-tolerance", |r| r.step.solve_tolerance = 1.0),
        ("--metric-batches", |r| (r.step.kind, r.optimization.accumulation) = (StepKind::Exact, 2)),
        ("--labels-weight", |r| (r.step.kind, r.objective.labels) = (StepKind::Null, 0.5)),
        ("--output-metric euclidean", |r| (r.step.kind, r.objective.odist) = (StepKind::Exact, Distance::Euclidean)),
        ("--output-metric fisher", |r| {
            (r.step.kind, r.step.output_metric) = (StepKind::Exact, OutputMetric::Euclidean)
        }),
        ("--distance kl", |r| (r.step.kind, r.objective.odist) = (StepKind::Exact, Distance::Hellinger)),
        ("--step null", |r| (r.step.kind, r.method) = (StepKind::Null, Method::Gradual)),
    ];
    for (flag, change) in changes {
        let mut r = recipe(Method::Fip);
        change(&mut r);
        let text = go(&r, &vec![0.0; layout(&r).len()]).map(drop).unwrap_err().to_string();
        assert!(text.contains(flag), "{text}");
    }
    let mut nothing = recipe(Method::Fip);
    nothing.roles.exclude = vec!["fc*".into()];
    let text = go(&nothing, &vec![0.0; layout(&nothing).len()]).map(drop).unwrap_err().to_string();
    assert!(text.contains("no parameter is left to prune"), "{text}");
    assert_eq!(Preset::Paper.recipe(Method::Fip, 50).objective.odist, Distance::Euclidean);
}
