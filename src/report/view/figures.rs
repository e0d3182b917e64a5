//! The pictures of the report.
use super::*;
use crate::report::plots::{Bar, Bars, Line, LinePlot, Overlay, Series, Strip, Strips, decimate, running_mean};

/// Points a line has at most; extremes are kept.
const POINTS: usize = 500;
const FIGURE: (u32, u32) = (560, 280);
const SMALL: (u32, u32) = (300, 170);
/// Histograms shown at most, and bars: the largest layers first.
const HISTOGRAMS: usize = 150;
const BARS: usize = 40;

impl Run<'_> {
    /// One value a step, where the method has it, and its running mean if there are many.
    fn path(&self, name: &str, color: usize, value: impl Fn(&Step) -> Option<f64>) -> Vec<Series> {
        let points: Vec<_> = self.steps.iter().filter_map(|step| Some((step.step as f64, value(step)?))).collect();
        match points.len() {
            0 => vec![],
            1..=100 => vec![Series { color: Some(color), ..Series::new(name, points) }],
            n => {
                let mean = decimate(&running_mean(&points, (n / 50).clamp(10, 200)), POINTS);
                let noise =
                    Series { line: Line::Faint, color: Some(color), ..Series::new("", decimate(&points, POINTS)) };
                vec![noise, Series { color: Some(color), ..Series::new(format!("{name}, running mean"), mean) }]
            }
        }
    }

    /// The same for a quantity that is smooth by itself.
    fn smooth(&self, name: &str, color: usize, value: impl Fn(&Step) -> Option<f64>) -> Vec<Series> {
        let points: Vec<_> = self.steps.iter().filter_map(|step| Some((step.step as f64, value(step)?))).collect();
        match points.is_empty() {
            true => vec![],
            false => vec![Series { color: Some(color), ..Series::new(name, decimate(&points, POINTS)) }],
        }
    }
}

pub fn figures(run: &Run) -> Result<Vec<Figure>> {
    let steps = run.steps.iter().map(|step| step.step).chain(run.evals.iter().map(|eval| eval.step));
    let x_range = Some((0.0, steps.max().unwrap_or(0) as f64));
    let mut figures = Vec::new();
    let mut add = |title: &str, note: String, y_label: &str, plot: LinePlot| -> Result<()> {
        if plot.series.iter().any(|series| !series.points.is_empty()) {
            let log_y = plot.log_y && spans_decades(&plot.series);
            let plot = LinePlot { x_label: "step".into(), y_label: y_label.into(), x_range, log_y, ..plot };
            figures.push(Figure { title: title.into(), note, svg: plot.svg(FIGURE)? });
        }
        Ok(())
    };
    let linear = |series| LinePlot { series, ..LinePlot::default() };
    let log = |series| LinePlot { series, log_y: true, ..LinePlot::default() };

    for metric in ["accuracy", "matthews", "pearson", "f1", "perplexity"] {
        let series = metric_path(run, metric);
        // A lone evaluation is a number, not a path.
        if series.iter().any(|series| series.points.len() > 1 && series.line != Line::Dashed) {
            let name = if matches!(metric, "accuracy" | "perplexity") { metric.into() } else { metric_name(metric) };
            let label = name + if is_share(metric) { " (%)" } else { "" };
            let diagnostic = series.iter().any(|series| series.name.starts_with("unprojected"));
            let note = "the projected network is what counts; the unprojected one is a diagnostic";
            let note = if diagnostic { note.into() } else { String::new() };
            let plot = if metric == "perplexity" { log(series) } else { linear(series) };
            add(&format!("{} along the path", metric_name(metric)), note, &label, plot)?;
        }
    }

    let mut losses = run.path("loss", 0, |step| Some(step.loss));
    losses.extend(run.path("output distance", 1, |step| step.distance));
    losses.extend(run.path("cross-entropy", 2, |step| step.cross_entropy));
    let (title, label) = match run.steps.iter().any(|step| step.distance.is_some()) {
        true => ("Loss and output distance", "loss, distance"),
        false => ("Loss", "loss"),
    };
    add(title, "per batch".into(), label, log(losses))?;

    let relative = run.steps.iter().rev().find_map(|step| step.pull_relative);
    let note = relative.map(|share| format!("at the last step ‖w − w_p‖ / ‖w‖ = {}", number(share)));
    let pull = run.smooth("‖w − w_p‖", 0, |step| step.pull);
    add("Distance to the projection", note.unwrap_or_default(), "‖w − w_p‖", log(pull))?;

    let mut sparsity = run.smooth("target", 0, |step| step.sparsity_target.map(|share| share * 100.0));
    let measured = run.evals.iter().filter(|eval| matches!(eval.network, Network::Projected | Network::Final));
    let measured: Vec<_> = measured.map(|eval| (eval.step as f64, eval.sparsity * 100.0)).collect();
    if !sparsity.is_empty() && !measured.is_empty() {
        let dots = Series::new("measured", decimate(&measured, POINTS));
        sparsity.push(Series { markers: true, line: Line::None, color: Some(1), ..dots });
    }
    let plot = LinePlot { y_range: Some((0.0, 100.0)), ..linear(sparsity) };
    add("Sparsity", "over the prunable weights".into(), "sparsity (%)", plot)?;

    let solved = |of: fn(&crate::report::Solve) -> f64| {
        move |step: &Step| step.solve.as_ref().filter(|s| s.products > 0).map(of)
    };
    let mut residual = run.path("residual", 0, solved(|s| s.residual));
    residual.extend(run.path("second-order drift", 1, solved(|s| s.drift)));
    add("Steps in the metric", "each by itself".into(), "residual, drift", log(residual))?;

    // Steps in the metric have none.
    let rate = run.smooth("learning rate", 0, |step| step.solve.is_none().then_some(step.learning_rate));
    add("Learning rate", String::new(), "learning rate", linear(rate))?;
    let norm = run.path("‖gradient‖", 0, |step| Some(step.gradient_norm));
    add("Gradient norm", "before clipping".into(), "‖gradient‖", log(norm))?;
    Ok(figures)
}

