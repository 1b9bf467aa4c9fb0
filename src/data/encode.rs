//! Rows from given texts, messages or token ids, rather than sampled ones.
//!
//! A prompt and its completion are encoded together, so that the row holds the tokens that the whole text has; the
//! border is where they part from the tokens of the prompt alone, which sampling sees.

use super::batch::Batch;
use super::max_length::{Longer, MaxLength, too_long};
use super::prompts::{Chat, Content, Prompt, Prompts, template_variables};
use crate::error::{Error, Result};
use crate::model::chat::Ending;
use crate::model::rows::{Row, Rows};
use crate::model::{ModelInfo, Tokenizer};
use crate::tensor::Device;
use serde_json::{Map, Value, json};

/// A prompt with the completion to learn from; `fields` become list columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Demo {
    pub prompt: Content,
    pub completion: Content,
    pub fields: Map<String, Value>,
}

/// A prompt with a preferred completion and another one; `fields` become list columns of both rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// `None` where `chosen` and `rejected` are messages that begin with it.
    pub prompt: Option<Content>,
    pub chosen: Content,
    pub rejected: Content,
    pub fields: Map<String, Value>,
}

/// Rows of prompt and completion, an end token after each completion. Columns: `mask` (the completion and its end
/// token), `length`, `text`, `prompt`, and the demonstrations' fields.
///
/// The prompt alone and prompt and completion together become tokens; the row's prompt is those that both begin with,
/// its completion the rest, as TRL cuts. Texts are taken as they are. Messages are rendered by the model's chat
/// template, with the fields `tools` and `chat_template_kwargs`: the prompt with what begins the assistant's answer.
/// Such an answer ends at the end token that the template writes; white space after it is left out, since nothing is
/// ever sampled there. A completion that is a text after a prompt of messages is what the assistant says. With
/// `special`, special tokens written out in texts and messages are control tokens.
///
/// Rows longer than `max` are cut or refused.
///
/// # Errors
/// A model without tokenizer, end token or (for messages) chat template; a completion that is empty; a prompt without
/// tokens; a row that is too long. Each names the row.
pub fn encode(model: &ModelInfo, demos: &[Demo], special: bool, max: MaxLength) -> Result<Batch> {
    let encoder = Encoder::new("encode", model, special, max)?;
    let mut made = Made::default();
    for (i, demo) in demos.iter().enumerate() {
        encoder.add(&mut made, i, &demo.prompt, &[("completion", &demo.completion)], &demo.fields)?;
    }
    made.batch(model, 1)
}

/// Rows of prompt and completion as [`encode`] makes them, the preferred completion of pair k in row 2k and the other
/// one in row 2k+1. Both rows of a pair have the same prompt.
///
/// # Errors
/// Those of [`encode`]; a pair without prompt whose completions are not messages or do not begin alike.
pub fn encode_pairs(model: &ModelInfo, pairs: &[Pair], special: bool, max: MaxLength) -> Result<Batch> {
    let encoder = Encoder::new("encode_pairs", model, special, max)?;
    let mut made = Made::default();
    for (i, pair) in pairs.iter().enumerate() {
        let [prompt, chosen, rejected] = parts(i, pair)?;
        encoder.add(&mut made, i, &prompt, &[("chosen", &chosen), ("rejected", &rejected)], &pair.fields)?;
    }
    Ok(made.batch(model, 2)?.with_group(Some(2)))
}

/// Prompt, chosen and rejected. Two dialogues without a prompt, or with one that is a text and so repeats what they
/// begin with, have as their prompt the messages that they share.
fn parts(i: usize, pair: &Pair) -> Result<[Content; 3]> {
    let (Content::Messages(chosen), Content::Messages(rejected), None | Some(Content::Text(_))) =
        (&pair.chosen, &pair.rejected, &pair.prompt)
    else {
        let prompt = pair.prompt.clone().ok_or_else(|| {
            Error::value(format!("encode_pairs: row {i} has no `prompt`"))
                .hint("only where chosen and rejected are arrays of messages, what they begin with is the prompt")
        })?;
        return Ok([prompt, pair.chosen.clone(), pair.rejected.clone()]);
    };
    let shared = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).count();
    // Two completions that are the same still need a message each.
    let shared = shared.min(chosen.len() - 1).min(rejected.len() - 1);
    if shared == 0 {
        return Err(Error::value(format!("encode_pairs: row {i}: `chosen` and `rejected` share no first message"))
            .hint("what both begin with is the prompt; otherwise give it as `prompt`, an array of messages"));
    }
    let from = |messages: &[Value]| Content::Messages(messages.to_vec());
    Ok([from(&chosen[..shared]), from(&chosen[shared..]), from(&rejected[shared..])])
}

