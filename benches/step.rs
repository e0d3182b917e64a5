//! Whole programs of MiniLM (16 x 64) and LeNet-300-100 (128), randomly initialised: `cargo bench --bench step`. For ratios
//! to PyTorch see `benches/peers/compare.py`.
use criterion::{Criterion, criterion_group, criterion_main};
use fipk::engine::{Bindings, Data, Engine, Host};
use fipk::graph::{Mode, Program, Wrt};
use fipk::models::{Config, Head, Network};
use fipk::params::Layout;
use fipk::rng::Rng;
use fipk::tensor::numel;
use serde_json::{Value, json};

fn passes(c: &mut Criterion, name: &str, config: Value, head: Head, rows: usize, tokens: usize) {
    let raw = config.as_object().expect("an object");
    let network = Network::new(Config::from_raw("bench", raw).expect("a config"), head).expect("a head");
    let graph = network.graph(rows, tokens).expect("a graph");
    let layout = Layout::trained(&graph.params);
    let weights = network.initial(&layout, 0);
    let mut host = Host::new(layout);
    let [w, v, g] = std::array::from_fn(|_| host.zeros().expect("a vector"));
    host.write(w, 0, &weights).expect("fits");
    host.write(v, 0, &weights).expect("fits");

    let mut rng = Rng::new(0, 0);
    let ids: Vec<i32> = (0..rows * tokens).map(|_| rng.below(30_000) as i32).collect();
    let (ones, zeros) = (vec![1; rows * tokens], vec![0; rows * tokens]);
    let pixels: Vec<f32> = (0..rows * 784).map(|_| rng.normal()).collect();
    let inputs = [
        ("input_ids", Data::Index(&ids)),
        ("attention_mask", Data::Index(&ones)),
        ("token_type_ids", Data::Index(&zeros)),
        ("pixel_values", Data::Real(&pixels)),
    ];
    let logits = graph.mark("logits").expect("logits");
    let seed = vec![1.0; numel(&graph.tensor(logits).shape)];
    let mut group = c.benchmark_group(name);
    group.sample_size(20);
    for (pass, mode) in [("forward", Mode::Forward), ("J v", Mode::Tangent), ("J^T u", Mode::Reverse)] {
        let wrt = if mode == Mode::Forward { Wrt::default() } else { Wrt::params() };
        let program = Program::compile(&graph, mode, &wrt, "logits").expect("compiles");
        let program = host.load(program).expect("loads");
        let with = Bindings { tangents: Some(v), cotangents: Some(g), seed: Some(&seed), ..Bindings::new(w, &inputs) };
        let with = if mode == Mode::Reverse { with } else { Bindings { cotangents: None, ..with } };
        group.bench_function(pass, |b| b.iter(|| host.run(program, &with).expect("runs")));
    }
}

fn step(c: &mut Criterion) {
    let minilm = json!({ "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536 });
    passes(c, "MiniLM 16x64", minilm, Head::Classification { labels: 2 }, 16, 64);
    let lenet = json!({ "model_type": "mlp", "sizes": [784, 300, 100, 10], "layers": ["fc1", "fc2", "fc3"], "hidden_act": "relu" });
    passes(c, "LeNet-300-100, 128", lenet, Head::Classification { labels: 10 }, 128, 1);
}

criterion_group!(benches, step);
criterion_main!(benches);
