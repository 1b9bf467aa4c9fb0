//! A batch as a file, so that objectives can be compared on the same numbers later and elsewhere: safetensors with the
//! columns that are tensors, the token ids, and in its metadata what is no tensor, as JSON.

use super::batch::{Batch, Column};
use crate::engine::COLDEST;
use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::model::rows::{Row, Rows};
use crate::tensor::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// The key of the metadata, and what `format` must be.
const KEY: &str = "rhopo";
const FORMAT: &str = "batch/1";
/// Goes before the names of columns, so that none can meet those of the tokens.
const COLUMN: &str = "column.";
const PROMPT: [&str; 2] = ["rows.prompt", "rows.prompt_length"];
const COMPLETION: [&str; 2] = ["rows.completion", "rows.completion_length"];

/// What stands in the metadata.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: String,
    temperature: f64,
    group: Option<usize>,
    lists: BTreeMap<String, Vec<Value>>,
}

/// A tensor as bytes.
struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Writes a batch; a file that is there is replaced once the new one is whole.
///
/// # Errors
/// A path that cannot be written.
pub fn save(b: &Batch, path: &Location) -> Result<()> {
    // What is refused here is refused before anything is written.
    let bytes = to_bytes(b, path)?;
    path.folder().iter().for_each(files::tidy);
    files::write(path, bytes)
}

/// What `save` writes; `path` is for errors.
///
/// # Errors
/// Columns that have no form in the file.
pub fn to_bytes(b: &Batch, path: &Path) -> Result<Vec<u8>> {
    let mut stored = Vec::new();
    let mut lists = BTreeMap::new();
    for (name, column) in b.columns() {
        match column {
            Column::List(list) => drop(lists.insert(name.to_string(), list.to_vec())),
            Column::Tensor(tensor) => stored.push(column_bytes(name, tensor)?),
        }
    }
    if let Some(rows) = b.rows() {
        stored.extend(ids(PROMPT, rows.iter().map(|row| &*row.prompt)));
        stored.extend(ids(COMPLETION, rows.iter().map(|row| &*row.completion)));
    }
    let head = Head { format: FORMAT.into(), temperature: b.temperature(), group: b.group(), lists };
    let failed = |e: &dyn std::fmt::Display| Error::file(format!("cannot write {}: {e}", path.display()));
    let metadata = HashMap::from([(KEY.to_string(), serde_json::to_string(&head).map_err(|e| failed(&e))?)]);
    let views = stored.iter().map(|s| Ok((s.name.as_str(), TensorView::new(s.dtype, s.shape.clone(), &s.bytes)?)));
    let views: Vec<_> =
        views.collect::<std::result::Result<_, safetensors::SafeTensorError>>().map_err(|e| failed(&e))?;
    safetensors::serialize(views, Some(metadata)).map_err(|e| failed(&e))
}

fn column_bytes(name: &str, tensor: &Tensor) -> Result<Stored> {
    let values = tensor.to_vec()?;
    let (dtype, bytes) = match tensor.dtype() {
        DType::F64 => (Dtype::F64, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
        _ => (Dtype::F32, values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect()),
    };
    Ok(Stored { name: format!("{COLUMN}{name}"), dtype, shape: tensor.dims().to_vec(), bytes })
}

/// Token ids of all rows in a line, and how many each row has.
fn ids<'a>([name, lengths]: [&str; 2], rows: impl Iterator<Item = &'a [u32]>) -> [Stored; 2] {
    let rows: Vec<&[u32]> = rows.collect();
    let stored = |name: &str, numbers: Vec<u32>| Stored {
        name: name.to_string(),
        dtype: Dtype::U32,
        shape: vec![numbers.len()],
        bytes: numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    [stored(name, rows.concat()), stored(lengths, rows.iter().map(|row| row.len() as u32).collect())]
}

/// Reads what `save` wrote.
///
/// # Errors
/// A file that cannot be read, that is no stored batch, or whose parts do not fit each other.
pub fn load(path: &Location, device: &Device) -> Result<Batch> {
    let shown = path.display();
    let bytes = files::bytes(path)?;
    let broken = |what: &dyn std::fmt::Display| {
        Error::file(format!("{shown} is not a stored batch: {what}")).hint("load_batch reads what b.save(path) wrote")
    };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| broken(&e))?;
    let head =
        metadata.metadata().as_ref().and_then(|map| map.get(KEY)).ok_or_else(|| broken(&"it says nothing of rhopo"))?;
    let head: Head = serde_json::from_str(head).map_err(|e| broken(&e))?;
    if head.format != FORMAT {
        return Err(broken(&format!("its format is {:?}, expected {FORMAT:?}", head.format)));
    }
    if !(head.temperature >= COLDEST && head.temperature.is_finite()) {
        return Err(broken(&format!("its temperature is {:e}, expected a number from {COLDEST:e}", head.temperature)));
    }
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| broken(&e))?;
    let mut columns: Vec<(String, Column)> =
        head.lists.into_iter().map(|(name, list)| (name, Column::List(Arc::new(list)))).collect();
    for (name, view) in tensors.iter() {
        if let Some(name) = name.strip_prefix(COLUMN) {
            columns.push((name.to_string(), Column::Tensor(tensor(&view, device).map_err(|e| broken(&e.what))?)));
        }
    }
    // The file's order is that of sizes.
    columns.sort_by(|a, b| a.0.cmp(&b.0));
    let rows = match tensors.names().contains(&PROMPT[0]) {
        true => Some(read_rows(&tensors).map_err(|e| broken(&e))?),
        false => None,
    };
    let batch = Batch::assemble(rows, head.temperature, columns, device).map_err(|e| broken(&e.what))?;
    Ok(batch.with_group(head.group))
}

