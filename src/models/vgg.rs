//! VGG (Simonyan and Zisserman 2015) and LeNet-5 (LeCun et al. 1998): convolutions in a row, then linear maps.
use super::config::{LeNet5Config, VggConfig};
use super::head::Head;
use super::sample::Sample;
use crate::graph::{Scope, Value};
use crate::ops::{Activation, AveragePool, Conv2d, Windows};
use crate::tensor::Element::Real;

/// Logits of `pixel_values` [rows, channels, height, width], in torchvision's names: `features.N` counts convolutions, batch
/// norms, activations and pools.
pub fn logits(root: &Scope, cfg: &VggConfig, head: Head, rows: usize, sample: Sample) -> Value {
    let (height, width) = sample.size(cfg.image_size);
    let mut h = root.input("pixel_values", &[rows, cfg.num_channels, height, width], Real);
    let (features, mut nth) = (root.at("features"), 0);
    for &channels in &cfg.features {
        if channels == 0 {
            h = features.max_pool(Windows::square(2, 2, 0), h);
            nth += 1;
            continue;
        }
        let op = Conv2d { stride: [1; 2], padding: [1; 2], dilation: [1; 2], groups: 1 };
        h = features.conv2d(&nth.to_string(), h, channels, [3; 2], op, true);
        nth += 1;
        if cfg.batch_norm {
            h = features.batch_norm(&nth.to_string(), h, 1e-5);
            nth += 1;
        }
        h = features.activation(Activation::Relu, h);
        nth += 1;
    }
    let pooled = match cfg.pool_size == root.dim(h, 2) && cfg.pool_size == root.dim(h, 3) {
        true => h,
        false => {
            let windows = Windows::Adaptive { to: [cfg.pool_size; 2] };
            root.average_pool(AveragePool { windows, count_padding: false }, h)
        }
    };
    let mut h = root.flatten(pooled);
    for (name, &n) in cfg.classifier.iter().zip(&cfg.hidden) {
        h = root.activation(Activation::Relu, root.linear(name, h, n));
    }
    let last = cfg.classifier.last().map_or("classifier", String::as_str);
    root.head().linear(last, h, head.outputs())
}

/// Logits of `pixel_values` [rows, channels, height, width].
pub fn lenet5_logits(root: &Scope, cfg: &LeNet5Config, head: Head, rows: usize, sample: Sample) -> Value {
    let (height, width) = sample.size(cfg.image_size);
    let mut h = root.input("pixel_values", &[rows, cfg.num_channels, height, width], Real);
    let [first, second, third, fourth] = LeNet5Config::WIDTHS;
    for (name, outputs, padding) in [("conv1", first, cfg.padding), ("conv2", second, 0)] {
        let op = Conv2d { stride: [1; 2], padding: [padding; 2], dilation: [1; 2], groups: 1 };
        h = root.activation(cfg.hidden_act, root.conv2d(name, h, outputs, [5; 2], op, true));
        let windows = Windows::square(2, 2, 0);
        h = match cfg.average_pool {
            true => root.average_pool(AveragePool { windows, count_padding: false }, h),
            false => root.max_pool(windows, h),
        };
    }
    let mut h = root.flatten(h);
    for (name, n) in [("fc1", third), ("fc2", fourth)] {
        h = root.activation(cfg.hidden_act, root.linear(name, h, n));
    }
    root.head().linear("fc3", h, head.outputs())
}
