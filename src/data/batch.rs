//! `Batch`: token rows with named columns, a value: changing one never changes another.
//!
//! Owns shapes and slicing. Where rows come from is the engine's and `encode`'s affair; how they are cut into
//! mini-batches is `minibatch`'s.

use super::prompts::{Content, Prompts};
use crate::budget::{Count, json};
use crate::engine::Samples;
use crate::error::{Error, Kind, Result};
use crate::model::ModelInfo;
use crate::model::rows::{MOST_ROWS, Row, Rows};
use crate::tensor::arrange::{Run, rearrange};
use crate::tensor::shape::show;
use crate::tensor::{Device, Tensor, count};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a name stands for: numbers, or one value per row.
#[derive(Debug, Clone)]
pub enum Column {
    /// `[B,1]` or `[B,T]`
    Tensor(Tensor),
    /// B entries: texts, answers.
    List(Arc<Vec<Value>>),
}

impl Column {
    fn detach(self) -> Self {
        match self {
            Self::Tensor(tensor) => Self::Tensor(tensor.detach()),
            list => list,
        }
    }
}

/// B rows. T is the longest completion's length, or the width of the columns where there are no tokens.
#[derive(Debug, Clone)]
pub struct Batch {
    rows: Option<Arc<Rows>>,
    temperature: f64,
    /// Adjacent rows that belong to one prompt, where that is known.
    group: Option<usize>,
    len: usize,
    device: Device,
    columns: BTreeMap<String, Column>,
}

impl Batch {
    /// Rows with `mask` (1 on every completion token) and `length`.
    pub fn new(rows: Arc<Rows>, temperature: f64, device: &Device) -> Result<Self> {
        if rows.is_empty() {
            return Err(Error::value("a batch needs at least one row"));
        }
        let len = rows.len();
        let mut batch =
            Self { rows: None, temperature, group: None, len, device: device.clone(), columns: BTreeMap::new() };
        let lengths: Vec<usize> = rows.iter().map(|row| row.completion.len()).collect();
        let width = rows.width();
        batch.rows = Some(rows);
        batch.insert_tokens("mask", lengths.iter().map(|&n| vec![1.0; n]), width)?;
        batch.insert_numbers("length", lengths.iter().map(|&n| n as f32))?;
        Ok(batch)
    }

    /// What `sample` returns: `n` adjacent rows for each prompt, with their columns and the prompts' fields.
    pub fn from_samples(samples: Samples, prompts: &Prompts, n: usize, device: &Device) -> Result<Self> {
        if samples.rows.len() != prompts.len() * n {
            let (found, expected) = (samples.rows.len(), prompts.len() * n);
            return Err(Error::new(Kind::Internal, format!("{found} rows were sampled, expected {expected}")));
        }
        let width = samples.rows.width();
        let mut batch = Self::new(samples.rows, samples.temperature, device)?;
        batch.group = Some(n);
        batch.insert_tokens("old_logprob", samples.logprobs.into_iter(), width)?;
        batch.insert_numbers("finished", samples.finished.iter().map(|&f| f32::from(u8::from(f))))?;
        batch.insert_list("text", samples.texts.into_iter().map(Value::from).collect());
        batch.insert_fields(prompts, n)?;
        Ok(batch)
    }

    /// Columns without tokens: what an objective can be tried on without a model. B is the rows of the first.
    pub fn from_columns(columns: Vec<(String, Column)>, device: &Device) -> Result<Self> {
        let Some((_, first)) = columns.first() else {
            return Err(Error::value("a batch needs at least one column"));
        };
        let len = match first {
            Column::Tensor(tensor) => tensor.dims().first().copied().unwrap_or(0),
            Column::List(list) => list.len(),
        };
        if len == 0 {
            return Err(Error::value("a batch needs at least one row"));
        }
        let mut batch =
            Self { rows: None, temperature: 1.0, group: None, len, device: device.clone(), columns: BTreeMap::new() };
        // Lists first: an error about a number shows the text of its row.
        let (lists, tensors): (Vec<_>, Vec<_>) =
            columns.into_iter().partition(|(_, column)| matches!(column, Column::List(_)));
        lists.into_iter().chain(tensors).try_for_each(|(name, column)| batch.set(&name, column))?;
        Ok(batch)
    }

