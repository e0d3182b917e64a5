//! y = (x − mean)/√(var + eps) · w + b over the last axis.
use super::{Cost, Cotangent, DeviceIo, Op, Pass, Reads, math, rows_per_task, simd};
use crate::dual::Dual;
use crate::gpu::Queue;
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

mod added;
mod cuda;
pub use added::AddLayerNorm;

/// Inputs: x [.., n], w \[n\], b \[n\]. Saves (mean, r) a row, r = 1/√(var + eps) with the biased variance, as
/// everywhere in the field. Below, x̂ = (x − mean) r.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    pub eps: f32,
}

/// Σ v_i (x_i − mean), centred term by term: the difference of two sums would lose digits.
#[inline(always)]
fn dot_centred(v: &[f32], x: &[f32], mean: f32) -> f32 {
    math::reduce(
        v,
        x,
        0.0,
        #[inline(always)]
        |s, v, x| v.mul_add(x - mean, s),
        #[inline(always)]
        |a, b| a + b,
    )
}

/// (mean, r) of a row, in two passes.
#[inline(always)]
fn statistics(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = math::sum(x) / n;
    let squares = math::reduce(
        x,
        x,
        0.0,
        #[inline(always)]
        |s, x, _| (x - mean).mul_add(x - mean, s),
        #[inline(always)]
        |a, b| a + b,
    );
    (mean, 1.0 / (squares / n + eps).sqrt())
}

/// out (+)= r (v − mean(v) − x̂ mean(v x̂)): the normalisation's Jacobian, which is its own transpose.
#[inline(always)]
fn project(v: &[f32], x: &[f32], (mean, r): (f32, f32), out: &mut [f32], add: bool) {
    let n = v.len() as f32;
    let (along_one, along_x) = (math::sum(v) / n, dot_centred(v, x, mean) * r * r / n);
    for ((out, v), x) in out.iter_mut().zip(v).zip(x) {
        let kept = if add { *out } else { 0.0 };
        *out = kept + r * (-along_x).mul_add(x - mean, v - along_one);
    }
}

