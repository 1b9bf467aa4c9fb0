//! What a name stands for: Rhai text, or what the language itself says.

use super::{LABEL, Repl};
use crate::error::{Error, Kind, Result};
use crate::script::lang::lex;
use crate::script::lang::loader::{self, Source};
use crate::script::lang::messages;

/// The last text of this name for each number of parameters, in the order of the file.
fn overloads<'a>(functions: &[(String, &'a str)], name: &str) -> Vec<&'a str> {
    let parameters = |text: &str| {
        let code: String = text.lines().skip_while(|line| line.trim_start().starts_with("//")).collect();
        let list = code.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        list.map_or(0, |(list, _)| list.split(',').filter(|one| !one.trim().is_empty()).count())
    };
    let mut found: Vec<(usize, &'a str)> = Vec::new();
    for (_, text) in functions.iter().filter(|(known, _)| known == name) {
        found.retain(|(count, _)| *count != parameters(text));
        found.push((parameters(text), text));
    }
    found.into_iter().map(|(_, text)| text).collect()
}

impl Repl<'_, '_> {
    /// What the language says of a function of its own: signatures, and the comment on them.
    pub fn of_the_language(&self, name: &str) -> Vec<(String, String)> {
        let page = |f: rhai::FuncInfo<'_>| {
            let about = f.metadata.comments.iter().map(|line| line.trim_start_matches('/').trim());
            let about = about.collect::<Vec<_>>().join("\n").trim().to_string();
            let signature = f.metadata.gen_signature(|kind| messages::plain_types(kind).into());
            (f.metadata.name == name && !about.is_empty()).then_some((signature, about))
        };
        self.engine.collect_fn_metadata(None, page, true)
    }

    /// The Rhai text of a function or a script, and where it stands.
    ///
    /// # Errors
    /// A native function, or nothing of that name.
    pub fn source(&self, name: &str) -> Result<(String, String)> {
        let bare = name.rsplit("::").next().unwrap_or(name);
        let of = |label: &str, text: &str| {
            let found = overloads(&lex::functions(text), bare);
            (!found.is_empty()).then(|| (label.to_string(), found.join("\n\n")))
        };
        let files = self.console.files.iter().rev().map(|file| (&file.source.label[..], &file.source.text[..]));
        let said = std::iter::once((LABEL, self.console.text.as_str())).chain(files);
        let modules = loader::STDLIB.iter().filter(|(module, _)| name.starts_with(&format!("{module}::")));
        let modules: Vec<Source> =
            modules.filter_map(|(module, _)| self.loader().module(&format!("std/{module}"), None).ok()).collect();
        let modules = modules.iter().map(|source| (&source.label[..], &source.text[..]));
        if let Some(found) = said.chain(modules).find_map(|(label, text)| of(label, text)) {
            return Ok(found);
        }
        if let Some(entry) =
            self.entries().iter().find(|entry| entry.path == name || entry.path.ends_with(&format!("::{bare}")))
        {
            let native = !entry.topic.starts_with("std/");
            if native {
                return Err(Error::value(format!("`{name}` is a native function: it has no Rhai text"))
                    .hint(format!(":help {name} says what it does")));
            }
            let module = self.loader().module(&entry.topic, None)?;
            return of(&module.label, &module.text)
                .ok_or_else(|| Error::new(Kind::Internal, format!("{} has lost `{bare}`", module.label)));
        }
        self.loader().find(name).map(|source| (source.label, source.text)).map_err(|e| {
            Error::new(Kind::Name, format!("there is no function or script `{name}`")).hint(e.hint.unwrap_or_default())
        })
    }
}
