//! Principal components of the networks of several paths, and paths at equal distances.
use super::{Stored, distance};
use crate::geometry::tridiagonal::symmetric;
use crate::{Error, Result};

/// Coordinates of every network along the first components.
#[derive(Clone, Debug, PartialEq)]
pub struct Components {
    /// A path each, a network each, a number a component.
    pub coordinates: Vec<Vec<Vec<f64>>>,
    /// Of the variance, what each component has.
    pub shares: Vec<f64>,
}

/// Principal components of all networks about their mean, from the matrix of their inner products: there are far fewer
/// networks than weights. All of them are held in memory.
///
/// # Errors
/// [`Error::Usage`] for paths of different networks, or fewer than two networks; as [`Stored::walk`].
pub fn components(paths: &[Stored], count: usize) -> Result<Components> {
    let first = paths.first().ok_or_else(|| Error::usage("PATH", "no path", "name at least one"))?;
    if let Some(other) = paths.iter().find(|p| p.parameters() != first.parameters()) {
        let what = format!("{} has other parameters than {}", other.dir().display(), first.dir().display());
        return Err(Error::usage("PATH", what, "compare paths of one architecture"));
    }
    let mut networks: Vec<Vec<f32>> = Vec::new();
    for path in paths {
        path.walk(|_, w| {
            networks.push(w.to_vec());
            Ok(true)
        })?;
    }
    let n = networks.len();
    if n < 2 {
        return Err(Error::usage("PATH", "one network has no spread", "name paths with two networks or more"));
    }
    // Squared distances, centred twice: what the inner products about the mean are, with no mean to subtract and to cancel.
    let mut squares = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..i {
            let d = distance(&networks[i], &networks[j]).powi(2);
            (squares[i * n + j], squares[j * n + i]) = (d, d);
        }
    }
    let row: Vec<f64> = squares.chunks(n).map(|r| r.iter().sum::<f64>() / n as f64).collect();
    let all = row.iter().sum::<f64>() / n as f64;
    let found = symmetric(n, |i, j| -0.5 * (squares[i * n + j] - row[i] - row[j] + all))?;
    let total: f64 = found.values.iter().map(|v| v.max(0.0)).sum();
    let count = count.min(n - 1);
    let mut coordinates = (0..n).map(|i| {
        (0..count).map(|c| found.values[c].max(0.0).sqrt() * sign(found.vector(c)) * found.vector(c)[i]).collect()
    });
    let of = |p: &Stored| coordinates.by_ref().take(p.points().len()).collect::<Vec<Vec<f64>>>();
    let shares = (0..count).map(|c| found.values[c].max(0.0) / total.max(f64::MIN_POSITIVE)).collect();
    Ok(Components { coordinates: paths.iter().map(of).collect(), shares })
}

/// Either sign of a component is right; this one makes the last network's coordinate positive.
fn sign(v: &[f64]) -> f64 {
    if v.last().is_some_and(|&x| x < 0.0) { -1.0 } else { 1.0 }
}

/// `count` networks at equal distances along the path, ends included, linear between its points: [`super::Point::time`] of
/// each, and its numbers, one at a time.
///
/// # Errors
/// [`Error::Usage`] for fewer than two; as [`Stored::walk`].
pub fn resampled(path: &Stored, count: usize, mut visit: impl FnMut(f64, Vec<f32>) -> Result<()>) -> Result<()> {
    if count < 2 || path.points().len() < 2 {
        return Err(Error::usage("--resample", "a path has two ends", "ask for two networks or more"));
    }
    let length = path.length();
    let (mut done, mut along, mut before): (usize, f64, Vec<f32>) = (0, 0.0, Vec::new());
    path.walk(|i, w| {
        let step = path.points()[i].weight_distance;
        let times = (path.points()[i.saturating_sub(1)].time, path.points()[i].time);
        let last = i + 1 == path.points().len();
        while done < count {
            let wanted = length * done as f64 / (count - 1) as f64;
            // The last one is the path's end, whatever sums of lengths came to.
            if wanted > along + step && !(last && done + 1 == count) {
                break;
            }
            let share = if step > 0.0 { ((wanted - along) / step).clamp(0.0, 1.0) } else { 1.0 };
            let share = if last && done + 1 == count { 1.0 } else { share };
            let mix = |(i, &w): (usize, &f32)| match before.get(i) {
                Some(&b) if share < 1.0 => (f64::from(b) + share * (f64::from(w) - f64::from(b))) as f32,
                _ => w,
            };
            visit(times.0 + share * (times.1 - times.0), w.iter().enumerate().map(mix).collect())?;
            done += 1;
        }
        along += step;
        before = w.to_vec();
        Ok(done < count)
    })
}
