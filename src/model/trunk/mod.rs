//! The trunk: a stack of blocks with the embedding before and the norm and head after it, as a value.
//!
//! One value says what the decoder computes; parameter names and shapes, the memory estimate, the tensors of a GGUF file
//! and what `rhopo inspect` prints are all told from it. `config` makes one of a `config.json`, `gguf` one of a GGUF
//! file's metadata. Owns no numbers and no files.

pub mod block;
pub mod names;

pub use block::{Activation, Block, Layout, Mlp, Norms, Part, Projection, QkNorm, Slot};
pub use names::Names;

use crate::kernel::rms_norm::Rms;
use crate::kernel::rotary::Scaling;

/// The kind of all norms of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// x / rms(x) · (offset + weight)
    Rms(Rms),
    /// (x − mean) / std · weight + bias
    Layer { eps: f64 },
}

impl Norm {
    pub fn eps(&self) -> f64 {
        match self {
            Self::Rms(rms) => rms.eps,
            Self::Layer { eps } => *eps,
        }
    }

    pub fn biased(&self) -> bool {
        matches!(self, Self::Layer { .. })
    }

    /// The weight at which the norm scales by one: where training starts.
    pub fn neutral(&self) -> f32 {
        match self {
            Self::Rms(rms) => 1.0 - rms.offset,
            Self::Layer { .. } => 1.0,
        }
    }
}

/// A rotary embedding: the first `dims` dimensions of every head are turned (one more where `dims` is odd).
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    pub dims: usize,
    pub theta: f64,
    pub scaling: Scaling,
}

/// What stands on the hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Logits over the vocabulary.
    Lm,
    /// A number per token: the value of the state before it.
    Value,
    /// A number per row, at its last token.
    Score,
    /// Logits, and beside them a number per token: one trunk for a policy and its critic.
    LmValue,
}

/// Where the value head beside a language model's is kept: no class of transformers has both, TRL's
/// `AutoModelForCausalLMWithValueHead` had it under this name.
pub const VALUE_BESIDE: &str = "v_head.summary";

impl Head {
    /// Whether this head, or one of these two, is that one.
    pub fn has(self, part: Self) -> bool {
        self == part || (self == Self::LmValue && matches!(part, Self::Lm | Self::Value))
    }
}

/// A whole decoder, checked: sizes are positive and divide as they must.
#[derive(Debug, Clone)]
pub struct Trunk {
    /// Where its weights are kept.
    pub names: &'static Names,
    /// V
    pub vocab_size: usize,
    /// H: width of the residual stream.
    pub hidden_size: usize,
    /// Positions it was made for, in tokens.
    pub max_positions: usize,
    /// What embedded tokens are multiplied by.
    pub embedding_scale: f32,
    /// A vector per position is added to the embedding.
    pub learned_positions: bool,
    /// The rotary embeddings that blocks choose from.
    pub rotations: Vec<Rotation>,
    /// At least one.
    pub blocks: Vec<Block>,
    /// After the last block, and of all blocks.
    pub norm: Norm,
    pub head: Head,
    /// The language-model head is the embedding.
    pub tied: bool,
    /// What hidden states are multiplied by before the head.
    pub logit_scale: f32,
    /// The logits never pass ±this.
    pub logit_softcap: Option<f32>,
}

/// A linear map of one block, by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    pub slot: Slot,
    /// Without `.weight`: `model.layers.0.self_attn.q_proj`.
    pub name: String,
    pub outputs: usize,
    pub inputs: usize,
    pub bias: bool,
    pub layout: Layout,
}

impl Linear {
    /// The last part of the name, which adapters choose their targets by: `q_proj`.
    pub fn module(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    pub fn weight(&self) -> (String, Vec<usize>) {
        let shape = match self.layout {
            Layout::OutIn => vec![self.outputs, self.inputs],
            Layout::InOut => vec![self.inputs, self.outputs],
        };
        (format!("{}.weight", self.name), shape)
    }
}

impl Trunk {
    /// The linear maps of a block in order of use: query, key, value (or all in one), output, then those of the MLP.
    pub fn linears(&self, layer: usize) -> Vec<Linear> {
        let layout = self.names.layout;
        let linear = |(slot, part)| match part {
            Part::Norm { .. } => None,
            Part::Linear { outputs, inputs, bias } => {
                Some(Linear { slot, name: self.names.in_layer(layer, slot), outputs, inputs, bias, layout })
            }
        };
        self.blocks[layer].parts(self.hidden_size).into_iter().filter_map(linear).collect()
    }

    /// Name and shape of the output head's weight and of its bias; a tied language model has none of its own.
    pub fn head_parameters(&self) -> Vec<(String, Vec<usize>)> {
        let logits = (format!("{}.weight", self.names.lm_head), vec![self.vocab_size, self.hidden_size]);
        let logits = Some(logits).filter(|_| self.head.has(Head::Lm) && !self.tied);
        self.measuring_parameters().into_iter().chain(logits).collect()
    }

    /// Those of what gives numbers in place of logits, or beside them: an adapter has it trained with its own.
    pub fn measuring_parameters(&self) -> Vec<(String, Vec<usize>)> {
        let Some(name) = self.measuring_name() else { return Vec::new() };
        let weight = (format!("{name}.weight"), vec![1, self.hidden_size]);
        let bias = (self.head != Head::Score).then(|| (format!("{name}.bias"), vec![1]));
        bias.into_iter().chain([weight]).collect()
    }

    /// The name of the head's weight, without `.weight`; of two heads the language model's.
    pub fn head_name(&self) -> &'static str {
        match self.head {
            Head::Lm | Head::LmValue if self.tied => self.names.embedding,
            Head::Lm | Head::LmValue => self.names.lm_head,
            Head::Score => self.names.score_head,
            Head::Value => self.names.value_head,
        }
    }

    /// The name of the weight of a value or score head.
    pub fn measuring_name(&self) -> Option<&'static str> {
        match self.head {
            Head::Lm => None,
            Head::Score => Some(self.names.score_head),
            Head::Value => Some(self.names.value_head),
            Head::LmValue => Some(VALUE_BESIDE),
        }
    }

    /// Every parameter's name and shape as files hold them, sorted by name.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (names, hidden) = (self.names, self.hidden_size);
        let mut all = self.head_parameters();
        all.push((format!("{}.weight", names.embedding), vec![self.vocab_size, hidden]));
        if self.learned_positions {
            all.push((format!("{}.weight", names.positions), vec![self.max_positions, hidden]));
        }
        let norm = |all: &mut Vec<(String, Vec<usize>)>, name: &str, width: usize| {
            if self.norm.biased() {
                all.push((format!("{name}.bias"), vec![width]));
            }
            all.push((format!("{name}.weight"), vec![width]));
        };
        norm(&mut all, names.norm, hidden);
        for (layer, block) in self.blocks.iter().enumerate() {
            for (slot, part) in block.parts(hidden) {
                if let Part::Norm { width } = part {
                    norm(&mut all, &names.in_layer(layer, slot), width);
                }
            }
            for linear in self.linears(layer) {
                if linear.bias {
                    all.push((format!("{}.bias", linear.name), vec![linear.outputs]));
                }
                all.push(linear.weight());
            }
        }
        all.sort();
        all
    }

    /// How many numbers the parameters hold together.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Modules that an adapter may target: `q_proj`, … in order of use.
    pub fn modules(&self) -> Vec<String> {
        self.linears(0).iter().map(|linear| linear.module().to_string()).collect()
    }
}
