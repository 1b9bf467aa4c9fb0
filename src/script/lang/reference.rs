//! What scripts can call, native functions and those of `std/` alike, each with what there is to say about it.
//! Owns no pages (`pages.rs`).

use crate::error::{Error, Result};
use crate::script::lang::library;
use crate::script::lang::loader;
use crate::script::lang::native::{Declaration, Form, Param, Section, Shape};

/// One function with all its forms.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The page it stands on: `Tensors`, `std/schedule`.
    pub topic: String,
    /// What a script writes to call it: `exp`, `kl::k3`, `schedule::linear`.
    pub path: String,
    pub shape: Shape,
    pub forms: Vec<Form>,
    pub section: Section,
}

impl Entry {
    /// `sum(x: Tensor, axis?: int) -> Tensor`, one for each form.
    pub fn signatures(&self) -> Vec<String> {
        self.forms.iter().map(|form| form.signature(&self.path, self.shape)).collect()
    }

    /// Whether it is written behind the point of a value.
    pub fn is_method(&self) -> bool {
        self.forms.iter().any(|form| form.receiver.is_some())
    }
}

/// Everything that a script can call, in the order of the registry; `std/` comes last.
pub fn entries(docs: &[Declaration]) -> Vec<Entry> {
    let native = docs.iter().map(|doc| Entry {
        topic: doc.topic.clone(),
        path: doc.path(),
        shape: doc.shape,
        forms: doc.forms.clone(),
        section: doc.section.clone(),
    });
    let library = loader::STDLIB.iter().flat_map(|(module, text)| {
        library::functions(text).into_iter().map(move |function| Entry {
            topic: format!("std/{module}"),
            path: format!("{module}::{}", function.name),
            shape: Shape::Call,
            forms: vec![untyped(&function.params)],
            section: Section {
                summary: function.about,
                example: format!("import \"std/{module}\" as {module};\n{}", function.example),
                ..Section::default()
            },
        })
    });
    native.chain(library).collect()
}

/// A function of a script, whose parameters have names alone.
fn untyped(params: &[String]) -> Form {
    let params = params.iter().map(|name| Param::needed(name, "")).collect();
    Form { receiver: None, params, returns: String::new() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::builder::HostBuilder;

    fn known() -> Vec<Entry> {
        entries(HostBuilder::new().build().docs())
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
}
