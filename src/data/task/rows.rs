//! Prompts that are listed: the rows of a file, or what a task of one's own lists; which of them are held out, and the
//! answers that they have. Owns no reward.
//!
//! Of a file one row in eight is held out, by the hash of its prompt: rows with the same prompt are on the same side, and
//! neither the order of the file nor its other rows matter. Where that would leave a side empty, the prompt with the
//! smallest hash is held out, or that with the largest one is not. Of a list every twentieth is held out, and whatever has
//! the same prompt; of a shorter list the last.

use super::draw::{fold_text, indices};
use super::drawn::HELD_OUT;
use crate::data::dataset::{Dataset, Format, Reading};
use crate::data::encode::{Demo, Pair};
use crate::data::origin::Origin;
use crate::data::{Content, Prompt, Prompts};
use crate::error::{Error, Result};
use crate::files::Location;
use crate::tensor::rng::Key;
use serde_json::Value;
use std::collections::BTreeSet;
use std::rc::Rc;

/// The key of the hash, a part of what is held out.
const SPLIT: u64 = 0xF11E_0008;
/// Of a list one in so many is held out.
const LISTED: usize = 20;

/// Prompts in two parts that never overlap.
#[derive(Debug)]
pub struct Rows {
    format: Format,
    /// In their order; answers that they have are among the fields.
    all: Rc<Origin>,
    train: Vec<usize>,
    test: Vec<usize>,
}

impl Rows {
    /// Reads a file or folder as `Dataset::open` does.
    ///
    /// # Errors
    /// Those of `Dataset::open`.
    pub fn open(path: &Location) -> Result<Self> {
        let mut data = Dataset::open(path, &Reading::default(), None)?;
        let rows = data.prompts(data.len())?.items;
        let hashes: Vec<u64> = rows.iter().map(hash).collect();
        let held = held_out(&hashes);
        let (mut test, train): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(|&i| held.contains(&hashes[i]));
        test.sort_by_key(|&i| hashes[i]);
        let places = (0..data.len()).map(|i| data.place(i).to_string()).collect();
        let all = Rc::new(Origin::new(path.display().to_string(), rows, places));
        Ok(Self { format: data.format(), all, train, test })
    }

    /// All rows in their order, as one text.
    pub fn digest(&self) -> String {
        let row = |prompt: &Prompt| format!("{} {}\n", prompt.content.value(), Value::Object(prompt.fields.clone()));
        self.all.rows().iter().map(row).collect()
    }

    /// A list that `name` gives.
    ///
    /// # Errors
    /// An empty one.
    pub fn listed(name: &str, rows: Vec<Prompt>) -> Result<Self> {
        let last = rows.len().checked_sub(1).ok_or_else(|| Error::value(format!("{name}: there are no prompts")))?;
        let hashes: Vec<u64> = rows.iter().map(hash).collect();
        let held: BTreeSet<u64> = match rows.len() {
            n if n < LISTED => BTreeSet::from([hashes[last]]),
            n => (LISTED - 1..n).step_by(LISTED).map(|i| hashes[i]).collect(),
        };
        let (mut test, mut train): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(|&i| held.contains(&hashes[i]));
        if train.is_empty() {
            // With one prompt there is training only.
            std::mem::swap(&mut test, &mut train);
        }
        let format = format_of(&rows[last]);
        Ok(Self { format, all: Rc::new(Origin::new(name.into(), rows, Vec::new())), train, test })
    }

    /// Fails where a row lacks a field of `fields`, which the reward of `task` reads.
    ///
    /// # Errors
    /// The first such row.
    pub fn require(&self, fields: &[&str], task: &str) -> Result<()> {
        for (i, row) in self.all.rows().iter().enumerate() {
            if let Some(field) = fields.iter().find(|field| row.fields.get(**field).is_none_or(Value::is_null)) {
                return Err(Error::file(format!(
                    "{}: row {} has no `{field}`, which the reward of {task} reads",
                    self.all.name(),
                    i + 1
                ))
                .hint(format!("beside its prompt each row needs: {}", fields.join(", "))));
            }
        }
        Ok(())
    }

    fn drawn(&self, n: usize, key: Key) -> impl Iterator<Item = &Prompt> {
        indices(key, n, self.train.len()).into_iter().map(|i| &self.all.rows()[self.train[i]])
    }

    fn held(&self, n: usize) -> Result<impl Iterator<Item = &Prompt>> {
        if self.test.is_empty() {
            return Err(Error::value(format!("{} has one prompt only, so none is held out", self.all.name()))
                .hint("with two different prompts or more there is always one"));
        }
        Ok(self.test.iter().take(n).map(|&i| &self.all.rows()[i]))
    }

