//! A geodesic from a network beside the straight line and the null path of the same start: speed and drift along each.
use super::metrics::argmax;
use super::path::{Origin, Point as Stop, Stored, packed};
use crate::engine::Vector;
use crate::geometry::geodesic::{Control, Geodesic, speeds};
use crate::geometry::lanczos::{Search, largest};
use crate::geometry::step::null;
use crate::geometry::{Accuracy, Gram, Map, OnEngine, OutputMetric, Samples, Space};
use crate::ops::Distance;
use crate::ops::distance::row;
use crate::{Error, Result};
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub kind: OutputMetric,
    /// Of the initial velocity, and so of the straight line: ‖v‖ over ‖w‖.
    pub length: f64,
    /// Networks stored after the start, at equal times.
    pub points: usize,
    /// μ over the largest eigenvalue at the start.
    pub damping: f64,
    pub accuracy: Accuracy,
    pub control: Control,
    pub seed: u64,
    /// Whether classes are compared, by the Kullback-Leibler divergence and the first class.
    pub classes: bool,
}

/// A network on a path, as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Look {
    pub time: f64,
    /// ‖γ̇‖_g; none on the null path, which is made of steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// ‖w − w(0)‖.
    pub from_start: f64,
    /// √ of the mean of ‖z − z(0)‖².
    pub drift: f64,
    /// Mean Kullback-Leibler divergence from the start's classes, and the share of examples whose first class changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flips: Option<f64>,
}

/// One of the three paths.
#[derive(Clone, Debug, Serialize)]
pub struct Walk {
    pub name: &'static str,
    pub looks: Vec<Look>,
    /// Σ of the distances in weights between its networks.
    pub length: f64,
    /// The largest |speed / speed(0) − 1|.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_change: Option<f64>,
}

/// What it came to.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    pub largest_eigenvalue: f64,
    pub damping: f64,
    pub steps: usize,
    pub refused: usize,
    pub forced: usize,
    pub accelerations: usize,
    pub products: usize,
    pub walks: Vec<Walk>,
}

/// Outputs and weights where all paths begin.
struct Start {
    w: Vector,
    outputs: Vec<f64>,
    width: usize,
    classes: bool,
}

impl Start {
    fn look<S: Samples>(&self, map: &mut OnEngine<S>, w: &Vector, time: f64, speed: Option<f64>) -> Result<Look> {
        let z = map.value(w)?;
        let rows = || z.chunks(self.width).zip(self.outputs.chunks(self.width));
        let n = rows().count() as f64;
        let squares: f64 = z.iter().zip(&self.outputs).map(|(a, b)| (a - b).powi(2)).sum();
        let single = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let kl = || rows().map(|(z, t)| row(Distance::Kl, &single(z), &single(t))).sum::<f64>() / n;
        let flips = || rows().filter(|(z, t)| argmax(&single(z)) != argmax(&single(t))).count() as f64 / n;
        let mut away = map.copied(w)?;
        map.axpy(-1.0, &self.w, &mut away)?;
        let from_start = map.norm(&away)?;
        map.recycle(away);
        let look = Look {
            time,
            speed,
            from_start,
            drift: (squares / n).sqrt(),
            kl: self.classes.then(kl),
            flips: self.classes.then(flips),
        };
        if look.drift.is_finite() && speed.is_none_or(f64::is_finite) {
            return Ok(look);
        }
        Err(Error::not_finite("path", "an output", "take a shorter --length"))
    }
}

