//! Rows from texts and messages: where prompt and answer part, tools and template variables of a row, the order of
//! maps, answers that are tool calls, contents in parts, and rows that are too long. Ids and texts are those of
//! transformers.

use crate::common::{copied, edit_json, fixtures, host};
use rhai::Dynamic;
use rhopo::data::encode::encode;
use rhopo::data::max_length::MaxLength;
use rhopo::data::{Batch, Content, Demo, Prompt, Prompts};
use rhopo::gpu::Place;
use rhopo::model::rows::Row;
use rhopo::model::{ChatTemplate, Model, Tokenizer};
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::value::to_json;
use rhopo::tensor::rng::Key;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

/// What ChatML templates do, with tools before the messages and tool calls as JSON.
const TOOLED: &str = "{% if tools %}TOOLS{% for t in tools %} {{ t | tojson }}{% endfor %}\n{% endif %}\
    {%- for m in messages %}<|im_start|>{{ m.role }}\n\
    {% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}\
    {% elif m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}\
    <|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% if think %}<think>\n{% endif %}{% endif %}";

/// A folder with `qwen2` under that template, and a file of data.
fn folder(template: &str, data: &str) -> tempfile::TempDir {
    let dir = copied("qwen2");
    std::fs::write(dir.path().join("chat_template.jinja"), template).expect("written");
    std::fs::write(dir.path().join("d.jsonl"), data).expect("written");
    dir
}

/// A script's last value; `m` is the model of the folder, and `DIR` the folder.
fn eval(dir: &Path, text: &str) -> Result<Dynamic, String> {
    let text = format!("let m = load_model(\"DIR\");\n{text}").replace("DIR", &dir.display().to_string());
    let value = host().eval(&Source { label: "encoding.rhai".into(), text });
    value.map_err(|e| e.message.replace(&format!("{}/", dir.display()), ""))
}

/// Prompt and completion of each row of a batch, special tokens written out.
fn rows(dir: &Path, text: &str) -> Vec<(String, String)> {
    let batch = eval(dir, text).expect("a batch").cast::<Batch>();
    let file = |name: &str| std::fs::read(dir.join(name)).expect("a file");
    let tokenizer = Tokenizer::from_bytes(&file("tokenizer.json"), Some(&file("tokenizer_config.json")));
    let tokenizer = tokenizer.expect("a tokenizer");
    let row = |row: &Row| (tokenizer.decode_special(&row.prompt), tokenizer.decode_special(&row.completion));
    batch.rows().expect("tokens").iter().map(row).collect()
}

