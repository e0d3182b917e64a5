//! The host twins of the wrappers in ptx.cuh against plain arithmetic: the rows that `selftest` gives a device, under
//! every schedule; and that none is missing.
use super::bench::SEEDS;
use fipk::gpu::Device;
use fipk::gpu::emulator::{Emulator, Options, kernels};
use std::collections::BTreeSet;
use std::rc::Rc;

#[test]
fn every_wrapper_agrees_with_plain_arithmetic() {
    let checks = fipk::selftest::checks(5);
    let all: BTreeSet<String> = kernels().into_iter().map(|k| k.name).filter(|n| n.starts_with("wrapper_")).collect();
    for seed in SEEDS {
        let emulator = Rc::new(Emulator::new(Options { seed, checked: true }));
        let device: Rc<dyn Device> = emulator.clone();
        let mut rows = 0;
        fipk::selftest::run(&device, &checks, &|name| name.starts_with("wrapper_"), &mut |row| {
            assert!(row.ok, "{row:?}");
            rows += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(emulator.launched(), all);
        assert_eq!(rows, all.len());
    }
}

/// What a text calls or defines as `FIPK_DEVICE`, by name.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').collect()
}

#[test]
fn every_wrapper_has_a_kernel() {
    let wrappers = include_str!("../../kernels/ptx.cuh");
    let called = words(include_str!("../../kernels/wrappers.cu"));
    let after = wrappers.split("FIPK_DEVICE ").skip(1);
    let names = after.filter_map(|rest| rest.split_once('(')?.0.split_whitespace().last());
    let mut seen = 0;
    for name in names {
        seen += 1;
        // The first is what the others are made of, the second what `wgmma_bf16` is made of.
        let inside = ["shared_address", "bf16_f32"].contains(&name);
        assert!(inside || called.contains(name), "no kernel of wrappers.cu calls {name}");
    }
    assert!(seen > 30, "{seen}");
}
