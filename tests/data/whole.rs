//! Texts and dialogues that are learned from as a whole, and answers with rewards: against the numbers of transformers and
//! TRL, and what is refused, text by text.

use crate::common::{copied, fixture_model, host, json};
use rhopo::data::dataset::{Dataset, Format, Reading};
use rhopo::data::fit::fit;
use rhopo::data::max_length::MaxLength;
use rhopo::data::whole::{Example, encode_examples};
use rhopo::data::{Batch, Content, Demo};
use rhopo::model::Model;
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::value::to_json;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const MODELS: [&str; 3] = ["qwen2", "smollm3", "llama3"];

fn dialogue(messages: &Value) -> Example {
    Example::Dialogue { messages: messages.as_array().unwrap().clone(), fields: Map::new() }
}

fn text(text: &str) -> Example {
    Example::Text { text: text.into(), fields: Map::new() }
}

fn encoded(model: &Model, examples: &[Example]) -> Batch {
    encode_examples(model, examples, false, MaxLength::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn said(turns: &[(&str, &str)]) -> Value {
    turns.iter().map(|(role, content)| json!({ "role": role, "content": content })).collect()
}

#[test]
fn what_the_assistant_says_is_learned_as_transformers_marks_it() {
    let reference = json("whole.json");
    for name in MODELS {
        let model = fixture_model(name);
        for (i, want) in reference[name]["dialogues"].as_array().unwrap().iter().enumerate() {
            let b = encoded(&model, &[dialogue(&want["messages"])]);
            let row = &b.rows().unwrap()[0];
            let own: Vec<u32> = row.prompt.iter().chain(&*row.completion).copied().collect();
            let (all, marks) = (ids(&want["ids"]), ids(&want["mask"]));
            assert_eq!(own, all[..own.len()], "{name}, dialogue {i}");
            assert!(marks[own.len()..].iter().all(|&mark| mark == 0), "{name}, dialogue {i}: an answer is cut off");
            assert!(marks[..row.prompt.len()].iter().all(|&mark| mark == 0), "{name}, dialogue {i}");
            let mask: Vec<u32> = b.tensor("mask").unwrap().to_rows().unwrap()[0].iter().map(|&x| x as u32).collect();
            assert_eq!(mask, marks[row.prompt.len()..own.len()], "{name}, dialogue {i}");
            let length = b.tensor("length").unwrap().to_rows().unwrap()[0][0];
            assert_eq!(length, f64::from(marks.iter().sum::<u32>()), "{name}, dialogue {i}");
        }
    }
}

#[test]
fn texts_begin_and_end_as_trl_has_them() {
    let reference = json("whole.json");
    for name in MODELS {
        let model = fixture_model(name);
        for want in reference[name]["texts"].as_array().unwrap() {
            let b = encoded(&model, &[text(want["text"].as_str().unwrap())]);
            let row = &b.rows().unwrap()[0];
            let own: Vec<u32> = row.prompt.iter().chain(&*row.completion).copied().collect();
            assert_eq!((own, row.prompt.len()), (ids(&want["ids"]), 1), "{name}: {want}");
            assert!(b.tensor("mask").unwrap().to_vec().unwrap().iter().all(|&x| x == 1.0), "every token is learned");
        }
    }
}

#[test]
fn a_dialogue_of_one_answer_is_a_demonstration() {
    let model = fixture_model("qwen2");
    let messages = said(&[("system", "Briefly."), ("user", "12 + 30?"), ("assistant", "42")]);
    let (prompt, completion) = messages.as_array().unwrap().split_at(2);
    let demo = Demo {
        prompt: Content::Messages(prompt.to_vec()),
        completion: Content::Messages(completion.to_vec()),
        fields: Map::new(),
    };
    let b = encoded(&model, &[dialogue(&messages), Example::Demo(demo)]);
    let rows = b.rows().unwrap();
    assert_eq!(rows[0], rows[1]);
    let mask = b.tensor("mask").unwrap().to_rows().unwrap();
    assert_eq!(mask[0], mask[1]);
    assert_eq!(b.list("text").unwrap()[0], "42");
}

#[test]
fn dialogues_that_cannot_be_learned_from_are_named() {
    let model = fixture_model("qwen2");
    let refused = |messages: &Value| {
        encode_examples(&model, &[text("a"), dialogue(messages)], false, MaxLength::default()).unwrap_err().what
    };
    let begins = "encode: row 1: `messages` begins with the assistant's answer, expected a message before it";
    assert_eq!(refused(&said(&[("assistant", "Hello")])), begins);
    let none = "encode: row 1: `messages` holds no answer of the assistant, so there is nothing to learn";
    assert_eq!(refused(&said(&[("user", "Hello")])), none);
    let empty = said(&[("user", "a"), ("assistant", ""), ("user", "b"), ("assistant", "c")]);
    assert_eq!(refused(&empty), "encode: row 1: `messages[1]` is empty");
    let e = encode_examples(&model, &[text("")], false, MaxLength::default()).unwrap_err();
    assert_eq!(e.what, "encode: row 0: `text` is empty");
}

/// A template like Qwen3's, which shows reasoning in the last answer alone.
#[test]
fn a_template_that_takes_back_what_it_wrote_is_refused_by_file_and_line() {
    let dir = copied("qwen2");
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}think: {% endif %}\
                    {{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let model = Arc::new(Model::load(&rhopo::files::anywhere(dir.path()), &rhopo::gpu::Place::Host).unwrap());
    let one = said(&[("user", "a"), ("assistant", "b")]);
    let two = said(&[("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]);
    assert_eq!(encoded(&model, &[dialogue(&one)]).len(), 1);
    let path = dir.path().join("talk.jsonl");
    std::fs::write(&path, format!("{}\n{}\n", json!({ "messages": one }), json!({ "messages": two }))).unwrap();
    let reading = |every_turn| Reading { every_turn, ..Reading::default() };
    let mut data = Dataset::open(&rhopo::files::anywhere(&path), &reading(true), None).unwrap();
    let e = fit(&mut data, &model, MaxLength::default()).unwrap_err();
    let line = format!(
        "{}, line 2: the chat template renders `messages[1]` in another way once more messages follow it",
        path.display()
    );
    assert_eq!(e.what, line);
    assert!(e.hint.unwrap().contains("turns: \"last\""));
    fit(
        &mut Dataset::open(&rhopo::files::anywhere(&path), &reading(false), None).unwrap(),
        &model,
        MaxLength::default(),
    )
    .unwrap();
}

#[test]
fn long_texts_are_cut_unless_told_otherwise_and_counted() {
    let (model, long) = (fixture_model("qwen2"), "12 + 30 = 42, ".repeat(80));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corpus.jsonl");
    std::fs::write(&path, format!("{}\n{}\n", json!({ "text": "short" }), json!({ "text": long }))).unwrap();
    let open = || Dataset::open(&rhopo::files::anywhere(&path), &Reading::default(), None).unwrap();
    let of = |max: &str| fit(&mut open(), &model, MaxLength::parse(max).unwrap());
    assert_eq!(fit(&mut open(), &model, MaxLength::default()).unwrap().cut, 1, "at the model's context");
    assert_eq!(of("cut 16").unwrap().cut, 1);
    assert_eq!(of("drop 16").unwrap().dropped, 1);
    let e = of("refuse 16").unwrap_err().what;
    assert!(e.contains("corpus.jsonl, line 2: `text` has ") && e.contains(" tokens, but max_length is 16"), "{e}");
    let b = encode_examples(&model, &[text(&long)], false, MaxLength { tokens: Some(16), longer: None }).unwrap();
    assert_eq!((b.rows().unwrap()[0].prompt.len(), b.rows().unwrap()[0].completion.len()), (1, 15));
}

#[test]
fn rows_of_texts_and_of_rewards_are_told_apart_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let open = |lines: &str| {
        std::fs::write(&path, lines).unwrap();
        let plain = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
        Dataset::open(&rhopo::files::anywhere(&path), &Reading::default(), None).map_err(|e| plain(e.what))
    };
    let refused = |lines: &str| open(lines).expect_err("refused");
    let mut texts = open("{\"text\": \"a\", \"source\": 3}\n{\"text\": \"b\"}").unwrap();
    assert_eq!((texts.format(), texts.demos(1).unwrap()[0]["text"].as_str()), (Format::Texts, Some("a")));
    let e = texts.prompts(1).unwrap_err();
    assert!(e.what.contains("is text data, with `text`; prompts needs `prompt`"), "{e}");
    assert_eq!(refused("{\"text\": 3}"), "a.jsonl, line 1: `text` must be a text, found the number 3");
    assert_eq!(refused("{\"text\": \"a\"}\n{\"text\": \"\"}"), "a.jsonl, line 2: `text` is empty");
    assert_eq!(refused("{\"text\": \"a\"}\n{\"prompt\": \"b\"}"), "a.jsonl, line 2: `text` is missing");
    let row = |more: &str| format!("{{\"prompt\": \"a\", \"completion\": \"b\", {more}}}\n");
    let mut rewarded = open(&row("\"reward\": 1, \"logprob\": [-0.5, 0]")).unwrap();
    assert_eq!((rewarded.format(), rewarded.rewarded(1).unwrap()[0]["reward"].as_f64()), (Format::Rewarded, Some(1.0)));
    assert_eq!(rewarded.demos(1).unwrap()[0]["completion"], "b", "answers without regard to their rewards");
    let first = row("\"reward\": 1, \"logprob\": -2");
    let line_2 = |more: &str| refused(&format!("{first}{}", row(more)));
    assert_eq!(line_2("\"reward\": \"good\""), "a.jsonl, line 2: `reward` must be a number, found the text \"good\"");
    assert_eq!(line_2("\"source\": 1"), "a.jsonl, line 2: `reward` is missing");
    let missing = "a.jsonl, line 2: `logprob` is missing, expected it as in the first row (a.jsonl, line 1)";
    assert_eq!(line_2("\"reward\": 1"), missing);
    let of = |what: &str| {
        format!("a.jsonl, line 2: `logprob` must be a number of at most 0, or an array of them, found {what}")
    };
    assert_eq!(line_2("\"reward\": 1, \"logprob\": 0.5"), of("the number 0.5"));
    assert_eq!(line_2("\"reward\": 1, \"logprob\": [-1, \"x\"]"), of("an array with the text \"x\""));
    assert_eq!(line_2("\"reward\": 1, \"logprob\": []"), of("an empty array"));
    let more = format!("{}{first}", row("\"reward\": 1"));
    assert_eq!(refused(&more), "a.jsonl, line 2: there is a `logprob`, but the first row (a.jsonl, line 1) has none");
}

#[test]
fn a_script_chooses_which_answers_of_a_dialogue_are_learned() {
    let folder = tempfile::tempdir().unwrap();
    let talk = said(&[("user", "1+2="), ("assistant", "3"), ("user", "2+2="), ("assistant", "4")]);
    std::fs::write(folder.path().join("talk.jsonl"), json!({ "messages": talk }).to_string()).unwrap();
    let script = format!(
        "let model = load_model(\"tiny\");\n\
         let every = load_data(\"{0}/talk.jsonl\", #{{ turns: \"every\", model: model }});\n\
         let last  = load_data(\"{0}/talk.jsonl\", #{{ model: model }});\n\
         let a = encode(model, every.demos(1));\n\
         let b = encode(model, last.demos(1));\n\
         [a.mask.to_array()[0], b.mask.to_array()[0], a.text == b.text, a.length.item(), every.prompts(1).len(), a.prompt[0].len()]",
        folder.path().display()
    );
    let made = host().eval(&Source { label: "talk.rhai".into(), text: script }).unwrap_or_else(|e| panic!("{e:?}"));
    // `3<eos><user>2+2=<assistant>4<eos>`
    let mask = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0];
    assert_eq!(to_json(&made), json!([mask, [1.0, 1.0], true, 4.0, 1, 1]));
}
