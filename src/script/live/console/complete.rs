//! What could come next while somebody types, and the signature of what is being called.
//!
//! Owns no terminal: text, a place in it, and what is known there give candidates.

use super::show;
use crate::data::{Batch, task};
use crate::files::{self, Location, anywhere};
use crate::model::builtin;
use crate::run::access::Access;
use crate::script::lang::lex::{self, Kind, Piece};
use crate::script::lang::loader;
use crate::script::lang::native::{Form, Shape};
use crate::script::lang::reference::Entry;
use rhai::{Dynamic, Engine};

/// A variable in reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    /// `Batch`, `Tensor`, `map`.
    pub kind: String,
    pub constant: bool,
    /// Its value in one line.
    pub value: String,
    /// What can stand after its point: columns of a batch, keys of a map.
    pub members: Vec<String>,
}

/// Describes a variable; its value within `width` columns.
pub fn variable(engine: &Engine, name: &str, constant: bool, value: &Dynamic, width: usize) -> Variable {
    let members = match value.read_lock::<Batch>() {
        Some(batch) => batch.names().into_iter().chain(["rows"]).map(str::to_string).collect(),
        None => value.as_map_ref().map(|map| map.keys().map(ToString::to_string).collect()).unwrap_or_default(),
    };
    let kind = match engine.map_type_name(value.type_name()) {
        "i64" => "int",
        "f64" => "float",
        "Fn" => "function",
        other => other.rsplit("::").next().unwrap_or(other).trim_end_matches('>'),
    };
    let (name, kind) = (name.to_string(), kind.to_string());
    Variable { name, kind, constant, value: show::line(engine, value, width), members }
}

/// What can be named at a place.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub entries: Vec<Entry>,
    pub variables: Vec<Variable>,
    /// `loss(logp, b, cfg)`
    pub functions: Vec<String>,
    pub modules: Vec<String>,
    /// `:help`, with what each is for.
    pub commands: Vec<(&'static str, &'static str)>,
}

/// Candidates for the word that ends at `at`, and where that word begins.
pub fn candidates(text: &str, at: usize, known: &Known) -> (usize, Vec<String>) {
    let before = &text[..at];
    let pieces = lex::pieces(before);
    if let Some(start) = command(before) {
        return of_command(before, start, known);
    }
    let Some(last) = pieces.last() else { return (at, Vec::new()) };
    if last.kind == Kind::Text && !last.closed {
        return in_text(&pieces, last, known);
    }
    if matches!(last.kind, Kind::Comment | Kind::Number) {
        return (at, Vec::new());
    }
    let (word, start) = match last.kind {
        Kind::Word | Kind::Keyword => (last.text, last.start),
        _ => ("", at),
    };
    let leading: Vec<&Piece<'_>> =
        pieces.iter().filter(|piece| piece.start < start && piece.kind != Kind::Space).collect();
    let found = match leading.last().map(|piece| piece.text) {
        Some(sign) if sign.ends_with("::") => of_module(leading.iter().rev().nth(1).map_or("", |p| p.text), known),
        Some(sign) if sign.ends_with('.') => of_value(leading.iter().rev().nth(1).map_or("", |p| p.text), known),
        Some("{" | ",") if in_map(&leading) => options(&leading, known),
        _ if word.is_empty() => return (at, Vec::new()),
        _ => names(known),
    };
    (start, sorted(found, word))
}

fn sorted(mut found: Vec<String>, word: &str) -> Vec<String> {
    found.retain(|name| name.starts_with(word) && name != word);
    found.sort();
    found.dedup();
    found
}

/// `:he` is a command; the place behind the colon's word.
fn command(before: &str) -> Option<usize> {
    let trimmed = before.trim_start();
    trimmed.starts_with(':').then(|| before.len() - trimmed.len())
}

fn of_command(before: &str, start: usize, known: &Known) -> (usize, Vec<String>) {
    let Some(space) = before[start..].find(' ') else {
        let names = known.commands.iter().map(|(name, _)| name.to_string()).collect();
        return (start, sorted(names, &before[start..]));
    };
    let word_at = before.rfind(' ').map_or(before.len(), |i| i + 1);
    let word = &before[word_at..];
    let found = match &before[start..start + space] {
        ":help" | ":h" => known.entries.iter().map(|e| e.path.clone()).collect(),
        ":source" => {
            let own = known.functions.iter().map(|f| bare(f).to_string());
            let library = known.entries.iter().filter(|e| e.topic.starts_with("std/")).map(|e| e.path.clone());
            own.chain(library).chain(loader::list(&Access::reading(&[])).iter().map(loader::Source::stem)).collect()
        }
        ":set" => ["device", "seed"].map(str::to_string).to_vec(),
        ":load" | ":save" => paths(word),
        _ => return candidates_of_expression(before, space + start + 1, known),
    };
    (word_at, sorted(found, word))
}

