//! Geodesics of the metric, matrix-free (METHOD, "Geodesics"; the paper's equation 5).
//!
//! On a metric that is pulled back by f the Christoffel symbols contracted with v are g⁺ (1/N) Jᵀ f_vv, so that
//! γ̈ = −(g + μI)⁻¹ (1/N) Jᵀ f_vv: the acceleration takes back, as far as weights can, the second-order change of the
//! outputs, and the speed ‖γ̇‖_g stays.
//!
//! Where there are fewer outputs than weights and H = I, all of J γ̇ stays, not its length alone: d/dt (J γ̇) = f_vv + J γ̈ = 0, and
//! the outputs go straight on. An integrator sees f_vv at points, and a network with ReLUs changes between them, at kinks: so
//! what J γ̇ has lost is put back after every step, by the least change of γ̇ that does it (projection onto a first integral:
//! Hairer, Lubich and Wanner, "Geometric Numerical Integration", IV.4).
use super::gram::Gram;
use super::map::{Map, OutputMetric};
use super::pullback::Pullback;
use super::solve::{Accuracy, pulled_back};
use crate::{Error, Result};

/// a = −(g + μI)⁻¹ (1/N) Jᵀ f_vv, and the products with K it took.
///
/// With the Fisher metric the symbols have a further term, from the change of H along the path; it is left out, which makes
/// this the acceleration for H held at the point. The euclidean metric's, the paper's, is whole.
///
/// # Errors
/// What the map says.
pub fn acceleration<M: Map>(
    map: &mut M,
    w: &M::Vector,
    kind: OutputMetric,
    v: &M::Vector,
    mu: f64,
    accuracy: Accuracy,
) -> Result<(M::Vector, usize)> {
    let mut a = map.zeros()?;
    let products = {
        let mut gram = Gram::new(map, w, kind)?;
        let r = gram.second(v)?;
        pulled_back(&mut gram, r, mu, accuracy, &mut a)?
    };
    map.scale(-1.0, &mut a)?;
    Ok((a, products))
}

/// A point of a geodesic.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Point {
    /// The path's parameter.
    pub time: f64,
    /// ‖γ̇‖_g.
    pub speed: f64,
    /// ‖γ̇‖ in weights.
    pub weight_speed: f64,
}

/// A geodesic under way.
pub struct Geodesic<V> {
    pub w: V,
    pub v: V,
    pub at: Point,
    /// The step that the control would take next.
    pub step: f64,
    /// Steps taken, refused, and taken though the control would refuse them; accelerations, products with K.
    pub taken: usize,
    pub refused: usize,
    pub forced: usize,
    pub accelerations: usize,
    pub products: usize,
    mu: f64,
    a: V,
    /// (1/√N) J γ̇, where it stays.
    held: Option<Vec<f64>>,
}

/// What is left of what J γ̇ has lost in a step, over it.
const HELD: f64 = 1e-2;

/// What the control of the step holds the integrator to.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// The largest relative change of ‖γ̇‖_g in a step, before it is put back.
    pub speed: f64,
    /// The largest difference between the integrator's orders two and three, relative to ‖v‖, a step.
    pub error: f64,
    /// A step of this time, of a path that takes 1, is taken whatever it changes.
    pub least: f64,
}

impl Default for Control {
    fn default() -> Self {
        Self { speed: 2e-3, error: 1e-2, least: 2e-3 }
    }
}

impl<V> Geodesic<V> {
    /// From `w` in direction `v`; takes both. `mu` is the damping of all accelerations.
    ///
    /// # Errors
    /// [`Error::Usage`] for a direction that does not move the outputs; what the map says.
    pub fn new<M: Map<Vector = V>>(
        map: &mut M,
        kind: OutputMetric,
        (w, v): (V, V),
        mu: f64,
        accuracy: Accuracy,
        step: f64,
    ) -> Result<Self> {
        let (speed, weight_speed) = speeds(map, &w, kind, &v)?;
        if speed.is_nan() || speed <= 0.0 {
            let hint = "take another --direction: along a null direction every path is as good as the straight one";
            return Err(Error::usage("--direction", "it does not change the outputs", hint));
        }
        let (a, products) = acceleration(map, &w, kind, &v, mu, accuracy)?;
        let at = Point { time: 0.0, speed, weight_speed };
        let stays = kind == OutputMetric::Euclidean && map.samples() * map.width() < map.dim();
        let held = if stays { Some(Gram::new(map, &w, kind)?.push(&v)?) } else { None };
        Ok(Self { w, v, at, step, taken: 0, refused: 0, forced: 0, accelerations: 1, products, mu, a, held })
    }

