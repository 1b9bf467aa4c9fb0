//! `assert`, `assert_eq`, `assert_close`, `assert_throws`: checks in scripts, and in every example of the reference.

use crate::error::{Error, Result};
use crate::script::lang::messages;
use crate::script::lang::native::{Call, Fallible, FromScript, Number, Place, Registry, Typed, number};
use crate::tensor::Tensor;
use crate::tensor::shape::show as show_shape;
use rhai::{Dynamic, EvalAltResult, FnPtr, ImmutableString, Map, NativeCallContext};
use std::any::TypeId;

/// What `assert_close` allows when it is not told.
const TOLERANCE: f64 = 1e-6;

pub fn register(reg: &mut Registry) {
    reg.function(
        "assert",
        ["condition", "text"],
        |condition: Condition, text: Option<ImmutableString>| -> Result<()> {
            let holds = match condition {
                Condition::Plain(holds) => holds,
                Condition::Cells(tensor) => tensor.to_vec()?.iter().all(|&x| x != 0.0 && !x.is_nan()),
            };
            must(holds, text.as_deref().unwrap_or("assertion failed"))
        },
    );
    reg.function("assert_eq", ["a", "b"], |a: Dynamic, b: Dynamic| {
        must(same(&a, &b), &format!("expected {}, found {}", show(&b), show(&a)))
    });
    reg.function("assert_close", ["a", "b", "tol"], |a: Dynamic, b: Dynamic, tol: Option<Number>| {
        close(&a, &b, tol.map_or(TOLERANCE, |tol| tol.0))
    });
    reg.function("assert_throws", ["f", "text"], |call: &Call, f: FnPtr, text: Option<ImmutableString>| {
        throws(call.context, &f, text.as_deref().unwrap_or_default())
    });
}

/// What must hold: of a tensor, in every cell.
enum Condition {
    Plain(bool),
    Cells(Tensor),
}

impl Typed for Condition {
    const TYPE: &'static str = "bool | Tensor";
}

impl FromScript for Condition {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<bool>(), TypeId::of::<Tensor>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match value.as_bool() {
            Ok(holds) => Ok(Self::Plain(holds)),
            Err(_) => <Tensor as FromScript>::read(value, place).map(Self::Cells),
        }
    }
}

/// What the error of `f` says; it must hold `text`.
fn throws(ctx: &NativeCallContext, f: &FnPtr, text: &str) -> Fallible<String> {
    let e = match f.call_within_context::<Dynamic>(ctx, ()) {
        Ok(value) => return Err(Error::value(format!("expected an error, found {}", show(&value))).into()),
        // Ctrl-C is not the closure's error.
        Err(e) if matches!(*e, EvalAltResult::ErrorTerminated(..)) => return Err(e),
        Err(e) => e,
    };
    let said = messages::plain(&e);
    match said.contains(text) {
        true => Ok(said),
        false => Err(Error::value(format!("expected an error that says {text:?}, found {said:?}")).into()),
    }
}

fn must(hold: bool, text: &str) -> Result<()> {
    if hold { Ok(()) } else { Err(Error::value(text)) }
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
