//! What a script's last expression came to, as data that has left the engine.

use crate::error::Result;
use crate::script::lang::value::describe;
use crate::tensor::Tensor;
use rhai::Dynamic;
use std::collections::BTreeMap;

/// A value that a script ended with.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Nothing: the script ended with a statement.
    Unit,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// The lengths of the axes, and the cells row by row.
    Tensor {
        shape: Vec<usize>,
        cells: Vec<f64>,
    },
    Array(Vec<Value>),
    Map(BTreeMap<String, Value>),
    /// What only a script can use (a model, a batch, a function), as errors call it.
    Other(String),
}

impl Value {
    /// # Errors
    /// A tensor that cannot be read.
    pub(super) fn of(value: &Dynamic) -> Result<Self> {
        if value.is_unit() {
            return Ok(Self::Unit);
        }
        if let Ok(map) = value.as_map_ref() {
            let entries = map.iter().map(|(key, value)| Ok((key.to_string(), Self::of(value)?)));
            return entries.collect::<Result<_>>().map(Self::Map);
        }
        if let Ok(items) = value.as_array_ref() {
            return items.iter().map(Self::of).collect::<Result<_>>().map(Self::Array);
        }
        if let Some(x) = value.read_lock::<Tensor>() {
            return Ok(Self::Tensor { shape: x.dims().to_vec(), cells: x.to_vec()? });
        }
        let number = value.as_int().map(Self::Int).or_else(|_| value.as_float().map(Self::Float));
        let plain = number.or_else(|_| value.as_bool().map(Self::Bool));
        let text = plain.or_else(|_| value.as_char().map(|c| Self::Text(c.into())));
        Ok(text
            .or_else(|_| value.clone().into_string().map(Self::Text))
            .unwrap_or_else(|_| Self::Other(describe(value))))
    }

    /// An int, a float, or the one cell of a tensor that has one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Int(x) => Some(*x as f64),
            Self::Float(x) => Some(*x),
            Self::Tensor { cells, .. } => match cells[..] {
                [x] => Some(x),
                _ => None,
            },
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The entry of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(map) => map.get(key),
            _ => None,
        }
    }
}
