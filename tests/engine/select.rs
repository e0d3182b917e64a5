//! `Host::select`: exactly the k smallest, ties by index, by every scope, with a census and without.
use super::*;
use fipk::engine::{Census, Optimizer, Pull, Update};
use fipk::rng::Rng; // proptest's prelude has one too
use proptest::prelude::*;

/// k = round(p n), halves up.
fn count(p: f64, n: usize) -> usize {
    (p * n as f64 + 0.5).floor() as usize
}

/// The definition: sort by magnitude, then by index, and prune the first k.
fn naive(w: &[f32], k: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..w.len()).collect();
    order.sort_by(|&a, &b| w[a].abs().total_cmp(&w[b].abs()).then(a.cmp(&b)));
    let mut pruned = vec![false; w.len()];
    order[..k].iter().for_each(|&i| pruned[i] = true);
    pruned
}

/// The definition, in every run of `size` neighbours.
fn naive_groups(w: &[f32], size: usize, k: usize) -> Vec<bool> {
    w.chunks(size).flat_map(|g| naive(g, k)).collect()
}

/// Select, hold the summary against plain sums, and return the mask.
fn select(host: &mut Subject, values: &[f32], how: &Criterion) -> Vec<bool> {
    let (w, mask) = (put(host, values), host.mask().unwrap());
    let found = host.select(w, how, None, mask).unwrap();
    let pruned = bits(host, mask);
    let square = |x: f32| f64::from(x) * f64::from(x);
    let gone = || values.iter().zip(&pruned).filter(|p| *p.1).map(|p| *p.0);
    let (part, all): (f64, f64) = (gone().map(square).sum(), values.iter().map(|&x| square(x)).sum());
    assert_eq!(found.pruned, gone().count());
    assert_eq!(found.threshold, gone().fold(0.0, |top, x| f32::max(top, x.abs())));
    close(found.pruned_squares, part, 1e-12 * part, "pruned squares");
    close(found.squares, all, 1e-12 * all, "squares");
    // Projecting zeroes those and nothing else.
    host.project(w, mask).unwrap();
    let expected: Vec<f32> = values.iter().zip(&pruned).map(|(&x, &p)| if p { 0.0 } else { x }).collect();
    assert_eq!(to_bits(&get(host, w)), to_bits(&expected));
    pruned
}

/// A golden mask: 1 stays.
fn golden_mask(ones: &[u8]) -> Vec<bool> {
    ones.iter().map(|&stays| stays == 0).collect()
}

#[test]
fn masks_equal_numpys() {
    let golden = Golden::open("project/project.safetensors");
    let sparsities = golden.f64("sparsities");
    let tensor = |name: &str| (golden.f32(&format!("{name}.weights")), golden.u8(&format!("{name}.masks")));

    for name in ["global_tied", "global_smooth"] {
        let (w, masks) = tensor(name);
        let mut host = engine(weights(&[vec![w.len()]]));
        for (p, expected) in sparsities.iter().zip(masks.chunks(w.len())) {
            let pruned = select(&mut host, &w, &magnitude(Pattern::Global, *p));
            assert_eq!(pruned, golden_mask(expected), "{name} at {p}");
        }
    }

    let layers = ["layer.a", "layer.b", "layer.c"].map(tensor);
    let joined: Vec<f32> = layers.iter().flat_map(|l| l.0.clone()).collect();
    let (same, together) = tensor("layer_joined");
    assert_eq!(joined, same);
    let mut host = engine(weights(&[vec![11, 7], vec![5, 9], vec![6, 6]]));
    for (i, &p) in sparsities.iter().enumerate() {
        let apart: Vec<u8> = layers.iter().flat_map(|(w, m)| m[i * w.len()..][..w.len()].to_vec()).collect();
        assert_eq!(select(&mut host, &joined, &magnitude(Pattern::Layer, p)), golden_mask(&apart), "layer at {p}");
        let all = &together[i * joined.len()..][..joined.len()];
        assert_eq!(select(&mut host, &joined, &magnitude(Pattern::Global, p)), golden_mask(all), "global at {p}");
    }

    let (w, masks) = tensor("row");
    let mut host = engine(weights(&[vec![13, 24]]));
    for (p, expected) in sparsities.iter().zip(masks.chunks(w.len())) {
        assert_eq!(select(&mut host, &w, &magnitude(Pattern::Row, *p)), golden_mask(expected), "row at {p}");
    }
    for (n, m) in [(2, 4), (4, 8)] {
        let pruned = select(&mut host, &w, &magnitude(Pattern::NofM { n, m }, 1.0));
        assert_eq!(pruned, golden_mask(&golden.u8(&format!("nm_{n}_{m}.mask"))), "{n}:{m}");
    }
}

/// Weights with many equal magnitudes, both zeros, subnormals, and now and then a number of its own.
fn tied(rng: &mut Rng, n: usize) -> Vec<f32> {
    const COMMON: [f32; 10] = [0.0, -0.0, 1e-40, -1e-40, f32::MIN_POSITIVE, 0.25, -0.25, 0.5, -0.5, 3.0];
    (0..n).map(|_| if rng.below(4) == 0 { rng.normal() } else { COMMON[rng.below(COMMON.len())] }).collect()
}

