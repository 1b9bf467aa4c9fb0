//! The picture of `rhopo compare`: a line of numbers and cosines for each objective, and ∂loss/∂logp cell by cell.
//!
//! Owns the layout. What is compared, and how, is a script's (`script/tools/compare.rhai`).

use super::heatmap::colour;
use crate::error::{Error, Kind, Result};
use crate::files::{self, Location};
use serde::Deserialize;
use serde_json::Value;

/// Of the drawing, in pixels.
const WIDTH: f64 = 1080.0;
const MARGIN: f64 = 24.0;
/// A line of the table.
const LINE: f64 = 26.0;
/// Where the table's columns of numbers end, and where its cosines begin.
const NUMBERS: [f64; 4] = [330.0, 440.0, 540.0, 636.0];
const COSINES: f64 = 664.0;
const WIDEST_COSINE: f64 = 56.0;
/// Below these widths a cosine is written smaller, and not at all.
const ROOMY: f64 = 44.0;
const NARROW: f64 = 27.0;
/// A panel of cells, the room for the numbers of its rows before it, and what is between two.
const PANEL: f64 = 208.0;
const ROWS: f64 = 84.0;
const GAP: f64 = 24.0;
const CELL: f64 = 13.0;
const WIDEST_CELL: f64 = 40.0;
const HEAD: f64 = 40.0;
const FOOT: f64 = 34.0;
/// Rows and tokens that are drawn.
const MOST_ROWS: usize = 16;
const MOST_TOKENS: usize = 56;
/// Letters of a name.
const LONGEST: usize = 25;

const INK: &str = "#222222";
const GREY: &str = "#666666";

/// Cells `[B,T]`; none where there is no number.
type Cells = Vec<Vec<Option<f64>>>;

/// What was found of all objectives on one batch.
#[derive(Debug, Deserialize)]
pub struct Comparison {
    /// What was compared, in words: a line each, the first of them the title.
    pub about: Vec<String>,
    pub objectives: Vec<Objective>,
    /// Names of those whose loss ended in an error, which was shown.
    pub failed: Vec<String>,
    /// log(p / p_old).
    pub ratio: Cells,
    pub mask: Cells,
    /// Of each row.
    pub advantage: Vec<Option<f64>>,
}

/// What was found of one objective.
#[derive(Debug, Deserialize)]
pub struct Objective {
    pub name: String,
    pub loss: Option<f64>,
    /// The length of ∂loss/∂logp.
    pub slope: Option<f64>,
    /// The length of ∂loss/∂θ.
    pub gradient: Option<f64>,
    /// The share of the tokens without a gradient.
    pub still: Option<f64>,
    /// Between its ∂loss/∂θ and that of each objective.
    pub cosines: Vec<Option<f64>>,
    /// ∂loss/∂logp.
    pub slopes: Cells,
}

impl Comparison {
    /// What the script that compares returned.
    ///
    /// # Errors
    /// Something else.
    pub fn read(found: Value) -> Result<Self> {
        let wrong = |e| Error::new(Kind::Internal, format!("what the comparison returned has another form: {e}"));
        serde_json::from_value(found).map_err(wrong)
    }

