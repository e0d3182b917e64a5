//! Residual networks (He et al. 2015): Hugging Face's, and those of CIFAR in akamaster's names.
use super::config::{ResNetCifarConfig, ResNetConfig};
use super::head::Head;
use super::sample::Sample;
use crate::graph::{Scope, Value};
use crate::ops::{Activation, AveragePool, Conv2d, Subsample, Windows};
use crate::tensor::Element::Real;

/// PyTorch's default, which both sources leave as it is.
const EPS: f32 = 1e-5;

/// A square convolution without bias that keeps the size but for its stride.
fn conv(s: &Scope, name: &str, x: Value, outputs: usize, kernel: usize, stride: usize) -> Value {
    let op = Conv2d { stride: [stride; 2], padding: [kernel / 2; 2], dilation: [1; 2], groups: 1 };
    s.conv2d(name, x, outputs, [kernel; 2], op, false)
}

/// Global average, then `name` on the channels.
fn classify(s: &Scope, name: &str, x: Value, head: Head) -> Value {
    let pooled = s.flatten(s.average_pool(AveragePool::GLOBAL, x));
    s.head().linear(name, pooled, head.outputs())
}

/// Logits of `pixel_values` [rows, channels, height, width], in the names of `ResNetForImageClassification`.
pub fn logits(root: &Scope, cfg: &ResNetConfig, head: Head, rows: usize, sample: Sample) -> Value {
    let (height, width) = sample.size(cfg.image_size);
    let pixels = root.input("pixel_values", &[rows, cfg.num_channels, height, width], Real);
    let base = root.at("resnet");
    let mut h = unit(&base.at("embedder.embedder"), pixels, cfg.embedding_size, 7, 2, Some(cfg.hidden_act));
    h = base.at("embedder").max_pool(Windows::square(3, 2, 1), h);
    for (i, (&outputs, &depth)) in cfg.hidden_sizes.iter().zip(&cfg.depths).enumerate() {
        let stage = base.at(format!("encoder.stages.{i}"));
        for j in 0..depth {
            let down = j == 0 && (i > 0 || cfg.downsample_in_first_stage);
            h = block(&stage.at(format!("layers.{j}")), cfg, h, outputs, if down { 2 } else { 1 });
        }
    }
    classify(root, "classifier.1", h, head)
}

/// Convolution, batch norm and, but for a block's last, activation.
fn unit(s: &Scope, x: Value, outputs: usize, kernel: usize, stride: usize, f: Option<Activation>) -> Value {
    let h = s.batch_norm("normalization", conv(s, "convolution", x, outputs, kernel, stride), EPS);
    f.map_or(h, |f| s.activation(f, h))
}

fn block(s: &Scope, cfg: &ResNetConfig, x: Value, outputs: usize, stride: usize) -> Value {
    let same = s.dim(x, 1) == outputs && stride == 1;
    let shortcut = if same { x } else { unit(&s.at("shortcut"), x, outputs, 1, stride, None) };
    let act = Some(cfg.hidden_act);
    let h = if cfg.bottleneck {
        let narrow = outputs / 4;
        let (first, second) = if cfg.downsample_in_bottleneck { (stride, 1) } else { (1, stride) };
        let h = unit(&s.at("layer.0"), x, narrow, 1, first, act);
        let h = unit(&s.at("layer.1"), h, narrow, 3, second, act);
        unit(&s.at("layer.2"), h, outputs, 1, 1, None)
    } else {
        let h = unit(&s.at("layer.0"), x, outputs, 3, stride, act);
        unit(&s.at("layer.1"), h, outputs, 3, 1, None)
    };
    s.activation(cfg.hidden_act, s.add(h, shortcut))
}

/// Logits of `pixel_values` [rows, channels, height, width], in akamaster's names.
pub fn cifar_logits(root: &Scope, cfg: &ResNetCifarConfig, head: Head, rows: usize, sample: Sample) -> Value {
    let (height, width) = sample.size(cfg.image_size);
    let pixels = root.input("pixel_values", &[rows, cfg.num_channels, height, width], Real);
    let relu = |s: &Scope, x| s.activation(Activation::Relu, x);
    let mut h = relu(root, root.batch_norm("bn1", conv(root, "conv1", pixels, 16, 3, 1), EPS));
    for (stage, planes) in [16, 32, 64].into_iter().enumerate() {
        for i in 0..(cfg.depth - 2) / 6 {
            let s = root.at(format!("layer{}.{i}", stage + 1));
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            let out = relu(&s, s.batch_norm("bn1", conv(&s, "conv1", h, planes, 3, stride), EPS));
            let out = s.batch_norm("bn2", conv(&s, "conv2", out, planes, 3, 1), EPS);
            let shortcut = match stride == 1 && s.dim(h, 1) == planes {
                true => h,
                false if cfg.parameter_free => s.apply(Subsample { stride, pad: planes / 4 }, &[h]),
                false => s.batch_norm("shortcut.1", conv(&s, "shortcut.0", h, planes, 1, stride), EPS),
            };
            h = relu(&s, s.add(out, shortcut));
        }
    }
    classify(root, "linear", h, head)
}
