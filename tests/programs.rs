//! Whole programs: what the compiler makes of a network, the planner of its buffers, and the host of both.
//!
//! The judge walks a forward program with each op's f64 reference; differences of that judge are the gradients
//! and directional derivatives that the engine's are held against.
use fipk::dual::Dual;
use fipk::engine::{Bindings, Data, Engine, Host, Vector};
use fipk::graph::{Graph, Home, Id, Mode, Program, Scope, Wrt, build};
use fipk::ops::{Activation, Cost, Cotangent, Op, Pass, Reads};
use fipk::params::Layout;
use fipk::rng::Rng;
use fipk::tensor::{Element, Shape, View};
use std::panic::AssertUnwindSafe;

#[path = "programs/nets.rs"]
mod nets;
use nets::{mlp, nets, small, text};

/// A network, its weights, and what its inputs hold.
struct Net {
    graph: Graph,
    layout: Layout,
    w: Vec<f32>,
    reals: Vec<(String, Vec<f32>)>,
    indices: Vec<(String, Vec<i32>)>,
}

impl Net {
    /// Random weights and inputs; indices below `classes`.
    fn new(classes: usize, model: impl FnOnce(&Scope)) -> Self {
        let graph = build(model).unwrap();
        let layout = Layout::trained(&graph.params);
        let mut rng = Rng::new(7, 0);
        let w = flat(&layout, || 0.5 * rng.normal());
        let (mut reals, mut indices) = (Vec::new(), Vec::new());
        let compiled: Vec<Program> = graph
            .marks
            .iter()
            .map(|m| Program::compile(&graph, Mode::Forward, &Wrt::default(), &m.0).unwrap())
            .collect();
        for (name, buffer) in
            compiled.iter().flat_map(|p| p.inputs.iter().map(move |i| (&i.0, i.1.map(|i| &p.buffers[i]))))
        {
            let Some(b) = buffer.filter(|_| !reals.iter().any(|r: &(String, _)| r.0 == *name)) else { continue };
            match b.element {
                Element::Real => reals.push((name.clone(), (0..b.numel()).map(|_| rng.normal()).collect())),
                Element::Index => {
                    indices.push((name.clone(), (0..b.numel()).map(|_| rng.below(classes) as i32).collect()))
                }
            }
        }
        Self { graph, layout, w, reals, indices }
    }
    fn inputs(&self) -> Vec<(&str, Data<'_>)> {
        let reals = self.reals.iter().map(|(n, x)| (n.as_str(), Data::Real(x)));
        reals.chain(self.indices.iter().map(|(n, x)| (n.as_str(), Data::Index(x)))).collect()
    }
    fn compile(&self, mode: Mode, wrt: &Wrt, of: &str) -> Program {
        Program::compile(&self.graph, mode, wrt, of).unwrap()
    }
    fn everything(&self) -> Wrt {
        Wrt { inputs: self.reals.iter().filter(|r| r.0 == "x").map(|r| r.0.clone()).collect(), ..Wrt::params() }
    }
    fn direction(&self, seed: u64) -> Direction {
        let mut rng = Rng::new(seed, 1);
        let w = flat(&self.layout, || rng.normal());
        let x = self.reals.iter().find(|r| r.0 == "x").map_or(0, |r| r.1.len());
        Direction { w, x: (0..x).map(|_| rng.normal()).collect() }
    }
    /// `of` at weights w + h dw and input x + h dx, with its slope along them, in f64.
    fn judge(&self, of: &str, d: &Direction, h: f64) -> Vec<Dual> {
        let p = self.compile(Mode::Forward, &Wrt::default(), of);
        let moved = |at: &[f32], by: &[f32]| -> Vec<Dual> {
            at.iter().zip(by).map(|(&x, &d)| Dual::new(f64::from(x) + h * f64::from(d), d.into())).collect()
        };
        let mut values: Vec<Vec<Dual>> = Vec::new();
        for b in &p.buffers {
            values.push(match b.home {
                Home::Param(nth) => {
                    let range = self.layout.offset(nth)..self.layout.offset(nth) + b.numel();
                    moved(&self.w[range.clone()], &d.w[range])
                }
                Home::Input(nth) => {
                    let name = &p.inputs[nth].0;
                    let real = self.reals.iter().find(|r| r.0 == *name).map(|r| &r.1);
                    let index = self.indices.iter().find(|r| r.0 == *name).map(|r| &r.1);
                    match (real, index) {
                        (Some(x), _) if name == "x" => moved(x, &d.x),
                        (Some(x), _) => x.iter().map(|&x| Dual::constant(x.into())).collect(),
                        (_, x) => x.unwrap().iter().map(|&i| Dual::constant(i.into())).collect(),
                    }
                }
                _ => vec![Dual::ZERO; b.numel()],
            });
        }
        for c in &p.calls {
            let mut y = std::mem::take(&mut values[c.y]);
            let view = |&id: &Id| View { data: &values[id][..], shape: &p.buffers[id].shape[..] };
            c.op.reference(&c.x.iter().map(view).collect::<Vec<_>>(), &mut y);
            values[c.y] = y;
        }
        values.swap_remove(p.output)
    }
}

