//! The choice of pruned weights: masks are the host's bit for bit, whichever way they were found.
use super::space::*;
use fipk::engine::cuda::{At, Flat, Knobs, Sizes, Source};
use fipk::engine::{Census, Criterion, Engine, Optimizer, Pattern, Pull, Score, Selected, Update};
use fipk::gpu::{Memory, Ptr};
use fipk::params::{Layout, Role};

/// Small tiles, so that short spans have many of them.
const SMALL: Sizes = Sizes { tile: 64, room: 4096 };
const MAGNITUDE: Score = Score::Magnitude;

fn by(pattern: Pattern, score: Score, sparsity: f64) -> Criterion {
    Criterion { pattern, score, sparsity }
}

/// The summary against the host's: counts and thresholds to the bit, sums to f64.
fn same(found: &Selected, host: &Selected, what: &str) {
    assert_eq!(found.pruned, host.pruned, "{what}");
    assert_eq!(found.threshold.to_bits(), host.threshold.to_bits(), "{what}: {found:?} {host:?}");
    for (found, host) in [(found.pruned_squares, host.pruned_squares), (found.squares, host.squares)] {
        // A NaN here must be one there.
        assert!(found.is_nan() == host.is_nan(), "{what}: {found} {host}");
        if host.is_finite() {
            close(found, host, 1e-12 * host, what);
        }
    }
}

/// Select by both, compare, project by both, compare; the mask starts as rubbish.
fn check(space: &mut Space, values: &[f32], how: &Criterion) {
    let (w, hw) = space.put(values);
    let what = format!("{how:?}");
    let mask = space.upload(&vec![0xdead_beefu32; space.mask_words()]);
    let host_mask = space.host.mask().unwrap();
    let expected = space.host.select(hw, how, None, host_mask).unwrap();
    let found = space.flat.select(w.at(), how, None, mask.at()).unwrap();
    let words: Vec<u32> = space.download(mask.at(), space.mask_words());
    assert_eq!(words, space.host.read_mask(host_mask).unwrap(), "{what}");
    same(&found, &expected, &what);

    let shadow = space.upload(&vec![0x3f80u16; space.layout.len()]);
    space.flat.project(w.at(), shadow.at(), mask.at()).unwrap();
    space.host.project(hw, host_mask).unwrap();
    assert_eq!(bits(&space.floats(w.at())), bits(&space.read(hw)), "{what}: projected");
    for (i, s) in space.download::<u16>(shadow.at(), space.layout.len()).into_iter().enumerate() {
        let pruned = words.get(i / 32).is_some_and(|w| w >> (i % 32) & 1 == 1);
        assert_eq!(s, if pruned { 0 } else { 0x3f80 }, "{what}: shadow {i}");
    }
}

const SHARES: [f64; 5] = [0.0, 0.3, 0.5, 0.93, 1.0];

#[test]
fn global_and_layer_masks_are_the_hosts() {
    for (schedule, tile) in SCHEDULES.into_iter().zip([64, 4096, 96]) {
        let sizes = Sizes { tile, room: 4096 };
        let mut space = Space::new(mixed(), schedule, sizes);
        let layout = space.layout.clone();
        let mut strange = tied(&layout, 1);
        strange[40] = f32::NAN;
        strange[41] = f32::INFINITY;
        strange[1000] = f32::from_bits(0xffc0_0001);
        let equal = fill(&layout, || -0.75);
        let zeros = fill(&layout, || 0.0);
        for values in [normals(&layout, 2), tied(&layout, 3), strange, equal, zeros] {
            for p in SHARES {
                check(&mut space, &values, &by(Pattern::Global, MAGNITUDE, p));
                check(&mut space, &values, &by(Pattern::Layer, MAGNITUDE, p));
            }
        }
        for p in SHARES {
            check(&mut space, &tied(&layout, 4), &by(Pattern::Global, Score::Random { seed: 1 << 40 | 5 }, p));
            check(&mut space, &tied(&layout, 4), &by(Pattern::Layer, Score::Random { seed: 6 }, p));
        }
    }
}

#[test]
fn single_spans_of_awkward_lengths() {
    for (schedule, n) in SCHEDULES.iter().flat_map(|&s| [1, 2, 31, 32, 33, 1009, 4096, 4097].map(|n| (s, n))) {
        let mut space = Space::plain(weights(&[&[n]]), schedule);
        let values = tied(&space.layout, n as u64);
        for p in [0.5, 0.9] {
            check(&mut space, &values, &by(Pattern::Global, MAGNITUDE, p));
            check(&mut space, &values, &by(Pattern::Row, MAGNITUDE, p));
        }
    }
}

