//! Multi-head attention with a padding mask: y = softmax(q kᵀ/√D + mask) v for each head.
//!
//! No S x S tensor outlives a task: the forward pass saves one log-sum-exp a query, from which the other two
//! compute the probabilities anew, a block of queries at a time (as Dao et al. 2022 do on a GPU). A task is one
//! head of one sample; keys after the last unmasked one are left out, which is exact.
use super::gemm::{Strides, Threads, product};
use super::{Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads, math, simd};
use crate::dual::Dual;
use crate::gpu::{Dtype, Queue};
use crate::tensor::{Element, Shape, View};
use rayon::prelude::*;
use std::cell::RefCell;

pub mod config;
pub mod cuda;

/// Inputs: q, k, v [B, S, H D], the heads side by side in the last axis, and where there is padding mask [B, S] (0: a
/// padding key, else attend). Saves log Σ exp of the scores as [B, H, S]. A query with no key to attend to gives zeros.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub heads: usize,
}

/// Floats of scores a task holds at a time: a block of queries by all keys, 128 KiB.
const SCORES: usize = 32_768;

/// A task's working memory, kept by its thread from call to call.
#[derive(Default)]
struct Scratch {
    /// Probabilities and their (co)tangents, [queries of a block, keys].
    p: Vec<f32>,
    t: Vec<f32>,
    /// A block's rows of the output, tangent or gq: [queries of a block, D].
    rows: Vec<f32>,
    /// gk and gv: [keys, D].
    keys: Vec<f32>,
    values: Vec<f32>,
    /// 0 at a key to attend to, -inf at a padding key.
    bias: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The first `n` floats of a buffer that grows when it must. They hold anything.
fn first(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}

/// One head's rows of a [B, S, H D] tensor that is written.
struct Rows<'a> {
    rows: Vec<&'a mut [f32]>,
    add: bool,
}

impl Rows<'_> {
    /// Write (or add) `values` [.., D] at row `from` and on.
    fn put(&mut self, from: usize, values: &[f32]) {
        let Some(d) = self.rows.first().map(|r| r.len()) else { return };
        for (row, values) in self.rows[from..].iter_mut().zip(values.chunks_exact(d)) {
            if self.add { row.iter_mut().zip(values).for_each(|(y, v)| *y += v) } else { row.copy_from_slice(values) }
        }
    }
    /// Nothing flows to the rows from `from` on.
    fn zero(&mut self, from: usize) {
        if !self.add {
            self.rows[from..].iter_mut().for_each(|row| row.fill(0.0));
        }
    }
}

/// The lengths of the axes.
#[derive(Clone, Copy)]
struct Dims {
    batch: usize,
    seq: usize,
    heads: usize,
    dim: usize,
}

impl Dims {
    fn new(heads: usize, shape: &[usize]) -> Self {
        Self { batch: shape[0], seq: shape[1], heads, dim: shape[2] / heads }
    }
    /// Deal a tensor's rows out to its heads: B H disjoint sets, sample by sample.
    fn deal<'a>(&self, data: &'a mut [f32], add: bool) -> Vec<Rows<'a>> {
        let empty = || Rows { rows: Vec::with_capacity(self.seq), add };
        let mut heads: Vec<Rows> = (0..self.batch * self.heads).map(|_| empty()).collect();
        for (i, row) in data.chunks_exact_mut(self.dim).enumerate() {
            heads[i / (self.seq * self.heads) * self.heads + i % self.heads].rows.push(row);
        }
        heads
    }
    /// The same for a cotangent that may not be asked for.
    fn deal_asked<'a>(&self, g: &'a mut Option<Cotangent>) -> Vec<Option<Rows<'a>>> {
        match g {
            Some(g) => self.deal(g.data, g.add).into_iter().map(Some).collect(),
            None => (0..self.batch * self.heads).map(|_| None).collect(),
        }
    }
    fn head<'a>(&self, x: &[View<'a>], task: usize, bias: &'a mut Vec<f32>) -> Head<'a> {
        let Self { seq, heads, dim, .. } = *self;
        let (sample, head) = (task / heads, task % heads);
        let mask = x.get(3).map(|mask| &mask.indices()[sample * seq..(sample + 1) * seq]);
        let last = |mask: &[i32]| mask.iter().rposition(|m| *m != 0).map_or(0, |last| last + 1);
        let keys = mask.map_or(seq, last);
        let bias = first(bias, keys);
        match mask {
            Some(mask) => {
                bias.iter_mut().zip(mask).for_each(|(b, m)| *b = if *m == 0 { f32::NEG_INFINITY } else { 0.0 })
            }
            None => bias.fill(0.0),
        }
        let at = (sample * seq * heads + head) * dim;
        Head { seq, dim, width: heads * dim, at, keys, bias, q: x[0].data, k: x[1].data, v: x[2].data }
    }
}

