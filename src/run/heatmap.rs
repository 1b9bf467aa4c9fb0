//! Numbers `[B,T]` as coloured cells, a panel for each tensor: red below 0, blue above, white at 0.

use crate::error::{Error, Kind, Result};
use crate::files::{self, Location};
use plotters::prelude::*;

/// Pixels.
const CELL: u32 = 18;
const CAPTION: u32 = 26;
const MARGIN: u32 = 12;
const NARROWEST: u32 = 260;
const MOST_CELLS: usize = 1 << 18;
const BLUE: [f64; 3] = [31.0, 89.0, 160.0];
const RED: [f64; 3] = [178.0, 40.0, 40.0];

/// A tensor under its title; of each row the same number of cells.
pub struct Panel {
    pub title: String,
    pub rows: Vec<Vec<f64>>,
}

/// Writes the panels one below the other. Each has a scale of its own: its largest number has the full colour.
pub fn write(panels: &[Panel], path: &Location) -> Result<()> {
    let cells = panels.iter().map(|panel| panel.rows.iter().map(Vec::len).sum::<usize>().max(panel.rows.len()));
    let cells: usize = cells.sum();
    if cells > MOST_CELLS {
        return Err(Error::value(format!("a picture of {cells} cells is too large: at most {MOST_CELLS}"))
            .hint("draw some of the rows: b.select([0, 1])"));
    }
    let tall = |panel: &Panel| CAPTION + CELL * panel.rows.len() as u32 + MARGIN;
    let wide = |panel: &Panel| CELL * panel.rows.first().map_or(0, Vec::len) as u32;
    let width = panels.iter().map(wide).max().unwrap_or(0).max(NARROWEST) + 2 * MARGIN;
    let height = panels.iter().map(tall).sum::<u32>() + MARGIN;
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let mut top = MARGIN as i32;
    for panel in panels {
        let largest = panel.rows.iter().flatten().filter(|x| x.is_finite()).fold(0.0f64, |a, x| a.max(x.abs()));
        let title = format!("{} (largest {largest:.2e})", panel.title);
        let at = (MARGIN as i32, top);
        area.draw(&Text::new(title, at, ("sans-serif", 14))).map_err(failed)?;
        for (i, row) in panel.rows.iter().enumerate() {
            for (t, x) in row.iter().enumerate() {
                let (left, up) = (MARGIN + CELL * t as u32, top as u32 + CAPTION + CELL * i as u32);
                let corners = [(left as i32, up as i32), ((left + CELL - 1) as i32, (up + CELL - 1) as i32)];
                area.draw(&Rectangle::new(corners, colour(*x, largest).filled())).map_err(failed)?;
            }
        }
        top += tall(panel) as i32;
    }
    area.present().map_err(failed)?;
    drop(area);
    files::write(path, svg)
}

/// Grey where there is no number.
pub(super) fn colour(x: f64, largest: f64) -> RGBColor {
    if !x.is_finite() {
        return RGBColor(128, 128, 128);
    }
    let (share, full) = (if largest > 0.0 { x.abs() / largest } else { 0.0 }, if x < 0.0 { RED } else { BLUE });
    let [r, g, b] = full.map(|full| (245.0 + (full - 245.0) * share) as u8);
    RGBColor(r, g, b)
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::new(Kind::File, format!("cannot draw the cells: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_drawn_in_its_colour() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = crate::files::anywhere(dir.path()).join("cells.svg");
        let rows = vec![vec![1.0, -2.0], vec![0.0, f64::NAN]];
        write(&[Panel { title: "one".into(), rows }], &path).expect("drawn");
        let svg = std::fs::read_to_string(path).expect("an SVG");
        assert!(svg.contains("one (largest 2.00e0)"), "{svg}");
        // The background and the four cells.
        assert_eq!(svg.matches("<rect").count(), 5, "{svg}");
        assert!(svg.contains("#B22828") && svg.contains("#808080"), "{svg}");
    }
}
