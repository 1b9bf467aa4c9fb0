//! Conversion between Rhai's values and tensors: numbers beside tensors, nested arrays, shapes.

use crate::error::{Error, Result};
use crate::script::limits::ARRAY_SIZE;
use crate::script::options::describe;
use crate::tensor::{DType, Device, Tensor, shape};
use rhai::{Array, Dynamic, EvalAltResult, FLOAT, INT, NativeCallContext};

pub(super) type Answer<T> = std::result::Result<T, Box<EvalAltResult>>;

/// An error with the place of the call: Rhai adds it to the errors of global functions, but not of a module's.
pub(super) fn at(ctx: &NativeCallContext, e: Error) -> Box<EvalAltResult> {
    let mut e: Box<EvalAltResult> = e.into();
    e.set_position(ctx.call_position());
    e
}

/// An argument that may be a tensor or a number.
enum Operand {
    Tensor(Tensor),
    Number(f64),
}

impl Operand {
    fn read(function: &str, value: &Dynamic) -> Result<Self> {
        if let Some(x) = value.read_lock::<Tensor>() {
            return Ok(Self::Tensor(x.clone()));
        }
        match number(value).or(truth(value)) {
            Some(x) => Ok(Self::Number(x)),
            None => Err(Error::value(format!("`{function}` takes tensors and numbers, found {}", describe(value)))),
        }
    }

    /// As a tensor that goes with `like`.
    fn beside(self, like: &Tensor) -> Result<Tensor> {
        match self {
            Self::Tensor(x) => Ok(x),
            Self::Number(x) => like.number(x),
        }
    }
}

fn number(value: &Dynamic) -> Option<f64> {
    value.as_float().ok().or_else(|| value.as_int().ok().map(|i| i as FLOAT))
}

/// A comparison of plain numbers is a bool in Rhai; beside tensors it counts as 0 or 1, as theirs do.
fn truth(value: &Dynamic) -> Option<f64> {
    value.as_bool().ok().map(|b| f64::from(u8::from(b)))
}

/// A plain number that is an argument: `gamma`, `lambda`.
pub(super) fn float(function: &str, name: &str, value: &Dynamic) -> Result<f64> {
    number(value)
        .ok_or_else(|| Error::value(format!("`{function}`: {name} must be a number, found {}", describe(value))))
}

/// A count that is an argument, at least 0.
pub(super) fn count(function: &str, name: &str, value: INT) -> Result<usize> {
    usize::try_from(value)
        .map_err(|_| Error::value(format!("`{function}`: {name} must not be negative, found {value}")))
}

/// How many prompts or rows are to be made: a count that memory has room for.
pub(super) fn drawn(function: &str, n: INT) -> Result<usize> {
    const MOST: usize = 1 << 20;
    match count(function, "n", n)? {
        n if n <= MOST => Ok(n),
        n => Err(Error::value(format!("`{function}`: n is {n}, at most {MOST} can be drawn at once"))),
    }
}

/// Tensors of several operands of which at least one may be a tensor; `None` if all are numbers.
pub(super) fn together<const N: usize>(
    function: &str,
    values: [&Dynamic; N],
) -> Result<std::result::Result<[Tensor; N], [f64; N]>> {
    let operands = values.iter().map(|v| Operand::read(function, v)).collect::<Result<Vec<_>>>()?;
    let found = operands.iter().filter_map(|o| if let Operand::Tensor(x) = o { Some(x) } else { None });
    let Some(like) = found.max_by_key(|x| x.dtype() == DType::F64).cloned() else {
        return Ok(Err(std::array::from_fn(|n| if let Operand::Number(x) = operands[n] { x } else { f64::NAN })));
    };
    let tensors = operands.into_iter().map(|o| o.beside(&like)).collect::<Result<Vec<_>>>()?;
    Ok(Ok(std::array::from_fn(|n| tensors[n].clone())))
}

/// Nested arrays as numbers with a shape.
#[derive(Default)]
pub(super) struct Nested {
    values: Vec<f64>,
    dims: Vec<usize>,
}

