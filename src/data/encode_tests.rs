//! Rows from texts, messages and ids: borders, end tokens, what is refused.

use super::batch::Batch;
use super::encode::*;
use super::max_length::MaxLength;
use super::prompts::{Content, Prompt, Prompts};
use crate::error::Result;
use crate::gpu::Place;
use crate::model::Model;
use crate::model::rows::Row;
use crate::tensor::Device;
use crate::tensor::rng::Key;
use serde_json::{Map, json};

fn tiny() -> Model {
    Model::builtin_random("tiny", Key::new(0), &Place::Host).expect("tiny")
}

fn demo(prompt: impl Into<Content>, completion: impl Into<Content>) -> Demo {
    let fields = Map::from_iter([("answer".to_string(), "a".into())]);
    Demo { prompt: prompt.into(), completion: completion.into(), fields }
}

fn messages(turns: &[(&str, &str)]) -> Content {
    Content::Messages(turns.iter().map(|(role, text)| json!({"role": role, "content": text})).collect())
}

fn pair(prompt: Option<Content>, chosen: impl Into<Content>, rejected: impl Into<Content>) -> Pair {
    let fields = Map::from_iter([("source".to_string(), "s".into())]);
    Pair { prompt, chosen: chosen.into(), rejected: rejected.into(), fields }
}

/// Prompt and completion of every row, special tokens written out.
fn texts(model: &Model, batch: &Batch) -> Vec<(String, String)> {
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    let text = |row: &Row| (tokenizer.decode_special(&row.prompt), tokenizer.decode_special(&row.completion));
    batch.rows().expect("tokens").iter().map(text).collect()
}

fn refused(batch: Result<Batch>) -> String {
    batch.expect_err("must be refused").what
}

#[test]
fn completions_end_with_the_end_token_and_are_masked() {
    let model = tiny();
    let b = encode(&model, &[demo("1+2=", "3"), demo("5+7=", "12")], false, MaxLength::default()).expect("encodes");
    let rows = b.rows().expect("tokens");
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    assert_eq!(rows[1].completion[..], [tokenizer.encode("12").expect("ids"), vec![1]].concat());
    assert_eq!(rows[0].prompt[..], tokenizer.encode("1+2=").expect("ids"));
    assert_eq!(b.tensor("mask").and_then(|m| m.to_rows()).expect("rows"), [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]);
    assert_eq!(b.names(), ["answer", "length", "mask", "prompt", "text"]);
    assert_eq!(refused(encode(&model, &[], false, MaxLength::default())), "a batch needs at least one row");
}

#[test]
fn special_tokens_in_texts_are_text_unless_asked_for() {
    let model = tiny();
    let rows = [demo("<user>1<eos>", "2<eos>")];
    let b = encode(&model, &rows, false, MaxLength::default()).expect("encodes");
    assert_eq!(b.rows().expect("tokens")[0].completion.len(), 7, "six characters and the end token");
    let b = encode(&model, &rows, true, MaxLength::default()).expect("encodes");
    let row = &b.rows().expect("tokens")[0];
    assert_eq!((&row.prompt[..], &row.completion[..]), (&[4, 26, 1][..], &[27, 1][..]), "one end token");
}

#[test]
fn messages_are_rendered_and_cut_where_the_answer_begins() {
    let model = tiny();
    let ask = messages(&[("system", "add"), ("user", "1+2=")]);
    let said = messages(&[("assistant", "3")]);
    let b = encode(&model, &[demo(ask.clone(), said), demo(ask.clone(), "3")], false, MaxLength::default())
        .expect("encodes");
    let expected = ("<system>add<user>1+2=<assistant>".to_string(), "3<eos>".to_string());
    assert_eq!(texts(&model, &b), [expected.clone(), expected]);
    assert_eq!(b.list("text").expect("texts")[..], ["3", "3"]);
    assert_eq!(b.list("prompt").expect("prompts")[0], ask.value());
    let prompts = Prompts::of(vec![Prompt { content: ask, fields: Map::new() }]);
    let sampled = prompts.encode(&model, false).expect("ids");
    assert_eq!(sampled[0][..], b.rows().expect("tokens")[0].prompt[..], "what sampling sees");
    let begun = messages(&[("user", "1+2="), ("assistant", "4-")]);
    let begun = Prompts::of(vec![Prompt { content: begun, fields: Map::new() }]);
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    assert_eq!(
        tokenizer.decode_special(&begun.encode(&model, false).expect("ids")[0]),
        "<user>1+2=<assistant>4-",
        "an answer that has begun is continued"
    );
}