    fn prompts_of<'a>(&self, rows: impl Iterator<Item = &'a Prompt>) -> Prompts {
        Prompts { items: rows.cloned().collect(), origin: Some(self.all.clone()) }
    }

    fn demo(&self, row: &Prompt) -> Result<Demo> {
        self.require_answers(Format::Completions)?;
        demo(self.all.name(), row.clone())
    }

    fn pair(&self, row: &Prompt) -> Result<Pair> {
        self.require_answers(Format::Pairs)?;
        pair(self.all.name(), row.clone())
    }

    fn require_answers(&self, needed: Format) -> Result<()> {
        if self.format == needed || (needed, self.format) == (Format::Completions, Format::Rewarded) {
            return Ok(());
        }
        let (found, needs) = (self.format.fields(), needed.fields());
        Err(Error::value(format!("{}: the rows have {found}, expected {needs}", self.all.name()))
            .hint("the rows give prompts alone, and the task's own answers are to its own prompts"))
    }

    /// `n` training prompts. No row comes twice before all have come once.
    pub fn prompts(&self, n: usize, key: Key) -> Prompts {
        self.prompts_of(self.drawn(n, key))
    }

    /// # Errors
    /// Rows without `completion`.
    pub fn demos(&self, n: usize, key: Key) -> Result<Vec<Demo>> {
        self.drawn(n, key).map(|row| self.demo(row)).collect()
    }

    /// # Errors
    /// Rows without `chosen` and `rejected`.
    pub fn pairs(&self, n: usize, key: Key) -> Result<Vec<Pair>> {
        self.drawn(n, key).map(|row| self.pair(row)).collect()
    }

    /// # Errors
    /// One prompt only.
    pub fn test_prompts(&self, n: usize) -> Result<Prompts> {
        Ok(self.prompts_of(self.held(n)?))
    }

    /// # Errors
    /// One prompt only; rows without `completion`.
    pub fn test_demos(&self, n: usize) -> Result<Vec<Demo>> {
        self.held(n)?.map(|row| self.demo(row)).collect()
    }

    /// # Errors
    /// One prompt only; rows without `chosen` and `rejected`.
    pub fn test_pairs(&self, n: usize) -> Result<Vec<Pair>> {
        self.held(n)?.map(|row| self.pair(row)).collect()
    }
}

/// A prompt with the answer among its fields; `name` is whose it is, for errors.
///
/// # Errors
/// No `completion`, or one that is neither text nor messages.
pub fn demo(name: &str, mut row: Prompt) -> Result<Demo> {
    let completion = answer(name, &mut row, "completion")?;
    Ok(Demo { prompt: row.content, completion, fields: row.fields })
}

/// A prompt with both answers among its fields.
///
/// # Errors
/// As [`demo`], of `chosen` and `rejected`.
pub fn pair(name: &str, mut row: Prompt) -> Result<Pair> {
    let chosen = answer(name, &mut row, "chosen")?;
    let rejected = answer(name, &mut row, "rejected")?;
    Ok(Pair { prompt: Some(row.content), chosen, rejected, fields: row.fields })
}

fn answer(name: &str, row: &mut Prompt, field: &str) -> Result<Content> {
    Content::read(&format!("{name}: `{field}`"), row.fields.remove(field).unwrap_or_default())
}

/// What a row's fields say that it has beside its prompt.
fn format_of(row: &Prompt) -> Format {
    let has = |field: &str| row.fields.contains_key(field);
    match (has("chosen") && has("rejected"), has("completion"), has("label")) {
        (true, ..) => Format::Pairs,
        (_, true, true) => Format::Labelled,
        (_, true, false) => Format::Completions,
        _ => Format::Prompts,
    }
}

fn hash(row: &Prompt) -> u64 {
    fold_text(Key::new(SPLIT), &row.content.value().to_string()).bits(0)
}

