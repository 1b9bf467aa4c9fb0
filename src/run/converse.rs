//! The loop of dialogues: the policy and its partner take turns, all dialogues of a batch together.
//!
//! Owns who speaks when. What the parties see and which tokens stand between turns is `data::dialogue`'s.

use crate::data::Batch;
use crate::data::dialogue::{Dialogues, Start};
use crate::data::user::User;
use crate::engine::{Engine, ModelHandle, SampleOptions, SampleRequest};
use crate::error::{Error, Result};
use crate::model::rows::MOST_ROWS;
use crate::tensor::rng::Key;

const CALL: &str = "converse";

/// Who answers the policy. A model is shown the dialogue with the roles of user and assistant swapped.
pub enum Partner<'a> {
    User(&'a dyn User),
    Model(&'a ModelHandle),
}

/// How long dialogues are, and how the policy (and a model as user) chooses tokens.
pub struct ConverseOptions {
    /// How often the assistant speaks at most in a whole dialogue.
    pub turns: usize,
    /// `n` dialogues per prompt; `max_tokens` per turn.
    pub sample: SampleOptions,
}

/// Who talks about what.
pub struct ConverseRequest<'a> {
    pub policy: &'a ModelHandle,
    pub partner: Partner<'a>,
    pub start: Start<'a>,
    pub options: ConverseOptions,
    /// Of the policy and, where a model is the user, of the user.
    pub keys: [Key; 2],
}

/// Has the policy and its partner talk; one row for each dialogue, with the columns of [`Dialogues::batch`].
///
/// A dialogue ends when the user ends it, when the policy has spoken `turns` times, or when the context has no room for
/// the user's answer and another turn.
///
/// # Errors
/// Those of sampling and of [`Dialogues::begin`]; a chat template that changes what stands before a turn when the turn
/// follows.
pub fn converse(engine: &dyn Engine, request: &ConverseRequest) -> Result<Batch> {
    let ConverseRequest { policy, partner, start, options, keys } = request;
    policy.require_tokenizer(CALL)?;
    policy.require_chat(CALL)?;
    let n = options.sample.n;
    for (name, value) in [("turns", options.turns), ("n", n)] {
        if value == 0 {
            return Err(Error::value(format!("{CALL}: {name} must be at least 1, found 0")));
        }
    }
    let asked = start.len();
    if asked.saturating_mul(n) > MOST_ROWS {
        return Err(Error::value(format!("{CALL}: {asked} prompts × n = {n} are more than {MOST_ROWS} dialogues"))
            .hint("converse in several calls"));
    }
    let mut dialogues = Dialogues::begin(policy, start, n, options.turns)?;
    let each = SampleOptions { n: 1, seed: None, ..options.sample.clone() };
    let key = options.sample.seed.map_or(keys[0], Key::new);
    let mut active: Vec<usize> = (0..dialogues.len()).collect();
    for round in 0.. {
        let spoken = engine.sample(&SampleRequest {
            call: CALL,
            model: (*policy).clone(),
            prompts: dialogues.ids(&active),
            places: Some(active.clone()),
            options: each.clone(),
            key: key.fold(round),
        })?;
        dialogues.speak(&active, &spoken);
        active.retain(|&i| dialogues.turns(i) < options.turns);
        let replies = match partner {
            _ if active.is_empty() => Vec::new(),
            Partner::User(user) => active
                .iter()
                .map(|&i| user.reply(dialogues.messages(i), dialogues.fields(i)))
                .collect::<Result<Vec<_>>>()?,
            Partner::Model(model) => model_replies(engine, model, &dialogues, &active, (&each, keys[1].fold(round)))?,
        };
        let mut going = Vec::with_capacity(active.len());
        for (&i, reply) in active.iter().zip(replies) {
            if let Some(reply) = reply
                && dialogues.hear(i, policy, reply, each.max_tokens)?
            {
                going.push(i);
            }
        }
        active = going;
        if active.is_empty() {
            break;
        }
    }
    dialogues.batch(policy, options.sample.temperature)
}

/// What a model says as the user in each of the dialogues `active`; it never ends one.
fn model_replies(
    engine: &dyn Engine,
    model: &ModelHandle,
    dialogues: &Dialogues,
    active: &[usize],
    (options, key): (&SampleOptions, Key),
) -> Result<Vec<Option<String>>> {
    let call = "converse: the user";
    model.require_tokenizer(call)?;
    model.require_chat(call)?;
    let answers = engine.sample(&SampleRequest {
        call,
        model: model.clone(),
        prompts: dialogues.swapped(active).encode(model, false)?,
        places: Some(active.to_vec()),
        options: options.clone(),
        key,
    })?;
    Ok(answers.texts.into_iter().map(Some).collect())
}