#[test]
fn maps_keep_the_order_of_the_file_through_scripts() {
    let called = json!({"prompt": [
        {"role": "user", "content": "w"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": {"zoo": 1, "apple": 2}}}]},
        {"role": "tool", "content": "9"}], "completion": [{"role": "assistant", "content": "ok"}]});
    let dir = folder(TOOLED, &called.to_string());
    let expected = "<|im_start|>user\nw<|im_end|>\n<|im_start|>assistant\n{\"name\": \"f\", \"arguments\": {\"zoo\": 1, \
                    \"apple\": 2}}<|im_end|>\n<|im_start|>tool\n9<|im_end|>\n<|im_start|>assistant\n";
    let data = "let d = load_data(\"DIR/d.jsonl\");";
    for batch in [
        "encode(m, d.demos(1))",
        "sample(m, d.prompts(1), #{ max_tokens: 1 })",
        // Rows that a script has had in its hands, and a batch's own columns.
        "encode(m, d.rows(1).map(|row| { row.extra = 1; row }))",
        "let b = encode(m, d.demos(1)); encode(m, [#{ prompt: b.prompt[0], completion: \"ok\" }])",
        "let row = d.rows(1)[0]; let seen = || row; encode(m, [seen.call()])",
        "encode(m, [parse_json(d.rows(1)[0].to_json())])",
    ] {
        let found = rows(dir.path(), &format!("{data} {batch}"));
        assert_eq!(found[0].0, expected, "{batch}");
    }
    let read = |text: &str| {
        let map = r#"let r = parse_json(`{"z": {"y": 1, "b": 2}, "a": [{"d": 0, "c": 0}]}`);"#;
        to_json(&eval(dir.path(), &format!("{map} {text}")).expect("a value"))
    };
    assert_eq!(read("r.keys()"), json!(["z", "a"]));
    assert_eq!(read("r.z.values()"), json!([1, 2]));
    assert_eq!(read("`${r}`"), json!(r##"#{"z": #{"y": 1, "b": 2}, "a": [#{"d": 0, "c": 0}]}"##));
    assert_eq!(read("r.to_json()"), json!(r#"{"z":{"y":1,"b":2},"a":[{"d":0,"c":0}]}"#));
    assert_eq!(read("type_of(r) == \"map\" && \"z\" in r && r.len() == 2 && r == r + #{}"), json!(true));
}

#[test]
fn whole_numbers_keep_all_their_digits() {
    let dir = folder(TOOLED, "\u{feff}\n\n{\"prompt\": \"a\", \"id\": 18446744073709551615}\n");
    let row = "let r = load_data(\"DIR/d.jsonl\", #{ shuffle: false }).rows(1)[0];";
    let read = |text: &str| to_json(&eval(dir.path(), &format!("{row} {text}")).expect("a value")).to_string();
    assert_eq!(read("`${r.id}`"), "\"18446744073709551615\"");
    assert_eq!(read("r"), r#"{"prompt":"a","id":18446744073709551615}"#);
    assert_eq!(read("parse_json(\"[9223372036854775808, -1]\")"), "[9223372036854775808,-1]");
    let beyond = folder(TOOLED, "{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"id\": 18446744073709551616}\n");
    assert_eq!(
        eval(beyond.path(), "load_data(\"DIR/d.jsonl\")").expect_err("too many digits"),
        "d.jsonl, line 2: the whole number 18446744073709551616 has more digits than can be kept"
    );
    let list = folder(TOOLED, "\u{feff}\n\n[{\"prompt\": \"a\"}, {\"prompt\": 3}]");
    assert_eq!(
        eval(list.path(), "load_data(\"DIR/d.jsonl\")").expect_err("a prompt that is a number"),
        "d.jsonl, row 2: `prompt` must be a text or an array of messages, found the number 3"
    );
}

#[test]
fn templates_read_the_tools_and_the_variables_of_a_row() {
    let function = json!({"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}});
    let tool = json!({"type": "function", "function": function});
    let row = |more: Value| {
        let ask = json!([{"role": "user", "content": "hi"}]);
        let mut row = json!({"prompt": ask, "completion": [{"role": "assistant", "content": "ok"}]});
        row.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        row.to_string() + "\n"
    };
    let as_text = Value::from(vec![tool.clone()]).to_string();
    let more = [
        json!({"tools": [tool]}),
        json!({"tools": as_text}),
        json!({"tools": []}),
        json!({"tools": null, "chat_template_kwargs": {"think": true}}),
    ];
    let dir = folder(TOOLED, &more.map(row).concat());
    let plain = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
    let tooled = format!(
        "TOOLS {{\"type\": \"function\", \"function\": {{\"name\": \"f\", \"description\": \"d\", \"parameters\": \
         {{\"type\": \"object\", \"properties\": {{}}}}}}}}{plain}"
    );
    let load = "let d = load_data(\"DIR/d.jsonl\", #{ shuffle: false });";
    let prompts = |text: &str| -> Vec<String> {
        rows(dir.path(), &format!("{load} {text}")).into_iter().map(|(prompt, _)| prompt).collect()
    };
    assert_eq!(prompts("encode(m, d.demos(4))"), [&tooled, &tooled, plain, plain]);
    // The whole dialogue has no thoughts, so a row's prompt ends where sampling would begin to think.
    let thinking = format!("{plain}<think>\n");
    assert_eq!(prompts("sample(m, d.prompts(4), #{ max_tokens: 1 })"), [&tooled, &tooled, plain, &thinking]);
    let wrong = folder(TOOLED, &row(json!({"tools": 3})));
    assert_eq!(
        eval(wrong.path(), &format!("{load} encode(m, d.demos(1))")).expect_err("no tools"),
        "encode: row 0: the field `tools` must be an array of tools, or its JSON text, found the number 3"
    );
}

#[test]
fn answers_may_be_tool_calls() {
    let user = json!({"role": "user", "content": "hi"});
    let calls = json!([{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]);
    let said = "{\"name\": \"f\", \"arguments\": {\"x\": 1}}<|im_end|>";
    let answer = json!({"role": "assistant", "content": "", "tool_calls": calls});
    let dir = folder(TOOLED, &json!({"messages": [user, answer]}).to_string());
    let found = rows(dir.path(), "encode(m, load_data(\"DIR/d.jsonl\").demos(1))");
    assert_eq!(found, [("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n".to_string(), said.to_string())]);
    let chosen = json!([{"role": "assistant", "tool_calls": calls}]);
    let pair = json!({"prompt": [user], "chosen": chosen, "rejected": [{"role": "assistant", "content": "no"}]});
    let dir = folder(TOOLED, &pair.to_string());
    let found = rows(dir.path(), "encode_pairs(m, load_data(\"DIR/d.jsonl\").pairs(1))");
    assert_eq!(found.iter().map(|row| row.1.as_str()).collect::<Vec<_>>(), [said, "no<|im_end|>"]);
    for call in [json!({"role": "assistant", "tool_calls": calls}), {
        let mut null = answer.clone();
        null["content"] = Value::Null;
        null
    }] {
        let tail = [call, json!({"role": "tool", "content": "1"}), json!({"role": "assistant", "content": "ok"})];
        let messages: Vec<Value> = [user.clone()].into_iter().chain(tail).collect();
        let dir = folder(TOOLED, &json!({"messages": messages}).to_string());
        let found = rows(dir.path(), "encode(m, load_data(\"DIR/d.jsonl\").demos(1))");
        assert_eq!(found[0].1, "ok<|im_end|>");
    }
}

#[test]
fn contents_may_be_parts() {
    let parts = json!([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]);
    let answer = json!({"role": "assistant", "content": [{"type": "text", "text": "ok"}]});
    let dir = folder(TOOLED, &json!({"messages": [{"role": "user", "content": parts}, answer]}).to_string());
    let found = rows(dir.path(), "encode(m, load_data(\"DIR/d.jsonl\").demos(1))");
    let asked = "<|im_start|>user\none two<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(found, [(asked.to_string(), "ok<|im_end|>".to_string())]);
    let shown = eval(dir.path(), "`${load_data(\"DIR/d.jsonl\").prompts(1)}`").expect("a text").to_string();
    assert_eq!(shown, "Prompts(1, the first \"one two\")");
    let array = "must be a text or an array of parts, found";
    for (message, what) in [
        (json!({"role": "assistant", "content": ""}), "the last answer in `messages` is empty".to_string()),
        (json!({"role": "assistant"}), "`messages[1]` has no `content`".to_string()),
        (json!({"role": "assistant", "content": null}), format!("`messages[1].content` {array} null")),
        (json!({"role": "assistant", "content": ["ok"]}), format!("`messages[1].content` {array} an array")),
    ] {
        let dir = folder(TOOLED, &json!({"messages": [{"role": "user", "content": "hi"}, message]}).to_string());
        let said = eval(dir.path(), "load_data(\"DIR/d.jsonl\")").expect_err("refused");
        assert_eq!(said, format!("d.jsonl, line 1: {what}"));
    }
}

/// `tiny` with a tokenizer that puts ▁ before a text, as SentencePiece's do, and a template.
fn sentence_piece(template: &str) -> Model {
    let bytes = std::fs::read(fixtures().join("sentencepiece.json")).expect("a file");
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": template});
    let config = config.to_string().into_bytes();
    let mut model = Model::builtin_random("tiny", Key::new(0), &Place::Host).expect("tiny");
    model.info.tokenizer = Some(Arc::new(Tokenizer::from_bytes(&bytes, Some(&config)).expect("a tokenizer")));
    model.info.chat = ChatTemplate::from_files(Some(&config), None, &[]).expect("files").map(Arc::new);
    model.info.eos = vec![2];
    model
}

fn ids(model: &Model, prompt: Content, completion: Content) -> (Vec<u32>, Vec<u32>) {
    let demo = Demo { prompt, completion, fields: Map::new() };
    let batch = encode(model, &[demo], false, MaxLength::default()).expect("encodes");
    let row = &batch.rows().expect("tokens")[0];
    (row.prompt.to_vec(), row.completion.to_vec())
}

#[test]
fn the_middle_of_a_text_gets_no_space_of_its_own() {
    let said = |role: &str, text: &str| Content::Messages(vec![json!({"role": role, "content": text})]);
    let inst = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} \
                {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";
    let vicuna = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} {% else %}ASSISTANT: \
                  {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}";
    let head = vec![1, 272, 94, 76, 81, 86, 87, 96, 282, 280, 272, 94, 50, 76, 81, 86, 87, 96];
    assert_eq!(ids(&sentence_piece(inst), said("user", "one cat"), said("assistant", "two")), (head, vec![283, 2]));
    let head = vec![1, 272, 88, 86, 72, 85, 61, 282, 280, 272, 68, 86, 86, 76, 86, 87, 68, 81, 87, 61];
    assert_eq!(ids(&sentence_piece(vicuna), said("user", "one cat"), said("assistant", "two")), (head, vec![283, 2]));
    let model = sentence_piece(inst);
    let of = |prompt: &str, completion: &str| ids(&model, prompt.into(), completion.into());
    assert_eq!(of("one cat", "two"), (vec![1, 282, 280], vec![269, 279, 2]));
    assert_eq!(of("one cat", " two"), (vec![1, 282, 280], vec![283, 2]));
    // The space goes with the word after it, so the border moves before it.
    assert_eq!(of("one cat ", "two"), (vec![1, 282, 280], vec![283, 2]));
    let prompt = Prompt { content: "one cat".into(), fields: Map::new() };
    assert_eq!(Prompts::of(vec![prompt]).encode(&model, false).expect("ids"), [[1, 282, 280]]);
}

#[test]
fn rows_are_cut_between_tokens() {
    let dir = folder(&TOOLED.replace("{% if think %}", "{% if true %}"), "");
    edit_json(dir.path(), "tokenizer.json", |file| {
        // The last ones make room; none of them is part of another.
        file["model"]["vocab"].as_object_mut().expect("tokens").retain(|_, id| id.as_u64() < Some(380));
        let known = file["model"]["vocab"].as_object().expect("tokens").clone();
        let joined = |merge: &Value| match merge.as_array() {
            Some(pair) => pair.iter().filter_map(Value::as_str).collect(),
            None => merge.as_str().unwrap_or_default().replace(' ', ""),
        };
        file["model"]["merges"].as_array_mut().expect("merges").retain(|merge| known.contains_key(&joined(merge)));
        for (id, content) in [(380, "<think>"), (381, "<tool_call>"), (382, "</tool_call>")] {
            let token = json!({"id": id, "content": content, "special": false, "single_word": false, "lstrip": false,
                               "rstrip": false, "normalized": false});
            file["added_tokens"].as_array_mut().expect("tokens").push(token);
        }
    });
    let ask = "[#{ role: \"user\", content: \"hi\" }]";
    let answer = "[#{ role: \"assistant\", content: \"<tool_call>x</tool_call>\" }]";
    let found = rows(dir.path(), &format!("encode(m, [#{{ prompt: {ask}, completion: {answer} }}])"));
    let prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n".to_string();
    assert_eq!(found, [(prompt, "<tool_call>x</tool_call><|im_end|>".to_string())]);
}

#[test]
fn an_answer_ends_where_its_template_ends_it() {
    // A base model ends texts at <|endoftext|>, and its template ends turns at <|im_end|>.
    let dir = folder(TOOLED, "");
    for (name, key, value) in [
        ("tokenizer_config.json", "eos_token", json!("<|endoftext|>")),
        ("config.json", "eos_token_id", json!(0)),
        ("generation_config.json", "eos_token_id", json!(0)),
    ] {
        edit_json(dir.path(), name, |file| file[key] = value);
    }
    let demo = "#{ prompt: [#{ role: \"user\", content: \"a\" }], completion: \"b\" }";
    let found = rows(dir.path(), &format!("encode(m, [{demo}, #{{ prompt: \"a\", completion: \"b\" }}])"));
    assert_eq!([&found[0].1, &found[1].1], ["b<|im_end|>", "b<|endoftext|>"]);
}

#[test]
fn rows_that_are_too_long_are_named_dropped_or_cut() {
    let long = "yes ".repeat(120);
    let pair = |chosen: &str| json!({"prompt": "q", "chosen": chosen, "rejected": "no"}).to_string() + "\n";
    let dir = folder(TOOLED, &[pair("yes"), pair("yes"), pair(&long), pair("y"), pair(&long)].concat());
    let load = |more: &str| format!("load_data(\"DIR/d.jsonl\", #{{ shuffle: false, model: m{more} }})");
    let refused = |more: &str| eval(dir.path(), &load(more)).expect_err("refused");
    let first = refused("");
    assert!(first.starts_with("d.jsonl, line 3: `prompt` has 1 tokens and `chosen` "), "{first}");
    assert!(first.ends_with(", but the model's context holds 256; so are 1 more rows"), "{first}");
    let most = refused(", max_length: 3");
    assert!(most.starts_with("d.jsonl, line 1: ") && most.contains("but max_length is 3"), "{most}");
    let count = |more: &str| {
        let found = eval(dir.path(), &format!("{}.len()", load(more))).expect("rows");
        found.as_int().expect("a count")
    };
    assert_eq!([count(", max_length: \"drop\""), count(", max_length: \"cut 9\"")], [3, 5]);
    let cut = format!("{}.pairs(3), #{{ max_length: \"cut 9\" }})", load(", max_length: \"cut 9\""));
    let batch = eval(dir.path(), &format!("encode_pairs(m, {cut}")).expect("a batch").cast::<Batch>();
    let lengths: Vec<usize> = batch.rows().expect("tokens").iter().map(|row| row.completion.len()).collect();
    assert_eq!((lengths[4], batch.rows().expect("tokens")[4].prompt.len()), (8, 1));
    let none = "encode(m, [#{ prompt: \"one\", completion: \"two\" }], #{ max_length: \"cut 2\" })";
    let none = eval(dir.path(), none).expect_err("no room for an answer");
    assert!(none.starts_with("encode: row 0: `prompt` has ") && none.ends_with("but max_length is 2"), "{none}");
}