#[test]
fn candidates_that_find_no_room_are_read_again() {
    for (schedule, room) in SCHEDULES.iter().flat_map(|&s| [1, 7, 100].map(|r| (s, r))) {
        let mut space = Space::new(mixed(), schedule, Sizes { tile: 64, room });
        for values in [normals(&space.layout, 8), tied(&space.layout, 9), fill(&space.layout, || 2.0)] {
            for p in [0.2, 0.6, 1.0] {
                check(&mut space, &values, &by(Pattern::Global, MAGNITUDE, p));
            }
            check(&mut space, &values, &by(Pattern::Global, Score::Random { seed: 3 }, 0.5));
        }
    }
}

#[test]
fn rows_and_groups_are_the_hosts() {
    // Rows in one word, across words, longer than a warp, and than a block; one number each; long ones after short ones.
    let shapes: [&[usize]; 6] = [&[7, 24], &[5, 96], &[3, 8, 40], &[40], &[2, 4, 8], &[3, 1048]];
    for (schedule, score) in SCHEDULES.iter().flat_map(|&s| [MAGNITUDE, Score::Random { seed: 77 }].map(|r| (s, r))) {
        let mut space = Space::new(weights(&shapes), schedule, SMALL);
        for values in [tied(&space.layout, 12), normals(&space.layout, 13), fill(&space.layout, || f32::NAN)] {
            for p in SHARES {
                check(&mut space, &values, &by(Pattern::Row, score, p));
            }
        }
        let mut space = Space::new(weights(&[&[7, 24], &[5, 96], &[3, 8, 42]]), schedule, SMALL);
        for (n, m) in [(2, 4), (1, 3), (4, 8), (1, 24)] {
            let values = tied(&space.layout, 14);
            if [24, 96, 336].iter().all(|cols| cols % m == 0) {
                for p in [0.0, 0.5, 1.0] {
                    check(&mut space, &values, &by(Pattern::NofM { n, m }, score, p));
                }
            }
        }
    }
}

#[test]
fn blocks_are_the_hosts() {
    let shapes: [&[usize]; 5] = [&[7, 24], &[5, 97], &[3, 8, 40], &[37], &[16, 16]];
    for (schedule, score) in SCHEDULES.iter().flat_map(|&s| [MAGNITUDE, Score::Random { seed: 7 }].map(|r| (s, r))) {
        let mut space = Space::new(weights(&shapes), schedule, SMALL);
        for values in [tied(&space.layout, 15), normals(&space.layout, 16), fill(&space.layout, || 0.5)] {
            for (rows, cols) in [(4, 4), (1, 19), (2, 3), (64, 64), (1, 1)] {
                for p in [0.0, 0.45, 1.0] {
                    check(&mut space, &values, &by(Pattern::Block { rows, cols }, score, p));
                }
            }
        }
    }
}

/// The census of weights that a step of no length leaves as they are.
fn take_census(space: &Space, w: &Memory, bracket: (u32, u32)) -> Census {
    let zeros = [(); 2].map(|_| space.upload(&vec![0.0f32; space.layout.len()]));
    let mut host = fipk::engine::Host::new(space.layout.clone());
    let [any, g, m] = [(); 3].map(|_| host.zeros().unwrap());
    let optimizer = Optimizer::Sgd { momentum: 0.0, decay: 0.0 };
    let (mask, v, pull, census) = (None, None, Pull::None, Some(bracket));
    let step =
        Update { optimizer, step: 1, learning_rate: 0.0, gradient_scale: 1.0, w: any, g, m, v, mask, pull, census };
    let flat: &Flat = &space.flat;
    flat.write_knobs(&Knobs::new(&step)).unwrap();
    let [g, m] = [zeros[0].at(), zeros[1].at()];
    let at = At { w: w.at(), g, m, v: Ptr::NULL, shadow: Ptr::NULL, mask: Ptr::NULL };
    flat.queue_update(&optimizer, &at).unwrap();
    flat.read_updated().unwrap().0.census.unwrap()
}

fn magnitudes(layout: &Layout, values: &[f32]) -> Vec<u32> {
    let mut sorted: Vec<u32> =
        layout.with_role(Role::Prunable).flat_map(|s| &values[s.range()]).map(|x| x.abs().to_bits()).collect();
    sorted.sort_unstable();
    sorted
}

