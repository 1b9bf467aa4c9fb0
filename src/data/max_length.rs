//! What `max_length` means: the tokens of a row at most, and what becomes of longer ones.

use crate::error::{Error, Result};
use crate::model::ModelInfo;

/// What happens to longer rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Longer {
    /// An error that names the first of them.
    #[default]
    Refuse,
    /// They are left out when data is loaded.
    Drop,
    /// Their completions end there, without an end token.
    Cut,
}

/// The tokens of a row at most, and what happens to longer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaxLength {
    /// The model's context unless given.
    pub tokens: Option<usize>,
    /// Where that is said.
    pub longer: Option<Longer>,
}

impl MaxLength {
    /// `drop`, `cut 512`, `refuse 512`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::value(format!("max_length is {text:?}")).hint(
                "a number of tokens, or what becomes of longer rows: \"drop\", \"cut\", \"drop 512\", \"cut 512\"",
            )
        };
        let mut words = text.split_whitespace();
        let longer = match words.next() {
            Some("refuse") => Longer::Refuse,
            Some("drop") => Longer::Drop,
            Some("cut") => Longer::Cut,
            _ => return Err(wrong()),
        };
        let tokens = words.next().map(|n| n.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)).transpose()?;
        if words.next().is_some() { Err(wrong()) } else { Ok(Self { tokens, longer: Some(longer) }) }
    }

    /// What happens to longer rows: they are refused unless it is said.
    pub fn of_answers(&self) -> Longer {
        self.longer.unwrap_or_default()
    }

    /// What happens to longer texts without a prompt, whose beginning is a text as well: they end there unless it is said.
    pub fn of_texts(&self) -> Longer {
        self.longer.unwrap_or(Longer::Cut)
    }

    /// The tokens that a row of this model may have.
    pub fn room(&self, model: &ModelInfo) -> usize {
        self.tokens.map_or(model.context, |tokens| tokens.min(model.context))
    }
}

/// The error for a row that is too long.
pub(super) fn too_long(what: String) -> Error {
    let hint = "shorten the row, or say what becomes of such rows: max_length \"drop\" leaves them out, \"cut\" ends them there";
    Error::value(what).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_length_is_a_word_and_a_number() {
        let read = |text: &str| MaxLength::parse(text).map_err(|e| e.what);
        assert_eq!(read("drop"), Ok(MaxLength { tokens: None, longer: Some(Longer::Drop) }));
        assert_eq!(read("cut 512"), Ok(MaxLength { tokens: Some(512), longer: Some(Longer::Cut) }));
        assert_eq!(read("refuse 9"), Ok(MaxLength { tokens: Some(9), longer: Some(Longer::Refuse) }));
        let plain = MaxLength { tokens: Some(512), longer: None };
        assert_eq!((plain.of_answers(), plain.of_texts()), (Longer::Refuse, Longer::Cut));
        let said = MaxLength::parse("refuse 9").expect("a length");
        assert_eq!((said.of_answers(), said.of_texts()), (Longer::Refuse, Longer::Refuse));
        for wrong in ["", "512 drop", "drop 0", "cut 5 6", "keep"] {
            assert_eq!(read(wrong), Err(format!("max_length is {wrong:?}")));
        }
    }
}
