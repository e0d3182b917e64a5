//! Position embeddings for another grid of patches: table [1, k + h w, H] to [1, k + h' w', H]. The first k positions
//! (of class and distillation tokens) stay; the others are the cells of a grid, resized by cubic convolution as
//! `transformers` does it (torch's bicubic, a = -3/4, corners not aligned, edges repeated). Linear in the table.
use super::{Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads};
use crate::dual::Dual;
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

/// Input: table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interpolate {
    /// Positions before those of patches.
    pub special: usize,
    /// (rows, columns) of patches that the table is for.
    pub from: (usize, usize),
    /// (rows, columns) of patches that are wanted.
    pub to: (usize, usize),
}

/// As `InterpolateArgs` in kernels/patches.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct InterpolateArgs {
    x: Ptr,
    y: Ptr,
    hidden: u64,
    special: u32,
    from_rows: u32,
    from_columns: u32,
    to_rows: u32,
    to_columns: u32,
    add: u32,
}
impl Args for InterpolateArgs {}
const _: () = assert!(size_of::<InterpolateArgs>() == 48);

/// The four cells that cell `at` of `to` takes from, along one axis of `from` cells, and how much of each (Keys 1981).
fn taps(from: usize, to: usize, at: usize) -> [(usize, f64); 4] {
    const A: f64 = -0.75;
    // The middle of `at` among the old cells, (at + 1/2) from / to - 1/2, as a fraction of whole numbers.
    let (over, under) = (((2 * at + 1) * from) as i64 - to as i64, 2 * to as i64);
    let (cell, t) = (over.div_euclid(under), over.rem_euclid(under) as f64 / under as f64);
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    std::array::from_fn(|i| ((cell + i as i64 - 1).clamp(0, from as i64 - 1) as usize, weights[i]))
}

/// For each position wanted, the positions it is made of: (from, weight), in a fixed order.
type Sparse = Vec<Vec<(usize, f64)>>;

impl Interpolate {
    fn rows(&self) -> Sparse {
        let special = (0..self.special).map(|i| vec![(i, 1.0)]);
        let cell = |at: usize| {
            let down = taps(self.from.0, self.to.0, at / self.to.1);
            let across = taps(self.from.1, self.to.1, at % self.to.1);
            let pairs =
                down.iter().flat_map(|&(r, a)| across.map(|(c, b)| (self.special + r * self.from.1 + c, a * b)));
            pairs.collect()
        };
        special.chain((0..self.to.0 * self.to.1).map(cell)).collect()
    }

    fn transposed(&self) -> Sparse {
        let mut columns: Sparse = vec![Vec::new(); self.special + self.from.0 * self.from.1];
        for (to, row) in self.rows().into_iter().enumerate() {
            row.into_iter().for_each(|(from, weight)| columns[from].push((to, weight)));
        }
        columns
    }

    /// The table for the wanted grid, of one with `hidden` numbers a position.
    pub fn table(&self, table: &[f32], hidden: usize, y: &mut [f32]) {
        combine(&self.rows(), table, hidden, false, y);
    }

    fn launch(&self, pass: &str, x: &DeviceTensor, y: &DeviceTensor, add: bool, queue: &Queue) -> crate::Result<()> {
        let hidden = x.shape[2];
        let args = InterpolateArgs {
            x: x.at,
            y: y.at,
            hidden: hidden as u64,
            special: self.special as u32,
            from_rows: self.from.0 as u32,
            from_columns: self.from.1 as u32,
            to_rows: self.to.0 as u32,
            to_columns: self.to.1 as u32,
            add: add.into(),
        };
        let kernel = format!("interpolate_{pass}_{}", x.dtype.suffix());
        queue.launch(&kernel, queue.blocks(y.shape[1], 1), 128, 0, &args)
    }
}