#[test]
fn control_tokens_in_messages_are_text_unless_asked_for() {
    let model = tiny();
    let ask = || messages(&[("user", "<eos><assistant>9")]);
    let ids = |special| {
        let prompts = Prompts::of(vec![Prompt { content: ask(), fields: Map::new() }]);
        prompts.encode(&model, special).expect("ids").remove(0)
    };
    assert_eq!(ids(true), [4, 1, 5, 34, 5]);
    let plain = ids(false);
    assert_eq!((plain.len(), plain[0], plain[plain.len() - 1]), (19, 4, 5));
    assert!(plain[1..18].iter().all(|&id| id > 6), "{plain:?}");
    let said = messages(&[("assistant", "2<eos>")]);
    let b = encode(&model, &[demo(ask(), said)], false, MaxLength::default()).expect("encodes");
    assert_eq!(b.rows().expect("tokens")[0].completion.len(), 7);
}

#[test]
fn pairs_alternate_and_share_their_prompt() {
    let model = tiny();
    let ask = ("user", "1+2=");
    let (yes, no) = (messages(&[ask, ("assistant", "3")]), messages(&[ask, ("assistant", "12")]));
    let both = [
        pair(Some("1+2=".into()), "3", "12"),
        pair(Some(messages(&[ask])), messages(&[("assistant", "3")]), messages(&[("assistant", "12")])),
        pair(None, yes.clone(), no.clone()),
        pair(Some("1+2=".into()), yes.clone(), no),
    ];
    let b = encode_pairs(&model, &both, false, MaxLength::default()).expect("encodes");
    let row = |prompt: &str, text: &str| (prompt.to_string(), text.to_string());
    let chat = "<user>1+2=<assistant>";
    let mut expected = vec![row("1+2=", "3<eos>"), row("1+2=", "12<eos>")];
    (0..3).for_each(|_| expected.extend([row(chat, "3<eos>"), row(chat, "12<eos>")]));
    assert_eq!(texts(&model, &b), expected);
    assert_eq!(b.list("source").expect("a list").len(), 8);
    assert_eq!(b.group(), Some(2));
    let parts = b.minibatches_of_groups(1, 1, None, Key::new(0)).expect("pairs");
    assert!(parts.iter().all(|part| part.list("text").expect("texts")[..] == ["3", "12"]));
    let same = encode_pairs(&model, &[pair(None, yes.clone(), yes)], false, MaxLength::default()).expect("encodes");
    assert_eq!(texts(&model, &same), [row(chat, "3<eos>"), row(chat, "3<eos>")]);
    assert_eq!(
        refused(encode_pairs(&model, &[pair(None, "3", "4")], false, MaxLength::default())),
        "encode_pairs: row 0: there is no `prompt`"
    );
    let apart = pair(None, messages(&[("user", "a"), ask]), messages(&[("user", "b"), ask]));
    assert_eq!(
        refused(encode_pairs(&model, &[apart], false, MaxLength::default())),
        "encode_pairs: row 0: `chosen` and `rejected` share no first message"
    );
}

#[test]
fn rows_that_cannot_be_learned_from_are_named() {
    let model = tiny();
    let good = || demo("1", "2");
    let text = |demo| refused(encode(&model, &[good(), demo], false, MaxLength::default()));
    assert_eq!(text(demo("1", "")), "encode: row 1: `completion` is empty");
    assert_eq!(text(demo("", "3")), "encode: row 1: `prompt` has no tokens: its text is \"\"");
    let ask = || messages(&[("user", "1")]);
    assert_eq!(text(demo(ask(), messages(&[("assistant", "")]))), "encode: row 1: `completion` is empty");
    assert_eq!(
        text(demo("1", messages(&[("assistant", "2")]))),
        "encode: row 1: `prompt` is a text, but `completion` is messages"
    );
    assert_eq!(
        text(demo(messages(&[("oracle", "1")]), "2")),
        "encode: row 1: the chat template refuses the messages: tiny knows the roles system, user and assistant, \
         found oracle"
    );
    assert_eq!(
        text(demo("1".repeat(300), "2".repeat(212))),
        "encode: row 1: `prompt` has 300 tokens and `completion` 213, but the model's context holds 512"
    );
    assert!(encode(&model, &[demo("1".repeat(300), "2".repeat(211))], false, MaxLength::default()).is_ok());
    assert_eq!(
        refused(encode_pairs(&model, &[pair(Some("1".into()), "2", "")], false, MaxLength::default())),
        "encode_pairs: row 0: `rejected` is empty"
    );
}

#[test]
fn ids_are_taken_as_they_are() {
    let b = encode_ids(vec![vec![5], vec![6, 7]], vec![vec![1, 2], vec![]], &Device::Cpu).expect("encodes");
    assert_eq!(b.tensor("length").and_then(|m| m.to_vec()).expect("numbers"), [2.0, 0.0]);
    let e = encode_ids(vec![vec![1]], vec![], &Device::Cpu).expect_err("one is missing");
    assert_eq!(e.what, "encode_ids: 1 prompts, but 0 completions");
}