fn tensor(view: &TensorView, device: &Device) -> Result<Tensor> {
    let values: Vec<f64> = match view.dtype() {
        Dtype::F64 => numbers(view.data()).map(f64::from_le_bytes).collect(),
        Dtype::F32 => numbers(view.data()).map(|bytes| f64::from(f32::from_le_bytes(bytes))).collect(),
        other => return Err(Error::file(format!("a column of type {other:?}, expected F32 or F64"))),
    };
    let dtype = if view.dtype() == Dtype::F64 { DType::F64 } else { DType::F32 };
    Tensor::from_vec_f64(values, view.shape(), device)?.to_dtype(dtype)
}

fn numbers<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.chunks_exact(N).map(|chunk| std::array::from_fn(|i| chunk[i]))
}

fn read_rows(tensors: &SafeTensors) -> std::result::Result<Arc<Rows>, String> {
    let list = |name: &str| {
        let view = tensors.tensor(name).map_err(|e| e.to_string())?;
        match view.dtype() {
            Dtype::U32 => Ok(numbers(view.data()).map(u32::from_le_bytes).collect::<Vec<u32>>()),
            other => Err(format!("{name} is of type {other:?}, expected U32")),
        }
    };
    let cut = |[name, lengths]: [&str; 2]| {
        let (all, lengths) = (list(name)?, list(lengths)?);
        let mut rest = &all[..];
        let mut rows: Vec<Arc<[u32]>> = Vec::with_capacity(lengths.len());
        for length in lengths {
            let (row, after) = rest.split_at_checked(length as usize).ok_or(format!("{name} is too short"))?;
            rows.push(row.into());
            rest = after;
        }
        if rest.is_empty() { Ok(rows) } else { Err(format!("{name} is too long")) }
    };
    let (prompts, completions) = (cut(PROMPT)?, cut(COMPLETION)?);
    if prompts.len() != completions.len() {
        return Err(format!("{} prompts and {} completions", prompts.len(), completions.len()));
    }
    let rows = prompts.into_iter().zip(completions).map(|(prompt, completion)| Row::new(prompt, completion));
    Ok(Rows::new(rows.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled() -> Batch {
        let row = |n: usize| Row::new([1, 2], vec![7; n]);
        let mut b = Batch::new(Rows::new(vec![row(3), row(1), row(0)]), 0.7, &Device::Cpu).expect("a batch");
        let x = Tensor::from_vec_f64(vec![0.1, 2e-300, -3.0], &[3, 1], &Device::Cpu).expect("a tensor");
        b.set("fine", Column::Tensor(x)).expect("fits");
        b.set("text", Column::List(Arc::new(vec!["a".into(), Value::Null, serde_json::json!({"x": [1]})])))
            .expect("fits");
        b.with_group(Some(3))
    }

    #[test]
    fn what_is_loaded_is_what_was_saved() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = crate::files::anywhere(dir.path()).join("b.safetensors");
        for b in [
            sampled(),
            Batch::from_columns(vec![("x".into(), sampled().get("fine").expect("there"))], &Device::Cpu)
                .expect("columns"),
        ] {
            save(&b, &path).expect("saved");
            let back = load(&path, &Device::Cpu).expect("loaded");
            assert_eq!((back.names(), back.group(), back.temperature()), (b.names(), b.group(), b.temperature()));
            let tokens = |b: &Batch| b.rows().map(|rows| rows.iter().cloned().collect::<Vec<_>>());
            assert_eq!(tokens(&back), tokens(&b));
            for (name, column) in b.columns() {
                match (column, back.get(name).expect("there")) {
                    (Column::List(a), Column::List(b)) => assert_eq!(*a, b),
                    (Column::Tensor(a), Column::Tensor(b)) => {
                        assert_eq!((a.to_vec().ok(), a.dims(), a.dtype()), (b.to_vec().ok(), b.dims(), b.dtype()));
                    }
                    _ => panic!("{name} is of another kind"),
                }
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_temperature_that_gives_no_log_probs_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("b.safetensors");
        let rows = || Rows::new(vec![Row::new([1, 2], [7])]);
        for temperature in [0.0, -1.0, 1e-300] {
            save(&Batch::new(rows(), temperature, &Device::Cpu).expect("a batch"), &crate::files::anywhere(&path))
                .expect("saved");
            let e = load(&crate::files::anywhere(&path), &Device::Cpu).expect_err("refused");
            let expected = format!("its temperature is {temperature:e}, expected a number from 1e-30");
            assert!(e.what.ends_with(&expected), "{e}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = crate::files::anywhere(dir.path()).join("b.safetensors");
        for bytes in [&b"no tensors"[..], b"\x02\0\0\0\0\0\0\0{}", b""] {
            std::fs::write(&path, bytes).expect("written");
            let e = load(&path, &Device::Cpu).expect_err("refused");
            assert!(e.what.contains("is not a stored batch") && e.hint.is_some(), "{e:?}");
        }
        assert!(
            load(&crate::files::anywhere(dir.path()).join("none"), &Device::Cpu)
                .expect_err("refused")
                .what
                .starts_with("cannot read")
        );
        assert!(
            save(&sampled(), &crate::files::anywhere(dir.path()).join("none/b"))
                .expect_err("refused")
                .what
                .starts_with("cannot write")
        );
    }
}
