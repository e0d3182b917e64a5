//! fipk moves a trained network through weight space along functionally invariant paths: directions that leave
//! its outputs where they are (Raghavan et al., Nature Machine Intelligence 6, 2024). Here the path ends in a
//! sparse subspace, so the network loses most of its weights and keeps doing what it did.
//!
//! The floors, each built on those before it:
//!
//! | module | what |
//! |---|---|
//! | [`tensor`], [`dual`], [`rng`], [`error`] | shapes, f64 dual numbers, counter-based random numbers, the one error |
//! | [`ops`] | a file an op: shape rule, oracle, host passes (forward, J v, Jᵀ u), cost |
//! | [`graph`] | a network as calls, compiled for one mode, planned into one arena |
//! | [`params`] | weight space: the flat layout, safetensors in and out |
//! | [`engine`] | what runs programs and holds vectors; [`engine::Host`] is the CPU |
//! | [`selftest`] | the op table, and kernels against the host on a device |
//! | [`models`] | Hugging Face's configs, folders and names |
//! | [`data`] | data specs, tokenizers, batches |
//! | [`report`] | events, tables, plots, the page of a run |
//! | [`fip`] | objectives, the path, checkpoints, evaluation |
//! | [`cli`] | a file a verb |
//!
//! A network, its Jacobian-vector product and its gradient:
//!
//! ```
//! use fipk::engine::{Bindings, Data, Engine, Host};
//! use fipk::graph::{Mode, Program, Wrt, build};
//! use fipk::ops::Activation;
//! use fipk::params::Layout;
//! use fipk::tensor::Element;
//!
//! let graph = build(|s| {
//!     let x = s.input("x", &[2, 3], Element::Real);
//!     let h = s.activation(Activation::GeluErf, s.linear("up", x, 8));
//!     s.mark("logits", s.linear("down", h, 4));
//! })?;
//! let mut engine = Host::new(Layout::trained(&graph.params));
//! let (w, v, g) = (engine.zeros()?, engine.zeros()?, engine.zeros()?);
//! let ones = vec![0.1; engine.layout().len()];
//! engine.write(w, 0, &ones)?;
//! engine.write(v, 0, &ones)?;
//!
//! let inputs = [("x", Data::Real(&[1.0, 2.0, 3.0, -1.0, 0.5, 0.0]))];
//! let tangent = engine.load(Program::compile(&graph, Mode::Tangent, &Wrt::params(), "logits")?)?;
//! engine.run(tangent, &Bindings { tangents: Some(v), ..Bindings::new(w, &inputs) })?;
//! let jv = engine.fetch(tangent, "tangent")?; // J v: [2, 4]
//!
//! let reverse = engine.load(Program::compile(&graph, Mode::Reverse, &Wrt::params(), "logits")?)?;
//! engine.run(reverse, &Bindings { cotangents: Some(g), seed: Some(&jv), ..Bindings::new(w, &inputs) })?;
//! let (lhs, rhs) = (jv.iter().map(|x| x * x).sum::<f32>(), engine.dot(g, v, 0..engine.layout().len())?);
//! assert!((f64::from(lhs) - rhs).abs() <= 1e-5 * rhs); // |J v|² = v · Jᵀ J v
//! # Ok::<(), fipk::Error>(())
//! ```
pub mod cli;
pub mod data;
pub mod dual;
pub mod engine;
pub mod error;
pub mod fip;
pub mod geometry;
pub mod gpu;
pub mod graph;
pub mod models;
pub mod ops;
pub mod params;
pub mod report;
pub mod rng;
pub mod selftest;
pub mod tensor;

pub use error::{Error, Result};
