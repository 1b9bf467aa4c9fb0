//! Data sets in scripts.

use super::convert::Drawn;
use super::encode::Most;
use crate::budget::{Count, json};
use crate::data::dataset::{Cursor, Dataset, Fields, Reading};
use crate::data::fit::fit;
use crate::engine::ModelHandle;
use crate::error::{Error, Result};
use crate::run::{Session, Stream};
use crate::script::lang::native::{
    Call, FromScript, Handle, IntoScript, OptionValue, Options, Place, Registry, Typed, options,
};
use crate::script::lang::value::{describe, from_json, to_json};
use rhai::{Array, Dynamic, INT, Identifier, ImmutableString, Map};
use std::any::TypeId;
use std::cell::RefCell;
use std::rc::Rc;

/// A handle: all copies share one cursor.
#[derive(Clone)]
pub struct Data(Rc<RefCell<Dataset>>);

/// What a checkpoint needs of it.
impl Data {
    /// Whether both are the same handle.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Epoch and row of the cursor.
    pub fn at(&self) -> (u64, u64) {
        let Cursor { epoch, row } = self.0.borrow().cursor();
        (epoch, row)
    }

    /// # Errors
    /// A row beyond the last.
    pub fn go_to(&self, epoch: u64, row: u64) -> Result<()> {
        self.0.borrow_mut().set_cursor(Cursor { epoch, row })
    }

    /// All that there is to make it again, but for the cursor.
    pub fn to_value(&self) -> serde_json::Value {
        self.0.borrow().to_value()
    }

    /// # Errors
    /// What `to_value` did not write.
    pub fn from_value(value: &serde_json::Value) -> Result<Self> {
        Dataset::from_value(value).map(share)
    }
}

impl std::fmt::Display for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.borrow().fmt(f)
    }
}

impl Handle for Data {
    const NAME: &'static str = "Data";
    const RECEIVER: &'static str = "data";
}

pub fn register(reg: &mut Registry) {
    reg.handle::<Data>(ToString::to_string);
    reg.function(
        "load_data",
        ["path", "options"],
        |call: &Call, source: Source, Options(options): Options<Loading>| load(call.session, source, options),
    );
    draw(reg);
    look(reg);
}

/// Where rows come from.
enum Source {
    Path(String),
    Rows(Array),
}

impl Typed for Source {
    const TYPE: &'static str = "string | array";
}

impl FromScript for Source {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<ImmutableString>(), TypeId::of::<Array>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match value.is_string() {
            true => <String as FromScript>::read(value, place).map(Self::Path),
            false => <Array as FromScript>::read(value, place).map(Self::Rows),
        }
    }
}

options! {
    /// How rows are read and in which order they are drawn.
    struct Loading {
        /// of a folder: the first word of the file names; train unless given, or the only one
        split: Option<String>,
        /// the first so many rows of the files only
        limit: Option<usize>,
        /// of the order; the run's unless given
        seed: Option<u64>,
        /// false keeps the order of the files
        shuffle: bool = true,
        /// names of fields in the files and their names here: #{ question: "prompt" }
        rename: Option<Renames>,
        /// of rows of `messages`: "last", the assistant's last answer is the completion, or "every", demos gives the
        /// messages and encode learns each answer in them
        turns: Turns = Turns(false),
        /// whose tokens rows are measured in, before any is drawn
        model: Option<Measuring>,
        /// with a model: tokens of a row at most, its context unless given; longer rows are named, "drop" leaves them
        /// out, "cut 512" keeps them for encode to cut
        max_length: Option<Most>,
    }
}

/// Whether every answer of a dialogue is learned from, or the last.
#[derive(Debug, Clone, Copy)]
struct Turns(bool);

impl OptionValue for Turns {
    const TYPE: &'static str = "string";

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match <String as OptionValue>::read(value, place)?.as_str() {
            "last" => Ok(Self(false)),
            "every" => Ok(Self(true)),
            other => Err(Error::unknown("turns", other, &["last", "every"])),
        }
    }

    fn written(&self) -> String {
        format!("{:?}", if self.0 { "every" } else { "last" })
    }
}

/// Names in the files and here.
#[derive(Debug, Clone)]
struct Renames(Vec<(String, String)>);

impl OptionValue for Renames {
    const TYPE: &'static str = "map";

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        let Place { function, name } = place;
        let pair = |(old, new): (Identifier, Dynamic)| {
            let found = describe(&new);
            let wrong = |_| Error::value(format!("`{function}`: {name}.{old} must be a name, found {found}"));
            Ok((old.to_string(), new.into_string().map_err(wrong)?))
        };
        <Map as OptionValue>::read(value, place)?.into_iter().map(pair).collect::<Result<_>>().map(Self)
    }
}

