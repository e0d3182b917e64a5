//! What a run is given: errors that name what is missing, and arenas full of NaN that nobody reads.
use super::*;
use fipk::Error;
use fipk::engine::{Bindings, Data, Loaded};
use fipk::graph::{Graph, Mode, Program, Wrt, build};
use fipk::ops::Activation;
use fipk::tensor::Element;

fn net(name: &str, width: usize) -> Graph {
    build(|s| {
        let x = s.input("x", &[2, 3], Element::Real);
        let hidden = s.linear(name, x, width);
        let hidden = s.activation(Activation::Tanh, hidden);
        s.mark("hidden", hidden);
        let ids = s.input("ids", &[2], Element::Index);
        let rows = s.embedding("rows", ids, 5, width);
        s.mark("picked", s.at("sum").add(hidden, rows));
    })
    .unwrap()
}

const X: [f32; 6] = [0.1, -0.2, 0.3, 0.4, 0.5, -0.6];

fn loaded(host: &mut Subject, mode: Mode, wrt: Wrt) -> Loaded {
    let graph = net("fc", 4);
    host.load(Program::compile(&graph, mode, &wrt, "picked").unwrap()).unwrap()
}

/// The run fails in one line that holds each of these words.
#[track_caller]
fn refused(result: fipk::Result<()>, words: &[&str]) {
    let error = result.expect_err("this run must be refused").to_string();
    assert!(words.iter().all(|w| error.contains(w)) && !error.contains('\n'), "{error}");
}

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    let graph = net("fc", 4);
    let mut host = engine(Layout::trained(&graph.params));
    let w = put(&mut host, &normals(&mut Rng::new(1, 0), 36));
    let (v, g) = (host.zeros().unwrap(), host.zeros().unwrap());
    let both = Wrt { inputs: vec!["x".into()], ..Wrt::params() };
    let forward = loaded(&mut host, Mode::Forward, Wrt::params());
    let tangent = loaded(&mut host, Mode::Tangent, both.clone());
    let reverse = loaded(&mut host, Mode::Reverse, both);
    let ids = ("ids", Data::Index(&[3, 0]));
    let good = [("x", Data::Real(&X)), ids];

    let mut run = |p, b: &Bindings| host.run(p, b);
    refused(run(forward, &Bindings::new(w, &[ids])), &["x", "[2, 3]", "not given"]);
    refused(run(forward, &Bindings::new(w, &[ids, ("X", Data::Real(&X))])), &["run at x", "not given"]);
    refused(run(forward, &Bindings::new(w, &[ids, ("x", Data::Real(&X[..5]))])), &["x", "[2, 3]", "5 numbers"]);
    refused(run(forward, &Bindings::new(w, &[ids, ("x", Data::Index(&[0; 6]))])), &["x", "Real", "Index"]);
    refused(run(forward, &Bindings::new(w, &[good[0], ("ids", Data::Real(&[0.0; 2]))])), &["ids", "Index", "Real"]);

    let bound = Bindings { tangents: Some(v), input_tangents: &[("x", &X)], ..Bindings::new(w, &good) };
    run(tangent, &bound).unwrap();
    refused(run(tangent, &Bindings { tangents: None, ..bound }), &["tangents", "needs"]);
    refused(run(tangent, &Bindings { input_tangents: &[], ..bound }), &["x", "tangent", "[2, 3]"]);
    refused(run(tangent, &Bindings { input_tangents: &[("x", &X[..3])], ..bound }), &["x", "tangent", "[2, 3]"]);

    let bound = Bindings { cotangents: Some(g), seed: Some(&[1.0; 8]), ..Bindings::new(w, &good) };
    run(reverse, &bound).unwrap();
    refused(run(reverse, &Bindings { cotangents: None, ..bound }), &["cotangents", "needs"]);
    refused(run(reverse, &Bindings { cotangents: Some(w), ..bound }), &["cotangents", "read"]);
    refused(run(reverse, &Bindings { seed: None, ..bound }), &["seed", "8 numbers", "got 0"]);
    refused(run(reverse, &Bindings { seed: Some(&[1.0; 3]), ..bound }), &["seed", "8 numbers", "got 3"]);
    // An error leaves everything as it was: the run before it can be repeated.
    run(reverse, &bound).unwrap();
}

