//! Data sets: rows of JSON values, all in memory, drawn in an order that a seed fixes and every epoch changes.
//!
//! Owns the rows, their order and the cursor. What a row must look like is `format`'s affair, which files are read
//! `files`', and how `jsonl`'s and `parquet`'s.

mod format;
mod jsonl;
mod layout;
mod parquet;
mod place;
mod wrong;

pub use format::Format;
pub(super) use wrong::describe;

use crate::budget::{Count, json};
use crate::data::{Content, Prompt, Prompts};
use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::tensor::rng::Key;
use format::Shape;
use layout::FileType;
use place::Place;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::rc::Rc;

/// A row's fields in the order of the file.
pub type Fields = serde_json::Map<String, Value>;

/// Receives one row after the other and says whether it wants more.
type Take<'a> = dyn FnMut(Place, Value) -> Result<bool> + 'a;

/// Columns that batches set themselves: a row's field cannot have their names.
const SET_BY_BATCHES: [&str; 5] = ["mask", "length", "text", "old_logprob", "finished"];
/// How the file begins that stands for one kept by Git LFS.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Of a folder: `train` unless given, or the only one.
    pub split: Option<String>,
    /// The first rows only.
    pub limit: Option<usize>,
    /// Names in the files and what they are called here.
    pub rename: Vec<(String, String)>,
    /// Whether dialogues are learned from by every answer in them, and not by the last alone.
    pub every_turn: bool,
}

/// How far rows have been drawn: what a checkpoint holds. `row` counts within the epoch's order, below the number of
/// rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    pub epoch: u64,
    pub row: u64,
}

/// Rows in memory and the order they are drawn in.
#[derive(Debug)]
pub struct Dataset {
    name: String,
    rows: Vec<Fields>,
    /// Of each row.
    places: Vec<Place>,
    columns: Vec<String>,
    shape: Shape,
    every_turn: bool,
    /// Each epoch's order follows from it; none keeps the order of the file.
    key: Option<Key>,
    cursor: Cursor,
    /// The order of the cursor's epoch.
    order: Vec<usize>,
}

impl Dataset {
    /// Reads a `.jsonl`, `.json` or `.parquet` file, or a folder of them. `key` shuffles.
    ///
    /// # Errors
    /// What is not there or not supported; a row that is not what the first row says all are, by file, line and field.
    pub fn open(path: &Location, reading: &Reading, key: Option<Key>) -> Result<Self> {
        let mut intake = Intake::new(reading)?;
        for file in layout::find(path, reading.split.as_deref())? {
            refuse_pointer(&file)?;
            let mut take = |place, row| intake.take(place, row);
            let more = match FileType::of(&file)? {
                FileType::Json => jsonl::read(&file, &mut take)?,
                FileType::Parquet => parquet::read(&file, &mut take)?,
            };
            if !more {
                break;
            }
        }
        intake.finish(path.display().to_string(), key)
    }

