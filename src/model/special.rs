//! What a model's files say of its special and added tokens, in one `tokenizer_config.json`.
//!
//! Newer folders have all of it in that file. Older ones spread it over `special_tokens_map.json` and
//! `added_tokens.json`, and some leave out what the tokenizer's class knows. Owns no tokens: `tokenizer` finds their
//! ids.

use super::TOKENIZER_CONFIG;
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};

/// Named tokens that transformers reads from these files.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The tokens that a class has unless its files name others: begin, end, unknown, padding.
struct Class {
    names: &'static [&'static str],
    /// Types of models whose tokenizer is of this class where the file names none.
    models: &'static [&'static str],
    tokens: [Option<&'static str>; 4],
}

const END_OF_TEXT: Option<&str> = Some("<|endoftext|>");

const CLASSES: [Class; 5] = [
    Class { names: &["GPT2Tokenizer"], models: &["gpt2"], tokens: [END_OF_TEXT, END_OF_TEXT, END_OF_TEXT, None] },
    Class {
        names: &["GPTNeoXTokenizer"],
        models: &["gpt_neox"],
        tokens: [END_OF_TEXT, END_OF_TEXT, END_OF_TEXT, Some("<|padding|>")],
    },
    Class {
        names: &["Qwen2Tokenizer"],
        models: &["qwen2", "qwen3"],
        tokens: [None, END_OF_TEXT, END_OF_TEXT, END_OF_TEXT],
    },
    Class {
        names: &["LlamaTokenizer", "CodeLlamaTokenizer"],
        models: &[],
        tokens: [Some("<s>"), Some("</s>"), Some("<unk>"), None],
    },
    Class {
        names: &["GemmaTokenizer"],
        models: &["gemma2", "gemma3", "gemma3_text"],
        tokens: [Some("<bos>"), Some("<eos>"), Some("<unk>"), Some("<pad>")],
    },
];

/// `tokenizer_config.json` with what the other files and its class add to it. `read` gives a file of the model;
/// `model_type` is that of `config.json`.
///
/// # Errors
/// A file that is not valid JSON.
pub fn tokenizer_config(
    read: impl Fn(&str) -> Result<Option<Vec<u8>>>,
    model_type: Option<&str>,
) -> Result<Option<Vec<u8>>> {
    let object = |name: &str| -> Result<Option<Map<String, Value>>> {
        let Some(bytes) = read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::model(format!("{name} could not be read: {e}")))
    };
    let (found, named, added) =
        (object(TOKENIZER_CONFIG)?, object("special_tokens_map.json")?, object("added_tokens.json")?);
    if found.is_none() && named.is_none() && added.is_none() {
        return Ok(None);
    }
    let mut config = found.unwrap_or_default();
    // As transformers: a file that lists its added tokens was written after the others had gone out of use.
    if !config.contains_key("added_tokens_decoder") {
        config.extend(named.unwrap_or_default());
        let special: Vec<String> = NAMES.iter().filter_map(|name| spelling(config.get(*name)?)).collect();
        let extra = ["additional_special_tokens", "extra_special_tokens"].into_iter().filter_map(|key| config.get(key));
        let extra: Vec<String> = extra.filter_map(Value::as_array).flatten().filter_map(spelling).collect();
        let entry = |(token, id): (String, Value)| {
            let special = special.contains(&token) || extra.contains(&token);
            (id.to_string(), json!({"content": token, "normalized": !special, "special": special}))
        };
        let decoder: Map<String, Value> = added.unwrap_or_default().into_iter().map(entry).collect();
        if !decoder.is_empty() {
            config.insert("added_tokens_decoder".into(), decoder.into());
        }
    }
    let class = config.get("tokenizer_class").and_then(Value::as_str).map(|name| name.trim_end_matches("Fast"));
    let of_class = CLASSES.iter().find(|known| match class {
        Some(class) => known.names.contains(&class),
        None => model_type.is_some_and(|model| known.models.contains(&model)),
    });
    let usual = of_class.into_iter().flat_map(|class| NAMES_OF_CLASSES.into_iter().zip(class.tokens));
    for (name, token) in usual {
        if let Some(token) = token.filter(|_| !config.contains_key(name)) {
            // The file may be of a model without it: whoever looks for its id must not count on one.
            config.insert(name.into(), json!({"content": token, "usual": true}));
        }
    }
    Ok(Some(serde_json::to_vec(&config).expect("JSON is written without failure")))
}

/// Those of [`Class::tokens`].
const NAMES_OF_CLASSES: [&str; 4] = ["bos_token", "eos_token", "unk_token", "pad_token"];

/// A token as a text, or as an object with `content`.
pub fn spelling(token: &Value) -> Option<String> {
    token.get("content").unwrap_or(token).as_str().map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(files: &[(&str, Value)], model_type: Option<&str>) -> Value {
        let read =
            |name: &str| Ok(files.iter().find(|(file, _)| *file == name).map(|(_, v)| v.to_string().into_bytes()));
        let bytes = tokenizer_config(read, model_type).expect("JSON").expect("a file");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[test]
    fn older_files_are_read_unless_a_newer_one_lists_its_tokens() {
        let map = json!({"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>"});
        let added = json!({"<turn>": 7, "</s>": 2});
        let config = json!({"eos_token": "<other>", "model_max_length": 9});
        let files =
            [(TOKENIZER_CONFIG, config.clone()), ("special_tokens_map.json", map), ("added_tokens.json", added)];
        let found = merged(&files, None);
        assert_eq!((&found["eos_token"], &found["bos_token"]["content"]), (&json!("</s>"), &json!("<s>")));
        let turn = json!({"content": "<turn>", "normalized": true, "special": false});
        let end = json!({"content": "</s>", "normalized": false, "special": true});
        assert_eq!(found["added_tokens_decoder"], json!({"7": turn, "2": end}));
        let newer = json!({"eos_token": "<other>", "added_tokens_decoder": {}});
        let files = [(TOKENIZER_CONFIG, newer.clone()), files[1].clone(), files[2].clone()];
        assert_eq!(merged(&files, None), newer);
    }

    #[test]
    fn a_class_has_its_own_tokens() {
        let usual = |token: &str| json!({"content": token, "usual": true});
        let found = merged(&[(TOKENIZER_CONFIG, json!({"unk_token": null}))], Some("gpt2"));
        let end = usual("<|endoftext|>");
        assert_eq!(found, json!({"unk_token": null, "bos_token": end, "eos_token": end}));
        let found = merged(&[(TOKENIZER_CONFIG, json!({"tokenizer_class": "LlamaTokenizerFast"}))], Some("gpt2"));
        assert_eq!((&found["bos_token"], &found["eos_token"]), (&usual("<s>"), &usual("</s>")));
        let found = merged(&[(TOKENIZER_CONFIG, json!({"tokenizer_class": "PreTrainedTokenizerFast"}))], Some("gpt2"));
        assert_eq!(found, json!({"tokenizer_class": "PreTrainedTokenizerFast"}));
    }
}
