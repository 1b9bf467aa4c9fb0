//! Conversion between Rhai's values and tensors: numbers beside tensors, nested arrays, shapes.

use crate::error::{Error, Result};
use crate::script::lang::limits::ARRAY_SIZE;
use crate::script::lang::native::{FromScript, IntoScript, Place, Typed, number};
use crate::script::lang::value::describe;
use crate::tensor::{DType, Device, Tensor, shape};
use rhai::{Array, Dynamic, INT, ImmutableString};
use std::any::TypeId;

/// An argument that may be a tensor or a number.
pub(super) enum Operand {
    Tensor(Tensor),
    Number(f64),
}

impl Typed for Operand {
    const TYPE: &'static str = "Tensor | number";
}

impl FromScript for Operand {
    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match value.try_cast_result::<Tensor>() {
            Ok(tensor) => Ok(Self::Tensor(tensor)),
            Err(value) => match number(&value).or(truth(&value)) {
                Some(x) => Ok(Self::Number(x)),
                None if value.is_array() => <Tensor as FromScript>::read(value, place).map(Self::Tensor),
                None => {
                    let found = describe(&value);
                    Err(Error::value(format!("`{}` takes tensors and numbers, found {found}", place.function)))
                }
            },
        }
    }
}

/// An array as the tensor of a batch's rows: of numbers `[B,1]`, of arrays of numbers `[B,T]`; nothing of anything else.
/// `what` is what errors call it.
pub(super) fn rows(what: &str, items: &Array, device: &Device) -> Result<Option<Tensor>> {
    let plain = |value: &Dynamic| number(value).or(truth(value));
    if let Some(values) = items.iter().map(plain).collect::<Option<Vec<f64>>>() {
        return on(values, &[items.len(), 1], device).map(Some);
    }
    let row = |row: &Dynamic| row.as_array_ref().ok()?.iter().map(plain).collect::<Option<Vec<f64>>>();
    let Some(rows) = items.iter().map(row).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let width = rows.first().map_or(0, Vec::len);
    if let Some(i) = rows.iter().position(|row| row.len() != width) {
        let found = rows[i].len();
        return Err(Error::shape(format!("{what} is ragged: row 0 has {width} numbers, row {i} has {found}"))
            .hint("pad the shorter rows; the mask says what counts"));
    }
    on(rows.concat(), &[rows.len(), width], device).map(Some)
}

fn on(values: Vec<f64>, dims: &[usize], device: &Device) -> Result<Tensor> {
    Tensor::from_vec(values.into_iter().map(|x| x as f32).collect(), dims, device)
}

impl IntoScript for Operand {
    fn write(self) -> Dynamic {
        match self {
            Self::Tensor(tensor) => tensor.write(),
            Self::Number(x) => x.write(),
        }
    }
}

impl Operand {
    /// As a tensor that goes with `like`.
    fn beside(self, like: &Tensor) -> Result<Tensor> {
        match self {
            Self::Tensor(x) => Ok(x),
            Self::Number(x) => like.number(x),
        }
    }
}

/// A comparison of plain numbers is a bool in Rhai; beside tensors it counts as 0 or 1, as theirs do.
fn truth(value: &Dynamic) -> Option<f64> {
    value.as_bool().ok().map(|b| f64::from(u8::from(b)))
}

/// Tensors of several operands of which at least one is a tensor; `Err` if all are numbers.
pub(super) fn together<const N: usize>(operands: [Operand; N]) -> Result<std::result::Result<[Tensor; N], [f64; N]>> {
    let found = operands.iter().filter_map(|o| if let Operand::Tensor(x) = o { Some(x) } else { None });
    let Some(like) = found.max_by_key(|x| x.dtype() == DType::F64).cloned() else {
        return Ok(Err(operands.map(|o| if let Operand::Number(x) = o { x } else { f64::NAN })));
    };
    let tensors = operands.into_iter().map(|o| o.beside(&like)).collect::<Result<Vec<_>>>()?;
    Ok(Ok(std::array::from_fn(|n| tensors[n].clone())))
}

