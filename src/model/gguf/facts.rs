//! What a GGUF file's metadata says about the decoder in it.
//!
//! Owns the architectures that are supported and the refusal of everything that would change the numbers without
//! being computed here.

use super::file::File;
use crate::error::{Error, Result};
use crate::kernel::attention::Heads;
use crate::kernel::rotary::Scaling;

/// Layers, heads and widths at most: far beyond any model, and small enough to multiply.
const MOST: usize = 1 << 24;

/// What differs between the decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama, Mistral and whatever else is stored as one. Its query and key rows are stored with the two halves of a
    /// head interleaved.
    Llama,
    Qwen2,
    /// With a norm over each head's query and key.
    Qwen3,
}

const ARCHITECTURES: [(&str, Architecture); 3] =
    [("llama", Architecture::Llama), ("qwen2", Architecture::Qwen2), ("qwen3", Architecture::Qwen3)];

/// Keys that ask for arithmetic which is not here, each with the value at which it does nothing.
const REFUSED: [(&str, f64); 7] = [
    ("expert_count", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.scale", 0.0),
    ("logit_scale", 1.0),
    ("residual_scale", 1.0),
    ("embedding_scale", 1.0),
];

/// The decoder's facts.
#[derive(Debug, Clone)]
pub struct Facts {
    pub architecture: Architecture,
    /// As the file spells it.
    pub family: String,
    pub layers: usize,
    /// H
    pub width: usize,
    pub heads: Heads,
    /// Width of the MLP.
    pub inner: usize,
    /// V: rows of the embedding.
    pub vocabulary: usize,
    /// Tokens of a row at most.
    pub context: usize,
    pub eps: f64,
    pub theta: f64,
    pub scaling: Scaling,
}

impl Facts {
    pub fn read(file: &File) -> Result<Self> {
        let family = file.require("general.architecture", file.text("general.architecture")?)?;
        let names = ARCHITECTURES.map(|(name, _)| name);
        let Some(&(_, architecture)) = ARCHITECTURES.iter().find(|(name, _)| *name == family) else {
            return Err(file
                .wrong(format!("the architecture `{family}` is not supported"))
                .hint(format!("supported in GGUF files: {}", names.join(", "))));
        };
        if file.count("split.count")?.is_some_and(|parts| parts > 1) {
            return Err(file
                .wrong("the model is split over several files")
                .hint("join them with `llama-gguf-split --merge`"));
        }
        let key = |name: &str| format!("{family}.{name}");
        let count = |name: &str| -> Result<Option<usize>> {
            let value = file.count(&key(name))?;
            match value.filter(|n| !(1..=MOST).contains(n)) {
                Some(n) => Err(file.wrong(format!("`{}` is {n}, expected 1 to {MOST}", key(name)))),
                None => Ok(value),
            }
        };
        let required = |name: &str| file.require(&key(name), count(name)?);
        for (name, nothing) in REFUSED {
            if let Some(value) = file.number(&key(name))?.filter(|&v| v != 0.0 && v != nothing) {
                return Err(file.wrong(format!("`{}` is {value}, which is not supported", key(name))));
            }
        }
        if file.flag(&key("attention.causal"))? == Some(false) {
            return Err(file.wrong("attention is not causal: the model does not continue texts"));
        }
        let (width, query) = (required("embedding_length")?, required("attention.head_count")?);
        let dim = count("attention.key_length")?.unwrap_or(width / query);
        let heads = Heads {
            window: window(file, architecture, &key("attention.sliding_window"))?,
            ..Heads::new(query, count("attention.head_count_kv")?.unwrap_or(query), dim)
        };
        let consistent = query % heads.key == 0 && dim > 0 && dim % 2 == 0;
        let same = |name: &str| Ok::<_, Error>(count(name)?.is_none_or(|n| n == dim));
        if !consistent || !same("attention.value_length")? || !same("rope.dimension_count")? {
            return Err(file.wrong(format!(
                "{query} query heads, {} key heads, {dim} numbers per head: expected key heads that divide the query \
                 heads, and an even number per head for keys, values and rotation alike",
                heads.key
            )));
        }
        let embedding = file.dims("token_embd.weight");
        let vocabulary = match embedding {
            Some(&[rows, _]) => rows,
            _ => return Err(file.wrong("the tensor token_embd.weight is missing, or is no matrix")),
        };
        let eps_key = key("attention.layer_norm_rms_epsilon");
        let eps = file.require(&eps_key, file.number(&eps_key)?)?;
        let theta = file.number(&key("rope.freq_base"))?.unwrap_or(1e4);
        if !(eps.is_finite() && eps >= 0.0 && theta.is_finite() && theta > 0.0) {
            return Err(file.wrong(format!("{eps_key} is {eps} and {} is {theta}", key("rope.freq_base"))));
        }
        Ok(Self {
            architecture,
            layers: required("block_count")?,
            width,
            heads,
            inner: required("feed_forward_length")?,
            vocabulary,
            context: required("context_length")?,
            eps,
            theta,
            scaling: scaling(file, family)?,
            family: family.into(),
        })
    }
}

/// Mistral's sliding window, in files that are stored as llama. A window of Qwen's would not cover all layers.
fn window(file: &File, architecture: Architecture, key: &str) -> Result<Option<usize>> {
    let window = file.count(key)?.filter(|&n| n > 0);
    if window.is_some() && architecture != Architecture::Llama {
        return Err(file.wrong(format!("`{key}` is set, which is not supported for this architecture")));
    }
    Ok(window)
}

fn scaling(file: &File, family: &str) -> Result<Scaling> {
    let key = |name: &str| format!("{family}.rope.{name}");
    let factor = match file.number(&key("scaling.factor"))? {
        Some(factor) => Some(factor),
        None => file.number(&key("scale_linear"))?,
    };
    let kind = file.text(&key("scaling.type"))?.unwrap_or(if factor.is_some() { "linear" } else { "none" });
    match (kind, factor) {
        ("none", _) => Ok(Scaling::None),
        ("linear", Some(factor)) if factor.is_finite() && factor > 0.0 => Ok(Scaling::Linear { factor }),
        ("linear", _) => Err(file.wrong(format!("`{}` is missing or no positive number", key("scaling.factor")))),
        _ => Err(file
            .wrong(format!("the rotary scaling `{kind}` is not supported"))
            .hint("supported in GGUF files: none, linear, and the factors of Llama 3")),
    }
}