/// Rows under way with their columns, and the prompts with their fields.
#[derive(Default)]
struct Made {
    rows: Vec<Row>,
    texts: Vec<Value>,
    prompts: Prompts,
}

impl Made {
    /// `n` adjacent rows per prompt.
    fn batch(self, model: &ModelInfo, n: usize) -> Result<Batch> {
        let mut batch = Batch::new(Rows::of(self.rows, model.vocabulary()), 1.0, &Device::Cpu)?;
        batch.insert_list("text", self.texts);
        batch.insert_fields(&self.prompts, n)?;
        Ok(batch)
    }
}

struct Encoder<'a> {
    function: &'static str,
    model: &'a ModelInfo,
    tokenizer: &'a Tokenizer,
    /// Put after completions that do not end with an end token: the tokenizer's own, by which training programs end
    /// texts, else the model's first.
    end: u32,
    special: bool,
    max: MaxLength,
}

impl<'a> Encoder<'a> {
    fn new(function: &'static str, model: &'a ModelInfo, special: bool, max: MaxLength) -> Result<Self> {
        let tokenizer = model.require_tokenizer(function)?;
        let end = tokenizer.eos().or(model.eos.first().copied()).ok_or_else(|| {
            Error::model(format!("{function}: the model {} has no end token to put after completions", model.name))
                .hint("name it as eos_token_id in config.json or generation_config.json")
        })?;
        Ok(Self { function, model, tokenizer, end, special, max })
    }

    /// Adds a row for each of the completions, which have the names of their fields.
    fn add(
        &self,
        made: &mut Made,
        i: usize,
        prompt: &Content,
        completions: &[(&str, &Content)],
        fields: &Map<String, Value>,
    ) -> Result<()> {
        let at = |e: Error| Error { what: format!("{}: row {i}: {}", self.function, e.what), ..e };
        let empty = |field: &str| {
            at(Error::value(format!("`{field}` is empty"))).hint("a completion needs at least one token before its end")
        };
        let blank = |content: &Content| matches!(content, Content::Text(text) if text.is_empty());
        if let Some((field, _)) = completions.iter().find(|(_, content)| blank(content)) {
            return Err(empty(field));
        }
        let (ids, ends) = match prompt {
            Content::Text(text) => self.texts(text, completions).map_err(at)?,
            Content::Messages(messages) => self.messages(messages, completions, fields).map_err(at)?,
        };
        if ids.is_empty() {
            let text = Content::shown(&prompt.value()).into_owned();
            return Err(at(Error::value(format!("`prompt` has no tokens: its text is {text:?}")))
                .hint("a model needs at least one token to begin from"));
        }
        let room = self.max.room(self.model);
        for ((field, content), mut completion) in completions.iter().zip(ends) {
            self.finish(&mut completion, matches!(prompt, Content::Messages(_)));
            if completion.len() < 2 {
                return Err(empty(field));
            }
            if self.max.longer == Longer::Cut && ids.len() < room {
                completion.truncate(room - ids.len());
            }
            if ids.len() + completion.len() > room {
                let (prompt, answer) = (ids.len(), completion.len());
                let whose = if room < self.model.context { "max_length is" } else { "the model's context holds" };
                let what = format!("`prompt` has {prompt} tokens and `{field}` {answer}, but {whose} {room}");
                return Err(at(too_long(what)));
            }
            made.texts.push(match content {
                Content::Text(text) => text.clone().into(),
                Content::Messages(_) => self.tokenizer.decode(&completion[..completion.len() - 1]).into(),
            });
            made.rows.push(Row::new(ids.clone(), completion));
        }
        made.prompts.items.push(Prompt { content: prompt.clone(), fields: fields.clone() });
        Ok(())
    }

