//! Given answers to prompts, to be weighed against each other: the rows that `logprob_of` measures.
//!
//! Owns which tokens are an answer's own. Where prompt and answer part is `encode`'s to say.

use super::encode::{Demo, Encoder, Made, Unfit};
use super::max_length::MaxLength;
use super::prompts::{Content, Prompts};
use crate::error::{Error, Result};
use crate::model::ModelInfo;
use crate::model::rows::{MOST_ROWS, Rows};
use crate::tensor::{Device, Tensor, count};
use std::sync::Arc;

/// What the answers are called in errors.
const FUNCTION: &str = "logprob_of";

/// Texts that may follow prompts.
#[derive(Debug, Clone, PartialEq)]
pub enum Answers {
    /// The same ones after every prompt.
    Shared(Vec<String>),
    /// Each prompt's own, as many for one as for another.
    Own(Vec<Vec<String>>),
}

impl Answers {
    /// Those of prompt `i`.
    fn of(&self, i: usize) -> &[String] {
        match self {
            Self::Shared(answers) => answers,
            Self::Own(answers) => &answers[i],
        }
    }

    /// How many each prompt has.
    ///
    /// # Errors
    /// None; other numbers of them; own ones of more or fewer prompts.
    fn width(&self, prompts: usize) -> Result<usize> {
        let wrong = |what: String| {
            Error::value(format!("`{FUNCTION}`: {what}"))
                .hint("completions are texts, [\"Yes\", \"No\"], or an array of them for each prompt")
        };
        if let Self::Own(own) = self
            && own.len() != prompts
        {
            return Err(wrong(format!("there are {prompts} prompts, but completions for {}", own.len())));
        }
        let n = self.of(0).len();
        if n == 0 {
            return Err(wrong("there are no completions, expected at least one".into()));
        }
        match (0..prompts).find(|&i| self.of(i).len() != n) {
            Some(i) => Err(wrong(format!("prompt {i} has {} completions, but prompt 0 has {n}", self.of(i).len()))),
            None => Ok(n),
        }
    }
}

/// What is asked.
#[derive(Debug)]
pub struct Asked<'a> {
    pub prompts: &'a Prompts,
    pub answers: &'a Answers,
    /// Whether the token that ends an answer counts.
    pub end: bool,
    /// Whether special tokens written out in texts are control tokens.
    pub special: bool,
}

/// Rows of every prompt with each of its answers, those of one prompt adjacent; a mask `[B·n,T]` of what counts; and n.
///
/// # Errors
/// Those of `encode::encode`, by prompt and completion; answers that are not as many for each prompt; too many rows.
pub fn rows(model: &ModelInfo, asked: &Asked) -> Result<(Arc<Rows>, Tensor, usize)> {
    let &Asked { prompts, answers, end, special } = asked;
    let n = answers.width(prompts.len())?;
    let all = prompts.len().saturating_mul(n);
    if all > MOST_ROWS {
        let found = format!("{} prompts × {n} completions are {all} rows", prompts.len());
        return Err(Error::value(format!("`{FUNCTION}`: {found}, at most {MOST_ROWS}")));
    }
    let encoder = Encoder::new(FUNCTION, model, special, MaxLength::default())?;
    let mut made = Made::default();
    for (i, prompt) in prompts.items.iter().enumerate() {
        for (j, answer) in answers.of(i).iter().enumerate() {
            let demo = Demo {
                prompt: prompt.content.clone(),
                completion: Content::Text(answer.clone()),
                fields: prompt.fields.clone(),
            };
            encoder.demo(&mut made, &demo).map_err(|unfit| placed(unfit, i, j))?;
        }
    }
    let rows = made.rows(model);
    let width = rows.width();
    let mut mask = Vec::with_capacity(count(&[rows.len(), width])?);
    for (i, row) in rows.iter().enumerate() {
        let own = row.completion.len() - usize::from(!end);
        mask.resize(i * width + own, 1.0);
        mask.resize((i + 1) * width, 0.0);
    }
    let mask = Tensor::from_vec(mask, &[rows.len(), width], &Device::Cpu)?;
    Ok((rows, mask, n))
}

fn placed(unfit: Unfit, prompt: usize, answer: usize) -> Error {
    let e = match unfit {
        // Nothing is cut here, so there is no length to choose.
        Unfit::TooLong(e) => Error { hint: Some("shorten the prompt".into()), ..e },
        Unfit::Other(e) => e,
    };
    Error { what: format!("{FUNCTION}: prompt {prompt}, completion {answer}: {}", e.what), ..e }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prompt_has_as_many_answers() {
        let text = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        let width = |answers: Answers, prompts| answers.width(prompts).map_err(|e| e.what);
        assert_eq!(width(Answers::Shared(text(&["a", "b"])), 3), Ok(2));
        assert_eq!(width(Answers::Own(vec![text(&["a"]), text(&["b"])]), 2), Ok(1));
        let none = "`logprob_of`: there are no completions, expected at least one";
        assert_eq!(width(Answers::Shared(Vec::new()), 3), Err(none.into()));
        let other = "`logprob_of`: there are 3 prompts, but completions for 1";
        assert_eq!(width(Answers::Own(vec![text(&["a"])]), 3), Err(other.into()));
        let fewer = "`logprob_of`: prompt 1 has 1 completions, but prompt 0 has 2";
        assert_eq!(width(Answers::Own(vec![text(&["a", "b"]), text(&["c"])]), 2), Err(fewer.into()));
    }
}