/// The geodesic, the line and the null path from `w` along `direction`, each stored under `dir` by its name.
///
/// # Errors
/// [`Error::Interrupted`] once `stop` is set, with what was stored so far; what map and disk say.
pub fn walk<S: Samples>(
    map: &mut OnEngine<S>,
    w: Vector,
    mut direction: Vector,
    plan: &Plan,
    (dir, origin): (&Path, &Origin),
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&str, &Look),
) -> Result<Found> {
    let start = Start { w, outputs: map.value(&w)?, width: map.width(), classes: plan.classes };
    let (size, norm) = (map.norm(&w)?, map.norm(&direction)?);
    if !(norm > 0.0 && norm.is_finite()) {
        return Err(Error::usage("--direction", "it has no length", "give one that is not zero"));
    }
    map.scale(plan.length * size / norm, &mut direction)?;
    let search = Search { pairs: 1, tolerance: 1e-3, products: 40, seed: plan.seed, precision: map.precision() };
    let top = largest(&mut Gram::new(map, &w, plan.kind)?, &search, |_| ())?.values.first().copied().unwrap_or(0.0);
    let mu = plan.damping * top;
    let mut keep = Keeper { dir, origin, stop, tell, start: &start };

    let mut found = Found {
        largest_eigenvalue: top,
        damping: mu,
        steps: 0,
        refused: 0,
        forced: 0,
        accelerations: 0,
        products: 0,
        walks: Vec::new(),
    };
    let begin = (map.copied(&w)?, map.copied(&direction)?);
    let first = 1.0 / plan.points.max(10) as f64;
    let mut geodesic = Geodesic::new(map, plan.kind, begin, mu, plan.accuracy, first)?;
    let speed = geodesic.at.speed;
    let mut trail = keep.begin(map, "geodesic", Some(speed))?;
    for i in 1..=plan.points {
        let end = i as f64 / plan.points as f64;
        while geodesic.at.time < end {
            keep.stopped()?;
            geodesic.advance(map, plan.kind, plan.accuracy, &plan.control, end)?;
        }
        let at = geodesic.at;
        keep.add(map, &mut trail, &geodesic.w, at.time, Some(at.speed), json!({ "weight_speed": at.weight_speed }))?;
    }
    (found.steps, found.refused, found.forced) = (geodesic.taken, geodesic.refused, geodesic.forced);
    (found.accelerations, found.products) = (geodesic.accelerations, geodesic.products);
    found.walks.push(trail.end());

    let mut at = map.copied(&w)?;
    let mut trail = keep.begin(map, "line", Some(speed))?;
    for i in 1..=plan.points {
        keep.stopped()?;
        let time = i as f64 / plan.points as f64;
        map.copy(&w, &mut at)?;
        map.axpy(time, &direction, &mut at)?;
        let speed = speeds(map, &at, plan.kind, &direction)?.0;
        keep.add(map, &mut trail, &at, time, Some(speed), json!({}))?;
    }
    found.walks.push(trail.end());

    // Null steps of the line's length each, every one from the direction of the last, so that the path goes somewhere.
    map.copy(&w, &mut at)?;
    let step = (plan.length * size / plan.points as f64).powi(2);
    // What a residual leaves of a null direction is all that the outputs feel of it: it is solved for better.
    let filter = Accuracy { tolerance: plan.accuracy.tolerance.min(Accuracy::default().tolerance), ..plan.accuracy };
    let mut along = map.copied(&direction)?;
    let mut trail = keep.begin(map, "null", None)?;
    for i in 1..=plan.points {
        keep.stopped()?;
        let taken = null(map, &at, plan.kind, &along, mu, step, filter)?;
        map.axpy(1.0, &taken.psi, &mut at)?;
        map.recycle(std::mem::replace(&mut along, taken.psi));
        found.products += taken.products;
        let facts = json!({ "speed_squared": taken.squared_speed, "residual": taken.residual });
        keep.add(map, &mut trail, &at, i as f64 / plan.points as f64, None, facts)?;
    }
    found.walks.push(trail.end());
    Ok(found)
}

/// A path that is being stored and looked at.
struct Trail {
    name: &'static str,
    stored: Stored,
    looks: Vec<Look>,
}

impl Trail {
    fn end(self) -> Walk {
        let first = self.looks.first().and_then(|l| l.speed);
        let change = |l: &Look| Some((l.speed? / first? - 1.0).abs());
        let speed_change = self.looks.iter().filter_map(change).reduce(f64::max);
        Walk { name: self.name, length: self.stored.length(), looks: self.looks, speed_change }
    }
}

struct Keeper<'a, 't> {
    dir: &'a Path,
    origin: &'a Origin,
    stop: &'a AtomicBool,
    tell: &'t mut dyn FnMut(&str, &Look),
    start: &'a Start,
}

impl Keeper<'_, '_> {
    fn begin<S: Samples>(&mut self, map: &mut OnEngine<S>, name: &'static str, speed: Option<f64>) -> Result<Trail> {
        let layout = map.engine().layout().clone();
        let stored = Stored::create(&self.dir.join(name), self.origin.clone(), &layout)?;
        let mut trail = Trail { name, stored, looks: Vec::new() };
        let w = self.start.w;
        self.add(map, &mut trail, &w, 0.0, speed, json!({}))?;
        Ok(trail)
    }

    fn add<S: Samples>(
        &mut self,
        map: &mut OnEngine<S>,
        trail: &mut Trail,
        w: &Vector,
        time: f64,
        speed: Option<f64>,
        facts: serde_json::Value,
    ) -> Result<()> {
        let look = self.start.look(map, w, time, speed)?;
        let engine = map.engine();
        let mut weights = vec![0.0; engine.layout().len()];
        engine.read(*w, 0, &mut weights)?;
        let mut all = json!({ "drift": look.drift, "from_start": look.from_start });
        if let (Some(all), Some(facts)) = (all.as_object_mut(), facts.as_object()) {
            all.extend(speed.map(|s| ("speed".to_string(), json!(s))));
            all.extend(facts.clone());
        }
        let operation = if trail.looks.is_empty() { "start" } else { trail.name };
        let point = Stop {
            time,
            operation: operation.into(),
            facts: all.as_object().cloned().unwrap_or_default(),
            ..Stop::default()
        };
        trail.stored.add(packed(engine.layout(), &weights), point)?;
        (self.tell)(trail.name, &look);
        trail.looks.push(look);
        Ok(())
    }

    fn stopped(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted(format!("what was reached is in {}", self.dir.display()))),
            false => Ok(()),
        }
    }
}