    /// Draws it into a file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Location) -> Result<()> {
        files::write(path, self.svg())
    }

    fn svg(&self) -> String {
        let mut page = Page::default();
        let mut y = MARGIN;
        for (i, line) in self.about.iter().enumerate() {
            y += if i == 0 { 20.0 } else { 18.0 };
            let style = if i == 0 { Style::new(17).bold() } else { Style::new(12).grey() };
            page.text(MARGIN, y, style, line);
        }
        y = self.table(&mut page, y + 2.0 * LINE);
        y = self.panels(&mut page, y + 1.5 * LINE);
        page.finish(WIDTH, y + MARGIN)
    }

    /// A line for each objective; returns where it ends.
    fn table(&self, page: &mut Page, mut y: f64) -> f64 {
        let count = self.objectives.len();
        let wide = ((WIDTH - MARGIN - COSINES) / count.max(1) as f64).min(WIDEST_COSINE);
        let heads = ["loss", "|∂loss/∂logp|", "|∂loss/∂θ|", "tokens at 0"];
        for (x, head) in NUMBERS.iter().zip(heads) {
            page.text(*x, y, Style::new(12).grey().end(), head);
        }
        page.text(COSINES, y - 18.0, Style::new(12).grey(), "cosine of ∂loss/∂θ with number");
        for i in 0..count {
            let size = if wide < NARROW { 8 } else { 12 };
            page.text(COSINES + wide * (i as f64 + 0.5), y, Style::new(size).grey().middle(), &(i + 1).to_string());
        }
        y += 8.0;
        for (i, objective) in self.objectives.iter().enumerate() {
            let base = y + 0.68 * LINE;
            page.text(MARGIN + 16.0, base, Style::new(12).grey().end(), &(i + 1).to_string());
            page.text(MARGIN + 26.0, base, Style::new(13), &short_name(&objective.name));
            let still = objective.still.map_or("-".to_string(), |share| format!("{:.0} %", 100.0 * share));
            let numbers = [number(objective.loss), number(objective.slope), number(objective.gradient), still];
            for (x, text) in NUMBERS.iter().zip(numbers) {
                page.text(*x, base, Style::new(12).end(), &text);
            }
            for (k, cosine) in objective.cosines.iter().enumerate() {
                let x = COSINES + wide * k as f64;
                page.cell((x, y + 1.0), (wide - 2.0, LINE - 2.0), &hex(cosine.unwrap_or(f64::NAN), 1.0));
                if wide < NARROW {
                    continue;
                }
                let style = Style::new(if wide < ROOMY { 9 } else { 12 }).middle();
                let style = if cosine.is_none_or(|c| c.abs() > 0.6) { style.white() } else { style };
                let text = cosine.map_or("-".to_string(), |c| format!("{:.2}", (100.0 * c).round() / 100.0 + 0.0));
                page.text(x + 0.5 * wide - 1.0, base, style, &text);
            }
            y += LINE;
        }
        y
    }

    /// How far the policy is, and what every objective makes of it; returns where they end.
    fn panels(&self, page: &mut Page, mut y: f64) -> f64 {
        let (rows, tokens) = (self.mask.len(), self.mask.iter().map(Vec::len).max().unwrap_or(0));
        let (drawn, across) = (rows.min(MOST_ROWS), tokens.min(MOST_TOKENS));
        page.text(MARGIN, y, Style::new(14).bold(), "∂loss/∂logp, token by token");
        legend(page, WIDTH - MARGIN, y);
        let part = |shown: usize, all: usize, noun: &str| match shown == all {
            true => format!("all {all} {noun}"),
            false => format!("{shown} of {all} {noun}"),
        };
        let what = format!(
            "{}, {}; A is the advantage. Below 0 (red) a step makes the token likelier, above 0 (blue) less likely.",
            part(drawn, rows, "rows"),
            part(across, tokens, "tokens"),
        );
        page.text(MARGIN, y + 18.0, Style::new(12).grey(), &what);
        y += 18.0 + 0.8 * LINE;
        let first = ("log p/p_old".to_string(), &self.ratio);
        let slopes = self.objectives.iter().enumerate();
        let slopes = slopes.map(|(i, o)| (format!("{}  {}", i + 1, short_name(&o.name)), &o.slopes));
        let panels: Vec<(String, &Cells)> = std::iter::once(first).chain(slopes).collect();
        let wide = (PANEL / across.max(1) as f64).min(WIDEST_CELL);
        let beside = ((WIDTH - 2.0 * MARGIN - ROWS + GAP) / (PANEL + GAP)) as usize;
        for line in panels.chunks(beside) {
            self.row_labels(page, y, drawn);
            for (i, (title, cells)) in line.iter().enumerate() {
                let x = MARGIN + ROWS + i as f64 * (PANEL + GAP);
                let shown = Shown { cells, mask: &self.mask, drawn, across, wide };
                shown.draw(page, x, y, title);
            }
            y += HEAD + CELL * drawn as f64 + FOOT;
        }
        y - FOOT + 16.0
    }

    /// Which row it is, and its advantage.
    fn row_labels(&self, page: &mut Page, y: f64, drawn: usize) {
        let (row, advantage) = (MARGIN + 26.0, MARGIN + ROWS - 12.0);
        let head = y + HEAD - 5.0;
        page.text(row, head, Style::new(10).grey().end(), "row");
        page.text(advantage, head, Style::new(10).grey().end(), "A");
        for i in 0..drawn {
            let base = y + HEAD + CELL * i as f64 + 10.0;
            page.text(row, base, Style::new(10).grey().end(), &i.to_string());
            if let Some(a) = self.advantage.get(i).copied().flatten() {
                page.text(advantage, base, Style::new(10).grey().end(), &format!("{:+.2}", a + 0.0));
            }
        }
    }
}

