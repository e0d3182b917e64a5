//! The record of a run, and what is made of it: tables, plots, the HTML page.
use fipk::report::plots::{Bar, Bars, Line, LinePlot, Overlay, Series, Strip, Strips, decimate, running_mean};
use fipk::report::tables::{Screen, markdown, render as render_table};
use fipk::report::*;
use sample::{comparison, layer, metrics, noise, synthetic};
use std::io::Write;
use std::path::{Path, PathBuf};

#[path = "report/sample.rs"]
mod sample;

fn records(events: Vec<Event>) -> Vec<Record> {
    events.into_iter().enumerate().map(|(at, event)| Record { seconds: at as f64 / 64.0, event }).collect()
}

fn written(path: &Path, events: &[Event]) {
    let mut recorder = Recorder::create(path).unwrap();
    for event in events {
        recorder.write(event.clone()).unwrap();
    }
}

/// A new folder, and the record of these events in it.
fn recorded(events: &[Event]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    written(&path, events);
    (folder, path)
}

fn events_of(path: &Path) -> Vec<Event> {
    record::read(path).unwrap().into_iter().map(|record| record.event).collect()
}

/// Exactly representable numbers only, so that equality is fair.
fn one_of_each() -> Vec<Event> {
    let quantiles = Quantiles { mean: 0.5, median: 0.25, p90: 1.5, p99: 2.0, max: 3.0 };
    vec![
        Start { command: "fipk \"x\"\n<&>".into(), seed: u64::MAX, target_sparsity: Some(0.5), ..Start::default() }
            .into(),
        Step { step: 1, steps: 4, loss: 0.5, distance: Some(0.25), ..Step::default() }.into(),
        Step { step: 2, steps: 4, loss: 3.0, cross_entropy: Some(1.0), pull: Some(2.0), ..Step::default() }.into(),
        Eval { step: 2, network: Network::Projected, metrics: metrics(&[("accuracy", 1.0)]), ..Eval::default() }.into(),
        Eval { network: Network::Unprojected, distance: Some(0.125), sparsity: 0.75, ..Eval::default() }.into(),
        Layer { name: "w".into(), shape: vec![2, 3], parameters: 6, zeros: 4, prunable: true, ..Layer::default() }
            .into(),
        Layer { shape: vec![2, 1, 3, 1], filters: vec![2, 0], ..Layer::default() }.into(),
        Layer { histogram: Some(Histogram::of(&[1.0, -1.0], &[0.0, 1.0], 2)), ..Layer::default() }.into(),
        Drift { distances: [("kl".into(), quantiles)].into(), same_top1: Some(0.5), ..Drift::default() }.into(),
        comparison().into(),
        Warning { message: "ünïcode ‖w‖".into() }.into(),
        End { status: "done".into(), sparsity_model: Some(0.5), ..End::default() }.into(),
    ]
}

#[test]
fn every_event_comes_back_as_it_was_written() {
    let (_folder, path) = recorded(&one_of_each());
    let back = record::read(&path).unwrap();
    assert!(back.windows(2).all(|pair| pair[0].seconds <= pair[1].seconds));
    assert_eq!(back.into_iter().map(|record| record.event).collect::<Vec<_>>(), one_of_each());

    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), one_of_each().len());
    let step: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(step["event"], "step");
    assert_eq!(step["distance"], 0.25);
    assert!(step["seconds"].is_f64());
    assert!(step.get("cross_entropy").is_none(), "absent values are left out: {step}");
    let eval: serde_json::Value = serde_json::from_str(text.lines().nth(4).unwrap()).unwrap();
    assert_eq!(eval["network"], "unprojected");
}

#[test]
fn a_torn_last_line_is_passed_over_but_other_damage_is_named() {
    let (_folder, path) = recorded(&one_of_each());
    let whole = std::fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    for cut in [last, last + 1, last + 20, whole.len() - 2] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(events_of(&path), one_of_each()[..one_of_each().len() - 1], "cut at {cut}");
    }
    // Only the newline is missing: the event is there.
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(events_of(&path), one_of_each());

    let text = String::from_utf8(whole).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    for damage in ["{\"seconds\":1.0,\"event\":\"st", "{\"seconds\":1.0,\"event\":\"stroll\"}", "[1,2]", "\u{0}\u{0}"] {
        lines[2] = damage;
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        let error = record::read(&path).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl:3"), "{damage}: {error}");
        assert!(!error.contains('\n'), "one line: {error}");
    }
}

