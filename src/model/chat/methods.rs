//! Python's methods of texts, lists and dicts, where templates call them.
//!
//! What is not here falls back to minijinja's own. Methods that change a value are missing on purpose: transformers'
//! sandbox refuses them.

use super::fuel::{charge, reserve, room, spent};
use super::printed::repr;
use super::python::{formatted, joined};
use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Calls the method `name` of `value`.
pub(super) fn call(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    charge(state, size(value))?;
    let found = match (value.as_str(), value.kind()) {
        (Some(text), _) => of_text(state, text, name, args),
        (None, ValueKind::Seq | ValueKind::Iterable) => of_list(state, value, name, args),
        (None, ValueKind::Map) if name == "copy" && args.is_empty() => Some(Ok(value.clone())),
        _ => None,
    };
    found.unwrap_or_else(|| unknown_method_callback(state, value, name, args))
}

/// What a method may have to go through: bytes of a text, eight for each item of a list or map.
fn size(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.len(),
        None => value.len().unwrap_or(0).saturating_mul(8),
    }
}

/// Arguments by place or by name; None counts as not given.
struct Given<'a> {
    places: &'a [Value],
    names: Kwargs,
}

impl<'a> Given<'a> {
    fn of(args: &'a [Value], most: usize) -> Result<Self, Error> {
        let (places, names): (&[Value], Kwargs) = from_args(args)?;
        match places.len() <= most {
            true => Ok(Self { places, names }),
            false => Err(Error::new(ErrorKind::TooManyArguments, format!("at most {most} expected"))),
        }
    }

    fn value(&self, place: usize, name: &str) -> Result<Option<Value>, Error> {
        let found = match self.places.get(place) {
            Some(value) => Some(value.clone()),
            None => self.names.get::<Option<Value>>(name)?,
        };
        Ok(found.filter(|value| !value.is_none() && !value.is_undefined()))
    }

    fn text(&self, place: usize, name: &str) -> Result<Option<String>, Error> {
        let wrong = || Error::new(ErrorKind::InvalidOperation, format!("`{name}` must be a text"));
        let text = |value: Value| value.as_str().map(str::to_string).ok_or_else(wrong);
        self.value(place, name)?.map(text).transpose()
    }

    fn int(&self, place: usize, name: &str) -> Result<Option<i64>, Error> {
        self.value(place, name)?.map(i64::try_from).transpose()
    }

    fn needed_text(&self, place: usize, name: &str) -> Result<String, Error> {
        self.text(place, name)?.ok_or_else(|| Error::new(ErrorKind::MissingArgument, format!("`{name}` is missing")))
    }

    fn done(&self) -> Result<(), Error> {
        self.names.assert_all_used()
    }
}

/// None where the method is not one of those here.
fn of_text(state: &State, text: &str, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match name {
        "split" | "rsplit" | "splitlines" if reserve(state, pieces(text)).is_err() => Err(spent()),
        "split" | "rsplit" => split(text, name == "rsplit", args),
        "splitlines" => lines(text, args),
        "partition" | "rpartition" => partition(text, name == "rpartition", args),
        "removeprefix" => one_text(args, |end| text.strip_prefix(end).unwrap_or(text).into()),
        "removesuffix" => one_text(args, |end| text.strip_suffix(end).unwrap_or(text).into()),
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, name, args),
        "startswith" | "endswith" if args.len() > 1 => within(text, name, args),
        "strip" | "lstrip" | "rstrip" => strip(text, name, args),
        "replace" => replace(state, text, args),
        "join" => match args {
            [values] => joined(state, values, text, Ok).map(Value::from),
            _ => return None,
        },
        "format" => match formatted(text, args, room(state)).and_then(|bytes| reserve(state, bytes)) {
            Ok(()) => return None,
            Err(e) => Err(e),
        },
        "zfill" | "ljust" | "rjust" | "center" => pad(text, name, args),
        "title" if args.is_empty() => Ok(title(text).into()),
        "swapcase" if args.is_empty() => Ok(text.chars().flat_map(swapped).collect::<String>().into()),
        "casefold" if args.is_empty() => Ok(text.to_lowercase().replace('ß', "ss").into()),
        _ => return None,
    })
}

fn of_list(state: &State, list: &Value, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    match (name, args) {
        ("copy", []) => Some(list.try_iter().map(|items| items.collect())),
        ("index", [wanted]) => {
            Some(list.try_iter().and_then(|mut items| match items.position(|item| item == *wanted) {
                Some(at) => Ok(at.into()),
                None => Err(failed(format!("{} is not in the list", repr(wanted, room(state))?))),
            }))
        }
        _ => None,
    }
}

fn failed(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, text.into())
}

/// Bytes that the parts of a text take, each being a value, if it falls into as many as it can.
fn pieces(text: &str) -> usize {
    text.len().saturating_mul(size_of::<Value>())
}

fn one_text(args: &[Value], make: impl FnOnce(&str) -> Value) -> Result<Value, Error> {
    let (text,): (&str,) = from_args(args)?;
    Ok(make(text))
}

/// White space to Python: Unicode's, and the separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn strip(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let given = Given::of(args, 1)?;
    let chars = given.text(0, "chars")?;
    given.done()?;
    let goes = |c: char| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if name == "rstrip" { text } else { text.trim_start_matches(goes) };
    Ok(if name == "lstrip" { text } else { text.trim_end_matches(goes) }.into())
}

