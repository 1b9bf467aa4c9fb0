//! Typed reading of `config.json`, key by key. A key that nobody asked for is refused if it changes how some family
//! computes; any other changes nothing, since transformers' class for the family does not read it, and is noted unless
//! it is a usual one.
//!
//! Owns the lists of those keys; which keys a family has is `families`' affair.

use super::Head;
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Keys that do not change how a decoder computes its logits; older files hold settings of sampling as well.
const WITHOUT_EFFECT: [&str; 89] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_from_model_config",
    "_model_name_or_path",
    "_name_or_path",
    "_num_labels",
    "architectures",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "chat_template",
    "chunk_size_feed_forward",
    "classifier_bias",
    "cls_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_composition",
    "is_decoder",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "mask_token_id",
    "max_length",
    "max_new_tokens",
    "max_window_layers",
    "min_length",
    "model_max_length",
    "model_type",
    "n_ctx",
    "name_or_path",
    "neftune_noise_alpha",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "reorder_and_upcast_attn",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "sliding_window",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_flash_attn",
    "use_return_dict",
    "vocab_file",
];

/// Keys of families and of features that are not computed here, where they are switched on: the file says that its
/// weights were trained with them.
const CHANGING: [&str; 43] = [
    "adapter_layers",
    "alibi",
    "attention_bias",
    "attention_chunk_size",
    "attention_multiplier",
    "attn_config",
    "attn_logit_softcapping",
    "attn_temperature_tuning",
    "clip_qkv",
    "compression_config",
    "cross_attention_layers",
    "decoder_sparse_step",
    "embedding_multiplier",
    "ffn_config",
    "final_logit_softcapping",
    "is_encoder_decoder",
    "kv_lora_rank",
    "layer_types",
    "logit_scale",
    "logits_scaling",
    "mlp_bias",
    "moe_intermediate_size",
    "mup_scale",
    "multi_query",
    "n_routed_experts",
    "new_decoder_architecture",
    "no_rope_layers",
    "num_experts",
    "num_experts_per_tok",
    "num_local_experts",
    "parallel_attn",
    "partial_rotary_factor",
    "qk_layernorm",
    "qkv_bias",
    "query_pre_attn_scalar",
    "residual_multiplier",
    "rope_scaling",
    "scale_depth",
    "scale_emb",
    "text_config",
    "use_alibi",
    "use_qk_norm",
    "vision_config",
];

/// Rates of dropout: they act in the reference's training mode alone, and rhopo trains without dropout.
const DROPOUT: [&str; 8] = [
    "attention_dropout",
    "attn_pdrop",
    "classifier_dropout",
    "embd_pdrop",
    "hidden_dropout",
    "resid_pdrop",
    "resid_dropout",
    "embedding_dropout",
];

/// The object of a `config.json` being read.
pub(super) struct Keys<'a> {
    map: &'a Map<String, Value>,
    asked: BTreeSet<&'static str>,
    notes: Vec<String>,
}

impl<'a> Keys<'a> {
    pub fn new(map: &'a Map<String, Value>) -> Self {
        Self { map, asked: BTreeSet::new(), notes: Vec::new() }
    }