#[test]
fn handles_and_layouts_of_others_are_refused() {
    let graph = net("fc", 4);
    let mut host = engine(Layout::trained(&graph.params));
    let mut other = engine(Layout::trained(&graph.params));
    let w = host.zeros().unwrap();
    let mine = loaded(&mut host, Mode::Reverse, Wrt::params());
    other.zeros().unwrap();
    let strange = other.zeros().unwrap();
    loaded(&mut other, Mode::Forward, Wrt::params());
    let not_mine = loaded(&mut other, Mode::Forward, Wrt::params());
    let inputs = [("x", Data::Real(&X)), ("ids", Data::Index(&[3, 0]))];
    refused(host.run(not_mine, &Bindings::new(w, &inputs)), &["program", "not loaded"]);
    refused(host.run(mine, &Bindings { cotangents: Some(w), ..Bindings::new(strange, &inputs) }), &["vector 1"]);
    refused(host.run(mine, &Bindings { cotangents: Some(strange), ..Bindings::new(w, &inputs) }), &["vector 1"]);
    refused(host.scale(2.0, strange), &["vector 1"]);
    refused(host.axpy(2.0, w, strange), &["vector 1"]);
    refused(host.copy(w, w), &["the same"]);
    refused(host.write(w, 30, &[0.0; 80]), &["80 floats at 30", "outside its 96"]);
    refused(host.read(w, usize::MAX, &mut [0.0; 4]), &["outside"]);
    let mask = other.mask().unwrap();
    refused(host.project(w, mask), &["mask 0"]);
    refused(host.read_mask(mask).map(drop), &["mask 0"]);
    refused(host.write_mask(mask, &[]), &["mask 0"]);
    refused(other.write_mask(mask, &[1, 2]), &["wanted 0 words, got 2"]);

    let load = |host: &mut Subject, graph: &Graph| -> Result<(), Error> {
        host.load(Program::compile(graph, Mode::Forward, &Wrt::default(), "hidden")?).map(drop)
    };
    refused(load(&mut host, &net("other", 4)), &["other.weight", "no such parameter"]);
    refused(load(&mut host, &net("fc", 5)), &["fc.weight", "[4, 3]", "[5, 3]"]);
    // The same names and shapes in another order would read the wrong weights.
    let turned = build(|s| {
        let x = s.input("x", &[2, 3], Element::Real);
        let fc = s.at("fc");
        let b = fc.param("bias", &[4], Kind::Bias);
        let w = fc.param("weight", &[4, 3], Kind::Weight);
        s.mark("hidden", s.apply(fipk::ops::Linear, &[x, w, b]));
    });
    refused(load(&mut host, &turned.unwrap()), &["fc.bias", "parameter 0"]);
}

#[test]
fn what_is_fetched_is_what_ran_last() {
    let graph = net("fc", 4);
    let mut host = engine(Layout::trained(&graph.params));
    let w = host.zeros().unwrap();
    let first = loaded(&mut host, Mode::Forward, Wrt::params());
    let second = loaded(&mut host, Mode::Forward, Wrt::params());
    let inputs = [("x", Data::Real(&X)), ("ids", Data::Index(&[3, 0]))];
    refused(host.fetch(first, "picked").map(drop), &["picked", "ran last"]);
    host.run(first, &Bindings::new(w, &inputs)).unwrap();
    assert_eq!(host.fetch(first, "picked").unwrap(), [0.0; 8]);
    assert_eq!(host.fetch(first, "output").unwrap(), host.fetch(first, "picked").unwrap());
    assert_eq!(host.fetch(first, "hidden").unwrap().len(), 8);
    refused(host.fetch(first, "logits").map(drop), &["logits"]);
    refused(host.fetch(first, "tangent").map(drop), &["tangent"]);
    host.run(second, &Bindings::new(w, &inputs)).unwrap();
    refused(host.fetch(first, "picked").map(drop), &["picked", "ran last"]);
}

#[test]
fn an_arena_full_of_nan_changes_nothing() {
    let results = |spoiled: bool| {
        let graph = net("fc", 4);
        let layout = Layout::trained(&graph.params);
        let mut host = if spoiled { poisoned(layout) } else { engine(layout) };
        let mut rng = Rng::new(4, 0);
        let (w, v) = (put(&mut host, &normals(&mut rng, 36)), put(&mut host, &normals(&mut rng, 36)));
        // What stood in the gradient before must not matter either.
        let g = put(&mut host, &if spoiled { vec![f32::NAN; 36] } else { vec![0.0; 36] });
        let inputs = [("x", Data::Real(&X)), ("ids", Data::Index(&[3, 0]))];
        let both = Wrt { inputs: vec!["x".into()], ..Wrt::params() };
        let mut all = Vec::new();
        for mode in [Mode::Tangent, Mode::Reverse, Mode::Forward] {
            let program = loaded(&mut host, mode, both.clone());
            let (tangents, cotangents) = ((mode == Mode::Tangent).then_some(v), (mode == Mode::Reverse).then_some(g));
            let u = [1.0, -2.0, 0.5, 0.0, 3.0, -0.25, 1.5, 2.0];
            let (seed, input_tangents): (_, &[(&str, &[f32])]) = (Some(&u[..]), &[("x", &X)]);
            let bound = Bindings { tangents, cotangents, seed, input_tangents, ..Bindings::new(w, &inputs) };
            host.run(program, &bound).unwrap();
            let names = match mode {
                Mode::Tangent => ["output", "hidden", "tangent"],
                Mode::Reverse => ["output", "hidden", "grad.x"],
                Mode::Forward => ["output", "hidden", "picked"],
            };
            all.extend(names.map(|n| to_bits(&host.fetch(program, n).unwrap())));
        }
        all.push(to_bits(&get(&host, g)));
        all
    };
    assert_eq!(results(true), results(false));
}

#[test]
fn an_index_outside_its_table_is_refused() {
    let graph = build(|s| {
        let ids = s.input("ids", &[3], Element::Index);
        s.mark("rows", s.embedding("words", ids, 5, 2));
    })
    .unwrap();
    let mut host = engine(Layout::trained(&graph.params));
    let w = put(&mut host, &[1.0; 10]);
    let program = host.load(Program::compile(&graph, Mode::Forward, &Wrt::default(), "rows").unwrap()).unwrap();
    let mut run = |ids: &[i32]| host.run(program, &Bindings::new(w, &[("ids", Data::Index(ids))]));
    run(&[0, 4, 2]).unwrap();
    refused(run(&[0, 4, 5]), &["0 to 4", "got 5"]);
    refused(run(&[0, -1, 4]), &["0 to 4", "got -1"]);
}