/// The lengths of a tensor's axes.
pub(super) struct Dims(pub Vec<usize>);

impl Typed for Dims {
    const TYPE: &'static str = "array";
}

impl FromScript for Dims {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Array>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        dims(place.function, &<Array as FromScript>::read(value, place)?).map(Self)
    }
}

impl Typed for DType {
    const TYPE: &'static str = "string";
}

impl FromScript for DType {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<ImmutableString>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        dtype(&<ImmutableString as FromScript>::read(value, place)?)
    }
}

/// An array of tensors.
pub(super) struct Tensors(pub Vec<Tensor>);

impl Typed for Tensors {
    const TYPE: &'static str = "array";
}

impl FromScript for Tensors {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Array>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        tensors(place.function, &<Array as FromScript>::read(value, place)?).map(Self)
    }
}

impl Typed for Nested {
    const TYPE: &'static str = "number | array";
}

impl FromScript for Nested {
    fn read(value: Dynamic, _: Place<'_>) -> Result<Self> {
        Self::of(&value)
    }
}

/// How many prompts or rows are to be made: a count that memory has room for.
pub(super) struct Drawn(pub usize);

impl Typed for Drawn {
    const TYPE: &'static str = "int";
}

impl FromScript for Drawn {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<INT>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        const MOST: usize = 1 << 20;
        match <usize as FromScript>::read(value, place)? {
            n if n <= MOST => Ok(Self(n)),
            n => {
                let function = place.function;
                Err(Error::value(format!("`{function}`: n is {n}, at most {MOST} can be drawn at once")))
            }
        }
    }
}

/// `Drawn`, at least one.
pub(super) struct AtLeastOne(pub usize);

impl Typed for AtLeastOne {
    const TYPE: &'static str = "int";
}

impl FromScript for AtLeastOne {
    fn dispatch() -> Vec<TypeId> {
        <Drawn as FromScript>::dispatch()
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match <Drawn as FromScript>::read(value, place)?.0 {
            0 => Err(Error::value(format!("`{}`: n is 0, expected at least 1", place.function))),
            n => Ok(Self(n)),
        }
    }
}

/// Nested arrays as numbers with a shape.
#[derive(Default)]
pub(super) struct Nested {
    values: Vec<f64>,
    dims: Vec<usize>,
}

impl Nested {
    fn of(value: &Dynamic) -> Result<Self> {
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

fn dtype(name: &str) -> Result<DType> {
    match name {
        "f32" => Ok(DType::F32),
        "f64" => Ok(DType::F64),
        other => Err(Error::unknown("type", other, &["f32", "f64"])),
    }
}

fn dims(function: &str, shape: &Array) -> Result<Vec<usize>> {
    let one = |v: &Dynamic| v.as_int().ok().and_then(|i| usize::try_from(i).ok());
    shape.iter().map(one).collect::<Option<Vec<_>>>().filter(|dims| dims.len() <= shape::MAX_RANK).ok_or_else(|| {
        let found = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Error::shape(format!(
            "`{function}`: a shape is an array of at most {} lengths that are not negative, like [4, 1]; found [{found}]",
            shape::MAX_RANK
        ))
    })
}

fn tensors(function: &str, parts: &Array) -> Result<Vec<Tensor>> {
    let one = |v: &Dynamic| {
        v.clone()
            .try_cast::<Tensor>()
            .ok_or_else(|| Error::value(format!("`{function}` takes an array of tensors, found {} in it", describe(v))))
    };
    parts.iter().map(one).collect()
}

/// The numbers of a tensor as scripts hold them.
pub(super) struct Numbers(Dynamic);

impl Typed for Numbers {
    const TYPE: &'static str = "array | float";
}

impl IntoScript for Numbers {
    fn write(self) -> Dynamic {
        self.0
    }
}

pub(super) fn nested_array(x: &Tensor) -> Result<Numbers> {
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
    Ok(Numbers(build(x.dims(), &x.to_vec()?)))
}
