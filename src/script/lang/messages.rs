//! What Rhai's errors say in our words, with a hint on what to do.

use crate::error::{Error, nearest};
use crate::script::lang::in_use::{self, Held};
use crate::script::lang::lex;
use crate::script::lang::loader::Loader;
use crate::script::lang::native::Declaration;
use crate::script::lang::python;
use crate::script::lang::value::describe;
use rhai::{Dynamic, EvalAltResult, ParseErrorType, Position};
use std::collections::BTreeMap;

/// How parts of a tensor are taken.
const PARTS: &str = "x[i] is a row; gather(x, index, axis) picks along an axis, where(condition, a, b) by cells";

/// What can be known about a script, for hints.
pub struct Context<'a> {
    pub docs: &'a [Declaration],
    pub loader: &'a Loader,
    /// Which text a function stands in, where Rhai does not know.
    pub origins: &'a BTreeMap<String, String>,
    /// The script's own functions: name and `name(a, b)`.
    pub functions: Vec<(String, String)>,
    /// Keys of maps: hyper-parameters and map literals.
    pub keys: Vec<String>,
}

/// An error in words.
pub struct Message {
    pub message: String,
    pub hint: Option<String>,
    /// What stands at the place itself.
    pub here: String,
}

impl Message {
    fn new(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { message: message.into(), hint, here: "here".into() }
    }

    fn here(mut self, here: impl Into<String>) -> Self {
        self.here = here.into();
        self
    }
}

/// The variable that a method holds while its closure uses it too.
pub fn held(e: &EvalAltResult, label: &str, context: &Context<'_>) -> Option<Held> {
    // Of what was typed the newest is running.
    in_use::find(&context.loader.text(label)?, in_use::method(e)?, label == "prompt")
}

/// Rhai names a variable, or `argument #1 of function 'for_each'`.
fn used_twice(e: &EvalAltResult, name: &str, label: &str, context: &Context<'_>) -> Message {
    let Some(method) = in_use::method(e) else {
        let hint = "a closure shares the variables that it captures: collect the changes in another variable";
        return Message::new(format!("`{name}` cannot be changed while it is in use"), Some(hint.into()));
    };
    let held = held(e, label, context);
    let what = match &held {
        Some(held) => format!("`{}` is in use by `{method}`", held.variable),
        None => format!("a closure given to `{method}` uses the value that it is going through"),
    };
    let receiver = held.map_or("list".to_string(), |held| held.receiver);
    let hint = format!(
        "take what the closure needs first, as in `let first = {receiver}[0];`, and collect changes in another variable"
    );
    Message::new(what, Some(hint))
}

/// Puts `e` in words; it happened in the script `label`, inside a function or not.
pub fn of(e: &EvalAltResult, in_function: bool, label: &str, context: &Context<'_>) -> Message {
    use EvalAltResult as E;
    match e {
        // Strict checking finds it before the script runs, wherever it stands.
        E::ErrorParsing(ParseErrorType::VariableUndefined(name), at) => variable(name, *at, true, label, context),
        E::ErrorParsing(kind, at) => syntax(kind, *at, label, context),
        E::ErrorRuntime(token, _) | E::ErrorTerminated(token, _) => thrown(token),
        E::ErrorVariableNotFound(name, at) => variable(name, *at, in_function, label, context),
        E::ErrorFunctionNotFound(signature, _) => function(signature, label, context),
        E::ErrorPropertyNotFound(name, _) => property(name, context),
        E::ErrorModuleNotFound(name, _) => module(name, context),
        E::ErrorMismatchDataType(want, found, _) => mismatch(want, found),
        E::ErrorMismatchOutputType(want, found, _) => mismatch(want, found),
        E::ErrorDotExpr(text, _) => dot(text, context),
        E::ErrorIndexingType(text, _) => {
            let text = plain_types(text);
            let hint = text.starts_with("Tensor").then(|| PARTS.to_string());
            Message::new(format!("cannot be indexed: {text}"), hint)
        }
        E::ErrorFor(_) => Message::new("`for` needs something to go through, such as an array or `run.steps(n)`", None),
        E::ErrorAssignmentToConstant(name, _) => {
            Message::new(format!("`{name}` is a constant"), None).here("it cannot be changed")
        }
        E::ErrorNonPureMethodCallOnConstant(name, _) if name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
            let message = format!("`{name}` cannot be called on a constant, which it would change");
            Message::new(message, Some(format!("call it on a copy: let copy = …; copy.{name}(…)")))
        }
        E::ErrorArithmetic(text, _) => Message::new(lower(text), None),
        E::ErrorStackOverflow(_) => Message::new(
            "functions call each other too deeply",
            Some("does a function call itself without an end?".into()),
        ),
        E::ErrorDataRace(name, _) => used_twice(e, name, label, context),
        E::ErrorDataTooLarge(kind, _) => Message::new(format!("{} grew too large", lower(kind)), None),
        other => Message::new(lower(&bare(other)), None),
    }
}

