//! What is done to a product before it is stored.
use super::{GemmShape, Layout};
use crate::gpu::{Dtype, Ptr};
use crate::ops::Activation;
use crate::{Error, Result};

/// With z = Σ A B + bias + residual: C = act(z), or z act'(slope), or z; added to what C holds if `add`. A pointer that is
/// [`Ptr::NULL`] is a part left out. As `finish` in kernels/gemm.cuh.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue {
    /// f32 \[n\], one a column.
    pub bias: Ptr,
    /// Whether C is added to, after all else.
    pub add: bool,
    /// \[m, n\] of C's dtype, added after the bias.
    pub residual: Ptr,
    /// C = act(z); with `slope`, whose derivative it is.
    pub activation: Option<Activation>,
    /// \[m, n\] of C's dtype: where z is stored, for the reverse pass.
    pub pre: Ptr,
    /// \[m, n\] of C's dtype: what the result is multiplied with the activation's derivative at, which makes a tangent of
    /// z one of y, and a cotangent of y one of z. It is z, but y for tanh, as the op has it.
    pub slope: Ptr,
    /// f32 \[m\], of [`super::Layout::Tn`] alone: the sums of op(A)'s rows, which are those of gy's columns.
    pub bias_gradient: Ptr,
    /// Whether `bias_gradient` is added to.
    pub bias_gradient_add: bool,
}

impl Epilogue {
    pub const NONE: Self = Self {
        bias: Ptr::NULL,
        add: false,
        residual: Ptr::NULL,
        activation: None,
        pre: Ptr::NULL,
        slope: Ptr::NULL,
        bias_gradient: Ptr::NULL,
        bias_gradient_add: false,
    };

    /// Whether a product of this shape has all that it takes.
    pub(super) fn check(&self, shape: &GemmShape) -> Result<()> {
        let refuse = |what: &str| Err(Error::Graph { op: "gemm", place: shape.to_string(), what: what.into() });
        if shape.layout != Layout::Tn && !self.bias_gradient.is_null() {
            return refuse("the sums of op(A)'s rows come with tn alone");
        }
        if self.activation.is_none() && !self.slope.is_null() {
            return refuse("a slope wants the activation it is of");
        }
        Ok(())
    }

    /// The `epilogue` of kernels/gemm.cuh.
    pub(super) fn bits(&self, c: Dtype) -> u32 {
        let flags = [self.add, c == Dtype::Bf16, self.bias_gradient_add];
        let flags = flags.iter().enumerate().map(|(i, flag)| u32::from(*flag) << i).sum::<u32>();
        flags | curve(self.activation) << 8
    }
}

/// The number of an activation in kernels/gemm.cuh.
fn curve(activation: Option<Activation>) -> u32 {
    match activation {
        None => 0,
        Some(Activation::GeluErf) => 1,
        Some(Activation::GeluTanh) => 2,
        Some(Activation::Relu) => 3,
        Some(Activation::Tanh) => 4,
    }
}
