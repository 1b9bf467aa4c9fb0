//! Batches in scripts: columns and mini-batches. Rows from texts are `encode`'s.

use super::convert;
use super::encode::{AnyPrompts, AskedAnew};
use super::model::{AnyModel, Frozen};
use crate::data::{self, Batch, Column, stored};
use crate::error::{Error, Result};
use crate::run::Stream;
use crate::script::lang::native::{
    Call, Fallible, Handle, IntoScript, OptionValue, Options, Place, Registry, Typed, options,
};
use crate::script::lang::value::{describe, from_json, to_json};
use crate::tensor::{Device, Tensor};
use rhai::{Array, Dynamic, ImmutableString, Map};
use serde_json::Value;
use std::sync::Arc;

/// A column is read as `b.name`; this one name is the number of rows.
const ROWS: &str = "rows";

impl Handle for Batch {
    const NAME: &'static str = "Batch";
    const RECEIVER: &'static str = "b";
}

pub fn register(reg: &mut Registry) {
    reg.handle::<Batch>(ToString::to_string);
    reg.function("batch", ["columns"], |call: &Call, columns: Map| from_map(&columns, &call.session.device()));
    files(reg);
    columns(reg);
    rows(reg);
    minibatches(reg);
}

fn files(reg: &mut Registry) {
    reg.function("save", ["path"], |call: &Call, b: &mut Batch, path: String| -> Result<()> {
        stored::save(b, &call.session.access().write(&path)?)
    });
    reg.function("load_batch", ["path"], |call: &Call, path: String| -> Result<Batch> {
        stored::load(&call.session.access().read(&path)?, &call.session.device())
    });
}

/// What a column holds, as scripts do.
struct Values(Dynamic);

impl Typed for Values {
    const TYPE: &'static str = "Tensor | array";
}

impl IntoScript for Values {
    fn write(self) -> Dynamic {
        self.0
    }
}

fn columns(reg: &mut Registry) {
    reg.column(|b: &mut Batch, name: ImmutableString| -> Fallible<Values> {
        if name == ROWS {
            return Ok(Values(b.len().write()));
        }
        Ok(Values(match b.get(&name)? {
            Column::Tensor(tensor) => tensor.write(),
            Column::List(list) => list.iter().map(from_json).collect::<Array>().into(),
        }))
    });
    reg.set_column(|call: &Call, b: &mut Batch, name: ImmutableString, value: Dynamic| -> Result<()> {
        if name == ROWS {
            return Err(
                Error::value("`rows` is the number of rows and cannot be set").hint("give the column another name")
            );
        }
        let column = read_column(&name, &value, b.device())?;
        if let Column::Tensor(values) = &column {
            call.session.watch(&name, values, b.tensor("mask").ok().as_ref())?;
        }
        b.set(&name, column)
    });
    reg.function("len", [], |b: &mut Batch| b.len());
    reg.form([], |prompts: &mut AnyPrompts| match prompts {
        AnyPrompts::Fresh(prompts) => prompts.len(),
        AnyPrompts::Reset(states) => states.len(),
    });
    reg.function("columns", [], |b: &mut Batch| b.names().into_iter().map(str::to_string).collect::<Vec<_>>());
}

fn rows(reg: &mut Registry) {
    reg.function("select", ["indices"], |b: &mut Batch, indices: Dynamic| b.select(&read_indices(&indices, b.len())?));
    reg.function(
        "under",
        ["prompts", "options"],
        |call: &Call, b: &mut Batch, prompts: AskedAnew, Options(Under { model, special }): Options<Under>| {
            let rows = b.require_rows("under")?;
            let reader = match model {
                Some(AnyModel(model)) => Some((*model).clone()),
                None => call.session.reader(rows.vocabulary()),
            };
            let reader = reader.ok_or_else(|| {
                Error::value("under: it is not known by which tokenizer these rows were made")
                    .hint("name a model that has it: b.under(prompts, #{ model: policy })")
            })?;
            b.under(&prompts.0, &reader, special)
        },
    );
    reg.function("join", ["batches"], |batches: Array| -> Result<Batch> {
        let read = |item: Dynamic| {
            let found = describe(&item);
            item.try_cast::<Batch>()
                .ok_or_else(|| Error::value(format!("`join` takes an array of batches, found {found} in it")))
        };
        data::join(&batches.into_iter().map(read).collect::<Result<Vec<_>>>()?)
    });
}

options! {
    struct Under {
        /// whose tokenizer and chat template read the prompts; the first opened model's that has the rows' tokenizer unless
        /// given
        model: Option<AnyModel>,
        /// whether special tokens written out in prompts are control tokens
        special: bool = false,
    }
}

impl OptionValue for Batch {
    const TYPE: &'static str = "Batch";

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        value.try_cast_result().map_err(|other| place.refused("a batch", &other))
    }
}

impl OptionValue for AnyModel {
    const TYPE: &'static str = "Model | Frozen";

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match value.try_cast_result::<Frozen>() {
            Ok(Frozen(model)) => Ok(Self(model)),
            Err(value) => value.try_cast_result().map(Self).map_err(|other| place.refused("a model", &other)),
        }
    }
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

fn minibatches(reg: &mut Registry) {
    reg.function("minibatches", ["rows", "epochs"], |call: &Call, b: &mut Batch, rows: usize, epochs: usize| {
        b.minibatches(rows, epochs, call.session.key(Stream::Shuffle))
    });
    reg.function(
        "minibatches_of_groups",
        ["groups", "epochs", "n"],
        |call: &Call, b: &mut Batch, groups: usize, epochs: usize, n: Option<usize>| {
            b.minibatches_of_groups(groups, epochs, n, call.session.key(Stream::Shuffle))
        },
    );
    reg.function(
        "minibatches_of_pairs",
        ["pairs", "epochs"],
        |call: &Call, b: &mut Batch, pairs: usize, epochs: usize| {
            b.minibatches_of_pairs(pairs, epochs, call.session.key(Stream::Shuffle))
        },
    );
}

fn from_map(columns: &Map, device: &Device) -> Result<Batch> {
    let read = |(name, value): (&rhai::Identifier, &Dynamic)| Ok((name.to_string(), read_column(name, value, device)?));
    Batch::from_columns(columns.iter().map(read).collect::<Result<_>>()?, device)
}

/// A tensor, or an array: of numbers `[B,1]`, of arrays of numbers `[B,T]`, else a list.
pub(super) fn read_column(name: &str, value: &Dynamic, device: &Device) -> Result<Column> {
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
    if let Some(tensor) = convert::rows(&format!("the column `{name}`"), &items, device)? {
        return Ok(Column::Tensor(tensor));
    }
    if let Some(item) =
        items.iter().find(|item| item.is::<Tensor>() || item.is_int() || item.is_float() || item.is_bool())
    {
        let what = format!("the column `{name}` is an array of different things, among them {}", describe(item));
        return Err(
            Error::value(what).hint("give numbers only, or texts or maps only; tensors are joined by concat or stack")
        );
    }
    Ok(Column::List(Arc::new(items.iter().map(to_json).collect::<Vec<Value>>())))
}