/// Whether a linear axis would hide the small values: all positive, and the largest 30 times the smallest.
fn spans_decades(series: &[Series]) -> bool {
    let values = || series.iter().flat_map(|series| series.points.iter().map(|point| point.1));
    let (low, high) = values().fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
    low > 0.0 && high / low > 30.0
}

/// A metric of every network along the path, one line a network and split; the dense network's is level and dashed.
fn metric_path(run: &Run, metric: &str) -> Vec<Series> {
    let scale = if is_share(metric) { 100.0 } else { 1.0 };
    let mut splits: Vec<&str> = run.evals.iter().map(|eval| eval.split.as_str()).collect();
    splits.sort_unstable();
    splits.dedup();
    let mut series = Vec::new();
    let last_step = run.evals.iter().map(|eval| eval.step).chain(run.steps.iter().map(|step| step.step)).max();
    for split in &splits {
        let suffix = if splits.len() > 1 { format!(", {split}") } else { String::new() };
        let of = |network: Network| -> Vec<(f64, f64)> {
            let evals = run.evals.iter().filter(|eval| eval.network == network && eval.split == *split);
            evals.filter_map(|eval| Some((eval.step as f64, eval.metrics.get(metric)? * scale))).collect()
        };
        if let (Some(&(_, dense)), Some(last)) = (of(Network::Dense).last(), last_step.filter(|&last| last > 0)) {
            let level = vec![(0.0, dense), (last as f64, dense)];
            series.push(Series { line: Line::Dashed, color: Some(6), ..Series::new(format!("dense{suffix}"), level) });
        }
        let lines = [
            (Network::Projected, "projected", 0),
            (Network::Unprojected, "unprojected", 3),
            (Network::Final, "final", 1),
        ];
        for (network, name, color) in lines {
            let points = of(network);
            if !points.is_empty() {
                let markers = network == Network::Final || points.len() <= 30;
                let line = if network == Network::Final { Line::None } else { Line::Solid };
                let color = Some(if suffix.is_empty() { color } else { series.len() });
                let points = decimate(&points, POINTS);
                series.push(Series { markers, line, color, ..Series::new(format!("{name}{suffix}"), points) });
            }
        }
    }
    series
}

