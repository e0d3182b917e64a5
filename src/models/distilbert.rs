//! DistilBERT (Sanh et al. 2019), its modules and parameters named as in Hugging Face's `modeling_distilbert`.
use super::config::DistilBertConfig;
use super::head::Head;
use crate::graph::{Scope, Value};
use crate::ops::Activation;
use crate::tensor::Element::Index;

/// Logits [rows, labels].
pub fn logits(root: &Scope, cfg: &DistilBertConfig, head: Head, rows: usize, seq: usize) -> Value {
    let ids = root.input("input_ids", &[rows, seq], Index);
    let mask = root.input("attention_mask", &[rows, seq], Index);
    let s = root.at("distilbert.embeddings");
    let x = s.embedding("word_embeddings", ids, cfg.vocab_size, cfg.dim);
    let x = s.add_position("position_embeddings", x, cfg.max_position_embeddings);
    let mut h = s.layer_norm("LayerNorm", x, DistilBertConfig::LAYER_NORM_EPS as f32);
    for i in 0..cfg.n_layers {
        h = layer(&root.at(format!("distilbert.transformer.layer.{i}")), cfg, h, mask);
    }
    let head_scope = root.head();
    let first = root.select_token(h, 0);
    let pooled = root.activation(Activation::Relu, head_scope.linear("pre_classifier", first, cfg.dim));
    head_scope.linear("classifier", pooled, head.outputs())
}

fn layer(s: &Scope, cfg: &DistilBertConfig, x: Value, mask: Value) -> Value {
    let eps = DistilBertConfig::LAYER_NORM_EPS as f32;
    let own = s.at("attention");
    let [q, k, v] = ["q_lin", "k_lin", "v_lin"].map(|name| own.linear(name, x, cfg.dim));
    let context = own.attention(cfg.n_heads, q, k, v, mask);
    let x = s.layer_norm("sa_layer_norm", s.add(own.linear("out_lin", context, cfg.dim), x), eps);

    let ffn = s.at("ffn");
    let up = ffn.activation(cfg.activation, ffn.linear("lin1", x, cfg.hidden_dim));
    s.layer_norm("output_layer_norm", s.add(ffn.linear("lin2", up, cfg.dim), x), eps)
}
