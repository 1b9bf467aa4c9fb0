//! `assert`, `assert_eq`, `assert_close`, `assert_throws`: checks in scripts, and in every example of the reference.

use super::convert::Answer;
use crate::error::{Error, Result};
use crate::script::registry::{Doc, Registry};
use crate::script::wording;
use crate::tensor::Tensor;
use crate::tensor::shape::show as show_shape;
use rhai::{Dynamic, EvalAltResult, FLOAT, FnPtr, INT, ImmutableString, Map, NativeCallContext};

/// What `assert_close` allows when it is not told.
const TOLERANCE: f64 = 1e-6;

pub fn register(reg: &mut Registry) {
    let doc = Doc::new(
        "assert(condition: bool | Tensor, text?: string)",
        "Stops the script unless the condition holds; of a tensor, unless no cell is 0.",
    )
    .param("condition", "bool or Tensor", "what must hold")
    .param("text", "string", "what to say if it does not")
    .errors("The condition does not hold.")
    .example("assert(1 + 1 == 2);\nassert(2 > 1, \"two is more than one\");");
    reg.add(doc, |m| {
        m.set_native_fn("assert", |condition: bool| Ok(holds(condition, "assertion failed")?));
        m.set_native_fn("assert", |condition: bool, text: ImmutableString| Ok(holds(condition, &text)?));
        m.set_native_fn("assert", |condition: Tensor| Ok(holds(all(&condition)?, "assertion failed")?));
        m.set_native_fn("assert", |condition: Tensor, text: ImmutableString| Ok(holds(all(&condition)?, &text)?));
    });
    let doc = Doc::new(
        "assert_eq(a, b)",
        "Stops the script unless both values are equal; an int equals a float, and a tensor an array of its numbers.",
    )
    .param("a", "any", "the value found: a number, string, bool, array, map or tensor")
    .param("b", "any", "the value expected")
    .errors("They differ.")
    .example("assert_eq([1, 2.0], [1, 2]);\nassert_eq(\"a\" + \"b\", \"ab\");\nassert_eq(zeros([1, 2]), [[0, 0]]);");
    reg.add(doc, |m| {
        m.set_native_fn("assert_eq", |a: Dynamic, b: Dynamic| {
            Ok(holds(same(&a, &b), &format!("expected {}, found {}", show(&b), show(&a)))?)
        });
    });
    let doc = Doc::new(
        "assert_close(a, b, tol?: float)",
        "Stops the script unless every number of `a` is within `tol` of its partner in `b`, absolutely.",
    )
    .param("a", "number, array or Tensor", "what was found")
    .param("b", "number, array or Tensor", "what was expected, of the same shape")
    .param("tol", "float", "the largest difference allowed; 1e-6 unless given")
    .errors(
        "A number is further off, or is NaN where the other is not, or the shapes differ; the text shows the two numbers \
         that differ most, where they stand, and how many differ.",
    )
    .example("assert_close(0.1 + 0.2, 0.3, 1e-12);\nassert_close([1.0, 2.0], [1, 2]);");
    reg.add(doc, |m| {
        m.set_native_fn("assert_close", |a: Dynamic, b: Dynamic| Ok(close(&a, &b, TOLERANCE)?));
        m.set_native_fn("assert_close", |a: Dynamic, b: Dynamic, tol: FLOAT| Ok(close(&a, &b, tol)?));
        m.set_native_fn("assert_close", |a: Dynamic, b: Dynamic, tol: INT| Ok(close(&a, &b, tol as FLOAT)?));
    });
    let doc = Doc::new(
        "assert_throws(f: Fn, text?: string) -> string",
        "Stops the script unless the closure ends in an error; returns what the error says.",
    )
    .param("f", "Fn", "without arguments")
    .param("text", "string", "what the error's text must hold")
    .errors("The closure ends well, or its error says something else.")
    .example(
        "let said = assert_throws(|| zeros([2, 3]) + zeros([3, 2]), \"[2,3]\");\nassert(said.contains(\"[3,2]\"));\n\
         assert_throws(|| { throw \"no\" }, \"no\");",
    );
    reg.add(doc, |m| {
        m.set_native_fn("assert_throws", |ctx: NativeCallContext, f: FnPtr| throws(&ctx, &f, ""));
        m.set_native_fn("assert_throws", |ctx: NativeCallContext, f: FnPtr, text: ImmutableString| {
            throws(&ctx, &f, &text)
        });
    });
}

/// What the error of `f` says; it must hold `text`.
fn throws(ctx: &NativeCallContext, f: &FnPtr, text: &str) -> Answer<String> {
    let e = match f.call_within_context::<Dynamic>(ctx, ()) {
        Ok(value) => return Err(Error::value(format!("expected an error, found {}", show(&value))).into()),
        // Ctrl-C is not the closure's error.
        Err(e) if matches!(*e, EvalAltResult::ErrorTerminated(..)) => return Err(e),
        Err(e) => e,
    };
    let said = wording::plain(&e);
    match said.contains(text) {
        true => Ok(said),
        false => Err(Error::value(format!("expected an error that says {text:?}, found {said:?}")).into()),
    }
}

