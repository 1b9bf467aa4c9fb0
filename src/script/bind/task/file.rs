//! A task that stands in a Rhai file: its functions say what is asked and what answers are worth.
//!
//! `fn items()` or `fn prompts(n)`, and `fn score(b)`; where they are wanted `demos`, `pairs`, `test_prompts`, `test_demos`,
//! `test_pairs`, `user`, `max_tokens`, `turns` and `options`. Each may take the task's options as one argument more.

use super::super::caller::{Caller, Closure};
use super::super::encode::read_prompts;
use super::reward::score_of;
use super::shipped::Common;
use crate::data::task::rows::{self, Rows};
use crate::data::{Batch, Demo, Pair, Prompt, Prompts, Task, User};
use crate::error::{Error, Result};
use crate::run::Session;
use crate::script::lang::functions::{CallStack, FileFunctions};
use crate::script::lang::loader::Source;
use crate::script::lang::native::{Call, Fallible, OptionReader, OptionSet};
use crate::script::lang::value::describe;
use crate::tensor::Tensor;
use crate::tensor::rng::Key;
use rhai::{Array, Dynamic, FnPtr, INT, Map};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

const EXTENSION: &str = ".rhai";
/// As `sample` and `converse` have it unless told otherwise.
const MAX_TOKENS: usize = 64;
const TURNS: usize = 5;
/// Every function that a task's file may have for us, and how many arguments it takes at least.
pub const FUNCTIONS: [(&str, usize); 12] = [
    ("score", 1),
    ("items", 0),
    ("prompts", 1),
    ("demos", 1),
    ("pairs", 1),
    ("test_prompts", 1),
    ("test_demos", 1),
    ("test_pairs", 1),
    ("user", 0),
    ("turns", 0),
    ("max_tokens", 0),
    ("options", 0),
];

/// `mine.rhai:digits=3` is the path `mine.rhai`; what follows it joins `options`. None where it is the name of no file.
pub fn split_path(text: &str, options: Map) -> Result<Option<(&str, Map)>> {
    let Some(end) = text.find(EXTENSION).map(|at| at + EXTENSION.len()) else { return Ok(None) };
    let (path, rest) = text.split_at(end);
    match rest.is_empty() || rest.starts_with(':') {
        true => Ok(Some((path, super::shipped::split_name(rest, options)?.1))),
        false => Ok(None),
    }
}

/// The functions of a file, and what they said once and for all.
pub struct TaskFile {
    functions: FileFunctions,
    options: Map,
    /// What `items()` lists.
    items: Option<Rows>,
    turns: usize,
    max_tokens: usize,
    /// Held-out prompts of a file that does not say which they are.
    held: RefCell<Vec<Prompt>>,
    held_demos: RefCell<Vec<Demo>>,
    held_pairs: RefCell<Vec<Pair>>,
    /// That there are such was told.
    told: Cell<bool>,
}

impl TaskFile {
    /// Reads the file and asks what does not change: its options, items, turns and tokens.
    ///
    /// # Errors
    /// A file without `score` or without prompts, options that it does not know, and those of its functions.
    pub fn open(call: &Call<'_>, calls: &CallStack, source: &Source, options: Map) -> Fallible<(Self, Common)> {
        let functions = FileFunctions::read(calls, call.context, source)?;
        for (name, least) in FUNCTIONS {
            let other = functions.arities(name).into_iter().find(|n| !(least..=least + 1).contains(n));
            if let Some(found) = other {
                let arguments = if least == 0 { "no argument" } else { "one argument" };
                let what = format!("`{name}` of {} takes {found} arguments", source.label);
                return Err(Error::value(what)
                    .hint(format!("it is called with {arguments}, and the task's options where it takes one more"))
                    .into());
            }
        }
        let mut file = Self {
            functions,
            options: Map::new(),
            items: None,
            turns: 1,
            max_tokens: MAX_TOKENS,
            held: RefCell::default(),
            held_demos: RefCell::default(),
            held_pairs: RefCell::default(),
            told: Cell::new(false),
        };
        let caller = Caller::new(call.context);
        let common = file.ask(&caller, options);
        caller.finish(common).map(|common| (file, common))
    }

    fn ask(&mut self, caller: &Caller<'_>, mut given: Map) -> Result<Common> {
        let of_all = Common::list();
        let common = of_all.iter().filter_map(|opt| given.remove_entry(opt.name)).collect();
        let common = Common::fill(&mut OptionReader::new("load_task", common))?;
        if self.has("user") {
            self.turns = TURNS;
        }
        self.take_options(caller, given)?;
        let within = self.within_call(caller);
        let items = match self.has("items") {
            true => Some(Rows::listed(&format!("items of {}", self.label()), within.prompts_of("items", None)?)?),
            false => None,
        };
        let turns = within.count("turns")?;
        let max_tokens = within.count("max_tokens")?;
        self.items = items;
        self.turns = turns.unwrap_or(self.turns);
        self.max_tokens = max_tokens.unwrap_or(self.max_tokens);
        Ok(common)
    }

