//! Small networks with every neighbourhood that is fused, as models have them.
use fipk::graph::{Kind, Scope, Value};
use fipk::ops::{Activation, Conv2d};
use fipk::tensor::Element::{Index, Real};

const EPS: f32 = 1e-5;

fn attended(s: &Scope, h: Value, mask: Option<Value>) -> Value {
    let (q, k, v) = (s.linear("q", h, 8), s.linear("k", h, 8), s.linear("v", h, 8));
    let context = match mask {
        Some(mask) => s.attention(2, q, k, v, mask),
        None => s.attention_to_all(2, q, k, v),
    };
    s.linear("dense", context, 8)
}

/// As BERT: embeddings added up and normalised, norms behind the sums, a pooler.
pub fn post_norm(s: &Scope) {
    let x = s.input("x", &[2, 5, 8], Real);
    let (types, mask) = (s.input("types", &[2, 5], Index), s.input("mask", &[2, 5], Index));
    let kinds = s.embedding("kinds", types, 3, 8);
    let h = s.layer_norm("embedded", s.add(x, kinds), EPS);
    let h = s.layer_norm("attention.norm", s.add(attended(s, h, Some(mask)), h), EPS);
    let up = s.activation(Activation::GeluErf, s.linear("up", h, 12));
    let h = s.layer_norm("output.norm", s.add(s.linear("down", up, 8), h), EPS);
    let pooled = s.activation(Activation::Tanh, s.head().linear("pooler", s.select_token(h, 0), 8));
    let logits = s.head().linear("classifier", pooled, 3);
    s.mark("logits", logits);
    let (labels, weights) = (s.input("labels", &[2], Index), s.input("weights", &[2], Real));
    s.mark("loss", s.cross_entropy(logits, labels, weights));
}

/// As ViT: norms before, a stream of residuals that norms and sums read, the sum on either side; and a sum that an
/// activation follows.
pub fn pre_norm(s: &Scope) {
    let x = s.input("x", &[2, 5, 8], Real);
    let table = s.param("positions", &[1, 5, 8], Kind::Embedding);
    let x = s.add_positions_of(x, table);
    let x = s.add(attended(s, s.layer_norm("before", x, EPS), None), x);
    let up = s.linear("up", s.layer_norm("after", x, EPS), 12);
    let down = s.linear("down", s.activation(Activation::GeluTanh, up), 8);
    let x = s.add(x, down);
    let first = s.layer_norm("norm", s.select_token(x, 0), EPS);
    let hidden = s.activation(Activation::Relu, s.add(s.linear("head", first, 8), first));
    s.mark("logits", s.linear_unbiased("classifier", hidden, 3));
}

/// Tensors that several read, some of whom could be fused with them: two maps of one tensor, a map of its own residual,
/// a residual that is a map itself, a marked norm of a sum.
pub fn shared(s: &Scope) {
    let x = s.input("x", &[3, 6], Real);
    let a = s.linear("a", x, 6);
    let b = s.activation(Activation::GeluErf, a);
    let c = s.add(s.linear("c", b, 6), b);
    let d = s.add(s.linear("d1", c, 6), s.linear("d2", a, 6));
    let e = s.layer_norm("norm", s.add(s.linear("e", d, 6), d), EPS);
    s.mark("normed", e);
    let f = s.activation(Activation::Tanh, s.add(c, s.linear_unbiased("f", e, 6)));
    s.mark("logits", s.linear("logits", f, 2));
}

/// One of each, whose plan fits on a page.
pub fn tiny(s: &Scope) {
    let x = s.input("x", &[2, 3], Real);
    let h = s.activation(Activation::GeluErf, s.linear("up", x, 4));
    let h = s.add(s.linear("down", h, 3), x);
    let h = s.add(s.activation(Activation::Tanh, h), h);
    s.mark("y", s.layer_norm("norm", h, EPS));
}

/// A ReLU of a norm, of a norm and a residual, of two norms; and of a sum that another op reads too.
pub fn residual_blocks(s: &Scope) {
    let x = s.input("x", &[3, 2, 5, 5], Real);
    let convolved = |name: &str, x: Value, outputs: usize| {
        s.batch_norm(&format!("{name}.norm"), s.conv2d(name, x, outputs, [3, 3], Conv2d::square(1, 1), false), EPS)
    };
    let relu = |z: Value| s.activation(Activation::Relu, z);
    let h = relu(convolved("stem", x, 4));
    let h = relu(s.add(convolved("a", h, 4), h));
    let h = relu(s.add(convolved("shortcut", h, 4), convolved("b", h, 4)));
    let sum = s.add(h, convolved("c", h, 4));
    let both = s.flatten(s.add(sum, relu(sum)));
    s.mark("logits", s.linear("logits", both, 3));
}
