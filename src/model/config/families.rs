//! The families: one entry each, with the classes that transformers has for it and the function that turns its keys of
//! `config.json` into a trunk (`like_llama.rs`, `gpt.rs`). Defaults are those of transformers.

use super::keys::Keys;
use super::{gpt, like_llama};
use crate::error::{Error, Result};
use crate::model::trunk::names::LLAMA;
use crate::model::trunk::{Head, Norm, Trunk};
use serde_json::{Map, Value};

/// Most layers: far more than any model has, and few enough to list their parameters.
const MOST_LAYERS: usize = 4096;

/// A family of architectures that share their configuration's keys.
pub struct Family {
    /// The name in `model_type`.
    pub model_type: &'static str,
    /// The class names in transformers with each head that it has a class for; the first is the language model.
    classes: &'static [(Head, &'static str)],
    read: fn(&mut Keys) -> Result<Trunk>,
}

/// The classes of a family that has all heads under one prefix.
macro_rules! classes {
    ($prefix:literal) => {
        &[
            (Head::Lm, concat!($prefix, "ForCausalLM")),
            (Head::Score, concat!($prefix, "ForSequenceClassification")),
            (Head::Value, concat!($prefix, "ForTokenClassification")),
        ]
    };
}

pub static FAMILIES: [Family; 12] = [
    Family { model_type: "llama", classes: classes!("Llama"), read: like_llama::llama },
    Family { model_type: "qwen2", classes: classes!("Qwen2"), read: like_llama::qwen2 },
    Family { model_type: "qwen3", classes: classes!("Qwen3"), read: like_llama::qwen3 },
    Family { model_type: "mistral", classes: classes!("Mistral"), read: like_llama::mistral },
    Family { model_type: "gpt_neox", classes: classes!("GPTNeoX"), read: gpt::gpt_neox },
    Family {
        model_type: "gpt2",
        classes: &[
            (Head::Lm, "GPT2LMHeadModel"),
            (Head::Score, "GPT2ForSequenceClassification"),
            (Head::Value, "GPT2ForTokenClassification"),
        ],
        read: gpt::gpt2,
    },
    Family { model_type: "gemma2", classes: classes!("Gemma2"), read: like_llama::gemma2 },
    Family {
        model_type: "gemma3_text",
        classes: &[(Head::Lm, "Gemma3ForCausalLM"), (Head::Score, "Gemma3TextForSequenceClassification")],
        read: like_llama::gemma3,
    },
    Family { model_type: "phi3", classes: classes!("Phi3"), read: like_llama::phi3 },
    Family {
        model_type: "olmo2",
        classes: &[(Head::Lm, "Olmo2ForCausalLM"), (Head::Score, "Olmo2ForSequenceClassification")],
        read: like_llama::olmo2,
    },
    Family { model_type: "smollm3", classes: classes!("SmolLM3"), read: like_llama::smollm3 },
    Family { model_type: "granite", classes: &[(Head::Lm, "GraniteForCausalLM")], read: like_llama::granite },
];

impl Family {
    /// The class name in transformers of this family with that head.
    ///
    /// # Errors
    /// A head that transformers has no class for: what is saved could not be opened there.
    pub fn class(&self, head: Head) -> Result<&'static str> {
        let found = self.classes.iter().find(|(known, _)| *known == head || (*known == Head::Lm && head.has(Head::Lm)));
        found.map(|(_, name)| *name).ok_or_else(|| {
            let named = |&(_, name): &(Head, &'static str)| name;
            let all: Vec<&str> = self.classes.iter().map(named).collect();
            let head = if head == Head::Score { "score" } else { "value" };
            Error::model(format!("{} has no {head} head: transformers has no class for it", self.classes[0].1))
                .hint(format!("the family's classes: {}", all.join(", ")))
        })
    }
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.model_type)
    }
}

/// The language models that can be run.
pub fn architectures() -> Vec<&'static str> {
    FAMILIES.iter().map(|family| family.classes[0].1).collect()
}

/// The family of that `model_type`.
pub fn family(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.model_type == model_type)
}

/// Family and head, from `architectures` or else from `model_type`.
pub(super) fn identify(source: &Map<String, Value>) -> Result<(&'static Family, Head)> {
    let supported =
        || format!("supported: {} (and their classification heads of one label)", architectures().join(", "));
    let named = source.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    let model_type = source.get("model_type").and_then(Value::as_str);
    let refuse =
        |found: &str| Err(Error::model(format!("the architecture {found} is not supported")).hint(supported()));
    if let Some(name) = named {
        let all = || FAMILIES.iter().flat_map(|family| family.classes.iter().map(move |class| (family, class)));
        let Some((family, (head, _))) = all().find(|(_, (_, class))| *class == name) else { return refuse(name) };
        return match model_type {
            Some(kind) if kind != family.model_type => {
                Err(Error::model(format!("config.json: the architecture is {name}, but model_type is {kind}"))
                    .hint("both must name the same family"))
            }
            _ => Ok((family, *head)),
        };
    }
    match model_type {
        Some(kind) => family(kind).map_or_else(|| refuse(kind), |family| Ok((family, Head::Lm))),
        None => Err(Error::model("config.json names no architecture").hint(supported())),
    }
}

/// Reads the trunk from the keys of a `config.json` by its family's rules. It is not checked yet.
pub(super) fn read(family: &Family, head: Head, source: &Map<String, Value>, keys: &mut Keys) -> Result<Trunk> {
    if !head.has(Head::Lm) {
        one_label(source)?;
    }
    keys.off("quantization_config", "weights in f32, f16 or bf16; for quantised ones load_frozen reads GGUF files")?;
    Ok(Trunk { head, ..(family.read)(keys)? })
}

/// A trunk without anything that a family would have to ask for.
pub(super) const PLAIN: Trunk = Trunk {
    names: &LLAMA,
    vocab_size: 0,
    hidden_size: 0,
    max_positions: 0,
    embedding_scale: 1.0,
    learned_positions: false,
    rotations: Vec::new(),
    blocks: Vec::new(),
    norm: Norm::Layer { eps: 1e-5 },
    head: Head::Lm,
    tied: false,
    logit_scale: 1.0,
    logit_softcap: None,
};

pub(super) fn layers(keys: &mut Keys, key: &'static str) -> Result<usize> {
    let layers = keys.size(key)?;
    if (1..=MOST_LAYERS).contains(&layers) {
        return Ok(layers);
    }
    Err(Error::model(format!("config.json: {key} is {layers}, expected 1 to {MOST_LAYERS}")))
}

pub(super) fn divide(width: usize, heads: usize, width_key: &str, heads_key: &str) -> Result<usize> {
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