#[test]
fn resuming_cuts_what_came_after_the_checkpoint() {
    let step = |step| Event::from(Step { step, steps: 9, loss: 0.5, ..Step::default() });
    let eval = |step| Event::from(Eval { step, split: "dev".into(), ..Eval::default() });
    let warning = || Event::from(Warning { message: "w".into() });
    let all = [step(1), step(2), eval(2), warning(), step(3), warning(), step(4), End::default().into()];
    let (folder, path) = recorded(&all);
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seconds\":9,\"eve").unwrap();

    let mut resumed = Recorder::resume(&path, 2).unwrap();
    assert_eq!(events_of(&path), all[..4]);
    resumed.write(Step { step: 3, steps: 9, loss: 0.25, ..Step::default() }).unwrap();
    let events = record::read(&path).unwrap();
    assert_eq!(events.len(), 5);
    assert!(events.windows(2).all(|pair| pair[0].seconds <= pair[1].seconds), "the clock goes on");

    // An interrupted run's end goes as well, and a missing last newline is mended.
    Recorder::resume(&path, 3).unwrap().write(End { status: "interrupted".into(), ..End::default() }).unwrap();
    Recorder::resume(&path, 3).unwrap();
    assert_eq!(events_of(&path).len(), 5);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.trim_end()).unwrap();
    Recorder::resume(&path, 3).unwrap().write(warning()).unwrap();
    assert_eq!(events_of(&path).len(), 6);

    Recorder::resume(&path, 0).unwrap();
    assert_eq!(events_of(&path), []);
    assert!(Recorder::resume(&folder.path().join("absent.jsonl"), 0).is_err());
}

#[test]
fn another_runs_events_are_not_appended_to() {
    let (_folder, path) = recorded(&one_of_each());
    let Err(error) = Recorder::create(&path) else { panic!("must refuse") };
    assert_eq!(error.exit_code(), 2, "{error}");
    assert_eq!(events_of(&path), one_of_each(), "and the file is untouched");
}

#[test]
fn numbers_that_are_not_finite_are_refused_by_name() {
    let (_folder, path) = recorded(&[]);
    let mut recorder = Recorder::resume(&path, 0).unwrap();
    let cases: [(Event, &str); 4] = [
        (Step { loss: f64::NAN, ..Step::default() }.into(), "loss"),
        (Step { pull: Some(f64::INFINITY), ..Step::default() }.into(), "pull"),
        (Eval { metrics: metrics(&[("f1", f64::NEG_INFINITY)]), ..Eval::default() }.into(), "metrics.f1"),
        (
            Drift {
                distances: [("kl".into(), Quantiles { p99: f64::NAN, ..Quantiles::default() })].into(),
                ..Drift::default()
            }
            .into(),
            "distances.kl.p99",
        ),
    ];
    for (event, field) in cases {
        let error = recorder.write(event).unwrap_err();
        assert!(matches!(error, fipk::Error::NotFinite { .. }), "{error}");
        assert!(error.to_string().contains(&format!("field {field} of")), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"", "nothing of a refused event is written");
}

#[test]
fn histograms_and_quantiles_agree_with_counting_by_hand() {
    let histogram = Histogram::of(&[-2.0, -1.9, 0.0, 1.0, 2.0], &[0.0, 0.0, f32::NAN, 0.5, 2.0], 4);
    assert_eq!((histogram.low, histogram.high), (-2.0, 2.0));
    assert_eq!(histogram.before, [2, 0, 0, 2]);
    assert_eq!(histogram.after, [0, 0, 1, 1]);
    let zeros = Histogram::of(&[0.0, 0.0], &[], 3);
    assert_eq!((zeros.before, zeros.after), (vec![0; 3], vec![0; 3]));
    let constant = Histogram::of(&[3.0, 3.0], &[], 3);
    assert_eq!((constant.low, constant.high, constant.before), (1.5, 4.5, vec![0, 2, 0]));

    // numpy.quantile([1, 2, 3, 4], [.5, .9, .99]) = [2.5, 3.7, 3.97]
    let q = Quantiles::of("d", &[4.0, 1.0, 3.0, 2.0]).unwrap();
    for (got, want) in [(q.mean, 2.5), (q.median, 2.5), (q.p90, 3.7), (q.p99, 3.97), (q.max, 4.0)] {
        assert!((got - want).abs() <= 1e-12, "{q:?}");
    }
    assert!(Quantiles::of("d", &[]).is_err());
    for bad in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(Quantiles::of("d", &[0.0, bad, 1.0]).is_err(), "{bad}");
    }
}

