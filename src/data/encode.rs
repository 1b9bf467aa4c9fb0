//! Rows from given texts or token ids, rather than sampled ones.

use super::batch::Batch;
use super::prompts::Prompts;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::rows::{Row, Rows};
use crate::tensor::Device;
use serde_json::{Map, Value};

/// A prompt with the completion to learn from; `fields` become list columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Demo {
    pub prompt: String,
    pub completion: String,
    pub fields: Map<String, Value>,
}

/// Rows of prompt and completion, the model's end token after each completion. Columns: `mask` (the completion and
/// its end token), `length`, `text`, `prompt`, and the demonstrations' fields.
pub fn encode(model: &Model, demos: &[Demo]) -> Result<Batch> {
    let tokenizer = model.require_tokenizer("encode")?;
    let end = *model.config.eos.first().ok_or_else(|| {
        Error::model(format!("encode: the model {} has no end token to put after completions", model.name))
            .hint("name it as eos_token_id in config.json or generation_config.json")
    })?;
    let prompts = Prompts {
        items: demos
            .iter()
            .map(|demo| super::Prompt { text: demo.prompt.clone(), fields: demo.fields.clone() })
            .collect(),
    };
    let mut rows = Vec::with_capacity(demos.len());
    for (prompt, demo) in prompts.encode(tokenizer)?.into_iter().zip(demos) {
        let mut completion = tokenizer.encode(&demo.completion)?;
        completion.push(end);
        rows.push(Row { prompt: prompt.into(), completion: completion.into() });
    }
    let mut batch = Batch::new(Rows::new(rows), 1.0, model.device())?;
    batch.insert_list("text", demos.iter().map(|demo| demo.completion.clone().into()).collect());
    batch.insert_fields(&prompts, 1)?;
    Ok(batch)
}

/// Rows of token ids as they are; nothing is added. Columns: `mask` and `length`.
pub fn encode_ids(prompts: Vec<Vec<u32>>, completions: Vec<Vec<u32>>, device: &Device) -> Result<Batch> {
    if prompts.len() != completions.len() {
        return Err(Error::shape(format!(
            "encode_ids: {} prompts, but {} completions",
            prompts.len(),
            completions.len()
        )));
    }
    if let Some(i) = prompts.iter().position(Vec::is_empty) {
        return Err(Error::value(format!("encode_ids: prompt {i} has no tokens"))
            .hint("a model needs at least one token to begin from"));
    }
    let row = |(prompt, completion): (Vec<u32>, Vec<u32>)| Row { prompt: prompt.into(), completion: completion.into() };
    Batch::new(Rows::new(prompts.into_iter().zip(completions).map(row).collect()), 1.0, device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::rng::Key;

    fn demo(prompt: &str, completion: &str) -> Demo {
        let fields = Map::from_iter([("answer".to_string(), completion.into())]);
        Demo { prompt: prompt.into(), completion: completion.into(), fields }
    }

    #[test]
    fn completions_end_with_the_end_token_and_are_masked() {
        let model = Model::builtin_random("tiny", Key::new(0), &Device::Cpu).expect("tiny");
        let b = encode(&model, &[demo("1+2=", "3"), demo("5+7=", "12")]).expect("encodes");
        let rows = b.rows().expect("tokens");
        let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
        assert_eq!(rows[1].completion[..], [tokenizer.encode("12").expect("ids"), vec![1]].concat());
        assert_eq!(rows[0].prompt[..], tokenizer.encode("1+2=").expect("ids"));
        assert_eq!(b.tensor("mask").and_then(|m| m.to_rows()).expect("rows"), [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]);
        assert_eq!(b.names(), ["answer", "length", "mask", "prompt", "text"]);
        let e = encode(&model, &[demo("", "3")]).expect_err("nothing to begin from");
        assert_eq!(e.what, "prompt 0 has no tokens: its text is \"\"");
        assert_eq!(encode(&model, &[]).expect_err("no rows").what, "a batch needs at least one row");
    }

    #[test]
    fn ids_are_taken_as_they_are() {
        let b = encode_ids(vec![vec![5], vec![6, 7]], vec![vec![1, 2], vec![]], &Device::Cpu).expect("encodes");
        assert_eq!(b.tensor("length").and_then(|m| m.to_vec()).expect("numbers"), [2.0, 0.0]);
        let e = encode_ids(vec![vec![1]], vec![], &Device::Cpu).expect_err("one is missing");
        assert_eq!(e.what, "encode_ids: 1 prompts, but 0 completions");
    }
}