    /// The same of rows that are there already.
    pub fn from_rows(rows: Vec<Value>, reading: &Reading, key: Option<Key>) -> Result<Self> {
        if reading.split.is_some() {
            return Err(Error::value("`load_data`: an array has no splits").hint("`split` chooses files of a folder"));
        }
        let mut intake = Intake::new(reading)?;
        let array: Rc<str> = "the array".into();
        for (i, row) in rows.into_iter().enumerate() {
            if !intake.take(Place::entry(&array, i), row)? {
                break;
            }
        }
        intake.finish("the array".into(), key)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Never: data without rows cannot be loaded.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The names of all fields, in the order of their first appearance.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    pub fn format(&self) -> Format {
        self.shape.format
    }

    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Draws go on from there.
    ///
    /// # Errors
    /// A row beyond the last: the cursor is of other data.
    pub fn set_cursor(&mut self, cursor: Cursor) -> Result<()> {
        if cursor.row >= self.len() as u64 {
            let e = Error::value(format!(
                "data.cursor: row {} does not exist, {} has {} rows",
                cursor.row,
                self.name,
                self.len()
            ));
            return Err(e.hint("rows count from 0; does the cursor belong to other data, or to another `limit`?"));
        }
        if cursor.epoch != self.cursor.epoch {
            self.order = order(self.key, cursor.epoch, self.len());
        }
        self.cursor = cursor;
        Ok(())
    }

    /// All that there is to make it again, but for the cursor.
    pub fn to_value(&self) -> Value {
        let key = self.key.map(Key::words);
        json!({ "name": self.name, "key": key, "every_turn": self.every_turn, "rows": self.rows })
    }

    /// What `to_value` has written, at its first row.
    ///
    /// # Errors
    /// Another form.
    pub fn from_value(value: &Value) -> Result<Self> {
        let wrong = || Error::value("this is not a stored data set");
        let key: Option<[u32; 2]> = serde_json::from_value(value["key"].clone()).map_err(|_| wrong())?;
        let rows = value["rows"].as_array().ok_or_else(wrong)?.clone();
        let every_turn = value["every_turn"].as_bool().ok_or_else(wrong)?;
        let reading = Reading { every_turn, ..Reading::default() };
        let data = Self::from_rows(rows, &reading, key.map(Key::from_words))?;
        Ok(Self { name: value["name"].as_str().ok_or_else(wrong)?.into(), ..data })
    }

    /// The next `n` rows as they are in the file; the next epoch begins where this one ends.
    ///
    /// # Errors
    /// More than the memory holds.
    pub fn rows(&mut self, n: usize) -> Result<Vec<Fields>> {
        self.each(n, |data, i| data.rows[i].clone())
    }

    /// The next `n` prompts; a row's other fields, answers included, are the prompt's fields.
    ///
    /// # Errors
    /// A field with the name of a column that batches set.
    pub fn prompts(&mut self, n: usize) -> Result<Prompts> {
        if self.format() == Format::Texts {
            return Err(self.unfit("prompts", Format::Prompts));
        }
        let prompt = |mut parts: Fields| {
            let content = Content::read("`prompt`", parts.remove("prompt").unwrap_or_default())?;
            Ok(Prompt { content, fields: parts })
        };
        Ok(Prompts::of(self.parts(n)?.into_iter().map(prompt).collect::<Result<_>>()?))
    }

    /// The next `n` rows with `prompt` and `completion`, or `text`, or `messages` whose every answer is learned.
    ///
    /// # Errors
    /// Data of another format; a field with the name of a column that batches set.
    pub fn demos(&mut self, n: usize) -> Result<Vec<Fields>> {
        if !matches!(self.format(), Format::Completions | Format::Texts | Format::Rewarded) {
            return Err(self.unfit("demos", Format::Completions));
        }
        self.check_columns()?;
        self.each(n, Self::example)
    }

    /// The next `n` rows with `prompt`, `completion` and `reward`, and `logprob` where the data have it.
    ///
    /// # Errors
    /// As [`Self::demos`].
    pub fn rewarded(&mut self, n: usize) -> Result<Vec<Fields>> {
        self.require("rewarded", Format::Rewarded)?;
        self.parts(n)
    }

    /// The next `n` rows with `prompt`, `chosen` and `rejected`.
    ///
    /// # Errors
    /// As [`Self::demos`].
    pub fn pairs(&mut self, n: usize) -> Result<Vec<Fields>> {
        self.require("pairs", Format::Pairs)?;
        self.parts(n)
    }

    /// The next `n` rows with `prompt`, `completion` and `label`, 1 where the completion is desirable, else -1.
    ///
    /// # Errors
    /// As [`Self::demos`].
    pub fn labelled(&mut self, n: usize) -> Result<Vec<Fields>> {
        self.require("labelled", Format::Labelled)?;
        self.parts(n)
    }

    /// Row `i` of the file, its parts in fields of their names.
    pub fn row(&self, i: usize) -> Fields {
        self.shape.parts(&self.rows[i])
    }

    /// Row `i` of the file as `demos` gives it.
    pub fn example(&self, i: usize) -> Fields {
        if self.every_turn && self.shape.is_dialogue() { self.rows[i].clone() } else { self.row(i) }
    }

    /// Where row `i` stands.
    pub fn place(&self, i: usize) -> impl fmt::Display + '_ {
        &self.places[i]
    }

    /// Keeps the rows whose flag is set. Drawing begins anew.
    pub fn retain(&mut self, keep: &[bool]) {
        let mut flags = keep.iter();
        self.rows.retain(|_| flags.next() == Some(&true));
        let mut flags = keep.iter();
        self.places.retain(|_| flags.next() == Some(&true));
        self.cursor = Cursor::default();
        self.order = order(self.key, 0, self.rows.len());
    }

    fn require(&self, what: &str, needed: Format) -> Result<()> {
        if self.format() == needed { Ok(()) } else { Err(self.unfit(what, needed)) }
    }

    /// That the data are of another format.
    fn unfit(&self, what: &str, needed: Format) -> Error {
        let found = self.format();
        let e = Error::value(format!(
            "data.{what}: {} is {} data, with {}; {what} needs {}",
            self.name,
            found.name(),
            found.fields(),
            needed.fields()
        ));
        let ways = match found {
            Format::Prompts => "data.prompts(n)",
            Format::Completions => "data.demos(n), data.prompts(n)",
            Format::Pairs => "data.pairs(n), data.prompts(n)",
            Format::Labelled => "data.labelled(n), data.prompts(n)",
            Format::Rewarded => "data.rewarded(n), data.demos(n), data.prompts(n)",
            Format::Texts => "data.demos(n)",
        };
        e.hint(format!("what it can give: {ways}, data.rows(n)"))
    }

    fn check_columns(&self) -> Result<()> {
        let own = |name: &str| name == "text" && self.format() == Format::Texts;
        let taken = |name: &&String| SET_BY_BATCHES.contains(&name.as_str()) && !own(name);
        let Some(name) = self.columns.iter().find(taken) else { return Ok(()) };
        let e = Error::value(format!("{}: the field `{name}` has the name of a column that batches set", self.name));
        Err(e.hint(format!("give it another one: load_data(path, #{{ rename: #{{ {name}: \"my_{name}\" }} }})")))
    }

