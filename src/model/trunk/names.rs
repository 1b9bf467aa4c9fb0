//! Where a family keeps its weights: the names of a trunk's parts in the Hugging Face layout and in GGUF files.
//!
//! Owns no shapes: those follow from the blocks.

use super::block::{Layout, Slot};
use Slot::{
    AttentionNorm, AttentionOutNorm, Down, Gate, GateUp, Key, KeyNorm, MlpNorm, MlpOutNorm, Out, Query, QueryKeyValue,
    QueryNorm, Up, Value,
};

/// Names of one layout.
#[derive(Debug, PartialEq)]
pub struct Names {
    /// What every name of the trunk begins with; checkpoints of the trunk alone leave it out.
    pub base: &'static str,
    pub embedding: &'static str,
    /// Learned positions.
    pub positions: &'static str,
    pub layers: &'static str,
    /// Of a block's parts, relative to `layers.N.`; a layout may name more than a family has.
    pub slots: &'static [(Slot, &'static str)],
    pub norm: &'static str,
    pub lm_head: &'static str,
    /// The heads of classification models: one label per row, one label per token.
    pub score_head: &'static str,
    pub value_head: &'static str,
    pub layout: Layout,
}

impl Names {
    /// The name of a block's part relative to its layer; empty where the layout has none.
    pub fn of(&self, slot: Slot) -> &'static str {
        self.slots.iter().find(|(named, _)| *named == slot).map_or("", |(_, name)| name)
    }

    /// Where block `layer` keeps a part: `model.layers.0.input_layernorm`.
    pub fn in_layer(&self, layer: usize, slot: Slot) -> String {
        format!("{}.{layer}.{}", self.layers, self.of(slot))
    }
}

/// Llama and most others.
pub const LLAMA: Names = Names {
    base: "model.",
    embedding: "model.embed_tokens",
    positions: "",
    layers: "model.layers",
    slots: &[
        (AttentionNorm, "input_layernorm"),
        (Query, "self_attn.q_proj"),
        (Key, "self_attn.k_proj"),
        (Value, "self_attn.v_proj"),
        (QueryKeyValue, "self_attn.qkv_proj"),
        (QueryNorm, "self_attn.q_norm"),
        (KeyNorm, "self_attn.k_norm"),
        (Out, "self_attn.o_proj"),
        (MlpNorm, "post_attention_layernorm"),
        (Gate, "mlp.gate_proj"),
        (Up, "mlp.up_proj"),
        (GateUp, "mlp.gate_up_proj"),
        (Down, "mlp.down_proj"),
    ],
    norm: "model.norm",
    lm_head: "lm_head",
    score_head: "score",
    value_head: "score",
    layout: Layout::OutIn,
};

/// Those with norms behind attention and MLP: Gemma, OLMo 2.
pub const NORMS_AFTER: Names = Names {
    slots: &[
        (AttentionNorm, "input_layernorm"),
        (Query, "self_attn.q_proj"),
        (Key, "self_attn.k_proj"),
        (Value, "self_attn.v_proj"),
        (QueryNorm, "self_attn.q_norm"),
        (KeyNorm, "self_attn.k_norm"),
        (Out, "self_attn.o_proj"),
        (AttentionOutNorm, "post_attention_layernorm"),
        (MlpNorm, "pre_feedforward_layernorm"),
        (Gate, "mlp.gate_proj"),
        (Up, "mlp.up_proj"),
        (Down, "mlp.down_proj"),
        (MlpOutNorm, "post_feedforward_layernorm"),
    ],
    ..LLAMA
};

pub const GPT_NEOX: Names = Names {
    base: "gpt_neox.",
    embedding: "gpt_neox.embed_in",
    positions: "",
    layers: "gpt_neox.layers",
    slots: &[
        (AttentionNorm, "input_layernorm"),
        (QueryKeyValue, "attention.query_key_value"),
        (Out, "attention.dense"),
        (MlpNorm, "post_attention_layernorm"),
        (Up, "mlp.dense_h_to_4h"),
        (Down, "mlp.dense_4h_to_h"),
    ],
    norm: "gpt_neox.final_layer_norm",
    lm_head: "embed_out",
    score_head: "score",
    value_head: "classifier",
    layout: Layout::OutIn,
};

pub const GPT2: Names = Names {
    base: "transformer.",
    embedding: "transformer.wte",
    positions: "transformer.wpe",
    layers: "transformer.h",
    slots: &[
        (AttentionNorm, "ln_1"),
        (QueryKeyValue, "attn.c_attn"),
        (Out, "attn.c_proj"),
        (MlpNorm, "ln_2"),
        (Up, "mlp.c_fc"),
        (Down, "mlp.c_proj"),
    ],
    norm: "transformer.ln_f",
    lm_head: "lm_head",
    score_head: "score",
    value_head: "classifier",
    layout: Layout::InOut,
};

/// Whether any family calls a linear map of its layers that: `c_attn`.
pub fn is_linear(module: &str) -> bool {
    let all = [&LLAMA, &GPT_NEOX, &GPT2].into_iter().flat_map(|names| names.slots);
    let mut linears = all.filter(|(_, name)| !name.contains("norm") && !name.starts_with("ln_"));
    linears.any(|(_, name)| name.rsplit('.').next() == Some(module))
}

/// GGUF files, whatever the family.
pub const GGUF: Names = Names {
    base: "",
    embedding: "token_embd",
    positions: "",
    layers: "blk",
    slots: &[
        (AttentionNorm, "attn_norm"),
        (Query, "attn_q"),
        (Key, "attn_k"),
        (Value, "attn_v"),
        (QueryKeyValue, "attn_qkv"),
        (QueryNorm, "attn_q_norm"),
        (KeyNorm, "attn_k_norm"),
        (Out, "attn_output"),
        (AttentionOutNorm, "post_attention_norm"),
        (MlpNorm, "ffn_norm"),
        (Gate, "ffn_gate"),
        (Up, "ffn_up"),
        (GateUp, "ffn_up"),
        (Down, "ffn_down"),
        (MlpOutNorm, "post_ffw_norm"),
    ],
    norm: "output_norm",
    lm_head: "output",
    score_head: "",
    value_head: "",
    layout: Layout::OutIn,
};
