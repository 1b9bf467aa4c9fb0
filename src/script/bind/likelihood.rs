//! How likely given answers are, in scripts.

use super::encode::AskedAnew;
use super::model::AnyModel;
use crate::data::answers::{self, Answers, Asked};
use crate::engine::{self, ForwardRequest, Measure, ModelHandle};
use crate::error::Result;
use crate::model::Head;
use crate::rl::mask::seq_sum;
use crate::script::lang::native::{Call, FromScript, Options, Place, Registry, Typed, options};
use crate::tensor::Tensor;
use rhai::{Array, Dynamic};
use std::any::TypeId;

/// Declares it among what measures.
pub fn register(reg: &mut Registry) {
    reg.function(
        "logprob_of",
        ["model", "prompts", "completions", "options"],
        |call: &Call,
         AnyModel(model): AnyModel,
         prompts: AskedAnew,
         completions: Completions,
         Options(Weighing { end, special }): Options<Weighing>| {
            logprob_of(call, model, &Asked { prompts: &prompts.0, answers: &completions.0, end, special })
        },
    );
}

options! {
    struct Weighing {
        /// whether the token that ends an answer counts as well
        end: bool = false,
        /// whether special tokens written out in prompts and completions are control tokens
        special: bool = false,
    }
}

/// Texts, or an array of texts for each prompt.
struct Completions(Answers);

impl Typed for Completions {
    const TYPE: &'static str = "array";
}

impl FromScript for Completions {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Array>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        let items = <Array as FromScript>::read(value, place)?;
        let texts = |items: &Array| {
            let text = |item: &Dynamic| match item.as_immutable_string_ref() {
                Ok(text) => Ok(text.to_string()),
                Err(_) => Err(place.wrong("texts, or an array of texts for each prompt", item)),
            };
            items.iter().map(text).collect::<Result<Vec<String>>>()
        };
        if !items.first().is_some_and(Dynamic::is_array) {
            return texts(&items).map(Answers::Shared).map(Self);
        }
        let own = |item: &Dynamic| match item.as_array_ref() {
            Ok(items) => texts(&items),
            Err(_) => Err(place.wrong("an array of texts for each prompt", item)),
        };
        items.iter().map(own).collect::<Result<_>>().map(Answers::Own).map(Self)
    }
}

/// The log-probability of each completion after each prompt, `[B,n]`.
fn logprob_of(call: &Call<'_>, model: ModelHandle, asked: &Asked) -> Result<Tensor> {
    model.require_head(Head::Lm, call.function)?;
    let (rows, mask, n) = answers::rows(&model, asked)?;
    let request = ForwardRequest { model, rows, temperature: 1.0, measure: Measure::Logprob };
    let logp = engine::measure(call.session.engine(), &request, &call.site())?;
    seq_sum(&logp, &mask)?.reshape(&[-1, n as i64])
}
