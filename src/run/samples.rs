//! `samples.jsonl`: sampled rows, one a line: the step, the prompt, the answer, what it was worth, and the row's other
//! columns. Owns the lines; when they are written is `show.rs`'s.

use crate::data::{Batch, Column};
use crate::error::Result;
use serde_json::{Map, Value, json};
use std::str::FromStr;
use std::sync::Arc;

/// Columns that stand first, where the batch has them.
pub(super) const FIRST: [&str; 5] = ["prompt", "text", "reward", "advantage", "finished"];

/// Which rows are kept of what `run.show` is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kept {
    All,
    /// As many as it is asked to show, at every step.
    #[default]
    Shown,
    None,
}

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "shown" => Ok(Self::Shown),
            "none" => Ok(Self::None),
            other => Err(format!("expected all, shown or none, found {other:?}")),
        }
    }
}

/// One value a row.
enum Cells {
    Numbers(Vec<f64>),
    Values(Arc<Vec<Value>>),
}

/// The lines of these rows. Columns of `[B,T]` are left out.
///
/// # Errors
/// Numbers that cannot be read.
pub fn lines(batch: &Batch, step: u64, rows: &[usize]) -> Result<Vec<String>> {
    let mut columns: Vec<(&str, Cells)> = Vec::new();
    for (name, column) in batch.columns() {
        match column {
            Column::List(values) => columns.push((name, Cells::Values(values.clone()))),
            Column::Tensor(tensor) if tensor.len() == batch.len() => {
                columns.push((name, Cells::Numbers(tensor.to_vec()?)));
            }
            Column::Tensor(_) => {}
        }
    }
    columns.sort_by_key(|(name, _)| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    let line = |row: &usize| {
        let mut object = Map::from_iter([("step".to_string(), json!(step))]);
        for (name, cells) in &columns {
            let value = match cells {
                Cells::Numbers(numbers) => json!(numbers[*row]),
                Cells::Values(values) => values[*row].clone(),
            };
            // A column of that name does not hide the step.
            object.entry(*name).or_insert(value);
        }
        Value::Object(object).to_string()
    };
    Ok(rows.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Device, Tensor};

    #[test]
    fn a_line_has_the_rows_own_columns_and_no_tokens() {
        let numbers = |values: Vec<f32>, dims: [usize; 2]| {
            Column::Tensor(Tensor::from_vec(values, &dims, &Device::Cpu).expect("a tensor"))
        };
        let texts = |values: [&str; 2]| Column::List(Arc::new(values.map(Value::from).to_vec()));
        let columns = [
            ("answer", texts(["4", "\u{1b}[31m<b>"])),
            ("mask", numbers(vec![1.0; 6], [2, 3])),
            ("advantage", numbers(vec![1.0, f32::NAN], [2, 1])),
            ("text", texts(["four", "five\n"])),
        ];
        let columns = columns.into_iter().map(|(name, column)| (name.to_string(), column)).collect();
        let batch = Batch::from_columns(columns, &Device::Cpu).expect("a batch");
        let found = lines(&batch, 7, &[0, 1]).expect("lines");
        let expected = [
            r#"{"step":7,"text":"four","advantage":1.0,"answer":"4"}"#,
            r#"{"step":7,"text":"five\n","advantage":null,"answer":"\u001b[31m<b>"}"#,
        ];
        assert_eq!(found, expected);
    }
}
