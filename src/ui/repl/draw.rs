//! Answers on the terminal, as wide as it is.

use crate::script::live::console::show::Shown;
use crate::ui::terminal::columns;
use crate::ui::{out, table};

/// Columns where standard output is no terminal.
const WIDTH: usize = 100;

pub fn draw(value: &Shown) {
    match value {
        Shown::Text(text) => {
            out::line(text);
        }
        Shown::Table(rows, left) => {
            table::lines(rows).iter().chain((!left.is_empty()).then_some(left)).for_each(|line| {
                out::line(line);
            });
        }
    }
}

/// Columns of the terminal.
pub fn width() -> usize {
    columns(&std::io::stdout()).map_or(WIDTH, |columns| columns.max(40))
}