fn split(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let given = Given::of(args, 2)?;
    let (sep, most) = (given.text(0, "sep")?, given.int(1, "maxsplit")?);
    given.done()?;
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = match &sep {
        Some(sep) if sep.is_empty() => return Err(failed("split: the separator is empty")),
        Some(sep) if from_right => text.rsplitn(most.saturating_add(1), sep.as_str()).collect(),
        Some(sep) => text.splitn(most.saturating_add(1), sep.as_str()).collect(),
        None => words(text, most, from_right),
    };
    if from_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Words between runs of white space; what is left after the most splits keeps its inner and outer white space.
fn words(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let trim =
        |text| if from_right { str::trim_end_matches(text, is_space) } else { str::trim_start_matches(text, is_space) };
    let (mut rest, mut found) = (trim(text), Vec::new());
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = cut.filter(|_| found.len() < most) else {
            // Python keeps the far side's white space only where the splits ran out.
            found.push(rest);
            break;
        };
        let after = at + rest[at..].chars().next().map_or(0, char::len_utf8);
        let (word, left) = if from_right { (&rest[after..], &rest[..at]) } else { (&rest[..at], &rest[after..]) };
        found.push(word);
        rest = trim(left);
    }
    found
}

fn lines(text: &str, args: &[Value]) -> Result<Value, Error> {
    let given = Given::of(args, 1)?;
    let keep = given.value(0, "keepends")?.is_some_and(|keep| keep.is_true());
    given.done()?;
    let ends = |c: char| "\n\r\u{b}\u{c}\u{1c}\u{1d}\u{1e}\u{85}\u{2028}\u{2029}".contains(c);
    let (mut rest, mut found) = (text, Vec::new());
    while !rest.is_empty() {
        let at = rest.find(ends).unwrap_or(rest.len());
        let end = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(0, char::len_utf8) };
        found.push(Value::from(&rest[..if keep { at + end } else { at }]));
        rest = &rest[at + end..];
    }
    Ok(found.into())
}

fn partition(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let (sep,): (&str,) = from_args(args)?;
    if sep.is_empty() {
        return Err(failed("partition: the separator is empty"));
    }
    let parts = match (from_right, if from_right { text.rsplit_once(sep) } else { text.split_once(sep) }) {
        (_, Some((before, after))) => [before, sep, after],
        (false, None) => [text, "", ""],
        (true, None) => ["", "", text],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// The characters `[start, end)` as Python slices: negative ones count from the end. Also the first one's number.
fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> (&str, usize) {
    let count = text.chars().count() as i64;
    let place = |at: i64| if at < 0 { (at + count).max(0) } else { at.min(count) };
    let (from, to) = (place(start.unwrap_or(0)), place(end.unwrap_or(count)));
    let byte = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    (text.get(byte(from)..byte(to)).unwrap_or(""), from as usize)
}

fn search(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let given = Given::of(args, 3)?;
    let wanted = given.needed_text(0, "sub")?;
    let (part, first) = slice(text, given.int(1, "start")?, given.int(2, "end")?);
    given.done()?;
    if name == "count" {
        return Ok(part.matches(&wanted).count().into());
    }
    let found = if name.starts_with('r') { part.rfind(&wanted) } else { part.find(&wanted) };
    match found {
        Some(at) => Ok((first + part[..at].chars().count()).into()),
        None if name.ends_with("find") => Ok((-1).into()),
        None => Err(failed(format!("{name}: {wanted:?} is not in the text"))),
    }
}

/// `startswith` and `endswith` of a part of the text.
fn within(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let given = Given::of(args, 3)?;
    let (part, _) = slice(text, given.int(1, "start")?, given.int(2, "end")?);
    let asked = args[0].clone();
    let wanted: Vec<Value> = match asked.as_str() {
        Some(_) => vec![asked],
        None => asked.try_iter()?.collect(),
    };
    let has = |end: &str| if name == "startswith" { part.starts_with(end) } else { part.ends_with(end) };
    Ok(wanted.iter().filter_map(Value::as_str).any(has).into())
}

fn replace(state: &State, text: &str, args: &[Value]) -> Result<Value, Error> {
    let given = Given::of(args, 3)?;
    let (old, new) = (given.needed_text(0, "old")?, given.needed_text(1, "new")?);
    let count = given.int(2, "count")?.and_then(|count| usize::try_from(count).ok());
    given.done()?;
    let most = text.matches(&old).take(count.unwrap_or(usize::MAX)).count();
    reserve(state, text.len().saturating_add(most.saturating_mul(new.len())))?;
    Ok(count.map_or_else(|| text.replace(&old, &new), |count| text.replacen(&old, &new, count)).into())
}

fn pad(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    const WIDEST: usize = 1 << 20;
    let given = Given::of(args, if name == "zfill" { 1 } else { 2 })?;
    let width = given.int(0, "width")?.ok_or_else(|| failed(format!("{name}: the width is missing")))?;
    let fill = given.text(1, "fillchar")?.unwrap_or_else(|| " ".into());
    given.done()?;
    if fill.chars().count() != 1 {
        return Err(failed(format!("{name}: the fill must be one character")));
    }
    let width = usize::try_from(width).unwrap_or(0);
    if width > WIDEST {
        return Err(failed(format!("{name}: a width of {width} is too much")));
    }
    let more = width.saturating_sub(text.chars().count());
    Ok(match name {
        "zfill" => {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            format!("{sign}{}{digits}", "0".repeat(more))
        }
        "ljust" => format!("{text}{}", fill.repeat(more)),
        "rjust" => format!("{}{text}", fill.repeat(more)),
        _ => {
            let left = more / 2 + (more & width & 1);
            format!("{}{text}{}", fill.repeat(left), fill.repeat(more - left))
        }
    }
    .into())
}

/// Words begin after whatever is no letter; minijinja's `title` is Jinja's filter, which begins them after white space.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        inside = c.is_alphabetic();
    }
    out
}

fn swapped(c: char) -> Vec<char> {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}