/// One to four spans of awkward lengths.
fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop::sample::select(&AWKWARD[..]), 1..5)
}

fn total(shapes: &[Vec<usize>]) -> usize {
    shapes.iter().map(|s| s.iter().product::<usize>()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn the_k_smallest_are_those_of_a_sort(lengths in lengths(), p in 0.0..=1.0f64, seed: u64) {
        let shapes: Vec<Vec<usize>> = lengths.iter().map(|&n| vec![n]).collect();
        let w = tied(&mut Rng::new(seed, 0), total(&shapes));
        let mut host = engine(weights(&shapes));
        let pruned = select(&mut host, &w, &magnitude(Pattern::Global, p));
        prop_assert_eq!(&pruned, &naive(&w, count(p, w.len())));
        prop_assert_eq!(pruned.iter().filter(|&&b| b).count(), count(p, w.len()));

        let pruned = select(&mut host, &w, &magnitude(Pattern::Layer, p));
        let mut rest = &w[..];
        let mut expected = Vec::new();
        for n in lengths {
            let (part, tail) = rest.split_at(n);
            expected.extend(naive(part, count(p, n)));
            rest = tail;
        }
        prop_assert_eq!(pruned, expected);
    }

    #[test]
    fn rows_and_groups_are_sorted_by_themselves(rows in 1..40usize, groups in 1..20usize, p in 0.0..=1.0f64, seed: u64) {
        let shapes = [vec![rows, 8 * groups], vec![3, 2, 4 * groups]];
        let w = tied(&mut Rng::new(seed, 0), total(&shapes));
        let (first, second) = w.split_at(rows * 8 * groups);
        let mut host = engine(weights(&shapes));
        let pruned = select(&mut host, &w, &magnitude(Pattern::Row, p));
        let k = count(p, 8 * groups);
        // Both have rows of the same length: all axes but the first.
        prop_assert_eq!(pruned, [naive_groups(first, 8 * groups, k), naive_groups(second, 8 * groups, k)].concat());
        for (n, m) in [(2, 4), (1, 4), (4, 8)] {
            let pruned = select(&mut host, &w, &magnitude(Pattern::NofM { n, m }, p));
            prop_assert_eq!(pruned, naive_groups(&w, m, count(p, m - n)));
        }
    }

    #[test]
    fn blocks_are_sorted_by_their_norms(
        shapes in prop::collection::vec((1..20usize, 1..20usize).prop_map(|(r, c)| vec![r, c]), 1..4),
        rows in 1..6usize, cols in 1..6usize, p in 0.0..=1.0f64, seed: u64,
    ) {
        // Quarters, so that squares and their sums are exact in any order.
        let mut rng = Rng::new(seed, 0);
        let w: Vec<f32> = (0..total(&shapes)).map(|_| (rng.below(9) as f32 - 4.0) / 4.0).collect();
        let (mut norms, mut block_of, mut at) = (Vec::new(), Vec::new(), 0);
        for s in &shapes {
            let (first, across) = (norms.len(), s[1].div_ceil(cols));
            norms.resize(first + s[0].div_ceil(rows) * across, 0.0f32);
            for i in 0..s[0] * s[1] {
                let block = first + i / s[1] / rows * across + i % s[1] / cols;
                norms[block] += w[at + i] * w[at + i];
                block_of.push(block);
            }
            at += s[0] * s[1];
        }
        let gone = naive(&norms, count(p, norms.len()));
        let pruned = select(&mut engine(weights(&shapes)), &w, &magnitude(Pattern::Block { rows, cols }, p));
        prop_assert_eq!(pruned, block_of.iter().map(|&b| gone[b]).collect::<Vec<_>>());
    }

    #[test]
    fn a_random_choice_is_exact_nested_and_blind(lengths in lengths(), p in 0.0..=1.0f64, q in 0.0..=1.0f64, seed: u64) {
        let shapes: Vec<Vec<usize>> = lengths.iter().map(|&n| vec![n]).collect();
        let mut host = engine(weights(&shapes));
        let n = total(&shapes);
        let random = |sparsity| Criterion { pattern: Pattern::Global, score: Score::Random { seed }, sparsity };
        let few = select(&mut host, &tied(&mut Rng::new(seed, 0), n), &random(p.min(q)));
        let many = select(&mut host, &tied(&mut Rng::new(seed, 1), n), &random(p.max(q)));
        prop_assert_eq!(many.iter().filter(|&&b| b).count(), count(p.max(q), n));
        prop_assert!(few.iter().zip(&many).all(|(few, many)| *many || !few));
    }

    #[test]
    fn a_census_changes_no_mask(
        lengths in lengths(), p in 0.0..=1.0f64, low in 0.0..=1.0f64, high in 0.0..=1.0f64, seed: u64,
    ) {
        let shapes: Vec<Vec<usize>> = lengths.iter().map(|&n| vec![n]).collect();
        let mut host = engine(weights(&shapes));
        let values = tied(&mut Rng::new(seed, 0), total(&shapes));
        let mut sorted: Vec<u32> = values.iter().map(|x| x.abs().to_bits()).collect();
        sorted.sort_unstable();
        let at = |share: f64| sorted[((share * sorted.len() as f64) as usize).min(sorted.len() - 1)];
        let kth = at(p);
        let w = put(&mut host, &values);
        let how = magnitude(Pattern::Global, p);
        let (with, without) = (host.mask().unwrap(), host.mask().unwrap());
        let expected = host.select(w, &how, None, without).unwrap();
        // Holding the k-th, on any side of it, at it, and empty.
        let cut = (at(low.min(high)), at(low.max(high)));
        for bracket in [(0, u32::MAX), cut, (kth, kth), (kth + 1, u32::MAX), (0, kth.saturating_sub(1)), (5, 4)] {
            let census = take_census(&mut host, w, bracket);
            // One that is kept on a device is judged by its choice alone.
            if let Census::Counted(census) = &census {
                prop_assert_eq!(census.bracket, bracket);
                prop_assert_eq!(census.below, sorted.iter().filter(|&&b| b < bracket.0).count());
                let inside = sorted.iter().copied().filter(|&b| bracket.0 <= b && b <= bracket.1).collect::<Vec<_>>();
                let mut counted = census.inside.clone();
                counted.sort_unstable();
                prop_assert_eq!(counted, inside);
            }
            prop_assert_eq!(host.select(w, &how, Some(census), with).unwrap(), expected);
            prop_assert_eq!(bits(&host, with), bits(&host, without));
        }
    }
}

/// The census of weights that a step of no length leaves as they are.
fn take_census(host: &mut Subject, w: Vector, bracket: (u32, u32)) -> Census {
    let (g, m) = (host.zeros().unwrap(), host.zeros().unwrap());
    let optimizer = Optimizer::Sgd { momentum: 0.0, decay: 0.0 };
    let (mask, v, pull) = (None, None, Pull::None);
    let census = Some(bracket);
    let step = Update { optimizer, step: 1, learning_rate: 0.0, gradient_scale: 1.0, w, g, m, v, mask, pull, census };
    host.update(&step).unwrap().census.unwrap()
}

#[test]
fn a_census_leaves_other_scopes_and_scores_alone() {
    let mut host = engine(weights(&[vec![40, 24], vec![7, 16]]));
    let values = normals(&mut Rng::new(3, 0), 40 * 24 + 7 * 16);
    let w = put(&mut host, &values);
    let census = take_census(&mut host, w, (0, u32::MAX));
    let (with, without) = (host.mask().unwrap(), host.mask().unwrap());
    let random = Criterion { pattern: Pattern::Global, score: Score::Random { seed: 9 }, sparsity: 0.4 };
    let layer = magnitude(Pattern::Layer, 0.4);
    for how in [random, layer, magnitude(Pattern::Row, 0.4), magnitude(Pattern::Block { rows: 2, cols: 4 }, 0.4)] {
        host.select(w, &how, Some(census.clone()), with).unwrap();
        host.select(w, &how, None, without).unwrap();
        assert_eq!(bits(&host, with), bits(&host, without), "{how:?}");
    }
}

#[test]
fn rows_that_groups_do_not_fill_are_an_error_and_the_mask_stays() {
    let mut host = engine(weights(&[vec![4, 8], vec![4, 6]]));
    let w = put(&mut host, &normals(&mut Rng::new(1, 0), 56));
    let mask = host.mask().unwrap();
    host.select(w, &magnitude(Pattern::Global, 0.5), None, mask).unwrap();
    let before = bits(&host, mask);
    let error = host.select(w, &magnitude(Pattern::NofM { n: 2, m: 4 }, 1.0), None, mask).unwrap_err().to_string();
    assert!(error.contains("2:4") && error.contains("p1") && error.contains("rows of 6"), "{error}");
    assert_eq!(bits(&host, mask), before);
}

#[test]
fn only_prunable_weights_are_chosen_and_nothing_from_nothing() {
    let shape: &[usize] = &[5, 7];
    let roles = [Role::Free, Role::Prunable, Role::Frozen];
    let params = roles.map(|r| (shape, Kind::Weight, r));
    let mut host = engine(layout(&params));
    // Prunable comes first; all others are smaller, and stay.
    let values: Vec<f32> = (0..105).map(|i| if i < 35 { 10.0 + i as f32 } else { 0.1 }).collect();
    let (w, mask) = (put(&mut host, &values), host.mask().unwrap());
    assert_eq!(host.select(w, &magnitude(Pattern::Global, 0.2), None, mask).unwrap().pruned, 7);
    assert_eq!(bits(&host, mask), naive(&values[..35], 7));

    let mut host = engine(layout(&[(shape, Kind::Weight, Role::Free)]));
    let (w, mask) = (put(&mut host, &values[..35]), host.mask().unwrap());
    assert_eq!(host.select(w, &magnitude(Pattern::Global, 0.9), None, mask).unwrap().pruned, 0);
    assert!(host.read_mask(mask).unwrap().is_empty(), "a layout without prunable weights has masks without words");
}