/// A direction in weights (flat, padding zero) and in the input `x`.
#[derive(Clone)]
struct Direction {
    w: Vec<f32>,
    x: Vec<f32>,
}

fn flat(layout: &Layout, mut draw: impl FnMut() -> f32) -> Vec<f32> {
    let mut v = vec![0.0; layout.len()];
    layout.spans().iter().for_each(|s| v[s.range()].fill_with(&mut draw));
    v
}

/// A poisoned host that holds a network's weights.
struct Bench<'a> {
    net: &'a Net,
    host: Host,
    w: Vector,
}

impl<'a> Bench<'a> {
    fn new(net: &'a Net) -> Self {
        let mut host = Host::new(net.layout.clone()).poisoned();
        let w = host.zeros().unwrap();
        host.write(w, 0, &net.w).unwrap();
        Self { net, host, w }
    }
    fn vector(&mut self, data: &[f32]) -> Vector {
        let v = self.host.zeros().unwrap();
        self.host.write(v, 0, data).unwrap();
        v
    }
    fn all(&self, v: Vector) -> Vec<f32> {
        let mut all = vec![0.0; self.net.layout.len()];
        self.host.read(v, 0, &mut all).unwrap();
        all
    }
    /// (y, J v).
    fn tangent(&mut self, of: &str, wrt: &Wrt, d: &Direction) -> (Vec<f32>, Vec<f32>) {
        let program = self.host.load(self.net.compile(Mode::Tangent, wrt, of)).unwrap();
        let (v, net) = (self.vector(&d.w), self.net);
        let inputs = net.inputs();
        let bound = Bindings { tangents: Some(v), input_tangents: &[("x", &d.x)], ..Bindings::new(self.w, &inputs) };
        self.host.run(program, &bound).unwrap();
        (self.host.fetch(program, "output").unwrap(), self.host.fetch(program, "tangent").unwrap())
    }
    /// Jᵀ u, into a vector that held NaN.
    fn reverse(&mut self, of: &str, wrt: &Wrt, u: &[f32]) -> Direction {
        let g = self.vector(&flat(&self.net.layout, || f32::NAN));
        self.reverse_into(g, false, of, wrt, u)
    }
    fn reverse_into(&mut self, g: Vector, accumulate: bool, of: &str, wrt: &Wrt, u: &[f32]) -> Direction {
        let program = self.host.load(self.net.compile(Mode::Reverse, wrt, of)).unwrap();
        let net = self.net;
        let inputs = net.inputs();
        let bound = Bindings { cotangents: Some(g), accumulate, seed: Some(u), ..Bindings::new(self.w, &inputs) };
        self.host.run(program, &bound).unwrap();
        let x = if wrt.inputs.is_empty() { vec![] } else { self.host.fetch(program, "grad.x").unwrap() };
        Direction { w: self.all(g), x }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn norm(a: &[f64]) -> f64 {
    a.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// ‖a − b‖ <= bound.
#[track_caller]
fn within(a: &[f32], b: &[f64], bound: f64, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    let off = norm(&a.iter().zip(b).map(|(a, b)| f64::from(*a) - b).collect::<Vec<_>>());
    assert!(off <= bound, "{what}: off by {off:e} of {:e}", norm(b));
}

/// ‖a − b‖ <= tol ‖b‖.
#[track_caller]
fn near(a: &[f32], b: &[f64], tol: f64, what: &str) {
    within(a, b, tol * norm(b), what);
}

/// Values, J v and every number of Jᵀ u agree with the judge and its central differences. f32 with sums of a few
/// dozen terms keeps 1e-6; the judge's differences, with steps of 1e-4 in f64, 1e-7.
#[test]
fn derivatives_are_limits_of_differences() {
    const TOL: f64 = 1e-5;
    const H: f64 = 1e-4;
    for (name, net, of) in nets() {
        let (mut bench, d, wrt) = (Bench::new(&net), net.direction(3), net.everything());
        let difference = |d: &Direction| -> Vec<f64> {
            let (up, down) = (net.judge(of, d, H), net.judge(of, d, -H));
            up.iter().zip(&down).map(|(a, b)| (a.re - b.re) / (2.0 * H)).collect()
        };
        let (y, jv) = bench.tangent(of, &wrt, &d);
        near(&y, &net.judge(of, &d, 0.0).iter().map(|y| y.re).collect::<Vec<_>>(), TOL, &format!("{name} {of}"));
        near(&jv, &difference(&d), TOL, &format!("{name} {of}: J v"));

        let mut rng = Rng::new(8, 0);
        let u: Vec<f32> = y.iter().map(|_| rng.normal()).collect();
        let g = bench.reverse(of, &wrt, &u);
        let along = |d: &Direction| difference(d).iter().zip(&u).map(|(d, u)| d * f64::from(*u)).sum::<f64>();
        let zero = Direction { w: vec![0.0; net.w.len()], x: vec![0.0; d.x.len()] };
        let one = |i: usize| {
            let mut d = zero.clone();
            d.w[i] = 1.0;
            along(&d)
        };
        let expected: Vec<f64> = (0..net.w.len()).map(one).collect();
        for s in net.layout.spans() {
            // A key's bias has a gradient of exactly zero, so some of the tolerance is of the whole gradient's size.
            let bound = TOL * (norm(&expected[s.range()]) + 0.1 * norm(&expected));
            within(&g.w[s.range()], &expected[s.range()], bound, &format!("{name} {of}: gradient of {}", s.name));
        }
        let one = |i: usize| {
            let mut d = zero.clone();
            d.x[i] = 1.0;
            along(&d)
        };
        near(&g.x, &(0..d.x.len()).map(one).collect::<Vec<_>>(), TOL, &format!("{name} {of}: gradient of x"));
    }
}

/// (|J v|², v · Jᵀ J v): equal if no pass reads what the planner has given away.
fn metric_twice(net: &Net, of: &str, wrt: &Wrt) -> (f64, f64) {
    let (mut bench, d) = (Bench::new(net), net.direction(5));
    let (_, jv) = bench.tangent(of, wrt, &d);
    let g = bench.reverse(of, wrt, &jv);
    let inputs = if wrt.inputs.is_empty() { 0.0 } else { dot(&g.x, &d.x) };
    (dot(&jv, &jv), dot(&g.w, &d.w) + inputs)
}

#[test]
fn the_metric_is_the_same_by_both_ways() {
    for (name, net, of) in nets() {
        for wrt in [Wrt::params(), net.everything()] {
            let (forward, back) = metric_twice(&net, of, &wrt);
            assert!(forward > 0.0 && (forward - back).abs() <= 1e-5 * forward, "{name} {of}: {forward} and {back}");
        }
    }
}

/// An activation that denies reading its input in reverse.
#[derive(Debug)]
struct Liar;

impl Op for Liar {
    fn name(&self) -> &'static str {
        "liar"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        Activation::GeluTanh.output(x)
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        Activation::GeluTanh.cost(pass, x)
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        Activation::GeluTanh.reference(x, y);
    }
    fn forward(&self, x: &[View], y: &mut [f32], saved: &mut [f32]) {
        Activation::GeluTanh.forward(x, y, saved);
    }
    fn jvp(&self, x: &[View], y: &[f32], saved: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        Activation::GeluTanh.jvp(x, y, saved, dx, dy);
    }
    fn vjp(&self, x: &[View], y: &[f32], saved: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        Activation::GeluTanh.vjp(x, y, saved, gy, gx);
    }
}

#[test]
fn a_lie_in_reverse_reads_is_caught() {
    let net = Net::new(1, |s: &Scope| {
        let x = s.input("x", &[4, 6], Element::Real);
        let h = s.apply(Liar, &[s.linear("fc1", x, 8)]);
        s.mark("y", s.linear("fc2", h, 3));
    });
    // Found by a panic or by numbers that disagree; NaN disagrees.
    let found = std::panic::catch_unwind(AssertUnwindSafe(|| metric_twice(&net, "y", &Wrt::params())));
    let agrees = found.is_ok_and(|(forward, back)| (forward - back).abs() <= 1e-3 * forward);
    assert!(!agrees, "an op that reads more than it says went unnoticed");
}

#[test]
fn accumulation_adds_and_leaves_the_unreached() {
    let net = Net::new(11, text);
    let mut bench = Bench::new(&net);
    let wrt = Wrt::params();
    let (u, v) = ([0.5, -1.0, 2.0, 0.1, 0.3, -0.7], [1.0, 1.5, -0.5, 0.2, -2.0, 0.4]);
    let (first, second) = (bench.reverse("logits", &wrt, &u), bench.reverse("logits", &wrt, &v));
    let start = net.direction(9).w;
    let g = bench.vector(&start);
    bench.reverse_into(g, true, "logits", &wrt, &u);
    let sum = bench.reverse_into(g, true, "logits", &wrt, &v).w;
    let unreached = net.layout.span("decoder.bias").unwrap().range();
    assert_eq!(sum[unreached.clone()], start[unreached]);
    let expected: Vec<f64> =
        (0..sum.len()).map(|i| f64::from(start[i]) + f64::from(first.w[i]) + f64::from(second.w[i])).collect();
    near(&sum, &expected, 1e-6, "the sum of two gradients");
    assert_ne!(sum, start);
}

#[test]
fn what_is_frozen_or_unreached_has_a_zero_gradient_and_no_work() {
    let net = Net::new(11, text);
    let mut bench = Bench::new(&net);
    let u = [0.5, -1.0, 2.0, 0.1, 0.3, -0.7];
    let free = bench.reverse("logits", &Wrt::params(), &u).w;
    let frozen = Wrt { frozen: vec!["dense.weight".into(), "words.weight".into()], ..Wrt::params() };
    let some = bench.reverse("logits", &frozen, &u).w;
    for s in net.layout.spans() {
        let zero = ["dense.weight", "words.weight", "decoder.bias"].contains(&s.name.as_str());
        let expected = if zero { vec![0.0; s.len] } else { free[s.range()].to_vec() };
        assert_eq!(some[s.range()], expected, "{}", s.name);
        let reached = s.name != "decoder.bias";
        assert_eq!(free[s.range()].iter().any(|&g| g != 0.0), reached, "{}", s.name);
    }
    // Nothing below the lowest trained parameter is differentiated.
    let top = Wrt { frozen: net.graph.params[..4].iter().map(|p| p.name.clone()).collect(), ..Wrt::params() };
    let reverse = net.compile(Mode::Reverse, &top, "logits");
    let back: Vec<&str> = reverse.calls.iter().filter(|c| c.pass == Pass::Vjp).map(|c| c.op.name()).collect();
    assert_eq!(back, ["linear"]);
    // A direction in what is frozen moves nothing.
    let d = net.direction(4);
    let mut only = d.clone();
    for name in &frozen.frozen {
        only.w[net.layout.span(name).unwrap().range()].fill(0.0);
    }
    let through = bench.tangent("logits", &frozen, &d).1;
    assert_eq!(through, bench.tangent("logits", &frozen, &only).1);
    near(
        &through,
        &bench.tangent("logits", &Wrt::params(), &only).1.iter().map(|&x| x.into()).collect::<Vec<_>>(),
        1e-6,
        "J v",
    );
}

#[test]
fn a_program_holds_only_what_its_output_needs() {
    let net = Net::new(4, mlp);
    let given = |of: &str| {
        let p = net.compile(Mode::Reverse, &Wrt::params(), of);
        p.inputs.iter().filter(|i| i.1.is_some()).map(|i| i.0.clone()).collect::<Vec<_>>()
    };
    assert_eq!(given("loss"), ["x", "labels", "weights"]);
    assert_eq!(given("logits"), ["x"]);
    let calls = |mode, of: &str| net.compile(mode, &Wrt::params(), of).calls.len();
    let counts = [Mode::Forward, Mode::Tangent, Mode::Reverse]
        .map(|m| (calls(m, "hidden"), calls(m, "logits"), calls(m, "loss")));
    assert_eq!(counts, [(2, 5, 6), (4, 10, 12), (4, 10, 12)]);
    // The first layer's input is not differentiated, nor is anything with respect to nothing.
    let reverse = net.compile(Mode::Reverse, &Wrt::params(), "logits");
    assert!(reverse.calls.last().unwrap().gx[0].is_none());
    let nothing = net.compile(Mode::Tangent, &Wrt::default(), "logits");
    assert!(nothing.d_output.is_none() && nothing.calls.len() == 5);

    let mut host = Host::new(net.layout.clone());
    let w = host.zeros().unwrap();
    let program = host.load(net.compile(Mode::Forward, &Wrt::default(), "logits")).unwrap();
    let x = [0.5; 35];
    host.run(program, &Bindings::new(w, &[("x", Data::Real(&x))])).unwrap();
    assert_eq!(host.fetch(program, "logits").unwrap(), [0.0; 20]);
}

/// Replay the calls on a memory that knows who wrote each word last: every read must find its own.
fn replay(p: &Program, what: &str) {
    let mut owner: Vec<Option<Id>> = vec![None; p.arena];
    let place = |id: Id| match p.buffers[id].home {
        Home::Work(at) => at..at + p.buffers[id].numel(),
        _ => 0..0,
    };
    let holds = |owner: &[Option<Id>], id: Id, at: &str| {
        let b = &p.buffers[id];
        assert!(owner[place(id)].iter().all(|&o| o == Some(id)), "{what}: {} is overwritten before {at}", b.name);
    };
    for c in &p.calls {
        let at = format!("{:?} of {}", c.pass, c.name);
        let told = c.op.reverse_reads();
        for (i, &x) in c.x.iter().enumerate() {
            if c.pass != Pass::Vjp || told.inputs.contains(&i) {
                holds(&owner, x, &at);
            }
        }
        let mut written: Vec<Id> = Vec::new();
        match c.pass {
            Pass::Forward => written.extend([Some(c.y), c.saved].into_iter().flatten()),
            Pass::Dual => {
                c.dx.iter().flatten().for_each(|&id| holds(&owner, id, &at));
                written.extend([Some(c.y), c.saved, c.dy].into_iter().flatten());
            }
            Pass::Jvp => {
                [Some(c.y), c.saved]
                    .into_iter()
                    .chain(c.dx.iter().copied())
                    .flatten()
                    .for_each(|id| holds(&owner, id, &at));
                written.extend(c.dy);
            }
            Pass::Vjp => {
                let y = told.output.then_some(c.y);
                [y, c.saved, c.dy].into_iter().flatten().for_each(|id| holds(&owner, id, &at));
                for &(id, add) in c.gx.iter().flatten() {
                    if add {
                        holds(&owner, id, &at);
                    }
                    assert!(!written.contains(&id), "{what}: {at} writes one buffer twice");
                    written.push(id);
                }
            }
        }
        for &id in &written {
            owner[place(id)].fill(Some(id));
        }
        // What one call reads and writes stands apart, all of it.
        written.iter().for_each(|&id| holds(&owner, id, &at));
        c.reads().into_iter().for_each(|id| holds(&owner, id, &at));
    }
    for id in p.fetches.iter().map(|f| f.1).chain([p.output]).chain(p.d_output) {
        holds(&owner, id, "the end");
    }
}

#[test]
fn no_two_live_buffers_share_bytes() {
    let mut shared = false;
    for (name, net, of) in nets() {
        for (mode, wrt) in [Mode::Forward, Mode::Tangent, Mode::Reverse]
            .into_iter()
            .flat_map(|m| [(m, Wrt::params()), (m, net.everything()), (m, Wrt::inputs(&["x"]))])
        {
            let p = net.compile(mode, &wrt, of);
            replay(&p, &format!("{name} {of} {mode:?}"));
            let sum: usize = p
                .buffers
                .iter()
                .filter(|b| matches!(b.home, Home::Work(_)))
                .map(|b| b.numel().next_multiple_of(16))
                .sum();
            assert!(p.arena <= sum, "{name} {of} {mode:?}: {} of {sum}", p.arena);
            shared |= p.arena < sum;
        }
    }
    assert!(shared, "the planner never shared a byte");
    // A long chain needs two buffers forward, whatever its length.
    let chain = Net::new(1, |s: &Scope| {
        let mut x = s.input("x", &[4, 16], Element::Real);
        for i in 0..20 {
            x = s.activation(Activation::Tanh, s.linear(&format!("fc{i}"), x, 16));
        }
        s.mark("y", x);
    });
    assert_eq!(chain.compile(Mode::Forward, &Wrt::default(), "y").arena, 2 * 64);
    // Backwards, tanh keeps its outputs (20) and linear its inputs (the same), plus two cotangents.
    assert!(chain.compile(Mode::Reverse, &Wrt::params(), "y").arena <= 23 * 64);
}

#[test]
fn plans_read_as_they_should() {
    let net = small();
    insta::assert_snapshot!("plan_forward", net.compile(Mode::Forward, &Wrt::default(), "logits"));
    insta::assert_snapshot!("plan_tangent", net.compile(Mode::Tangent, &Wrt::params(), "logits"));
    insta::assert_snapshot!("plan_reverse", net.compile(Mode::Reverse, &Wrt::params(), "loss"));
}

#[test]
fn the_drawing_names_every_call_and_points_forward() {
    let p = small().compile(Mode::Reverse, &Wrt::params(), "loss");
    let text = p.graphviz();
    assert!(text.starts_with("digraph program {") && text.ends_with("}\n"));
    assert_eq!(text.matches("label=").count(), p.calls.len());
    let edges: Vec<(usize, usize)> = text
        .lines()
        .filter_map(|l| l.trim().trim_end_matches(';').split_once(" -> "))
        .map(|(a, b)| (a[1..].parse().unwrap(), b[1..].parse().unwrap()))
        .collect();
    assert!(edges.contains(&(0, 1)) && edges.iter().all(|(a, b)| a < b && *b < p.calls.len()), "{edges:?}");
}

#[test]
fn errors_name_their_place() {
    let message = |model: fn(&Scope)| build(model).unwrap_err().to_string();
    let sum = message(|s| {
        let (a, b) = (s.input("a", &[2, 3], Element::Real), s.input("b", &[2, 4], Element::Real));
        s.at("sum").add(a, b);
        s.at("later").add(b, a);
    });
    assert_eq!(sum, "add at sum: [2, 3] and [2, 4] differ");
    let twice = message(|s| {
        let x = s.input("x", &[2, 3], Element::Real);
        s.linear("fc", s.linear("fc", x, 3), 3);
    });
    assert_eq!(twice, "param at fc.weight: declared twice");
    let element = message(|s| {
        let x = s.input("ids", &[2, 3], Element::Index);
        s.linear("fc", x, 3);
    });
    assert_eq!(element, "linear at fc: input 0 wants Real elements, got Index");
    let shape = message(|s| {
        s.input("x", &[2, 3], Element::Real);
        s.input("x", &[2, 4], Element::Real);
    });
    assert!(shape.contains("input at x") && shape.contains("[2, 4]"), "{shape}");

    let graph = Net::new(4, mlp).graph;
    let refused = |wrt: Wrt, of: &str| Program::compile(&graph, Mode::Reverse, &wrt, of).unwrap_err().to_string();
    let none = refused(Wrt::params(), "scores");
    assert!(none.contains("scores") && none.contains("logits"), "{none}");
    for name in ["labels", "pixels"] {
        let wrong = refused(Wrt::inputs(&[name]), "loss");
        assert!(wrong.contains(name), "{wrong}");
    }
    let frozen = refused(Wrt { frozen: vec!["fc9.weight".into()], ..Wrt::params() }, "loss");
    assert!(frozen.contains("fc9.weight"), "{frozen}");
}
