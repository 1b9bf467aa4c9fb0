//! A chat template: it renders a dialogue within its fuel, or says what is wrong.
#![no_main]

use rhopo::model::chat::ChatTemplate;
use serde_json::json;
use std::collections::BTreeMap;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let tokens = BTreeMap::from([("bos_token".to_string(), "<s>".to_string()), ("eos_token".into(), "</s>".into())]);
    let messages = [
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "What is 1 + 1?\n"}),
        json!({"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [1.5, null]}}}]}),
        json!({"role": "tool", "content": "2"}),
    ];
    let template = ChatTemplate::from_text("chat_template.jinja", text, tokens);
    let _ = template.render(&messages[..2], true);
    let _ = template.render(&messages, false);
});
