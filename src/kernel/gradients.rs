//! Gradients of a model's parameters, summed over its passes.
//!
//! Owns where they are accumulated. On a device they lie side by side in one array, in f32 whatever the parameters are,
//! so that one kernel measures all of them and one updates all parameters.

use super::blend::Blend;
use super::device::dot::Parts;
use super::dot::dot;
use super::form::Routine;
use super::tape::Direction;
use super::value::Value;
use crate::error::{Error, Kind, Result};
use crate::gpu::{Array, DType, Place};
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

    /// As the tangents that a pass begins with.
    pub fn direction(&self) -> Arc<Direction> {
        Arc::new(self.sums.clone())
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

    /// Σ cᵢ·gᵢ of gradients of one model, in accumulators of their own.
    ///
    /// # Errors
    /// Gradients of the host and of a device; too little memory.
    pub fn combined(terms: &[(f64, &Self)]) -> Result<Self> {
        let arena = terms.iter().find_map(|(_, g)| g.arena.as_ref());
        let zeros = |arena: &GradArena| -> Result<GradArena> {
            let all = arena.all.gpu().zeros("gradients", DType::F32, arena.all.dims())?;
            Ok(GradArena { all, layout: arena.layout.clone() })
        };
        let mut sum = Self { sums: BTreeMap::new(), arena: arena.map(zeros).transpose()? };
        for (by, g) in terms {
            for (index, x) in &g.sums {
                Blend { into: sum.slot(*index, x)?, keep: 1.0, x, by: *by }.run()?;
            }
        }
        Ok(sum)
    }

    /// These numbers as the gradient of a parameter at a place.
    ///
    /// # Errors
    /// Too little memory; a device that has failed.
    pub fn set(&mut self, index: usize, place: &Place, numbers: &[f32], dims: &[usize]) -> Result<()> {
        let x = Value::at(place, "a gradient", numbers, dims)?;
        Blend { into: self.slot(index, &x)?, keep: 1.0, x: &x, by: 1.0 }.run()
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