fn load(session: &Session, source: Source, options: Loading) -> Result<Data> {
    let Loading { split, limit, seed, shuffle, rename, turns, model, max_length } = options;
    let rename = rename.map(|renames| renames.0).unwrap_or_default();
    let reading = Reading { split, limit, rename, every_turn: turns.0 };
    let key = || shuffle.then(|| session.lasting_key(Stream::Data, seed));
    let mut data = match source {
        Source::Path(path) => {
            let path = session.access().read(&path)?;
            Dataset::open(&path, &reading, key())?
        }
        Source::Rows(rows) => Dataset::from_rows(rows.iter().map(to_json).collect(), &reading, key())?,
    };
    if let Some(model) = model {
        let max = max_length.unwrap_or_default().0;
        let (all, fitted) = (data.len(), fit(&mut data, &model.0, max)?);
        if let Some(first) = fitted.first {
            let (dropped, room) = (fitted.dropped, max.room(&model.0));
            let what =
                format!("{dropped} of {all} rows are longer than {room} tokens and left out, the first at {first}");
            session.reporter().note(&what);
        }
        if fitted.cut > 0 {
            let room = max.room(&model.0);
            session.reporter().note(&format!("{} of {all} texts were cut to {room} tokens", fitted.cut));
        }
    }
    Ok(share(data))
}

/// A model as an option.
#[derive(Debug, Clone)]
struct Measuring(ModelHandle);

impl OptionValue for Measuring {
    const TYPE: &'static str = "Model";

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        <ModelHandle as FromScript>::read(value, place).map(Self)
    }
}

fn share(dataset: Dataset) -> Data {
    Data(Rc::new(RefCell::new(dataset)))
}

fn draw(reg: &mut Registry) {
    reg.function("prompts", ["n"], |data: &mut Data, n: Drawn| data.0.borrow_mut().prompts(n.0));
    reg.function("demos", ["n"], |data: &mut Data, n: Drawn| data.0.borrow_mut().demos(n.0).and_then(maps));
    reg.function("pairs", ["n"], |data: &mut Data, n: Drawn| data.0.borrow_mut().pairs(n.0).and_then(maps));
    reg.function("labelled", ["n"], |data: &mut Data, n: Drawn| data.0.borrow_mut().labelled(n.0).and_then(maps));
    reg.function("rewarded", ["n"], |data: &mut Data, n: Drawn| data.0.borrow_mut().rewarded(n.0).and_then(maps));
    reg.function("rows", ["n"], |data: &mut Data, n: Drawn| data.0.borrow_mut().rows(n.0).and_then(maps));
}

fn maps(rows: Vec<Fields>) -> Result<Array> {
    let mut count = Count::default();
    let map = |row: Fields| {
        count.take(json::of_map(&row))?;
        Ok(from_json(&serde_json::Value::Object(row)))
    };
    rows.into_iter().map(map).collect()
}

fn look(reg: &mut Registry) {
    reg.function("len", [], |data: &mut Data| data.0.borrow().len());
    reg.property("columns", |data: &mut Data| data.0.borrow().columns().to_vec());
    reg.property("format", |data: &mut Data| data.0.borrow().format().name().to_string());
    reg.property("cursor", |data: &mut Data| data.0.borrow().cursor());
    reg.setter("cursor", |data: &mut Data, cursor: Cursor| data.0.borrow_mut().set_cursor(cursor));
}

impl Typed for Cursor {
    const TYPE: &'static str = "#{ epoch: int, row: int }";
}

impl IntoScript for Cursor {
    fn write(self) -> Dynamic {
        let Self { epoch, row } = self;
        Map::from([("epoch".into(), (epoch as INT).into()), ("row".into(), (row as INT).into())]).into()
    }
}

impl FromScript for Cursor {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Map>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        read_cursor(&<Map as FromScript>::read(value, place)?)
    }
}

fn read_cursor(map: &Map) -> Result<Cursor> {
    let wrong = |what: String| Error::value(format!("data.cursor: {what}")).hint("a cursor is #{ epoch: 0, row: 0 }");
    if let Some(other) = map.keys().find(|key| !["epoch", "row"].contains(&key.as_str())) {
        return Err(wrong(format!("unknown key `{other}`")));
    }
    let read = |key: &str| {
        let value = map.get(key).ok_or_else(|| wrong(format!("`{key}` is missing")))?;
        let number = value.as_int().ok().and_then(|n| u64::try_from(n).ok());
        number.ok_or_else(|| wrong(format!("`{key}` must be a whole number, 0 or more, found {}", describe(value))))
    };
    Ok(Cursor { epoch: read("epoch")?, row: read("row")? })
}
