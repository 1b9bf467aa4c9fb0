//! Batches in scripts: columns and mini-batches. Rows from texts are `encode`'s.

use super::convert::{Answer, count};
use crate::data::{self, Batch, Column, Prompts, stored};
use crate::error::{Error, Result};
use crate::run::{Session, Stream};
use crate::script::options::describe;
use crate::script::registry::{Doc, Registry};
use crate::script::value::to_json;
use crate::tensor::{Device, Tensor};
use rhai::{Array, Dynamic, INT, Map};
use serde_json::Value;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// A column is read as `b.name`; this one name is the number of rows.
const ROWS: &str = "rows";

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    reg.global().set_custom_type::<Batch>("Batch");
    for name in ["to_string", "to_debug"] {
        reg.global().set_native_fn(name, |b: &mut Batch| -> Answer<String> { Ok(b.to_string()) });
    }
    make(reg, session);
    files(reg, session);
    columns(reg, session);
    rows(reg);
    minibatches(reg, session);
}

fn make(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "batch(columns: map) -> Batch",
        "A batch of columns without tokens: what a loss can be tried on without a model.",
    )
    .param(
        "columns",
        "map",
        "tensors [B,1] or [B,T], arrays of B numbers, of B arrays of T numbers, or of B texts or maps",
    )
    .errors("No column, no row, or columns that do not agree in B and T.")
    .example(
        "let b = batch(#{ reward: [1, 0], mask: [[1, 1, 1], [1, 1, 0]], text: [\"a\", \"b\"] });\n\
         assert_eq(b.reward.shape, [2, 1]);\nassert_eq(b.mask.shape, [2, 3]);\nassert_eq(b.text[1], \"b\");",
    );
    let device = session.device();
    reg.add(doc, |m| {
        m.set_native_fn("batch", move |columns: Map| -> Answer<Batch> { Ok(from_map(&columns, &device)?) });
    });
}

fn files(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::named("save", "b.save(path: string)", "Writes a batch into a file: its tokens and all its columns.")
        .param("path", "string", "the file, which is replaced if it is there; its folder must exist")
        .errors("A path that cannot be written.")
        .source("the file is in the safetensors format, with what is no tensor in its metadata")
        .example(
            "let run = open_run(#{});\nlet b = batch(#{ reward: [1, 0], text: [\"a\", \"b\"] });\n\
             b.save(run.dir + \"/b.safetensors\");\n\
             assert_eq(load_batch(run.dir + \"/b.safetensors\").text, b.text);",
        );
    reg.add(doc, |m| {
        let session = session.clone();
        m.set_native_fn("save", move |b: &mut Batch, path: &str| -> Answer<()> {
            session.access().write(Path::new(path))?;
            Ok(stored::save(b, Path::new(path))?)
        });
    });
    let doc = Doc::new("load_batch(path: string) -> Batch", "A batch from the file that b.save wrote.")
        .param("path", "string", "the file")
        .errors("A file that cannot be read, or that holds something else.")
        .example(
            "let run = open_run(#{});\nbatch(#{ label: [1, -1] }).save(run.dir + \"/b.safetensors\");\n\
             assert_eq(load_batch(run.dir + \"/b.safetensors\").label, [[1], [-1]]);",
        );
    let session = session.clone();
    reg.add(doc, |m| {
        let load = move |path: &str| -> Answer<Batch> {
            session.access().read(Path::new(path))?;
            Ok(stored::load(Path::new(path), &session.device())?)
        };
        m.set_native_fn("load_batch", load);
    });
}