/// y (+)= M x, a row of `hidden` numbers for each row of M.
fn combine(m: &Sparse, x: &[f32], hidden: usize, add: bool, y: &mut [f32]) {
    y.par_chunks_mut(hidden).zip(m).for_each(|(y, row)| {
        if !add {
            y.fill(0.0);
        }
        for &(from, weight) in row {
            let weight = weight as f32;
            y.iter_mut().zip(&x[from * hidden..][..hidden]).for_each(|(y, x)| *y += weight * x);
        }
    });
}

impl Op for Interpolate {
    fn name(&self) -> &'static str {
        "interpolate"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        let count = |(rows, columns): (usize, usize)| self.special + rows * columns;
        let some = [self.from.0, self.from.1, self.to.0, self.to.1].iter().all(|n| (1..1 << 15).contains(n));
        match *x {
            [&[1, p, h]] if some && p == count(self.from) => Ok(vec![1, count(self.to), h]),
            _ => Err(format!("wants a table [1, {}, H]; got {x:?}", count(self.from))),
        }
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let (h, to, each) = (x[0][2] as u64, (self.special + self.to.0 * self.to.1) as u64, pass.count());
        Cost { flops: each * 32 * to * h, bytes: each * 4 * (numel(x[0]) as u64 + to * h) }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let h = x[0].shape[2];
        for (to, row) in self.rows().iter().enumerate() {
            for j in 0..h {
                let terms = row.iter().map(|&(from, weight)| Dual::constant(weight) * x[0].data[from * h + j]);
                y[to * h + j] = terms.fold(Dual::ZERO, |sum, term| sum + term);
            }
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        self.table(x[0].data, x[0].shape[2], y);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match dx[0] {
            Some(dx) => self.table(dx, x[0].shape[2], dy),
            None => dy.fill(0.0),
        }
    }
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        if let Some(g) = &mut gx[0] {
            combine(&self.transposed(), gy, x[0].shape[2], g.add, g.data);
        }
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        let forward = |x: &DeviceTensor, y: &DeviceTensor| {
            y.stored(x.dtype, "interpolate", "y")?;
            self.launch("forward", x, y, false, queue)
        };
        match pass {
            Pass::Forward => forward(&io.x[0], &io.y),
            Pass::Jvp => match &io.dx[0] {
                Some(dx) => forward(dx, &io.dy()?),
                None => io.dy()?.zero(queue),
            },
            Pass::Dual => super::in_turn(self, io, queue),
            Pass::Vjp => {
                let Some(g) = &io.gx[0] else { return Ok(()) };
                g.to.stored(Dtype::F32, "interpolate", "gradient")?;
                self.launch("vjp", &io.dy()?, &g.to, g.add, queue)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_grid_is_the_same_table_and_constants_stay() {
        let table: Vec<f32> = (0..39).map(|i| (i as f32 * 0.7).sin()).collect();
        let same = Interpolate { special: 1, from: (3, 4), to: (3, 4) };
        let mut y = vec![f32::NAN; 39];
        same.table(&table, 3, &mut y);
        assert_eq!(y, table);
        let ones = vec![1.0; 13];
        let mut y = vec![f32::NAN; 1 + 35];
        Interpolate { to: (5, 7), ..same }.table(&ones, 1, &mut y);
        assert!(y.iter().all(|v| (v - 1.0).abs() <= 1e-6), "{y:?}");
    }

    #[test]
    fn a_row_is_resized_as_torch_resizes_it() {
        // torch.nn.functional.interpolate(torch.tensor([[[[1., 2., 4., 8.]]]]), (1, 3), mode="bicubic")
        let mut y = vec![f32::NAN; 3];
        Interpolate { special: 0, from: (1, 4), to: (1, 3) }.table(&[1.0, 2.0, 4.0, 8.0], 1, &mut y);
        let want = [1.108_796_3, 2.718_75, 7.460_648_3];
        assert!(y.iter().zip(want).all(|(y, w)| (y - w).abs() <= 1e-6), "{y:?}");
    }
}
