//! What the engine holds, told from the configuration alone: weights, their packed copies, gradients, the optimizer's
//! moments, and what each token costs.
//!
//! Owns no limits (`Settings` has them). The formulas follow what `decoder` records, operation by operation: an
//! operation keeps its inputs for the backward pass, and inputs that several share count once. `tests/memory.rs`
//! measures them.

use crate::kernel::logprob::chunk_bytes;
use crate::kernel::tape::Packs;
use crate::model::config::{Attention, Linear};
use crate::model::{Adapter, Config, Head};

/// Bytes of an f32.
const NUMBER: u64 = 4;

/// Bytes of one model in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Parameters, an adapter's included.
    pub weights: u64,
    /// Copies of the weights in the order that products read them. Small models keep all of them, large ones have one
    /// at a time.
    pub packed: u64,
    pub gradients: u64,
    /// Both moments of AdamW.
    pub moments: u64,
    /// What a recorded forward pass keeps for each packed token.
    pub activations_per_token: u64,
    /// Gradients of activations under way in the backward pass, for each packed token of a micro-batch.
    pub backward_per_token: u64,
    /// Keys and values of one token.
    pub cache_per_token: u64,
    /// Logits under way: of one row when sampling, else the chunk that is held at a time.
    pub logits: u64,
}

impl Memory {
    /// Sampling and scoring without a gradient.
    pub fn sampling(config: &Config, adapter: Option<&Adapter>) -> Self {
        let sizes = Sizes::of(config, adapter);
        Self {
            weights: NUMBER * sizes.parameters,
            packed: NUMBER * sizes.packed(1),
            gradients: 0,
            moments: 0,
            activations_per_token: 0,
            backward_per_token: 0,
            cache_per_token: NUMBER * (2 * config.layers * config.kv_heads * config.head_dim) as u64,
            // The product, and the copy that the choice of a token works on.
            logits: 2 * NUMBER * config.vocab_size as u64,
        }
    }

    /// Training: every parameter, or an adapter and the head beside it. Sampling's, and what steps need.
    pub fn training(config: &Config, adapter: Option<&Adapter>) -> Self {
        let sizes = Sizes::of(config, adapter);
        Self {
            // A backward pass packs every map the other way round as well; the head it packs by chunks.
            packed: NUMBER * sizes.packed(2),
            gradients: NUMBER * sizes.trained,
            moments: 2 * NUMBER * sizes.trained,
            activations_per_token: NUMBER * activations(config, adapter),
            backward_per_token: NUMBER * backward(config),
            logits: chunk_bytes(config.vocab_size, config.hidden_size, false),
            ..Self::sampling(config, adapter)
        }
    }
}

/// Counts of numbers.
struct Sizes {
    /// An adapter's included.
    parameters: u64,
    trained: u64,
    /// In the linear maps of all layers, an adapter's included.
    maps: u64,
    head: u64,
    /// In the largest weight.
    largest: u64,
}

impl Sizes {
    fn of(config: &Config, adapter: Option<&Adapter>) -> Self {
        let count = |parameters: Vec<(String, Vec<usize>)>| -> u64 {
            parameters.iter().map(|(_, shape)| shape.iter().map(|&n| n as u64).product::<u64>()).sum()
        };
        let own = count(config.parameters());
        let added = adapter.map_or(0, |adapter| count(adapter.parameters(config)));
        let trained = match (adapter, config.head) {
            (None, _) => own,
            (Some(_), Head::Lm) => added,
            (Some(_), Head::Value | Head::Score) => added + count(config.head_parameters()),
        };
        let map = |linear: Linear| (linear.inputs * linear.outputs) as u64;
        let layer: Vec<u64> = config.linears(0).into_iter().map(map).collect();
        let head = match config.head {
            Head::Lm => (config.vocab_size * config.hidden_size) as u64,
            Head::Value | Head::Score => config.hidden_size as u64,
        };
        Self {
            parameters: own + added,
            trained,
            maps: config.layers as u64 * layer.iter().sum::<u64>() + added,
            head,
            largest: layer.into_iter().max().unwrap_or(0).max(head),
        }
    }

    /// In packed copies, where products read the maps in that many ways.
    fn packed(&self, ways: u64) -> u64 {
        if Packs::keeps(self.parameters as usize) { ways * self.maps + self.head } else { self.largest }
    }
}

/// Numbers that a recorded forward pass keeps for each token.
fn activations(c: &Config, adapter: Option<&Adapter>) -> u64 {
    let (hidden, inner) = (c.hidden_size as u64, c.intermediate_size as u64);
    let (queries, keys) = ((c.heads * c.head_dim) as u64, (c.kv_heads * c.head_dim) as u64);
    let if_so = |yes: bool, numbers: u64| if yes { numbers } else { 0 };
    // A map keeps its input where something on it is trained.
    let maps = c.linears(0);
    let (into_attention, rest) = maps.split_at(c.names.qkv.len());
    let (into_mlp, down) = rest[1..].split_at(c.names.mlp.len() - 1);
    let read = |maps: &[Linear]| adapter.is_none_or(|adapter| maps.iter().any(|map| adapter.adapts(&map.name)));
    // The norms' results; the residual stream behind attention, which side by side with the MLP nobody reads, and
    // behind the MLP.
    let stream =
        if_so(read(into_attention), hidden) + if_so(read(into_mlp), hidden) + if_so(!c.parallel, hidden) + hidden;
    // Queries, keys and values as attention reads them, and before they were taken apart; before they were normalised;
    // what attention gives, and its log-sum-exp.
    let attention = (queries + 2 * keys) * if c.attention == Attention::Separate { 1 } else { 2 }
        + if_so(c.qk_norm, queries + keys)
        + queries
        + c.heads as u64;
    // Gate and up, or up alone; their product or GELU.
    let mlp = if c.gated() { 2 * inner } else { inner } + if_so(read(down), inner);
    // Of every adapted map A·x.
    let adapted = adapter.map_or(0, |adapter| (adapter.linears(c).len() * adapter.rank) as u64);
    // The embedding, the last norm's result, the scored rows of it, angles; two numbers per scored token twice.
    let ends = 3 * hidden + c.rotary_dim() as u64 + 4;
    c.layers as u64 * (stream + attention + mlp) + adapted + ends
}

/// Numbers that are under way at most in the backward pass, for each token: at the MLP or at attention.
fn backward(c: &Config) -> u64 {
    let (hidden, inner) = (c.hidden_size as u64, c.intermediate_size as u64);
    let (queries, keys) = ((c.heads * c.head_dim) as u64, (c.kv_heads * c.head_dim) as u64);
    let projected = (queries + 2 * keys) * if c.attention == Attention::Separate { 1 } else { 2 };
    2 * hidden + (3 * inner).max(projected + queries)
}