impl Nested {
    pub(super) fn read(value: &Dynamic) -> Result<Self> {
        let mut nested = Self::default();
        nested.add(value, 0, &mut String::new())?;
        Ok(nested)
    }

    fn add(&mut self, value: &Dynamic, depth: usize, place: &mut String) -> Result<()> {
        let Ok(items) = value.as_array_ref() else {
            if depth < self.dims.len() {
                return Err(ragged(place, "a number where other places hold an array"));
            }
            self.values.push(cell(value, place)?);
            return Ok(());
        };
        // The first way down fixes the shape: no numbers have been read before its end.
        if depth == self.dims.len() && self.values.is_empty() {
            if depth == shape::MAX_RANK {
                return Err(Error::shape(format!("`tensor`: arrays nest at most {} deep", shape::MAX_RANK)));
            }
            self.dims.push(items.len());
        }
        match self.dims.get(depth) {
            None => return Err(ragged(place, "an array where other places hold a number")),
            Some(&n) if n != items.len() => {
                return Err(ragged(place, &format!("{} entries instead of {n}", items.len())));
            }
            Some(_) => {}
        }
        let length = place.len();
        for (i, item) in items.iter().enumerate() {
            place.push_str(&format!("[{i}]"));
            self.add(item, depth + 1, place)?;
            place.truncate(length);
        }
        Ok(())
    }
}

fn cell(value: &Dynamic, place: &str) -> Result<f64> {
    number(value).or(truth(value)).ok_or_else(|| {
        let found = if place.is_empty() { describe(value) } else { format!("{} at {place}", describe(value)) };
        let error = Error::value(format!("`tensor` takes numbers and nested arrays of numbers, found {found}"));
        if value.is::<Tensor>() { error.hint("tensors of one shape are joined by stack([a, b])") } else { error }
    })
}

fn ragged(place: &str, found: &str) -> Error {
    Error::shape(format!("`tensor`: the arrays are ragged: {place} holds {found}"))
        .hint("every row needs the same length; pad the shorter ones")
}

pub(super) fn make(nested: Nested, dtype: DType, device: &Device) -> Result<Tensor> {
    Tensor::from_vec_f64(nested.values, &nested.dims, device)?.to_dtype(dtype)
}

pub(super) fn dtype(name: &str) -> Result<DType> {
    match name {
        "f32" => Ok(DType::F32),
        "f64" => Ok(DType::F64),
        other => Err(Error::unknown("type", other, &["f32", "f64"])),
    }
}

pub(super) fn dims(function: &str, shape: &Array) -> Result<Vec<usize>> {
    let one = |v: &Dynamic| v.as_int().ok().and_then(|i| usize::try_from(i).ok());
    shape.iter().map(one).collect::<Option<Vec<_>>>().filter(|dims| dims.len() <= shape::MAX_RANK).ok_or_else(|| {
        let found = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Error::shape(format!(
            "`{function}`: a shape is an array of at most {} lengths that are not negative, like [4, 1]; found [{found}]",
            shape::MAX_RANK
        ))
    })
}

pub(super) fn tensors(function: &str, parts: &Array) -> Result<Vec<Tensor>> {
    let one = |v: &Dynamic| {
        v.clone()
            .try_cast::<Tensor>()
            .ok_or_else(|| Error::value(format!("`{function}` takes an array of tensors, found {} in it", describe(v))))
    };
    parts.iter().map(one).collect()
}

pub(super) fn nested_array(x: &Tensor) -> Result<Dynamic> {
    fn build(dims: &[usize], values: &[f64]) -> Dynamic {
        let Some((&n, rest)) = dims.split_first() else { return values[0].into() };
        let width: usize = rest.iter().product();
        (0..n).map(|i| build(rest, &values[i * width..(i + 1) * width])).collect::<Array>().into()
    }
    if x.len() > ARRAY_SIZE {
        let shown = shape::show(x.dims());
        return Err(Error::value(format!(
            "a tensor of shape {shown} is too large for an array: at most {ARRAY_SIZE} numbers"
        ))
        .hint("a part of it: x[i].to_array()"));
    }
    Ok(build(x.dims(), &x.to_vec()?))
}
