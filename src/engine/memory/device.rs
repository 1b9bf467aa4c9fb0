//! What a model on a device holds: its types, no packed copies, and what the forms of operations for a device keep.
//!
//! The residual stream, vectors, gradients and moments are f32; matrices, and what norms and linear maps give, are of the
//! type that the model computes in. `tests/models/device_memory.rs` measures it.

use super::{Memory, NUMBER, parameters};
use crate::gpu::{DType, Place};
use crate::kernel::device::chunks::chunk_numbers;
use crate::model::trunk::{Block, Linear, Norm, Projection, QkNorm, Slot};
use crate::model::{Adapter, Arena, Config, Model, Trunk};

impl Memory {
    /// Of a model where it is and as it is: trained, or frozen.
    pub fn of(model: &Model) -> Self {
        let (config, adapter) = (&model.config, model.adapter.as_ref());
        match (model.place(), model.trainable()) {
            (Place::Host, true) => Self::training(config, adapter),
            (Place::Host, false) => Self::sampling(config, adapter),
            (Place::Gpu(_), true) => Self::training_on_device(config, adapter, model.compute),
            (Place::Gpu(_), false) => Self::sampling_on_device(config, adapter, model.compute),
        }
    }

    /// As `sampling`, by a frozen model on a device that computes in `compute`.
    pub fn sampling_on_device(config: &Config, adapter: Option<&Adapter>, compute: DType) -> Self {
        let [frozen, trained] = parameters(config, adapter);
        let keys: u64 = config.blocks.iter().map(|block| block.widths().1 as u64).sum();
        // Capped logits lie beside those that they were.
        let logits = if config.logit_softcap.is_some() { 2 } else { 1 } * config.vocab_size as u64;
        Self {
            weights: frozen.iter().chain(&trained).map(|(_, shape)| still(shape, compute)).sum(),
            packed: 0,
            gradients: 0,
            moments: 0,
            activations_per_token: 0,
            backward_per_token: 0,
            cache_per_token: 2 * keys * compute.size() as u64,
            logits: NUMBER * logits,
        }
    }

    /// As `training`, on a device that computes in `compute`.
    pub fn training_on_device(config: &Config, adapter: Option<&Adapter>, compute: DType) -> Self {
        let [frozen, trained] = parameters(config, adapter);
        let arena: u64 = trained.iter().map(|(_, shape)| Arena::room(shape.iter().product()) as u64).sum();
        let each = compute.size() as u64;
        let working = if compute == DType::F32 { 0 } else { each };
        let own = Numbers { trunk: config, adapter, compute };
        Self {
            weights: frozen.iter().map(|(_, shape)| still(shape, compute)).sum::<u64>() + (NUMBER + working) * arena,
            gradients: NUMBER * arena,
            moments: 2 * NUMBER * arena,
            activations_per_token: own.activations(),
            backward_per_token: own.backward(),
            // A chunk of logits, and of their gradients.
            logits: chunk_numbers(config.vocab_size) as u64 * (NUMBER + each),
            ..Self::sampling_on_device(config, adapter, compute)
        }
    }
}

/// Bytes of a weight that is not trained: vectors are f32.
fn still(shape: &[usize], compute: DType) -> u64 {
    let each = if shape.len() < 2 { NUMBER } else { compute.size() as u64 };
    each * shape.iter().map(|&n| n as u64).product::<u64>()
}

fn if_so(yes: bool, bytes: u64) -> u64 {
    if yes { bytes } else { 0 }
}

/// What numbers of a forward and a backward pass take, in bytes for each token.
struct Numbers<'a> {
    trunk: &'a Trunk,
    adapter: Option<&'a Adapter>,
    compute: DType,
}

