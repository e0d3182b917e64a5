//! Which weights are pruned: patterns, scores, and the exact choice of the k smallest.
use crate::Error;
use crate::params::{Layout, Role};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Among what the smallest are chosen (METHOD, algorithm 2, "Scopes").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// All prunable weights together: k = round(p n).
    Global,
    /// Each parameter by itself.
    Layer,
    /// Each row of a matrix, each filter of a convolution.
    Row,
    /// At most n non-zeros in every m neighbours of a row.
    NofM { n: usize, m: usize },
    /// Whole blocks of a matrix, by their Euclidean norm, over all prunable parameters together.
    Block { rows: usize, cols: usize },
}

impl FromStr for Pattern {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let pair = |text: &str, by: char| {
            let (a, b) = text.split_once(by)?;
            Some((a.parse::<usize>().ok().filter(|&a| a > 0)?, b.parse::<usize>().ok().filter(|&b| b > 0)?))
        };
        match s {
            "global" => return Ok(Self::Global),
            "layer" => return Ok(Self::Layer),
            "row" => return Ok(Self::Row),
            _ => {}
        }
        if let Some((rows, cols)) = s.strip_prefix("block:").and_then(|b| pair(b, 'x')) {
            return Ok(Self::Block { rows, cols });
        }
        match pair(s, ':') {
            Some((n, m)) if n < m && m <= 32 => Ok(Self::NofM { n, m }),
            _ => Err(format!(
                "'{s}' is not a scope; wanted global, layer, row, n:m (n < m <= 32, as 2:4) or block:RxC (as block:4x4)"
            )),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Layer => f.write_str("layer"),
            Self::Row => f.write_str("row"),
            Self::NofM { n, m } => write!(f, "{n}:{m}"),
            Self::Block { rows, cols } => write!(f, "block:{rows}x{cols}"),
        }
    }
}

impl Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What "small" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// |w|.
    Magnitude,
    /// A fixed random number a weight: the baseline that knows nothing.
    Random { seed: u64 },
}

/// How many are pruned, among what, by what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Criterion {
    pub pattern: Pattern,
    pub score: Score,
    /// The share p of the prunable weights, in 0..=1. For n:m the share of the way from none pruned to m − n of m.
    pub sparsity: f64,
}

impl Criterion {
    /// Whether the scope fits the layout's prunable spans.
    pub(crate) fn check(&self, layout: &Layout) -> Result<(), Error> {
        if let Pattern::NofM { n, m } = self.pattern
            && let Some(s) = layout.with_role(Role::Prunable).find(|s| s.matrix().1 % m != 0)
        {
            return Err(Error::usage(
                format!("--scope {n}:{m}"),
                format!("{} has rows of {}, which groups of {m} do not fill", s.name, s.matrix().1),
                format!("leave it out with --exclude '{}'", s.name),
            ));
        }
        Ok(())
    }

    /// How many of `n` are pruned: round(p n), half away from zero.
    pub fn count(&self, n: usize) -> usize {
        ((self.sparsity * n as f64).round() as usize).min(n)
    }
}

/// A count of magnitudes around the last threshold, made in passing by [`super::Engine::update`]: with the
/// k-th inside the bracket, the choice is exact without another pass. Only the engine that made it looks inside; to any
/// other, or once it is spent, it says nothing, which costs time and never a right mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Census {
    /// Here.
    Counted(Counted),
    /// In a device's memory, as the census of this number.
    Kept(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Magnitudes as bits, both ends inside.
    pub bracket: (u32, u32),
    /// How many lie below it.
    pub below: usize,
    /// Those that lie in it.
    pub inside: Vec<u32>,
}

/// What [`super::Engine::select`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selected {
    /// Exactly how many are pruned.
    pub pruned: usize,
    /// The largest pruned magnitude; 0 when nothing is pruned.
    pub threshold: f32,
    /// ‖w − w_p‖².
    pub pruned_squares: f64,
    /// ‖w‖² over the prunable weights.
    pub squares: f64,
}

/// |x| as an integer of the same order.
#[inline(always)]
pub(crate) fn magnitude_bits(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_parse_and_print() {
        for text in ["global", "layer", "row", "2:4", "4:8", "block:4x16"] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        for text in ["", "4:2", "0:4", "2:64", "block:0x4", "block:4", "columns"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