    /// Rows and columns that are known to fit each other.
    pub(super) fn assemble(
        rows: Option<Arc<Rows>>,
        temperature: f64,
        columns: Vec<(String, Column)>,
        device: &Device,
    ) -> Result<Self> {
        let Some(rows) = rows else { return Self::from_columns(columns, device) };
        let mut batch = Self::new(rows, temperature, device)?;
        columns.into_iter().try_for_each(|(name, column)| batch.set(&name, column))?;
        Ok(batch)
    }

    /// B
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// T: of the rows, or of the first column that has more than one number per row.
    pub fn width(&self) -> Option<usize> {
        match &self.rows {
            Some(rows) => Some(rows.width()),
            None => self.columns.values().find_map(|column| match column {
                Column::Tensor(tensor) if tensor.dims()[1] > 1 => Some(tensor.dims()[1]),
                _ => None,
            }),
        }
    }

    /// The tokens, where there are any.
    pub fn rows(&self) -> Option<&Arc<Rows>> {
        self.rows.as_ref()
    }

    /// The tokens, or an error that says what needs them.
    pub fn require_rows(&self, what: &str) -> Result<&Arc<Rows>> {
        self.rows.as_ref().ok_or_else(|| {
            Error::value(format!("{what} needs a batch with tokens, but this one has columns only"))
                .hint("batches with tokens come from sample, encode and encode_ids")
        })
    }