impl Numbers<'_> {
    /// Of that many numbers of the type that the model computes in.
    fn computed(&self, numbers: u64) -> u64 {
        self.compute.size() as u64 * numbers
    }

    /// What a norm keeps of each row: 1/RMS, or the mean and 1/deviation.
    fn of_a_row(&self) -> u64 {
        match self.trunk.norm {
            Norm::Rms(_) => NUMBER,
            Norm::Layer { .. } => 2 * NUMBER,
        }
    }

    /// What a recorded forward pass keeps.
    fn activations(&self) -> u64 {
        let trunk = self.trunk;
        let blocks = trunk.blocks.iter().enumerate();
        let kept: u64 = blocks.map(|(layer, block)| self.block(layer, block)).sum();
        let hidden = trunk.hidden_size as u64;
        let angles: usize = trunk.rotations.iter().map(|rotation| rotation.dims.next_multiple_of(2)).sum();
        // The residual stream behind the last block, which the last norm keeps; its result, and the scored rows of it.
        let last = NUMBER * hidden + self.of_a_row() + self.computed(2 * hidden);
        // Of a scored token: log-prob and entropy, the softmax's three numbers, and what joins the three.
        kept + last + NUMBER * angles as u64 + 8 * NUMBER
    }

    /// Maps in some slots that have something to train.
    fn trained(&self, maps: &[Linear], slots: &[Slot]) -> u64 {
        let trains = |map: &&Linear| self.adapter.is_none_or(|adapter| adapter.adapts(&map.name));
        maps.iter().filter(trains).filter(|map| slots.contains(&map.slot)).count() as u64
    }

    /// What maps without a norm before them keep of the residual stream: itself, or a cast for each.
    fn stream(&self, maps: u64) -> u64 {
        let hidden = self.trunk.hidden_size as u64;
        if self.compute == DType::F32 { if_so(maps > 0, NUMBER * hidden) } else { self.computed(maps * hidden) }
    }

    fn block(&self, layer: usize, block: &Block) -> u64 {
        let (hidden, inner) = (self.trunk.hidden_size as u64, block.mlp.width as u64);
        let (queries, keys) = (block.widths().0 as u64, block.widths().1 as u64);
        let maps = self.trunk.linears(layer);
        let attention_maps = self.trained(&maps, &[Slot::Query, Slot::Key, Slot::Value, Slot::QueryKeyValue]);
        let mlp_maps = self.trained(&maps, &[Slot::Gate, Slot::Up, Slot::GateUp]);
        let norm = NUMBER * hidden + self.of_a_row();
        // Beside an adapter nothing that the first norm reads is trained.
        let reached = layer > 0 || self.adapter.is_none();
        let stream = if block.norms.before() {
            // Norms keep the stream, which side by side with the MLP is one for both, and maps keep the norms' results.
            let second = if block.parallel { if_so(reached, self.of_a_row()) } else { norm };
            let read = u64::from(attention_maps > 0) + u64::from(mlp_maps > 0);
            if_so(reached, norm) + second + self.computed(read * hidden)
        } else {
            self.stream(attention_maps) + self.stream(mlp_maps)
        };
        let after = if_so(block.norms.after(), 2 * (self.computed(hidden) + self.of_a_row()));
        // Queries, keys and values as attention reads them, and before they were taken apart; before they were
        // normalised; what attention gives, and its log-sum-exp.
        let ways = if block.projection == Projection::Separate { 1 } else { 2 };
        let normalised = match block.qk_norm {
            QkNorm::None => 0,
            QkNorm::PerHead => (block.heads.query + block.heads.key) as u64,
            QkNorm::Whole => 2,
        };
        let attention = self.computed((queries + 2 * keys) * ways + queries)
            + if_so(normalised > 0, self.computed(queries + keys) + normalised * self.of_a_row())
            + NUMBER * block.heads.query as u64;
        // Gate and up, also before they were taken apart, or up alone; their product or GELU.
        let ways = if block.mlp.gated() { 2 } else { 1 } * if block.mlp.joint { 2 } else { 1 };
        let down = u64::from(self.trained(&maps, &[Slot::Down]) > 0);
        let mlp = self.computed(inner * (ways + down));
        // Of every adapted map A·x.
        let adapts = |adapter: &Adapter| maps.iter().filter(|map| adapter.adapts(&map.name)).count() * adapter.rank;
        stream + after + attention + mlp + self.computed(self.adapter.map_or(0, adapts) as u64)
    }

    /// What is under way at most in the backward pass: at the MLP, at attention or at a norm, beside the gradient of the
    /// residual stream and its cast.
    fn backward(&self) -> u64 {
        let hidden = self.trunk.hidden_size as u64;
        let block = |block: &Block| {
            let (inner, (queries, keys)) = (block.mlp.width as u64, block.widths());
            let projected = (queries + 2 * keys) as u64 * if block.projection == Projection::Separate { 1 } else { 2 };
            let mlp = inner
                * if block.mlp.joint {
                    5
                } else if block.mlp.gated() {
                    3
                } else {
                    2
                };
            let attention = self.computed(projected + queries as u64) + NUMBER * block.heads.query as u64;
            self.computed(mlp).max(attention)
        };
        let most = self.trunk.blocks.iter().map(block).max().unwrap_or(0);
        NUMBER * hidden + self.computed(hidden) + most.max(NUMBER * hidden)
    }
}
