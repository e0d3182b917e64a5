//! Where pooling looks: the part of an axis that each output reads, as PyTorch cuts it.

/// Windows over the last two axes of x [N, C, H, W], of height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// Of one size, `stride` apart, over an axis with `padding` on either side. `ceil`: a window that begins inside
    /// counts though it ends outside.
    Strided { kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2], ceil: bool },
    /// As many as the output has, of nearly equal size (PyTorch's adaptive pooling).
    Adaptive { to: [usize; 2] },
}

/// The elements of one window along an axis, and how many it counts with padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub start: usize,
    pub end: usize,
    pub whole: usize,
}

impl Windows {
    /// Square windows, none of which begins outside of the input and its padding.
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self::Strided { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2], ceil: false }
    }

    /// One window over everything.
    pub fn global() -> Self {
        Self::Adaptive { to: [1, 1] }
    }

    /// The windows along axis 0 (height) or 1 (width) of `len` elements.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub(super) fn along(&self, axis: usize, len: usize) -> Result<Vec<Window>, String> {
        match *self {
            Self::Adaptive { to } => {
                let n = to[axis];
                if n == 0 || len == 0 {
                    return Err(format!("pools {len} elements to {n}"));
                }
                let window = |i: usize| (i * len / n, ((i + 1) * len).div_ceil(n));
                Ok((0..n).map(window).map(|(start, end)| Window { start, end, whole: end - start }).collect())
            }
            Self::Strided { kernel, stride, padding, ceil } => {
                let (k, s, p) = (kernel[axis], stride[axis], padding[axis]);
                if k == 0 || s == 0 || len == 0 || p > k / 2 || len + 2 * p < k {
                    return Err(format!("a window of {k}, {s} apart with {p} of padding, on {len} elements"));
                }
                let mut n = (len + 2 * p - k + if ceil { s - 1 } else { 0 }) / s + 1;
                // The last window must begin inside the input or its left padding.
                if ceil && (n - 1) * s >= len + p {
                    n -= 1;
                }
                let window = |i: usize| {
                    let end = (i * s + k).min(len + 2 * p);
                    Window { start: (i * s).saturating_sub(p), end: (end - p.min(end)).min(len), whole: end - i * s }
                };
                Ok((0..n).map(window).collect())
            }
        }
    }

    /// The output's shape for x [N, C, H, W].
    pub(super) fn output(&self, x: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *x {
            [&[n, c, h, w]] => Ok(vec![n, c, self.along(0, h)?.len(), self.along(1, w)?.len()]),
            _ => Err(format!("wants x [N, C, H, W]; got {x:?}")),
        }
    }
}
