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
}

/// Measures every row of a data set against a model: what `max_length` refuses is named by its place, what it drops is
/// taken out.
///
/// # Errors
/// Rows that are refused; rows whose prompt alone fills the room; a data set of which nothing is left.
pub fn fit(data: &mut Dataset, model: &ModelInfo, max: MaxLength) -> Result<Fitted> {
    let (mut keep, mut unfit) = (Vec::with_capacity(data.len()), Vec::new());
    for i in 0..data.len() {
        let fits = measure(data, i, model, max);
        keep.push(fits.is_ok());
        if let Err(e) = fits {
            unfit.push((data.place(i).to_string(), e));
        }
    }
    let Some((place, e)) = unfit.first() else { return Ok(Fitted { dropped: 0, first: None }) };
    // What is wrong with a row in another way is no question of its length.
    if let Some((place, e)) = unfit.iter().find(|(_, e)| matches!(e, Unfit::Other(_))) {
        return Err(at(place, e, ""));
    }
    if max.longer != Longer::Drop {
        let more = if unfit.len() > 1 { format!("; so are {} more rows", unfit.len() - 1) } else { String::new() };
        return Err(at(place, e, &more));
    }
    let (first, dropped) = (Some(place.clone()), unfit.len());
    if dropped == data.len() {
        return Err(at(&format!("no row is left: {place}"), e, ""));
    }
    data.retain(&keep);
    Ok(Fitted { dropped, first })
}

fn at(place: &str, e: &Unfit, more: &str) -> Error {
    let e = e.error();
    Error { what: format!("{place}: {}{more}", e.what), ..e.clone() }
}

/// Row `i` as `encode` would make it; bytes bound tokens, so most texts need not be tokenised.
fn measure(data: &Dataset, i: usize, model: &ModelInfo, max: MaxLength) -> std::result::Result<(), Unfit> {
    const BORDERS: usize = 4;
    let room = max.room(model);
    let encoder = || Encoder::new("load_data", model, false, max);
    let mut row = data.row(i);
    let texts = ["prompt", "completion", "chosen", "rejected"].map(|field| row.get(field).map(Value::as_str));
    let bytes: usize = texts.iter().flatten().map(|text| text.map_or(usize::MAX / 8, str::len)).sum();
    if bytes + BORDERS <= room {
        return Ok(());
    }
    let content = |row: &mut Map<String, Value>, field: &str| {
        Content::read(&format!("`{field}`"), row.remove(field).unwrap_or_default())
    };
    let prompt = content(&mut row, "prompt")?;
    match data.format() {
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
        Format::Completions | Format::Labelled => {
            let completion = content(&mut row, "completion")?;
            encoder()?.demo(&mut Made::default(), &Demo { prompt, completion, fields: row })
        }
        Format::Pairs => {
            let (chosen, rejected) = (content(&mut row, "chosen")?, content(&mut row, "rejected")?);
            encoder()?.pair(&mut Made::default(), &Pair { prompt: Some(prompt), chosen, rejected, fields: row })
        }
    }
}
