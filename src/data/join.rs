//! Batches put one after the other.

use super::batch::{Batch, Column};
use crate::budget::json;
use crate::error::{Error, Result};
use crate::model::rows::MOST_ROWS;
use crate::model::rows::Rows;
use crate::tensor::arrange::{Run, rearrange};
use crate::tensor::shape::show;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The rows of all `parts` in order. T is that of the widest; narrower columns are filled with 0. The group size is
/// kept where all agree.
///
/// # Errors
/// No batch; a column that some lack, or that is a list here and a tensor there, or per row here and per token there;
/// rows with tokens beside rows without; rows sampled at different temperatures, or made by
/// different tokenizers. Batches are counted from 0.
pub fn join(parts: &[Batch]) -> Result<Batch> {
    let Some(first) = parts.first() else {
        return Err(Error::value("`join`: there is no batch, expected at least one"));
    };
    let rows: usize = parts.iter().map(Batch::len).sum();
    if rows > MOST_ROWS {
        return Err(Error::value(format!("`join`: a batch of {rows} rows is too large: at most {MOST_ROWS}")));
    }
    for (i, part) in parts.iter().enumerate().skip(1) {
        if part.temperature() != first.temperature() {
            let (a, b) = (first.temperature(), part.temperature());
            return Err(Error::value(format!("`join`: batch 0 has temperature {a}, batch {i} has {b}"))
                .hint("log-probabilities follow one temperature per batch: join batches sampled at the same one"));
        }
        if part.rows().is_some() != first.rows().is_some() {
            let (with, without) = if part.rows().is_some() { (i, 0) } else { (0, i) };
            return Err(Error::value(format!("`join`: batch {with} has tokens, batch {without} has columns only")));
        }
    }
    let names: BTreeSet<&str> = parts.iter().flat_map(Batch::names).collect();
    let columns = names.into_iter().map(|name| Ok((name.to_string(), column(name, parts)?)));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let rows = parts.iter().map(Batch::rows).collect::<Option<Vec<_>>>();
    let rows = rows.map(joined).transpose()?;
    let group = first.group().filter(|_| parts.iter().all(|part| part.group() == first.group()));
    Batch::assemble(rows, first.temperature(), columns, first.device()).map(|batch| batch.with_group(group))
}

/// All rows, one after the other.
fn joined(parts: Vec<&Arc<Rows>>) -> Result<Arc<Rows>> {
    let known = parts.iter().enumerate().filter_map(|(i, rows)| Some((i, rows.vocabulary()?)));
    let known: Vec<(usize, u64)> = known.collect();
    if let Some(pair) = known.windows(2).find(|pair| pair[0].1 != pair[1].1) {
        let (a, b) = (pair[0].0, pair[1].0);
        return Err(Error::value(format!("`join`: batches {a} and {b} hold token ids of different tokenizers"))
            .hint("encode the texts of both with one model"));
    }
    let vocabulary = known.first().filter(|_| known.len() == parts.len()).map(|(_, vocabulary)| *vocabulary);
    Ok(Rows::of(parts.into_iter().flat_map(|rows| rows.iter().cloned()).collect(), vocabulary))
}

