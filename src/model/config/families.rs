//! The families: which keys of `config.json` each has, what they mean, and their defaults (those of transformers).

use super::keys::{Keys, shown, unsupported};
use super::layout::{GPT_NEOX, GPT2, LLAMA, Names};
use super::rope::{self, Rope};
use super::{Attention, Config, Head, Mlp, Norm, Position};
use crate::error::{Error, Result};
use crate::kernel::elementwise::Gelu;
use serde_json::{Map, Value};

/// Most layers: far more than any model has, and few enough to list their parameters.
const MOST_LAYERS: usize = 4096;

/// A family of architectures that share their configuration's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Llama,
    Qwen2,
    Qwen3,
    Mistral,
    GptNeox,
    Gpt2,
}

/// Family, `model_type`, and what class names begin with.
const FAMILIES: [(Family, &str, &str); 6] = [
    (Family::Llama, "llama", "Llama"),
    (Family::Qwen2, "qwen2", "Qwen2"),
    (Family::Qwen3, "qwen3", "Qwen3"),
    (Family::Mistral, "mistral", "Mistral"),
    (Family::GptNeox, "gpt_neox", "GPTNeoX"),
    (Family::Gpt2, "gpt2", "GPT2"),
];

impl Family {
    /// The class name in transformers of this family with that head.
    pub fn class(self, head: Head) -> String {
        let (.., prefix) = FAMILIES.iter().find(|(family, ..)| *family == self).expect("every family is listed");
        let suffix = match head {
            Head::Lm if self == Self::Gpt2 => "LMHeadModel",
            Head::Lm => "ForCausalLM",
            Head::Score => "ForSequenceClassification",
            Head::Value => "ForTokenClassification",
        };
        format!("{prefix}{suffix}")
    }

    /// The name in `model_type`.
    pub fn model_type(self) -> &'static str {
        FAMILIES.iter().find(|(family, ..)| *family == self).expect("every family is listed").1
    }
}

/// The language models that can be run; each also with the heads of sequence and token classification.
pub fn architectures() -> Vec<String> {
    FAMILIES.iter().map(|(family, ..)| family.class(Head::Lm)).collect()
}

/// Family and head, from `architectures` or else from `model_type`.
pub(super) fn identify(source: &Map<String, Value>) -> Result<(Family, Head)> {
    let supported =
        || format!("supported: {} (and their classification heads of one label)", architectures().join(", "));
    let named = source.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    let model_type = source.get("model_type").and_then(Value::as_str);
    let refuse =
        |found: &str| Err(Error::model(format!("the architecture {found} is not supported")).hint(supported()));
    if let Some(name) = named {
        let heads = [Head::Lm, Head::Score, Head::Value];
        let all = FAMILIES.iter().flat_map(|(family, ..)| heads.map(|head| (*family, head)));
        let Some(found) = all.into_iter().find(|(family, head)| family.class(*head) == name) else {
            return refuse(name);
        };
        return match model_type {
            Some(kind) if kind != found.0.model_type() => {
                Err(Error::model(format!("config.json: the architecture is {name}, but model_type is {kind}"))
                    .hint("both must name the same family"))
            }
            _ => Ok(found),
        };
    }
    match model_type {
        Some(kind) => FAMILIES
            .iter()
            .find(|(_, model_type, _)| *model_type == kind)
            .map_or_else(|| refuse(kind), |(family, ..)| Ok((*family, Head::Lm))),
        None => Err(Error::model("config.json names no architecture").hint(supported())),
    }
}

/// Reads the object of a `config.json` by its family's rules. The result is not checked yet.
pub(super) fn read(source: &Map<String, Value>) -> Result<Config> {
    let (family, head) = identify(source)?;
    let mut keys = Keys::new(source);
    if head != Head::Lm {
        one_label(source)?;
    }
    keys.off("quantization_config", "weights in f32, f16 or bf16; for quantised ones load_frozen reads GGUF files")?;
    let mut config = match family {
        Family::Llama | Family::Qwen2 | Family::Qwen3 | Family::Mistral => llama_like(family, head, &mut keys)?,
        Family::GptNeox => gpt_neox(head, &mut keys)?,
        Family::Gpt2 => gpt2(head, &mut keys)?,
    };
    config.eos = keys.ids("eos_token_id")?;
    config.pad = keys.ids("pad_token_id")?.first().copied();
    config.unscored = config.pad;
    config.init_std = keys.number("initializer_range")?.unwrap_or(0.02);
    config.notes = keys.finish(head)?;
    config.source = source.clone();
    Ok(config)
}

