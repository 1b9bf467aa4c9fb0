//! Special and added tokens that stand in other files than `tokenizer.json`, and end tokens that files name
//! differently.

use crate::common::{copied, edit_json};
use rhopo::error::Result;
use rhopo::gpu::Place;
use rhopo::model::Model;
use serde_json::{Value, json};
use std::path::Path;

fn open(dir: &Path) -> Result<Model> {
    Model::load(&rhopo::files::anywhere(dir), &Place::Host)
}

fn write(dir: &Path, name: &str, value: &Value) {
    std::fs::write(dir.join(name), value.to_string()).expect("written");
}

fn chat(model: &Model) -> String {
    model.chat.as_ref().expect("a template").render(&[json!({"role": "user", "content": "hi"})], false).expect("a chat")
}

#[test]
fn templates_see_tokens_of_older_files_and_of_the_tokenizers_class() {
    let around = "{{ bos_token }}[{{ messages[0].content }}]{{ eos_token }}";
    let dir = copied("qwen2");
    std::fs::write(dir.path().join("chat_template.jinja"), around).expect("written");
    write(dir.path(), "tokenizer_config.json", &json!({"tokenizer_class": "PreTrainedTokenizerFast"}));
    write(
        dir.path(),
        "special_tokens_map.json",
        &json!({"eos_token": "<|im_end|>", "bos_token": {"content": "<|im_start|>"}}),
    );
    assert_eq!(chat(&open(dir.path()).expect("opens")), "<|im_start|>[hi]<|im_end|>");
    let dir = copied("gpt2");
    std::fs::write(dir.path().join("chat_template.jinja"), around).expect("written");
    write(dir.path(), "tokenizer_config.json", &json!({"model_max_length": 1024}));
    assert_eq!(chat(&open(dir.path()).expect("opens")), "<|endoftext|>[hi]<|endoftext|>");
}

/// `qwen2` whose `tokenizer.json` ends at token 379, with a file that adds one.
fn added(name: &str, value: Value) -> Result<Model> {
    let dir = copied("qwen2");
    edit_json(dir.path(), "tokenizer.json", |file| {
        file["model"]["vocab"].as_object_mut().expect("tokens").retain(|_, id| id.as_u64() < Some(380));
        let known: Vec<String> = file["model"]["vocab"].as_object().expect("tokens").keys().cloned().collect();
        let holds = |token: &Value| {
            let parts: Vec<&str> = match token {
                Value::String(text) => text.split(' ').collect(),
                other => other.as_array().expect("a pair").iter().filter_map(Value::as_str).collect(),
            };
            known.contains(&parts.concat())
        };
        file["model"]["merges"].as_array_mut().expect("merges").retain(holds);
    });
    match name {
        "tokenizer_config.json" => edit_json(dir.path(), name, |config| config["added_tokens_decoder"] = value),
        name => write(dir.path(), name, &value),
    }
    open(dir.path())
}

#[test]
fn added_tokens_are_tokens_wherever_they_are_listed() {
    let token = json!({"content": "<|turn|>", "special": true, "lstrip": false, "rstrip": false, "normalized": false});
    for (name, value) in [
        ("added_tokens.json", json!({"<|turn|>": 380})),
        ("tokenizer_config.json", json!({"380": token, "2": {"content": "<|im_end|>", "special": true}})),
    ] {
        let model = added(name, value).expect("opens");
        let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
        assert_eq!(tokenizer.encode_special("<|turn|>").expect("ids"), [380], "{name}");
        assert_eq!(tokenizer.is_special(380), name == "tokenizer_config.json");
        assert_eq!(tokenizer.decode_special(&[380]), "<|turn|>");
    }
    let e = added("added_tokens.json", json!({"<|turn|>": 382})).expect_err("an id is left out");
    assert_eq!(e.what, "the added token \"<|turn|>\" has the id 382, but the next one after tokenizer.json's is 380");
}

#[test]
fn files_that_disagree_about_the_end_are_told_and_all_of_them_end_an_answer() {
    let dir = copied("qwen2");
    let agreed = open(dir.path()).expect("opens");
    assert_eq!((&agreed.eos[..], agreed.notes.len()), (&[2][..], 0));
    edit_json(dir.path(), "tokenizer_config.json", |config| config["eos_token"] = "<|endoftext|>".into());
    let model = open(dir.path()).expect("opens");
    assert_eq!(model.eos, [0, 2], "the tokenizer's own goes first: it is put after texts");
    assert_eq!(
        model.notes,
        [
            "the files name different end tokens: the tokenizer <|endoftext|>, the model <|im_end|>; each of them ends an \
          answer, and the tokenizer's is put after texts"
        ]
    );
}
