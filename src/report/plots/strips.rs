//! Profiles of shares, one a row: how a quantity is spread over the parts of each thing, from the fullest part to the
//! emptiest.
use super::*;

/// One row.
#[derive(Clone, Debug, Default)]
pub struct Strip {
    pub name: String,
    /// In 0..1, a part each; drawn from the largest to the smallest.
    pub shares: Vec<f64>,
    /// Written behind the strip.
    pub text: String,
}

/// Strips under each other, all of one width and one scale.
#[derive(Clone, Debug, Default)]
pub struct Strips {
    /// What a share is.
    pub label: String,
    pub strips: Vec<Strip>,
}

impl Strips {
    /// The plot as SVG `width` pixels wide, as high as its rows need.
    ///
    /// # Errors
    /// None in practice: only if the drawing backend refuses.
    pub fn svg(&self, width: u32) -> Result<String> {
        const ROW: f64 = 34.0;
        let height = 26.0 + ROW * self.strips.len().max(1) as f64;
        canvas((width, height.ceil() as u32), &self.label, |area| self.draw(area, f64::from(width), ROW))
    }

    fn draw(&self, area: &Area, width: f64, row: f64) -> Drawn {
        let widest =
            |text: fn(&Strip) -> &str| self.strips.iter().map(|s| text_width(text(s), FONT)).fold(0.0, f64::max);
        let left = (widest(|strip| &strip.name) + 10.0).min(width * 0.5);
        let right = width - (widest(|strip| &strip.text) + 12.0).min(width * 0.35);
        drawn(area.draw_text(&self.label, &text(FONT, (HPos::Left, VPos::Center)), (fine(left), fine(11.0))))?;
        for (index, strip) in self.strips.iter().enumerate() {
            let (top, bottom) = (24.0 + row * index as f64, 24.0 + row * (index + 1) as f64 - 6.0);
            let track = [(fine(left), fine(top)), (fine(right), fine(bottom))];
            drawn(area.draw(&Rectangle::new(track, GRID.filled())))?;
            let outline = profile(&strip.shares, (left, right), (top, bottom));
            if outline.len() > 2 {
                drawn(area.draw(&Polygon::new(outline, PALETTE[0].filled())))?;
            }
            let at = fine((top + bottom) / 2.0);
            let name = shorten(&strip.name, ((left - 10.0) / (FONT * 0.56)) as usize);
            drawn(area.draw_text(&name, &text(FONT, (HPos::Right, VPos::Center)), (fine(left - 6.0), at)))?;
            let end = fine(right + 6.0);
            drawn(area.draw_text(&strip.text, &text(FONT, (HPos::Left, VPos::Center)), (end, at)))?;
        }
        Ok(())
    }
}

/// The outline of steps from the largest share to the smallest, over a base line; empty parts stay empty at the end.
fn profile(shares: &[f64], (left, right): (f64, f64), (top, bottom): (f64, f64)) -> Vec<(i32, i32)> {
    let step = (right - left) / shares.len().max(1) as f64;
    let mut full: Vec<f64> = shares.iter().copied().filter(|s| *s > 0.0).map(|s| s.min(1.0)).collect();
    full.sort_by(|a, b| b.total_cmp(a));
    let mut points = vec![(fine(left), fine(bottom))];
    for (i, share) in full.iter().enumerate() {
        let y = fine(bottom - share * (bottom - top));
        points.extend([i, i + 1].map(|i| (fine(left + step * i as f64), y)));
    }
    points.push((fine(left + step * full.len() as f64), fine(bottom)));
    points
}
