//! Values as curves: what `:plot` draws.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use rhai::Dynamic;

/// A name and its numbers.
pub type Curve = (String, Vec<f64>);

/// An array of numbers or a `[B,1]` tensor is one curve, the rows of a wider tensor, an array of arrays or the entries of
/// a map are several.
///
/// # Errors
/// A value without numbers.
pub fn of(value: &Dynamic) -> Result<Vec<Curve>> {
    let wrong = || {
        Error::value("there is nothing to draw: expected numbers")
            .hint("an array of numbers, a tensor, an array of arrays, or a map of names and these")
    };
    let number = |x: &Dynamic| x.as_float().or_else(|_| x.as_int().map(|i| i as f64)).map_err(|_| wrong());
    if let Some(tensor) = value.read_lock::<Tensor>() {
        let (values, dims) = (tensor.to_vec()?, tensor.dims());
        let one_curve = dims.len() < 2 || dims[1] == 1 || dims[0] == 1;
        let width = if one_curve { values.len() } else { dims[1..].iter().product() };
        return Ok(values
            .chunks(width.max(1))
            .enumerate()
            .map(|(i, row)| (format!("row {i}"), row.to_vec()))
            .collect());
    }
    if let Ok(map) = value.as_map_ref() {
        let named = |(name, value): (&_, &Dynamic)| {
            let mut inner = of(value)?;
            (inner.len() == 1).then(|| (ToString::to_string(name), inner.remove(0).1)).ok_or_else(wrong)
        };
        return map.iter().map(named).collect();
    }
    let array = value.as_array_ref().map_err(|_| wrong())?;
    if array.iter().any(|x| x.is_array()) {
        let mut rows = Vec::new();
        for (i, row) in array.iter().enumerate() {
            rows.extend(of(row)?.into_iter().map(|(_, points)| (format!("row {i}"), points)));
        }
        return Ok(rows);
    }
    Ok(vec![("row 0".into(), array.iter().map(number).collect::<Result<_>>()?)])
}
