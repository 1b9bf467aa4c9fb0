//! Rows longer than a model, or the user, has room for, found before any step: each is measured as `encode` makes it.

use super::dataset::{Dataset, Format};
use super::encode::{Demo, Encoder, Made, Pair, Unfit};
use super::max_length::{Longer, MaxLength, too_long};
use super::prompts::{Content, Prompt, Prompts};
use crate::error::{Error, Result};
use crate::model::ModelInfo;
use serde_json::{Map, Value};

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Fitted {
    /// Rows that were left out.
    pub dropped: usize,
    /// Where the first of them stands.
    pub first: Option<String>,
    /// Texts that will be cut.
    pub cut: usize,
}

/// Measures every row of a data set against a model: what `max_length` refuses is named by its place, what it drops is
/// taken out.
///
/// # Errors
/// Rows that are refused; rows whose prompt alone fills the room; a data set of which nothing is left.
pub fn fit(data: &mut Dataset, model: &ModelInfo, max: MaxLength) -> Result<Fitted> {
    let (mut keep, mut unfit, mut cut) = (Vec::with_capacity(data.len()), Vec::new(), 0);
    for i in 0..data.len() {
        let fits = measure(data, i, model, max);
        keep.push(fits.is_ok());
        match fits {
            Ok(whole) => cut += usize::from(!whole),
            Err(e) => unfit.push((data.place(i).to_string(), e)),
        }
    }
    let Some((place, e)) = unfit.first() else { return Ok(Fitted { dropped: 0, first: None, cut }) };
    // What is wrong with a row in another way is no question of its length.
    if let Some((place, e)) = unfit.iter().find(|(_, e)| matches!(e, Unfit::Other(_))) {
        return Err(at(place, e, ""));
    }
    if max.longer != Some(Longer::Drop) {
        let more = if unfit.len() > 1 { format!("; so are {} more rows", unfit.len() - 1) } else { String::new() };
        return Err(at(place, e, &more));
    }
    let (first, dropped) = (Some(place.clone()), unfit.len());
    if dropped == data.len() {
        return Err(at(&format!("no row is left: {place}"), e, ""));
    }
    data.retain(&keep);
    Ok(Fitted { dropped, first, cut })
}

/// That there are not as many log-probs as tokens.
fn unlike(numbers: usize, tokens: usize) -> Error {
    Error::value(format!("`logprob` has {numbers} numbers, but `completion` has {tokens} tokens with its end"))
        .hint("give one number for each token, with or without the end's, or one for the whole answer")
}

fn at(place: &str, e: &Unfit, more: &str) -> Error {
    let e = e.error();
    Error { what: format!("{place}: {}{more}", e.what), ..e.clone() }
}

/// Row `i` as `encode` would make it, and whether it is a text that stays whole; bytes bound tokens, so most texts need
/// not be tokenised.
fn measure(data: &Dataset, i: usize, model: &ModelInfo, max: MaxLength) -> std::result::Result<bool, Unfit> {
    const BORDERS: usize = 4;
    let room = max.room(model);
    let encoder = || Encoder::new("load_data", model, false, max);
    let mut row = data.example(i);
    let fields = ["text", "messages", "prompt", "completion", "chosen", "rejected"];
    let texts = fields.map(|field| row.get(field).map(Value::as_str));
    let bytes: usize = texts.iter().flatten().map(|text| text.map_or(usize::MAX / 8, str::len)).sum();
    let weighed = row.get("logprob").and_then(Value::as_array).map(Vec::len);
    let weighed = weighed.filter(|_| data.format() == Format::Rewarded);
    if bytes + BORDERS <= room && weighed.is_none() {
        return Ok(true);
    }
    let content = |row: &mut Map<String, Value>, field: &str| {
        Content::read(&format!("`{field}`"), row.remove(field).unwrap_or_default())
    };
    if data.format() == Format::Texts {
        let text = row.remove("text").unwrap_or_default();
        return encoder()?.text(&mut Made::default(), text.as_str().unwrap_or_default(), &row).map(|n| n <= room);
    }
    if data.format() == Format::Completions && !row.contains_key("prompt") {
        let messages = row.remove("messages").unwrap_or_default();
        let messages = messages.as_array().map_or(&[][..], Vec::as_slice);
        return encoder()?.dialogue(&mut Made::default(), messages, &row).map(|()| true);
    }
    let prompt = content(&mut row, "prompt")?;
    let made = match data.format() {
        Format::Texts => Ok(()),
        Format::Prompts => {
            let asked = Prompts::of(vec![Prompt { content: prompt, fields: row }]);
            let tokens = asked.encode(model, false)?[0].len();
            match tokens < room {
                true => Ok(()),
                false => Err(Unfit::TooLong(too_long(format!(
                    "`prompt` has {tokens} tokens, which leaves no room for an answer within {room}"
                )))),
            }
        }
        Format::Completions | Format::Labelled | Format::Rewarded => {
            let completion = content(&mut row, "completion")?;
            let mut made = Made::default();
            encoder()?.demo(&mut made, &Demo { prompt, completion, fields: row })?;
            let tokens = made.rows(model)[0].completion.len();
            match weighed.filter(|&numbers| numbers != tokens && numbers + 1 != tokens) {
                None => Ok(()),
                Some(numbers) => Err(unlike(numbers, tokens).into()),
            }
        }
        Format::Pairs => {
            let (chosen, rejected) = (content(&mut row, "chosen")?, content(&mut row, "rejected")?);
            encoder()?.pair(&mut Made::default(), &Pair { prompt: Some(prompt), chosen, rejected, fields: row })
        }
    };
    made.map(|()| true)
}
