//! Element-wise nonlinearities: GELU (erf and tanh forms), ReLU, tanh.
use super::{CHUNK, Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads, math, simd};
use crate::dual::Dual;
use crate::gpu::{Args, Ptr, Queue};
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x), Φ the standard normal's distribution function (Hugging Face's "gelu").
    GeluErf,
    /// ½ x (1 + tanh(√(2/π)(x + 0.044715 x³))) ("gelu_new", "gelu_pytorch_tanh").
    GeluTanh,
    Relu,
    Tanh,
}

/// As `CurveArgs` in kernels/pointwise.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct CurveArgs {
    x: Ptr,
    y: Ptr,
    n: u64,
}
impl Args for CurveArgs {}
const _: () = assert!(size_of::<CurveArgs>() == 24);

/// As `SlopeArgs` in kernels/pointwise.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SlopeArgs {
    at: Ptr,
    d: Ptr,
    out: Ptr,
    n: u64,
    add: u64,
}
impl Args for SlopeArgs {}
const _: () = assert!(size_of::<SlopeArgs>() == 40);

/// √(2/π) and the cubic coefficient of the tanh form (Hendrycks and Gimpel 2016).
const C: f32 = 0.797_884_6;
const A: f32 = 0.044_715;

/// A function of one variable. A trait and not a closure, so that its methods are surely inlined into the loops.
trait Curve {
    fn value(x: f32) -> f32;
    /// The derivative, from x (from the value, for tanh).
    fn slope(at: f32) -> f32;
}

struct GeluErf;
struct GeluTanh;
struct Relu;
struct Tanh;

impl Curve for GeluErf {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        // Φ is 0 from here on; the bound keeps -inf from making a NaN of it.
        let bounded = if x < -20.0 { -20.0 } else { x };
        bounded * math::normal_cdf(x)
    }
    /// Φ(x) + x φ(x).
    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let bounded = if x.abs() > 20.0 { 20.0 } else { x };
        bounded.mul_add(math::normal_pdf(x), math::normal_cdf(x))
    }
}

impl GeluTanh {
    /// (x within ±10, e^(−2u), 1/(1 + e^(−2u))) with u = √(2/π)(x + 0.044715 x³): ½(1 + tanh u) is the last,
    /// which keeps its digits where 1 + tanh u loses them. Past ±10 nothing changes that an f32 can show.
    #[inline(always)]
    fn logistic(x: f32) -> (f32, f32, f32) {
        let t = if x > 10.0 { 10.0 } else { x };
        let t = if t < -10.0 { -10.0 } else { t };
        let e = math::exp(-2.0 * C * t * (A * t).mul_add(t, 1.0));
        (t, e, 1.0 / (1.0 + e))
    }
}

impl Curve for GeluTanh {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        let (_, _, h) = Self::logistic(x);
        let bounded = if x < -10.0 { -10.0 } else { x };
        bounded * h
    }
    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let (x, e, h) = Self::logistic(x);
        let inner = 2.0 * C * (3.0 * A * x).mul_add(x, 1.0);
        (x * inner * h).mul_add(e * h, h)
    }
}

impl Curve for Relu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        if x < 0.0 { 0.0 } else { x }
    }
    #[inline(always)]
    fn slope(x: f32) -> f32 {
        if x > 0.0 { 1.0 } else { 0.0 }
    }
}

impl Curve for Tanh {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        math::tanh(x)
    }
    #[inline(always)]
    fn slope(y: f32) -> f32 {
        (1.0 - y) * (1.0 + y)
    }
}

/// y_i = f(x_i) in parallel, compiled for the machine's widest vectors.
fn map<F: Curve>(x: &[f32], y: &mut [f32]) {
    let arch = simd();
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        arch.dispatch(
            #[inline(always)]
            || {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = F::value(*x);
                }
            },
        );
    });
}

/// out_i (+)= f'(at_i) d_i, likewise: the tangent and the cotangent, as a diagonal is its own transpose.
fn scale<F: Curve>(at: &[f32], d: &[f32], out: &mut [f32], add: bool) {
    let arch = simd();
    out.par_chunks_mut(CHUNK).zip(at.par_chunks(CHUNK)).zip(d.par_chunks(CHUNK)).for_each(|((out, at), d)| {
        arch.dispatch(
            #[inline(always)]
            || {
                for ((out, at), d) in out.iter_mut().zip(at).zip(d) {
                    let v = F::slope(*at) * d;
                    *out = if add { *out + v } else { v };
                }
            },
        );
    });
}

impl Activation {
    /// Whether its slope is taken from its output.
    pub(super) fn by_output(self) -> bool {
        self == Self::Tanh
    }

    /// out (+)= f'(x) d, with y = f(x); tanh reads y, the others x.
    pub(super) fn derivative(self, x: &[f32], y: &[f32], d: &[f32], out: &mut [f32], add: bool) {
        match self {
            Self::GeluErf => scale::<GeluErf>(x, d, out, add),
            Self::GeluTanh => scale::<GeluTanh>(x, d, out, add),
            Self::Relu => scale::<Relu>(x, d, out, add),
            Self::Tanh => scale::<Tanh>(y, d, out, add),
        }
    }

    /// The same on a device; `at` is what the slope is taken from.
    pub(super) fn slope(
        self,
        at: &DeviceTensor,
        d: &DeviceTensor,
        out: &DeviceTensor,
        add: bool,
        queue: &Queue,
    ) -> crate::Result<()> {
        let (n, dtype, name) = (out.numel(), out.dtype, self.name());
        let at = at.stored(dtype, name, "x")?;
        let (d, out) = (d.stored(dtype, name, "dy")?, out.at);
        let args = SlopeArgs { at, d, out, n: n as u64, add: add.into() };
        queue.launch(&format!("{name}_slope_{}", dtype.suffix()), queue.blocks(n, 2048), 256, 0, &args)
    }
}

