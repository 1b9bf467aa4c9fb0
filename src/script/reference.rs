//! The reference: what scripts can call, native functions and those of `std/` alike, a page per topic. Every example
//! is run as its page is made, and what it prints stands below it.

use crate::engine::Settings;
use crate::error::{Error, Result};
use crate::run::report::{Reporter, Status, Table};
use crate::run::{Launch, Session};
use crate::script::diagnostics::Diagnostic;
use crate::script::host::{Host, Limits};
use crate::script::library;
use crate::script::loader::{self, Loader, Source};
use crate::script::registry::Doc;
use crate::tensor::Device;
use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;

/// What an example may use; none comes near.
const OPERATIONS: u64 = 10_000_000;

/// One function with all its overloads.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The page it stands on: `Tensors`, `std/schedule`.
    pub topic: String,
    /// What a script writes to call it: `exp`, `kl::k3`, `schedule::linear`.
    pub path: String,
    pub signature: String,
    pub summary: String,
    /// Name, type or shape, meaning.
    pub params: Vec<[&'static str; 3]>,
    /// When it fails.
    pub errors: &'static str,
    /// Where it is from, and what else is worth knowing.
    pub notes: &'static str,
    pub example: String,
}

/// Everything that a script can call, in the order of the registry; `std/` comes last.
pub fn entries(docs: &[Doc]) -> Vec<Entry> {
    let native = docs.iter().map(|doc| Entry {
        topic: doc.topic.to_string(),
        path: doc.path(),
        signature: doc.signature.to_string(),
        summary: doc.summary.to_string(),
        params: doc.params.iter().map(|param| [param.name, param.shape, param.about]).collect(),
        errors: doc.errors,
        notes: doc.source,
        example: doc.example.to_string(),
    });
    let library = loader::STDLIB.iter().flat_map(|(module, text)| {
        library::functions(text).into_iter().map(move |function| Entry {
            topic: format!("std/{module}"),
            path: format!("{module}::{}", function.name),
            signature: format!("{module}::{}", function.signature),
            summary: function.about,
            params: Vec::new(),
            errors: "",
            notes: "",
            example: format!("import \"std/{module}\" as {module};\n{}", function.example),
        })
    });
    native.chain(library).collect()
}

/// Each topic once, in the order of the entries.
pub fn topics(entries: &[Entry]) -> Vec<&str> {
    let mut topics: Vec<&str> = Vec::new();
    for entry in entries {
        if !topics.contains(&entry.topic.as_str()) {
            topics.push(&entry.topic);
        }
    }
    topics
}

/// The entries called `name`: by path, by the name alone wherever it stands, or all of a module (`kl`, `std/gro`).
///
/// # Errors
/// There is none; the nearest names are suggested.
pub fn find<'a>(entries: &'a [Entry], name: &str) -> Result<Vec<&'a Entry>> {
    let alone = |entry: &&Entry| entry.path == name;
    let somewhere = |entry: &&Entry| entry.path.rsplit("::").next() == Some(name);
    let module = format!("{}::", name.strip_prefix("std/").unwrap_or(name));
    let inside = |entry: &&Entry| entry.path.starts_with(&module);
    let ways: [&dyn Fn(&&Entry) -> bool; 3] = [&alone, &somewhere, &inside];
    let found = ways.iter().map(|way| entries.iter().filter(way).collect::<Vec<_>>()).find(|found| !found.is_empty());
    if let Some(found) = found {
        return Ok(found);
    }
    let mut known: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    let e = Error::unknown("function", name, &known);
    // All names would fill the screen.
    let near = e.hint.as_deref().is_some_and(|hint| hint.starts_with("did you mean"));
    Err(if near { e } else { e.hint("`rhopo doc` lists all") })
}

/// What an entry says, in Markdown, with what its example prints.
///
/// # Errors
/// Those of the example.
pub fn page(entry: &Entry) -> std::result::Result<String, Diagnostic> {
    let mut text = format!("### `{}`\n\n{}\n", entry.signature, entry.summary);
    if !entry.params.is_empty() {
        text.push('\n');
    }
    // Writing into a String cannot fail.
    for [name, shape, about] in &entry.params {
        let _ = writeln!(text, "- `{name}` ({shape}): {about}");
    }
    for (title, said) in [("Fails", entry.errors), ("Note", entry.notes)] {
        if !said.is_empty() {
            let _ = writeln!(text, "\n{title}: {said}");
        }
    }
    let _ = writeln!(text, "\n```rhai\n{}\n```", entry.example.trim_end());
    let printed = run(entry)?;
    if !printed.is_empty() {
        let _ = writeln!(text, "\n```text\n{}\n```", printed.trim_end());
    }
    Ok(text)
}