/// A configuration with what all families share; sizes come from the caller.
fn blank(family: Family, head: Head, names: &'static Names) -> Config {
    Config {
        family,
        head,
        names,
        architecture: family.class(head),
        vocab_size: 0,
        hidden_size: 0,
        layers: 0,
        heads: 0,
        kv_heads: 0,
        head_dim: 0,
        intermediate_size: 0,
        position: Position::Learned,
        norm: Norm::Rms,
        norm_eps: 0.0,
        mlp: Mlp::SwiGlu,
        attention: Attention::Separate,
        qk_norm: false,
        parallel: false,
        tied: false,
        qkv_bias: false,
        out_bias: false,
        mlp_bias: false,
        windows: Vec::new(),
        max_positions: 0,
        eos: Vec::new(),
        pad: None,
        unscored: None,
        init_std: 0.02,
        notes: Vec::new(),
        source: Map::new(),
    }
}

/// Llama and those built like it: RMSNorm, rotary embedding, SwiGLU, separate projections.
fn llama_like(family: Family, head: Head, keys: &mut Keys) -> Result<Config> {
    let heads = keys.size("num_attention_heads")?;
    let hidden_size = keys.size("hidden_size")?;
    let kv_heads = match (keys.optional_size("num_key_value_heads")?, family) {
        (Some(n), _) => n,
        (None, Family::Mistral) => 8,
        (None, _) => heads,
    };
    let head_dim = match (keys.optional_size("head_dim")?, family) {
        (Some(dim), _) => dim,
        (None, Family::Qwen3) => 128,
        (None, _) => divide(hidden_size, heads, "hidden_size", "num_attention_heads")?,
    };
    let layers = layers(keys, "num_hidden_layers")?;
    let (positions, attention_bias) = match family {
        Family::Llama => (2048, keys.flag("attention_bias", false)?),
        Family::Qwen3 => (32768, keys.flag("attention_bias", false)?),
        Family::Mistral => (131_072, false),
        _ => (32768, false),
    };
    match keys.text("hidden_act")? {
        None | Some("silu" | "swish") => {}
        Some(other) => return Err(unsupported("hidden_act", &format!("`{other}`"), "`silu`")),
    }
    let rope = rope::read(keys, "rope_theta", "partial_rotary_factor", 1.0)?;
    Ok(Config {
        vocab_size: keys.size("vocab_size")?,
        hidden_size,
        layers,
        heads,
        kv_heads,
        head_dim,
        intermediate_size: keys.size("intermediate_size")?,
        position: rotary(rope, head_dim),
        norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
        qk_norm: family == Family::Qwen3,
        tied: keys.flag("tie_word_embeddings", false)?,
        qkv_bias: attention_bias || family == Family::Qwen2,
        out_bias: attention_bias,
        mlp_bias: if family == Family::Llama { keys.flag("mlp_bias", false)? } else { false },
        windows: windows(family, keys, layers)?,
        max_positions: keys.optional_size("max_position_embeddings")?.unwrap_or(positions),
        ..blank(family, head, &LLAMA)
    })
}

/// GPT-NeoX and Pythia: LayerNorm, partial rotary embedding, GELU, attention and MLP side by side.
fn gpt_neox(head: Head, keys: &mut Keys) -> Result<Config> {
    let (heads, hidden_size) = (keys.size("num_attention_heads")?, keys.size("hidden_size")?);
    let head_dim = divide(hidden_size, heads, "hidden_size", "num_attention_heads")?;
    let layers = layers(keys, "num_hidden_layers")?;
    let rope = rope::read(keys, "rotary_emb_base", "rotary_pct", 0.25)?;
    let bias = keys.flag("attention_bias", true)?;
    Ok(Config {
        vocab_size: keys.size("vocab_size")?,
        hidden_size,
        layers,
        heads,
        kv_heads: heads,
        head_dim,
        intermediate_size: keys.size("intermediate_size")?,
        position: rotary(rope, head_dim),
        norm: Norm::Layer,
        norm_eps: keys.number("layer_norm_eps")?.unwrap_or(1e-5),
        mlp: gelu("hidden_act", keys.text("hidden_act")?.unwrap_or("gelu"))?,
        attention: Attention::FusedByHead,
        parallel: keys.flag("use_parallel_residual", true)?,
        tied: keys.flag("tie_word_embeddings", false)?,
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: true,
        windows: vec![None; layers],
        max_positions: keys.optional_size("max_position_embeddings")?.unwrap_or(2048),
        ..blank(Family::GptNeox, head, &GPT_NEOX)
    })
}