/// The cells of a panel that are drawn.
struct Shown<'a> {
    cells: &'a Cells,
    mask: &'a Cells,
    drawn: usize,
    across: usize,
    wide: f64,
}

impl Shown<'_> {
    /// On a scale of its own: its largest number has the full colour.
    fn draw(&self, page: &mut Page, x: f64, y: f64, title: &str) {
        let numbers = || self.cells.iter().zip(self.mask).flat_map(|(row, mask)| row.iter().zip(mask));
        let inside = numbers().filter(|(_, mask)| mask.is_some_and(|m| m > 0.0)).filter_map(|(cell, _)| *cell);
        let largest = inside.fold(0.0f64, |a, x| a.max(x.abs()));
        page.text(x, y + 12.0, Style::new(12).bold(), title);
        page.text(x, y + 27.0, Style::new(11).grey(), &format!("largest {}", number(Some(largest))));
        for (i, (row, mask)) in self.cells.iter().zip(self.mask).take(self.drawn).enumerate() {
            for (t, (cell, mask)) in row.iter().zip(mask).take(self.across).enumerate() {
                if mask.is_none_or(|m| m <= 0.0) {
                    continue;
                }
                let fill = hex(cell.unwrap_or(f64::NAN), largest);
                let (left, top) = (x + self.wide * t as f64, y + HEAD + CELL * i as f64);
                page.cell((left, top), (self.wide - 1.0, CELL - 1.0), &fill);
            }
        }
        let base = y + HEAD + CELL * self.drawn as f64 + 10.0;
        let end = x + self.wide * self.across as f64;
        match self.across {
            0..6 => page.text(x, base, Style::new(10).grey(), "token"),
            last => {
                page.text(x, base, Style::new(10).grey(), "0");
                page.text(0.5 * (x + end), base, Style::new(10).grey().middle(), "token");
                page.text(end - 1.0, base, Style::new(10).grey().end(), &(last - 1).to_string());
            }
        }
    }
}

/// The colours from the lowest to the highest number; ends at `right`.
fn legend(page: &mut Page, right: f64, y: f64) {
    const STEPS: i32 = 4;
    let (wide, label) = (14.0, 62.0);
    let left = right - label - wide * f64::from(2 * STEPS + 1);
    page.text(left - 6.0, y, Style::new(11).grey().end(), "−largest");
    for i in -STEPS..=STEPS {
        let x = left + wide * f64::from(i + STEPS);
        page.cell((x, y - 10.0), (wide, 12.0), &hex(f64::from(i) / f64::from(STEPS), 1.0));
    }
    page.text(right - label + 6.0, y, Style::new(11).grey(), "+largest");
}

/// How a text looks.
#[derive(Clone, Copy)]
struct Style {
    size: u32,
    weight: &'static str,
    anchor: &'static str,
    fill: &'static str,
}

impl Style {
    fn new(size: u32) -> Self {
        Self { size, weight: "normal", anchor: "start", fill: INK }
    }

    fn bold(self) -> Self {
        Self { weight: "bold", ..self }
    }

    fn grey(self) -> Self {
        Self { fill: GREY, ..self }
    }

    fn white(self) -> Self {
        Self { fill: "#ffffff", ..self }
    }

