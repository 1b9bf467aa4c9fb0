//! What chat templates may call beside Jinja itself: transformers' functions, Python's JSON and `%`.

use super::fuel::{Bounded, charge, reserve, room, spent};
use super::source::PERCENT;
use super::{methods, printed};
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Tuple, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::filters::datetimeformat;
use minijinja_contrib::globals::now;
use serde::Serialize;
use serde_json::Value as Json;
use serde_json::ser::{Formatter, Serializer};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

/// What `raise_exception` was called with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

pub(super) fn install(environment: &mut Environment) {
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|out, state, value| {
        let written = match value.as_str() {
            Some(text) => out.write_str(text),
            None => out.write_str(&printed::text(value, room(state))?),
        };
        written.map_err(Error::from)
    });
    environment.add_filter(PERCENT, percent);
    environment.add_filter("string", |state: &State, value: &Value| printed::text(value, room(state)));
    environment.add_filter("join", join);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
    });
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    // To minijinja, None is iterable, and neither texts nor maps nor what is undefined are sequences.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    let indexed = [
        ValueKind::Undefined,
        ValueKind::String,
        ValueKind::Bytes,
        ValueKind::Seq,
        ValueKind::Map,
        ValueKind::Iterable,
    ];
    environment.add_test("sequence", move |value: &Value| indexed.contains(&value.kind()));
}

/// The template's own message, where it raised one.
pub(super) fn raised(e: &Error) -> Option<String> {
    let mut source = std::error::Error::source(e);
    while let Some(e) = source {
        if let Some(raised) = e.downcast_ref::<Raised>() {
            return Some(raised.to_string());
        }
        source = e.source();
    }
    None
}

/// A message as transformers hands it to a template: without keys that are null. Reasoning has several names in data
/// sets: `reasoning_content`, which templates read, `thinking`, which some do, and `reasoning`; a message with one of
/// them gets the first two.
pub(super) fn normal(message: &Json) -> Cow<'_, Json> {
    let Json::Object(map) = message else { return Cow::Borrowed(message) };
    let names = ["reasoning_content", "thinking", "reasoning"];
    let reasoning = names.iter().find_map(|name| map.get(*name).filter(|value| !value.is_null()));
    if reasoning.is_none() && !map.values().any(Json::is_null) {
        return Cow::Borrowed(message);
    }
    let mut normal = serde_json::Map::new();
    normal.extend(reasoning.map(|reasoning| ("thinking".to_string(), reasoning.clone())));
    normal.extend(map.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())));
    normal.extend(reasoning.map(|reasoning| ("reasoning_content".to_string(), reasoning.clone())));
    Cow::Owned(Json::Object(normal))
}

/// Python's `text % values`.
fn percent(state: &State, text: &str, values: &Value) -> Result<String, Error> {
    let values = match values.downcast_object_ref::<Tuple>() {
        Some(values) => &values[..],
        None => std::slice::from_ref(values),
    };
    reserve(state, formatted(text, values, room(state))?)?;
    format(FormatStyle::Printf, text, values)
}

/// Bytes at most of a format with these values filled in: each number in it may be a width, and each field the longest value.
pub(super) fn formatted(text: &str, values: &[Value], room: usize) -> Result<usize, Error> {
    let digits = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widths = digits.map(|digits| digits.parse().unwrap_or(usize::MAX));
    let given = values.iter().filter_map(|value| usize::try_from(value.clone()).ok()).filter(|_| text.contains('*'));
    let widths = widths.chain(given).fold(0_usize, usize::saturating_add);
    let mut longest = 0;
    for value in values {
        longest = longest.max(printed::text(value, room)?.len());
    }
    let fields = text.matches(['%', '{']).count();
    Ok(text.len().saturating_add(widths).saturating_add(fields.saturating_mul(longest)))
}

