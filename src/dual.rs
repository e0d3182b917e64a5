//! Dual numbers in f64: an op's one reference, run on these, gives its value and its exact JVP.
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// re + eps ε with ε² = 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Dual {
    pub re: f64,
    pub eps: f64,
}

impl Dual {
    pub const ZERO: Self = Self::constant(0.0);
    pub const ONE: Self = Self::constant(1.0);

    pub const fn new(re: f64, eps: f64) -> Self {
        Self { re, eps }
    }
    pub const fn constant(re: f64) -> Self {
        Self { re, eps: 0.0 }
    }
    /// f(self), from f and f' at `self.re`.
    pub fn map(self, value: f64, slope: f64) -> Self {
        Self::new(value, slope * self.eps)
    }
    pub fn sqrt(self) -> Self {
        let r = self.re.sqrt();
        self.map(r, 0.5 / r)
    }
    pub fn exp(self) -> Self {
        let e = self.re.exp();
        self.map(e, e)
    }
    pub fn ln(self) -> Self {
        self.map(self.re.ln(), 1.0 / self.re)
    }
    pub fn tanh(self) -> Self {
        let t = self.re.tanh();
        self.map(t, 1.0 - t * t)
    }
    pub fn erf(self) -> Self {
        self.map(libm::erf(self.re), std::f64::consts::FRAC_2_SQRT_PI * (-self.re * self.re).exp())
    }
    /// max(self, 0), with slope 0 at 0 as PyTorch has it.
    pub fn relu(self) -> Self {
        if self.re > 0.0 { self } else { Self::ZERO }
    }
    /// log Σ exp x_i, shifted by the largest so that nothing overflows.
    pub fn log_sum_exp(xs: &[Dual]) -> Self {
        let top = Self::constant(xs.iter().fold(f64::NEG_INFINITY, |m, x| m.max(x.re)));
        xs.iter().fold(Self::ZERO, |s, x| s + (*x - top).exp()).ln() + top
    }
}

impl From<f64> for Dual {
    fn from(re: f64) -> Self {
        Self::constant(re)
    }
}
impl Add for Dual {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        Self::new(self.re + o.re, self.eps + o.eps)
    }
}
impl AddAssign for Dual {
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}
impl Sub for Dual {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        Self::new(self.re - o.re, self.eps - o.eps)
    }
}
impl Mul for Dual {
    type Output = Self;
    fn mul(self, o: Self) -> Self {
        Self::new(self.re * o.re, self.re * o.eps + self.eps * o.re)
    }
}
impl Div for Dual {
    type Output = Self;
    fn div(self, o: Self) -> Self {
        Self::new(self.re / o.re, (self.eps * o.re - self.re * o.eps) / (o.re * o.re))
    }
}
impl Neg for Dual {
    type Output = Self;
    fn neg(self) -> Self {
        Self::new(-self.re, -self.eps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_limits_of_differences() {
        type Function = fn(Dual) -> Dual;
        let functions: [(&str, Function); 7] = [
            ("sqrt", Dual::sqrt),
            ("exp", Dual::exp),
            ("ln", Dual::ln),
            ("tanh", Dual::tanh),
            ("erf", Dual::erf),
            ("relu", Dual::relu),
            ("quotient", |x| (x * x - Dual::ONE) / (x + 3.0.into())),
        ];
        for (name, f) in functions {
            for x in [0.3, 0.9, 2.2] {
                let h = 1e-6;
                let difference = (f((x + h).into()).re - f((x - h).into()).re) / (2.0 * h);
                let slope = f(Dual::new(x, 1.0)).eps;
                assert!((slope - difference).abs() <= 1e-8 * (1.0 + slope.abs()), "{name}({x}): {slope}, {difference}");
            }
        }
    }
}
