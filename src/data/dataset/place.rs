//! Where a row stands.

use std::fmt;
use std::rc::Rc;

/// Where a row stands, for errors: `pairs.jsonl, line 3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::data) struct Place {
    of: Rc<str>,
    unit: &'static str,
    number: usize,
}

impl Place {
    /// Lines count from 1.
    pub(super) fn line(of: &Rc<str>, number: usize) -> Self {
        Self { of: of.clone(), unit: "line", number }
    }

    /// Entries of an array count from 0.
    pub(super) fn entry(of: &Rc<str>, number: usize) -> Self {
        Self { of: of.clone(), unit: "entry", number }
    }

    /// Rows count from 1.
    pub(super) fn row(of: &Rc<str>, number: usize) -> Self {
        Self { of: of.clone(), unit: "row", number }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} {}", self.of, self.unit, self.number)
    }
}
