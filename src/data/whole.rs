//! Rows that are learned from as a whole: texts without a prompt, and dialogues by everything that the assistant says.
//!
//! Owns which tokens of them are learned. How texts and messages become tokens, and how an answer ends, is `encode`'s.

use super::batch::Batch;
use super::encode::{Demo, Encoder, Made, Single, Unfit};
use super::max_length::MaxLength;
use super::prompts::{Content, Prompt};
use crate::error::{Error, Result};
use crate::model::ModelInfo;
use crate::model::chat::Ending;
use crate::model::rows::Row;
use serde_json::{Map, Value};

/// What a row to learn from is made of; `fields` become list columns.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    Demo(Demo),
    /// All of it is learned.
    Text {
        text: String,
        fields: Map<String, Value>,
    },
    /// What the assistant says in it is learned.
    Dialogue {
        messages: Vec<Value>,
        fields: Map<String, Value>,
    },
}

/// Rows of demonstrations as `encode` makes them, and of texts and dialogues. Of a text every token is learned but the
/// first, which nothing stands before: it is the row's prompt. Texts begin as the tokenizer begins them and end with the
/// end token; longer ones than `max` end there. Of a dialogue `mask` covers what the assistant says, each answer with its
/// end, and what stands between is part of the completion.
///
/// # Errors
/// Those of `encode`; a text without tokens; a dialogue that begins with an answer or holds an empty one; a template that
/// renders an answer in another way once more messages follow.
pub fn encode_examples(model: &ModelInfo, examples: &[Example], special: bool, max: MaxLength) -> Result<Batch> {
    let encoder = Encoder::new("encode", model, special, max)?;
    let mut made = Made::default();
    for (i, example) in examples.iter().enumerate() {
        encoder.example(&mut made, example).map_err(|e| e.of_row("encode", i))?;
    }
    made.batch(model, 1)
}

/// An answer within the tokens of a dialogue.
struct Turn {
    /// The tokens before it.
    before: Vec<u32>,
    /// Its tokens, with its end.
    answer: Vec<u32>,
    /// Whether the template writes that end, and not `encode`.
    ended: bool,
}

impl Turn {
    /// Where its tokens end in what the template writes.
    fn stop(&self) -> usize {
        self.start() + self.answer.len() - usize::from(!self.ended)
    }

    fn start(&self) -> usize {
        self.before.len()
    }

    /// Whether a dialogue that goes on holds it as it stood when it was last.
    fn stands_in(&self, whole: &[u32]) -> bool {
        let (start, stop) = (self.start(), self.stop());
        whole.starts_with(&self.before) && whole.get(start..stop) == Some(&self.answer[..stop - start])
    }
}

impl Encoder<'_> {
    /// Adds the row of an example.
    pub(super) fn example(&self, made: &mut Made, example: &Example) -> std::result::Result<(), Unfit> {
        match example {
            Example::Demo(demo) => self.demo(made, demo),
            Example::Text { text, fields } => self.text(made, text, fields).map(|_| ()),
            Example::Dialogue { messages, fields } => self.dialogue(made, messages, fields),
        }
    }

    /// Adds the row of a text; says how many tokens the text has.
    pub(super) fn text(
        &self,
        made: &mut Made,
        text: &str,
        fields: &Map<String, Value>,
    ) -> std::result::Result<usize, Unfit> {
        let mut ids = match self.special {
            true => self.tokenizer.encode_prompt_special(text)?,
            false => self.tokenizer.encode_prompt(text)?,
        };
        if text.is_empty() || ids.is_empty() {
            return Err(Error::value("`text` is empty").hint("there is nothing to learn from it: leave it out").into());
        }
        if !ids.last().is_some_and(|last| self.ends(*last)) {
            ids.push(self.end);
        }
        if ids.len() < 2 {
            return Err(Error::value(format!("`text` is an end token alone: {text:?}")).into());
        }
        let tokens = ids.len();
        let mut learned = ids.split_off(1);
        self.fit("text", 1, &mut learned, self.max.of_texts())?;
        let prompt = Prompt { content: Content::Text(String::new()), fields: fields.clone() };
        made.push(Single { row: Row::new(ids, learned), mask: None, text: text.into(), prompt });
        Ok(tokens)
    }

    /// Adds the row of a dialogue.
    pub(super) fn dialogue(
        &self,
        made: &mut Made,
        messages: &[Value],
        fields: &Map<String, Value>,
    ) -> std::result::Result<(), Unfit> {
        let said = |message: &Value| message.get("role").and_then(Value::as_str) == Some("assistant");
        let answers: Vec<usize> = (0..messages.len()).filter(|&i| said(&messages[i])).collect();
        let (Some(&first), Some(&last)) = (answers.first(), answers.last()) else {
            return Err(
                Error::value("`messages` holds no answer of the assistant, so there is nothing to learn").into()
            );
        };
        if first == 0 {
            return Err(
                Error::value("`messages` begins with the assistant's answer, expected a message before it").into()
            );
        }
        let whole = self.rendered(&messages[..=last], Ending::Closed, fields)?;
        let turns = answers.iter().map(|&i| self.turn(messages, i, fields)).collect::<Result<Vec<_>>>()?;
        let begin = turns[0].start();
        let mut mask: Vec<f32> = Vec::new();
        for (&i, turn) in answers.iter().zip(&turns) {
            if turn.start() < begin + mask.len() || !turn.stands_in(&whole) {
                return Err(rewritten(i).into());
            }
            mask.resize(turn.start() - begin, 0.0);
            mask.resize(turn.stop() - begin, 1.0);
        }
        if begin == 0 {
            return Err(Error::value("the messages before the first answer have no tokens").into());
        }
        let mut completion = whole[begin..begin + mask.len()].to_vec();
        let final_turn = &turns[turns.len() - 1];
        if !final_turn.ended {
            completion.push(self.end);
            mask.push(1.0);
        }
        self.fit("messages", begin, &mut completion, self.max.of_answers())?;
        mask.truncate(completion.len());
        let row = Row::new(&whole[..begin], completion);
        let text = self.tokenizer.decode(&final_turn.answer[..final_turn.answer.len() - 1]);
        let prompt = Prompt { content: Content::Messages(messages[..first].to_vec()), fields: fields.clone() };
        made.push(Single { row, mask: Some(mask), text, prompt });
        Ok(())
    }

    /// The answer in message `i`, rendered with what stands before it.
    fn turn(&self, messages: &[Value], i: usize, fields: &Map<String, Value>) -> Result<Turn> {
        let alone = self.rendered(&messages[..i], Ending::Generate, fields)?;
        let mut before = self.rendered(&messages[..=i], Ending::Closed, fields)?;
        let start = alone.iter().zip(&before).take_while(|(a, b)| a == b).count();
        let mut answer = before.split_off(start);
        let written = answer.len();
        self.finish(&mut answer, true);
        if answer.len() < 2 {
            return Err(Error::value(format!("`messages[{i}]` is empty")).hint("an answer needs at least one token"));
        }
        Ok(Turn { before, ended: answer.len() <= written, answer })
    }
}

/// That a template takes back what it wrote.
fn rewritten(i: usize) -> Error {
    Error::value(format!("the chat template renders `messages[{i}]` in another way once more messages follow it"))
        .hint("it may leave out reasoning there: learn from each dialogue's last answer alone, turns: \"last\"")
}