#[test]
fn numbers_read_well() {
    use numbers::{bytes, count, duration, grouped, number, percent};
    let cases = [
        (percent(0.9), "90.00 %"),
        (percent(0.123456), "12.35 %"),
        (percent(0.99999), "99.99 %"),
        (percent(1e-9), "0.01 %"),
        (percent(1.0), "100.00 %"),
        (percent(f64::NAN), "-"),
        (count(999), "999"),
        (count(1234), "1.23k"),
        (count(266_610), "267k"),
        (count(999_999), "1.00M"),
        (count(109_482_240), "109M"),
        (grouped(1_234_567), "1\u{202f}234\u{202f}567"),
        (bytes(0), "0 B"),
        (bytes(999), "999 B"),
        (bytes(1024), "1.00 KiB"),
        (bytes(1_023_400), "999 KiB"),
        (bytes(80 << 30), "80.0 GiB"),
        (duration(0.0123), "12 ms"),
        (duration(59.99), "1 min 00 s"),
        (duration(245.0), "4 min 05 s"),
        (duration(7380.0), "2 h 03 min"),
        (number(0.0), "0"),
        (number(0.012345), "0.01235"),
        (number(12.5), "12.5"),
        (number(1.5e-7), "1.5e-7"),
        (number(-250.0), "-250"),
    ];
    for (got, want) in cases {
        assert_eq!(got, want);
    }
}

#[test]
fn tables_fit_the_screen() {
    insta::assert_snapshot!(render_table(&comparison(), Screen::default()), @r"
    LeNet-300-100 at 90 %
    Method                          Accuracy  Change (points)  KL to dense
    ----------------------------------------------------------------------
    functionally invariant path      98.07 %            −0.14       0.0123
    gradual magnitude, with labels   97.90 %            −0.31       0.0644
    one-shot magnitude               91.55 %            −6.66        0.871
    ");
    insta::assert_snapshot!(render_table(&comparison(), Screen { width: Some(60), unicode: true }), @r"
    LeNet-300-100 at 90 %
    Method                Accuracy  Change (points)  KL to dense
    ────────────────────────────────────────────────────────────
    functionally           98.07 %            −0.14       0.0123
    invariant path
    gradual magnitude,     97.90 %            −0.31       0.0644
    with labels
    one-shot magnitude     91.55 %            −6.66        0.871
    ");
    for width in [30, 45, 80, 200] {
        let drawn = render_table(&comparison(), Screen { width: Some(width), unicode: true });
        assert!(drawn.lines().all(|line| line.chars().count() <= width.into()), "{width}:\n{drawn}");
    }
    let ragged = Table {
        title: "a|b\u{1b}[31m".into(),
        columns: vec!["x".into()],
        rows: vec![vec![], vec!["1".into(), "a|b\nc".into()]],
    };
    assert!(!render_table(&ragged, Screen::default()).contains('\u{1b}'));
    assert_eq!(markdown(&ragged), "**a|b [31m**\n\n| x |  |\n| ---: | --- |\n|  |  |\n| 1 | a\\|b c |\n");
}

fn parse(svg: &str) -> roxmltree::Document<'_> {
    roxmltree::Document::parse(svg).unwrap_or_else(|why| panic!("{why}: {svg}"))
}

fn texts<'a>(svg: &'a roxmltree::Document) -> Vec<&'a str> {
    let texts = svg.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "text")));
    texts.filter_map(|node| node.text()).map(str::trim).collect()
}

