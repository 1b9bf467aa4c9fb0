//! The pages of the reference, one a topic. Every example is run as its page is made, and what it prints stands below
//! it.

use crate::files;
use crate::run::report::Reporter;
use crate::run::{Launch, names};
use crate::script::builder::HostBuilder;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::limits::Limits;
use crate::script::lang::loader::Source;
use crate::script::lang::native::{Form, Param};
use crate::script::lang::reference::{self, Entry};
use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;

/// The page of the names of metrics, which is no function's.
pub const METRICS: &str = "metrics";
/// What an example may use; none comes near.
const OPERATIONS: u64 = 10_000_000;

/// What an entry says, in Markdown, with what its example prints.
///
/// # Errors
/// Those of the example.
pub fn page(entry: &Entry) -> std::result::Result<String, Diagnostic> {
    let section = &entry.section;
    let signatures = entry.signatures().join("` or `");
    let mut text = format!("### `{signatures}`\n\n{}\n", section.summary);
    let items = items(entry);
    if !items.is_empty() {
        text += &format!("\n{}\n", items.join("\n"));
    }
    // Writing into a String cannot fail.
    for (title, said) in [("Fails", &section.errors), ("Note", &section.notes)] {
        if !said.is_empty() {
            let _ = writeln!(text, "\n{title}: {said}");
        }
    }
    let _ = writeln!(text, "\n```rhai\n{}\n```", section.example.trim_end());
    let printed = run(entry)?;
    if !printed.is_empty() {
        let _ = writeln!(text, "\n```text\n{}\n```", printed.trim_end());
    }
    Ok(text)
}

/// A line for each parameter, as the page says it, and for each option, as its declaration does.
pub fn items(entry: &Entry) -> Vec<String> {
    let kind = |names: &str| {
        let named = |param: &&Param| names.split(", ").any(|name| name == param.name);
        let found = entry.forms.iter().flat_map(|form| &form.params).find(named);
        found.map_or_else(String::new, |param| param.kind.clone())
    };
    let params = entry.section.params.iter().map(|[names, shape, about]| {
        let shape = if shape.is_empty() { kind(names) } else { shape.clone() };
        format!("- `{names}` ({shape}): {about}")
    });
    let options = entry.forms.first().map_or(&[][..], Form::options);
    let options = options.iter().map(|opt| format!("- `{}` ({}): {}", opt.name, opt.kind, opt.meaning()));
    params.chain(options).collect()
}

/// Runs an entry's example in a run folder of its own, and returns what it prints.
fn run(entry: &Entry) -> std::result::Result<String, Diagnostic> {
    let folder = files::temporary_folder()?;
    let printed = Rc::new(Printed::default());
    let launch = Launch { out: Some(folder.path().join("run")), reporter: printed.clone(), ..Launch::default() };
    let limits = Limits { operations: Some(OPERATIONS), ..Limits::default() };
    let host = HostBuilder::new().launch(launch).limits(limits).build();
    host.run(&Source { label: format!("example of {}", entry.path), text: entry.section.example.clone() })?;
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
    for topic in reference::topics(entries) {
        let file = format!("{}.md", topic.to_lowercase().replace([' ', '/'], "-"));
        let _ = writeln!(index, "\n## [{topic}]({file})\n\n| | |\n| --- | --- |");
        let mut text = format!("# {topic}\n");
        for entry in entries.iter().filter(|entry| entry.topic == topic) {
            let _ = writeln!(
                index,
                "| `{}` | {} |",
                entry.path.replace('|', "\\|"),
                entry.section.summary.replace('|', "\\|")
            );
            let _ = write!(text, "\n{}", page(entry)?);
        }
        pages.push((file, text));
    }
    let _ = writeln!(index, "\n## [Metrics]({METRICS}.md)\n\nThe names of the numbers in a run's `metrics.jsonl`.");
    pages.push((format!("{METRICS}.md"), names::page()));
    pages.push(("README.md".to_string(), index));
    Ok(pages)
}

/// Keeps what a script prints.
#[derive(Default)]
struct Printed {
    text: RefCell<String>,
}

impl Reporter for Printed {
    fn note(&self, _: &str) {}
    fn print(&self, text: &str) {
        *self.text.borrow_mut() += &format!("{text}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::lang::native::{Section, Shape};

    #[test]
    fn a_page_shows_what_its_example_prints() {
        let mut entry = Entry {
            topic: "Tensors".into(),
            path: "print".into(),
            shape: Shape::Call,
            forms: vec![Form {
                receiver: None,
                params: vec![Param::needed("x", "any"), Param::needed("y", "int")],
                returns: String::new(),
            }],
            section: Section {
                summary: "Prints.".into(),
                params: vec![["x", "", "what"].map(str::to_string), ["y", "rows", "how many"].map(str::to_string)],
                example: "let x = 1 + 1;\nprint(`x is ${x}`);".into(),
                ..Section::default()
            },
        };
        let page_of = page(&entry).expect("runs");
        let head = "### `print(x: any, y: int)`\n\nPrints.\n\n- `x` (any): what\n- `y` (rows): how many\n";
        assert!(page_of.starts_with(head), "{page_of}");
        assert!(page_of.ends_with("```\n\n```text\nx is 2\n```\n"));
        entry.section.example = "nothing".into();
        assert_eq!(page(&entry).expect_err("fails").frames.len(), 1);
    }
}
