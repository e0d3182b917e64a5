//! Horizontal bars, one a row, with names at the left and values at the right.
use super::*;

/// One row: how far the bar reaches, and how far the pale track behind it does.
#[derive(Clone, Debug, Default)]
pub struct Bar {
    pub name: String,
    pub value: f64,
    pub of: Option<f64>,
    /// Written behind the bar: the value with its unit.
    pub text: String,
}

/// Horizontal bars from zero on one linear scale.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    /// The quantity with its unit.
    pub label: String,
    /// The longest possible bar; by default the longest there is.
    pub full: Option<f64>,
    pub bars: Vec<Bar>,
}

impl Bars {
    /// The plot as SVG `width` pixels wide, as high as its rows need.
    ///
    /// # Errors
    /// None in practice: only if the drawing backend refuses.
    pub fn svg(&self, width: u32) -> Result<String> {
        const ROW: f64 = 20.0;
        let height = 26.0 + ROW * self.bars.len().max(1) as f64;
        canvas((width, height.ceil() as u32), &self.label, |area| self.draw(area, f64::from(width), ROW))
    }

    fn draw(&self, area: &Area, width: f64, row: f64) -> Drawn {
        let widest = |text: fn(&Bar) -> &str| self.bars.iter().map(|b| text_width(text(b), FONT)).fold(0.0, f64::max);
        let left = (widest(|bar| &bar.name) + 10.0).min(width * 0.5);
        let right = width - (widest(|bar| &bar.text) + 12.0).min(width * 0.35);
        let longest = self.bars.iter().flat_map(|bar| [bar.value, bar.of.unwrap_or(0.0)]).filter(|v| v.is_finite());
        let full = self.full.unwrap_or(longest.fold(0.0, f64::max));
        let reach = |value: f64| {
            let share = if full > 0.0 && value.is_finite() { (value / full).clamp(0.0, 1.0) } else { 0.0 };
            fine(left + share * (right - left))
        };
        drawn(area.draw_text(&self.label, &text(FONT, (HPos::Left, VPos::Center)), (fine(left), fine(11.0))))?;
        for (index, bar) in self.bars.iter().enumerate() {
            let middle = 26.0 + row * (index as f64 + 0.5) - 2.0;
            let block = |to: f64, color: RGBColor, half: f64| {
                let corners = [(fine(left), fine(middle - half)), (reach(to), fine(middle + half))];
                drawn(area.draw(&Rectangle::new(corners, color.filled())))
            };
            block(bar.of.unwrap_or(0.0), GRID, 7.0)?;
            block(bar.value, PALETTE[0], 7.0)?;
            let name = shorten(&bar.name, ((left - 10.0) / (FONT * 0.56)) as usize);
            let at = fine(middle);
            drawn(area.draw_text(&name, &text(FONT, (HPos::Right, VPos::Center)), (fine(left - 6.0), at)))?;
            let end = reach(bar.of.unwrap_or(bar.value).max(bar.value)) + fine(6.0);
            drawn(area.draw_text(&bar.text, &text(FONT, (HPos::Left, VPos::Center)), (end, at)))?;
        }
        Ok(())
    }
}
