//! y = x Wᵀ + b, with x [.., k], W [n, k] and b [n] (or none): a row of W for each output, as in safetensors. The
//! kernel of a convolution [n, c, p, q] is such a W too, k being c p q.
use super::column_sums as device_sums;
use super::gemm::cuda::product;
use super::gemm::dual::{self, Output};
use super::gemm::reverse::{self, reverse};
use super::gemm::{Epilogue, GemmShape, Layout, nn, nt, tn};
use super::{Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads, rows_per_task};
use crate::dual::Dual;
use crate::gpu::{Dtype, Ptr, Queue};
use crate::tensor::{Shape, View, numel, rows_cols};
use rayon::prelude::*;

mod fused;
mod narrow;
pub use fused::FusedLinear;

/// Inputs: x, W, and b where there is a bias.
#[derive(Debug)]
pub struct Linear;

/// Fill each row of y with b.
fn spread(b: &[f32], y: &mut [f32]) {
    let n = b.len();
    y.par_chunks_mut(n * rows_per_task(n)).for_each(|rows| rows.chunks_mut(n).for_each(|row| row.copy_from_slice(b)));
}

/// Rows summed by one task of [`column_sums`]; fixed, so that the sum does not depend on the threads.
const ROWS: usize = 128;

/// g (+)= the sum of gy's rows, over blocks of rows in a fixed order.
pub(crate) fn column_sums(gy: &[f32], g: &mut Cotangent) {
    let n = g.data.len();
    let partial: Vec<Vec<f32>> = gy
        .par_chunks(n * ROWS)
        .map(|rows| {
            let mut sum = vec![0.0f32; n];
            rows.chunks(n).for_each(|row| sum.iter_mut().zip(row).for_each(|(s, v)| *s += v));
            sum
        })
        .collect();
    if !g.add {
        g.data.fill(0.0);
    }
    partial.iter().for_each(|p| g.data.iter_mut().zip(p).for_each(|(g, v)| *g += v));
}

/// Bytes that a product takes on a device, whatever it is stored in.
fn product_scratch(layout: Layout, (m, n, k): (usize, usize, usize), pairs: usize) -> usize {
    let [a, b, c] = [Dtype::F32; 3];
    GemmShape { layout, m, n, k, pairs, a, b, c }.scratch()
}

/// `rest` with a bias of f32, or without.
fn with_bias(b: Option<&DeviceTensor>, rest: Epilogue) -> crate::Result<Epilogue> {
    let bias = b.map_or(Ok(Ptr::NULL), |b| b.stored(Dtype::F32, "linear", "bias"))?;
    Ok(Epilogue { bias, ..rest })
}