    /// One accepted step, to `end` at most, by the pair of orders three and two of Bogacki and Shampine 1989 on (γ, γ̇). A step
    /// whose error or change of speed is too large is cut, to [`Control::least`] if need be, and taken again.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; what the map says.
    pub fn advance<M: Map<Vector = V>>(
        &mut self,
        map: &mut M,
        kind: OutputMetric,
        accuracy: Accuracy,
        control: &Control,
        end: f64,
    ) -> Result<()> {
        loop {
            // The last step to `end` lands on it.
            let rest = end - self.at.time;
            let h = if self.step >= rest * 0.999 { rest } else { self.step };
            let (mut w, mut v) = (map.zeros()?, map.zeros()?);
            // Stage two, at half of the step; both derivatives of a stage are (its velocity, its acceleration).
            combine(map, &self.w, &[(0.5 * h, &self.v)], &mut w)?;
            combine(map, &self.v, &[(0.5 * h, &self.a)], &mut v)?;
            let v2 = map.copied(&v)?;
            let a2 = self.accelerate(map, kind, &w, &v2, accuracy)?;
            combine(map, &self.w, &[(0.75 * h, &v2)], &mut w)?;
            combine(map, &self.v, &[(0.75 * h, &a2)], &mut v)?;
            let v3 = map.copied(&v)?;
            let a3 = self.accelerate(map, kind, &w, &v3, accuracy)?;
            let of = [2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0].map(|b| b * h);
            combine(map, &self.w, &[(of[0], &self.v), (of[1], &v2), (of[2], &v3)], &mut w)?;
            combine(map, &self.v, &[(of[0], &self.a), (of[1], &a2), (of[2], &a3)], &mut v)?;
            let a4 = self.accelerate(map, kind, &w, &v, accuracy)?;
            // The difference of the two orders, in γ̇.
            let of = [-5.0 / 72.0, 1.0 / 12.0, 1.0 / 9.0, -1.0 / 8.0].map(|b| b * h);
            let mut error = map.zeros()?;
            for (b, a) in of.into_iter().zip([&self.a, &a2, &a3, &a4]) {
                map.axpy(b, a, &mut error)?;
            }
            let error_size = map.norm(&error)? / map.norm(&self.v)?;
            let (speed, weight_speed) = speeds(map, &w, kind, &v)?;
            let change = (speed / self.at.speed - 1.0).abs();
            let worst = (error_size / control.error).max(change / control.speed);
            tracing::debug!(h, error_size, change, speed, "a step of the geodesic");
            if !worst.is_finite() {
                let what = format!("the speed of the outputs at {:.3} of the path", self.at.time);
                return Err(Error::not_finite("geodesic", what, "give more --damping, or a shorter path"));
            }
            // Where a network has kinks no step is small enough for the control; the smallest ones are taken as they are.
            let smallest = h <= control.least;
            let good = worst <= 1.0 || smallest;
            self.forced += usize::from(smallest && worst > 1.0);
            [v2, a2, v3, a3, error].into_iter().for_each(|x| map.recycle(x));
            let keep = if good {
                (w, v, a4)
            } else {
                [w, v, a4].into_iter().for_each(|x| map.recycle(x));
                self.refused += 1;
                self.step = h * (0.9 / worst.cbrt()).clamp(0.2, 0.7);
                continue;
            };
            let old = (
                std::mem::replace(&mut self.w, keep.0),
                std::mem::replace(&mut self.v, keep.1),
                std::mem::replace(&mut self.a, keep.2),
            );
            [old.0, old.1, old.2].into_iter().for_each(|x| map.recycle(x));
            let (speed, weight_speed) = if self.hold(map, kind, accuracy)? {
                speeds(map, &self.w, kind, &self.v)?
            } else {
                (speed, weight_speed)
            };
            let time = if h == rest { end } else { self.at.time + h };
            self.at = Point { time, speed, weight_speed };
            self.taken += 1;
            // A step that was cut short to land says nothing of what the next could be.
            let next = h * (0.9 / worst.max(1e-3).cbrt()).clamp(0.5, 3.0);
            self.step = if h == rest { next.max(self.step) } else { next };
            return Ok(());
        }
    }

    /// Put back into γ̇ what J γ̇ has lost; whether it stays at all.
    fn hold<M: Map<Vector = V>>(&mut self, map: &mut M, kind: OutputMetric, accuracy: Accuracy) -> Result<bool> {
        let Some(held) = &self.held else { return Ok(false) };
        let accuracy = Accuracy { tolerance: accuracy.tolerance.max(HELD), ..accuracy };
        let mut back = map.zeros()?;
        let mut gram = Gram::new(map, &self.w, kind)?;
        let lost = gram.push(&self.v)?.iter().zip(held).map(|(now, held)| held - now).collect();
        self.products += pulled_back(&mut gram, lost, self.mu, accuracy, &mut back)?;
        map.axpy(1.0, &back, &mut self.v)?;
        map.recycle(back);
        Ok(true)
    }

    fn accelerate<M: Map<Vector = V>>(
        &mut self,
        map: &mut M,
        kind: OutputMetric,
        w: &V,
        v: &V,
        accuracy: Accuracy,
    ) -> Result<V> {
        let (a, products) = acceleration(map, w, kind, v, self.mu, accuracy)?;
        self.accelerations += 1;
        self.products += products;
        Ok(a)
    }
}

/// (‖v‖_g, ‖v‖) at w.
///
/// # Errors
/// What the map says.
pub fn speeds<M: Map>(map: &mut M, w: &M::Vector, kind: OutputMetric, v: &M::Vector) -> Result<(f64, f64)> {
    let squared = Pullback::new(map, w, kind)?.squared(v)?;
    Ok((squared.max(0.0).sqrt(), map.norm(v)?))
}

/// to = x + Σ a y.
fn combine<M: Map>(map: &mut M, x: &M::Vector, terms: &[(f64, &M::Vector)], to: &mut M::Vector) -> Result<()> {
    map.copy(x, to)?;
    terms.iter().try_for_each(|(a, y)| map.axpy(*a, y, to))
}
