//! Which rows a model can take.

use crate::error::{Error, Kind, Result};
use crate::model::ModelInfo;
use crate::model::rows::Rows;
use std::collections::BTreeSet;

/// Rows that `model` can score.
pub(super) fn check_for(rows: &Rows, model: &ModelInfo) -> Result<()> {
    if let (Some(rows), Some(model_has)) = (rows.vocabulary(), model.vocabulary())
        && rows != model_has
    {
        return Err(Error::value(format!(
            "the rows hold token ids of another tokenizer than the model {}'s",
            model.name
        ))
        .hint(
            "a teacher, a judge or a reference needs the policy's vocabulary; or encode the texts anew with this model",
        ));
    }
    check_rows(rows, model.vocab_size, model.context)
}

/// Tokens whose keys and values are held while such rows are sampled: those of each prompt once, and each row's own.
pub(super) fn cached(rows: &Rows) -> u64 {
    let prompts: BTreeSet<&[u32]> = rows.iter().map(|row| &*row.prompt).collect();
    let own = rows.iter().map(|row| row.completion.len());
    prompts.into_iter().map(<[u32]>::len).chain(own).sum::<usize>() as u64
}

/// Rows that a model of this vocabulary and context can score.
pub(super) fn check_rows(rows: &Rows, vocabulary: usize, context: usize) -> Result<()> {
    for (i, row) in rows.iter().enumerate() {
        if row.prompt.is_empty() {
            return Err(Error::value(format!("row {i} has an empty prompt: its first token has nothing to follow"))
                .hint("start the prompt with a begin-of-text token or any text"));
        }
        if let Some(id) = row.prompt.iter().chain(&*row.completion).find(|&&id| id as usize >= vocabulary) {
            return Err(Error::value(format!(
                "row {i} holds token {id}, but the model's vocabulary has {vocabulary} tokens"
            ))
            .hint("encode the rows with this model's own tokenizer"));
        }
        let length = row.prompt.len() + row.completion.len();
        if length > context {
            return Err(Error::new(
                Kind::Value,
                format!("row {i} has {length} tokens, but the model's context holds {context}"),
            )
            .hint("shorten the prompt or lower max_tokens"));
        }
    }
    Ok(())
}
