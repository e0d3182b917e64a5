//! Programs whose ops an engine of devices has fused: which neighbours become one, what stays as it is, and that the
//! numbers do. The judge walks a forward program in f64 by its ops' references; the unfused program's is the definition.
use fipk::dual::Dual;
use fipk::engine::{Bindings, Cuda, Data, Dtype, Engine, Host};
use fipk::gpu::emulator::Emulator;
use fipk::graph::{Graph, Home, Lowering, Mode, Program, Scope, Wrt, build};
use fipk::ops::Activation;
use fipk::params::Layout;
use fipk::rng::Rng;
use fipk::tensor::{Element, View};
use std::rc::Rc;

#[path = "fusion/nets.rs"]
mod nets;
use nets::{post_norm, pre_norm, residual_blocks, shared, tiny};

const MODES: [Mode; 3] = [Mode::Forward, Mode::Tangent, Mode::Reverse];
const FUSED: Lowering = Lowering { fuse: true, ..Lowering::NONE };

/// A network with weights, a direction in them and in `x`, inputs, and a cotangent of its output.
struct Net {
    graph: Graph,
    layout: Layout,
    of: &'static str,
    w: Vec<f32>,
    v: Vec<f32>,
    inputs: Vec<(String, Vec<f32>)>,
    dx: Vec<f32>,
    u: Vec<f32>,
}

impl Net {
    fn new(of: &'static str, model: impl FnOnce(&Scope)) -> Self {
        let graph = build(model).unwrap();
        let layout = Layout::trained(&graph.params);
        let mut rng = Rng::new(3, 0);
        let flat = |rng: &mut Rng, size: f32| {
            let mut all = vec![0.0; layout.len()];
            layout.spans().iter().for_each(|s| all[s.range()].iter_mut().for_each(|v| *v = size * rng.normal()));
            all
        };
        let (mut w, mut v) = (flat(&mut rng, 0.4), flat(&mut rng, 0.4));
        // Statistics are in no direction, and variances are positive.
        for s in layout.spans().iter().filter(|s| s.name.contains("running_")) {
            v[s.range()].fill(0.0);
            w[s.range()].iter_mut().for_each(|w| *w = w.abs() + 0.1);
        }
        let mut input = |&at: &fipk::graph::Value| {
            let t = graph.tensor(at);
            let word = |rng: &mut Rng| match (t.element, t.name.as_str()) {
                (Element::Real, _) => rng.normal(),
                // Attended, and a class or an id of the smallest table.
                (_, "mask") => f32::from_bits(1),
                _ => f32::from_bits(rng.below(2) as u32),
            };
            (t.name.clone(), (0..t.numel()).map(|_| word(&mut rng)).collect())
        };
        let inputs: Vec<(String, Vec<f32>)> = graph.inputs.iter().map(&mut input).collect();
        let x = inputs.iter().find(|i| i.0 == "x").map_or(0, |i| i.1.len());
        let dx = (0..x).map(|_| rng.normal()).collect();
        let u = (0..graph.tensor(graph.mark(of).unwrap()).numel()).map(|_| rng.normal()).collect();
        Self { graph, layout, of, w, v, inputs, dx, u }
    }

    fn program(&self, mode: Mode, how: Lowering) -> Program {
        let wrt = match mode {
            Mode::Forward => Wrt::default(),
            _ => Wrt { inputs: vec!["x".into()], ..Wrt::params() },
        };
        Program::compile(&self.graph, mode, &wrt, self.of).unwrap().lowered(how).unwrap()
    }