fn columns(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::named(
        "b.name",
        "b.name -> Tensor | array",
        "Reads a column: a tensor [B,1] or [B,T], or an array of B texts or values. `b.rows` is B.",
    )
    .errors("A column that does not exist; the nearest name is suggested.")
    .example(
        "let b = batch(#{ reward: [1, 0] });\nassert_eq(b.reward.to_array(), [[1.0], [0.0]]);\nassert_eq(b.rows, 2);",
    );
    reg.add(doc, |m| {
        m.set_indexer_get_fn(|b: &mut Batch, name: &str| -> Answer<Dynamic> {
            if name == ROWS {
                return Ok(Dynamic::from(b.len() as INT));
            }
            Ok(match b.get(name)? {
                Column::Tensor(tensor) => Dynamic::from(tensor),
                Column::List(list) => {
                    Dynamic::from(list.iter().map(rhai::serde::to_dynamic).collect::<Answer<Array>>()?)
                }
            })
        });
    });
    let doc = Doc::named(
        "b.name =",
        "b.name = value",
        "Sets a column, new or not. A batch is a value: other variables that hold it keep theirs.",
    )
    .param("value", "Tensor or array", "[B,1] or [B,T]; B numbers; B arrays of T numbers; or B texts or maps")
    .errors(
        "A shape that fits neither the rows nor the tokens; an array of another length; a `reward` [B,1] that is NaN or \
         infinite, with the text of its row.",
    )
    .example(
        "let a = batch(#{ reward: [1, 0] });\nlet b = a;\nb.reward = b.reward * 2;\nb.name = [\"x\", \"y\"];\n\
         assert_eq(b.reward.to_array(), [[2.0], [0.0]]);\nassert_eq(a.reward.to_array(), [[1.0], [0.0]]);",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_indexer_set_fn(move |b: &mut Batch, name: &str, value: Dynamic| -> Answer<()> {
            if name == ROWS {
                return Err(Error::value("`rows` is the number of rows and cannot be set")
                    .hint("give the column another name")
                    .into());
            }
            let column = read_column(name, &value, b.device())?;
            if let Column::Tensor(values) = &column {
                run.watch(name, values, b.tensor("mask").ok().as_ref())?;
            }
            Ok(b.set(name, column)?)
        });
    });
    let doc = Doc::named("len", "b.len() -> int", "B: how many rows a batch has; also of prompts.")
        .example("assert_eq(batch(#{ reward: [1, 0, 1] }).len(), 3);");
    reg.add(doc, |m| {
        m.set_native_fn("len", |b: &mut Batch| -> Answer<INT> { Ok(b.len() as INT) });
        m.set_native_fn("len", |prompts: &mut Prompts| -> Answer<INT> { Ok(prompts.len() as INT) });
    });
    let doc = Doc::named("columns", "b.columns() -> array", "The names of a batch's columns, sorted.")
        .example("assert_eq(batch(#{ reward: [1, 0], mask: [1, 1] }).columns(), [\"mask\", \"reward\"]);");
    reg.add(doc, |m| {
        m.set_native_fn("columns", |b: &mut Batch| -> Answer<Array> {
            Ok(b.names().into_iter().map(|name| name.to_string().into()).collect())
        });
    });
}

fn rows(reg: &mut Registry) {
    let doc = Doc::named(
        "select",
        "b.select(indices: array) -> Batch",
        "The rows at these indices, in that order, every column alike; T shrinks to the longest of them.",
    )
    .param("indices", "array of int", "row numbers from 0; a row may come more than once")
    .errors("No index, an index outside the batch, something that is no row number (a mask of 0 and 1 is not one).")
    .example(
        "let b = batch(#{ reward: [1, 2, 3], text: [\"a\", \"b\", \"c\"] });\n\
         let s = b.select([2, 0]);\n\
         assert_eq(s.reward.to_array(), [[3.0], [1.0]]);\nassert_eq(s.text, [\"c\", \"a\"]);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("select", |b: &mut Batch, indices: Dynamic| -> Answer<Batch> {
            Ok(b.select(&read_indices(&indices, b.len())?)?)
        });
    });
    let doc = Doc::new(
        "join(batches: array) -> Batch",
        "The rows of several batches one after the other; T is that of the widest, narrower columns are filled with 0.",
    )
    .param("batches", "array of Batch", "all with the same columns, sampled at the same temperature")
    .errors(
        "No batch; a column that one of them lacks; a column that is a list, per row or per token here and something \
         else there; different temperatures or tokenizers; tokens in only some of them.",
    )
    .source("the number of rows per group is kept where all agree")
    .example(
        "let model = load_model(\"tiny\");\n\
         let a = encode(model, [#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
         let b = encode(model, [#{ prompt: \"5+7=\", completion: \"12\" }]);\n\
         let both = join([a, b]);\n\
         assert_eq(both.text, [\"3\", \"12\"]);\n\
         assert_eq(both.mask.to_array(), [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("join", |batches: Array| -> Answer<Batch> {
            let read = |item: Dynamic| {
                let found = describe(&item);
                item.try_cast::<Batch>()
                    .ok_or_else(|| Error::value(format!("`join` takes an array of batches, found {found} in it")))
            };
            let batches = batches.into_iter().map(read).collect::<Result<Vec<_>>>()?;
            Ok(data::join(&batches)?)
        });
    });
}