/// The hashes of what is held out.
fn held_out(hashes: &[u64]) -> BTreeSet<u64> {
    let all: BTreeSet<u64> = hashes.iter().copied().collect();
    let (Some(&first), Some(&last)) = (all.first(), all.last()) else { return all };
    let mut held: BTreeSet<u64> = all.iter().copied().filter(|hash| hash.is_multiple_of(HELD_OUT)).collect();
    if held.is_empty() {
        held.insert(first);
    }
    if held.len() == all.len() {
        held.remove(&last);
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::task::checks::text;
    use serde_json::json;
    use std::fmt::Write;

    fn open(lines: &str) -> Result<Rows> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = crate::files::anywhere(folder.path()).join("rows.jsonl");
        std::fs::write(&path, lines).expect("written");
        Rows::open(&path)
    }

    fn sums(n: usize) -> String {
        (0..n).fold(String::new(), |mut lines, i| {
            writeln!(lines, "{}", json!({"prompt": format!("{i}+1="), "answer": i + 1})).expect("written");
            lines
        })
    }

    fn texts(prompts: &Prompts) -> Vec<String> {
        prompts.items.iter().map(|prompt| text(&prompt.content).to_string()).collect()
    }

    #[test]
    fn the_parts_never_overlap_and_neither_is_empty() {
        for n in 2..60 {
            let task = open(&sums(n)).expect("a task");
            let held = texts(&task.test_prompts(usize::MAX).expect("held out"));
            let train = texts(&task.prompts(3 * n, Key::new(n as u64)));
            assert!(!held.is_empty() && train.iter().all(|text| !held.contains(text)), "{n} rows");
            let distinct: BTreeSet<&String> = train.iter().chain(&held).collect();
            assert_eq!(distinct.len(), n, "every row is on a side");
        }
        let held = open(&sums(4000)).and_then(|task| task.test_prompts(usize::MAX)).expect("held out");
        assert!((430..570).contains(&held.len()), "{} of 4000", held.len());
    }

    #[test]
    fn what_is_held_out_depends_on_the_prompt_alone() {
        let lines = sums(200);
        let turned: Vec<&str> = lines.lines().rev().collect();
        let held = |lines: &str| open(lines).and_then(|task| task.test_prompts(usize::MAX)).expect("held out");
        assert_eq!(texts(&held(&lines)), texts(&held(&turned.join("\n"))));
        let fewer = texts(&held(&sums(100)));
        assert!(fewer.iter().all(|text| texts(&held(&lines)).contains(text)));
        let twice = held(&format!("{lines}{lines}"));
        assert_eq!(twice.len(), 2 * held(&lines).len(), "equal prompts are on the same side");
        let one = open(&sums(1)).expect("a task");
        assert_eq!(one.prompts(3, Key::new(0)).len(), 3);
        assert!(one.test_prompts(3).expect_err("nothing").what.ends_with("has one prompt only, so none is held out"));
    }

    #[test]
    fn fields_that_a_reward_reads_are_required_of_every_row() {
        let rows = open("{\"prompt\": \"1+1=\", \"answer\": \"2\"}\n{\"prompt\": \"1+2=\"}").expect("rows");
        let e = rows.require(&["answer"], "arithmetic").expect_err("no answer");
        assert!(e.what.ends_with("rows.jsonl: row 2 has no `answer`, which the reward of arithmetic reads"), "{e}");
        rows.require(&[], "arithmetic").expect("nothing is read");
    }

    #[test]
    fn of_a_list_every_twentieth_is_held_out_with_what_equals_it() {
        let listed = |prompts: &[String]| {
            let prompt = |text: &String| Prompt { content: text.as_str().into(), fields: serde_json::Map::new() };
            Rows::listed("mine", prompts.iter().map(prompt).collect())
        };
        let mut names: Vec<String> = (0..60).map(|i| format!("p{i}")).collect();
        names[3] = "p19".into();
        let rows = listed(&names).expect("rows");
        assert_eq!(texts(&rows.test_prompts(9).expect("held out")), ["p19", "p19", "p39", "p59"]);
        assert!(!texts(&rows.prompts(200, Key::new(1))).contains(&"p19".to_string()));
        let few = listed(&names[..4]).expect("rows");
        assert_eq!((few.test_prompts(9).expect("held out").len(), few.prompts(9, Key::new(1)).len()), (1, 9));
        assert!(listed(&names[..1]).expect("one").test_prompts(1).is_err());
        assert_eq!(listed(&[]).expect_err("nothing").what, "mine: there are no prompts");
    }

    #[test]
    fn answers_are_those_of_the_rows() {
        let row = |i: usize, rest: Value| {
            let mut row = json!({"prompt": format!("{i}+1="), "answer": i + 1});
            row.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
            row.to_string()
        };
        let lines = |rest: Value| (0..20).map(|i| row(i, rest.clone())).collect::<Vec<_>>().join("\n");
        let demos = open(&lines(json!({"completion": "c"}))).expect("a task");
        let demo = &demos.demos(3, Key::new(1)).expect("demonstrations")[0];
        assert_eq!((&demo.completion, demo.fields.get("completion")), (&"c".into(), None));
        assert!(!demos.test_demos(9).expect("demonstrations").is_empty());
        let e = demos.pairs(1, Key::new(1)).expect_err("no pairs");
        assert!(e.what.contains("the rows have `prompt` and `completion`, expected `prompt`, `chosen` and `rejected`"));
        let pairs = open(&lines(json!({"chosen": "c", "rejected": "r"}))).expect("a task");
        let pair = &pairs.test_pairs(1).expect("pairs")[0];
        assert_eq!((&pair.chosen, &pair.rejected), (&"c".into(), &"r".into()));
        assert!(pairs.demos(1, Key::new(1)).is_err());
    }
}