#[test]
fn a_census_changes_no_mask_and_is_used_where_it_can_be() {
    for (schedule, room) in SCHEDULES.into_iter().zip([4096, 40, 1]).chain([(Some(3), 4096)]) {
        let mut space = Space::new(mixed(), schedule, Sizes { tile: 64, room });
        for values in [normals(&space.layout, 20), tied(&space.layout, 21)] {
            let sorted = magnitudes(&space.layout, &values);
            let n = sorted.len();
            for p in [0.3, 0.8] {
                let how = by(Pattern::Global, MAGNITUDE, p);
                let k = (p * n as f64).round() as usize;
                let kth = sorted[k - 1];
                let (w, hw) = space.put(&values);
                let host_mask = space.host.mask().unwrap();
                let expected = space.host.select(hw, &how, None, host_mask).unwrap();
                let near = (sorted[k - 1 - n / 100], sorted[(k + n / 100).min(n - 1)]);
                for (low, high) in
                    [near, (0, u32::MAX), (kth, kth), (kth + 1, u32::MAX), (0, kth.saturating_sub(1)), (5, 4)]
                {
                    let census = take_census(&space, &w, (low, high));
                    let mask = space.upload(&vec![0xdead_beefu32; space.mask_words()]);
                    let (found, source) = space.flat.select_from(w.at(), &how, Some(&census), mask.at()).unwrap();
                    let what = format!("bracket {low:x}..={high:x} around {kth:x}, room {room}");
                    let words: Vec<u32> = space.download(mask.at(), space.mask_words());
                    assert_eq!(words, space.host.read_mask(host_mask).unwrap(), "{what}");
                    same(&found, &expected, &what);
                    let inside = sorted.iter().filter(|m| (low..=high).contains(m)).count();
                    let holds = low <= kth && kth <= high && inside <= room;
                    assert_eq!(source, if holds { Source::Census } else { Source::Weights }, "{what}");
                    // It is spent now: its list is another's.
                    let (_, source) = space.flat.select_from(w.at(), &how, Some(&census), mask.at()).unwrap();
                    assert_eq!(source, Source::Weights, "{what}: a spent census");
                }
            }
        }
    }
}

#[test]
fn a_census_leaves_other_scopes_and_scores_alone() {
    let mut space = Space::new(weights(&[&[10, 24], &[7, 16]]), Some(3), SMALL);
    let values = normals(&space.layout, 22);
    let (w, hw) = space.put(&values);
    let (host_mask, mask) = (space.host.mask().unwrap(), space.upload(&vec![0u32; space.mask_words()]));
    for (pattern, score) in [
        (Pattern::Global, Score::Random { seed: 9 }),
        (Pattern::Layer, MAGNITUDE),
        (Pattern::Row, MAGNITUDE),
        (Pattern::Block { rows: 2, cols: 4 }, MAGNITUDE),
    ] {
        let how = by(pattern, score, 0.4);
        let census = take_census(&space, &w, (0, u32::MAX));
        space.flat.select(w.at(), &how, Some(&census), mask.at()).unwrap();
        space.host.select(hw, &how, None, host_mask).unwrap();
        let words: Vec<u32> = space.download(mask.at(), space.mask_words());
        assert_eq!(words, space.host.read_mask(host_mask).unwrap(), "{how:?}");
    }
}

#[test]
fn rows_that_groups_do_not_fill_are_an_error_and_nothing_comes_from_nothing() {
    let space = Space::new(weights(&[&[4, 8], &[4, 6]]), None, SMALL);
    let w = space.upload(&normals(&space.layout, 1));
    let mask = space.upload(&vec![0xdead_beefu32; space.mask_words()]);
    let how = by(Pattern::NofM { n: 2, m: 4 }, MAGNITUDE, 1.0);
    let error = space.flat.select(w.at(), &how, None, mask.at()).unwrap_err().to_string();
    assert!(error.contains("2:4") && error.contains("rows of 6"), "{error}");
    assert_eq!(space.download::<u32>(mask.at(), 1), [0xdead_beef], "an error touched the mask");

    let space = Space::plain(layout(&[(&[5, 7], fipk::graph::Kind::Weight, Role::Free)]), None);
    let w = space.upload(&normals(&space.layout, 1));
    let found = space.flat.select(w.at(), &by(Pattern::Global, MAGNITUDE, 0.9), None, Ptr::NULL).unwrap();
    assert_eq!((found.pruned, found.squares), (0, 0.0));
    space.flat.project(w.at(), Ptr::NULL, Ptr::NULL).unwrap();
}