    /// The temperature that the rows were sampled at; 1 where they were not.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// Adjacent rows per prompt, where that is known.
    pub fn group(&self) -> Option<usize> {
        self.group
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn names(&self) -> Vec<&str> {
        self.columns.keys().map(String::as_str).collect()
    }

    pub fn columns(&self) -> impl Iterator<Item = (&str, &Column)> {
        self.columns.iter().map(|(name, column)| (name.as_str(), column))
    }

    /// A column by name. A `[B,T]` one carries the flag that unnamed aggregation refuses.
    pub fn get(&self, name: &str) -> Result<Column> {
        let column = self.columns.get(name).ok_or_else(|| Error::unknown("column", name, &self.names()))?;
        Ok(match column {
            Column::Tensor(tensor) => {
                let per_token = tensor.dims()[1] > 1 && Some(tensor.dims()[1]) == self.width();
                Column::Tensor(tensor.clone().with_tokens(per_token))
            }
            Column::List(list) => Column::List(list.clone()),
        })
    }

    /// A column that must hold numbers.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        match self.get(name)? {
            Column::Tensor(tensor) => Ok(tensor),
            Column::List(_) => Err(Error::value(format!("the column `{name}` is a list, expected a tensor"))),
        }
    }

    /// A column that must hold one value per row.
    pub fn list(&self, name: &str) -> Result<Arc<Vec<Value>>> {
        match self.get(name)? {
            Column::List(list) => Ok(list),
            Column::Tensor(_) => Err(Error::value(format!("the column `{name}` is a tensor, expected a list"))),
        }
    }

    /// Sets a column, new or not: a tensor `[B,1]` or `[B,T]`, or a list of B entries. Columns are data: a tensor's
    /// graph is left behind, so that a loss is differentiated through its arguments alone.
    pub fn set(&mut self, name: &str, column: Column) -> Result<()> {
        match &column {
            Column::Tensor(tensor) => {
                self.check_shape(name, tensor.dims())?;
                if name == REWARD && tensor.dims()[1] == 1 {
                    self.check_reward(tensor)?;
                }
            }
            Column::List(list) if list.len() != self.len => {
                let (found, expected) = (list.len(), self.len);
                return Err(Error::shape(format!(
                    "the column `{name}` has {found} entries, but the batch has {expected} rows"
                )));
            }
            Column::List(_) => {}
        }
        self.columns.insert(name.to_string(), column.detach());
        Ok(())
    }

    /// The rows at `indices` (each below B), in that order, every column alike; T shrinks to what they need.
    pub fn select(&self, indices: &[usize]) -> Result<Self> {
        if indices.is_empty() {
            return Err(Error::value("a batch needs at least one row, but none was selected"));
        }
        if let Some(outside) = indices.iter().find(|&&i| i >= self.len) {
            return Err(Error::value(format!("row {outside} does not exist: the batch has {} rows", self.len)));
        }
        if indices.len() > MOST_ROWS {
            let found = indices.len();
            return Err(Error::value(format!("a batch of {found} rows is too large: at most {MOST_ROWS}")));
        }
        let rows = self.rows.as_ref().map(|rows| rows.select(indices));
        let old_width = self.width();
        let mut columns = BTreeMap::new();
        for (name, column) in &self.columns {
            let chosen = match column {
                Column::List(list) => Column::List(Arc::new(json::cloned(indices.iter().map(|&i| &list[i]))?)),
                Column::Tensor(tensor) => Column::Tensor(take(tensor, indices, |old| match &rows {
                    Some(rows) if Some(old) == old_width => rows.width(),
                    _ => old,
                })?),
            };
            columns.insert(name.clone(), chosen);
        }
        Ok(Self { rows, columns, len: indices.len(), group: None, device: self.device.clone(), ..*self })
    }

    /// The same completions after other prompts, one a row, as `model`'s tokenizer and chat template make tokens of them; every
    /// column but `prompt` stays as it is. With `special`, special tokens written out in texts are control tokens.
    ///
    /// # Errors
    /// A batch without tokens, another number of prompts; those of [`Prompts::encode`].
    pub fn under(&self, prompts: &Prompts, model: &ModelInfo, special: bool) -> Result<Self> {
        let rows = self.require_rows("under")?;
        if prompts.len() != self.len {
            let (found, rows) = (prompts.len(), self.len);
            return Err(Error::value(format!("under: {found} prompts for {rows} rows, expected one a row"))
                .hint("rows of one prompt are adjacent: b.prompt.map(|p| …) has one for each"));
        }
        let ids = prompts.encode(model, special)?;
        let moved = ids.into_iter().zip(rows.iter()).map(|(ids, row)| Row::new(ids, row.completion.clone())).collect();
        let mut batch = Self { rows: Some(Rows::of(moved, model.vocabulary())), ..self.clone() };
        batch.insert_list("prompt", prompts.items.iter().map(|prompt| prompt.content.value()).collect());
        Ok(batch)
    }

    pub(super) fn with_group(mut self, group: Option<usize>) -> Self {
        self.group = group;
        self
    }

    pub(super) fn insert_list(&mut self, name: &str, values: Vec<Value>) {
        self.columns.insert(name.to_string(), Column::List(Arc::new(values)));
    }

    /// `prompt` and the prompts' fields, each for `n` adjacent rows.
    pub(super) fn insert_fields(&mut self, prompts: &Prompts, n: usize) -> Result<()> {
        let repeated = || prompts.items.iter().flat_map(|prompt| std::iter::repeat_n(prompt, n));
        let mut count = Count::default();
        let content = |prompt: &super::Prompt| {
            count.take(prompt.content.bytes())?;
            Ok(prompt.content.value())
        };
        self.insert_list("prompt", repeated().map(content).collect::<Result<_>>()?);
        let mut fields: Vec<&String> = prompts.items.iter().flat_map(|prompt| prompt.fields.keys()).collect();
        fields.sort_unstable();
        fields.dedup();
        for field in fields {
            if self.columns.contains_key(field) {
                return Err(Error::value(format!(
                    "the prompt field `{field}` has the name of a column that is set already"
                ))
                .hint("give the field another name"));
            }
            let values = json::cloned(repeated().map(|prompt| prompt.fields.get(field).unwrap_or(&Value::Null)))?;
            self.insert_list(field, values);
        }
        Ok(())
    }

    /// `[B,1]`
    pub(super) fn insert_numbers(&mut self, name: &str, values: impl Iterator<Item = f32>) -> Result<()> {
        let tensor = Tensor::from_vec(values.collect(), &[self.len, 1], &self.device)?;
        self.set(name, Column::Tensor(tensor))
    }

    /// `[B,T]`: each row's numbers from the left, then 0.
    pub(super) fn insert_tokens(
        &mut self,
        name: &str,
        rows: impl Iterator<Item = Vec<f32>>,
        width: usize,
    ) -> Result<()> {
        let mut flat = Vec::with_capacity(count(&[self.len, width])?);
        for (i, row) in rows.enumerate() {
            if row.len() > width {
                return Err(Error::new(
                    Kind::Internal,
                    format!("`{name}` has {} numbers in row {i}, T is {width}", row.len()),
                ));
            }
            flat.extend(row);
            flat.resize((i + 1) * width, 0.0);
        }
        let tensor = Tensor::from_vec(flat, &[self.len, width], &self.device)?;
        self.set(name, Column::Tensor(tensor))
    }

    fn check_shape(&self, name: &str, found: &[usize]) -> Result<()> {
        let fits = match (found, self.width()) {
            (&[rows, 1], _) => rows == self.len,
            (&[rows, width], Some(known)) => rows == self.len && width == known,
            (&[rows, width], None) => rows == self.len && width > 0,
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let per_token = self.width().map_or("T".to_string(), |width| width.to_string());
        let wrong = Error::shape(format!(
            "the column `{name}` has shape {}, expected [{},1] (per row) or [{},{per_token}] (per token)",
            show(found),
            self.len,
            self.len
        ));
        Err(match found {
            [rows, 1] => wrong.hint(format!(
                "`{name}` holds one number for each of {rows} rows, but the batch has {} rows",
                self.len
            )),
            [] => wrong.hint("a single number has no row: use full([b.rows, 1], x), or keep it in a variable"),
            [n] if *n == self.len => wrong.hint("reshape it: reshape(x, [-1, 1])"),
            _ => wrong,
        })
    }
}

