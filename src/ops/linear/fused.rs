//! A linear map with what follows it: y = f(z), z = x Wᵀ + b + r, with an activation f, a residual r, or both.
//! No model asks for it: engines of devices make it of the ops (src/graph/fuse.rs), since a product's epilogue does the
//! rest with z at hand.
use super::{Linear, tangent_pairs, with_bias};
use crate::dual::Dual;
use crate::gpu::{Ptr, Queue};
use crate::ops::add::receive;
use crate::ops::gemm::cuda::product;
use crate::ops::gemm::dual::{self, Output};
use crate::ops::gemm::{Epilogue, Layout};
use crate::ops::{Activation, Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads, in_turn};
use crate::tensor::{Shape, View, numel};

/// Inputs: those of [`Linear`], and last r, of y's shape, where there is one. Keeps z where the activation's slope is
/// taken from it and cannot be from y.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FusedLinear {
    pub activation: Option<Activation>,
    pub residual: bool,
}

impl FusedLinear {
    /// (the linear map's, the residual's) of what there is an entry an input of.
    fn parts<'a, T>(&self, x: &'a [T]) -> (&'a [T], Option<&'a T>) {
        match x.split_last() {
            Some((r, of_linear)) if self.residual => (of_linear, Some(r)),
            _ => (x, None),
        }
    }

    /// ReLU's slope is as well known from y, which the next op holds on to anyway.
    fn keeps(&self) -> bool {
        self.activation.is_some_and(|f| !f.by_output() && f != Activation::Relu)
    }

    /// Elements of y.
    fn len(&self, x: &[&[usize]]) -> usize {
        self.parts(x).0.first().map_or(0, |s| numel(&s[..s.len() - 1])) * x[1][0]
    }

    /// out = f'(z) d on the host.
    fn derivative(&self, y: &[f32], saved: &[f32], d: &[f32], out: &mut [f32]) {
        let at = if self.keeps() { saved } else { y };
        match self.activation {
            Some(f) => f.derivative(at, at, d, out, false),
            None => out.copy_from_slice(d),
        }
    }

    /// What the slope is taken from on a device.
    fn at<'a>(&self, io: &DeviceIo<'a>) -> DeviceTensor<'a> {
        if self.keeps() { DeviceTensor { at: io.kept, ..io.y } } else { io.y }
    }

    /// Of the product that makes y.
    fn epilogue(&self, io: &DeviceIo) -> crate::Result<Epilogue> {
        let (of_linear, residual) = self.parts(io.x);
        let pre = if self.keeps() { io.kept } else { Ptr::NULL };
        let residual = self.residual_at(residual, &io.y)?;
        let epilogue = Epilogue { residual, activation: self.activation, pre, ..Epilogue::NONE };
        with_bias(of_linear.get(2), epilogue)
    }

    /// Of the products that make dy, when y and what is kept are there.
    fn tangent_epilogue(&self, io: &DeviceIo) -> crate::Result<Epilogue> {
        let (of_map, of_residual) = self.parts(io.dx);
        let dy = io.dy()?;
        let residual = self.residual_at(of_residual.and_then(Option::as_ref), &dy)?;
        // The kernel reads it as it stores dy.
        let slope = self.activation.map_or(Ok(Ptr::NULL), |_| self.at(io).stored(dy.dtype, self.name(), "slope"))?;
        let epilogue = Epilogue { residual, activation: self.activation, slope, ..Epilogue::NONE };
        with_bias(of_map.get(2).and_then(Option::as_ref), epilogue)
    }

    fn residual_at(&self, r: Option<&DeviceTensor>, y: &DeviceTensor) -> crate::Result<Ptr> {
        r.map_or(Ok(Ptr::NULL), |r| r.stored(y.dtype, self.name(), "residual"))
    }
}

/// Bytes for z or its cotangent at the start of scratch, what the products take lying behind.
fn room(n: usize) -> usize {
    (4 * n).next_multiple_of(256)
}

fn add(v: Option<&[f32]>, to: &mut [f32]) {
    if let Some(v) = v {
        receive(v, &mut Cotangent { data: to, add: true });
    }
}

