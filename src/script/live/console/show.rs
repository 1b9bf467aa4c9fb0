//! Values as a person reads them: a line, a few lines, or a table that fits a width.

use crate::data::{Batch, Column, Content};
use crate::error::Result;
use crate::run::Table;
use crate::tensor::Tensor;
use crate::tensor::shape::show as shape;
use rhai::{Dynamic, Engine, ImmutableString};
use unicode_width::UnicodeWidthStr;

/// Rows of a batch and entries of an array that are shown at the beginning and at the end.
const ENDS: usize = 4;
/// Numbers of a per-token column that are shown of a row.
const CELLS: usize = 3;
/// What a text column may take at most, and what it must have at least.
const TEXT: std::ops::RangeInclusive<usize> = 12..=48;
const GAP: usize = 2;

/// A value, ready to be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    Text(String),
    /// A table and what there was no room for.
    Table(Table, String),
}

/// `value` within `width` columns.
///
/// # Errors
/// Numbers that cannot be read from the device.
pub fn value(engine: &Engine, value: &Dynamic, width: usize) -> Result<Shown> {
    match value.read_lock::<Batch>() {
        Some(batch) => batch_table(&batch, width),
        None => Ok(Shown::Text(text(engine, value, 0))),
    }
}

/// A value in one line of at most `width` columns, for lists of variables.
pub fn line(engine: &Engine, value: &Dynamic, width: usize) -> String {
    if let Some(tensor) = value.read_lock::<Tensor>() {
        let text = tensor.to_string();
        return cut(&text.split_whitespace().collect::<Vec<_>>().join(" "), width);
    }
    cut(&text(engine, value, 1).split_whitespace().collect::<Vec<_>>().join(" "), width)
}

fn text(engine: &Engine, value: &Dynamic, depth: usize) -> String {
    let indent = "  ".repeat(depth + 1);
    if let Ok(array) = value.as_array_ref() {
        let entry = |value: &Dynamic| text(engine, value, depth + 1);
        let mut entries: Vec<String> = match array.len() > 2 * ENDS {
            true => array[..ENDS].iter().chain(&array[array.len() - ENDS..]).map(entry).collect(),
            false => array.iter().map(entry).collect(),
        };
        if array.len() > 2 * ENDS {
            entries.insert(ENDS, format!("… {} more", array.len() - 2 * ENDS));
        }
        let long =
            entries.iter().any(|e| e.contains('\n')) || entries.iter().map(|e| e.width() + GAP).sum::<usize>() > 80;
        return match long {
            true => format!("[\n{indent}{}\n{}]", entries.join(&format!(",\n{indent}")), "  ".repeat(depth)),
            false => format!("[{}]", entries.join(", ")),
        };
    }
    if let Ok(map) = value.as_map_ref() {
        let entries: Vec<String> = map.iter().map(|(k, v)| format!("{k}: {}", text(engine, v, depth + 1))).collect();
        let long =
            entries.iter().any(|e| e.contains('\n')) || entries.iter().map(|e| e.width() + GAP).sum::<usize>() > 80;
        return match (entries.is_empty(), long) {
            (true, _) => "#{}".to_string(),
            (_, true) => format!("#{{\n{indent}{}\n{}}}", entries.join(&format!(",\n{indent}")), "  ".repeat(depth)),
            (_, false) => format!("#{{ {} }}", entries.join(", ")),
        };
    }
    debug(engine, value)
}

/// The language's own way to write it, which bindings extend for their types.
fn debug(engine: &Engine, value: &Dynamic) -> String {
    if let Some(function) = value.read_lock::<rhai::FnPtr>() {
        let name = function.fn_name();
        return if function.is_anonymous() { "a function".into() } else { format!("Fn({name})") };
    }
    let own = engine.eval_with_scope::<ImmutableString>(&mut scope(value), "to_debug(value)");
    own.map_or_else(|_| value.to_string(), |text| text.to_string())
}

fn scope(value: &Dynamic) -> rhai::Scope<'static> {
    let mut scope = rhai::Scope::new();
    scope.push_dynamic("value", value.clone());
    scope
}

/// A column of the table being made.
struct Field {
    head: String,
    cells: Vec<String>,
    is_text: bool,
}

impl Field {
    fn width(&self) -> usize {
        self.cells.iter().chain([&self.head]).map(|cell| cell.as_str().width()).max().unwrap_or(0)
    }
}

fn batch_table(batch: &Batch, width: usize) -> Result<Shown> {
    let n = batch.len();
    let rows: Vec<usize> = match n > 2 * ENDS {
        true => (0..ENDS).chain(n - ENDS..n).collect(),
        false => (0..n).collect(),
    };
    let mut fields: Vec<Field> = Vec::new();
    for (name, column) in batch.columns() {
        fields.push(field(batch, name, column, &rows)?);
    }
    // What was said and what it earned stands first; the rest follows in order of names.
    fields.sort_by_key(|f| {
        ["prompt", "text", "reward", "length", "finished"].iter().position(|k| *k == f.head).unwrap_or(9)
    });
    let tokens = batch.width().map_or(String::new(), |t| format!(", {t} tokens"));
    let title = format!("Batch of {n} rows{tokens}");
    let row_names: Vec<String> = rows.iter().map(|row| row.to_string()).collect();
    let (kept, left) = fit(fields, width.saturating_sub(GAP + row_names.iter().map(String::len).max().unwrap_or(1)));
    let head = std::iter::once(String::new()).chain(kept.iter().map(|f| f.head.clone())).collect();
    let mut lines: Vec<Vec<String>> = (0..rows.len())
        .map(|i| std::iter::once(row_names[i].clone()).chain(kept.iter().map(|f| f.cells[i].clone())).collect())
        .collect();
    if n > 2 * ENDS {
        lines.insert(ENDS, vec!["…".into()]);
    }
    let left = if left.is_empty() { left } else { format!("also: {left}") };
    Ok(Shown::Table(Table { title, head, rows: lines }, cut(&left, width)))
}