    fn parts(&mut self, n: usize) -> Result<Vec<Fields>> {
        self.check_columns()?;
        self.each(n, Self::row)
    }

    /// What `of` makes of the next `n` rows, each about as large as its row.
    fn each(&mut self, n: usize, of: impl Fn(&Self, usize) -> Fields) -> Result<Vec<Fields>> {
        let drawn = self.draw(n);
        let mut count = Count::default();
        let one = |i| {
            count.take(json::of_map(&self.rows[i]))?;
            Ok(of(self, i))
        };
        drawn.into_iter().map(one).collect()
    }

    fn draw(&mut self, n: usize) -> Vec<usize> {
        let mut drawn = Vec::with_capacity(n);
        for _ in 0..n {
            drawn.push(self.order[self.cursor.row as usize]);
            self.cursor.row += 1;
            if self.cursor.row == self.len() as u64 {
                self.cursor = Cursor { epoch: self.cursor.epoch + 1, row: 0 };
                self.order = order(self.key, self.cursor.epoch, self.len());
            }
        }
        drawn
    }
}

impl fmt::Display for Dataset {
    /// `Data(pairs.jsonl: 12 rows of preference data)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({}: {} rows of {} data)", self.name, self.len(), self.format().name())
    }
}

/// An epoch's order of `n` rows: a function of the key and the epoch alone.
fn order(key: Option<Key>, epoch: u64, n: usize) -> Vec<usize> {
    key.map_or_else(|| (0..n).collect(), |key| key.fold(epoch).permutation(n))
}

/// Rows on their way in: renamed, checked, counted.
struct Intake<'a> {
    reading: &'a Reading,
    rows: Vec<Fields>,
    places: Vec<Place>,
    columns: Vec<String>,
    /// The same names: a row may have millions.
    known: HashSet<String>,
    renamed: Vec<bool>,
    shape: Option<Shape>,
    count: Count,
}

impl<'a> Intake<'a> {
    fn new(reading: &'a Reading) -> Result<Self> {
        if reading.limit == Some(0) {
            return Err(Error::value("`load_data`: limit is 0, expected at least 1"));
        }
        let renamed = vec![false; reading.rename.len()];
        let (rows, places, columns, known) = Default::default();
        Ok(Self { reading, rows, places, columns, known, renamed, shape: None, count: Count::default() })
    }

    fn take(&mut self, place: Place, row: Value) -> Result<bool> {
        let Value::Object(row) = row else {
            let e = Error::file(format!("{place}: expected an object, found {}", describe(&row)));
            return Err(e.hint("a row is an object of fields, like {\"prompt\": \"…\"}"));
        };
        // It is there already: what is asked is whether the next ones may come.
        self.count.take(json::of_map(&row))?;
        let row = self.rename(row, &place)?;
        for name in row.keys().filter(|name| !self.known.contains(*name)).cloned().collect::<Vec<_>>() {
            self.known.insert(name.clone());
            self.columns.push(name);
        }
        let shape = match &mut self.shape {
            Some(shape) => shape,
            none => none.insert(Shape::of(&row, &place)?),
        };
        shape.check(&row, &place)?;
        self.rows.push(row);
        self.places.push(place);
        Ok(self.reading.limit.is_none_or(|limit| self.rows.len() < limit))
    }

    /// Fields under their new names, in their old order.
    fn rename(&mut self, row: Fields, place: &Place) -> Result<Fields> {
        if self.reading.rename.is_empty() {
            return Ok(row);
        }
        let mut fields = Fields::new();
        for (name, value) in row {
            let at = self.reading.rename.iter().position(|(old, _)| *old == name);
            let name = at.map_or(name, |at| {
                self.renamed[at] = true;
                self.reading.rename[at].1.clone()
            });
            if fields.contains_key(&name) {
                let e = Error::value(format!("{place}: after `rename` there are two fields `{name}`"));
                return Err(e.hint(format!("rename the other one as well: #{{ {name}: \"old_{name}\" }}")));
            }
            fields.insert(name, value);
        }
        Ok(fields)
    }

    fn finish(self, name: String, key: Option<Key>) -> Result<Dataset> {
        let Some(shape) = self.shape else {
            return Err(Error::file(format!("{name} has no rows")));
        };
        if let Some(unused) = self.renamed.iter().position(|used| !used) {
            let old = &self.reading.rename[unused].0;
            return Err(Error::unknown("field in `rename`:", old, &self.columns));
        }
        let order = order(key, 0, self.rows.len());
        let (rows, places, columns, every_turn) = (self.rows, self.places, self.columns, self.reading.every_turn);
        Ok(Dataset { name, rows, places, columns, shape, every_turn, key, cursor: Cursor::default(), order })
    }
}

fn refuse_pointer(path: &Location) -> Result<()> {
    let mut start = Vec::new();
    let read = files::open(path)?.take(LFS_POINTER.len() as u64).read_to_end(&mut start);
    read.map_err(|e| files::unreadable(path, &e))?;
    if start != LFS_POINTER {
        return Ok(());
    }
    Err(Error::file(format!("{} is a pointer of Git LFS, not the data itself", path.display()))
        .hint("fetch the file: `git lfs pull` in the repository that it is from"))
}
