//! Texts in scripts: methods that change a text and return it, comparisons with numbers, which are refused, and what the
//! language itself does with texts; `pages/texts.md` says what each means.

use super::convert::Operand;
use crate::budget::memory;
use crate::error::{Error, Result};
use crate::script::lang::limits::STRING_SIZE;
use crate::script::lang::native::{Call, Fallible, FromScript, Place, Registry, Typed};
use rhai::{Dynamic, EvalAltResult, FLOAT, INT, ImmutableString, Position};
use std::any::TypeId;
use std::ops::{Range, RangeInclusive};

pub fn register(reg: &mut Registry) {
    in_place(reg);
    of_the_language(reg);
    reg.function("fmt", ["x", "digits"], |x: Operand, digits: usize| match x {
        Operand::Tensor(x) => fmt(x.item()?, digits),
        Operand::Number(x) => fmt(x, digits),
    });
    comparisons(reg);
}

/// A text, or the letter that Rhai has a type of its own for.
struct Letters(ImmutableString);

impl Typed for Letters {
    const TYPE: &'static str = "string | char";
}

impl FromScript for Letters {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<ImmutableString>(), TypeId::of::<char>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match value.as_char() {
            Ok(letter) => Ok(Self(ImmutableString::from(letter.to_string()))),
            Err(_) => ImmutableString::read(value, place).map(Self),
        }
    }
}

/// Where a part begins, or from where to where it goes.
struct Span(Dynamic);

impl Typed for Span {
    const TYPE: &'static str = "int | range";
}

impl FromScript for Span {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<INT>(), TypeId::of::<Range<INT>>(), TypeId::of::<RangeInclusive<INT>>()]
    }

    fn read(value: Dynamic, _: Place<'_>) -> Result<Self> {
        Ok(Self(value))
    }
}

/// Sets a text and returns it.
fn set(text: &mut ImmutableString, to: impl Into<ImmutableString>) -> ImmutableString {
    *text = to.into();
    text.clone()
}

fn in_place(reg: &mut Registry) {
    reg.in_place("trim", [], |text: &mut ImmutableString| set(text, text.trim().to_string()));
    reg.in_place("replace", ["from", "to"], |text: &mut ImmutableString, from: Letters, to: Letters| {
        replaced(text, &from.0, &to.0).map(|to| set(text, to))
    });
    reg.in_place("remove", ["part"], |text: &mut ImmutableString, part: Letters| set(text, text.replace(&*part.0, "")));
    reg.in_place("crop", ["start", "len"], crop);
    reg.in_place("truncate", ["len"], |text: &mut ImmutableString, len: INT| {
        set(text, text.chars().take(usize::try_from(len).unwrap_or(0)).collect::<String>())
    });
    reg.in_place("pad", ["len", "with"], |text: &mut ImmutableString, len: usize, with: Letters| {
        padded(text, len, &with.0).map(|to| set(text, to))
    });
    reg.in_place("make_upper", [], |text: &mut ImmutableString| set(text, text.to_uppercase()));
    reg.in_place("make_lower", [], |text: &mut ImmutableString| set(text, text.to_lowercase()));
}

fn crop(call: &Call, text: &mut ImmutableString, start: Span, len: Option<INT>) -> Fallible<ImmutableString> {
    let mut args: Vec<Dynamic> = vec![text.clone().into(), start.0];
    args.extend(len.map(Dynamic::from));
    let mut args: Vec<&mut Dynamic> = args.iter_mut().collect();
    let part = call.context.call_native_fn_raw("sub_string", false, &mut args)?;
    Ok(set(text, part.into_immutable_string().unwrap_or_default()))
}

/// The length is known before the memory is taken.
fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    let found = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
    let more = (to.len() as u64).saturating_mul(found as u64);
    memory::room(more)?;
    if more > STRING_SIZE as u64 {
        return Err(Error::value(format!("replace: {found} replacements make the text too long")));
    }
    Ok(text.replace(from, to))
}

fn padded(text: &str, len: usize, with: &str) -> Result<String> {
    let missing = len.saturating_sub(text.chars().count());
    if missing == 0 || with.is_empty() {
        return Ok(text.to_string());
    }
    if len > STRING_SIZE {
        return Err(Error::value(format!("pad: {len} letters make the text too long")));
    }
    Ok(text.chars().chain(with.chars().cycle().take(missing)).collect())
}

/// A number with so many digits behind the point.
fn fmt(x: f64, digits: usize) -> Result<String> {
    const MOST: usize = 17;
    if digits > MOST {
        return Err(Error::value(format!("`fmt`: digits is {digits}, at most {MOST}")));
    }
    Ok(format!("{x:.digits$}"))
}

fn of_the_language(reg: &mut Registry) {
    reg.of_the_language::<ImmutableString>("len", &[], "int");
    reg.of_the_language::<ImmutableString>("is_empty", &[], "bool");
    reg.of_the_language::<ImmutableString>("contains", &[("part", "string | char")], "bool");
    reg.of_the_language::<ImmutableString>("starts_with", &[("part", "string | char")], "bool");
    reg.of_the_language::<ImmutableString>("ends_with", &[("part", "string | char")], "bool");
    reg.of_the_language::<ImmutableString>("index_of", &[("part", "string | char"), ("start?", "int")], "int");
    reg.of_the_language::<ImmutableString>("sub_string", &[("start", "int | range"), ("len?", "int")], "string");
    reg.of_the_language::<ImmutableString>("split", &[("at?", "string | char"), ("parts?", "int")], "array");
    reg.of_the_language::<ImmutableString>("to_upper", &[], "string");
    reg.of_the_language::<ImmutableString>("to_lower", &[], "string");
    reg.of_the_language::<ImmutableString>("to_chars", &[], "array");
    reg.of_the_language::<ImmutableString>("parse_int", &[("base?", "int")], "int");
    reg.of_the_language::<ImmutableString>("parse_float", &[], "float");
    reg.of_the_language::<ImmutableString>("append", &[("part", "any")], "");
    reg.of_the_language::<ImmutableString>("clear", &[], "");
}

/// A text is never equal to a number, which the language answers in silence; here the two have no comparison. `in` and
/// the comparison of lists take that for an answer: entries of several types are no mistake there.
fn comparisons(reg: &mut Registry) {
    let texts = [TypeId::of::<ImmutableString>(), TypeId::of::<char>()];
    let numbers = [TypeId::of::<INT>(), TypeId::of::<FLOAT>()];
    let pairs = texts.iter().flat_map(|&text| numbers.iter().flat_map(move |&n| [[text, n], [n, text]]));
    let pairs: Vec<[TypeId; 2]> = pairs.collect();
    for sign in ["==", "!=", "<", "<=", ">", ">="] {
        reg.hidden_on(sign, ["a", "b"], &pairs, move |a: Dynamic, b: Dynamic| -> Fallible<bool> {
            let signature = format!("{sign} ({}, {})", a.type_name(), b.type_name());
            Err(EvalAltResult::ErrorFunctionNotFound(signature, Position::NONE).into())
        });
    }
}