/// g (+)= Σ of one half of each block's partial sums, in the blocks' order.
fn combine<'a>(partial: impl Iterator<Item = &'a [f32]>, g: &mut Cotangent) {
    if !g.add {
        g.data.fill(0.0);
    }
    partial.for_each(|p| g.data.iter_mut().zip(p).for_each(|(g, p)| *g += p));
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match x {
            [x, w, b] if x.last().is_some_and(|&n| n > 0 && **w == [n] && **b == [n]) => Ok(x.to_vec()),
            _ => Err(format!("wants x [.., n], w [n], b [n] with n > 0; got {x:?}")),
        }
    }
    fn saved(&self, x: &[&[usize]]) -> usize {
        2 * numel(&x[0][..x[0].len() - 1])
    }
    fn reverse_reads(&self) -> Reads {
        Reads::inputs(&[0, 1])
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let n = numel(x[0]) as u64;
        match pass {
            Pass::Forward => Cost { flops: 7 * n, bytes: 8 * n },
            Pass::Jvp => Cost { flops: 15 * n, bytes: 12 * n },
            Pass::Vjp => Cost { flops: 15 * n, bytes: 12 * n },
            Pass::Dual => Cost { flops: 22 * n, bytes: 16 * n },
        }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let n = x[1].data.len();
        let (count, eps) = (Dual::constant(n as f64), Dual::constant(f64::from(self.eps)));
        for (x_row, y) in x[0].data.chunks(n).zip(y.chunks_mut(n)) {
            let mean = x_row.iter().fold(Dual::ZERO, |s, x| s + *x) / count;
            let var = x_row.iter().fold(Dual::ZERO, |s, x| s + (*x - mean) * (*x - mean)) / count;
            for (i, y) in y.iter_mut().enumerate() {
                *y = (x_row[i] - mean) / (var + eps).sqrt() * x[1].data[i] + x[2].data[i];
            }
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], saved: &mut [f32]) {
        let (arch, n, w, b) = (simd(), x[1].data.len(), x[1].data, x[2].data);
        let rows = rows_per_task(n);
        let tasks = y.par_chunks_mut(n * rows).zip(saved.par_chunks_mut(2 * rows)).zip(x[0].data.par_chunks(n * rows));
        tasks.for_each(|((y, saved), x)| {
            arch.dispatch(
                #[inline(always)]
                || {
                    for ((y, saved), x) in y.chunks_exact_mut(n).zip(saved.chunks_exact_mut(2)).zip(x.chunks_exact(n)) {
                        let (mean, r) = statistics(x, self.eps);
                        saved.copy_from_slice(&[mean, r]);
                        for (((y, x), w), b) in y.iter_mut().zip(x).zip(w).zip(b) {
                            *y = ((x - mean) * r).mul_add(*w, *b);
                        }
                    }
                },
            );
        });
    }
    fn jvp(&self, x: &[View], _: &[f32], saved: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let (arch, n, w) = (simd(), x[1].data.len(), x[1].data);
        let rows = rows_per_task(n);
        let tasks = dy.par_chunks_mut(n * rows).zip(saved.par_chunks(2 * rows)).zip(x[0].data.par_chunks(n * rows));
        tasks.enumerate().for_each(|(task, ((dy, saved), x))| {
            arch.dispatch(
                #[inline(always)]
                || {
                    for (i, ((dy, s), x)) in
                        dy.chunks_exact_mut(n).zip(saved.chunks_exact(2)).zip(x.chunks_exact(n)).enumerate()
                    {
                        let (mean, r) = (s[0], s[1]);
                        match dx[0] {
                            Some(dx) => {
                                let at = (task * rows + i) * n;
                                project(&dx[at..at + n], x, (mean, r), dy, false);
                                for (dy, w) in dy.iter_mut().zip(w) {
                                    *dy *= w;
                                }
                            }
                            None => dy.fill(0.0),
                        }
                        if let Some(dw) = dx[1] {
                            for ((dy, x), dw) in dy.iter_mut().zip(x).zip(dw) {
                                *dy = ((x - mean) * r).mul_add(*dw, *dy);
                            }
                        }
                        if let Some(db) = dx[2] {
                            for (dy, db) in dy.iter_mut().zip(db) {
                                *dy += db;
                            }
                        }
                    }
                },
            );
        });
    }
    fn vjp(&self, x: &[View], _: &[f32], saved: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let [gx, gw, gb] = gx else { return };
        let (arch, n, w) = (simd(), x[1].data.len(), x[1].data);
        let rows = rows_per_task(n);
        let (add, sums) = (gx.as_ref().is_some_and(|g| g.add), gw.is_some() || gb.is_some());
        let blocks: Vec<Option<&mut [f32]>> = match gx {
            Some(g) => g.data.chunks_mut(n * rows).map(Some).collect(),
            None => gy.chunks(n * rows).map(|_| None).collect(),
        };
        let inputs = gy.par_chunks(n * rows).zip(saved.par_chunks(2 * rows)).zip(x[0].data.par_chunks(n * rows));
        // A block's sums for w, then for b, and last its own scratch row.
        let tasks = blocks.into_par_iter().zip(inputs).map(|(mut gx, ((gy, saved), x))| {
            let mut partial = vec![0.0f32; 3 * n];
            arch.dispatch(
                #[inline(always)]
                || {
                    let (for_w, rest) = partial.split_at_mut(n);
                    let (for_b, v) = rest.split_at_mut(n);
                    for (i, ((gy, s), x)) in
                        gy.chunks_exact(n).zip(saved.chunks_exact(2)).zip(x.chunks_exact(n)).enumerate()
                    {
                        let (mean, r) = (s[0], s[1]);
                        if let Some(gx) = &mut gx {
                            let gx = &mut gx[i * n..(i + 1) * n];
                            for ((v, gy), w) in v.iter_mut().zip(gy).zip(w) {
                                *v = gy * w;
                            }
                            project(v, x, (mean, r), gx, add);
                        }
                        if sums {
                            for (((sw, sb), gy), x) in for_w.iter_mut().zip(for_b.iter_mut()).zip(gy).zip(x) {
                                *sw = ((x - mean) * r).mul_add(*gy, *sw);
                                *sb += gy;
                            }
                        }
                    }
                },
            );
            partial
        });
        let partial: Vec<Vec<f32>> = tasks.collect();
        if let Some(g) = gw {
            combine(partial.iter().map(|p| &p[..n]), g);
        }
        if let Some(g) = gb {
            combine(partial.iter().map(|p| &p[n..2 * n]), g);
        }
    }
    fn dual(&self) -> bool {
        true
    }
    fn scratch(&self, pass: Pass, x: &[&[usize]]) -> usize {
        if pass == Pass::Vjp { cuda::scratch(x[0]) } else { 0 }
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        match pass {
            Pass::Forward => cuda::forward(self.eps, io, queue),
            Pass::Jvp => cuda::jvp(&io.x[0], io.dx[0], io, queue),
            Pass::Vjp => cuda::vjp(&io.x[0], io, queue),
            Pass::Dual => cuda::dual(self.eps, io, queue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const ROWS: usize = 300;
    const N: usize = 200;

    fn normal(seed: u64, n: usize) -> Vec<f32> {
        let mut rng = Rng::new(seed, 0);
        (0..n).map(|_| rng.normal()).collect()
    }

    /// y and the three cotangents, added to what `start` holds where there is one.
    fn passes(start: Option<f32>) -> [Vec<f32>; 4] {
        let (x, w, b, gy) = (normal(1, ROWS * N), normal(2, N), normal(3, N), normal(4, ROWS * N));
        let shapes: [&[usize]; 3] = [&[ROWS, N], &[N], &[N]];
        let views = [&x, &w, &b].map(|x| x.as_slice());
        let views: Vec<View> = views.into_iter().zip(shapes).map(|(data, shape)| View { data, shape }).collect();
        let op = LayerNorm { eps: 1e-12 };
        let (mut y, mut saved) = (vec![0.0; x.len()], vec![0.0; op.saved(&shapes)]);
        op.forward(&views, &mut y, &mut saved);
        let [mut gx, mut gw, mut gb] = [x.len(), N, N].map(|n| vec![start.unwrap_or(f32::NAN); n]);
        let mut g = [&mut gx, &mut gw, &mut gb].map(|data| Some(Cotangent { data, add: start.is_some() }));
        op.vjp(&views, &[], &saved, &gy, &mut g);
        [y, gx, gw, gb]
    }

    #[test]
    fn every_number_of_threads_gives_the_same_bits() {
        let run =
            |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().map(|p| p.install(|| passes(None)));
        let (one, five) = (run(1).unwrap(), run(5).unwrap());
        assert!(one.iter().zip(&five).all(|(a, b)| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())));
    }

    #[test]
    fn cotangents_are_added_to_where_asked() {
        for (set, added) in passes(None).iter().zip(passes(Some(3.0))).skip(1) {
            let worst = set.iter().zip(&added).fold(0.0f32, |m, (s, a)| m.max((a - 3.0 - s).abs()));
            assert!(worst <= 1e-4, "{worst}"); // sums of 300 rows, added in another order
        }
    }

    #[test]
    fn a_large_mean_costs_no_digits() {
        // Whole numbers around 2¹⁶: their mean and deviations are exact in f32 up to one rounding of the mean.
        let x: Vec<f32> = (0..64).map(|i| 65_536.0 + i as f32).collect();
        let (mean, r) = statistics(&x, 0.0);
        let want = 1.0 / ((64.0f64 * 64.0 - 1.0) / 12.0).sqrt();
        assert!((f64::from(mean) - 65_567.5).abs() <= 4e-3 && (f64::from(r) / want - 1.0).abs() <= 1e-6, "{mean} {r}");
    }
}