/// One head of one sample: `keys` of its `seq` rows are attended to.
struct Head<'a> {
    seq: usize,
    dim: usize,
    /// H D: how far apart rows stand.
    width: usize,
    at: usize,
    keys: usize,
    bias: &'a [f32],
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

impl Head<'_> {
    /// This head's part of a [B, S, H D] tensor from row `from` on.
    fn of<'a>(&self, x: &'a [f32], from: usize) -> &'a [f32] {
        &x[self.at + from * self.width..]
    }
    /// Row `i` of this head's part of a [B, S, H D] tensor.
    fn row<'a>(&self, x: &'a [f32], i: usize) -> &'a [f32] {
        &self.of(x, i)[..self.dim]
    }
    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
    /// (first query, number of queries) of each block; none where there is no key.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (seq, step) = (if self.keys == 0 { 0 } else { self.seq }, (SCORES / self.keys.max(1)).max(1));
        (0..seq).step_by(step).map(move |from| (from, step.min(seq - from)))
    }
    /// out [m, keys] (+)= α a bᵀ: rows `from..from + m` of a against the keys' rows of b.
    fn against(&self, a: &[f32], (from, m): (usize, usize), b: &[f32], alpha: f32, add: bool, out: &mut [f32]) {
        let rows = Strides::rows(self.width);
        let (a, b, size) = (self.of(a, from), self.of(b, 0), (m, self.keys, self.dim));
        product(size, alpha, a, rows, b, rows.transposed(), add, out, Strides::rows(self.keys), Threads::One);
    }
    /// out [m, D] (+)= p [m, keys] x: a weighted mean of the keys' rows of x, one a query.
    fn gather(&self, p: &[f32], m: usize, x: &[f32], add: bool, out: &mut [f32]) {
        let (rows, size) = (Strides::rows(self.width), (m, self.dim, self.keys));
        let (sp, so) = (Strides::rows(self.keys), Strides::rows(self.dim));
        product(size, 1.0, p, sp, self.of(x, 0), rows, add, out, so, Threads::One);
    }
    /// out [keys, D] (+)= pᵀ x: the transpose, from rows `from..from + m` of x.
    fn scatter(&self, p: &[f32], (from, m): (usize, usize), x: &[f32], out: &mut [f32]) {
        let (rows, size) = (Strides::rows(self.width), (self.keys, self.dim, m));
        let (sp, so) = (Strides::rows(self.keys).transposed(), Strides::rows(self.dim));
        product(size, 1.0, p, sp, self.of(x, from), rows, from > 0, out, so, Threads::One);
    }
    /// p [m, keys]: q kᵀ/√D of a block of queries, padding keys among them not yet masked.
    fn scores(&self, block: (usize, usize), p: &mut [f32]) {
        self.against(self.q, block, self.k, self.scale(), false, p);
    }
    /// p [m, keys]: the probabilities of a block of queries, from the log-sum-exp of each (of all S).
    fn probabilities(&self, (from, m): (usize, usize), lse: &[f32], p: &mut [f32]) {
        self.scores((from, m), p);
        simd().dispatch(
            #[inline(always)]
            || {
                for (row, lse) in p.chunks_exact_mut(self.keys).zip(&lse[from..]) {
                    for (s, b) in row.iter_mut().zip(self.bias) {
                        *s = math::exp(*s + b - lse);
                    }
                }
            },
        );
    }
}

/// Turn scores into probabilities, row by row, and keep each row's log Σ exp.
fn softmax(p: &mut [f32], bias: &[f32], lse: &mut [f32]) {
    simd().dispatch(
        #[inline(always)]
        || {
            for (row, lse) in p.chunks_exact_mut(bias.len()).zip(lse.iter_mut()) {
                for (s, b) in row.iter_mut().zip(bias) {
                    *s += b;
                }
                let top = math::max(row);
                for s in row.iter_mut() {
                    *s = math::exp(*s - top);
                }
                let sum = math::sum(row);
                *lse = top + sum.ln();
                let inverse = 1.0 / sum;
                for s in row {
                    *s *= inverse;
                }
            }
        },
    );
}

