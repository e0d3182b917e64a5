//! y[b, s] = x[b, s] + table[s]: learned positions, x [B, S, H] and table [P, H] with P >= S.
use super::{Cost, Cotangent, Op, Pass, Reads, rows_per_task};
use crate::dual::Dual;
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

/// Inputs: x, table. Rows of the table beyond S take no part.
#[derive(Debug)]
pub struct AddPosition;

/// Row r of y = row r of x (if any) + row r mod `s` of `table`, rows of `h`.
fn spread(x: Option<&[f32]>, table: &[f32], s: usize, h: usize, y: &mut [f32]) {
    let rows = rows_per_task(h);
    y.par_chunks_mut(h * rows).enumerate().for_each(|(task, y)| {
        for (i, y) in y.chunks_mut(h).enumerate() {
            let r = task * rows + i;
            y.copy_from_slice(&table[r % s * h..][..h]);
            if let Some(x) = x {
                y.iter_mut().zip(&x[r * h..]).for_each(|(y, x)| *y += x);
            }
        }
    });
}

impl Op for AddPosition {
    fn name(&self) -> &'static str {
        "add_position"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        let &[&[_, s, h], &[p, width]] = x else {
            return Err(format!("wants x [B, S, H], table [P, H]; got {x:?}"));
        };
        if h != width {
            return Err(format!("x is {h} wide, the table of positions {width}"));
        }
        if s > p {
            return Err(format!("{s} tokens, but the table has {p} positions"));
        }
        Ok(x[0].to_vec())
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    fn cost(&self, _: Pass, x: &[&[usize]]) -> Cost {
        let (n, used) = (numel(x[0]) as u64, x[0][1..].iter().product::<usize>() as u64);
        Cost { flops: n, bytes: 4 * (2 * n + used) }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let used = x[0].shape[1] * x[0].shape[2];
        for (i, y) in y.iter_mut().enumerate() {
            *y = x[0].data[i] + x[1].data[i % used];
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        spread(Some(x[0].data), x[1].data, x[0].shape[1], x[0].shape[2], y);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match (dx[0], dx[1]) {
            (dx, Some(d_table)) => spread(dx, d_table, x[0].shape[1], x[0].shape[2], dy),
            (Some(dx), None) => dy.copy_from_slice(dx),
            (None, None) => dy.fill(0.0),
        }
    }
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let (s, h) = (x[0].shape[1], x[0].shape[2]);
        if let Some(g) = &mut gx[0] {
            let (add, part) = (g.add, h * rows_per_task(h));
            g.data.par_chunks_mut(part).zip(gy.par_chunks(part)).for_each(|(g, gy)| {
                if add { g.iter_mut().zip(gy).for_each(|(g, v)| *g += v) } else { g.copy_from_slice(gy) }
            });
        }
        if let Some(g) = &mut gx[1] {
            let add = g.add;
            g.data.par_chunks_mut(h).enumerate().for_each(|(at, g)| {
                if !add {
                    g.fill(0.0);
                }
                if at < s {
                    let samples = gy.chunks(s * h).map(|gy| &gy[at * h..]);
                    samples.for_each(|gy| g.iter_mut().zip(gy).for_each(|(g, v)| *g += v));
                }
            });
        }
    }
}
