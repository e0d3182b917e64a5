//! Vision transformers: ViT (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021), modules and parameters named as
//! checkpoints have them (`vit.encoder.layer.0.attention.attention.query.weight`), which is how `transformers` stores
//! its modules of other names. A base network's pooler has no part in classification and is left aside.
//!
//! Patch embedding weights are a convolution of the body and prunable by default. Class and distillation tokens and
//! positions are, like BERT's embeddings, numbers that are added and never multiplied with an activation: a zero among
//! them saves no work, so they are trained but not pruned.
use super::config::{Config, VitConfig, VitFamily};
use super::head::Head;
use super::sample::Sample;
use crate::graph::{Kind, Scope, Value};
use crate::ops::Interpolate;
use crate::tensor::Element::Real;

/// Logits [rows, labels] of `pixel_values` [rows, channels, height, width]. For images of another size than the config's
/// the positions are interpolated, as `transformers` does it with `interpolate_pos_encoding`.
pub fn logits(root: &Scope, cfg: &VitConfig, head: Head, rows: usize, sample: Sample) -> Value {
    let size = sample.size(cfg.image_size);
    let pixels = root.input("pixel_values", &[rows, cfg.num_channels, size.0, size.1], Real);
    let base = root.at(cfg.family.model_type());
    let mut h = embeddings(&base.at("embeddings"), cfg, pixels, size);
    for i in 0..cfg.num_hidden_layers {
        h = layer(&base.at(format!("encoder.layer.{i}")), cfg, h);
    }
    let classify = |name, token| root.head().linear(name, token, head.outputs());
    // Layer norm works row by row, so those of other tokens are not needed.
    if !cfg.with_teacher() {
        let class = base.layer_norm("layernorm", root.select_token(h, 0), cfg.layer_norm_eps as f32);
        return classify("classifier", class);
    }
    let h = base.layer_norm("layernorm", h, cfg.layer_norm_eps as f32);
    let class = classify("cls_classifier", root.select_token(h, 0));
    let distilled = classify("distillation_classifier", root.select_token(h, 1));
    root.mean(class, distilled)
}

/// Class token (and distillation token) and patches, each with its position.
fn embeddings(s: &Scope, cfg: &VitConfig, pixels: Value, size: (usize, usize)) -> Value {
    let hidden = cfg.hidden_size;
    let token = |name: &str| s.param(name, &[1, 1, hidden], Kind::Embedding);
    let mut tokens = vec![token("cls_token")];
    if cfg.family == VitFamily::Deit {
        tokens.push(token("distillation_token"));
    }
    let table = s.param("position_embeddings", &[1, cfg.positions(), hidden], Kind::Embedding);
    let patches = s.at("patch_embeddings").patch_embedding("projection", pixels, cfg.patch_size, hidden);
    let x = s.prepend(&tokens, patches);
    let table = match size == cfg.image_size {
        true => table,
        false => s.interpolate(interpolation(cfg, cfg.grid(cfg.image_size), cfg.grid(size)), table),
    };
    s.add_positions_of(x, table)
}

/// How positions for a grid of (rows, columns) of patches become those for another.
pub(super) fn interpolation(cfg: &VitConfig, from: (usize, usize), to: (usize, usize)) -> Interpolate {
    Interpolate { special: cfg.special_tokens(), from, to }
}

/// (rows, columns) of the grid that a stored table of `count` positions is for: that of the config beside it, else a
/// square.
pub(super) fn stored_grid(beside: &Config, count: usize) -> Option<(usize, usize)> {
    let Config::Vit(cfg) = beside else { return None };
    if cfg.positions() == count {
        return Some(cfg.grid(cfg.image_size));
    }
    let patches = count.checked_sub(cfg.special_tokens())?;
    let side = patches.isqrt();
    (side > 0 && side * side == patches).then_some((side, side))
}

fn layer(s: &Scope, cfg: &VitConfig, x: Value) -> Value {
    let (hidden, eps) = (cfg.hidden_size, cfg.layer_norm_eps as f32);
    let h = s.layer_norm("layernorm_before", x, eps);
    let own = s.at("attention.attention");
    let [q, k, v] = ["query", "key", "value"].map(|name| match cfg.qkv_bias {
        true => own.linear(name, h, hidden),
        false => own.linear_unbiased(name, h, hidden),
    });
    let context = own.attention_to_all(cfg.num_attention_heads, q, k, v);
    let out = s.at("attention.output");
    let x = out.add(out.linear("dense", context, hidden), x);

    let h = s.layer_norm("layernorm_after", x, eps);
    let up = s.at("intermediate").linear("dense", h, cfg.intermediate_size);
    let up = s.at("intermediate").activation(cfg.hidden_act, up);
    let out = s.at("output");
    out.add(out.linear("dense", up, hidden), x)
}