/// GPT-2: LayerNorm, learned positions, GELU, weights stored `[in,out]`.
fn gpt2(head: Head, keys: &mut Keys) -> Result<Config> {
    let (heads, hidden_size) = (keys.size("n_head")?, keys.size("n_embd")?);
    let layers = layers(keys, "n_layer")?;
    let inner = keys.optional_size("n_inner")?;
    keys.off("scale_attn_by_inverse_layer_idx", "false")?;
    keys.off("add_cross_attention", "false (a decoder on its own)")?;
    if !keys.flag("scale_attn_weights", true)? {
        return Err(unsupported("scale_attn_weights", "false", "true"));
    }
    Ok(Config {
        vocab_size: keys.size("vocab_size")?,
        hidden_size,
        layers,
        heads,
        kv_heads: heads,
        head_dim: divide(hidden_size, heads, "n_embd", "n_head")?,
        intermediate_size: inner.unwrap_or(hidden_size.saturating_mul(4)),
        norm: Norm::Layer,
        norm_eps: keys.number("layer_norm_epsilon")?.unwrap_or(1e-5),
        mlp: gelu("activation_function", keys.text("activation_function")?.unwrap_or("gelu_new"))?,
        attention: Attention::Fused,
        tied: keys.flag("tie_word_embeddings", true)?,
        qkv_bias: true,
        out_bias: true,
        mlp_bias: true,
        windows: vec![None; layers],
        max_positions: keys.optional_size("n_positions")?.unwrap_or(1024),
        ..blank(Family::Gpt2, head, &GPT2)
    })
}

fn layers(keys: &mut Keys, key: &'static str) -> Result<usize> {
    let layers = keys.size(key)?;
    if (1..=MOST_LAYERS).contains(&layers) {
        return Ok(layers);
    }
    Err(Error::model(format!("config.json: {key} is {layers}, expected 1 to {MOST_LAYERS}")))
}

/// How far back each layer sees.
fn windows(family: Family, keys: &mut Keys, layers: usize) -> Result<Vec<Option<usize>>> {
    let size = keys.optional_size("sliding_window")?;
    let (size, from) = match family {
        // transformers' default, for files that leave the key out; null switches the window off.
        Family::Mistral if !keys.has("sliding_window") => (Some(4096), 0),
        Family::Mistral => (size, 0),
        Family::Qwen2 | Family::Qwen3 if keys.flag("use_sliding_window", false)? => {
            (size, keys.optional_size("max_window_layers")?.unwrap_or(28))
        }
        _ => (None, 0),
    };
    let Some(types) = keys.value("layer_types") else {
        return Ok((0..layers).map(|layer| size.filter(|_| layer >= from)).collect());
    };
    let kinds = "one of `full_attention` and `sliding_attention` for each layer";
    let types = types.as_array().filter(|types| types.len() == layers).ok_or_else(|| {
        Error::model(format!("config.json: layer_types is {}, expected a list of {layers}", shown(types))).hint(kinds)
    })?;
    let one = |kind: &Value| match (kind.as_str(), size) {
        (Some("full_attention"), _) => Ok(None),
        (Some("sliding_attention"), Some(size)) => Ok(Some(size)),
        (Some("sliding_attention"), None) => {
            Err(Error::model("config.json: layer_types has `sliding_attention`, but there is no sliding_window")
                .hint("give sliding_window a size (and use_sliding_window true, where the family has it)"))
        }
        _ => Err(unsupported("layer_types", &format!("`{}`", kind.as_str().unwrap_or("?")), kinds)),
    };
    types.iter().map(one).collect()
}

fn rotary(rope: Rope, head_dim: usize) -> Position {
    let dims = (head_dim as f64 * rope.share) as usize;
    Position::Rotary { dims, rope }
}

fn gelu(key: &str, name: &str) -> Result<Mlp> {
    match name {
        "gelu" | "gelu_python" => Ok(Mlp::Gelu(Gelu::Exact)),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Mlp::Gelu(Gelu::Tanh)),
        other => Err(unsupported(key, &format!("`{other}`"), "`gelu`, `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`")),
    }
}

fn divide(width: usize, heads: usize, width_key: &str, heads_key: &str) -> Result<usize> {
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(Error::model(format!("config.json: {width_key} {width} is not a multiple of {heads_key} {heads}"))
            .hint("give head_dim where the heads do not divide the width"));
    }
    Ok(width / heads)
}

/// Classification heads must have one label: a number per row or per token.
fn one_label(source: &Map<String, Value>) -> Result<()> {
    let listed = source.get("id2label").and_then(Value::as_object).map(Map::len);
    let stated = source.get("num_labels").and_then(Value::as_u64).map(|n| n as usize);
    // transformers takes two where nothing is said.
    match listed.or(stated).unwrap_or(2) {
        1 => Ok(()),
        n => Err(Error::model(format!("config.json: a classification head of {n} labels is not supported"))
            .hint("supported: one label, which is the score of a row or the value of a token")),
    }
}
