//! The numbers of the report: tiles, tables, layers.
use super::*;
use crate::report::record::Solve;
use crate::report::summary::Quantiles;

pub fn tiles(run: &Run) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let mut tile = |label: String, value: String, note: String| tiles.push(Tile { label, value, note });
    let totals = |prunable_only: bool| {
        let counted = run.layers.iter().filter(|layer| layer.prunable || !prunable_only);
        counted.fold((0, 0), |(zeros, all), layer| (zeros + layer.zeros, all + layer.parameters))
    };
    let from_layers = |prunable: bool| Some(totals(prunable)).filter(|&(_, all)| all > 0).map(|(z, all)| ratio(z, all));
    let target = run.start.and_then(|start| start.target_sparsity);

    let outcome = run.outcome();
    if let Some((metric, eval)) = outcome.and_then(|eval| Some((headline(eval)?, eval))) {
        let value = eval.metrics[metric];
        let dense = run.last(Network::Dense, Some(&eval.split)).and_then(|dense| dense.metrics.get(metric).copied());
        let stage = if eval.network == Network::Final { "final" } else { "projected, so far" };
        let shown = metric_value(metric, value);
        match dense {
            Some(dense) => {
                let change = match is_share(metric) {
                    true => format!("{:+.2} points", (value - dense) * 100.0),
                    false => {
                        format!("{}{}", if value < dense { "−" } else { "+" }, number((value - dense).abs()))
                    }
                };
                let note = format!("dense → {stage}, {}: {}", eval.split, change.replace('-', "−"));
                tile(metric_name(metric), format!("{} → {shown}", metric_value(metric, dense)), note);
            }
            None => tile(metric_name(metric), shown, format!("{stage}, {}", eval.split)),
        }
    }
    let prunable = run.end.and_then(|end| end.sparsity_prunable).or_else(|| from_layers(true));
    if let Some(sparsity) = prunable {
        let note = target.map(|target| format!("target {}", percent(target))).unwrap_or_default();
        tile("Sparsity, prunable weights".into(), percent(sparsity), note);
    } else if let Some(sparsity) = run.steps.last().and_then(|step| step.sparsity_target) {
        let note = target.map(|target| format!("on the way to {}", percent(target))).unwrap_or_default();
        tile("Sparsity, prunable weights".into(), percent(sparsity), note);
    }
    if let Some(sparsity) = run.end.and_then(|end| end.sparsity_model).or_else(|| from_layers(false)) {
        let all = run.start.map_or_else(|| totals(false).1, |start| start.parameters);
        let left = ((1.0 - sparsity) * all as f64).round() as u64;
        tile(
            "Sparsity, whole model".into(),
            percent(sparsity),
            format!("{} of {} weights left", count(left), count(all)),
        );
    } else if let Some(start) = run.start.filter(|start| start.parameters > 0) {
        tile("Weights".into(), count(start.parameters), format!("{} prunable", count(start.prunable)));
    }
    let on_path = run.steps.iter().rev().find_map(|step| step.distance);
    match outcome.and_then(|eval| Some((eval.distance?, eval))) {
        Some((distance, eval)) => {
            tile("Output distance".into(), number(distance), format!("to the dense network, mean over {}", eval.split))
        }
        None => {
            if let Some(distance) = on_path {
                tile("Output distance".into(), number(distance), "at the last step, mean over its batch".into());
            }
        }
    }
    if let Some(last) = run.steps.last() {
        let mut times: Vec<f64> = run.steps.iter().map(|step| step.milliseconds).collect();
        times.sort_by(f64::total_cmp);
        let each = duration(times[times.len() / 2] / 1e3);
        let value =
            if last.step < last.steps { format!("{} of {}", last.step, last.steps) } else { grouped(last.step) };
        tile("Steps".into(), value, format!("{each} each (median), {} epochs", number(last.epoch)));
        let total = |of: fn(&Step) -> f64| run.steps.iter().map(|step| of(step)).sum::<f64>();
        let (waited, taken) = (total(|step| step.data_wait), total(|step| step.milliseconds));
        let note = format!("of the steps' time, {} ms each", number(waited / run.steps.len() as f64));
        tile("Data wait".into(), percent(waited / taken.max(f64::MIN_POSITIVE)), note);
    }
    let solves: Vec<&Solve> =
        run.steps.iter().filter_map(|step| step.solve.as_ref()).filter(|s| s.products > 0).collect();
    if let Some(last) = solves.last() {
        let products: u64 = solves.iter().map(|s| s.products).sum();
        let worst = solves.iter().map(|s| s.residual).fold(0.0, f64::max);
        let hard = solves.iter().filter(|s| s.hard).count();
        let note = format!(
            "{} products with the metric each (mean), the largest residual {}, {}",
            number(products as f64 / solves.len() as f64),
            number(worst),
            if hard == 0 { "no hard case".into() } else { format!("{hard} hard cases") }
        );
        tile(format!("Steps in the metric, {}", last.kind), grouped(solves.len() as u64), note);
    }
    if !run.steps.is_empty() || run.seconds > 0.0 {
        tile("Time".into(), duration(run.seconds), run.start.map(device).unwrap_or_default());
    }
    tiles
}