impl Op for FusedLinear {
    fn name(&self) -> &'static str {
        use Activation::{GeluErf, GeluTanh, Relu, Tanh};
        match (self.activation, self.residual) {
            (None, false) => "linear",
            (None, true) => "linear_add",
            (Some(GeluErf), false) => "linear_gelu",
            (Some(GeluErf), true) => "linear_add_gelu",
            (Some(GeluTanh), false) => "linear_gelu_tanh",
            (Some(GeluTanh), true) => "linear_add_gelu_tanh",
            (Some(Relu), false) => "linear_relu",
            (Some(Relu), true) => "linear_add_relu",
            (Some(Tanh), false) => "linear_tanh",
            (Some(Tanh), true) => "linear_add_tanh",
        }
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        let (of_linear, residual) = self.parts(x);
        if of_linear.len() < 2 {
            return Err(format!("wants x, W, b or none, and a residual where there is one; got {x:?}"));
        }
        let shape = Linear.output(of_linear)?;
        match residual {
            Some(r) if **r != shape[..] => Err(format!("the residual is {r:?}, the rest {shape:?}")),
            _ => Ok(shape),
        }
    }
    fn saved(&self, x: &[&[usize]]) -> usize {
        self.kept(x)
    }
    fn kept(&self, x: &[&[usize]]) -> usize {
        if self.keeps() { self.len(x) } else { 0 }
    }
    fn reverse_reads(&self) -> Reads {
        let inputs = Linear.reverse_reads();
        Reads { output: self.activation.is_some() && !self.keeps(), ..inputs }
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let (of_linear, n) = (self.parts(x).0, self.len(x) as u64);
        let curve = self.activation.map_or(0, |f| f.cost(Pass::Forward, &[&[1]]).flops) * n;
        let (adds, kept, acts) = (u64::from(self.residual), u64::from(self.keeps()), self.activation.is_some());
        let more = match pass {
            Pass::Forward => Cost { flops: curve + adds * n, bytes: 4 * (adds + kept) * n },
            Pass::Jvp => Cost { flops: curve + adds * n, bytes: 4 * (adds + u64::from(acts)) * n },
            // The cotangent of z by a kernel of its own; that of the residual is a copy.
            Pass::Vjp => Cost { flops: curve, bytes: (if acts { 12 } else { 0 } + 8 * adds) * n },
            Pass::Dual => return self.cost(Pass::Forward, x) + self.cost(Pass::Jvp, x),
        };
        Linear.cost(pass, of_linear) + more
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let (of_linear, residual) = self.parts(x);
        Linear.reference(of_linear, y);
        if let Some(r) = residual {
            y.iter_mut().zip(r.data).for_each(|(y, r)| *y += *r);
        }
        if let Some(f) = self.activation {
            let (z, shape) = (y.to_vec(), [y.len()]);
            f.reference(&[View { data: &z, shape: &shape }], y);
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], saved: &mut [f32]) {
        let (of_linear, residual) = self.parts(x);
        let residual = residual.map(|r| r.data);
        let Some(f) = self.activation else {
            Linear.forward(of_linear, y, &mut []);
            return add(residual, y);
        };
        let mut own = vec![0.0; if self.keeps() { 0 } else { y.len() }];
        let z = if self.keeps() { saved } else { &mut own };
        Linear.forward(of_linear, z, &mut []);
        add(residual, z);
        let shape = [y.len()];
        f.forward(&[View { data: z, shape: &shape }], y, &mut []);
    }
    fn jvp(&self, x: &[View], y: &[f32], saved: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let (of_linear, _) = self.parts(x);
        let (of_map, of_residual) = self.parts(dx);
        let mut dz = vec![0.0; dy.len()];
        Linear.jvp(of_linear, &[], &[], of_map, &mut dz);
        add(of_residual.copied().flatten(), &mut dz);
        self.derivative(y, saved, &dz, dy);
    }
    fn vjp(&self, x: &[View], y: &[f32], saved: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let mut gz = vec![0.0; gy.len()];
        self.derivative(y, saved, gy, &mut gz);
        let of_linear = self.parts(x).0;
        let (of_map, of_residual) = gx.split_at_mut(of_linear.len());
        Linear.vjp(of_linear, &[], &[], &gz, of_map);
        of_residual.iter_mut().flatten().for_each(|g| receive(&gz, g));
    }
    fn dual(&self) -> bool {
        true
    }
    fn scratch(&self, pass: Pass, x: &[&[usize]]) -> usize {
        let own = match pass {
            Pass::Forward | Pass::Jvp => 0,
            Pass::Vjp if self.activation.is_some() => room(self.len(x)),
            Pass::Dual if self.keeps() => room(self.len(x)),
            Pass::Vjp | Pass::Dual => 0,
        };
        own + Linear.scratch(pass, self.parts(x).0)
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        let ((m, k), n) = (io.x[0].rows_cols(), io.x[1].shape[0]);
        let of_linear = self.parts(io.x).0;
        // With z or its cotangent at the start of scratch, and what is left of it.
        let own = DeviceTensor { at: queue.scratch, ..io.y };
        let rest = Queue { scratch: queue.scratch.offset(room(m * n)), ..*queue };
        match pass {
            Pass::Forward => {
                let pairs = [(of_linear[0], of_linear[1])];
                product(queue, Layout::Nt, (m, n, k), &pairs, &io.y, self.epilogue(io)?)
            }
            // (dx Wᵀ + x dWᵀ + db + dr) f'(z) in one launch, rounded once.
            Pass::Jvp => {
                let pairs = tangent_pairs(of_linear, self.parts(io.dx).0);
                product(queue, Layout::Nt, (m, n, k), &pairs, &io.dy()?, self.tangent_epilogue(io)?)
            }
            Pass::Vjp => {
                let (of_map, of_residual) = io.gx.split_at(of_linear.len());
                let (gz, rest) = match self.activation {
                    Some(f) => {
                        f.slope(&self.at(io), &io.dy()?, &own, false, queue)?;
                        (own, rest)
                    }
                    None => (io.dy()?, *queue),
                };
                let of_linear = DeviceIo { x: of_linear, dy: Some(gz), gx: of_map, ..*io };
                Linear.cuda(pass, &of_linear, &rest)?;
                of_residual.iter().flatten().try_for_each(|g| g.receive(&gz, queue))
            }
            // z, which nothing reads later, in scratch.
            Pass::Dual if self.keeps() && io.kept.is_null() => {
                self.cuda(Pass::Dual, &DeviceIo { kept: own.at, ..*io }, &rest)
            }
            Pass::Dual => {
                if let (Some(dx), Some(dw)) = (io.dx[0], io.dx[1]) {
                    let output = |t: &DeviceTensor, epilogue| Output { at: t.at, dtype: t.dtype, epilogue };
                    let (y, dy) = (output(&io.y, self.epilogue(io)?), output(&io.dy()?, self.tangent_epilogue(io)?));
                    if dual::dual(queue, (m, n, k), (of_linear[0], of_linear[1]), (dx, dw), y, dy)? {
                        return Ok(());
                    }
                }
                in_turn(self, io, queue)
            }
        }
    }
}