/// What the root cause of `e` says, without hints.
pub fn plain(e: &EvalAltResult) -> String {
    match e.unwrap_inner() {
        EvalAltResult::ErrorRuntime(token, _) | EvalAltResult::ErrorTerminated(token, _) => thrown(token).message,
        other => lower(&bare(other)),
    }
}

/// Rhai's own text without its position, which is shown apart.
fn bare(e: &EvalAltResult) -> String {
    let text = e.to_string();
    match text.rfind(" (line ") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

fn syntax(kind: &ParseErrorType, at: Position, label: &str, context: &Context<'_>) -> Message {
    let text = context.loader.text(label).unwrap_or_default();
    let line = at.line().and_then(|line| text.lines().nth(line - 1));
    let known = line.zip(at.position()).and_then(|(line, column)| python::syntax(line, column));
    let hint = match kind {
        _ if known.is_some() => known.map(str::to_string),
        ParseErrorType::Reserved(word) => {
            Some(format!("`{word}` is a reserved word of the language: choose another name"))
        }
        ParseErrorType::MissingToken(token, _) => Some(format!("a `{token}` is missing here or before this place")),
        _ => None,
    };
    Message::new(format!("syntax error: {}", lower(&kind.to_string())), hint)
}

fn thrown(token: &Dynamic) -> Message {
    match token.read_lock::<Error>() {
        Some(e) => Message::new(e.what.clone(), e.hint.clone()),
        None if token.is_unit() || token.is_string() && token.to_string().trim().is_empty() => {
            Message::new("the script threw an error without a text", None).here("thrown here")
        }
        None if is_custom(token) => {
            Message::new(format!("the script threw {}", describe(token)), None).here("thrown here")
        }
        None => Message::new(token.to_string(), None).here("thrown here"),
    }
}

/// A value that only bindings know how to print.
fn is_custom(value: &Dynamic) -> bool {
    value.type_name().contains("::")
}

fn variable(name: &str, at: Position, in_function: bool, label: &str, context: &Context<'_>) -> Message {
    let text = context.loader.text(label).unwrap_or_default();
    let declared = |keyword| lex::declared(&text, keyword);
    let hint = match in_function {
        true if declared("let").contains(&name) => {
            Some("functions do not see variables outside of them: pass it as an argument".to_string())
        }
        true if declared("const").contains(&name) => {
            Some(format!("inside a function a constant is written `global::{name}`"))
        }
        true if context.keys.iter().any(|key| key == name) => Some(format!("a hyper-parameter is read as cfg.{name}")),
        _ => did_you_mean(name, [declared("let"), declared("const")].concat())
            .or_else(|| python::variable(name))
            .or_else(|| named_function(name, context))
            .or_else(|| is_assigned(name, at, &text).then(|| format!("declare it first: let {name} = …"))),
    };
    Message::new(format!("there is no variable `{name}`"), hint).here("not known here")
}

/// Of a function's name where a value stands.
fn named_function(name: &str, context: &Context<'_>) -> Option<String> {
    let doc = context.docs.iter().find(|doc| doc.name == name)?;
    Some(format!(
        "it is a function: {}; `:help {name}` at the prompt, `rhopo doc {name}` elsewhere",
        doc.signatures().join(", or ")
    ))
}

/// Whether `=` stands behind the name at a place.
fn is_assigned(name: &str, at: Position, text: &str) -> bool {
    let line = at.line().and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
    let behind: String = line.chars().skip(at.position().map_or(0, |column| column - 1)).collect();
    let rest = lex::code(behind.strip_prefix(name).unwrap_or_default());
    rest.first().is_some_and(|sign| sign.text.starts_with('=') && !sign.text.starts_with("=="))
}

/// `signature` is Rhai's: `seq_maen (Tensor, Tensor)`, `kl::k9 (Tensor)`.
fn function(signature: &str, label: &str, context: &Context<'_>) -> Message {
    let (name, types) = signature.split_once(" (").unwrap_or((signature, ")"));
    let types = plain_types(types.strip_suffix(')').unwrap_or(types));
    if !name.chars().any(|c| c.is_alphanumeric()) {
        let message = format!("`{name}` is not defined for ({types})");
        if name == "!" && types == "Tensor" {
            return Message::new(message, Some("conditions of tensors hold 0 and 1: write 1 - x".into()))
                .here("of a tensor");
        }
        return Message::new(message, operands(name, &types)).here("these do not go together");
    }
    let own = context.functions.iter().filter(|(known, _)| known == name).map(|(_, signature)| signature.clone());
    let native = context.docs.iter().filter(|doc| doc.path() == name || doc.name == name);
    let known: Vec<String> = own.chain(native.flat_map(Declaration::signatures)).collect();
    if !known.is_empty() {
        let message = format!("`{name}` does not take ({types})");
        return Message::new(message, Some(format!("it is {}", known.join(", or "))))
            .here("called with other arguments");
    }
    let names = context.docs.iter().map(Declaration::path);
    let text = context.loader.text(label).unwrap_or_default();
    let signatures = context.functions.iter().map(|(_, signature)| signature.as_str());
    let hint = match python::holds_a_closure(name, &text, signatures) {
        true => Some(format!("a closure in a variable is called by `{name}.call(…)`")),
        false => python::function(name)
            .or_else(|| did_you_mean(name, names.chain(context.functions.iter().map(|(name, _)| name.clone())))),
    };
    Message::new(format!("there is no function `{name}({types})`"), hint).here("not known")
}

/// What to do about an operator between these types.
fn operands(sign: &str, types: &str) -> Option<String> {
    let (a, b) = types.split_once(", ")?;
    let is_text = |kind: &str| ["string", "char"].contains(&kind);
    let is_number = |kind: &str| ["int", "float"].contains(&kind);
    let hint = match sign {
        _ if (is_text(a) && is_number(b)) || (is_number(a) && is_text(b)) => match sign {
            "%" => "values go into a text between backquotes: `n is ${n}`",
            "*" => "a text is repeated by a loop, or by \"\".pad(n, part)",
            _ => {
                "a text is never equal to a number: text.parse_float() (or parse_int()) makes one of it, x.to_string() a text"
            }
        },
        "+" | "-" | "*" | "/" | "**" if a == "array" || b == "array" => {
            "make a tensor of the numbers: tensor(list); `+` between two lists puts one behind the other"
        }
        "&" | "|" | "&&" | "||" if a == "Tensor" || b == "Tensor" => {
            "conditions of tensors hold 0 and 1: both are a * b, one of them is max(a, b)"
        }
        _ => return None,
    };
    Some(hint.to_string())
}

fn property(name: &str, context: &Context<'_>) -> Message {
    Message::new(format!("the map has no key `{name}`"), did_you_mean(name, &context.keys)).here("not in the map")
}

/// Rhai's texts name the property and the type between quotes, in that order.
fn dot(text: &str, context: &Context<'_>) -> Message {
    let quoted: Vec<&str> = text.split('\'').skip(1).step_by(2).collect();
    let [name, kind, ..] = quoted[..] else { return Message::new(lower(&plain_types(text)), None) };
    let (kind, known) = (plain_types(kind), context.docs.iter().map(|doc| doc.name));
    let message = match text.starts_with("No writable") {
        true => format!("`{name}` of {kind} cannot be set"),
        false => format!("{kind} has no property `{name}`"),
    };
    let hint = match context.docs.iter().find(|doc| doc.name == name) {
        Some(doc) => Some(format!("it is a function: {}", doc.signatures().join(", or "))),
        None => did_you_mean(name, known),
    };
    Message::new(message, hint).here("no such property")
}

fn module(name: &str, context: &Context<'_>) -> Message {
    let mut modules: Vec<&str> = context.docs.iter().map(|doc| doc.module).filter(|m| !m.is_empty()).collect();
    modules.dedup();
    let hint = did_you_mean(name, modules).unwrap_or_else(|| "modules are loaded with `import \"…\" as name;`".into());
    Message::new(format!("there is no module `{name}`"), Some(hint)).here("not known")
}

fn mismatch(want: &str, found: &str) -> Message {
    let (want, found) = (plain_types(want), plain_types(found));
    if want == "bool" && found == "Tensor" {
        let hint =
            "a tensor has many cells: choose per cell with where(condition, a, b), or take one value with .item()";
        return Message::new("a condition must be true or false, and this is a Tensor", Some(hint.into()))
            .here("a tensor cannot decide an `if` or a `while`");
    }
    let message = match found.is_empty() {
        true => format!("a value of type {want} was expected"),
        false => format!("a value of type {want} was expected, found {found}"),
    };
    let hint =
        (want == "int" && found.starts_with("Range")).then(|| "a part of a list is list.extract(1..3)".to_string());
    Message::new(message, hint)
}

/// "did you mean `x`?", if one of `known` is near. A single letter is near to everything short, so it says nothing.
pub fn did_you_mean<S: AsRef<str>>(found: &str, known: impl IntoIterator<Item = S>) -> Option<String> {
    let known: Vec<S> = known.into_iter().collect();
    let is_word = |name: &&str| name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ':');
    let known: Vec<&str> = known.iter().map(AsRef::as_ref).filter(is_word).collect();
    if found.chars().count() < 2 {
        return None;
    }
    if known.contains(&found) {
        return None; // it exists, only not here: the name is not what is wrong
    }
    nearest(found, &known).map(|name| format!("did you mean `{name}`?"))
}