/// Where the weights that are left sit: one bar a prunable layer, over its size.
pub fn kept(run: &Run) -> Result<Option<Figure>> {
    let mut layers: Vec<&&Layer> = run.layers.iter().filter(|layer| layer.prunable).collect();
    if layers.len() < 2 || layers.iter().all(|layer| layer.zeros == 0) {
        return Ok(None);
    }
    let left_out = layers.len().saturating_sub(BARS);
    if left_out > 0 {
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.parameters));
        layers.truncate(BARS);
    }
    let bar = |layer: &&&Layer| {
        let left = layer.parameters.saturating_sub(layer.zeros);
        let text = format!("{} of {}", count(left), count(layer.parameters));
        Bar { name: layer.name.clone(), value: left as f64, of: Some(layer.parameters as f64), text }
    };
    let bars = Bars { label: "weights left (count)".into(), full: None, bars: layers.iter().map(bar).collect() };
    let note = match left_out {
        0 => "weights that are not zero, over each prunable layer's size".into(),
        n => format!("the {BARS} largest prunable layers; {n} more {} in the table", are(n)),
    };
    Ok(Some(Figure { title: "Where the weights are left".into(), note, svg: bars.svg(1000)? }))
}

fn are(n: usize) -> &'static str {
    if n == 1 { "is" } else { "are" }
}

/// How pruning spread over the filters of each convolution: whether it thinned them all or emptied some.
pub fn filters(run: &Run) -> Result<Option<Figure>> {
    let mut layers: Vec<&&Layer> = run.layers.iter().filter(|layer| !layer.filters.is_empty()).collect();
    if layers.iter().all(|layer| layer.zeros == 0) {
        return Ok(None);
    }
    let left_out = layers.len().saturating_sub(BARS);
    if left_out > 0 {
        // The largest (of equals the first), in the network's order.
        let mut order: Vec<usize> = (0..layers.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(layers[at].parameters));
        order.truncate(BARS);
        order.sort_unstable();
        layers = order.into_iter().map(|at| layers[at]).collect();
    }
    let strip = |layer: &&&Layer| {
        let n = layer.filters.len();
        let each = layer.parameters as f64 / n as f64;
        let empty = layer.filters.iter().filter(|&&left| left == 0).count();
        let text = if empty == 0 { format!("{n} filters") } else { format!("{empty} of {n} filters are empty") };
        Strip { name: layer.name.clone(), shares: layer.filters.iter().map(|&f| f as f64 / each).collect(), text }
    };
    let label = "share of a filter's weights left, fullest filter first".into();
    let strips = Strips { label, strips: layers.iter().map(strip).collect() };
    let note = match left_out {
        0 => {
            "one strip a convolution that was pruned, one column an output channel, as high as what it has left".into()
        }
        n => format!("the {BARS} largest convolutions that were pruned; {n} more {} not drawn", are(n)),
    };
    Ok(Some(Figure { title: "Filters".into(), note, svg: strips.svg(1000)? }))
}

pub fn histograms(run: &Run) -> Result<Vec<Figure>> {
    let mut layers: Vec<&&Layer> = run.layers.iter().filter(|layer| layer.histogram.is_some()).collect();
    if layers.len() > HISTOGRAMS {
        layers.sort_by_key(|layer| std::cmp::Reverse((layer.prunable, layer.parameters)));
        layers.truncate(HISTOGRAMS);
    }
    let mut figures = Vec::new();
    for layer in layers {
        let Some(histogram) = &layer.histogram else { continue };
        let zeros_before = layer.parameters.saturating_sub(histogram.before.iter().sum());
        let caption = format!(
            "zeros, not drawn: {} → {} of {} ({})",
            count(zeros_before),
            count(layer.zeros),
            count(layer.parameters),
            percent(ratio(layer.zeros, layer.parameters))
        );
        let svg = Overlay { histogram, caption: &caption }.svg(SMALL)?;
        figures.push(Figure { title: layer.name.clone(), note: String::new(), svg });
    }
    Ok(figures)
}