/// Runs an entry's example in a run folder of its own, and returns what it prints.
fn run(entry: &Entry) -> std::result::Result<String, Diagnostic> {
    let file = |e: std::io::Error| Error::file(format!("no folder for examples: {e}"));
    let folder = tempfile::tempdir().map_err(file)?;
    let printed = Rc::new(Printed::default());
    let launch = Launch::new(Device::Cpu, Settings::default());
    let out = Some(folder.path().join("run"));
    let session = Session::launch(Launch { out, reporter: printed.clone(), ..launch });
    let host = Host::new(&session, &Loader::new(None), &Limits { operations: Some(OPERATIONS), ..Limits::default() });
    host.run(&Source { label: format!("example of {}", entry.path), text: entry.example.clone() })?;
    Ok(printed.text.take())
}

/// A page for each topic, and an index: file names and texts.
///
/// # Errors
/// An example that fails.
pub fn pages(entries: &[Entry]) -> std::result::Result<Vec<(String, String)>, Diagnostic> {
    let mut index = String::from(
        "# Reference\n\nWhat scripts can call; written by `rhopo doc --write docs/reference`. `rhopo doc NAME` shows one \
         function.\n",
    );
    let mut pages = Vec::new();
    for topic in topics(entries) {
        let file = format!("{}.md", topic.to_lowercase().replace([' ', '/'], "-"));
        let _ = writeln!(index, "\n## [{topic}]({file})\n\n| | |\n| --- | --- |");
        let mut text = format!("# {topic}\n");
        for entry in entries.iter().filter(|entry| entry.topic == topic) {
            let _ = writeln!(index, "| `{}` | {} |", entry.path.replace('|', "\\|"), entry.summary.replace('|', "\\|"));
            let _ = write!(text, "\n{}", page(entry)?);
        }
        pages.push((file, text));
    }
    pages.push(("README.md".to_string(), index));
    Ok(pages)
}

/// Keeps what a script prints.
#[derive(Default)]
struct Printed {
    text: RefCell<String>,
}

impl Reporter for Printed {
    fn begin(&self, _: u64) {}
    fn step(&self, _: &Status) {}
    fn end(&self) {}
    fn table(&self, _: &Table) {}
    fn note(&self, _: &str) {}
    fn print(&self, text: &str) {
        *self.text.borrow_mut() += &format!("{text}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Entry> {
        let session = Session::launch(Launch::new(Device::Cpu, Settings::default()));
        entries(Host::new(&session, &Loader::new(None), &Limits::default()).docs())
    }

    #[test]
    fn a_function_is_found_by_its_path_or_its_name() {
        let known = known();
        let paths =
            |name: &str| find(&known, name).map(|found| found.iter().map(|e| e.path.clone()).collect::<Vec<_>>());
        assert_eq!(paths("kl::k3").expect("known"), ["kl::k3"]);
        assert_eq!(paths("k3").expect("known"), ["kl::k3"]);
        assert_eq!(paths("adapt").expect("known"), ["schedule::adapt"]);
        // One for each number of arguments.
        assert_eq!(paths("linear").expect("known"), ["schedule::linear", "schedule::linear"]);
        assert_eq!(paths("kl").expect("a module")[..2], ["kl::k1", "kl::k2"]);
        assert!(paths("std/gro").expect("a module").contains(&"gro::rows".to_string()));
        assert_eq!(paths("lograob").expect_err("unknown").hint.as_deref(), Some("did you mean `logprob`?"));
        assert_eq!(paths("xyzzy").expect_err("unknown").hint.as_deref(), Some("`rhopo doc` lists all"));
    }

    #[test]
    fn a_page_shows_what_its_example_prints() {
        let entry = Entry {
            example: "let x = 1 + 1;\nprint(`x is ${x}`);".into(),
            ..known().into_iter().next().expect("an entry")
        };
        assert!(page(&entry).expect("runs").ends_with("```\n\n```text\nx is 2\n```\n"));
        assert_eq!(page(&Entry { example: "nothing".into(), ..entry }).expect_err("fails").frames.len(), 1);
    }
}