/// Row numbers of a batch of `rows` rows.
fn read_indices(value: &Dynamic, rows: usize) -> Result<Vec<usize>> {
    let wrong = |found: String| {
        Error::value(format!("`select`: expected an array of row numbers from 0 to {}, found {found}", rows - 1))
            .hint("give the numbers of the rows: b.select([0, 2])")
    };
    let Ok(items) = value.as_array_ref() else { return Err(wrong(describe(value))) };
    let index = |item: &Dynamic| {
        let index = item.as_int().ok().and_then(|i| usize::try_from(i).ok()).filter(|&i| i < rows);
        index.ok_or_else(|| wrong(describe(item)))
    };
    items.iter().map(index).collect()
}

fn minibatches(reg: &mut Registry, session: &Rc<Session>) {
    let about = "The batch cut into parts in a random order that follows the run's seed, every row once per epoch; \
                 the last part may be shorter.";
    let doc = Doc::named("minibatches", "b.minibatches(rows: int, epochs: int) -> array", about)
        .param("rows", "int", "rows per part")
        .param("epochs", "int", "passes over the batch, each in an order of its own")
        .errors("A size or number of epochs below 1.")
        .example(
            "let b = batch(#{ reward: [1, 2, 3, 4, 5] });\nlet parts = b.minibatches(2, 1);\n\
             assert_eq(parts.len(), 3);\nlet total = 0.0;\nfor part in parts { total += sum(part.reward).item(); }\n\
             assert_eq(total, 15);",
        );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("minibatches", move |b: &mut Batch, rows: INT, epochs: INT| -> Answer<Array> {
            let (rows, epochs) = sizes("minibatches", "rows", rows, epochs)?;
            Ok(array(b.minibatches(rows, epochs, run.key(Stream::Shuffle))?))
        });
    });
    let doc = Doc::named(
        "minibatches_of_groups",
        "b.minibatches_of_groups(groups: int, epochs: int, n?: int) -> array",
        "Like `minibatches`, but n adjacent rows stay together and in order.",
    )
    .param("groups", "int", "groups per part")
    .param("epochs", "int", "passes over the batch")
    .param("n", "int", "rows per group; as many as `sample` made per prompt unless given")
    .errors("A batch that was not sampled, without n; rows that are no multiple of n; a number below 1.")
    .example(
        "let b = batch(#{ reward: [1, 2, 11, 12] });\n\
         for part in b.minibatches_of_groups(1, 1, 2) { assert_close(pair_diff(part.reward), [[-1.0]]); }",
    );
    let (run, given) = (session.clone(), session.clone());
    reg.add(doc, |m| {
        m.set_native_fn("minibatches_of_groups", move |b: &mut Batch, groups: INT, epochs: INT| -> Answer<Array> {
            let (groups, epochs) = sizes("minibatches_of_groups", "groups", groups, epochs)?;
            Ok(array(b.minibatches_of_groups(groups, epochs, None, run.key(Stream::Shuffle))?))
        });
        m.set_native_fn(
            "minibatches_of_groups",
            move |b: &mut Batch, groups: INT, epochs: INT, n: INT| -> Answer<Array> {
                let (groups, epochs) = sizes("minibatches_of_groups", "groups", groups, epochs)?;
                let n = count("minibatches_of_groups", "n", n)?;
                Ok(array(b.minibatches_of_groups(groups, epochs, Some(n), given.key(Stream::Shuffle))?))
            },
        );
    });
    let doc = Doc::named(
        "minibatches_of_pairs",
        "b.minibatches_of_pairs(pairs: int, epochs: int) -> array",
        "Like `minibatches`, but rows 2k and 2k+1 stay together and in order.",
    )
    .param("pairs", "int", "pairs per part")
    .param("epochs", "int", "passes over the batch")
    .errors("An odd number of rows; a number below 1.")
    .example(
        "let b = batch(#{ score: [2, 1, 12, 11] });\n\
         for part in b.minibatches_of_pairs(1, 1) { assert_close(pair_diff(part.score), [[1.0]]); }",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("minibatches_of_pairs", move |b: &mut Batch, pairs: INT, epochs: INT| -> Answer<Array> {
            let (pairs, epochs) = sizes("minibatches_of_pairs", "pairs", pairs, epochs)?;
            Ok(array(b.minibatches_of_pairs(pairs, epochs, run.key(Stream::Shuffle))?))
        });
    });
}