    /// Ops of the forward program, in order.
    fn ops(&self, how: Lowering) -> Vec<&'static str> {
        self.program(Mode::Forward, how).calls.iter().map(|c| c.op.name()).collect()
    }

    /// The output, and its slope along a direction in weights and x, in f64.
    fn judge(&self, how: Lowering, v: &[f32], dx: &[f32]) -> Vec<Dual> {
        let p = self.program(Mode::Forward, how);
        let along = |at: &[f32], by: &[f32]| -> Vec<Dual> {
            at.iter().zip(by).map(|(&x, &d)| Dual::new(x.into(), d.into())).collect()
        };
        let start = |b: &fipk::graph::Buffer| match b.home {
            Home::Param(nth) => {
                let at = self.layout.offset(nth)..self.layout.offset(nth) + b.numel();
                along(&self.w[at.clone()], &v[at])
            }
            Home::Input(nth) => {
                let data = &self.inputs[nth].1;
                match (b.element, p.inputs[nth].0.as_str()) {
                    (Element::Index, _) => data.iter().map(|i| Dual::constant((i.to_bits() as i32).into())).collect(),
                    (_, "x") => along(data, dx),
                    _ => data.iter().map(|&x| Dual::constant(x.into())).collect(),
                }
            }
            _ => vec![Dual::new(f64::NAN, f64::NAN); b.numel()],
        };
        let mut values: Vec<Vec<Dual>> = p.buffers.iter().map(start).collect();
        for c in &p.calls {
            let mut y = std::mem::take(&mut values[c.y]);
            let views: Vec<View<Dual>> =
                c.x.iter().map(|&id| View { data: &values[id], shape: &p.buffers[id].shape }).collect();
            c.op.reference(&views, &mut y);
            values[c.y] = y;
        }
        values.swap_remove(p.output)
    }

    /// (output, J v or Jᵀ u in weight space or nothing, Jᵀ u in x or nothing), of the second of two runs.
    fn run(&self, engine: &mut dyn Engine, mode: Mode, how: Lowering) -> [Vec<f32>; 3] {
        let [w, v, g] = std::array::from_fn(|_| engine.zeros().unwrap());
        engine.write(w, 0, &self.w).unwrap();
        engine.write(v, 0, &self.v).unwrap();
        let program = engine.load(self.program(mode, how)).unwrap();
        let words: Vec<Vec<i32>> =
            self.inputs.iter().map(|i| i.1.iter().map(|w| w.to_bits() as i32).collect()).collect();
        let elements = self.graph.inputs.iter().map(|&at| self.graph.tensor(at).element);
        let bound: Vec<(&str, Data)> = self
            .inputs
            .iter()
            .zip(&words)
            .zip(elements)
            .map(|(((name, real), index), element)| match element {
                Element::Real => (name.as_str(), Data::Real(real)),
                Element::Index => (name.as_str(), Data::Index(index)),
            })
            .collect();
        let with = Bindings {
            tangents: (mode == Mode::Tangent).then_some(v),
            cotangents: (mode == Mode::Reverse).then_some(g),
            input_tangents: &[("x", &self.dx)],
            seed: Some(&self.u),
            ..Bindings::new(w, &bound)
        };
        for _ in 0..2 {
            engine.run(program, &with).unwrap();
        }
        let y = engine.fetch(program, self.of).unwrap();
        match mode {
            Mode::Forward => [y, vec![], vec![]],
            Mode::Tangent => [y, engine.fetch(program, "tangent").unwrap(), vec![]],
            Mode::Reverse => {
                let mut all = vec![0.0; self.layout.len()];
                engine.read(g, 0, &mut all).unwrap();
                [y, all, engine.fetch(program, "grad.x").unwrap()]
            }
        }
    }

    fn on_host(&self, mode: Mode, how: Lowering) -> [Vec<f32>; 3] {
        self.run(&mut Host::new(self.layout.clone()).poisoned().lowering(how), mode, how)
    }

    fn on_device(&self, mode: Mode, how: Lowering, dtype: Dtype) -> [Vec<f32>; 3] {
        let device = Rc::new(Emulator::default());
        let mut cuda = Cuda::new(device, self.layout.clone(), dtype).unwrap().poisoned().lowering(how);
        self.run(&mut cuda, mode, Lowering::NONE)
    }
}

fn norm(a: &[f64]) -> f64 {
    a.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn apart(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(&a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)).collect::<Vec<_>>())
}

fn size(a: &[f32]) -> f64 {
    apart(a, &vec![0.0; a.len()])
}

#[track_caller]
fn near(got: &[f32], want: &[f64], tol: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let off = norm(&got.iter().zip(want).map(|(&g, w)| f64::from(g) - w).collect::<Vec<_>>());
    assert!(off <= tol * norm(want), "{what}: off by {off:e} of {:e}", norm(want));
}