/// `:time EXPR` and `:plot EXPR` take what any line takes.
fn candidates_of_expression(before: &str, from: usize, known: &Known) -> (usize, Vec<String>) {
    let (start, found) = candidates(&before[from..], before.len() - from, known);
    (start + from, found)
}

/// What lies where a person points, wherever that is.
fn paths(word: &str) -> Vec<String> {
    let folder = word.rfind('/').map_or("", |i| &word[..=i]);
    let entries = files::entries(&anywhere(if folder.is_empty() { "." } else { folder })).unwrap_or_default();
    let named = |path: Location| {
        let name = path.file_name()?.to_string_lossy();
        (!name.starts_with('.')).then(|| format!("{folder}{name}{}", if files::is_folder(&path) { "/" } else { "" }))
    };
    entries.into_iter().filter_map(named).collect()
}

/// Names of models, tasks, scripts and modules, where one is expected between quotes.
fn in_text(pieces: &[Piece<'_>], last: &Piece<'_>, known: &Known) -> (usize, Vec<String>) {
    let word = &last.text[1..];
    let call: Vec<&str> =
        pieces.iter().rev().skip(1).filter(|p| p.kind != Kind::Space).map(|p| p.text).take(2).collect();
    let scripts = || loader::list(&Access::reading(&[])).iter().map(loader::Source::stem).collect();
    let found = match call[..] {
        ["(", "load_model"] => [builtin::CATALOG.iter().map(|m| m.name.to_string()).collect(), paths(word)].concat(),
        ["(", "load_task"] => task::CATALOG.iter().map(|(name, _)| name.to_string()).collect(),
        ["(", "script" | "defaults"] => [scripts(), paths(word)].concat(),
        ["import", ..] => loader::STDLIB.iter().map(|(name, _)| format!("std/{name}")).collect(),
        ["(", name] if known.entries.iter().any(|entry| entry.path == name && takes_path(entry)) => paths(word),
        _ => Vec::new(),
    };
    (last.start + 1, sorted(found, word))
}

fn takes_path(entry: &Entry) -> bool {
    entry.forms.iter().flat_map(|form| &form.params).any(|param| param.name == "path")
}

fn of_module(module: &str, known: &Known) -> Vec<String> {
    let prefix = format!("{module}::");
    known.entries.iter().filter_map(|e| e.path.strip_prefix(&prefix)).map(str::to_string).collect()
}

/// What can stand behind `name.`: members of the variable, and what its type can do.
fn of_value(name: &str, known: &Known) -> Vec<String> {
    let variable = known.variables.iter().find(|v| v.name == name);
    let kind = variable.map(|v| v.kind.as_str());
    let mut found: Vec<String> = variable.map(|v| v.members.clone()).unwrap_or_default();
    // Of a value that is not known yet, whatever can follow a point may be meant.
    let fits = |form: &Form| form.receiver.as_ref().is_some_and(|own| kind.is_none_or(|kind| kind == own.kind));
    let methods = known.entries.iter().filter(|entry| matches!(entry.shape, Shape::Call | Shape::Property));
    found.extend(methods.filter(|entry| entry.forms.iter().any(fits)).map(|entry| entry.path.clone()));
    found
}

/// Whether the last open bracket belongs to a map.
fn in_map(leading: &[&Piece<'_>]) -> bool {
    open_bracket(leading).is_some_and(|i| i > 0 && leading[i].text == "{" && leading[i - 1].text.ends_with('#'))
}

fn open_bracket(leading: &[&Piece<'_>]) -> Option<usize> {
    let mut depth = 0;
    leading.iter().rposition(|piece| {
        match (piece.kind, piece.text) {
            (Kind::Sign, ")" | "]" | "}") => depth += 1,
            (Kind::Sign, "(" | "[" | "{") => depth -= 1,
            _ => {}
        }
        depth < 0
    })
}

/// The options that the called function takes, those that are there left out.
fn options(leading: &[&Piece<'_>], known: &Known) -> Vec<String> {
    let Some(map) = open_bracket(leading) else { return Vec::new() };
    let entries = called(&leading[..map - 1], known);
    let options = entries.iter().flat_map(|entry| &entry.forms).flat_map(Form::options);
    let given = |name: &str| leading[map..].iter().any(|piece| piece.text == name);
    options.map(|opt| opt.name).filter(|name| !given(name)).map(str::to_string).collect()
}

/// The pages of the function whose bracket is open last.
fn called<'a>(leading: &[&Piece<'_>], known: &'a Known) -> Vec<&'a Entry> {
    let Some(open) = open_bracket(leading).filter(|i| leading[*i].text == "(" && *i > 0) else { return Vec::new() };
    let name = leading[open - 1];
    if name.kind != Kind::Word {
        return Vec::new();
    }
    let before = |n: usize| open.checked_sub(n).map_or("", |i| leading[i].text);
    let is_method = before(2).ends_with('.');
    let path = match before(2).ends_with("::") {
        true => format!("{}::{}", before(3), name.text),
        false => name.text.to_string(),
    };
    let fits = |entry: &&Entry| entry.path == path && entry.is_method() == is_method;
    known.entries.iter().filter(fits).collect()
}

fn names(known: &Known) -> Vec<String> {
    let functions = known.entries.iter().filter(|entry| !entry.path.contains("::") && !entry.is_method());
    let modules = known.entries.iter().filter_map(|e| Some(e.path.split_once("::")?.0.to_string()));
    let words = lex::KEYWORDS.iter().map(ToString::to_string);
    let own = known.functions.iter().map(|f| bare(f).to_string());
    let variables = known.variables.iter().map(|v| v.name.clone());
    let all = functions.map(|e| e.path.clone()).chain(modules).chain(words).chain(own).chain(variables);
    let is_name = |name: &String| name.chars().all(|c| c.is_alphanumeric() || c == '_');
    all.chain(known.modules.iter().cloned()).filter(is_name).collect()
}

fn bare(signature: &str) -> &str {
    signature.split('(').next().unwrap_or(signature)
}

/// The signature of the call that the end of `text` stands in.
pub fn signature(text: &str, known: &Known) -> Option<String> {
    let pieces = lex::pieces(text);
    if pieces.last().is_some_and(|piece| !piece.closed) {
        return None;
    }
    let leading: Vec<&Piece<'_>> = pieces.iter().filter(|piece| piece.kind != Kind::Space).collect();
    let mut leading = &leading[..];
    // Inside an option map the call around it is meant.
    while let Some(open) = open_bracket(leading) {
        if leading[open].text == "(" {
            break;
        }
        leading = &leading[..open];
    }
    if let Some(entry) = called(leading, known).first() {
        return Some(entry.signatures().join(" or "));
    }
    let open = open_bracket(leading)?;
    let name = leading[open.checked_sub(1)?];
    known.functions.iter().find(|f| bare(f) == name.text).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::builder::HostBuilder;
    use crate::script::lang::reference;

    fn known() -> Known {
        let host = HostBuilder::new().build();
        let variable = |name: &str, kind: &str, members: &[&str]| Variable {
            name: name.into(),
            kind: kind.into(),
            constant: false,
            value: String::new(),
            members: members.iter().map(ToString::to_string).collect(),
        };
        Known {
            entries: reference::entries(host.docs()),
            variables: vec![
                variable("batch_a", "Batch", &["reward", "old_logprob"]),
                variable("cfg", "map", &["clip", "beta"]),
            ],
            functions: vec!["loss(logp, b, cfg)".into()],
            modules: vec!["reward".into()],
            commands: vec![(":help", ""), (":vars", "")],
        }
    }

    #[test]
    fn words_are_completed_by_what_stands_before_them() {
        let known = known();
        let of = |text: &str| candidates(text, text.len(), &known).1;
        assert_eq!(of("seq_me"), ["seq_mean"]);
        assert_eq!(of("los"), ["loss"]);
        assert_eq!(of("kl::k"), ["k1", "k2", "k3"]);
        assert_eq!(of("cfg.c"), ["clip", "contains"]);
        assert!(of("batch_a.").contains(&"reward".into()) && of("batch_a.").contains(&"minibatches".into()));
        assert!(!of("batch_a.").contains(&"steps".into()), "that is a run's");
        assert_eq!(of("sample(policy, p, #{ max_"), ["max_tokens"]);
        assert!(!of("sample(policy, p, #{ max_tokens: 3, ").contains(&"max_tokens".into()), "it is there");
        assert_eq!(of("load_task(\"arith"), ["arithmetic"]);
        assert_eq!(of("import \"std/sch"), ["std/schedule"]);
        assert_eq!(of(":he"), [":help"]);
        assert!(of(":help seq_").contains(&"seq_avg".into()));
        assert!(of("// seq_").is_empty() && of("1").is_empty());
    }

    #[test]
    fn the_call_around_the_cursor_is_named() {
        let known = known();
        let of = |text: &str| signature(text, &known);
        assert!(of("seq_mean(x, ").is_some_and(|s| s.starts_with("seq_mean(")));
        assert!(of("kl::k3(logp").is_some_and(|s| s.starts_with("kl::k3(")));
        assert!(of("sample(policy, prompts, #{ n: ").is_some_and(|s| s.starts_with("sample(")));
        assert_eq!(of("loss(a, "), Some("loss(logp, b, cfg)".into()));
        assert_eq!(of("seq_mean(x, y)"), None);
        assert_eq!(of("1 + (2"), None);
    }
}