impl Op for Activation {
    fn name(&self) -> &'static str {
        match self {
            Self::GeluErf => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Relu => "relu",
            Self::Tanh => "tanh",
        }
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        Ok(x[0].to_vec())
    }
    fn reverse_reads(&self) -> Reads {
        if self.by_output() { Reads::OUTPUT } else { Reads::inputs(&[0]) }
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let n = numel(x[0]) as u64;
        let flops = match self {
            Self::GeluErf => 45,
            Self::GeluTanh | Self::Tanh => 30,
            Self::Relu => 1,
        };
        match pass {
            Pass::Forward => Cost { flops: flops * n, bytes: 8 * n },
            Pass::Jvp | Pass::Vjp => Cost { flops: flops * n, bytes: 12 * n },
            Pass::Dual => Cost { flops: 2 * flops * n, bytes: 20 * n },
        }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let half = Dual::constant(0.5);
        for (y, &x) in y.iter_mut().zip(x[0].data) {
            *y = match self {
                Self::GeluErf => half * x * (Dual::ONE + (x * Dual::constant(std::f64::consts::FRAC_1_SQRT_2)).erf()),
                Self::GeluTanh => {
                    let c = Dual::constant((2.0 / std::f64::consts::PI).sqrt());
                    half * x * (Dual::ONE + (c * (x + Dual::constant(0.044715) * x * x * x)).tanh())
                }
                Self::Relu => x.relu(),
                Self::Tanh => x.tanh(),
            };
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        match self {
            Self::GeluErf => map::<GeluErf>(x[0].data, y),
            Self::GeluTanh => map::<GeluTanh>(x[0].data, y),
            Self::Relu => map::<Relu>(x[0].data, y),
            Self::Tanh => map::<Tanh>(x[0].data, y),
        }
    }
    fn jvp(&self, x: &[View], y: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match dx[0] {
            Some(dx) => self.derivative(x[0].data, y, dx, dy, false),
            None => dy.fill(0.0),
        }
    }
    fn vjp(&self, x: &[View], y: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        if let Some(g) = &mut gx[0] {
            self.derivative(x[0].data, y, gy, g.data, g.add);
        }
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        let at = if self.by_output() { &io.y } else { &io.x[0] };
        match pass {
            Pass::Forward => {
                let (y, n, dtype, name) = (io.y.at, io.y.numel(), io.y.dtype, self.name());
                let x = io.x[0].stored(dtype, name, "x")?;
                let args = CurveArgs { x, y, n: n as u64 };
                queue.launch(&format!("{name}_forward_{}", dtype.suffix()), queue.blocks(n, 2048), 256, 0, &args)
            }
            Pass::Jvp => match &io.dx[0] {
                Some(dx) => self.slope(at, dx, &io.dy()?, false, queue),
                None => io.dy()?.zero(queue),
            },
            Pass::Vjp => match &io.gx[0] {
                Some(g) => self.slope(at, &io.dy()?, &g.to, g.add, queue),
                None => Ok(()),
            },
            Pass::Dual => super::in_turn(self, io, queue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (y, dy/dx) at each x, by the host's passes.
    fn value_and_slope(f: Activation, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let shape = [x.len()];
        let views = [View { data: x, shape: &shape }];
        let (ones, mut y, mut dy) = (vec![1.0; x.len()], vec![0.0; x.len()], vec![0.0; x.len()]);
        f.forward(&views, &mut y, &mut []);
        f.jvp(&views, &y, &[], &[Some(&ones)], &mut dy);
        (y, dy)
    }

    #[test]
    fn values_and_slopes_follow_the_definition_over_the_whole_range() {
        let x: Vec<f32> = (0..=120_000).map(|i| (i as f32 - 60_000.0) / 2000.0).collect();
        for f in [Activation::GeluErf, Activation::GeluTanh, Activation::Relu, Activation::Tanh] {
            let at: Vec<Dual> = x.iter().map(|x| Dual::new(f64::from(*x), 1.0)).collect();
            let mut want = vec![Dual::ZERO; x.len()];
            f.reference(&[View { data: &at, shape: &[x.len()] }], &mut want);
            let (y, dy) = value_and_slope(f, &x);
            for (i, want) in want.iter().enumerate() {
                let scale = 1.0 + f64::from(x[i]).abs();
                let (e, de) = ((f64::from(y[i]) - want.re).abs(), (f64::from(dy[i]) - want.eps).abs());
                assert!(
                    e <= 3e-7 * scale && de <= 1e-6,
                    "{}({}): {} and {}, want {want:?}",
                    f.name(),
                    x[i],
                    y[i],
                    dy[i]
                );
            }
        }
    }

    #[test]
    fn infinities_have_their_limits_and_nan_is_kept() {
        let inf = f32::INFINITY;
        for f in [Activation::GeluErf, Activation::GeluTanh, Activation::Relu, Activation::Tanh] {
            let (y, dy) = value_and_slope(f, &[inf, -inf, 1e30, -1e30, f32::NAN]);
            let bounded = f == Activation::Tanh;
            let (up, large, low) = if bounded { (1.0, 1.0, -1.0) } else { (inf, 1e30, 0.0) };
            let slope = if bounded { 0.0 } else { 1.0 };
            let near =
                |got: &[f32], want: [f32; 4]| got.iter().zip(want).all(|(g, w)| *g == w || (g - w).abs() <= 1e-30);
            assert!(
                near(&y[..4], [up, low, large, low]) && near(&dy[..4], [slope, 0.0, slope, 0.0]),
                "{f:?} {y:?} {dy:?}"
            );
            assert!(y[4].is_nan(), "{}", f.name());
        }
    }
}
