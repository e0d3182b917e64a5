//! BERT (Devlin et al. 2019), its modules and parameters named as in Hugging Face's `modeling_bert`.
use super::config::BertConfig;
use super::head::Head;
use crate::graph::{Kind, Scope, Value};
use crate::ops::Activation;
use crate::tensor::Element::Index;

/// Logits [rows, labels], or [rows, seq, vocabulary] for a masked language model.
pub fn logits(root: &Scope, cfg: &BertConfig, head: Head, rows: usize, seq: usize) -> Value {
    let mask = root.input("attention_mask", &[rows, seq], Index);
    let bert = root.at("bert");
    let (mut h, words) = embeddings(root, &bert.at("embeddings"), cfg, rows, seq);
    for i in 0..cfg.num_hidden_layers {
        h = layer(&bert.at(format!("encoder.layer.{i}")), cfg, h, mask);
    }
    match head {
        Head::MaskedLm => masked_lm(&root.at("cls.predictions").head(), cfg, h, words),
        _ => {
            let first = root.select_token(h, 0);
            let pooled = bert.at("pooler").head().linear("dense", first, cfg.hidden_size);
            let pooled = root.activation(Activation::Tanh, pooled);
            root.head().linear("classifier", pooled, head.outputs())
        }
    }
}

/// The sum of word, type and position embeddings, normalised; and the table of words.
fn embeddings(root: &Scope, s: &Scope, cfg: &BertConfig, rows: usize, seq: usize) -> (Value, Value) {
    let ids = root.input("input_ids", &[rows, seq], Index);
    let types = root.input("token_type_ids", &[rows, seq], Index);
    let words = s.at("word_embeddings").param("weight", &[cfg.vocab_size, cfg.hidden_size], Kind::Embedding);
    let x = s.lookup(ids, words);
    let x = s.add_position("position_embeddings", x, cfg.max_position_embeddings);
    let kind = s.embedding("token_type_embeddings", types, cfg.type_vocab_size, cfg.hidden_size);
    (s.layer_norm("LayerNorm", s.add(x, kind), cfg.layer_norm_eps as f32), words)
}

fn layer(s: &Scope, cfg: &BertConfig, x: Value, mask: Value) -> Value {
    let (hidden, eps) = (cfg.hidden_size, cfg.layer_norm_eps as f32);
    let own = s.at("attention.self");
    let [q, k, v] = ["query", "key", "value"].map(|name| own.linear(name, x, hidden));
    let context = own.attention(cfg.num_attention_heads, q, k, v, mask);
    let out = s.at("attention.output");
    let x = out.layer_norm("LayerNorm", out.add(out.linear("dense", context, hidden), x), eps);

    let up = s.at("intermediate").linear("dense", x, cfg.intermediate_size);
    let up = s.at("intermediate").activation(cfg.hidden_act, up);
    let out = s.at("output");
    out.layer_norm("LayerNorm", out.add(out.linear("dense", up, hidden), x), eps)
}

fn masked_lm(s: &Scope, cfg: &BertConfig, h: Value, words: Value) -> Value {
    let transform = s.at("transform");
    let h = transform.linear("dense", h, cfg.hidden_size);
    let h = transform.activation(cfg.hidden_act, h);
    let h = transform.layer_norm("LayerNorm", h, cfg.layer_norm_eps as f32);
    let bias = s.param("bias", &[cfg.vocab_size], Kind::Bias);
    let decoder = s.at("decoder");
    let weight = match cfg.tie_word_embeddings {
        true => decoder.tie("weight", words),
        false => decoder.param("weight", &[cfg.vocab_size, cfg.hidden_size], Kind::Weight),
    };
    s.linear_by(h, weight, decoder.tie("bias", bias))
}
