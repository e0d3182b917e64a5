//! The networks of these tests: every way in which a program's calls can hang together, in small and odd sizes.
use super::Net;
use fipk::graph::{Kind, Scope};
use fipk::ops::{Activation, Distance, Linear};
use fipk::tensor::Element;

pub fn mlp(s: &Scope) {
    let x = s.input("x", &[5, 7], Element::Real);
    let h = s.linear("fc1", x, 33);
    let h = s.activation(Activation::GeluTanh, h);
    s.mark("hidden", h);
    let h = s.linear("fc2", h, 9);
    let h = s.activation(Activation::Tanh, h);
    let logits = s.linear("fc3", h, 4);
    s.mark("logits", logits);
    let (labels, weights) = (s.input("labels", &[5], Element::Index), s.input("weights", &[5], Element::Real));
    s.mark("loss", s.cross_entropy(logits, labels, weights));
}

/// Ids, positions, a residual, a token, and a decoder tied to the embedding.
pub fn text(s: &Scope) {
    let ids = s.input("ids", &[3, 4], Element::Index);
    let x = s.input("x", &[3, 4, 6], Element::Real);
    let table = s.at("words").param("weight", &[11, 6], Kind::Embedding);
    let e = s.lookup(ids, table);
    let e = s.add_position("positions", s.add(e, x), 9);
    let h = s.linear("dense", e, 6);
    let h = s.at("residual").add(s.activation(Activation::Tanh, h), e);
    let bias = s.at("decoder").param("bias", &[11], Kind::Bias);
    let table = s.tie("decoder.weight", table);
    s.mark("words", s.apply(Linear, &[h, table, bias]));
    let first = s.select_token(h, 0);
    s.mark("logits", s.head().linear("classifier", first, 2));
}

/// Half of an encoder's layer, and a distance to given outputs.
fn encoder(s: &Scope) {
    let x = s.input("x", &[2, 5, 6], Element::Real);
    let mask = s.input("mask", &[2, 5], Element::Index);
    let h = s.layer_norm("before", x, 1e-5);
    let (q, k, v) = (s.linear("q", h, 6), s.linear("k", h, 6), s.linear("v", h, 6));
    let context = s.attention(2, q, k, v, mask);
    let h = s.layer_norm("after", s.add(s.linear("dense", context, 6), x), 1e-5);
    let logits = s.linear("out", s.activation(Activation::GeluErf, h), 4);
    s.mark("logits", logits);
    let (teacher, weights) =
        (s.input("teacher", &[2, 5, 4], Element::Real), s.input("weights", &[2, 5], Element::Real));
    s.mark("distance", s.distance(Distance::Kl, logits, teacher, weights));
}

/// Attention of one tensor to itself, with no weights between.
fn itself(s: &Scope) {
    let x = s.input("x", &[2, 5, 6], Element::Real);
    let mask = s.input("mask", &[2, 5], Element::Index);
    let h = s.linear("in", x, 6);
    s.mark("context", s.attention(3, h, h, h, mask));
}

/// One tensor twice in one op: a hidden one, and a parameter; and a value that three ops read.
fn twice(s: &Scope) {
    let x = s.input("x", &[2, 5], Element::Real);
    let p = s.param("p", &[2, 5], Kind::Weight);
    let h = s.activation(Activation::Tanh, s.add(x, s.add(p, p)));
    let both = s.add(h, h);
    s.mark("sum", s.add(s.linear("a", both, 5), s.add(h, both)));
}

pub fn nets() -> Vec<(&'static str, Net, &'static str)> {
    vec![
        ("mlp", Net::new(4, mlp), "logits"),
        ("mlp", Net::new(4, mlp), "loss"),
        ("text", Net::new(11, text), "logits"),
        ("text", Net::new(11, text), "words"),
        ("encoder", Net::new(2, encoder), "logits"),
        ("encoder", Net::new(2, encoder), "distance"),
        ("itself", Net::new(2, itself), "context"),
        ("twice", Net::new(1, twice), "sum"),
    ]
}

/// Two layers whose plan fits on a page.
pub fn small() -> Net {
    Net::new(3, |s: &Scope| {
        let x = s.input("x", &[2, 3], Element::Real);
        let h = s.activation(Activation::Tanh, s.linear("fc1", x, 4));
        let logits = s.linear("fc2", h, 3);
        s.mark("logits", logits);
        let (labels, weights) = (s.input("labels", &[2], Element::Index), s.input("weights", &[2], Element::Real));
        s.mark("loss", s.cross_entropy(logits, labels, weights));
    })
}
