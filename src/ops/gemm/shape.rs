//! What a product is of: its layout, sizes and types.
use crate::gpu::Dtype;
use std::fmt;

/// What is transposed, as BLAS names it: rows of A and B are (m, n), (m, k) or (k, k).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// C = A Bᵀ, with A [m, k] and B [n, k].
    Nt,
    /// C = A B, with A [m, k] and B [k, n].
    Nn,
    /// C = Aᵀ B, with A [k, m] and B [k, n].
    Tn,
}

impl Layout {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nt => "nt",
            Self::Nn => "nn",
            Self::Tn => "tn",
        }
    }
}

/// A product C [m, n] = Σ A B, with `k` terms an element from each of `pairs` pairs of operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmShape {
    pub layout: Layout,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub pairs: usize,
    pub a: Dtype,
    pub b: Dtype,
    pub c: Dtype,
}

impl fmt::Display for GemmShape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { layout, m, n, k, pairs, a, b, c } = self;
        write!(f, "{} {m}x{n}x{k}", layout.name())?;
        if *pairs > 1 {
            write!(f, " x {pairs}")?;
        }
        match a == b && b == c {
            true => write!(f, " {}", a.suffix()),
            false => write!(f, " {} {} > {}", a.suffix(), b.suffix(), c.suffix()),
        }
    }
}