fn field(batch: &Batch, name: &str, column: &Column, rows: &[usize]) -> Result<Field> {
    let (cells, is_text) = match column {
        Column::List(values) => (rows.iter().map(|&row| plain(&Content::shown(&values[row]))).collect(), true),
        Column::Tensor(tensor) => {
            let (values, width) = (tensor.to_vec()?, tensor.dims().get(1).copied().unwrap_or(1));
            let lengths = batch.tensor("length").ok().map(|l| l.to_vec()).transpose()?;
            let cell = |&row: &usize| {
                let used =
                    lengths.as_ref().map_or(width, |l| (l[row] as usize).min(width)).max(usize::from(width == 1));
                let shown: Vec<String> = values[row * width..][..used.min(CELLS)].iter().map(|x| number(*x)).collect();
                format!("{}{}", shown.join(" "), if used > CELLS { " …" } else { "" })
            };
            (rows.iter().map(cell).collect(), false)
        }
    };
    let wide = matches!(column, Column::Tensor(t) if t.dims().get(1).is_some_and(|w| *w > 1));
    let head = match column {
        Column::Tensor(tensor) if wide => format!("{name} {}", shape(tensor.dims())),
        _ => name.to_string(),
    };
    Ok(Field { head, cells, is_text })
}

fn plain(text: &str) -> String {
    text.replace('\n', "⏎").replace('\t', " ")
}

/// Columns that fit, texts cut to what is left for them, and the names of those that do not. A number per row claims its
/// place first, then texts, then what has many numbers per row.
fn fit(fields: Vec<Field>, width: usize) -> (Vec<Field>, String) {
    let claims = |field: &Field| match (field.is_text, field.head.contains('[')) {
        (false, false) => 0,
        (true, _) => 1,
        (false, true) => 2,
    };
    let mut order: Vec<usize> = (0..fields.len()).collect();
    order.sort_by_key(|&i| claims(&fields[i]));
    let mut fields: Vec<Option<Field>> = fields.into_iter().map(Some).collect();
    let (mut left, mut used) = (Vec::new(), 0);
    for i in order {
        let Some(field) = &mut fields[i] else { continue };
        let room = width.saturating_sub(used + GAP);
        if field.is_text && field.width() > room.min(*TEXT.end()) && room >= *TEXT.start() {
            let most = room.min(*TEXT.end());
            field.cells = field.cells.iter().map(|cell| cut(cell, most)).collect();
        }
        if field.width() <= room {
            used += field.width() + GAP;
        } else {
            left.push(field.head.clone());
            fields[i] = None;
        }
    }
    (fields.into_iter().flatten().collect(), left.join(", "))
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_string();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if kept.as_str().width() + unicode_width::UnicodeWidthChar::width(c).unwrap_or(0) + 1 > width {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

fn number(x: f64) -> String {
    match x {
        _ if !x.is_finite() || (x.fract() == 0.0 && x.abs() < 1e6) => format!("{x}"),
        _ if (1e-3..1e6).contains(&x.abs()) => format!("{x:.3}"),
        _ => format!("{x:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Device;

    fn batch(rows: usize) -> Batch {
        let texts = (0..rows).map(|i| serde_json::json!(format!("answer {i} {}", "long ".repeat(20)))).collect();
        let numbers = |width: usize| {
            let cells = (0..rows * width).map(|i| i as f32 * 0.5).collect();
            Column::Tensor(Tensor::from_vec(cells, &[rows, width], &Device::Cpu).expect("a tensor"))
        };
        let columns = vec![
            ("text".to_string(), Column::List(std::sync::Arc::new(texts))),
            ("reward".to_string(), numbers(1)),
            ("old_logprob".to_string(), numbers(6)),
        ];
        Batch::from_columns(columns, &Device::Cpu).expect("a batch")
    }

    #[test]
    fn a_batch_is_a_table_of_the_given_width() {
        for width in [30, 60, 120] {
            let Shown::Table(table, left) = batch_table(&batch(20), width).expect("drawn") else { panic!("a table") };
            assert_eq!((table.rows.len(), table.rows[4].as_slice()), (9, ["…".to_string()].as_slice()));
            let widths = |row: &Vec<String>| row.iter().map(|cell| cell.as_str().width() + GAP).sum::<usize>();
            assert!(table.rows.iter().all(|row| widths(row) <= width + GAP), "{width}: {table:?}");
            assert!(table.head.contains(&"reward".to_string()), "{width}: {table:?}");
            assert_eq!(left.contains("old_logprob"), width < 100, "{width}: {left}");
        }
    }

    #[test]
    fn long_arrays_show_their_ends() {
        let engine = Engine::new();
        let shown = |text: &str| super::text(&engine, &engine.eval::<Dynamic>(text).expect("a value"), 0);
        assert_eq!(shown("[1, \"a\", 2.0, ()]"), "[1, \"a\", 2.0, ()]");
        let mut many = "[0".to_string();
        (1..20).for_each(|i| many += &format!(", {i}"));
        assert_eq!(shown(&(many + "]")), "[0, 1, 2, 3, … 12 more, 16, 17, 18, 19]");
        assert_eq!(shown("#{ a: 1, b: [#{}] }"), "#{ a: 1, b: [#{}] }");
    }
}