#[test]
fn line_plots_are_xml_for_every_kind_of_series() {
    let nan = f64::NAN;
    let series: [Vec<(f64, f64)>; 9] = [
        vec![],
        vec![(0.0, 0.0)],
        vec![(5.0, 5.0), (5.0, 5.0)],
        vec![(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)],
        vec![(0.0, nan), (nan, 1.0), (f64::INFINITY, 2.0)],
        vec![(0.0, -1.0), (1.0, 1e-300), (2.0, 1e300)],
        vec![(0.0, 1e-9), (1.0, 2e-9)],
        vec![(1e6, 1e9), (2e6, 3e9)],
        (0..400).map(|i| (f64::from(i), f64::from(i).sin())).collect(),
    ];
    for points in &series {
        for log_y in [false, true] {
            for (markers, line, spread) in [
                (false, Line::Solid, 0.0),
                (true, Line::Dashed, 0.5),
                (false, Line::Faint, nan),
                (true, Line::None, 1.0),
            ] {
                let one = Series {
                    name: "<a & \"b\">".into(),
                    spread: vec![spread; points.len()],
                    points: points.clone(),
                    markers,
                    line,
                    ..Series::default()
                };
                let plot = LinePlot {
                    x_label: "step".into(),
                    y_label: "loss <nats>".into(),
                    log_y,
                    series: vec![one, Series::new("two", vec![])],
                    ..LinePlot::default()
                };
                let svg = plot.svg((560, 280)).unwrap();
                let parsed = parse(&svg);
                assert_eq!(parsed.root_element().attribute("viewBox"), Some("0 0 4480 2240"));
                let texts = texts(&parsed);
                for wanted in ["<a & \"b\">", "two", "loss <nats>", "step"] {
                    assert!(texts.contains(&wanted), "{wanted} in {texts:?}");
                }
                assert!(!svg.contains("NaN") && !svg.contains("inf,"), "{svg}");
            }
        }
    }
}

#[test]
fn a_line_goes_where_the_numbers_say() {
    let plot = LinePlot {
        y_range: Some((0.0, 10.0)),
        series: vec![Series::new("s", vec![(0.0, 0.0), (1.0, 5.0), (2.0, 10.0)])],
        ..LinePlot::default()
    };
    let svg = plot.svg((400, 200)).unwrap();
    let parsed = parse(&svg);
    // The legend has a line of the same colour, of two points.
    let lines = parsed.descendants().filter(|node| node.attribute("stroke") == Some("#0072B2"));
    let numbers = |node: roxmltree::Node| -> Vec<f64> {
        let points = node.attribute("points").unwrap_or_default();
        points.split([' ', ',']).filter_map(|number| number.parse().ok()).collect()
    };
    let points = lines.map(numbers).find(|points| points.len() == 6).unwrap();
    let [x0, y0, x1, y1, x2, y2] = points[..] else { panic!("{points:?}") };
    assert!((x1 - (x0 + x2) / 2.0).abs() <= 1.0 && (y1 - (y0 + y2) / 2.0).abs() <= 1.0, "{points:?}");
    assert!(x0 < x2 && y0 > y2, "up and to the right: {points:?}");
}

#[test]
fn thinning_keeps_ends_and_extremes() {
    let mut points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), noise(i as u64))).collect();
    points[4321].1 = 9.0;
    points[77].1 = -9.0;
    let kept = decimate(&points, 500);
    assert!(kept.len() <= 500 && kept.len() > 400, "{}", kept.len());
    assert_eq!((kept[0], kept[kept.len() - 1]), (points[0], points[9999]));
    assert!(kept.contains(&(4321.0, 9.0)) && kept.contains(&(77.0, -9.0)));
    assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, nothing twice");
    assert_eq!(decimate(&points[..300], 500), points[..300]);
    assert_eq!(running_mean(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)], 2), [(0.0, 1.0), (1.0, 2.0), (2.0, 4.0)]);
}

#[test]
fn bars_and_histograms_are_xml() {
    let bar = |name: &str, value, of| Bar { name: name.into(), value, of, text: "5 <of> 9".into() };
    let long = "bert.encoder.layer.11.attention.output.dense.weight".repeat(3);
    for bars in [vec![], vec![bar("a", 0.0, None)], vec![bar("a<b", 5.0, Some(9.0)), bar(&long, f64::NAN, None)]] {
        let svg = Bars { label: "weights".into(), full: None, bars }.svg(600).unwrap();
        assert!(texts(&parse(&svg)).contains(&"weights"));
        assert!(!svg.contains("\"-"), "no negative width: {svg}");
    }
    for (before, after) in
        [(&[][..], &[][..]), (&[0.0], &[0.0]), (&[1.0, 1.0], &[0.0, 1.0]), (&[-1e-9, 1e-9], &[0.0, 1e-9])]
    {
        let histogram = Histogram::of(before, after, 20);
        let svg = Overlay { histogram: &histogram, caption: "zeros: 0 → 1" }.svg((300, 170)).unwrap();
        assert!(texts(&parse(&svg)).contains(&"zeros: 0 → 1"));
    }
}