    /// What `options()` says, with what is given in its place; `turns` where there is a user.
    fn take_options(&mut self, caller: &Caller<'_>, mut given: Map) -> Result<()> {
        let found = match self.functions.takes("options", 0) {
            true => caller.keep(self.functions.call(caller.context, "options", Array::new()))?,
            false => Map::new().into(),
        };
        let kind = describe(&found);
        let mut options = found
            .try_cast::<Map>()
            .ok_or_else(|| self.error("options", format!("gave {kind}, expected a map of names and defaults")))?;
        if self.turns > 1
            && !options.contains_key("turns")
            && let Some(turns) = given.remove("turns")
        {
            let wrong = || Error::value(format!("{}: `turns` must be a whole number, 1 or more", self.label()));
            self.turns =
                turns.as_int().ok().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0).ok_or_else(wrong)?;
        }
        let known: Vec<String> = options.keys().map(ToString::to_string).collect();
        for (name, value) in given {
            match options.get_mut(&name) {
                Some(slot) => *slot = value,
                None if known.is_empty() => {
                    return Err(Error::value(format!("{} has no option `{name}`", self.label()))
                        .hint("its function `options()` returns the names that it takes, with their defaults"));
                }
                None => return Err(Error::unknown(&format!("option of {}:", self.label()), &name, &known)),
            }
        }
        self.options = options;
        Ok(())
    }

    /// Fails where nothing gives prompts, or nothing a reward: `data` and `reward` say whether others do.
    ///
    /// # Errors
    /// The function that is missing.
    pub fn require(&self, data: bool, reward: bool) -> Result<()> {
        let missing = |what: &str, hint: &str| Err(Error::value(format!("{} has {what}", self.label())).hint(hint));
        if !data && self.items.is_none() && !self.has("prompts") {
            return missing(
                "no prompts",
                "fn items() lists them, or fn prompts(n) makes n: texts, messages or maps #{ prompt, … }",
            );
        }
        if !reward && !self.has("score") {
            return missing("no reward", "fn score(b) gives each row of b a number; or `reward` says what gives it");
        }
        Ok(())
    }

    pub fn label(&self) -> &str {
        self.functions.label()
    }

    pub fn turns(&self) -> usize {
        self.turns
    }

    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn has(&self, function: &str) -> bool {
        !self.functions.arities(function).is_empty()
    }

    fn error(&self, function: &str, what: String) -> Error {
        Error::value(format!("`{function}` of {} {what}", self.label()))
    }

    /// The task within a call.
    pub fn within<'a>(&'a self, caller: &'a Caller<'a>, session: &'a Session) -> Asked<'a> {
        Asked { session: Some(session), ..self.within_call(caller) }
    }

    fn within_call<'a>(&'a self, caller: &'a Caller<'a>) -> Asked<'a> {
        Asked { file: self, caller, session: None }
    }
}

/// A task's file within a call, from which its functions are called.
pub struct Asked<'a> {
    file: &'a TaskFile,
    caller: &'a Caller<'a>,
    /// None while the file is opened.
    session: Option<&'a Session>,
}

impl std::fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.file.label())
    }
}

impl Asked<'_> {
    /// Calls a function with these values, and with the options where it takes one value more.
    fn call(&self, function: &str, mut values: Array) -> Result<Dynamic> {
        let TaskFile { functions, options, .. } = self.file;
        if functions.takes(function, values.len() + 1) {
            values.push(options.clone().into());
        }
        self.caller.keep(functions.call(self.caller.context, function, values))
    }

    /// What a function says of a number, where there is such a function.
    fn count(&self, function: &str) -> Result<Option<usize>> {
        if !self.file.has(function) {
            return Ok(None);
        }
        let found = self.call(function, Array::new())?;
        let count = found.as_int().ok().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
        let wrong =
            || self.file.error(function, format!("gave {}, expected a whole number, 1 or more", describe(&found)));
        count.map(Some).ok_or_else(wrong)
    }

    /// The rows that a function gives, of which there are to be `n`.
    fn prompts_of(&self, function: &str, n: Option<usize>) -> Result<Vec<Prompt>> {
        let values = n.map(|n| Dynamic::from(n as INT)).into_iter().collect();
        let found = self.call(function, values)?;
        Ok(read_prompts(&format!("{function}` of `{}", self.file.label()), &found)?.items)
    }

    /// The same where so many are needed, no more and no less.
    fn exactly(&self, function: &str, n: usize) -> Result<Vec<Prompt>> {
        if n == 0 {
            return Ok(Vec::new());
        }
        let rows = self.prompts_of(function, Some(n))?;
        match rows.len() == n {
            true => Ok(rows),
            false => Err(self.file.error(function, format!("gave {} rows, expected n = {n}", rows.len()))),
        }
    }

    fn demos_of(&self, function: &str, rows: Vec<Prompt>) -> Result<Vec<Demo>> {
        let name = format!("`{function}` of {}", self.file.label());
        rows.into_iter().map(|row| rows::demo(&name, row)).collect()
    }

    fn pairs_of(&self, function: &str, rows: Vec<Prompt>) -> Result<Vec<Pair>> {
        let name = format!("`{function}` of {}", self.file.label());
        rows.into_iter().map(|row| rows::pair(&name, row)).collect()
    }

    /// The first `n` that are held out by nobody: drawn once, and the same ones from then on.
    fn held<T: Clone>(
        &self,
        held: &RefCell<Vec<T>>,
        n: usize,
        draw: impl Fn(usize) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        if let Some(session) = self.session.filter(|_| !self.file.told.replace(true)) {
            session.reporter().note(&format!(
                "{} holds no prompts out: evaluation is on prompts as training has them (fn test_prompts(n), or fn items())",
                self.file.label()
            ));
        }
        let known = held.borrow().len();
        if known < n {
            let more = draw(n - known)?;
            held.borrow_mut().extend(more);
        }
        Ok(held.borrow().iter().take(n).cloned().collect())
    }

    /// That a function is missing.
    fn without<T>(&self, what: &str, hint: &str) -> Result<T> {
        Err(Error::value(format!("{} has no {what}", self.file.label())).hint(hint))
    }

    /// What `user()` returns.
    pub fn own_user(&self) -> Result<Dynamic> {
        match self.file.has("user") {
            true => self.call("user", Array::new()),
            false => self.without("user", "fn user() returns who answers: |messages, prompt| \"a text, or () to end\""),
        }
    }
}