    /// The value of a key; null counts as absent.
    pub fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.asked.insert(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A size that must be there.
    pub fn size(&mut self, key: &'static str) -> Result<usize> {
        self.optional_size(key)?.ok_or_else(|| {
            Error::model(format!("config.json has no `{key}`"))
                .hint("the file must hold the keys that transformers writes for its architecture")
        })
    }

    pub fn optional_size(&mut self, key: &'static str) -> Result<Option<usize>> {
        self.read(key, "a size", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    pub fn number(&mut self, key: &'static str) -> Result<Option<f64>> {
        self.read(key, "a number", Value::as_f64)
    }

    pub fn flag(&mut self, key: &'static str, default: bool) -> Result<bool> {
        Ok(self.read(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub fn text(&mut self, key: &'static str) -> Result<Option<&'a str>> {
        self.read(key, "a text", Value::as_str)
    }

    pub fn object(&mut self, key: &'static str) -> Result<Option<&'a Map<String, Value>>> {
        self.read(key, "an object", Value::as_object)
    }

    /// A size, null for none; `default` where the file leaves the key out.
    pub fn size_or(&mut self, key: &'static str, default: usize) -> Result<Option<usize>> {
        let found = self.optional_size(key)?;
        Ok(if self.map.contains_key(key) { found } else { Some(default) })
    }

    /// A positive number.
    pub fn positive(&mut self, key: &'static str, default: f64) -> Result<f64> {
        let found = self.number(key)?.unwrap_or(default);
        if found.is_finite() && found > 0.0 {
            return Ok(found);
        }
        Err(Error::model(format!("config.json: {key} is {found}, expected a positive number")))
    }

    /// A soft cap, null for none; `default` where the file leaves the key out.
    pub fn softcap(&mut self, key: &'static str, default: Option<f64>) -> Result<Option<f32>> {
        if self.value(key).is_none() {
            return Ok(if self.map.contains_key(key) { None } else { default.map(|by| by as f32) });
        }
        self.positive(key, 1.0).map(|by| Some(by as f32))
    }

    /// What the user should know about how a key was read.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// A key that must be null or left out.
    pub fn absent(&mut self, key: &'static str, supported: &str) -> Result<()> {
        match self.value(key) {
            None => Ok(()),
            Some(found) => Err(unsupported(key, &shown(found), supported)),
        }
    }

    /// One token id or several.
    pub fn ids(&mut self, key: &'static str) -> Result<Vec<u32>> {
        Ok(self.read(key, "a token id or a list of them", ids)?.unwrap_or_default())
    }

    /// A feature that must be switched off.
    pub fn off(&mut self, key: &'static str, supported: &str) -> Result<()> {
        match self.value(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(found) => Err(unsupported(key, &shown(found), supported)),
        }
    }

    /// Refuses what would change the numbers. Returns what to tell the user about what was read and is not applied.
    pub fn finish(self, head: Head) -> Result<Vec<String>> {
        let (mut dropped, mut unknown) = (Vec::new(), Vec::new());
        for (key, value) in self.map {
            if self.asked.contains(key.as_str()) || WITHOUT_EFFECT.contains(&key.as_str()) || is_off(value) {
                continue;
            }
            if DROPOUT.contains(&key.as_str()) {
                // A language model has no classifier to drop from.
                if !head.has(Head::Lm) || key != "classifier_dropout" {
                    dropped.push(format!("{key} {value}"));
                }
                continue;
            }
            if CHANGING.contains(&key.as_str()) {
                return Err(Error::model(format!(
                    "config.json: {key} = {} changes how a model computes, and is not supported for this family",
                    shown(value)
                ))
                .hint("remove the key if the model was not trained with it"));
            }
            unknown.push(key.as_str());
        }
        let mut notes = self.notes;
        if !unknown.is_empty() {
            notes.push(format!("config.json has keys that are not read here: {}", unknown.join(", ")));
        }
        if !dropped.is_empty() {
            notes.push(format!("trained without dropout, whatever config.json says ({})", dropped.join(", ")));
        }
        Ok(notes)
    }

    fn read<T>(&mut self, key: &'static str, want: &str, get: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        get(value)
            .map(Some)
            .ok_or_else(|| Error::model(format!("config.json: {key} is {}, expected {want}", shown(value))))
    }
}

/// One token id, or a list of them.
pub(super) fn ids(value: &Value) -> Option<Vec<u32>> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        // -1 stands for "none" in some published files.
        Value::Number(n) if n.as_i64() == Some(-1) => Some(Vec::new()),
        other => one(other).map(|id| vec![id]),
    }
}

pub(super) fn unsupported(key: &str, found: &str, supported: &str) -> Error {
    Error::model(format!("config.json: {key} {found} is not supported")).hint(format!("supported: {supported}"))
}

/// A value as errors show it: cut where it is long.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// A key that is unknown but switched off, or zero, asks for nothing.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
