//! An op on one set of inputs, and its host passes there.
use crate::ops::{Cotangent, Op};
use crate::rng::Rng;
use crate::tensor::{Shape, View, numel};
use std::sync::Arc;

/// What an input is to the derivative, and to the way it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Differentiable: what another op wrote, or the caller.
    Activation,
    /// Differentiable, and of weight space: its gradient is f32 whatever an engine computes in.
    Parameter,
    /// Real, but without a derivative by the op's own rule.
    Constant,
    Index,
}

impl Role {
    pub fn differentiable(self) -> bool {
        matches!(self, Self::Activation | Self::Parameter)
    }
}

#[derive(Clone, Debug)]
pub struct Input {
    pub shape: Shape,
    pub data: Vec<f32>,
    pub role: Role,
}

/// An op on one set of inputs.
///
/// `ulps` is the tolerance, in units of f32's rounding (2⁻²³) of an element's scale: |want|, plus the size of the
/// terms that cancelled on the way to it (J x with random signs; for a tangent J dx with random signs), plus, for a
/// tangent, what it would move if every input moved by itself times a random sign. A naive f32 sum of k terms errs
/// by about √k/4 such units.
#[derive(Debug)]
pub struct Case {
    pub op: Arc<dyn Op>,
    pub inputs: Vec<Input>,
    pub ulps: f64,
}

/// Tangents of the inputs; `None` is zero.
pub type Tangents<'a> = Vec<Option<&'a [f32]>>;

impl Case {
    pub fn shapes(&self) -> Vec<&[usize]> {
        self.inputs.iter().map(|i| i.shape.as_slice()).collect()
    }
    /// Elements of the output.
    ///
    /// # Errors
    /// Shapes that the op refuses.
    pub fn numel(&self) -> Result<usize, String> {
        Ok(numel(&self.op.output(&self.shapes())?))
    }
    pub fn differentiable(&self) -> Vec<usize> {
        (0..self.inputs.len()).filter(|&i| self.inputs[i].role.differentiable()).collect()
    }
    /// A random direction for each input.
    pub fn directions(&self, rng: &mut Rng) -> Vec<Vec<f32>> {
        self.inputs.iter().map(|i| i.data.iter().map(|_| rng.normal()).collect()).collect()
    }
    /// NaN for each element of each input.
    pub fn poisoned(&self) -> Vec<Vec<f32>> {
        self.inputs.iter().map(|i| vec![f32::NAN; i.data.len()]).collect()
    }
    /// 0 for each element of each input.
    pub fn zeros(&self) -> Vec<Vec<f32>> {
        self.inputs.iter().map(|i| vec![0.0; i.data.len()]).collect()
    }
    pub fn views(&self) -> Vec<View<'_>> {
        self.inputs.iter().map(|i| View { data: &i.data, shape: &i.shape }).collect()
    }

    /// y and what is saved, from memory that holds NaN.
    ///
    /// # Errors
    /// Shapes that the op refuses.
    pub fn forward(&self) -> Result<(Vec<f32>, Vec<f32>), String> {
        let mut y = vec![f32::NAN; self.numel()?];
        let mut saved = vec![f32::NAN; self.op.saved(&self.shapes())];
        self.op.forward(&self.views(), &mut y, &mut saved);
        Ok((y, saved))
    }
    /// J dx, from memory that holds NaN.
    pub fn jvp(&self, y: &[f32], saved: &[f32], dx: &[Option<&[f32]>]) -> Vec<f32> {
        let mut dy = vec![f32::NAN; y.len()];
        self.op.jvp(&self.views(), y, saved, dx, &mut dy);
        dy
    }
    /// gx (+)= Jᵀ gy on the inputs `of`, shown what the op says it reads and nothing else.
    pub fn vjp(
        &self,
        y: &[f32],
        saved: &[f32],
        gy: &[f32],
        of: &[usize],
        add: bool,
        mut gx: Vec<Vec<f32>>,
    ) -> Vec<Vec<f32>> {
        let reads = self.op.reverse_reads();
        let mut views = self.views();
        for (i, view) in views.iter_mut().enumerate().filter(|(i, _)| !reads.inputs.contains(i)) {
            *view = View { data: &[], shape: &self.inputs[i].shape };
        }
        let mut cotangents: Vec<Option<Cotangent>> =
            gx.iter_mut().enumerate().map(|(i, data)| of.contains(&i).then_some(Cotangent { data, add })).collect();
        self.op.vjp(&views, if reads.output { y } else { &[] }, saved, gy, &mut cotangents);
        gx
    }
}

/// `keep` of the directions, the rest known to be zero.
pub fn only<'a>(dx: &'a [Vec<f32>], keep: &[usize]) -> Tangents<'a> {
    dx.iter().enumerate().map(|(i, d)| keep.contains(&i).then_some(d.as_slice())).collect()
}

/// Each of them alone, then all of them, unless that is the same.
pub fn subsets(all: &[usize]) -> Vec<Vec<usize>> {
    let mut subsets: Vec<Vec<usize>> = all.iter().map(|&i| vec![i]).collect();
    if all.len() > 1 {
        subsets.push(all.to_vec());
    }
    subsets
}