/// t = α p ∘ (t − c), a row's c by its number and its (p, t): the softmax's Jacobian, with c = Σ p t.
#[inline(always)]
fn project(p: &[f32], t: &mut [f32], keys: usize, alpha: f32, c: impl Fn(usize, &[f32], &[f32]) -> f32) {
    simd().dispatch(
        #[inline(always)]
        || {
            for (i, (p, t)) in p.chunks_exact(keys).zip(t.chunks_exact_mut(keys)).enumerate() {
                let c = c(i, p, t);
                for (t, p) in t.iter_mut().zip(p) {
                    *t = alpha * p * (*t - c);
                }
            }
        },
    );
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match *x {
            [&[b, s, c], k, v, ref mask @ ..]
                if k == x[0]
                    && v == x[0]
                    && (mask.is_empty() || *mask == [&[b, s]])
                    && c % self.heads.max(1) == 0
                    && b * s * c * self.heads > 0 =>
            {
                Ok(vec![b, s, c])
            }
            _ => Err(format!(
                "wants q, k, v [B, S, C], C a multiple of {} heads, and mask [B, S] or none; got {x:?}",
                self.heads
            )),
        }
    }
    fn element(&self, i: usize) -> Element {
        if i == 3 { Element::Index } else { Element::Real }
    }
    fn saved(&self, x: &[&[usize]]) -> usize {
        x[0][0] * x[0][1] * self.heads
    }
    fn reverse_reads(&self) -> Reads {
        Reads { inputs: &[0, 1, 2, 3], output: true }
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let (rows, s, c) = ((x[0][0] * x[0][1]) as u64, x[0][1] as u64, x[0][2] as u64);
        let (product, softmax, heads) = (2 * rows * s * c, rows * s * self.heads as u64, self.heads as u64);
        let (flops, tensors) = match pass {
            Pass::Forward => (2 * product + 25 * softmax, 4),
            Pass::Jvp => (5 * product + 25 * softmax, 7),
            Pass::Vjp => (5 * product + 25 * softmax, 8),
            // Both share q kᵀ.
            Pass::Dual => (6 * product + 28 * softmax, 8),
        };
        Cost { flops, bytes: 4 * rows * (tensors * c + heads + 1) }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let (batch, seq, width) = (x[0].shape[0], x[0].shape[1], x[0].shape[2]);
        let dim = width / self.heads;
        let root = Dual::constant((dim as f64).sqrt());
        for b in 0..batch {
            let attended = |j: &usize| x.get(3).is_none_or(|mask| mask.data[*j].re != 0.0);
            let keys: Vec<usize> = (b * seq..(b + 1) * seq).filter(attended).collect();
            for (i, head) in (b * seq..(b + 1) * seq).flat_map(|i| (0..self.heads).map(move |head| (i, head))) {
                let columns = head * dim..(head + 1) * dim;
                let dot = |j: &usize| {
                    columns.clone().fold(Dual::ZERO, |s, c| s + x[0].data[i * width + c] * x[1].data[j * width + c])
                };
                let scores: Vec<Dual> = keys.iter().map(|j| dot(j) / root).collect();
                let total = Dual::log_sum_exp(&scores);
                for c in columns.clone() {
                    let weighted = keys.iter().zip(&scores).map(|(j, s)| (*s - total).exp() * x[2].data[j * width + c]);
                    y[i * width + c] = weighted.fold(Dual::ZERO, |s, v| s + v);
                }
            }
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], saved: &mut [f32]) {
        let dims = Dims::new(self.heads, x[0].shape);
        let tasks = dims.deal(y, false).into_par_iter().zip(saved.par_chunks_mut(dims.seq)).enumerate();
        tasks.for_each(|(task, (mut y, lse))| {
            SCRATCH.with_borrow_mut(|Scratch { p, rows, bias, .. }| {
                let head = dims.head(x, task, bias);
                if head.keys == 0 {
                    y.zero(0);
                    lse.fill(0.0);
                }
                for (from, m) in head.blocks() {
                    let (p, rows) = (first(p, m * head.keys), first(rows, m * dims.dim));
                    head.scores((from, m), p);
                    softmax(p, head.bias, &mut lse[from..from + m]);
                    head.gather(p, m, head.v, false, rows);
                    y.put(from, rows);
                }
            });
        });
    }
    fn jvp(&self, x: &[View], _: &[f32], saved: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let dims = Dims::new(self.heads, x[0].shape);
        let (dq, dk, dv) = (dx[0], dx[1], dx[2]);
        let tasks = dims.deal(dy, false).into_par_iter().zip(saved.par_chunks(dims.seq)).enumerate();
        tasks.for_each(|(task, (mut dy, lse))| {
            SCRATCH.with_borrow_mut(|Scratch { p, t, rows, bias, .. }| {
                let head = dims.head(x, task, bias);
                if head.keys == 0 || (dq.is_none() && dk.is_none() && dv.is_none()) {
                    return dy.zero(0);
                }
                for (from, m) in head.blocks() {
                    let rows = first(rows, m * dims.dim);
                    let (p, t) = (first(p, m * head.keys), first(t, m * head.keys));
                    head.probabilities((from, m), lse, p);
                    if let Some(dq) = dq {
                        head.against(dq, (from, m), head.k, head.scale(), false, t);
                    }
                    if let Some(dk) = dk {
                        head.against(head.q, (from, m), dk, head.scale(), dq.is_some(), t);
                    }
                    let scores = dq.is_some() || dk.is_some();
                    if scores {
                        project(
                            p,
                            t,
                            head.keys,
                            1.0,
                            #[inline(always)]
                            |_, p, t| math::dot(p, t),
                        );
                        head.gather(t, m, head.v, false, rows);
                    }
                    if let Some(dv) = dv {
                        head.gather(p, m, dv, scores, rows);
                    }
                    dy.put(from, rows);
                }
            });
        });
    }
    fn vjp(&self, x: &[View], y: &[f32], saved: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let [gq, gk, gv, ..] = gx else { return };
        let dims = Dims::new(self.heads, x[0].shape);
        let cotangents = dims.deal_asked(gq).into_par_iter().zip(dims.deal_asked(gk)).zip(dims.deal_asked(gv));
        cotangents.zip(saved.par_chunks(dims.seq)).enumerate().for_each(|(task, (((mut gq, mut gk), mut gv), lse))| {
            SCRATCH.with_borrow_mut(|Scratch { p, t, rows, keys, values, bias }| {
                let head = dims.head(x, task, bias);
                let (keys, values) = (first(keys, head.keys * dims.dim), first(values, head.keys * dims.dim));
                for (from, m) in head.blocks() {
                    let (p, t) = (first(p, m * head.keys), first(t, m * head.keys));
                    head.probabilities((from, m), lse, p);
                    if gv.is_some() {
                        head.scatter(p, (from, m), gy, values);
                    }
                    if gq.is_none() && gk.is_none() {
                        continue;
                    }
                    head.against(gy, (from, m), head.v, 1.0, false, t);
                    // Σ_j p_j (gy·v_j) = gy·y, in D terms in place of S.
                    project(
                        p,
                        t,
                        head.keys,
                        head.scale(),
                        #[inline(always)]
                        |i, _, _| math::dot(head.row(gy, from + i), head.row(y, from + i)),
                    );
                    if let Some(gq) = &mut gq {
                        let rows = first(rows, m * dims.dim);
                        head.gather(t, m, head.k, false, rows);
                        gq.put(from, rows);
                    }
                    if gk.is_some() {
                        head.scatter(t, (from, m), head.q, keys);
                    }
                }
                if let (Some(gq), 0) = (&mut gq, head.keys) {
                    gq.zero(0);
                }
                for (g, values) in [(&mut gk, keys), (&mut gv, values)] {
                    if let Some(g) = g {
                        g.put(0, values);
                        g.zero(head.keys);
                    }
                }
            });
        });
    }
    fn dual(&self) -> bool {
        true
    }
    fn scratch(&self, pass: Pass, x: &[&[usize]]) -> usize {
        let mask = if x.len() == 3 { 4 * x[0][0] * x[0][1] } else { 0 };
        cuda::scratch(pass, self.saved(x)).next_multiple_of(16) + mask
    }
    /// The kernels take a mask: where there is none, one of ones stands behind their scratch.
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        let &[q, k, v] = io.x else { return cuda::run(*self, pass, io, queue) };
        let (shape, rows) = (&q.shape[..2], q.shape[0] * q.shape[1]);
        let saved = rows * self.heads;
        let at = queue.scratch.offset(cuda::scratch(pass, saved).next_multiple_of(16));
        queue.device.fill(at, 1, rows)?;
        let x = [q, k, v, DeviceTensor { at, dtype: Dtype::F32, shape }];
        cuda::run(*self, pass, &DeviceIo { x: &x, ..*io }, queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const SHAPE: [usize; 3] = [3, 150, 24];
    const HEADS: usize = 3;

    fn normal(seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed, 0);
        (0..SHAPE.iter().product()).map(|_| rng.normal()).collect()
    }

    /// A full sample but for two holes, one padded at its end, one all padding.
    fn mask() -> Vec<f32> {
        let on = |b: usize, s: usize| [s != 0 && s != 70, s < 33, false][b];
        (0..3 * 150).map(|i| f32::from_bits(u32::from(on(i / 150, i % 150)))).collect()
    }

    /// y, dy and the three cotangents; those are added to `start` where there is one.
    fn passes(start: Option<f32>) -> [Vec<f32>; 5] {
        let (op, mask) = (Attention { heads: HEADS }, mask());
        let x = [normal(1), normal(2), normal(3), mask];
        let shapes: [&[usize]; 4] = [&SHAPE, &SHAPE, &SHAPE, &SHAPE[..2]];
        let views: Vec<View> = x.iter().zip(shapes).map(|(data, shape)| View { data, shape }).collect();
        let n = x[0].len();
        let (mut y, mut dy, mut saved) = (vec![f32::NAN; n], vec![f32::NAN; n], vec![f32::NAN; op.saved(&shapes)]);
        op.forward(&views, &mut y, &mut saved);
        let d = [normal(4), normal(5), normal(6)];
        let tangents = [Some(d[0].as_slice()), Some(&d[1]), Some(&d[2]), None];
        op.jvp(&views, &y, &saved, &tangents, &mut dy);
        let [mut gq, mut gk, mut gv] = [(); 3].map(|()| vec![start.unwrap_or(f32::NAN); n]);
        let add = start.is_some();
        let g = [&mut gq, &mut gk, &mut gv].map(|data| Some(Cotangent { data, add }));
        op.vjp(&views, &y, &saved, &normal(7), &mut g.into_iter().chain([None]).collect::<Vec<_>>());
        [y, dy, gq, gk, gv]
    }

    #[test]
    fn every_number_of_threads_gives_the_same_bits() {
        let run = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().map(|pool| pool.install(|| passes(None)));
        let (one, five) = (run(1).unwrap(), run(5).unwrap());
        assert!(one.iter().zip(&five).all(|(a, b)| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())));
    }

    #[test]
    fn padding_gives_and_takes_nothing() {
        let [y, dy, gq, gk, gv] = passes(None);
        let sample = SHAPE[1] * SHAPE[2];
        for result in [&y, &dy, &gq, &gk, &gv] {
            assert!(result[..2 * sample].iter().all(|v| v.is_finite()));
            assert!(result[2 * sample..].iter().all(|v| *v == 0.0), "a sample with no key");
        }
        for (token, row) in gk.chunks(SHAPE[2]).zip(gv.chunks(SHAPE[2])).enumerate() {
            let on = mask()[token].to_bits() != 0;
            assert!(row.0.iter().chain(row.1).all(|v| (*v != 0.0) == on), "token {token}");
        }
    }

    #[test]
    fn cotangents_are_added_to_where_asked() {
        for (set, added) in passes(None).iter().zip(passes(Some(3.0))).skip(2) {
            assert!(set.iter().zip(&added).all(|(s, a)| (a - 3.0 - s).abs() <= 1e-6 * (3.0 + s.abs())));
        }
    }

    #[test]
    fn a_part_that_nobody_asked_for_changes_no_other() {
        let (op, x) = (Attention { heads: HEADS }, [normal(1), normal(2), normal(3), mask()]);
        let shapes: [&[usize]; 4] = [&SHAPE, &SHAPE, &SHAPE, &SHAPE[..2]];
        let views: Vec<View> = x.iter().zip(shapes).map(|(data, shape)| View { data, shape }).collect();
        let n = x[0].len();
        let (mut y, mut saved) = (vec![0.0; n], vec![0.0; op.saved(&shapes)]);
        op.forward(&views, &mut y, &mut saved);
        let [_, dy, all @ ..] = passes(None);
        let mut total = vec![0.0f64; n];
        for part in 0..3 {
            let mut data = vec![f32::NAN; n];
            let mut g = [None, None, None, None];
            g[part] = Some(Cotangent { data: &mut data, add: false });
            op.vjp(&views, &y, &saved, &normal(7), &mut g);
            assert!(data.iter().zip(&all[part]).all(|(a, b)| a.to_bits() == b.to_bits()), "cotangent {part}");
            let d = normal(4 + part as u64);
            let (mut dx, mut one) = ([None; 4], vec![f32::NAN; n]);
            dx[part] = Some(d.as_slice());
            op.jvp(&views, &y, &saved, &dx, &mut one);
            total.iter_mut().zip(&one).for_each(|(t, v)| *t += f64::from(*v));
        }
        assert!(total.iter().zip(&dy).all(|(t, d)| (t - f64::from(*d)).abs() <= 1e-5 * (1.0 + t.abs())));
    }
}
