//! y = table\[ids\]: rows of a table by index, ids [..] and table [V, H] -> [.., H].
use super::{Cost, Cotangent, DeviceIo, Op, Pass, Reads, rows_per_task};
use crate::dual::Dual;
use crate::gpu::Queue;
use crate::tensor::{Element, Shape, View, numel};
use crate::{Error, Result};
use rayon::prelude::*;

mod cuda;

/// Inputs: ids (indices), table. Every id is in 0..V.
#[derive(Debug)]
pub struct Embedding;

/// Whether every id names a row of a table of `vocab` rows.
///
/// # Errors
/// [`Error::Data`] naming the first id that does not, and its position.
pub fn check(ids: &[i32], vocab: usize) -> Result<()> {
    let outside = |id: &i32| usize::try_from(*id).map_or(true, |id| id >= vocab);
    match ids.iter().position(outside) {
        None => Ok(()),
        Some(at) => Err(Error::data(
            format!("id at position {at}"),
            format!("wanted 0 to {}, got {}", vocab.saturating_sub(1), ids[at]),
            "use the tokenizer and the vocabulary that the model was trained with",
        )),
    }
}

/// Row ids[i] of `table` to row i of y.
fn gather(ids: &[i32], table: &[f32], y: &mut [f32]) {
    let Some(h) = y.len().checked_div(ids.len()) else { return };
    let rows = rows_per_task(h);
    y.par_chunks_mut(h * rows).zip(ids.par_chunks(rows)).for_each(|(y, ids)| {
        for (y, &id) in y.chunks_mut(h).zip(ids) {
            y.copy_from_slice(&table[id as usize * h..][..h]);
        }
    });
}

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match x {
            [ids, [_, h]] => Ok([ids, &[*h][..]].concat()),
            _ => Err(format!("wants ids [..], table [V, H]; got {x:?}")),
        }
    }
    fn element(&self, i: usize) -> Element {
        if i == 0 { Element::Index } else { Element::Real }
    }
    fn check(&self, x: &[View]) -> Result<()> {
        check(x[0].indices(), x[1].shape[0])
    }
    fn reverse_reads(&self) -> Reads {
        Reads::inputs(&[0])
    }
    /// A vjp that sets also clears the whole table.
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let (n, table) = (numel(x[0]) as u64, numel(x[1]) as u64);
        let rows = n * x[1].last().map_or(0, |&h| h as u64);
        match pass {
            Pass::Forward | Pass::Jvp => Cost { flops: 0, bytes: 4 * (n + 2 * rows) },
            Pass::Vjp => Cost { flops: rows, bytes: 4 * (n + 3 * rows + table) },
            Pass::Dual => self.cost(Pass::Forward, x) + self.cost(Pass::Jvp, x),
        }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let h = x[1].shape[1];
        for (i, id) in x[0].data.iter().enumerate() {
            for j in 0..h {
                y[i * h + j] = x[1].data[id.re as usize * h + j];
            }
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        gather(x[0].indices(), x[1].data, y);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match dx[1] {
            Some(d_table) => gather(x[0].indices(), d_table, dy),
            None => dy.fill(0.0),
        }
    }
    /// Rows of one id are added in the order of their positions, whichever thread does it.
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let Some(g) = &mut gx[1] else { return };
        let ids = x[0].indices();
        let Some(h) = gy.len().checked_div(ids.len()) else { return };
        let mut order: Vec<(usize, usize)> = ids.iter().enumerate().map(|(at, &id)| (id as usize, at)).collect();
        order.sort_unstable();
        let (add, rows) = (g.add, rows_per_task(h));
        g.data.par_chunks_mut(h * rows).enumerate().for_each(|(task, g)| {
            if !add {
                g.fill(0.0);
            }
            let first = task * rows;
            let from = order.partition_point(|&(id, _)| id < first);
            for &(id, at) in order[from..].iter().take_while(|&&(id, _)| id < first + rows) {
                let row = &mut g[(id - first) * h..][..h];
                row.iter_mut().zip(&gy[at * h..][..h]).for_each(|(g, v)| *g += v);
            }
        });
    }
    fn scratch(&self, pass: Pass, x: &[&[usize]]) -> usize {
        if pass == Pass::Vjp { cuda::scratch(numel(x[0]), x[1][1]) } else { 0 }
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> Result<()> {
        match pass {
            Pass::Forward => cuda::gather(&io.x[0], &io.x[1], &io.y, queue),
            Pass::Jvp => match &io.dx[1] {
                Some(d_table) => cuda::gather(&io.x[0], d_table, &io.dy()?, queue),
                None => io.dy()?.zero(queue),
            },
            Pass::Vjp => match &io.gx[1] {
                Some(g) => cuda::scatter(&io.x[0], &io.dy()?, g, queue),
                None => Ok(()),
            },
            Pass::Dual => super::in_turn(self, io, queue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outside_the_table_are_named() {
        assert!(check(&[0, 4, 2], 5).is_ok() && check(&[], 0).is_ok());
        for (ids, vocab, want) in [(&[0, 5][..], 5, "got 5"), (&[3, -1], 5, "got -1"), (&[0, 0], 0, "got 0")] {
            let error = check(ids, vocab).map_err(|e| (e.exit_code(), e.to_string()));
            assert!(matches!(&error, Err((4, e)) if e.contains(want) && e.contains("position")), "{error:?}");
        }
    }
}
