//! What the engine holds, told from the trunk alone: weights, their packed copies, gradients, the optimizer's moments,
//! and what each token costs.
//!
//! Owns no limits (`Settings` has them). The formulas go over the blocks as `decoder` runs them, operation by operation:
//! an operation keeps its inputs for the backward pass, and inputs that several share count once. Here for the host, which
//! `tests/memory.rs` measures; `device.rs` for a device.

mod device;

use crate::kernel::logprob::chunk_bytes;
use crate::kernel::packs::Keep;
use crate::model::trunk::{Block, Linear, Projection, QkNorm, Slot};
use crate::model::{Adapter, Config, Head, Trunk};

/// Bytes of an f32.
const NUMBER: u64 = 4;

/// Bytes of one model in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Parameters, an adapter's included.
    pub weights: u64,
    /// Copies of the weights in the order that products read them: a small model keeps all of them, a larger one those
    /// that decoding reads, one of more than 2 GiB none, but packs them one at a time.
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
            cache_per_token: cache_per_token(config),
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
            logits: chunk_bytes(config.vocab_size, config.hidden_size, config.logit_softcap.is_some()),
            ..Self::sampling(config, adapter)
        }
    }
}

/// Bytes of one token's keys and values on the host.
pub fn cache_per_token(trunk: &Trunk) -> u64 {
    NUMBER * trunk.blocks.iter().map(|block| 2 * block.widths().1 as u64).sum::<u64>()
}

/// Names and shapes of parameters.
type Shapes = Vec<(String, Vec<usize>)>;

/// The frozen ones, and the trained ones: all, or an adapter's and those of a head beside it.
fn parameters(config: &Config, adapter: Option<&Adapter>) -> [Shapes; 2] {
    let own = config.parameters();
    let Some(adapter) = adapter else { return [Vec::new(), own] };
    let beside = config.measuring_parameters();
    let frozen = own.into_iter().filter(|parameter| !beside.contains(parameter)).collect();
    [frozen, adapter.parameters(config).into_iter().chain(beside).collect()]
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
        let count = |parameters: &Shapes| -> u64 {
            parameters.iter().map(|(_, shape)| shape.iter().map(|&n| n as u64).product::<u64>()).sum()
        };
        let [frozen, trained] = parameters(config, adapter).map(|parameters| count(&parameters));
        let added = adapter.map_or(0, |adapter| count(&adapter.parameters(config)));
        let map = |linear: Linear| (linear.inputs * linear.outputs) as u64;
        let layers = 0..config.blocks.len();
        let maps: Vec<u64> = layers.flat_map(|layer| config.linears(layer)).map(map).collect();
        let head = match config.head {
            Head::Lm | Head::LmValue => (config.vocab_size * config.hidden_size) as u64,
            Head::Value | Head::Score => config.hidden_size as u64,
        };
        Self {
            parameters: frozen + trained,
            trained,
            maps: maps.iter().sum::<u64>() + added,
            head,
            largest: maps.into_iter().max().unwrap_or(0).max(head),
        }
    }

    /// In packed copies, where products read the maps in that many ways; a large model's second way is packed a map at
    /// a time.
    fn packed(&self, ways: u64) -> u64 {
        match Keep::of(self.parameters as usize) {
            Keep::All => ways * self.maps + self.head,
            Keep::Decoding => self.maps + self.head + (ways - 1) * self.largest,
            Keep::Nothing => self.largest,
        }
    }
}

/// Numbers that a recorded forward pass keeps for each token.
fn activations(trunk: &Trunk, adapter: Option<&Adapter>) -> u64 {
    let blocks = trunk.blocks.iter().enumerate();
    let kept: u64 = blocks.map(|(layer, block)| block_activations(trunk, layer, block, adapter)).sum();
    // The residual stream behind the last block, the last norm's result, the scored rows of it, angles; two numbers per
    // scored token twice.
    let angles: usize = trunk.rotations.iter().map(|rotation| rotation.dims.next_multiple_of(2)).sum();
    kept + 3 * trunk.hidden_size as u64 + angles as u64 + 4
}

/// Those of one block.
fn block_activations(trunk: &Trunk, layer: usize, block: &Block, adapter: Option<&Adapter>) -> u64 {
    let (hidden, inner) = (trunk.hidden_size as u64, block.mlp.width as u64);
    let (queries, keys) = (block.widths().0 as u64, block.widths().1 as u64);
    let if_so = |yes: bool, numbers: u64| if yes { numbers } else { 0 };
    // A map keeps its input where something on it is trained.
    let maps = trunk.linears(layer);
    let adapts = |map: &&Linear| adapter.is_some_and(|adapter| adapter.adapts(&map.name));
    let read = |slots: &[Slot]| adapter.is_none() || maps.iter().filter(adapts).any(|map| slots.contains(&map.slot));
    let into_attention = read(&[Slot::Query, Slot::Key, Slot::Value, Slot::QueryKeyValue]);
    let (into_mlp, down) = (read(&[Slot::Gate, Slot::Up, Slot::GateUp]), read(&[Slot::Down]));
    let (before, after) = (block.norms.before(), block.norms.after());
    // The residual stream before attention, and behind it, which side by side with the MLP nobody reads: a norm keeps it,
    // or the maps that read it. The results of norms before the maps; what attention and MLP give to norms after them.
    let stream = if_so(before || into_attention, hidden)
        + if_so(!block.parallel && (before || into_mlp), hidden)
        + if_so(before && into_attention, hidden)
        + if_so(before && into_mlp, hidden)
        + if_so(after, 2 * hidden);
    // Queries, keys and values as attention reads them, and before they were taken apart; before they were normalised;
    // what attention gives, and its log-sum-exp.
    let attention = (queries + 2 * keys) * if block.projection == Projection::Separate { 1 } else { 2 }
        + if_so(block.qk_norm != QkNorm::None, queries + keys)
        + queries
        + block.heads.query as u64;
    // Gate and up, also before they were taken apart, or up alone; their product or GELU.
    let ways = if block.mlp.gated() { 2 } else { 1 };
    let mlp = ways * inner * if block.mlp.joint { 2 } else { 1 } + if_so(down, inner);
    // Of every adapted map A·x.
    let adapted = adapter.map_or(0, |adapter| maps.iter().filter(adapts).count() * adapter.rank);
    stream + attention + mlp + adapted as u64
}

/// Numbers that are under way at most in the backward pass, for each token: at the MLP or at attention.
fn backward(trunk: &Trunk) -> u64 {
    let hidden = trunk.hidden_size as u64;
    let block = |block: &Block| {
        let (inner, (queries, keys)) = (block.mlp.width as u64, block.widths());
        let projected = (queries + 2 * keys) as u64 * if block.projection == Projection::Separate { 1 } else { 2 };
        (if block.mlp.joint { 5 } else { 3 } * inner).max(projected + queries as u64)
    };
    2 * hidden + trunk.blocks.iter().map(block).max().unwrap_or(0)
}
