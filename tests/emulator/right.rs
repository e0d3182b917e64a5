//! Kernels without a bug raise no alarm under any schedule, and compute what they should.
use super::bench::{Bench, ONE_BLOCK, SEEDS, Shape, plane, x};

/// y after the kernel, under each schedule.
fn run(kernel: &str, shape: Shape, wanted: impl Fn(usize) -> Option<f32>) {
    for seed in SEEDS {
        let bench = Bench::new(seed);
        if kernel == "right_last_block" {
            bench.zero_plane();
        }
        bench.launch(kernel, shape).unwrap();
        for (t, y) in bench.y().into_iter().enumerate() {
            if let Some(wanted) = wanted(t) {
                assert_eq!(y, wanted, "{kernel}, seed {seed:?}: y[{t}]");
            }
        }
    }
}

#[test]
fn barriers_order_a_block() {
    run("right_barrier", ONE_BLOCK, |t| Some(x(255 - t)));
}

#[test]
fn blocks_reduce() {
    run("right_block_sum", ONE_BLOCK, |t| Some(if t % 2 == 1 { 256.0 } else { 256.0 * 257.0 / 2.0 }));
}

#[test]
fn parts_of_a_warp_synchronise() {
    run("right_syncwarp_of_halves", ONE_BLOCK, |t| Some(x(t ^ 15)));
}

#[test]
fn warps_vote() {
    run("right_votes", ONE_BLOCK, |_| Some(12.0));
}

#[test]
fn atomics_lose_nothing() {
    run("right_atomics", ONE_BLOCK, |t| match t {
        0..=5 => Some(26.0),
        6..=9 => Some(25.0),
        10 => Some(256.0),
        11 => Some(256.0),
        _ => None,
    });
}

#[test]
fn the_last_block_sees_what_others_left() {
    let blocks = 9;
    let total: f32 = (0..blocks).map(x).sum();
    run("right_last_block", Shape { blocks: blocks as u32, ..ONE_BLOCK }, |t| (t == 255).then_some(total));
}

#[test]
fn a_loading_warp_feeds_a_warpgroup() {
    let product = |i: usize, j: usize| (0..64).map(|k| plane(i, k) * plane(j, k)).sum::<f32>();
    run("right_pipeline", Shape { shared: 3 * 8192, ..ONE_BLOCK }, |t| Some(8.0 * product(t / 4, t % 4)));
}