    fn middle(self) -> Self {
        Self { anchor: "middle", ..self }
    }

    fn end(self) -> Self {
        Self { anchor: "end", ..self }
    }
}

/// A drawing that is being made.
#[derive(Default)]
struct Page {
    inside: String,
}

impl Page {
    fn text(&mut self, x: f64, y: f64, style: Style, text: &str) {
        let Style { size, weight, anchor, fill } = style;
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        self.inside += &format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" font-weight=\"{weight}\" text-anchor=\"{anchor}\" \
             fill=\"{fill}\">{text}</text>\n"
        );
    }

    fn cell(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
        self.inside += &format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\" \
             stroke=\"#dddddd\" stroke-width=\"0.5\"/>\n"
        );
    }

    fn finish(self, width: f64, height: f64) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.inside
        )
    }
}

fn hex(x: f64, largest: f64) -> String {
    let colour = colour(x, largest);
    format!("#{:02x}{:02x}{:02x}", colour.0, colour.1, colour.2)
}

/// The end of a name that is too long says more than its beginning: it may be a path.
fn short_name(name: &str) -> String {
    let name = name.strip_suffix(".rhai").unwrap_or(name);
    let letters = name.chars().count();
    match letters <= LONGEST {
        true => name.to_string(),
        false => std::iter::once('…').chain(name.chars().skip(letters + 1 - LONGEST)).collect(),
    }
}

fn number(x: Option<f64>) -> String {
    match x {
        None => "not finite".to_string(),
        Some(0.0) => "0".to_string(),
        Some(x) if (1e-3..1e5).contains(&x.abs()) => format!("{x:.4}"),
        Some(x) => format!("{x:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn comparison(count: usize, rows: usize, tokens: usize) -> Comparison {
        let cells = |x: f64| json!(vec![vec![x; tokens]; rows]);
        let objective = |i: usize| {
            json!({
                "name": format!("objective_{i}.rhai"), "loss": 0.5, "slope": 1e-7, "gradient": null, "still": 0.25,
                "cosines": vec![1.0; count], "slopes": cells(-0.5),
            })
        };
        let objectives: Vec<Value> = (0..count).map(objective).collect();
        let found = json!({
            "about": ["a < b"], "objectives": objectives, "ratio": cells(0.1), "mask": cells(1.0),
            "advantage": vec![1.0; rows], "failed": [],
        });
        Comparison::read(found).expect("a comparison")
    }

    /// The largest coordinate of what is drawn, and the size that the drawing says it has.
    fn extent(svg: &str, of: &str, size: &str) -> (f64, f64) {
        let numbers = |name: &str| -> Vec<f64> {
            let begin = format!(" {name}=\"");
            let parts = svg.split(&begin).skip(1);
            parts.filter_map(|part| part.split('"').next()?.parse().ok()).collect()
        };
        (numbers(of).into_iter().fold(0.0, f64::max), numbers(size)[0])
    }

    #[test]
    fn everything_is_within_the_page_for_any_number_of_objectives() {
        for (count, rows, tokens) in [(1, 2, 1), (2, 4, 8), (8, 40, 100), (30, 32, 8)] {
            let svg = comparison(count, rows, tokens).svg();
            let ((right, width), (bottom, height)) = (extent(&svg, "x", "width"), extent(&svg, "y", "height"));
            assert!(right < width && bottom < height, "{count}: {right} of {width}, {bottom} of {height}");
            let panels = (count + 1) * rows.min(MOST_ROWS) * tokens.min(MOST_TOKENS);
            assert_eq!(svg.matches("<rect x=").count(), panels + count * count + 9, "{count}");
        }
    }

    #[test]
    fn names_numbers_and_what_is_not_finite_are_written() {
        let svg = comparison(2, 4, 8).svg();
        for text in [">a &lt; b<", ">2  objective_1<", ">1.00e-7<", ">not finite<", ">25 %<", ">+1.00<"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert_eq!(short_name("a/very/long/path/to/some/objective.rhai"), "…g/path/to/some/objective");
    }
}