#[test]
fn strips_fall_from_the_fullest_part_to_the_empty_ones() {
    let strip = |shares: &[f64]| Strip { name: "conv<1>".into(), shares: shares.to_vec(), text: "1 of 4".into() };
    let strips = vec![strip(&[0.5, 0.0, 1.0, 0.25]), strip(&[0.0, 0.0]), strip(&[])];
    let svg = Strips { label: "share left".into(), strips }.svg(600).unwrap();
    let parsed = parse(&svg);
    assert!(texts(&parsed).contains(&"conv<1>") && texts(&parsed).contains(&"1 of 4"));
    let polygons: Vec<roxmltree::Node> =
        parsed.descendants().filter(|node| node.tag_name().name() == "polygon").collect();
    assert_eq!(polygons.len(), 1, "strips without anything left have no profile");
    let numbers = polygons[0].attribute("points").unwrap().split([' ', ',']).filter_map(|n| n.parse::<f64>().ok());
    let numbers: Vec<f64> = numbers.collect();
    let (x, y): (Vec<f64>, Vec<f64>) = numbers.chunks(2).map(|p| (p[0], p[1])).unzip();
    let base = y[0];
    let heights: Vec<f64> = [1, 3, 5].map(|i| (base - y[i]) / (base - y[1])).to_vec();
    for (got, want) in heights.iter().zip([1.0, 0.5, 0.25]) {
        assert!((got - want).abs() <= 0.02, "{heights:?}");
    }
    // The empty quarter of the four parts is left free.
    let track =
        parsed.descendants().find(|node| node.tag_name().name() == "rect" && node.attribute("fill") == Some("#E6E6E6"));
    let width: f64 = track.unwrap().attribute("width").unwrap().parse().unwrap();
    assert!(((x[6] - x[0]) / width - 0.75).abs() <= 0.01, "{x:?} of {width}");
}

/// The page as XML (it is written to be both), so that a stray `<` or `&` cannot hide.
fn page(html: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let page = roxmltree::Document::parse_with_options(html, options).unwrap_or_else(|why| panic!("{why}"));
    for node in page.descendants() {
        assert!(!matches!(node.tag_name().name(), "script" | "link" | "img" | "iframe"), "nothing to load: {node:?}");
    }
    page
}

fn words(html: &str) -> String {
    let page = page(html);
    let texts: Vec<&str> = page.descendants().filter(|node| node.is_text()).filter_map(|node| node.text()).collect();
    texts.join(" ")
}

#[test]
fn the_report_shows_the_numbers_it_was_given() {
    let html = html::render(&records(synthetic(3000)), "seed = 17\n[pull]\nkind = \"prox\"\n", "lenet-90").unwrap();
    let words = words(&html);
    for wanted in [
        "lenet-90",
        "done",
        "90.00 %",
        "89.52 %",
        "98.21 % → 98.07 %",
        "−0.14 points",
        "0.0123",
        "3 examples were longer than 512 tokens and were cut",
        "fc1.weight",
        "300 × 784",
        "91.30 %",
        "zeros, not drawn: 0 → 215k of 235k (91.30 %)",
        "one-shot magnitude",
        "same first class on 99.31 %",
        "0.188",
        "kind = \"prox\"",
        "Accuracy along the path",
        "Distance to the projection",
        "cpu, 2 threads",
    ] {
        assert!(words.contains(wanted), "{wanted} is missing");
    }
    assert!(html.len() < 500_000, "{} bytes", html.len());
    if let Some(path) = std::env::var_os("FIPK_REPORT_SAMPLE") {
        std::fs::write(path, html).unwrap();
    }
}

#[test]
fn names_are_escaped() {
    let evil = "<script>alert('x')</script> & \"quoted\"";
    let events: Vec<Event> = vec![
        Start { command: evil.into(), model: evil.into(), ..Start::default() }.into(),
        Eval { split: evil.into(), metrics: metrics(&[(evil, 0.5), ("accuracy", 0.5)]), ..Eval::default() }.into(),
        Eval {
            step: 1,
            split: evil.into(),
            network: Network::Projected,
            metrics: metrics(&[("accuracy", 0.5)]),
            ..Eval::default()
        }
        .into(),
        Eval {
            step: 2,
            split: evil.into(),
            network: Network::Projected,
            metrics: metrics(&[("accuracy", 0.5)]),
            ..Eval::default()
        }
        .into(),
        Eval {
            step: 2,
            split: "dev".into(),
            network: Network::Projected,
            metrics: metrics(&[("accuracy", 0.5)]),
            ..Eval::default()
        }
        .into(),
        Layer {
            name: evil.into(),
            parameters: 4,
            zeros: 2,
            prunable: true,
            histogram: Some(Histogram::of(&[1.0], &[2.0], 4)),
            shape: vec![4],
            filters: vec![2, 0],
        }
        .into(),
        Layer { name: evil.into(), parameters: 4, zeros: 2, prunable: true, ..Layer::default() }.into(),
        Drift { a: evil.into(), distances: [(evil.into(), Quantiles::default())].into(), ..Drift::default() }.into(),
        Table { title: evil.into(), columns: vec![evil.into()], rows: vec![vec![evil.into()]] }.into(),
        Warning { message: evil.into() }.into(),
        End { status: evil.into(), message: evil.into(), ..End::default() }.into(),
    ];
    let html = html::render(&records(events), evil, evil).unwrap();
    assert!(!html.contains("<script"));
    assert!(words(&html).matches(evil).count() >= 12, "and nothing is lost");
}

