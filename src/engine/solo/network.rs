//! What decoding needs of a decoder, whatever holds its weights: a trainable model's parameters or a GGUF file's blocks.

use crate::error::Result;
use crate::gpu::{DType, Place};
use crate::kernel::attention::Heads;
use crate::kernel::packs::Packs;
use crate::kernel::tape::{Tape, Var};
use crate::kernel::value::Value;
use crate::model::decoder::{Attend, Decoder};
use crate::model::{Model, Tokenizer};
use std::sync::Arc;

/// Sizes that rows depend on.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub layers: usize,
    /// Tokens of a row at most.
    pub context: usize,
    /// V
    pub vocabulary: usize,
}

/// A decoder that can be run forwards.
pub trait Network: Sync {
    fn sizes(&self) -> Sizes;
    fn heads(&self, layer: usize) -> Heads;
    fn tokenizer(&self) -> Option<&Tokenizer>;
    /// Its tokenizer's, to which rows are held; `None` where it cannot be compared with others.
    fn vocabulary(&self) -> Option<u64> {
        None
    }
    /// Tokens that end an answer.
    fn ends(&self) -> &[u32];
    fn packs(&self) -> Arc<Packs>;
    /// Where its weights are.
    fn place(&self) -> &Place {
        &Place::Host
    }
    /// The type that its operations compute in on a device.
    fn compute(&self) -> DType {
        DType::F32
    }
    /// Tokens `ids` at `positions`, both N → hidden states `[N,H]`.
    fn hidden(&self, tape: &mut Tape, ids: Arc<[u32]>, positions: &[u32], attend: &mut Attend) -> Result<Var>;
    /// Hidden states `[N,H]` → logits `[N,V]`.
    fn logits(&self, tape: &mut Tape, hidden: &Value) -> Result<Value>;
}

/// A model's own decoder.
pub struct Own<'m> {
    pub model: &'m Model,
    pub decoder: Decoder,
}

impl Network for Own<'_> {
    fn sizes(&self) -> Sizes {
        let c = &self.model.config;
        Sizes { layers: c.blocks.len(), context: c.max_positions, vocabulary: c.vocab_size }
    }

    fn vocabulary(&self) -> Option<u64> {
        self.model.vocabulary()
    }

    fn heads(&self, layer: usize) -> Heads {
        self.decoder.heads(layer)
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.model.tokenizer.as_deref()
    }

    fn ends(&self) -> &[u32] {
        &self.model.eos
    }

    fn packs(&self) -> Arc<Packs> {
        self.model.packs()
    }

    fn place(&self) -> &Place {
        self.model.place()
    }

    fn compute(&self) -> DType {
        self.model.compute
    }

    fn hidden(&self, tape: &mut Tape, ids: Arc<[u32]>, positions: &[u32], attend: &mut Attend) -> Result<Var> {
        self.decoder.hidden(tape, ids, positions, attend)
    }

    fn logits(&self, tape: &mut Tape, hidden: &Value) -> Result<Value> {
        let hidden = tape.constant(hidden.clone());
        Ok(self.decoder.logits(tape, &hidden)?.value)
    }
}