/// Those with something that devices fuse.
fn nets() -> [(&'static str, Net); 4] {
    [
        ("post-norm", Net::new("logits", post_norm)),
        ("post-norm loss", Net::new("loss", post_norm)),
        ("pre-norm", Net::new("logits", pre_norm)),
        ("shared", Net::new("logits", shared)),
    ]
}

/// Batch norms under running averages, and under the batch's own moments.
fn convolutional() -> [(&'static str, Net); 2] {
    [
        ("residual blocks", Net::new("logits", residual_blocks)),
        ("in training", Net::new("logits", |s| residual_blocks(&s.batch_statistics()))),
    ]
}

#[test]
fn the_host_rectifies_its_batch_norms() {
    for (name, net) in convolutional() {
        let count = |how: Lowering, name: &str| net.ops(how).iter().filter(|op| **op == name).count();
        let plain = |how| ["conv2d", "batch_norm", "add", "relu"].map(|op| count(how, op));
        let rectified = |how| ["batch_norm_relu", "batch_norm_add_relu"].map(|op| count(how, op));
        let convolved = |how| ["conv2d_batch_norm_relu", "conv2d_batch_norm_add_relu"].map(|op| count(how, op));
        let all = |how| (plain(how), rectified(how), convolved(how));
        assert_eq!(all(Lowering::NONE), ([5, 5, 4, 4], [0, 0], [0, 0]), "{name}");
        // One norm ends in a sum that another op reads too, another is a residual. A batch's own statistics read the
        // convolution; one residual is what is convolved, too.
        let host = match name {
            "in training" => ([5, 2, 2, 1], [1, 2], [0, 0]),
            _ => ([3, 2, 2, 1], [0, 1], [1, 1]),
        };
        assert_eq!(all(Lowering::HOST), host, "{name}");
        assert_eq!((rectified(Lowering::ALL), convolved(Lowering::ALL)), ([0, 0], [0, 0]), "{name}");
        // The same sums in the same order, on whatever calls.
        for mode in MODES {
            let [plain, fused] = [Lowering::NONE, Lowering::HOST].map(|how| net.on_host(mode, how));
            assert!(plain[0].iter().all(|y| y.is_finite()) && plain[0] == fused[0], "{name} {mode:?}");
        }
    }
}

#[test]
fn neighbours_become_one_op() {
    let count = |ops: &[&str], name: &str| ops.iter().filter(|op| **op == name).count();
    let (plain, fused) = (Net::new("logits", post_norm).ops(Lowering::NONE), Net::new("logits", post_norm).ops(FUSED));
    assert_eq!(["add", "layer_norm", "gelu", "tanh"].map(|op| count(&plain, op)), [3, 3, 1, 1]);
    assert_eq!(["add", "layer_norm", "gelu", "tanh"].map(|op| count(&fused, op)), [0, 0, 0, 0]);
    assert_eq!(["add_layer_norm", "linear_gelu", "linear_tanh"].map(|op| count(&fused, op)), [3, 1, 1]);
    assert_eq!(plain.len() - fused.len(), 5);

    let (plain, fused) = (Net::new("logits", pre_norm).ops(Lowering::NONE), Net::new("logits", pre_norm).ops(FUSED));
    assert_eq!(["add", "layer_norm", "gelu_tanh", "relu"].map(|op| count(&plain, op)), [3, 3, 1, 1]);
    // The residual stream is read by the next norm and the next sum: norms stay, sums end a product.
    assert_eq!(["add", "layer_norm", "gelu_tanh", "relu"].map(|op| count(&fused, op)), [0, 3, 0, 0]);
    let names = ["linear_add", "linear_gelu_tanh", "linear_add_relu"];
    assert_eq!(names.map(|op| count(&fused, op)), [2, 1, 1]);
}

#[test]
fn what_others_see_is_left_alone() {
    let ops = |model: fn(&Scope)| Net::new("y", model).ops(FUSED);
    let marked = ops(|s| {
        let z = s.linear("fc", s.input("x", &[2, 3], Element::Real), 4);
        s.mark("z", z);
        s.mark("y", s.activation(Activation::Relu, z));
    });
    assert_eq!(marked, ["linear", "relu"]);
    let marked_sum = ops(|s| {
        let x = s.input("x", &[2, 3], Element::Real);
        let sum = s.add(s.activation(Activation::Tanh, x), x);
        s.mark("sum", sum);
        s.mark("y", s.layer_norm("norm", sum, 1e-5));
    });
    assert_eq!(marked_sum, ["tanh", "add", "layer_norm"]);
    let read_twice = ops(|s| {
        let z = s.linear("fc", s.input("x", &[2, 3], Element::Real), 4);
        s.mark("y", s.add(s.activation(Activation::Relu, z), z));
    });
    assert_eq!(read_twice, ["linear", "relu", "add"]);
    let sum_read_twice = ops(|s| {
        let x = s.input("x", &[2, 3], Element::Real);
        let sum = s.add(s.activation(Activation::Tanh, x), x);
        s.mark("y", s.add(s.layer_norm("norm", sum, 1e-5), sum));
    });
    assert_eq!(sum_read_twice, ["tanh", "add", "layer_norm", "add"]);
    // Read by the same op twice is twice.
    let with_itself = ops(|s| {
        let z = s.linear("fc", s.input("x", &[2, 3], Element::Real), 4);
        s.mark("y", s.layer_norm("norm", s.add(z, z), 1e-5));
    });
    assert_eq!(with_itself, ["linear", "add", "layer_norm"]);
    // A parameter's cotangent is not stored as a tensor's between ops.
    let with_a_parameter = ops(|s| {
        let x = s.input("x", &[2, 3], Element::Real);
        let p = s.param("p", &[2, 3], fipk::graph::Kind::Weight);
        s.mark("y", s.layer_norm("norm", s.add(x, p), 1e-5));
    });
    assert_eq!(with_a_parameter, ["add", "layer_norm"]);
}

#[test]
fn what_can_be_bound_and_fetched_stays() {
    for (name, net) in nets() {
        for mode in MODES {
            let [plain, fused] = [Lowering::NONE, Lowering::ALL].map(|how| net.program(mode, how));
            let names = |p: &Program| p.fetches.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
            let inputs = |p: &Program| p.inputs.iter().map(|i| (i.0.clone(), i.1.is_some())).collect::<Vec<_>>();
            assert_eq!(names(&fused), names(&plain), "{name} {mode:?}");
            assert_eq!(inputs(&fused), inputs(&plain), "{name} {mode:?}");
            assert_eq!(fused.unreached, plain.unreached, "{name} {mode:?}");
            assert!(fused.calls.len() < plain.calls.len(), "{name} {mode:?}");
            // Lowered again is lowered anew, from what it was compiled from.
            let again = fused.lowered(Lowering::NONE).unwrap();
            assert_eq!(again.to_string(), plain.to_string(), "{name} {mode:?}");
            assert_eq!(fused.lowered(Lowering::ALL).unwrap().to_string(), fused.to_string());
        }
    }
}

#[test]
fn fused_references_are_the_definition() {
    let all = nets().into_iter().map(|net| (FUSED, net)).chain(convolutional().map(|net| (Lowering::HOST, net)));
    for (how, (name, net)) in all {
        let [plain, fused] = [Lowering::NONE, how].map(|how| net.judge(how, &net.v, &net.dx));
        let scale = plain.iter().fold(0.0f64, |m, d| m.max(d.re.abs()).max(d.eps.abs()));
        for (p, f) in plain.iter().zip(&fused) {
            assert!(
                (p.re - f.re).abs() <= 1e-12 * scale && (p.eps - f.eps).abs() <= 1e-12 * scale,
                "{name}: {p:?} {f:?}"
            );
        }
        assert!(scale > 0.0, "{name}");
    }
}

/// f32 with sums of a few dozen terms keeps 1e-6 of it.
#[test]
fn the_host_agrees_with_the_judge_in_every_mode() {
    const TOL: f64 = 1e-5;
    for (name, net) in nets().into_iter().chain(convolutional()) {
        let truth = net.judge(Lowering::NONE, &net.v, &net.dx);
        let (y, jv): (Vec<f64>, Vec<f64>) = truth.iter().map(|d| (d.re, d.eps)).unzip();
        // Jᵀ u along a direction is u along the tangent of it: one direction for each parameter, one for x.
        let mut along: Vec<(String, std::ops::Range<usize>, Vec<f32>, f64)> = Vec::new();
        let slope = |v: &[f32], dx: &[f32]| -> f64 {
            net.judge(Lowering::NONE, v, dx).iter().zip(&net.u).map(|(d, u)| d.eps * f64::from(*u)).sum()
        };
        let (still, no_dx) = (vec![0.0; net.w.len()], vec![0.0; net.dx.len()]);
        for s in net.layout.spans() {
            let mut v = still.clone();
            v[s.range()].copy_from_slice(&net.v[s.range()]);
            along.push((s.name.clone(), s.range(), net.v[s.range()].to_vec(), slope(&v, &no_dx)));
        }
        let of_x = slope(&still, &net.dx);
        for how in [Lowering::NONE, FUSED, Lowering::ALL, Lowering::HOST] {
            for mode in MODES {
                let what = format!("{name} {mode:?} {how:?}");
                let [got, d, gx] = net.on_host(mode, how);
                near(&got, &y, TOL, &what);
                let dot = |g: &[f32], v: &[f32]| -> (f64, f64) {
                    let terms = g.iter().zip(v).map(|(&g, &v)| f64::from(g) * f64::from(v));
                    terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
                };
                match mode {
                    Mode::Forward => {}
                    Mode::Tangent => near(&d, &jv, TOL, &what),
                    Mode::Reverse => {
                        // What cancels keeps the rounding of the whole gradient.
                        let floor = 1e-6 * size(&d);
                        for (param, at, v, want) in &along {
                            let (sum, terms) = dot(&d[at.clone()], v);
                            let tol = TOL * terms + floor;
                            assert!((sum - want).abs() <= tol, "{what} {param}: {sum} and {want}, {tol:e}");
                        }
                        let (sum, terms) = dot(&gx, &net.dx);
                        assert!((sum - of_x).abs() <= TOL * terms + floor, "{what} x: {sum} and {of_x}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_emulated_device_in_f32_agrees_with_the_host() {
    for (name, net) in nets() {
        for mode in MODES {
            let host = net.on_host(mode, Lowering::NONE);
            for how in [FUSED, Lowering::ALL] {
                for (i, (got, want)) in net.on_device(mode, how, Dtype::F32).iter().zip(&host).enumerate() {
                    let off = apart(got, want);
                    assert!(
                        off <= 2e-5 * size(want),
                        "{name} {mode:?} {how:?}, result {i}: {off:e} of {:e}",
                        size(want)
                    );
                }
            }
        }
    }
}

/// Fused, fewer numbers are rounded on their way: no further from the host than the unfused calls, but for chance, which
/// is half an ulp of bf16.
#[test]
fn the_emulated_device_in_bf16_is_as_near_as_unfused() {
    for (name, net) in nets() {
        for mode in MODES {
            let host = net.on_host(mode, Lowering::NONE);
            let unfused = net.on_device(mode, Lowering::NONE, Dtype::Bf16);
            for how in [FUSED, Lowering::ALL] {
                let fused = net.on_device(mode, how, Dtype::Bf16);
                for (i, (got, want)) in fused.iter().zip(&host).enumerate() {
                    let (off, before) = (apart(got, want), apart(&unfused[i], want));
                    let tol = 1.5 * before + size(want) / 256.0;
                    assert!(off <= tol, "{name} {mode:?} {how:?}, result {i}: {off:e}, unfused {before:e}");
                }
            }
        }
    }
}

#[test]
fn lowered_programs_read_as_they_should() {
    let net = Net::new("y", tiny);
    insta::assert_snapshot!("lowered_forward", net.program(Mode::Forward, Lowering::ALL));
    insta::assert_snapshot!("lowered_tangent", net.program(Mode::Tangent, Lowering::ALL));
    insta::assert_snapshot!("lowered_reverse", net.program(Mode::Reverse, Lowering::ALL));
}
