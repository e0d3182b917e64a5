//! Shapes and views: what an op sees of a tensor.

/// The lengths of a tensor's axes, outermost first.
pub type Shape = Vec<usize>;

/// What a tensor's elements are. Both kinds take four bytes, so one arena holds either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// f32: differentiable.
    Real,
    /// i32 (token ids, labels, masks), stored as its bit pattern in a word of the arena: no tangent.
    Index,
}

/// A contiguous, row-major tensor.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T = f32> {
    pub data: &'a [T],
    pub shape: &'a [usize],
}

impl<T> View<'_, T> {
    /// (rows, columns), the last axis being the columns; a scalar is one by one.
    pub fn rows_cols(&self) -> (usize, usize) {
        rows_cols(self.shape)
    }
}

impl<'a> View<'a, f32> {
    /// The elements of an [`Element::Index`] tensor.
    pub fn indices(&self) -> &'a [i32] {
        bytemuck::cast_slice(self.data)
    }
}

/// (product of all axes but the last, the last axis).
pub fn rows_cols(shape: &[usize]) -> (usize, usize) {
    let cols = shape.last().copied().unwrap_or(1);
    (shape[..shape.len().saturating_sub(1)].iter().product(), cols)
}

pub fn numel(shape: &[usize]) -> usize {
    shape.iter().product()
}
