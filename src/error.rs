//! The one error type: what kind it is, what was found against what was expected, and what to do about it.
//!
//! Owns no rendering: `script::lang::diagnostics` adds the place in the script, `main` prints.

use std::any::Any;

/// What went wrong, coarsely: chooses the wording around an error, never its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Shapes that do not fit each other.
    Shape,
    /// An argument outside its range or of the wrong type.
    Value,
    /// A name that does not exist: an option, a column, a script, a task.
    Name,
    /// Differentiation: a stale leaf, a loss without a gradient, a model that the optimizer does not own.
    Gradient,
    /// Numbers that are not finite where they must be.
    NotFinite,
    /// A model folder, its configuration, weights or tokenizer.
    Model,
    /// A file or folder that could not be read or written.
    File,
    /// A device that does not exist or cannot do what was asked.
    Device,
    /// More memory than there is.
    Memory,
    /// Stopped by the user.
    Interrupted,
    /// A broken invariant of rhopo itself.
    Internal,
}

/// An error with its hint. The text says what was expected and what was found; the hint says what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    pub kind: Kind,
    pub what: String,
    pub hint: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), hint: None }
    }

    pub fn shape(what: impl Into<String>) -> Self {
        Self::new(Kind::Shape, what)
    }

    pub fn value(what: impl Into<String>) -> Self {
        Self::new(Kind::Value, what)
    }

    pub fn gradient(what: impl Into<String>) -> Self {
        Self::new(Kind::Gradient, what)
    }

    pub fn model(what: impl Into<String>) -> Self {
        Self::new(Kind::Model, what)
    }

    pub fn file(what: impl Into<String>) -> Self {
        Self::new(Kind::File, what)
    }

    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// `noun` called `found` does not exist; the nearest of `known` is suggested, or all of them are listed.
    pub fn unknown<S: AsRef<str>>(noun: &str, found: &str, known: &[S]) -> Self {
        let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
        let hint = match nearest(found, &known) {
            Some(name) => format!("did you mean `{name}`?"),
            None if known.is_empty() => format!("there is no {noun} to choose from"),
            None => format!("known: {}", known.join(", ")),
        };
        Self::new(Kind::Name, format!("unknown {noun} `{found}`")).hint(hint)
    }

    /// A panic: a defect of ours, whatever the script did.
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Self::new(Kind::Internal, format!("rhopo itself failed: {text}"))
            .hint("this is a defect of rhopo: please report it with the script that shows it")
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<candle_core::Error> for Error {
    fn from(mut e: candle_core::Error) -> Self {
        while let candle_core::Error::WithBacktrace { inner, .. } = e {
            e = *inner;
        }
        // A shape that reaches candle was not checked by us: the text is still the best there is.
        Self::new(Kind::Internal, e.to_string())
    }
}

/// The known name closest to `found` in spelling, if one is close enough to be meant; of equally close ones the one
/// nearest in length, as letters change places more often than they are left out.
pub fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let close = |name: &&str| strsim::damerau_levenshtein(found, name);
    let best = known.iter().copied().min_by_key(|name| (close(name), found.len().abs_diff(name.len())))?;
    let allowed = (found.chars().count().max(3) / 3).max(1);
    let prefix = best.len() >= 3 && found.len() >= 3 && (best.starts_with(found) || found.starts_with(best));
    (close(&best) <= allowed || prefix).then_some(best)
}
