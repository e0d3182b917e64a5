//! y = t₁, .., t_k, x along the sequence: learned tokens (class, distillation) before those of each sample,
//! x [B, S, H] and t [1, 1, H] each, to y [B, k + S, H].
use super::{Cost, Cotangent, DeviceIo, Op, Pass, Reads};
use crate::dual::Dual;
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::ops::device::packs;
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

/// Inputs: x, then one to [`Prepend::MOST`] tokens, in the order they are to stand in.
#[derive(Clone, Copy, Debug)]
pub struct Prepend;

impl Prepend {
    pub const MOST: usize = 4;
}

/// As `PrependArgs` in kernels/patches.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PrependArgs {
    x: Ptr,
    tokens: [Ptr; Prepend::MOST],
    y: Ptr,
    batch: u64,
    seq: u64,
    hidden: u64,
    count: u32,
    packs: u32,
    add: u32,
    unused: u32,
}
impl Args for PrependArgs {}
const _: () = assert!(size_of::<PrependArgs>() == 88);

/// Each sample of y from the tokens and its part of x; what is `None` is zero.
fn join<T: Copy + Send + Sync>(
    x: Option<&[T]>,
    tokens: &[Option<&[T]>],
    hidden: usize,
    zero: T,
    y: &mut [T],
    rows: usize,
) {
    let head = tokens.len() * hidden;
    y.par_chunks_mut(rows * hidden).enumerate().for_each(|(b, y)| {
        let (first, rest) = y.split_at_mut(head);
        for (y, token) in first.chunks_exact_mut(hidden).zip(tokens) {
            match token {
                Some(token) => y.copy_from_slice(token),
                None => y.fill(zero),
            }
        }
        let len = rest.len();
        match x {
            Some(x) => rest.copy_from_slice(&x[b * len..][..len]),
            None => rest.fill(zero),
        }
    });
}

impl Op for Prepend {
    fn name(&self) -> &'static str {
        "prepend"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match *x {
            [&[b, s, h], ref tokens @ ..]
                if (1..=Self::MOST).contains(&tokens.len()) && tokens.iter().all(|t| **t == [1, 1, h]) =>
            {
                Ok(vec![b, s + tokens.len(), h])
            }
            _ => Err(format!("wants x [B, S, H] and 1 to {} tokens [1, 1, H]; got {x:?}", Self::MOST)),
        }
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let (n, h, tokens) = (numel(x[0]) as u64, x[0][2] as u64, (x.len() - 1) as u64);
        let y = n + x[0][0] as u64 * h * tokens;
        let flops = if pass == Pass::Vjp { y - n } else { 0 };
        Cost { flops, bytes: pass.count() * 4 * (n + y + h * tokens) }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let (hidden, rows) = (x[0].shape[2], x[0].shape[1] + x.len() - 1);
        let tokens: Vec<Option<&[Dual]>> = x[1..].iter().map(|t| Some(t.data)).collect();
        join(Some(x[0].data), &tokens, hidden, Dual::ZERO, y, rows);
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        let (hidden, rows) = (x[0].shape[2], x[0].shape[1] + x.len() - 1);
        let tokens: Vec<Option<&[f32]>> = x[1..].iter().map(|t| Some(t.data)).collect();
        join(Some(x[0].data), &tokens, hidden, 0.0, y, rows);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        join(dx[0], &dx[1..], x[0].shape[2], 0.0, dy, x[0].shape[1] + x.len() - 1);
    }
    /// A token's cotangent sums over the samples in their order.
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let (s, h) = (x[0].shape[1], x[0].shape[2]);
        let (tokens, sample) = (x.len() - 1, (s + x.len() - 1) * h);
        if let Some(g) = &mut gx[0] {
            let add = g.add;
            g.data.par_chunks_mut(s * h).zip(gy.par_chunks(sample)).for_each(|(g, gy)| {
                let gy = &gy[tokens * h..];
                if add { g.iter_mut().zip(gy).for_each(|(g, v)| *g += v) } else { g.copy_from_slice(gy) }
            });
        }
        for (nth, g) in gx[1..].iter_mut().enumerate() {
            let Some(g) = g else { continue };
            if !g.add {
                g.data.fill(0.0);
            }
            for gy in gy.chunks_exact(sample) {
                g.data.iter_mut().zip(&gy[nth * h..]).for_each(|(g, v)| *g += v);
            }
        }
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        let (&[batch, seq, hidden], count) = (io.x[0].shape, io.x.len() - 1) else { return Ok(()) };
        let base = PrependArgs {
            x: Ptr::NULL,
            tokens: [Ptr::NULL; Self::MOST],
            y: Ptr::NULL,
            batch: batch as u64,
            seq: seq as u64,
            hidden: hidden as u64,
            count: count as u32,
            packs: 0,
            add: 0,
            unused: 0,
        };
        let (rows, dtype) = (batch * (seq + count), io.y.dtype);
        let join = |parts: &[Option<crate::ops::DeviceTensor>], y: &crate::ops::DeviceTensor| {
            let mut at = [Ptr::NULL; 1 + Self::MOST];
            for (at, part) in at.iter_mut().zip(parts) {
                *at = part.map_or(Ok(Ptr::NULL), |part| part.stored(dtype, "prepend", "input"))?;
            }
            let [x, tokens @ ..] = at;
            let packs = packs(dtype, hidden, &[&at[..], &[y.at]].concat());
            let args = PrependArgs { x, tokens, y: y.at, packs, ..base };
            queue.launch(&format!("prepend_forward_{}", dtype.suffix()), queue.blocks(rows, 8), 256, 0, &args)
        };
        match pass {
            Pass::Forward => join(&io.x.iter().copied().map(Some).collect::<Vec<_>>(), &io.y),
            Pass::Jvp => join(io.dx, &io.dy()?),
            Pass::Dual => super::in_turn(self, io, queue),
            Pass::Vjp => {
                let gy = io.dy()?;
                if let Some(g) = &io.gx[0] {
                    let x = g.to.stored(dtype, "prepend", "gx")?;
                    let args = PrependArgs {
                        x,
                        y: gy.at,
                        packs: packs(dtype, hidden, &[x, gy.at]),
                        add: g.add.into(),
                        ..base
                    };
                    let kernel = format!("prepend_vjp_{}", dtype.suffix());
                    queue.launch(&kernel, queue.blocks(batch * seq, 8), 256, 0, &args)?;
                }
                for (nth, g) in io.gx[1..].iter().enumerate() {
                    let Some(g) = g else { continue };
                    let mut tokens = [Ptr::NULL; Self::MOST];
                    tokens[0] = g.to.stored(Dtype::F32, "prepend", "gradient")?;
                    // `x` is left out: this kernel reads a token's rows of gy alone.
                    let y = gy.at.offset(nth * hidden * dtype.bytes());
                    let args = PrependArgs { tokens, y, add: g.add.into(), ..base };
                    let kernel = format!("prepend_token_{}", dtype.suffix());
                    queue.launch(&kernel, queue.blocks(hidden, 32), 256, 0, &args)?;
                }
                Ok(())
            }
        }
    }
}
