//! Reverse-mode differentiation of the graphs that scripts build: nodes, the backward walk, gradients.
//!
//! First order only. A node's rule turns the upstream gradient (f64, row major), which is its to use up, into one gradient
//! per input; every rule keeps a zero upstream gradient zero whatever values it meets, so NaN in cells that a loss does
//! not select never reaches a gradient. Neither the walk nor the drop of a graph recurses.

use crate::error::{Error, Result};
use crate::tensor::blocks::each_block;
use crate::tensor::{Device, Tensor, shape};
use candle_core::{DType, Tensor as Data};
use std::any::Any;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

type Rule = Box<dyn Fn(Vec<f64>) -> Result<Vec<Vec<f64>>> + Send + Sync>;
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

    /// A leaf that belongs to no model.
    pub(crate) fn is_variable(&self) -> bool {
        self.inputs.is_empty() && self.rule.is_none() && self.origin.is_none()
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

    /// A gradient of this node, rounded to its type.
    fn gradient(&self, cells: Vec<f64>) -> Result<Data> {
        Ok(Tensor::from_host(cells, &self.dims, self.dtype, &self.device)?.data().clone())
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
    F: Fn(Vec<f64>) -> Result<Vec<Vec<f64>>> + Send + Sync + 'static,
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

/// Gradients of one loss with respect to the leaves of its graph.
pub struct Gradients {
    leaves: BTreeMap<u64, (Option<Origin>, Data)>,
}

impl Gradients {
    /// The gradient with respect to the leaf `x`, of its shape and type; `None` if the loss does not depend on it.
    pub fn of(&self, x: &Tensor) -> Option<Tensor> {
        let (_, found) = self.leaves.get(&x.node()?.id)?;
        Some(Tensor::new(found.clone()).with_tokens(x.is_tokens()))
    }

    /// The engine's leaves that the loss depends on, in order of creation, with their gradients.
    pub fn sources(&self) -> Vec<(Origin, Data)> {
        let of_engine = |(origin, gradient): &(Option<Origin>, Data)| Some((origin.clone()?, gradient.clone()));
        self.leaves.values().filter_map(of_engine).collect()
    }
}

/// Differentiates `loss`, which must hold one number and have a graph. Changes nothing and may be called again.
pub fn backward(loss: &Tensor) -> Result<Gradients> {
    let mut leaves = BTreeMap::new();
    walk(loss, |node, upstream| {
        if node.rule.is_none() {
            leaves.insert(node.id, (node.origin.clone(), node.gradient(std::mem::take(upstream))?));
        }
        Ok(Walk::On)
    })?;
    Ok(Gradients { leaves })
}

/// The gradient of `loss` with respect to `x`, which may stand anywhere in its graph; `None` if the loss does not depend
/// on it.
pub fn gradient(loss: &Tensor, x: &Tensor) -> Result<Option<Tensor>> {
    let wanted = x.node().map(|node| node.id);
    let mut found = None;
    walk(loss, |node, upstream| {
        if Some(node.id) == wanted {
            found = Some(Tensor::new(node.gradient(std::mem::take(upstream))?).with_tokens(x.is_tokens()));
        }
        // What was made before `x` is nothing that depends on it.
        Ok(if wanted.is_some_and(|x| node.id <= x) { Walk::End } else { Walk::On })
    })?;
    Ok(found)
}

enum Walk {
    On,
    End,
}

/// Calls `visit` with every node that `loss` depends on and its gradient, newest first.
fn walk(loss: &Tensor, mut visit: impl FnMut(&Node, &mut Vec<f64>) -> Result<Walk>) -> Result<()> {
    if loss.len() != 1 {
        return Err(Error::gradient(format!("a loss is one number, found shape {}", shape::show(loss.dims())))
            .hint("reduce it, for instance with seq_mean(x, mask), token_mean(x, mask) or mean(x)"));
    }
    let root = loss.node().ok_or_else(|| {
        Error::gradient("the loss does not depend on anything that can be differentiated")
            .hint("it must be computed from logprob(policy, b) of a trainable model, or from x.with_grad()")
    })?;
    let mut pending = BTreeMap::from([(root.id, (root.clone(), vec![1.0]))]);
    while let Some((_, (node, mut upstream))) = pending.pop_last() {
        if let Walk::End = visit(&node, &mut upstream)? {
            return Ok(());
        }
        let Some(rule) = &node.rule else { continue };
        for (input, part) in node.inputs.iter().zip(rule(upstream)?) {
            if let Some(input) = input {
                add(&mut pending, input, part);
            }
        }
    }
    Ok(())
}

fn add(pending: &mut BTreeMap<u64, (Arc<Node>, Vec<f64>)>, input: &Arc<Node>, part: Vec<f64>) {
    match pending.entry(input.id) {
        Entry::Vacant(entry) => {
            entry.insert((input.clone(), part));
        }
        Entry::Occupied(mut entry) => each_block(&mut entry.get_mut().1, |start, sums| {
            sums.iter_mut().zip(&part[start..]).for_each(|(sum, add)| *sum += add);
        }),
    }
}