/// The column that every objective follows.
const REWARD: &str = "reward";

impl Batch {
    /// A reward that is not finite makes every later number so: it is refused where it is set, with what was answered.
    fn check_reward(&self, reward: &Tensor) -> Result<()> {
        let values = reward.to_vec()?;
        let Some(row) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let place = self.shown(row);
        Err(Error::new(Kind::NotFinite, format!("the reward of row {row} is {}{place}", values[row])).hint(
            "look for 0/0, log(0) or an unreadable number in the reward; where(cond, a, b) gives such rows another",
        ))
    }

    /// What a row says, for errors, or nothing where it has no text.
    pub(super) fn shown(&self, row: usize) -> String {
        let shown = |name: &str| match self.columns.get(name) {
            Some(Column::List(list)) => Some(shortened(&Content::shown(&list[row]))),
            _ => None,
        };
        match (shown("text"), shown("prompt")) {
            (Some(text), Some(prompt)) => format!(" (the answer {text} to the prompt {prompt})"),
            (Some(text), None) => format!(" (the text {text})"),
            _ => String::new(),
        }
    }
}

/// A text in quotes, its middle left out where it is long.
fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= MOST {
        return format!("{text:?}");
    }
    let part = |chars: &[char]| chars.iter().collect::<String>();
    format!("{:?}", format!("{}…{}", part(&chars[..MOST / 2]), part(&chars[chars.len() - MOST / 2..])))
}

impl std::fmt::Display for Batch {
    /// `Batch(2 rows: length [2,1], mask [2,5], text list)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let column = |(name, column): (&str, &Column)| match column {
            Column::Tensor(tensor) => format!("{name} {}", show(tensor.dims())),
            Column::List(_) => format!("{name} list"),
        };
        write!(f, "Batch({} rows: {})", self.len, self.columns().map(column).collect::<Vec<_>>().join(", "))
    }
}

