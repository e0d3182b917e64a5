//! The reverse pass of a linear map whose output is f32 beside inputs of bf16: by tensor cores where the map is large, with
//! its cotangent rounded once.
use super::{Held, NOTHING, Numbers, Parts, bf16, close};
use fipk::gpu::emulator::{Emulator, Options};
use fipk::gpu::{Abilities, Device, Dtype, Ptr, Queue};
use fipk::ops::gemm::GemmShape;
use fipk::ops::gemm::reverse::shapes;
use fipk::ops::{DeviceCotangent, DeviceIo, DeviceTensor, Linear, Op, Pass};
use fipk::selftest::poisoned;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Each of gx, gw and the gradient of the bias against sums in f64, gy as `round` leaves it; and what was launched.
fn check(
    (m, n, k): (usize, usize, usize),
    on: Abilities,
    wanted: [bool; 3],
    round: fn(f32) -> f32,
) -> BTreeSet<String> {
    // Sizes at which rounding pays are too many accesses to check each of.
    let emulated = Rc::new(Emulator::new(Options { seed: Some(3), checked: m * n * k < 1 << 20 }));
    emulated.act_as(on);
    let device: Rc<dyn Device> = emulated.clone();
    let [gx, gw] = shapes((m, n, k), Dtype::Bf16);
    // gy, of the wide dtype, lies where a product's C is read from; W and x are B of each.
    let (gx, mut gw) = (Numbers::new(gx), Numbers::new(GemmShape { c: Dtype::F32, ..gw }));
    let gy = Numbers::new(GemmShape { n, m, k: 1, c: Dtype::F32, ..gx.shape });
    gw.pairs[0][0].clone_from(&gy.base);
    let gx = Numbers { pairs: vec![[gy.base.clone(), gx.pairs[0][1].clone()]], ..gx };
    let held_gy = Held::new(&device, gy, Parts { add: true, ..NOTHING });
    let [of_x, of_w] = [(&gx, Parts { add: true, ..NOTHING }), (&gw, Parts { gradient: Some(false), ..NOTHING })]
        .map(|(numbers, parts)| Held::new(&device, numbers.clone(), parts));
    let tensor = |at: Ptr, dtype, shape| DeviceTensor { at, dtype, shape };
    let (of_gy, of_weight, of_input) = ([m, n], [n, k], [m, k]);
    let x = [
        tensor(of_w.operands[0][1].at(), Dtype::Bf16, &of_input[..]),
        tensor(of_x.operands[0][1].at(), Dtype::Bf16, &of_weight[..]),
        tensor(of_w.bias.at(), Dtype::F32, &of_gy[1..]),
    ];
    let to = |at: Ptr, dtype, shape, add| DeviceCotangent { to: tensor(at, dtype, shape), add };
    let all = [
        to(of_x.c.at(), Dtype::Bf16, &of_input[..], true),
        to(of_w.c.at(), Dtype::F32, &of_weight[..], false),
        to(of_w.gradient.at(), Dtype::F32, &of_gy[1..], false),
    ];
    let gx_io = [0, 1, 2].map(|i| wanted[i].then_some(all[i]));
    let dy = tensor(held_gy.c.at(), Dtype::F32, &of_gy[..]);
    let y = DeviceTensor { at: Ptr::NULL, ..dy };
    let io = DeviceIo { x: &x, y, saved: Ptr::NULL, kept: Ptr::NULL, dx: &[], dy: Some(dy), gx: &gx_io };
    let scratch = poisoned(&device, Linear.scratch(Pass::Vjp, &[&of_input, &of_weight, &of_gy[1..]])).unwrap();
    Linear.cuda(Pass::Vjp, &io, &Queue::new(&*device, scratch.at())).unwrap();

    let what = format!("{m} x {n} x {k} on {on:?}, {wanted:?}");
    let (got_x, got_w) = (of_x.outputs(&device), of_w.outputs(&device));
    if wanted[0] {
        for (at, (sum, size)) in gx.sums(round).into_iter().enumerate() {
            let want = sum + f64::from(gx.base[at]);
            assert!(
                close(got_x[0][at], want, size, Dtype::Bf16),
                "gx of {what} at {at}: {}, want {want}",
                got_x[0][at]
            );
        }
    }
    if wanted[1] {
        for (at, (sum, size)) in gw.sums(round).into_iter().enumerate() {
            assert!(close(got_w[0][at], sum, size, Dtype::F32), "gw of {what} at {at}: {}, want {sum}", got_w[0][at]);
        }
    }
    for (j, got) in got_w[2].iter().enumerate().filter(|_| wanted[2]) {
        let column = || gw.pairs[0][0].iter().skip(j).step_by(n);
        // A kernel of its own sums gy as it is where gw is not wanted.
        let as_summed = |v: f32| if wanted[1] { round(v) } else { v };
        let want: f64 = column().map(|v| f64::from(as_summed(*v))).sum();
        let size: f64 = column().map(|v| f64::from(v.abs())).sum();
        assert!(close(*got, want, size, Dtype::F32), "bias {j} of {what}: {got}, want {want}");
    }
    emulated.launched()
}

#[test]
fn a_wide_cotangent_is_rounded_once_where_the_map_is_large() {
    let size = (256, 512, 448);
    let launched = check(size, Abilities::AMPERE, [true; 3], bf16);
    let names: Vec<&str> = launched.iter().map(String::as_str).collect();
    assert!(names.len() == 2 || names.contains(&"gemm_split_sum"), "{names:?}");
    assert!(names.contains(&"flat_narrow_bf16") && names.iter().any(|n| n.starts_with("gemm_reverse_")), "{names:?}");
    let launched = check(size, Abilities::HOPPER, [true, true, false], bf16);
    assert!(
        launched.contains("flat_narrow_bf16") && launched.iter().all(|n| !n.ends_with("_f32_bf16")),
        "{launched:?}"
    );
}

#[test]
fn one_of_both_products_and_the_bias_of_a_wide_cotangent() {
    for wanted in [[true, false, true], [false, true, true]] {
        let launched = check((256, 512, 448), Abilities::AMPERE, wanted, bf16);
        assert!(launched.contains("flat_narrow_bf16"), "{launched:?}");
        assert!(launched.iter().any(|n| n.starts_with("gemm_mma_")), "{launched:?}");
    }
}

#[test]
fn classes_keep_the_portable_kernels() {
    for size in [(64, 10, 72), (40, 16, 72)] {
        let launched = check(size, Abilities::AMPERE, [true; 3], |v| v);
        let portable =
            |name: &String| name.starts_with("gemm_nn_") || name.starts_with("gemm_tn_") || name == "gemm_split_sum";
        assert!(launched.iter().all(portable), "{launched:?}");
    }
}
