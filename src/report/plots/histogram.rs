//! Weights before and after on the same bins, counts on a logarithmic axis.
use super::*;
use crate::report::summary::Histogram;

/// Two histograms over each other: before as a pale area, after as an outlined one.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    pub histogram: &'a Histogram,
    /// What the bins leave out, as a line of text at the top: the zeros.
    pub caption: &'a str,
}

impl Overlay<'_> {
    /// The plot as SVG of `size` = (width, height) pixels.
    ///
    /// # Errors
    /// None in practice: only if the drawing backend refuses.
    pub fn svg(&self, size: (u32, u32)) -> Result<String> {
        canvas(size, &format!("histogram of weights before and after; {}", self.caption), |area| self.draw(area))
    }

    fn draw(&self, area: &Area) -> Drawn {
        // An empty bin stands at half a count, just below the axis' first tick at one.
        const EMPTY: f64 = 0.5;
        let Histogram { low, high, before, after } = self.histogram;
        let small = FONT - 1.5;
        drawn(area.draw_text(self.caption, &text(small, (HPos::Left, VPos::Center)), (fine(6.0), fine(9.0))))?;
        let most = before.iter().chain(after).copied().max().unwrap_or(0);
        let x = Axis::exactly(*low, *high);
        let mut chart = axes(area, 20.0, (x, Axis::decades(EMPTY, most as f64 * 1.5)), ("weight", "count"))?;
        if most == 0 {
            let (width, height) = area.dim_in_pixel();
            let middle = (width as i32 / 2, height as i32 / 2);
            return drawn(area.draw_text("only zeros", &text(small, (HPos::Center, VPos::Center)), middle));
        }
        let steps = |counts: &[u64]| {
            let width = (high - low) / counts.len() as f64;
            let mut outline = vec![(*low, EMPTY)];
            for (bin, &count) in counts.iter().enumerate() {
                let (left, y) = (low + bin as f64 * width, (count as f64).max(EMPTY));
                outline.extend([(left, y), (left + width, y)]);
            }
            outline.push((*high, EMPTY));
            outline
        };
        if !before.is_empty() {
            drawn(chart.draw_series([Polygon::new(steps(before), MUTED.filled())]).map(drop))?;
        }
        if !after.is_empty() {
            drawn(chart.draw_series([Polygon::new(steps(after), PALETTE[0].mix(0.35))]).map(drop))?;
            drawn(chart.draw_series([PathElement::new(steps(after), stroke(PALETTE[0], 1.25))]).map(drop))?;
        }
        Ok(())
    }
}
