//! The flat layout of weight space. Weights, gradients, moments, masks and directions all share it, so that
//! projection, norms and the optimizer are single loops over one range.
use crate::graph::{Kind, Param};
use crate::tensor::{Shape, numel};
use std::ops::Range;

/// What a run does with a parameter. The layout is sorted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Trained, and a candidate for zero.
    Prunable,
    /// Trained, never pruned.
    Free,
    /// Neither.
    Frozen,
}

/// A parameter's place in every vector of weight space.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Hugging Face's name.
    pub name: String,
    /// Other names of the same span (tied weights).
    pub aliases: Vec<String>,
    pub shape: Shape,
    pub kind: Kind,
    pub role: Role,
    /// Offset of the first element.
    pub at: usize,
    pub len: usize,
}

impl Span {
    pub fn range(&self) -> Range<usize> {
        self.at..self.at + self.len
    }
    /// (rows, columns) as pruning by row sees it: the first axis, and all others.
    pub fn matrix(&self) -> (usize, usize) {
        let rows = self.shape.first().copied().unwrap_or(1);
        (rows, self.len / rows.max(1))
    }
    /// Matrices decay; norms and biases do not (as in Hugging Face's and BERT's own training code).
    pub fn decays(&self) -> bool {
        !matches!(self.kind, Kind::Norm | Kind::Bias | Kind::Statistic)
    }
}

/// Spans start on 128 bytes (32 floats), so that a word of a mask belongs to one span. The padding between
/// them is zero and counted nowhere.
const ALIGN: usize = 32;

#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// In order of their offsets: prunable, free, frozen; inside a role, as the network was built.
    spans: Vec<Span>,
    /// Offset of the n-th parameter of the graph.
    offsets: Vec<usize>,
    len: usize,
}

impl Layout {
    /// `roles[i]` is what the run does with `params[i]`.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn new(params: &[Param], roles: &[Role]) -> Self {
        assert_eq!(params.len(), roles.len(), "one role a parameter");
        let mut order: Vec<usize> = (0..params.len()).collect();
        order.sort_by_key(|&i| roles[i]); // stable: the builder's order stays
        let (mut spans, mut offsets, mut at) = (Vec::new(), vec![0; params.len()], 0);
        for i in order {
            let p = &params[i];
            let len = numel(&p.shape);
            offsets[i] = at;
            spans.push(Span {
                name: p.name.clone(),
                aliases: p.aliases.clone(),
                shape: p.shape.clone(),
                kind: p.kind,
                role: roles[i],
                at,
                len,
            });
            at = (at + len).next_multiple_of(ALIGN);
        }
        Self { spans, offsets, len: at }
    }

    /// Every parameter trained, none pruned.
    pub fn trained(params: &[Param]) -> Self {
        Self::new(params, &vec![Role::Free; params.len()])
    }

    /// Floats of a vector, padding included.
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }
    /// The span of a name or of an alias.
    pub fn span(&self, name: &str) -> Option<&Span> {
        self.spans.iter().find(|s| s.name == name || s.aliases.iter().any(|a| a == name))
    }
    /// Offset of the graph's n-th parameter.
    pub fn offset(&self, param: usize) -> usize {
        self.offsets[param]
    }
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(move |s| s.role == role)
    }
    /// Where the spans of a role lie, or would; one contiguous range, padding included.
    pub fn range(&self, role: Role) -> Range<usize> {
        let start = self.spans.iter().find(|s| s.role >= role).map_or(self.len, |s| s.at);
        let end = self.with_role(role).last().map_or(start, |s| (s.at + s.len).next_multiple_of(ALIGN));
        start..end
    }
    /// How many numbers a role has, padding left out.
    pub fn count(&self, role: Role) -> usize {
        self.with_role(role).map(|s| s.len).sum()
    }
    /// How many numbers the network has; running statistics are not among them.
    pub fn parameters(&self) -> usize {
        self.spans.iter().filter(|s| s.kind != Kind::Statistic).map(|s| s.len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(name: &str, shape: &[usize], kind: Kind) -> Param {
        Param { name: name.into(), shape: shape.into(), kind, aliases: vec![] }
    }

    #[test]
    fn a_role_without_spans_has_an_empty_range_in_its_place() {
        let params = [param("b", &[3], Kind::Bias), param("w", &[3, 50], Kind::Weight)];
        let layout = Layout::new(&params, &[Role::Frozen, Role::Frozen]);
        assert_eq!((layout.range(Role::Prunable), layout.range(Role::Free)), (0..0, 0..0));
        assert_eq!(Layout::trained(&params).range(Role::Frozen), 192..192);
    }

    #[test]
    fn roles_are_contiguous_and_spans_are_aligned() {
        let params = [
            param("b", &[3], Kind::Bias),
            param("w", &[3, 5], Kind::Weight),
            param("e", &[7, 5], Kind::Embedding),
            param("v", &[2, 9], Kind::Weight),
        ];
        let layout = Layout::new(&params, &[Role::Free, Role::Prunable, Role::Frozen, Role::Prunable]);
        let places: Vec<_> = layout.spans().iter().map(|s| (s.name.as_str(), s.at, s.len)).collect();
        assert_eq!(places, [("w", 0, 15), ("v", 32, 18), ("b", 64, 3), ("e", 96, 35)]);
        assert_eq!((layout.range(Role::Prunable), layout.range(Role::Free), layout.len()), (0..64, 64..96, 160));
        assert_eq!((layout.count(Role::Prunable), layout.parameters()), (33, 71));
        assert_eq!((0..4).map(|i| layout.offset(i)).collect::<Vec<_>>(), [64, 0, 96, 32]);
    }
}
