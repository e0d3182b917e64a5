//! Plots as SVG text: readable on white, in colours that colour-blind readers can tell apart, with no font to load.
//!
//! Text stays text, with the reader's sans-serif. Every colour is written as an attribute from a small fixed set, so a
//! page that embeds the SVG can restyle it (for dark mode) with attribute selectors.
mod axis;
mod bars;
mod histogram;
mod lines;
mod strips;

pub use bars::{Bar, Bars};
pub use histogram::Overlay;
pub use lines::{Line, LinePlot, Series, decimate, running_mean};
pub use strips::{Strip, Strips};

use crate::{Error, Result};
use axis::Axis;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// Okabe and Ito's palette, blue first; its yellow is left out, too pale on white.
pub const PALETTE: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x80, 0x80, 0x80),
];
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const AXIS: RGBColor = RGBColor(0x99, 0x99, 0x99);
const GRID: RGBColor = RGBColor(0xE6, 0xE6, 0xE6);
/// What is behind or before: a bar's full length, the weights before pruning.
const MUTED: RGBColor = RGBColor(0xC4, 0xC4, 0xC4);

/// plotters rounds to whole units, so plots are drawn on a finer grid than they are shown on.
const FINE: f64 = 8.0;
const FONT: f64 = 12.0;

/// Units of the fine grid for a length in shown pixels.
fn fine(pixels: f64) -> i32 {
    (pixels * FINE).round() as i32
}

fn stroke(color: RGBColor, pixels: f64) -> ShapeStyle {
    ShapeStyle { color: color.to_rgba(), filled: false, stroke_width: fine(pixels) as u32 }
}

/// A text style; plotters divides SVG font sizes by 1.24, which is undone here.
fn text(pixels: f64, at: (HPos, VPos)) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", pixels * FINE * 1.24).into_font()).color(&INK).pos(Pos::new(at.0, at.1))
}

/// About how wide sans-serif text comes out, in shown pixels.
fn text_width(text: &str, font: f64) -> f64 {
    text.chars().count() as f64 * font * 0.56
}

/// The end of a name is what tells layers apart, so the front goes.
fn shorten(name: &str, most: usize) -> String {
    let length = name.chars().count();
    match length > most.max(4) {
        true => format!("…{}", name.chars().skip(length + 1 - most.max(4)).collect::<String>()),
        false => name.to_string(),
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws into a fresh SVG of the given size in pixels; `label` is what a screen reader says.
fn canvas(size: (u32, u32), label: &str, draw: impl FnOnce(&Area) -> Drawn) -> Result<String> {
    let grid = (fine(f64::from(size.0)) as u32, fine(f64::from(size.1)) as u32);
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, grid).into_drawing_area();
        draw(&area).and_then(|()| area.present().map_err(Into::into))
    };
    drawn.map_err(|why| Error::io("draw", Path::new("plot"))(std::io::Error::other(why.to_string())))?;
    let fixed = format!("<svg width=\"{}\" height=\"{}\"", grid.0, grid.1);
    let scaling =
        format!("<svg role=\"img\" aria-label=\"{}\" width=\"{}\" height=\"{}\"", escape(label), size.0, size.1);
    Ok(svg.replacen(&fixed, &scaling, 1))
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// An error of plotters, freed from the lifetime of what it drew on.
fn drawn<E: std::error::Error>(result: std::result::Result<(), E>) -> Drawn {
    result.map_err(|why| why.to_string().into())
}

/// Text that is safe between tags and in double quotes.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // XML has no way to write these.
            c if c.is_control() && !matches!(c, '\n' | '\t') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// How one entry of the legend is drawn.
struct Key<'a> {
    name: &'a str,
    style: ShapeStyle,
    line: Line,
    marker: bool,
}

/// Writes the legend in rows from the upper left corner; returns its height in shown pixels.
fn legend(area: &Area, left: f64, keys: &[Key]) -> std::result::Result<f64, Box<dyn std::error::Error>> {
    const ROW: f64 = 18.0;
    let width = f64::from(area.dim_in_pixel().0) / FINE;
    let (mut x, mut y) = (left, 3.0 + ROW / 2.0);
    for key in keys {
        let length = 22.0 + 6.0 + text_width(key.name, FONT) + 16.0;
        if x > left && x + length > width {
            (x, y) = (left, y + ROW);
        }
        let dashes: &[(f64, f64)] = match key.line {
            Line::None => &[],
            Line::Dashed => &[(0.0, 6.0), (8.0, 14.0), (16.0, 22.0)],
            Line::Solid | Line::Faint => &[(0.0, 22.0)],
        };
        for (from, to) in dashes {
            let ends = [from, to].map(|at| (fine(x + at), fine(y)));
            drawn(area.draw(&PathElement::new(ends, key.style)))?;
        }
        if key.marker {
            drawn(area.draw(&Circle::new((fine(x + 11.0), fine(y)), fine(3.0), key.style.filled())))?;
        }
        drawn(area.draw_text(key.name, &text(FONT, (HPos::Left, VPos::Center)), (fine(x + 28.0), fine(y))))?;
        x += length;
    }
    Ok(if keys.is_empty() { 8.0 } else { y + ROW / 2.0 + 3.0 })
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// Axes with grid, ticks and labels below `top` shown pixels.
fn axes<'a, 'b>(
    area: &'a Area<'b>,
    top: f64,
    (x, y): (Axis, Axis),
    (x_label, y_label): (&str, &str),
) -> std::result::Result<Chart<'a, 'b>, Box<dyn std::error::Error>> {
    let size = area.dim_in_pixel();
    let width = f64::from(size.0) / FINE;
    let height = f64::from(size.1) / FINE - top;
    let font = if width < 400.0 { FONT - 1.5 } else { FONT };
    let y_ticks = (height / 34.0).clamp(3.0, 8.0) as usize;
    let x_ticks = (width / 75.0).clamp(3.0, 10.0) as usize;
    let widest = y.ticks(y_ticks).iter().map(|&at| text_width(&y.label(at), font)).fold(0.0, f64::max);
    let room = |label: &str| if label.is_empty() { 0.0 } else { font + 8.0 };
    let mut chart = ChartBuilder::on(area)
        .margin_top(fine(top))
        .margin_right(fine(18.0))
        .margin_bottom(fine(3.0))
        .margin_left(fine(2.0))
        .x_label_area_size(fine(font + 10.0 + room(x_label)))
        .y_label_area_size(fine(widest + 12.0 + room(y_label)))
        .build_cartesian_2d(x, y)
        .map_err(|why| why.to_string())?;
    drawn(
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(stroke(GRID, 1.0))
            .axis_style(stroke(AXIS, 1.0))
            .set_all_tick_mark_size(fine(4.0))
            .label_style(("sans-serif", font * FINE * 1.24, &INK).into_text_style(area))
            .axis_desc_style(("sans-serif", font * FINE * 1.24, &INK).into_text_style(area))
            .x_labels(x_ticks)
            .y_labels(y_ticks)
            .x_label_formatter(&|&at| x.label(at))
            .y_label_formatter(&|&at| y.label(at))
            .x_desc(x_label)
            .y_desc(y_label)
            .draw(),
    )?;
    Ok(chart)
}