/// The rows at `indices` and of each the first `width(old width)` numbers; differentiable.
fn take(tensor: &Tensor, indices: &[usize], width: impl Fn(usize) -> usize) -> Result<Tensor> {
    let old = tensor.dims()[1];
    let width = width(old);
    let run = |(row, &i): (usize, &usize)| Run { to: row * width, input: 0, from: i * old, len: width };
    rearrange(&[tensor], &[indices.len(), width], indices.iter().enumerate().map(run).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows whose completions have these lengths; tokens are distinct.
    fn ragged(lengths: &[usize]) -> Batch {
        let row = |(i, &n): (usize, &usize)| {
            Row::new([i as u32 + 1], (0..n as u32).map(|t| 100 * i as u32 + t).collect::<Vec<_>>())
        };
        Batch::new(Rows::new(lengths.iter().enumerate().map(row).collect()), 1.0, &Device::Cpu).expect("a batch")
    }

    fn numbers(rows: usize, columns: usize) -> Column {
        let values = (0..rows * columns).map(|i| i as f32).collect();
        Column::Tensor(Tensor::from_vec(values, &[rows, columns], &Device::Cpu).expect("a tensor"))
    }

    fn read(batch: &Batch, name: &str) -> Vec<Vec<f64>> {
        batch.tensor(name).and_then(|t| t.to_rows()).expect("rows")
    }

    #[test]
    fn masks_follow_the_lengths() {
        let b = ragged(&[2, 0, 3]);
        assert_eq!(read(&b, "mask"), [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]);
        assert_eq!(read(&b, "length"), [[2.0], [0.0], [3.0]]);
        assert_eq!((b.len(), b.width()), (3, Some(3)));
    }

    #[test]
    fn a_batch_is_a_value() {
        let mut a = ragged(&[1, 1]);
        let b = a.clone();
        a.set("reward", numbers(2, 1)).expect("fits");
        assert!(a.get("reward").is_ok());
        let e = b.get("reward").expect_err("b is another batch");
        assert_eq!(e.what, "unknown column `reward`");
        assert_eq!(e.hint.as_deref(), Some("known: length, mask"));
        assert_eq!(b.get("lenght").expect_err("misspelt").hint.as_deref(), Some("did you mean `length`?"));
    }

    #[test]
    fn shapes_are_checked() {
        let mut b = ragged(&[2, 3]);
        let text = |e: Error| e.what;
        let expected = "expected [2,1] (per row) or [2,3] (per token)";
        for (rows, columns) in [(3, 1), (2, 2), (3, 3)] {
            let e = text(b.set("x", numbers(rows, columns)).expect_err("does not fit"));
            assert_eq!(e, format!("the column `x` has shape [{rows},{columns}], {expected}"));
        }
        let flat = Column::Tensor(Tensor::from_vec(vec![0.0; 2], &[2], &Device::Cpu).expect("a tensor"));
        let e = b.set("x", flat).expect_err("rank 1");
        assert_eq!(e.hint.as_deref(), Some("reshape it: reshape(x, [-1, 1])"));
        let list = Column::List(Arc::new(vec!["a".into()]));
        assert_eq!(
            text(b.set("x", list).expect_err("short")),
            "the column `x` has 1 entries, but the batch has 2 rows"
        );
    }

    #[test]
    fn selecting_slices_every_column_and_shrinks_to_the_longest_row() {
        let mut b = ragged(&[4, 1, 2]);
        b.set("token", numbers(3, 4)).expect("fits");
        b.set("row", numbers(3, 1)).expect("fits");
        b.set("name", Column::List(Arc::new(vec!["a".into(), "b".into(), "c".into()]))).expect("fits");
        let s = b.select(&[2, 1]).expect("rows");
        assert_eq!(s.width(), Some(2));
        assert_eq!(read(&s, "token"), [[8.0, 9.0], [4.0, 5.0]]);
        assert_eq!(read(&s, "mask"), [[1.0, 1.0], [1.0, 0.0]]);
        assert_eq!(read(&s, "row"), [[2.0], [1.0]]);
        assert_eq!(s.list("name").expect("a list")[..], [Value::from("c"), Value::from("b")]);
        assert_eq!(s.rows().expect("tokens")[0].completion[..], [200, 201]);
    }

    #[test]
    fn without_tokens_the_first_wide_column_sets_the_width() {
        let columns = vec![("reward".to_string(), numbers(2, 1)), ("logp".to_string(), numbers(2, 3))];
        let mut b = Batch::from_columns(columns, &Device::Cpu).expect("a batch");
        assert_eq!((b.len(), b.width()), (2, Some(3)));
        assert!(b.set("mask", numbers(2, 4)).is_err());
        b.set("mask", numbers(2, 3)).expect("fits");
        assert!(b.require_rows("logprob").is_err());
        assert_eq!(b.select(&[1]).expect("a row").width(), Some(3), "columns keep their width where nothing says less");
    }
}