fn cell(text: impl Into<String>, number: bool) -> Cell {
    Cell { text: text.into(), number }
}

pub fn grid(table: &Table) -> Grid {
    let columns = tables::width(table);
    let numeric: Vec<bool> = (0..columns).map(|at| tables::is_numeric(table, at)).collect();
    let line = |cells: &Vec<String>| {
        (0..columns).map(|at| cell(cells.get(at).cloned().unwrap_or_default(), numeric[at])).collect::<Vec<_>>()
    };
    Grid { title: table.title.clone(), columns: line(&table.columns), rows: table.rows.iter().map(line).collect() }
}

/// The last evaluation of each network on each split.
pub fn evals(run: &Run) -> Option<Grid> {
    let mut last: Vec<&Eval> = Vec::new();
    for eval in &run.evals {
        match last.iter_mut().find(|seen| seen.network == eval.network && seen.split == eval.split) {
            Some(seen) => *seen = eval,
            None => last.push(eval),
        }
    }
    last.sort_by(|a, b| (&a.split, a.network).cmp(&(&b.split, b.network)));
    let mut metrics: Vec<&String> = last.iter().flat_map(|eval| eval.metrics.keys()).collect();
    metrics.sort_unstable();
    metrics.dedup();
    let fixed = ["Network", "Split", "Step", "Sparsity"].map(String::from);
    let distance = last.iter().any(|eval| eval.distance.is_some());
    let columns =
        fixed.into_iter().chain(metrics.iter().map(|m| metric_name(m))).chain(distance.then(|| "Distance".into()));
    let row = |eval: &&Eval| {
        let network = capitalised(&format!("{:?}", eval.network).to_lowercase());
        let mut row = vec![network, eval.split.clone(), eval.step.to_string(), percent(eval.sparsity)];
        row.extend(metrics.iter().map(|&m| eval.metrics.get(m).map_or("–".into(), |&value| metric_value(m, value))));
        row.extend(distance.then(|| eval.distance.map_or("–".into(), number)));
        row
    };
    let table = Table { title: String::new(), columns: columns.collect(), rows: last.iter().map(row).collect() };
    (!last.is_empty()).then(|| grid(&table))
}

pub fn drift_view(drift: &Drift) -> DriftView {
    let same = drift.same_top1.map(|share| format!("; same first class on {}", percent(share))).unwrap_or_default();
    let line = format!("{} against {}, {} examples{same}", drift.b, drift.a, grouped(drift.examples));
    let columns = ["Distance", "Mean", "Median", "90 %", "99 %", "Largest"].map(String::from).to_vec();
    let row = |(name, q): (&String, &Quantiles)| {
        [name.clone()].into_iter().chain([q.mean, q.median, q.p90, q.p99, q.max].map(number)).collect()
    };
    let rows = drift.distances.iter().map(row).collect();
    DriftView { line, grid: grid(&Table { title: String::new(), columns, rows }) }
}

pub fn layer_row(layer: &Layer) -> LayerRow {
    let shape: Vec<String> = layer.shape.iter().map(usize::to_string).collect();
    let sparsity = ratio(layer.zeros, layer.parameters);
    LayerRow {
        name: layer.name.clone(),
        shape: if shape.is_empty() { "scalar".into() } else { shape.join(" × ") },
        parameters: grouped(layer.parameters),
        zeros: grouped(layer.zeros),
        sparsity: percent(sparsity),
        width: (sparsity * 1e4).round() / 1e2,
        prunable: layer.prunable,
    }
}