fn from_map(columns: &Map, device: &Device) -> Result<Batch> {
    let read = |(name, value): (&rhai::Identifier, &Dynamic)| Ok((name.to_string(), read_column(name, value, device)?));
    Batch::from_columns(columns.iter().map(read).collect::<Result<_>>()?, device)
}

/// A tensor, or an array: of numbers `[B,1]`, of arrays of numbers `[B,T]`, else a list.
fn read_column(name: &str, value: &Dynamic, device: &Device) -> Result<Column> {
    if let Some(tensor) = value.read_lock::<Tensor>() {
        return Ok(Column::Tensor(tensor.clone()));
    }
    let Ok(items) = value.as_array_ref() else {
        return Err(Error::value(format!(
            "the column `{name}` must be a tensor or an array, found {}",
            describe(value)
        ))
        .hint("one entry per row: a tensor [B,1] or [B,T], or an array of B entries"));
    };
    if items.iter().all(|item| number(item).is_some()) {
        let values: Vec<f64> = items.iter().filter_map(number).collect();
        return Ok(Column::Tensor(on(values, &[items.len(), 1], device)?));
    }
    if let Some(rows) = numbers_by_row(&items) {
        let width = rows.first().map_or(0, Vec::len);
        if let Some(i) = rows.iter().position(|row| row.len() != width) {
            let found = rows[i].len();
            return Err(Error::shape(format!(
                "the column `{name}` is ragged: row 0 has {width} numbers, row {i} has {found}"
            ))
            .hint("pad the shorter rows; the mask says what counts"));
        }
        return Ok(Column::Tensor(on(rows.concat(), &[rows.len(), width], device)?));
    }
    if let Some(item) = items.iter().find(|item| item.is::<Tensor>() || number(item).is_some()) {
        let what = format!("the column `{name}` is an array of different things, among them {}", describe(item));
        return Err(
            Error::value(what).hint("give numbers only, or texts or maps only; tensors are joined by concat or stack")
        );
    }
    Ok(Column::List(Arc::new(items.iter().map(to_json).collect::<Vec<Value>>())))
}

fn on(values: Vec<f64>, dims: &[usize], device: &Device) -> Result<Tensor> {
    Tensor::from_vec(values.into_iter().map(|x| x as f32).collect(), dims, device)
}

/// A number; true and false count as 1 and 0.
fn number(value: &Dynamic) -> Option<f64> {
    let int = value.as_int().ok().map(|i| i as f64);
    int.or_else(|| value.as_float().ok()).or_else(|| value.as_bool().ok().map(|b| f64::from(u8::from(b))))
}

/// All entries as arrays of numbers, or none.
fn numbers_by_row(items: &Array) -> Option<Vec<Vec<f64>>> {
    items.iter().map(|row| row.as_array_ref().ok()?.iter().map(number).collect()).collect()
}

fn sizes(function: &str, name: &str, size: INT, epochs: INT) -> Result<(usize, usize)> {
    Ok((count(function, name, size)?, count(function, "epochs", epochs)?))
}

fn array(batches: Vec<Batch>) -> Array {
    batches.into_iter().map(Dynamic::from).collect()
}
