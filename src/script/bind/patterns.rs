//! Regular expressions on texts. They take linear time in the text, whatever the pattern.

use crate::error::{Error, Result};
use crate::script::lang::limits::STRING_SIZE;
use crate::script::lang::native::Registry;
use regex::Regex;
use rhai::{Array, Dynamic, ImmutableString};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Compiled patterns that are kept: a reward asks the same ones of every row.
const KEPT: usize = 64;

#[derive(Clone, Default)]
struct Patterns(Rc<RefCell<BTreeMap<String, Regex>>>);

impl Patterns {
    fn compiled(&self, function: &str, pattern: &str) -> Result<Regex> {
        let mut kept = self.0.borrow_mut();
        if let Some(known) = kept.get(pattern) {
            return Ok(known.clone());
        }
        let made = Regex::new(pattern).map_err(|e| {
            // The last line says what is wrong, those before it show where.
            let what = e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
            Error::value(format!("`{function}`: the pattern {pattern:?} cannot be read: {what}"))
                .hint("patterns are those of Rust's regex: as Python's, without look-around and back-references")
        })?;
        if kept.len() == KEPT {
            kept.clear();
        }
        kept.insert(pattern.to_string(), made.clone());
        Ok(made)
    }
}

pub fn register(reg: &mut Registry) {
    let patterns = Patterns::default();
    let own = patterns.clone();
    reg.function("matches", ["regex"], move |text: &mut ImmutableString, regex: ImmutableString| -> Result<bool> {
        Ok(own.compiled("matches", &regex)?.is_match(text))
    });
    let own = patterns.clone();
    reg.function("find_all", ["regex"], move |text: &mut ImmutableString, regex: ImmutableString| -> Result<Array> {
        Ok(find_all(text, &own.compiled("find_all", &regex)?))
    });
    reg.function(
        "replace_all",
        ["regex", "with"],
        move |text: &mut ImmutableString, regex: ImmutableString, with: ImmutableString| {
            replace_all(text, &patterns.compiled("replace_all", &regex)?, &with)
        },
    );
}

/// What each match says: the whole, its group where there is one, or all its groups.
fn find_all(text: &str, regex: &Regex) -> Array {
    let said = |part: Option<regex::Match<'_>>| Dynamic::from(part.map_or("", |part| part.as_str()).to_string());
    let one = |found: regex::Captures<'_>| match found.len() {
        1 => said(found.get(0)),
        2 => said(found.get(1)),
        n => (1..n).map(|i| said(found.get(i))).collect::<Array>().into(),
    };
    regex.captures_iter(text).map(one).collect()
}

fn replace_all(text: &str, regex: &Regex, with: &str) -> Result<String> {
    let (mut made, mut from) = (String::new(), 0);
    for found in regex.captures_iter(text) {
        let whole = found.get_match();
        made.push_str(&text[from..whole.start()]);
        found.expand(with, &mut made);
        from = whole.end();
        if made.len() > STRING_SIZE {
            return Err(Error::value("replace_all: the replacements make the text too long"));
        }
    }
    made.push_str(&text[from..]);
    Ok(made)
}