#[test]
fn a_page_comes_of_any_part_of_a_run() {
    let all = records(synthetic(200));
    for end in [0, 1, 2, 3, 10, 150, all.len() - 1] {
        let html = html::render(&all[..end], "", "run").unwrap();
        let words = words(&html);
        assert!(words.contains("in progress"), "{end}");
        assert!(!words.contains("Configuration"));
        assert_eq!(words.contains("Along the path"), end >= 3, "{end}");
    }
}

#[test]
fn hundreds_of_layers_and_thousands_of_steps_stay_a_page() {
    let mut events = synthetic(20_000);
    for at in 0..300 {
        events.push(layer(&format!("bert.encoder.layer.{at}.output.dense.weight"), &[64, 64], true, at, 0.5).into());
    }
    let html = html::render(&records(events), "", "large").unwrap();
    let words = words(&html);
    assert!(words.contains("bert.encoder.layer.299.output.dense.weight"));
    assert!(html.len() < 3_000_000, "{} bytes", html.len());
    if let Some(path) = std::env::var_os("FIPK_REPORT_LARGE") {
        std::fs::write(path, html).unwrap();
    }
}

/// Convolutions of one filter: all small ones first, so that the largest are not the first.
#[test]
fn the_convolutions_that_are_drawn_are_the_largest() {
    let convolution = |at: u64, parameters: u64| Layer {
        name: format!("conv{at:02}."),
        shape: vec![1, 1, 1, parameters as usize],
        parameters,
        zeros: parameters / 2,
        prunable: true,
        histogram: None,
        filters: vec![parameters - parameters / 2],
    };
    let figure = |sizes: &[u64]| {
        let events = sizes.iter().enumerate().map(|(at, &n)| convolution(at as u64, n).into()).collect();
        let html = html::render(&records(events), "", "t").unwrap();
        let page = page(&html);
        let section = page.descendants().filter(|n| n.tag_name().name() == "figure").find(|figure| {
            let text: String = figure.descendants().filter_map(|n| n.text()).collect();
            text.contains("filters")
        });
        let section = section.unwrap_or_else(|| panic!("{html}"));
        section.descendants().filter(|n| n.is_text()).filter_map(|n| n.text()).collect::<Vec<_>>().join(" ")
    };
    let few = figure(&[8; 40]);
    assert!(!few.contains("largest") && few.contains("conv00.") && few.contains("conv39."), "{few}");
    // Of two small ones in front of forty large ones both are left out.
    let many = figure(&[&[8, 8][..], &[80; 40]].concat());
    assert!(many.contains("the 40 largest convolutions that were pruned; 2 more are not drawn"), "{many}");
    assert!(!many.contains("conv00.") && !many.contains("conv01.") && many.contains("conv41."), "{many}");
    // Of equals, the first.
    let equal = figure(&[8; 41]);
    assert!(
        equal.contains("1 more is not drawn") && equal.contains("conv39.") && !equal.contains("conv40."),
        "{equal}"
    );
}

#[test]
fn a_run_folder_gets_its_report() {
    let folder = tempfile::tempdir().unwrap();
    assert!(html::write(folder.path()).is_err(), "no metrics, no report");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "and nothing half-written");
    written(&folder.path().join("metrics.jsonl"), &synthetic(20));
    std::fs::write(folder.path().join("config.toml"), "seed = 99017").unwrap();
    let path = html::write(folder.path()).unwrap();
    assert_eq!(path, folder.path().join("report.html"));
    assert!(std::fs::read_to_string(&path).unwrap().contains("seed = 99017"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}