/// What the tangent is a sum of products of, dx Wᵀ + x dWᵀ: no, one or two pairs.
fn tangent_pairs<'a>(
    x: &[DeviceTensor<'a>],
    dx: &[Option<DeviceTensor<'a>>],
) -> Vec<(DeviceTensor<'a>, DeviceTensor<'a>)> {
    let pairs = [dx[0].map(|dx| (dx, x[1])), dx[1].map(|dw| (x[0], dw))];
    pairs.into_iter().flatten().collect()
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        let (&[ref lead @ .., k], &[n, _, ..]) = (x[0], x[1]) else {
            return Err(format!("wants x [.., k], W [n, k], b [n]; got {x:?}"));
        };
        if k != numel(&x[1][1..]) || x.get(2).is_some_and(|b| *b != [n]) {
            return Err(format!("x, W and b do not fit: {x:?}"));
        }
        Ok([lead, &[n]].concat())
    }
    fn reverse_reads(&self) -> Reads {
        Reads::inputs(&[0, 1])
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let ((m, k), n) = (rows_cols(x[0]), x[1][0]);
        let (product, operands) = (2 * (m * n * k) as u64, (m * k + n * k + m * n) as u64);
        match pass {
            Pass::Forward => Cost { flops: product, bytes: 4 * operands },
            Pass::Jvp | Pass::Vjp => Cost { flops: 2 * product, bytes: 4 * (operands + (m * k + n * k) as u64) },
            Pass::Dual => self.cost(Pass::Forward, x) + self.cost(Pass::Jvp, x),
        }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let ((m, k), n) = (x[0].rows_cols(), x[1].shape[0]);
        for i in 0..m {
            for j in 0..n {
                let start = x.get(2).map_or(Dual::ZERO, |b| b.data[j]);
                y[i * n + j] = (0..k).fold(start, |s, c| s + x[0].data[i * k + c] * x[1].data[j * k + c]);
            }
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        let ((m, k), n) = (x[0].rows_cols(), x[1].shape[0]);
        if let Some(b) = x.get(2) {
            spread(b.data, y);
        }
        nt((m, n, k), x[0].data, x[1].data, x.len() > 2, y);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let ((m, k), n) = (x[0].rows_cols(), x[1].shape[0]);
        let mut add = false;
        if let Some(db) = dx.get(2).copied().flatten() {
            spread(db, dy);
            add = true;
        }
        if let Some(dw) = dx[1] {
            nt((m, n, k), x[0].data, dw, add, dy);
            add = true;
        }
        if let Some(dx) = dx[0] {
            nt((m, n, k), dx, x[1].data, add, dy);
            add = true;
        }
        if !add {
            dy.fill(0.0);
        }
    }
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let (n, k) = (x[1].shape[0], numel(&x[1].shape[1..]));
        let m = numel(x[0].shape) / k;
        if let Some(g) = &mut gx[0] {
            nn((m, n, k), gy, x[1].data, g.add, g.data);
        }
        if let Some(g) = &mut gx[1] {
            tn((m, n, k), gy, x[0].data, g.add, g.data);
        }
        if let Some(Some(g)) = gx.get_mut(2) {
            column_sums(gy, g);
        }
    }
    fn widens(&self) -> bool {
        true
    }
    fn dual(&self) -> bool {
        true
    }
    fn scratch(&self, pass: Pass, x: &[&[usize]]) -> usize {
        let ((m, k), n) = (rows_cols(x[0]), x[1][0]);
        match pass {
            Pass::Forward => product_scratch(Layout::Nt, (m, n, k), 1),
            Pass::Jvp => (1..=2).map(|pairs| product_scratch(Layout::Nt, (m, n, k), pairs)).max().unwrap_or(0),
            Pass::Dual => self.scratch(Pass::Forward, x).max(self.scratch(Pass::Jvp, x)).max(dual::scratch((m, n, k))),
            Pass::Vjp => {
                let bias = if x.len() > 2 { device_sums::column_sums_scratch(m, n) } else { 0 };
                let products = [(Layout::Nn, (m, k, n)), (Layout::Tn, (n, k, m))];
                let products = products.into_iter().map(|(layout, size)| product_scratch(layout, size, 1));
                let products = products.fold(reverse::scratch((m, n, k)), usize::max);
                bias.max(narrow::scratch((m, n, k)) + products)
            }
        }
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        let (x, w, (m, k), n) = (io.x[0], io.x[1], io.x[0].rows_cols(), io.x[1].shape[0]);
        match pass {
            Pass::Forward => {
                let epilogue = with_bias(io.x.get(2), Epilogue::NONE)?;
                product(queue, Layout::Nt, (m, n, k), &[(x, w)], &io.y, epilogue)
            }
            // dx Wᵀ + x dWᵀ + db in one launch: two pairs of operands, one sum, rounded once.
            Pass::Jvp => {
                let epilogue = with_bias(io.dx.get(2).and_then(Option::as_ref), Epilogue::NONE)?;
                product(queue, Layout::Nt, (m, n, k), &tangent_pairs(io.x, io.dx), &io.dy()?, epilogue)
            }
            Pass::Vjp => {
                let (dy, into) = (io.dy()?, |add: bool| Epilogue { add, ..Epilogue::NONE });
                let (gy, rest) = narrow::narrowed(queue, (m, n, k), dy, [w.dtype, x.dtype])?;
                let bias = io.gx.get(2).and_then(Option::as_ref);
                let along = bias.filter(|b| io.gx[1].is_some() && b.to.dtype == Dtype::F32);
                let bias_gradient = along.map_or(Ptr::NULL, |b| b.to.at);
                let bias_gradient_add = along.is_some_and(|b| b.add);
                let into_w = |add: bool| Epilogue { bias_gradient, bias_gradient_add, ..into(add) };
                let output = |t: &DeviceTensor, epilogue| Output { at: t.at, dtype: t.dtype, epilogue };
                let both = match (io.gx[0], io.gx[1]) {
                    (Some(gx), Some(gw)) => {
                        let outputs = (output(&gx.to, into(gx.add)), output(&gw.to, into_w(gw.add)));
                        reverse(&rest, (m, n, k), (gy, w, x), outputs.0, outputs.1)?
                    }
                    _ => false,
                };
                if let Some(g) = io.gx[0].filter(|_| !both) {
                    product(&rest, Layout::Nn, (m, k, n), &[(gy, w)], &g.to, into(g.add))?;
                }
                if let Some(g) = io.gx[1].filter(|_| !both) {
                    product(&rest, Layout::Tn, (n, k, m), &[(gy, x)], &g.to, into_w(g.add))?;
                }
                match bias {
                    // The weight's product, which reads all of gy, has summed it.
                    Some(b) if along.is_none() => device_sums::column_sums(&dy, b, queue),
                    _ => Ok(()),
                }
            }
            // One launch where both tangents are there and the kernels take it.
            Pass::Dual => {
                if let (Some(dx), Some(dw)) = (io.dx[0], io.dx[1]) {
                    let output = |t: &DeviceTensor, epilogue| Output { at: t.at, dtype: t.dtype, epilogue };
                    let y = output(&io.y, with_bias(io.x.get(2), Epilogue::NONE)?);
                    let db = io.dx.get(2).and_then(Option::as_ref);
                    let dy = output(&io.dy()?, with_bias(db, Epilogue::NONE)?);
                    if dual::dual(queue, (m, n, k), (x, w), (dx, dw), y, dy)? {
                        return Ok(());
                    }
                }
                super::in_turn(self, io, queue)
            }
        }
    }
}
