//! `assert`, `assert_eq`, `assert_close`: checks in scripts, and in every example of the reference.

use crate::error::{Error, Result};
use crate::script::registry::{Doc, Registry};
use crate::tensor::Tensor;
use crate::tensor::shape::show as show_shape;
use rhai::{Dynamic, FLOAT, ImmutableString, Map};

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
    let doc = Doc::new("assert_eq(a, b)", "Stops the script unless both values are equal; an int equals a float.")
        .param("a", "any", "the value found: a number, string, bool, array, map or tensor")
        .param("b", "any", "the value expected")
        .errors("They differ.")
        .example("assert_eq([1, 2.0], [1, 2]);\nassert_eq(\"a\" + \"b\", \"ab\");");
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
    .errors("A number is further off, or is NaN where the other is not, or the shapes differ.")
    .example("assert_close(0.1 + 0.2, 0.3, 1e-12);\nassert_close([1.0, 2.0], [1, 2]);");
    reg.add(doc, |m| {
        m.set_native_fn("assert_close", |a: Dynamic, b: Dynamic| Ok(close(&a, &b, TOLERANCE)?));
        m.set_native_fn("assert_close", |a: Dynamic, b: Dynamic, tol: FLOAT| Ok(close(&a, &b, tol)?));
    });
}

fn holds(condition: bool, text: &str) -> Result<()> {
    if condition { Ok(()) } else { Err(Error::value(text)) }
}

fn all(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.to_vec()?.iter().all(|&x| x != 0.0))
}

fn close(a: &Dynamic, b: &Dynamic, tol: f64) -> Result<()> {
    let (found, expected) = (Numbers::of(a, "the first")?, Numbers::of(b, "the second")?);
    if found.shape != expected.shape {
        let (want, have) = (show_shape(&expected.shape), show_shape(&found.shape));
        return Err(Error::shape(format!("shapes differ: expected {want}, found {have}")));
    }
    let pairs = found.values.iter().zip(&expected.values).enumerate();
    // Written so that a NaN, which compares with nothing, counts as far off.
    let far = |(_, (x, y)): &(usize, (&f64, &f64))| !((*x - *y).abs() <= tol || x == y || (x.is_nan() && y.is_nan()));
    match { pairs }.find(far) {
        None => Ok(()),
        Some((i, (x, y))) => {
            let place = if found.values.len() > 1 { format!(" at cell {i}") } else { String::new() };
            Err(Error::value(format!("expected {y}{place}, found {x}: further apart than {tol}")))
        }
    }
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
    if let (Some(a), Some(b)) = (a.read_lock::<Tensor>(), b.read_lock::<Tensor>()) {
        return a.dims() == b.dims() && a.to_vec().ok() == b.to_vec().ok();
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