/// Jinja's `join`, with numbers as Python prints them.
fn join(state: &State, values: &Value, between: Option<&str>, args: Kwargs) -> Result<String, Error> {
    let attribute = args.get::<Option<&str>>("attribute")?;
    let between = between.map_or_else(|| args.get::<Option<&str>>("d"), |between| Ok(Some(between)))?;
    args.assert_all_used()?;
    joined(state, values, between.unwrap_or(""), |item| match attribute {
        None => Ok(item),
        Some(path) => path.split('.').try_fold(item, |item, name| item.get_attr(name)),
    })
}

/// The texts of what `of` gives of each value, with `between` between them.
pub(super) fn joined(
    state: &State,
    values: &Value,
    between: &str,
    of: impl Fn(Value) -> Result<Value, Error>,
) -> Result<String, Error> {
    let mut out = Bounded::new(room(state));
    for (i, item) in values.try_iter()?.enumerate() {
        // What is empty takes time as well.
        charge(state, 0)?;
        let text = printed::text(&of(item)?, room(state))?;
        let written = if i > 0 { out.write_str(between) } else { Ok(()) };
        written.and_then(|()| out.write_str(&text)).map_err(|_| spent())?;
    }
    Ok(out.into_text())
}

/// The present time, UTC.
fn strftime_now(state: &State, format: &str) -> Result<String, Error> {
    datetimeformat(state, now(), Kwargs::from_iter([("format", Value::from(format))]))
}

/// Python's `json.dumps`, with the defaults that transformers gives it.
fn tojson(state: &State, value: &Value, args: Kwargs) -> Result<String, Error> {
    let failed = |e: String| Error::new(ErrorKind::BadSerialization, e);
    if value.is_undefined() {
        return Err(failed("tojson of an undefined value".into()));
    }
    let ascii = args.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = args.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let indent = args.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none());
    let indent = indent.map(|indent| match indent.as_str() {
        Some(text) => Ok(text.to_string()),
        None => usize::try_from(indent).and_then(|n| reserve(state, n).map(|()| " ".repeat(n))),
    });
    let indent = indent.transpose()?;
    let comma = if indent.is_some() { "," } else { ", " };
    let separators = args.get::<Option<Vec<String>>>("separators")?;
    let [item, key] = separators
        .unwrap_or_else(|| vec![comma.to_string(), ": ".to_string()])
        .try_into()
        .map_err(|_| failed("tojson takes two separators".into()))?;
    args.assert_all_used()?;
    let style = Dumps { item, key, indent, ascii, depth: 0, filled: false };
    let mut out = Bounded::new(room(state));
    let mut serializer = Serializer::with_formatter(&mut out, style);
    let written = match sorted {
        true => sorted_json(state, value)?.serialize(&mut serializer),
        false => value.serialize(&mut serializer),
    };
    written.map_err(|e| if e.is_io() { spent() } else { failed(e.to_string()) })?;
    Ok(out.into_text())
}

/// The value with the keys of all maps in order. It takes many times the memory of its text.
fn sorted_json(state: &State, value: &Value) -> Result<Json, Error> {
    const LARGER: usize = 64;
    let failed = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut text = Bounded::new(room(state) / LARGER);
    let written = value.serialize(&mut Serializer::new(&mut text));
    written.map_err(|e| if e.is_io() { spent() } else { failed(e) })?;
    let mut json: Json = serde_json::from_str(&text.into_text()).map_err(failed)?;
    json.sort_all_objects();
    Ok(json)
}

/// The layout of `json.dumps`.
struct Dumps {
    item: String,
    key: String,
    indent: Option<String>,
    ascii: bool,
    depth: usize,
    filled: bool,
}

impl Dumps {
    fn line<W: ?Sized + Write>(&self, writer: &mut W) -> io::Result<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        writer.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| writer.write_all(indent.as_bytes()))
    }

    fn open<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        writer.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.filled {
            self.line(writer)?;
        }
        self.filled = true;
        writer.write_all(bracket)
    }

    fn next<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        self.filled = true;
        self.line(writer)
    }
}

impl Formatter for Dumps {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.next(writer, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.next(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(printed::float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !self.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            match c.is_ascii() {
                true => write!(writer, "{c}")?,
                false => c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?,
            }
        }
        Ok(())
    }
}
