//! Lines over a common x axis, with markers, bands and error bars.
use super::*;

/// How the points of a series are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Line {
    #[default]
    Solid,
    Dashed,
    /// Thin and pale: the noisy values behind a smooth line of the same colour.
    Faint,
    /// Not at all: markers alone.
    None,
}

/// One line of a plot.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// In the legend; a series without a name is not listed.
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Half-widths, one a point: a shaded band, or error bars where there are markers. Empty for none.
    pub spread: Vec<f64>,
    pub markers: bool,
    pub line: Line,
    /// Index into [`PALETTE`]; by default the series' place in the plot.
    pub color: Option<usize>,
}

impl Series {
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, ..Self::default() }
    }
}

/// Several series on common axes. Points that are not finite (or not positive, under `log_y`) are left out.
#[derive(Clone, Debug, Default)]
pub struct LinePlot {
    /// With units: "time (s)", "accuracy (%)".
    pub x_label: String,
    pub y_label: String,
    pub log_y: bool,
    /// The axes from and to; by default around what is shown.
    pub x_range: Option<(f64, f64)>,
    pub y_range: Option<(f64, f64)>,
    pub series: Vec<Series>,
}

impl LinePlot {
    /// The plot as SVG of `size` = (width, height) pixels.
    ///
    /// # Errors
    /// None in practice: only if the drawing backend refuses.
    pub fn svg(&self, size: (u32, u32)) -> Result<String> {
        let names: Vec<&str> =
            self.series.iter().map(|series| series.name.as_str()).filter(|n| !n.is_empty()).collect();
        let label = format!("{} over {}: {}", self.y_label, self.x_label, names.join(", "));
        canvas(size, &label, |area| self.draw(area))
    }

    fn draw(&self, area: &Area) -> Drawn {
        let color = |index: usize| PALETTE[self.series[index].color.unwrap_or(index) % PALETTE.len()];
        let shown: Vec<Vec<(f64, f64, f64)>> = self.series.iter().map(|series| self.shown(series)).collect();
        let key = |index: usize| {
            let Series { name, markers, line, .. } = &self.series[index];
            Key { name, style: stroke(color(index), 2.0), line: *line, marker: *markers }
        };
        let named: Vec<usize> = (0..self.series.len()).filter(|&index| !self.series[index].name.is_empty()).collect();
        // A lone line that the axis names already needs no legend.
        let alone = matches!(named[..], [index] if self.series[index].name == self.y_label);
        let keys: Vec<Key> = named.into_iter().filter(|_| !alone).map(key).collect();
        let top = legend(area, 8.0, &keys)?;

        let all = || shown.iter().flatten();
        let x = match self.x_range {
            Some((low, high)) => Axis::exactly(low, high),
            None => Axis::around(all().map(|point| point.0), false, 0.0),
        };
        let y = match self.y_range {
            Some((low, high)) => Axis::exactly(low, high),
            None => Axis::around(all().flat_map(|&(_, y, spread)| [y - spread, y + spread]), self.log_y, 0.05),
        };
        let mut chart = axes(area, top, (x, y), (&self.x_label, &self.y_label))?;
        if all().next().is_none() {
            let (width, height) = area.dim_in_pixel();
            let middle = (width as i32 / 2, height as i32 / 2);
            return drawn(area.draw_text("no data yet", &text(FONT, (HPos::Center, VPos::Center)), middle));
        }
        for (index, points) in shown.iter().enumerate() {
            let (series, color) = (&self.series[index], color(index));
            let line: Vec<(f64, f64)> = points.iter().map(|&(x, y, _)| (x, y)).collect();
            let least = chart.plotting_area().get_y_range().start;
            let low =
                |&(x, y, spread): &(f64, f64, f64)| (x, if self.log_y { (y - spread).max(least) } else { y - spread });
            let high = |&(x, y, spread): &(f64, f64, f64)| (x, y + spread);
            if !series.spread.is_empty() && !series.markers {
                let outline: Vec<_> = points.iter().map(low).chain(points.iter().rev().map(high)).collect();
                drawn(chart.draw_series([Polygon::new(outline, color.mix(0.2))]).map(drop))?;
            }
            if !series.spread.is_empty() && series.markers {
                let bar = |point| PathElement::new(vec![low(point), high(point)], stroke(color, 1.5));
                drawn(chart.draw_series(points.iter().map(bar)).map(drop))?;
            }
            match series.line {
                Line::None => {}
                Line::Dashed => {
                    let dashes = DashedLineSeries::new(line.clone(), fine(6.0), fine(4.0), stroke(color, 2.0));
                    drawn(chart.draw_series(dashes).map(drop))?;
                }
                solid => {
                    let pale = ShapeStyle { color: color.mix(0.3), ..stroke(color, 1.0) };
                    let style = if solid == Line::Faint { pale } else { stroke(color, 2.0) };
                    drawn(chart.draw_series(LineSeries::new(line.clone(), style)).map(drop))?;
                }
            }
            // A lone point has no line to be seen by.
            if series.markers || line.len() == 1 {
                let dot = |&at: &(f64, f64)| Circle::new(at, fine(3.0), color.filled());
                drawn(chart.draw_series(line.iter().map(dot)).map(drop))?;
            }
        }
        Ok(())
    }

    /// (x, y, half-width) of the points that can be shown.
    fn shown(&self, series: &Series) -> Vec<(f64, f64, f64)> {
        let axis = Axis::around([].into_iter(), self.log_y, 0.0);
        let spread = |index: usize| series.spread.get(index).copied().filter(|s| s.is_finite()).unwrap_or(0.0).abs();
        let points = series.points.iter().enumerate().map(|(index, &(x, y))| (x, y, spread(index)));
        points.filter(|&(x, y, _)| x.is_finite() && x.abs() < 1e100 && axis.shows(y)).collect()
    }
}

/// At most `most` points that draw the same picture: first, last, and the extremes of equal stretches, in order.
pub fn decimate(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    if points.len() <= most || most < 4 {
        return points.to_vec();
    }
    let inner = &points[1..points.len() - 1];
    let stretches = (most - 2) / 2;
    let mut kept = vec![points[0]];
    for stretch in 0..stretches {
        let (from, to) = (stretch * inner.len() / stretches, (stretch + 1) * inner.len() / stretches);
        let by_y = |&a: &usize, &b: &usize| inner[a].1.total_cmp(&inner[b].1);
        let (Some(low), Some(high)) = ((from..to).min_by(by_y), (from..to).max_by(by_y)) else { continue };
        kept.push(inner[low.min(high)]);
        if low != high {
            kept.push(inner[low.max(high)]);
        }
    }
    kept.push(points[points.len() - 1]);
    kept
}

/// Means over windows of `width` points that end at each point (shorter at the start).
pub fn running_mean(points: &[(f64, f64)], width: usize) -> Vec<(f64, f64)> {
    let width = width.max(1);
    let mean = |end: usize| {
        let window = &points[(end + 1).saturating_sub(width)..=end];
        (points[end].0, window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64)
    };
    (0..points.len()).map(mean).collect()
}
