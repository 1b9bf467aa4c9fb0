//! A small table as text, in columns that line up whatever the script of their letters.

use crate::run::Table;
use crate::run::quote::one_line;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Cells wider than this are cut, so that a table stays a table.
const WIDEST: usize = 60;

/// The table's lines.
pub fn lines(table: &Table) -> Vec<String> {
    let rows: Vec<Vec<String>> = std::iter::once(&table.head)
        .chain(&table.rows)
        .map(|row| row.iter().map(|cell| shorten(cell)).collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row: &Vec<String>| row.get(column)).map(|cell| cell.as_str().width()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.width())));
        format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_string()
    };
    let title = (!table.title.is_empty()).then(|| table.title.clone());
    title.into_iter().chain(rows.iter().map(line)).collect()
}

/// Line breaks and escapes become visible, so that a terminal obeys none; long text is cut with an ellipsis.
fn shorten(text: &str) -> String {
    let text = one_line(text);
    if text.width() <= WIDEST {
        return text;
    }
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used < WIDEST
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_wide_letters() {
        let row = |cells: [&str; 2]| cells.map(str::to_string).to_vec();
        let table = Table {
            title: "step 3".into(),
            head: row(["prompt", "reward"]),
            rows: vec![row(["日本", "1"]), row(["a\nb", "0"])],
        };
        assert_eq!(lines(&table), ["step 3", "  prompt  reward", "  日本    1", "  a⏎b     0"]);
    }

    #[test]
    fn long_cells_are_cut() {
        assert_eq!(shorten("\u{1b}[31m\ta\n"), "\\x1b[31m a⏎");
        assert_eq!(shorten(&"x".repeat(100)).width(), WIDEST);
    }
}