fn holds(condition: bool, text: &str) -> Result<()> {
    if condition { Ok(()) } else { Err(Error::value(text)) }
}

fn all(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.to_vec()?.iter().all(|&x| x != 0.0 && !x.is_nan()))
}

fn close(a: &Dynamic, b: &Dynamic, tol: f64) -> Result<()> {
    let (found, expected) = (Numbers::of(a, "the first")?, Numbers::of(b, "the second")?);
    if found.shape != expected.shape {
        let (want, have) = (show_shape(&expected.shape), show_shape(&found.shape));
        return Err(Error::shape(format!("shapes differ: expected {want}, found {have}")));
    }
    let pairs = || found.values.iter().copied().zip(expected.values.iter().copied());
    // Written so that a NaN, which compares with nothing, counts as far off.
    let far = |(x, y): (f64, f64)| !((x - y).abs() <= tol || x == y || (x.is_nan() && y.is_nan()));
    let off = |(x, y): (f64, f64)| if (x - y).is_nan() { f64::INFINITY } else { (x - y).abs() };
    let worst = pairs().enumerate().filter(|&(_, pair)| far(pair)).max_by(|a, b| off(a.1).total_cmp(&off(b.1)));
    let Some((i, (x, y))) = worst else { return Ok(()) };
    let many = found.values.len();
    if many == 1 {
        return Err(Error::value(format!("expected {y}, found {x}: further apart than {tol}")));
    }
    let place = cell(i, &found.shape);
    let differ = pairs().filter(|&pair| far(pair)).count();
    Err(Error::value(format!(
        "expected {y} at {place}, found {x}: {differ} of {many} numbers are further apart than {tol}"
    ))
    .hint("this is where they differ most"))
}

/// `[1, 2]`: where the i-th number stands.
fn cell(i: usize, shape: &[usize]) -> String {
    let mut rest = i;
    let mut place: Vec<String> = Vec::new();
    for length in shape.iter().rev() {
        place.push((rest % length).to_string());
        rest /= length;
    }
    place.reverse();
    format!("[{}]", place.join(", "))
}

/// Numbers with a shape, from whatever holds numbers.
struct Numbers {
    values: Vec<f64>,
    shape: Vec<usize>,
}

impl Numbers {
    fn of(value: &Dynamic, which: &str) -> Result<Self> {
        if let Some(x) = number(value) {
            return Ok(Self { values: vec![x], shape: Vec::new() });
        }
        if let Some(tensor) = value.read_lock::<Tensor>() {
            return Ok(Self { values: tensor.to_vec()?, shape: tensor.dims().to_vec() });
        }
        let Ok(array) = value.as_array_ref() else {
            let what = format!("{which} value of assert_close must hold numbers, found {}", show(value));
            return Err(Error::value(what));
        };
        let parts = array.iter().map(|v| Self::of(v, which)).collect::<Result<Vec<_>>>()?;
        let inner = parts.first().map(|part| part.shape.clone()).unwrap_or_default();
        if parts.iter().any(|part| part.shape != inner) {
            return Err(Error::shape(format!("{which} value of assert_close is an array of different shapes")));
        }
        let shape = [vec![parts.len()], inner].concat();
        Ok(Self { values: parts.into_iter().flat_map(|part| part.values).collect(), shape })
    }
}

fn number(value: &Dynamic) -> Option<f64> {
    value.as_float().or_else(|_| value.as_int().map(|i| i as FLOAT)).ok()
}

fn same(a: &Dynamic, b: &Dynamic) -> bool {
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return a == b;
    }
    if a.is::<Tensor>() || b.is::<Tensor>() {
        let numbers = (Numbers::of(a, "the first"), Numbers::of(b, "the second"));
        return matches!(numbers, (Ok(a), Ok(b)) if a.shape == b.shape && a.values == b.values);
    }
    if let (Ok(a), Ok(b)) = (a.as_array_ref(), b.as_array_ref()) {
        return a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b));
    }
    if let (Ok(a), Ok(b)) = (a.as_map_ref(), b.as_map_ref()) {
        return same_map(&a, &b);
    }
    match (a.clone().into_string(), b.clone().into_string()) {
        (Ok(a), Ok(b)) => a == b,
        _ => (a.is_unit() && b.is_unit()) || a.as_bool().is_ok_and(|a| b.as_bool() == Ok(a)),
    }
}

fn same_map(a: &Map, b: &Map) -> bool {
    a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
}

fn show(value: &Dynamic) -> String {
    match value.read_lock::<Tensor>() {
        Some(tensor) => tensor.to_string(),
        None => format!("{value:?}"),
    }
}