/// Rust's names of types in the language's own words: `alloc::sync::Arc<rhopo::model::Model>` is a Model.
pub fn plain_types(text: &str) -> String {
    let text = text.replace("&str | ImmutableString | String", "string");
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find(is_word) {
        plain += &rest[..start];
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |n| start + n);
        plain += type_name(&rest[start..end]);
        rest = &rest[end..];
    }
    plain += rest;
    ["Arc<", "Rc<"].iter().fold(plain, |text, pointer| unwrap_pointer(&text, pointer))
}

fn type_name(path: &str) -> &str {
    match path.rsplit("::").next().unwrap_or(path) {
        "i64" => "int",
        "f64" => "float",
        "ImmutableString" => "string",
        "Fn" | "FnPtr" => "function",
        "ModelHandle" => "Model",
        other => other,
    }
}

/// `Arc<Model>` without its shell.
fn unwrap_pointer(text: &str, pointer: &str) -> String {
    let mut parts = text.split(pointer);
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |done, part| format!("{done}{}", part.replacen('>', "", 1)))
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    let second_is_lower = text.chars().nth(1).is_some_and(char::is_lowercase);
    match chars.next() {
        Some(first) if second_is_lower => first.to_lowercase().chain(chars).collect(),
        _ => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_as_scripts_know_them() {
        let rust = "&str | ImmutableString | String, alloc::sync::Arc<rhopo::model::Model>, i64, rhopo::data::Batch";
        assert_eq!(plain_types(rust), "string, Model, int, Batch");
        assert_eq!(plain_types("Fn"), "function");
    }
}
