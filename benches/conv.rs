//! The host's convolutions: `cargo bench --bench conv -- N,C,H,W,O,kh,kw,stride,padding,groups ..` times the passes of
//! each and prints a line of JSON; milliseconds, the fastest and the median of a few runs. `benches/peers/conv.py` runs
//! it in turn with PyTorch.
use fipk::ops::{Conv2d, Cotangent, Op};
use fipk::rng::Rng;
use fipk::tensor::{View, numel};
use std::time::Instant;

/// Seconds to spend on one pass.
const SECONDS: f64 = 0.1;

fn random(n: usize) -> Vec<f32> {
    let mut rng = Rng::new(n as u64, 0);
    (0..n).map(|_| rng.normal()).collect()
}

/// (fastest, median) in milliseconds.
fn time(mut pass: impl FnMut()) -> [f64; 2] {
    let mut once = || {
        let clock = Instant::now();
        pass();
        clock.elapsed().as_secs_f64()
    };
    once();
    let runs = (SECONDS / once()).clamp(4.0, 100.0) as usize;
    let mut all: Vec<f64> = (0..runs).map(|_| once()).collect();
    all.sort_by(f64::total_cmp);
    [all[0] * 1e3, all[runs / 2] * 1e3]
}

fn main() {
    for text in std::env::args().skip(1).filter(|a| a.contains(',')) {
        let sizes: Vec<usize> = text.split(',').map(|s| s.parse().expect("a number")).collect();
        let [n, c, h, w, o, kh, kw, stride, padding, groups] = sizes[..] else { panic!("{text}: wanted 10 numbers") };
        let op = Conv2d { groups, ..Conv2d::square(stride, padding) };
        let (from, kernel) = ([n, c, h, w], [o, c / groups, kh, kw]);
        let to = op.output(&[&from, &kernel]).expect("sizes fit");
        let (x, weight, gy) = (random(numel(&from)), random(numel(&kernel)), random(numel(&to)));
        let (dx, dw) = (random(x.len()), random(weight.len()));
        let views = [View { data: &x, shape: &from }, View { data: &weight, shape: &kernel }];
        let (mut y, mut gx, mut gw) = (vec![0.0; gy.len()], vec![0.0; x.len()], vec![0.0; weight.len()]);
        let forward = time(|| op.forward(&views, &mut y, &mut []));
        let jvp = time(|| op.jvp(&views, &[], &[], &[Some(&dx), Some(&dw)], &mut y));
        let input = time(|| op.vjp(&views, &[], &[], &gy, &mut [Some(Cotangent { data: &mut gx, add: false }), None]));
        let weights =
            time(|| op.vjp(&views, &[], &[], &gy, &mut [None, Some(Cotangent { data: &mut gw, add: false })]));
        let passes = [("forward", forward), ("input", input), ("weight", weights), ("jvp", jvp)];
        let fields = passes.map(|(name, [fastest, median])| format!("\"{name}\": [{fastest:.4}, {median:.4}]"));
        println!("{{\"shape\": \"{text}\", {}}}", fields.join(", "));
    }
}