    fn texts(&self, prompt: &str, completions: &[(&str, &Content)]) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
        let encode = |text: &str| match self.special {
            true => self.tokenizer.encode_prompt_special(text),
            false => self.tokenizer.encode_prompt(text),
        };
        let whole = |(field, content): &(&str, &Content)| match content {
            Content::Text(text) => encode(&format!("{prompt}{text}")),
            Content::Messages(_) => Err(Error::value(format!("`prompt` is a text, but `{field}` is messages"))
                .hint("give both as texts or both as arrays of messages")),
        };
        let alone = encode(prompt)?;
        let (shared, ends) = cut(&alone, completions.iter().map(whole).collect::<Result<_>>()?);
        if shared.is_empty() {
            // A first token that reaches into the completion would leave nothing to begin from.
            let apart = |(_, content): &(&str, &Content)| match content {
                Content::Text(text) if self.special => self.tokenizer.encode_special(text),
                Content::Text(text) => self.tokenizer.encode(text),
                Content::Messages(_) => Ok(Vec::new()),
            };
            return Ok((alone, completions.iter().map(apart).collect::<Result<_>>()?));
        }
        Ok((shared, ends))
    }

    fn messages(
        &self,
        prompt: &[Value],
        completions: &[(&str, &Content)],
        fields: &Map<String, Value>,
    ) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
        let variables = template_variables(fields)?;
        let chat = Chat { model: self.model, variables: &variables, special: self.special };
        let encode = |messages: &[Value], ending: Ending| {
            let text = chat.compose(messages, ending)?;
            self.tokenizer.encode_rendered(&text.text, &text.quoted)
        };
        let whole = |(_, content): &(&str, &Content)| match content {
            Content::Messages(messages) => encode(&[prompt, messages].concat(), Ending::Closed),
            Content::Text(text) => {
                encode(&[prompt, &[json!({"role": "assistant", "content": text})]].concat(), Ending::Closed)
            }
        };
        let alone = encode(prompt, Ending::of_prompt(prompt))?;
        Ok(cut(&alone, completions.iter().map(whole).collect::<Result<_>>()?))
    }

    /// Leaves out white space after the token that ends the completion, and puts an end token where there is none. In a
    /// rendered one, whatever control token stands last is the end that the template writes.
    fn finish(&self, completion: &mut Vec<u32>, rendered: bool) {
        let blank = |ids: &[u32]| self.tokenizer.decode_special(ids).trim().is_empty();
        let ends = |id: &u32| self.model.eos.contains(id) || *id == self.end;
        let control = |id: &u32| rendered && self.tokenizer.is_special(*id);
        let last = completion.iter().rposition(ends).filter(|&at| blank(&completion[at + 1..]));
        let last = last.or_else(|| completion.iter().rposition(control).filter(|&at| blank(&completion[at + 1..])));
        match last {
            Some(at) => completion.truncate(at + 1),
            None => completion.push(self.end),
        }
    }
}

/// The tokens that the prompt alone and all rows begin with, and what follows in each row.
fn cut(alone: &[u32], whole: Vec<Vec<u32>>) -> (Vec<u32>, Vec<Vec<u32>>) {
    let shared = |whole: &Vec<u32>| alone.iter().zip(whole).take_while(|(a, b)| a == b).count();
    let at = whole.iter().map(shared).min().unwrap_or(0);
    (alone[..at].to_vec(), whole.into_iter().map(|whole| whole[at..].to_vec()).collect())
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
    let row = |(prompt, completion): (Vec<u32>, Vec<u32>)| Row::new(prompt, completion);
    Batch::new(Rows::new(prompts.into_iter().zip(completions).map(row).collect()), 1.0, device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Place;
    use crate::model::Model;
    use crate::tensor::rng::Key;

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
        let prompts = Prompts { items: vec![Prompt { content: ask, fields: Map::new() }] };
        let sampled = prompts.encode(&model, false).expect("ids");
        assert_eq!(sampled[0][..], b.rows().expect("tokens")[0].prompt[..], "what sampling sees");
        let begun = messages(&[("user", "1+2="), ("assistant", "4-")]);
        let begun = Prompts { items: vec![Prompt { content: begun, fields: Map::new() }] };
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
            let prompts = Prompts { items: vec![Prompt { content: ask(), fields: Map::new() }] };
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
            "encode_pairs: row 0 has no `prompt`"
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
}
