//! Gradients of a model's parameters, summed over its passes.
//!
//! Owns where they are accumulated. On a device they lie side by side in one array, in f32 whatever the parameters are,
//! so that one kernel measures all of them and one updates all parameters.

use super::device::dot::Parts;
use super::dot::dot;
use super::value::Value;
use crate::error::{Error, Kind, Result};
use crate::gpu::{Array, DType};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// Gradient accumulators, by the parameter's index in its model.
#[derive(Default)]
pub struct ParameterGrads {
    sums: BTreeMap<usize, Value>,
    arena: Option<GradArena>,
}

/// One array for the gradients of all trained parameters of a model on a device.
pub struct GradArena {
    /// f32, zero where nothing was added.
    pub all: Array,
    pub layout: Arc<ArenaLayout>,
}

/// Where parameters lie within an arena.
pub struct ArenaLayout {
    /// The first number of each trained parameter, by its index.
    pub offsets: BTreeMap<usize, usize>,
    /// The numbers of each, in the same order.
    pub parts: Parts,
}

impl ParameterGrads {
    /// Accumulators within one array.
    pub fn within(arena: GradArena) -> Self {
        Self { sums: BTreeMap::new(), arena: Some(arena) }
    }

    pub fn get(&self, index: usize) -> Option<&Value> {
        self.sums.get(&index)
    }

    /// The array that all of them lie in, on a device.
    pub fn arena(&self) -> Option<&Array> {
        self.arena.as_ref().map(|arena| &arena.all)
    }

    /// Σ g·h of each parameter that has both, by its index, in f64; a device is waited for once.
    ///
    /// # Errors
    /// Gradients of two models; a device that has failed.
    pub fn dot(&self, other: &Self) -> Result<BTreeMap<usize, f64>> {
        let both = || self.sums.iter().filter_map(|(i, g)| Some((*i, g, other.sums.get(i)?)));
        match (&self.arena, &other.arena) {
            (None, None) => both().map(|(i, g, h)| Ok((i, dot(g, h)?))).collect(),
            (Some(own), Some(others)) => {
                let all = own.layout.parts.dot(&own.all, &others.all)?;
                let by_index: BTreeMap<usize, f64> = own.layout.offsets.keys().copied().zip(all).collect();
                Ok(both().filter_map(|(i, ..)| Some((i, *by_index.get(&i)?))).collect())
            }
            _ => Err(Error::new(Kind::Internal, "gradients of the host and of a device")),
        }
    }

    /// The accumulator of a parameter, zero when it is new; `like` has the parameter's shape.
    pub(super) fn slot(&mut self, index: usize, like: &Value) -> Result<&mut Value> {
        Ok(match self.sums.entry(index) {
            Entry::Occupied(sum) => sum.into_mut(),
            Entry::Vacant(place) => place.insert(match (like, &self.arena) {
                (Value::Host(_), _) => like.zeros_like()?,
                (Value::Device(like), Some(arena)) => arena.all.view(arena.layout.offsets[&index], like.dims())?.into(),
                (Value::Device(like), None) => like.gpu().zeros("a gradient", DType::F32, like.dims())?.into(),
            }),
        })
    }
}
