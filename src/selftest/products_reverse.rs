//! Both products of a reverse pass in one launch, by the kernels `gemm_reverse_*`: gx, gw and the gradient of a bias, each
//! against the naive product.
use super::list::Check;
use super::memory::{download, poisoned, upload};
use super::products::{Numbers, ULPS_MMA, by_naive, collect, drawn};
use super::row::{Row, Tolerance, judge};
use crate::Result;
use crate::gpu::{Device, Dtype, Queue};
use crate::ops::gemm::dual::Output;
use crate::ops::gemm::reverse::{ReverseConfig, configs, reverse_as, shapes};
use crate::ops::gemm::{Epilogue, Family, GemmShape};
use std::rc::Rc;

pub(super) fn checks(seed: u64) -> Vec<Check> {
    let sizes = configs(Dtype::F32).into_iter().map(|config| (config.tile.rows, config.tile.columns));
    let checks = sizes.map(|size| {
        let name = format!("gemm_reverse_{}x{}", size.0, size.1);
        let names = vec![name.clone()];
        Check { names, run: Box::new(move |device| collect(&name, rows(device, seed, &name, size))) }
    });
    checks.collect()
}

/// f32 in one part, added to what is there; bf16 with gw in f32, as engines store gradients, both sums in parts.
fn rows(device: &Rc<dyn Device>, seed: u64, name: &str, size: (usize, usize)) -> Result<Vec<Row>> {
    let ((m, n, k), mut rows) = ((131, 72, 136), Vec::new());
    for (operands, split, add) in [(Dtype::F32, [1, 1], true), (Dtype::Bf16, [2, 3], false)] {
        let of_size = |config: &ReverseConfig| (config.tile.rows, config.tile.columns) == size;
        let Some(config) = configs(operands).into_iter().find(of_size) else { continue };
        let config = ReverseConfig { split, ..config };
        let [of_x, of_w] = shapes((m, n, k), operands);
        let of_w = GemmShape { c: Dtype::F32, ..of_w };
        // gy and W; then gy and x, of the same gy.
        let to_x = Numbers::new(&drawn(&of_x, Family::Mma), seed);
        let mut to_w = Numbers::new(&drawn(&of_w, Family::Mma), seed + 1);
        to_w.pairs[0][0].clone_from(&to_x.pairs[0][0]);
        let put = |v: &[f32]| upload(device, v, operands);
        let (gy, w, x) = (put(&to_x.pairs[0][0])?, put(&to_x.pairs[0][1])?, put(&to_w.pairs[0][1])?);
        let start = |data: &[f32], dtype: Dtype| match add {
            true => upload(device, data, dtype),
            false => poisoned(device, data.len() * dtype.bytes()),
        };
        let (gx, gw) = (start(&to_x.base, of_x.c)?, start(&to_w.base, of_w.c)?);
        // The sums of gyᵀ's rows are its product with a column of ones.
        let ones = GemmShape { n: 1, c: Dtype::F32, ..of_w };
        let mut to_b = Numbers::new(&drawn(&ones, Family::Mma), seed + 2);
        to_b.pairs[0] = [to_x.pairs[0][0].clone(), vec![1.0; m]];
        let gb = start(&to_b.base, Dtype::F32)?;
        let scratch = poisoned(device, config.scratch(&[of_x, of_w]))?;
        let epilogue = Epilogue { add, ..Epilogue::NONE };
        let with_bias = Epilogue { bias_gradient: gb.at(), bias_gradient_add: add, ..epilogue };
        let pairs = [[(gy.at(), w.at())], [(gy.at(), x.at())]];
        let outputs = [
            Output { at: gx.at(), dtype: of_x.c, epilogue },
            Output { at: gw.at(), dtype: of_w.c, epilogue: with_bias },
        ];
        let queue = Queue::new(&**device, scratch.at());
        reverse_as(config, &queue, &[of_x, of_w], [&pairs[0], &pairs[1]], outputs)?;
        for (what, shape, numbers, got) in [("gx", of_x, to_x, &gx), ("gw", of_w, to_w, &gw), ("bias", ones, to_b, &gb)]
        {
            // The judge's bias is none of ours.
            let numbers = Numbers { bias: vec![0.0; shape.n], ..numbers };
            let (want, scale) = by_naive(device, &shape, &numbers, add)?;
            let tolerance = match shape.c {
                Dtype::F32 => Tolerance::Ulps(ULPS_MMA),
                Dtype::Bf16 => Tolerance::Bf16 { rounded: true },
            };
            let judged = judge(what, &download(device, got, shape.c)?, &want, &scale, tolerance);
            let [x, w] = split;
            let label = format!("{m}x{n}x{k} {what} split {x} and {w}");
            rows.push(Row::new(name, operands.suffix(), label, &judged));
        }
    }
    Ok(rows)
}
