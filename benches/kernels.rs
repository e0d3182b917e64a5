//! The host's kernels at BERT-base's and MiniLM's shapes: `cargo bench --bench kernels`. For ratios to PyTorch see
//! `benches/peers/compare.py`.
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fipk::engine::{self, Engine, Host, Optimizer, Pattern, Pull, Score, Update};
use fipk::graph::{Kind, Param};
use fipk::ops::{Activation, Attention, Cotangent, LayerNorm, Op, gemm};
use fipk::params::{Layout, Role};
use fipk::rng::Rng;
use fipk::tensor::{View, numel};
use std::hint::black_box;

fn random(n: usize) -> Vec<f32> {
    let mut rng = Rng::new(n as u64, 0);
    (0..n).map(|_| rng.normal()).collect()
}

fn products(c: &mut Criterion) {
    for (m, n, k) in [(1024, 384, 384), (1024, 1536, 384), (1024, 768, 768), (1024, 3072, 768)] {
        let (x, w, mut y) = (random(m * k), random(n * k), random(m * n));
        let (mut gx, mut gw) = (vec![0.0; m * k], vec![0.0; n * k]);
        let mut group = c.benchmark_group(format!("gemm {m}x{n}x{k}"));
        group.throughput(Throughput::Elements(2 * (m * n * k) as u64)); // FLOP
        group.bench_function("forward", |b| b.iter(|| gemm::nt((m, n, k), &x, &w, false, black_box(&mut y))));
        group.bench_function("input gradient", |b| b.iter(|| gemm::nn((m, n, k), &y, &w, false, black_box(&mut gx))));
        group.bench_function("weight gradient", |b| b.iter(|| gemm::tn((m, n, k), &y, &x, false, black_box(&mut gw))));
    }
}

/// Forward and vjp of an op on random inputs.
fn op(c: &mut Criterion, name: &str, op: &dyn Op, shapes: &[&[usize]], index: &[(usize, Vec<i32>)]) {
    let mut inputs: Vec<Vec<f32>> = shapes.iter().map(|s| random(numel(s))).collect();
    for (i, values) in index {
        inputs[*i] = values.iter().map(|v| f32::from_bits(*v as u32)).collect();
    }
    let views: Vec<View> = inputs.iter().zip(shapes).map(|(data, shape)| View { data, shape }).collect();
    let shape = op.output(shapes).expect("shapes fit");
    let (mut y, mut saved, gy) = (vec![0.0; numel(&shape)], vec![0.0; op.saved(shapes)], random(numel(&shape)));
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(numel(&shape) as u64));
    group.bench_function("forward", |b| b.iter(|| op.forward(&views, black_box(&mut y), &mut saved)));
    let mut gx: Vec<Vec<f32>> = inputs.iter().map(|x| vec![0.0; x.len()]).collect();
    group.bench_function("vjp", |b| {
        b.iter(|| {
            let real = |i: usize| index.iter().all(|(j, _)| i != *j);
            let cotangents = gx.iter_mut().enumerate().map(|(i, data)| real(i).then_some(Cotangent { data, add: false }));
            op.vjp(&views, &y, &saved, &gy, black_box(&mut cotangents.collect::<Vec<_>>()));
        });
    });
}

fn ops(c: &mut Criterion) {
    op(c, "gelu 1024x3072", &Activation::GeluErf, &[&[1024, 3072]], &[]);
    op(c, "layer norm 1024x768", &LayerNorm { eps: 1e-12 }, &[&[1024, 768], &[768], &[768]], &[]);
    let (qkv, mask): ([usize; 3], [usize; 2]) = ([8, 128, 768], [8, 128]);
    let ones = vec![(3, vec![1; 8 * 128])];
    op(c, "attention 8x128, 12 heads of 64", &Attention { heads: 12 }, &[&qkv, &qkv, &qkv, &mask], &ones);
}

/// What a step does to weight space: the choice of what is pruned, and the fused update.
fn weight_space(c: &mut Criterion) {
    let n = 16_000_000;
    let param = Param { name: "w".into(), shape: vec![4000, 4000], kind: Kind::Weight, aliases: vec![] };
    let mut host = Host::new(Layout::new(&[param], &[Role::Prunable]));
    let [w, g, m, v] = std::array::from_fn(|_| host.zeros().expect("a vector"));
    host.write(w, 0, &random(n)).expect("fits");
    host.write(g, 0, &random(n)).expect("fits");
    let mask = host.mask().expect("a mask");
    let how = engine::Criterion { pattern: Pattern::Global, score: Score::Magnitude, sparsity: 0.6 };
    let found = host.select(w, &how, None, mask).expect("chosen");
    let bits = |x: f32| (found.threshold * x).to_bits();
    let mut update = Update {
        optimizer: Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.01 },
        step: 1,
        learning_rate: 1e-6,
        gradient_scale: 1.0,
        w,
        g,
        m,
        v: Some(v),
        mask: Some(mask),
        pull: Pull::Gradient { coefficient: 0.1 },
        census: None,
    };
    let mut group = c.benchmark_group("16 M weights");
    group.throughput(Throughput::Elements(n as u64)).sample_size(20);
    group.bench_function("select", |b| b.iter(|| host.select(w, &how, None, mask).expect("chosen")));
    group.bench_function("update", |b| b.iter(|| host.update(&update).expect("updated")));
    update.census = Some((bits(0.99), bits(1.01)));
    group.bench_function("update with census, select from it", |b| {
        b.iter(|| {
            let census = host.update(&update).expect("updated").census;
            host.select(w, &how, census, mask).expect("chosen")
        });
    });
}

criterion_group!(benches, products, ops, weight_space);
criterion_main!(benches);