/// One column of all parts.
fn column(name: &str, parts: &[Batch]) -> Result<Column> {
    let lacks = |i: usize| {
        Error::value(format!("`join`: batch {i} has no column `{name}`, but another one has"))
            .hint("set it in every batch before joining them, or join them before setting it")
    };
    let found = parts.iter().enumerate().map(|(i, part)| part.get(name).map_err(|_| lacks(i)));
    let found = found.collect::<Result<Vec<_>>>()?;
    let mut lists: Vec<Value> = Vec::new();
    let mut tensors = Vec::new();
    for column in &found {
        match column {
            Column::List(list) => lists.extend(json::cloned(list.iter())?),
            Column::Tensor(tensor) => tensors.push(tensor),
        }
    }
    if tensors.is_empty() {
        return Ok(Column::List(Arc::new(lists)));
    }
    if tensors.len() < parts.len() {
        return Err(Error::value(format!(
            "`join`: the column `{name}` is a list in one batch and a tensor in another"
        )));
    }
    let width = tensors.iter().map(|tensor| tensor.dims()[1]).max().unwrap_or(1);
    // A column that is per token in one batch is so in all: [B,1] is per token only where T is 1.
    let odd = parts
        .iter()
        .zip(&tensors)
        .position(|(part, tensor)| width > 1 && tensor.dims()[1] == 1 && part.width().is_some_and(|width| width > 1));
    if let Some(i) = odd {
        return Err(Error::shape(format!(
            "`join`: the column `{name}` is per row in batch {i} (shape {}), but per token in another",
            show(tensors[i].dims())
        )));
    }
    let rows: usize = parts.iter().map(Batch::len).sum();
    let mut runs = Vec::with_capacity(rows);
    for (input, tensor) in tensors.iter().enumerate() {
        let len = tensor.dims()[1];
        runs.extend((0..tensor.dims()[0]).map(|i| (input, i * len, len)));
    }
    let run = |(row, (input, from, len))| Run { to: row * width, input, from, len };
    let runs = runs.into_iter().enumerate().map(run).collect();
    Ok(Column::Tensor(rearrange(&tensors, &[rows, width], runs)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rows::Row;
    use crate::tensor::{Device, Tensor};

    fn ragged(lengths: &[usize], temperature: f64) -> Batch {
        let row = |(i, &n): (usize, &usize)| {
            Row::new([i as u32 + 1], (0..n as u32).map(|t| 100 * i as u32 + t).collect::<Vec<_>>())
        };
        let rows = lengths.iter().enumerate().map(row).collect();
        Batch::new(Rows::new(rows), temperature, &Device::Cpu).expect("a batch")
    }

    fn set(b: &mut Batch, name: &str, dims: [usize; 2]) {
        let values = (0..dims[0] * dims[1]).map(|i| i as f32 + 1.0).collect();
        let tensor = Tensor::from_vec(values, &dims, &Device::Cpu).expect("a tensor");
        b.set(name, Column::Tensor(tensor)).expect("fits");
    }

    fn read(batch: &Batch, name: &str) -> Vec<Vec<f64>> {
        batch.tensor(name).and_then(|t| t.to_rows()).expect("rows")
    }

    #[test]
    fn rows_follow_each_other_and_narrow_columns_are_filled() {
        let (mut a, mut b) = (ragged(&[1, 1], 0.7).with_group(Some(2)), ragged(&[3, 2], 0.7).with_group(Some(2)));
        for part in [&mut a, &mut b] {
            set(part, "reward", [2, 1]);
            part.insert_list("text", vec!["x".into(), "y".into()]);
        }
        let j = join(&[a.clone(), b.clone()]).expect("joins");
        assert_eq!((j.len(), j.width(), j.group(), j.temperature()), (4, Some(3), Some(2), 0.7));
        assert_eq!(read(&j, "mask"), [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]);
        assert_eq!(read(&j, "reward"), [[1.0], [2.0], [1.0], [2.0]]);
        assert_eq!(read(&j, "length"), [[1.0], [1.0], [3.0], [2.0]]);
        assert_eq!(j.list("text").expect("a list").len(), 4);
        assert_eq!(j.rows().expect("tokens")[3].completion[..], [100, 101]);
        // What was joined can be taken apart again.
        let again = j.select(&[2, 3]).expect("rows");
        assert_eq!(read(&again, "mask"), read(&b, "mask"));
        assert_eq!(join(&[a.with_group(None), b]).expect("joins").group(), None);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let text = |parts: &[Batch]| join(parts).expect_err("must be refused").what;
        assert_eq!(text(&[]), "`join`: there is no batch, expected at least one");
        let (a, b) = (ragged(&[2, 2], 1.0), ragged(&[2, 2], 0.5));
        assert_eq!(text(&[a.clone(), b]), "`join`: batch 0 has temperature 1, batch 1 has 0.5");
        let mut b = a.clone();
        set(&mut b, "reward", [2, 1]);
        let lacking = "has no column `reward`, but another one has";
        assert_eq!(text(&[a.clone(), b.clone()]), format!("`join`: batch 0 {lacking}"));
        assert_eq!(text(&[b.clone(), a.clone()]), format!("`join`: batch 1 {lacking}"));
        let mut c = a.clone();
        set(&mut c, "reward", [2, 2]);
        let mixed = "`join`: the column `reward` is per row in batch 1 (shape [2,1]), but per token in another";
        assert_eq!(text(&[c, b.clone()]), mixed);
        let mut c = a.clone();
        c.insert_list("reward", vec!["x".into(), "y".into()]);
        assert_eq!(text(&[c, b]), "`join`: the column `reward` is a list in one batch and a tensor in another");
        let plain = Column::Tensor(Tensor::from_vec(vec![1.0; 2], &[2, 1], &Device::Cpu).expect("a tensor"));
        let plain = Batch::from_columns(vec![("length".into(), plain)], &Device::Cpu).expect("a batch");
        assert_eq!(text(&[plain, a]), "`join`: batch 1 has tokens, batch 0 has columns only");
    }
}
