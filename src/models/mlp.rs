//! Multilayer perceptrons, LeNet-300-100 among them (LeCun et al. 1998): linear maps with an activation between.
use super::config::MlpConfig;
use crate::graph::{Scope, Value};
use crate::tensor::Element::Real;

/// Logits [rows, sizes.last()] of `pixel_values` [rows, sizes.first()].
pub fn logits(root: &Scope, cfg: &MlpConfig, rows: usize) -> Value {
    let mut h = root.input("pixel_values", &[rows, cfg.sizes[0]], Real);
    for (i, name) in cfg.layers.iter().enumerate() {
        let last = i + 1 == cfg.layers.len();
        let s = if last { root.head() } else { root.at("") };
        h = s.linear(name, h, cfg.sizes[i + 1]);
        if !last {
            h = root.at(name).activation(cfg.hidden_act, h);
        }
    }
    h
}
