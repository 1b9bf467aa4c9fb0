//! Reverse-mode differentiation of the graphs that scripts build: nodes, the backward walk, gradients.
//!
//! First order only. A node's rule turns the upstream gradient (f64, row major) into one gradient per input;
//! every rule keeps a zero upstream gradient zero whatever values it meets, so NaN in cells that a loss does
//! not select never reaches a gradient. Neither the walk nor the drop of a graph recurses.

use crate::error::{Error, Result};
use crate::tensor::{Device, Tensor, shape};
use candle_core::{DType, Tensor as Data};
use std::any::Any;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

type Rule = Box<dyn Fn(&[f64]) -> Result<Vec<Vec<f64>>> + Send + Sync>;
type Origin = Arc<dyn Any + Send + Sync>;

/// A place in the graph. Ids grow with creation, so descending ids are a topological order.
pub(crate) struct Node {
    id: u64,
    dims: Vec<usize>,
    dtype: DType,
    device: Device,
    inputs: Vec<Option<Arc<Node>>>,
    rule: Option<Rule>,
    origin: Option<Origin>,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Node {
    pub(crate) fn leaf(like: &Data, origin: Option<Origin>) -> Arc<Self> {
        Arc::new(Self::at(like, Vec::new(), None, origin))
    }

    fn at(like: &Data, inputs: Vec<Option<Arc<Node>>>, rule: Option<Rule>, origin: Option<Origin>) -> Self {
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            dims: like.dims().to_vec(),
            dtype: like.dtype(),
            device: like.device().clone(),
            inputs,
            rule,
            origin,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A chain of a hundred thousand nodes would overflow the stack if each dropped its inputs itself.
        let mut last = std::mem::take(&mut self.inputs);
        while let Some(input) = last.pop() {
            if let Some(mut node) = input.and_then(Arc::into_inner) {
                last.append(&mut node.inputs);
            }
        }
    }
}

/// `out` as the result of `inputs`. `make` builds the rule and runs only if an input is differentiable: the rule
/// returns one gradient per input (empty for inputs that `wanted` says have no graph).
pub(crate) fn record<F>(out: Tensor, inputs: &[&Tensor], make: impl FnOnce(&Tensor, Vec<bool>) -> F) -> Tensor
where
    F: Fn(&[f64]) -> Result<Vec<Vec<f64>>> + Send + Sync + 'static,
{
    let wanted: Vec<bool> = inputs.iter().map(|t| t.requires_grad()).collect();
    if !wanted.contains(&true) {
        return out;
    }
    let rule: Rule = Box::new(make(&out, wanted));
    let parents = inputs.iter().map(|t| t.node().cloned()).collect();
    let node = Node::at(out.data(), parents, Some(rule), None);
    out.with_node(Some(Arc::new(node)))
}

/// Gradients of one loss with respect to every tensor of its graph.
pub struct Gradients {
    by_node: BTreeMap<u64, Data>,
    sources: Vec<(Origin, Data)>,
}

impl Gradients {
    /// The gradient with respect to `x`, of its shape and type; `None` if the loss does not depend on it.
    pub fn of(&self, x: &Tensor) -> Option<Tensor> {
        let found = self.by_node.get(&x.node()?.id)?;
        Some(Tensor::new(found.clone()).with_tokens(x.is_tokens()))
    }

    /// The engine's leaves that the loss depends on, in order of creation, with their gradients.
    pub fn sources(&self) -> Vec<(Origin, Data)> {
        self.sources.clone()
    }
}

/// Differentiates `loss`, which must hold one number and have a graph. Changes nothing and may be called again.
pub fn backward(loss: &Tensor) -> Result<Gradients> {
    if loss.len() != 1 {
        return Err(Error::gradient(format!("a loss is one number, found shape {}", shape::show(loss.dims())))
            .hint("reduce it, for instance with seq_mean(x, mask), token_mean(x, mask) or mean(x)"));
    }
    let root = loss.node().ok_or_else(|| {
        Error::gradient("the loss does not depend on anything that can be differentiated")
            .hint("it must be computed from logprob(policy, b) of a trainable model, or from x.with_grad()")
    })?;
    let mut pending = BTreeMap::from([(root.id, (root.clone(), vec![1.0]))]);
    let mut found = Gradients { by_node: BTreeMap::new(), sources: Vec::new() };
    while let Some((id, (node, upstream))) = pending.pop_last() {
        if let Some(rule) = &node.rule {
            let parts = rule(&upstream)?;
            for (input, part) in node.inputs.iter().zip(parts) {
                if let Some(input) = input {
                    add(&mut pending, input, part);
                }
            }
        }
        let gradient = Tensor::from_host(upstream, &node.dims, node.dtype, &node.device)?.data().clone();
        if let Some(origin) = &node.origin {
            found.sources.push((origin.clone(), gradient.clone()));
        }
        found.by_node.insert(id, gradient);
    }
    found.sources.reverse();
    Ok(found)
}

fn add(pending: &mut BTreeMap<u64, (Arc<Node>, Vec<f64>)>, input: &Arc<Node>, part: Vec<f64>) {
    match pending.entry(input.id) {
        Entry::Vacant(entry) => {
            entry.insert((input.clone(), part));
        }
        Entry::Occupied(mut entry) => {
            for (sum, add) in entry.get_mut().1.iter_mut().zip(part) {
                *sum += add;
            }
        }
    }
}