impl Task for Asked<'_> {
    fn name(&self) -> &str {
        self.file.label()
    }

    fn prompts(&self, n: usize, key: Key) -> Result<Prompts> {
        match &self.file.items {
            Some(items) => Ok(items.prompts(n, key)),
            None => Ok(Prompts::of(self.exactly("prompts", n)?)),
        }
    }

    fn demos(&self, n: usize, key: Key) -> Result<Vec<Demo>> {
        match &self.file.items {
            _ if self.file.has("demos") => self.demos_of("demos", self.exactly("demos", n)?),
            Some(items) => items.demos(n, key),
            None => self.without("demonstrations", "fn demos(n) gives n maps #{ prompt, completion, … }"),
        }
    }

    fn pairs(&self, n: usize, key: Key) -> Result<Vec<Pair>> {
        match &self.file.items {
            _ if self.file.has("pairs") => self.pairs_of("pairs", self.exactly("pairs", n)?),
            Some(items) => items.pairs(n, key),
            None => self.without("pairs", "fn pairs(n) gives n maps #{ prompt, chosen, rejected, … }"),
        }
    }

    fn test_prompts(&self, n: usize) -> Result<Prompts> {
        let items = match &self.file.items {
            _ if self.file.has("test_prompts") => {
                let mut rows = self.prompts_of("test_prompts", Some(n))?;
                rows.truncate(n);
                rows
            }
            Some(items) => return items.test_prompts(n),
            None => self.held(&self.file.held, n, |n| self.exactly("prompts", n))?,
        };
        Ok(Prompts::of(items))
    }

    fn test_demos(&self, n: usize) -> Result<Vec<Demo>> {
        match &self.file.items {
            _ if self.file.has("test_demos") => self.demos_of("test_demos", self.prompts_of("test_demos", Some(n))?),
            Some(items) if !self.file.has("demos") => items.test_demos(n),
            _ => self.held(&self.file.held_demos, n, |n| self.demos(n, Key::new(0))),
        }
    }

    fn test_pairs(&self, n: usize) -> Result<Vec<Pair>> {
        match &self.file.items {
            _ if self.file.has("test_pairs") => self.pairs_of("test_pairs", self.prompts_of("test_pairs", Some(n))?),
            Some(items) if !self.file.has("pairs") => items.test_pairs(n),
            _ => self.held(&self.file.held_pairs, n, |n| self.pairs(n, Key::new(0))),
        }
    }

    fn score(&self, batch: &Batch) -> Result<Tensor> {
        if !self.file.has("score") {
            return self.without("reward", "fn score(b) gives each row of b a number");
        }
        let found = self.call("score", vec![Dynamic::from(batch.clone())])?;
        score_of(self.file.label(), &found, batch)
    }

    fn reads(&self) -> &'static [&'static str] {
        &[]
    }

    fn max_tokens(&self) -> usize {
        self.file.max_tokens
    }

    fn turns(&self) -> usize {
        self.file.turns
    }

    fn user(&self) -> Result<Rc<dyn User + '_>> {
        let user = self.own_user()?;
        let found = describe(&user);
        let function = user
            .try_cast::<FnPtr>()
            .ok_or_else(|| self.file.error("user", format!("gave {found}, expected a closure |messages, prompt| …")))?;
        Ok(Rc::new(Closure { caller: self.caller, function }))
    }
}
