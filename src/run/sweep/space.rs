//! What a sweep varies: a hyper-parameter with the values that it may take, as the command line says them, and values drawn
//! from it. Owns no order of trials and no random numbers.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

const LOG: &str = "log:";
const LIN: &str = "lin:";
const UP_TO: &str = "..";
/// From here on a range is walked in factors.
const DECADE: f64 = 10.0;

/// A hyper-parameter and what it may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    pub name: String,
    pub values: Values,
}

/// What it may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Values {
    List(Vec<String>),
    Range(Range),
}

/// Every number between two, both among them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Range {
    pub low: f64,
    pub high: f64,
    /// Equal factors are equally likely, not equal differences.
    pub log: bool,
    /// Whole numbers alone.
    pub whole: bool,
}

impl Axis {
    /// Reads `0.1,0.3`, `'a,b',c`, `[1, 2],[3]`, `1e-5..1e-3`, `16..64`, `lin:0.1..10.0`.
    ///
    /// # Errors
    /// An empty value, one that stands twice, a quote or bracket that does not close, a range of nothing.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::value(format!("--set {name}={text}: {what}"));
        if let Some(range) = Range::parse(text).map_err(|what| wrong(&what))? {
            return Ok(Self { name: name.to_string(), values: Values::Range(range) });
        }
        let list = split(text).map_err(|what| wrong(&what))?;
        if list.len() > 1 && list.iter().any(String::is_empty) {
            return Err(wrong("a value is empty").hint("write an empty text as ''"));
        }
        for (i, value) in list.iter().enumerate() {
            if list[..i].contains(value) {
                return Err(wrong(&format!("{value} stands twice")));
            }
            if list.len() > 1 && matches!(Range::parse(value), Ok(Some(_)) | Err(_)) {
                return Err(wrong("a range stands alone").hint("give a range or values, such as 0.1,0.2"));
            }
        }
        Ok(Self { name: name.to_string(), values: Values::List(list) })
    }

    /// Whether there is a value to take, whoever wrote it down.
    pub fn is_sound(&self) -> bool {
        match &self.values {
            Values::List(list) => !list.is_empty(),
            Values::Range(range) => range.low < range.high && (range.low > 0.0 || !range.log) && range.high.is_finite(),
        }
    }

    /// Whether trials differ in it.
    pub fn varies(&self) -> bool {
        match &self.values {
            Values::List(list) => list.len() > 1,
            Values::Range(_) => true,
        }
    }

    /// Values that show whether it fits its hyper-parameter: all of a list, the ends of a range.
    pub fn samples(&self) -> Vec<String> {
        match &self.values {
            Values::List(list) => list.clone(),
            Values::Range(range) => vec![range.at(0.0), range.at(1.0)],
        }
    }

    /// The value at a place, from 0 to below 1.
    pub fn at(&self, place: f64) -> String {
        match &self.values {
            Values::List(list) => {
                let i = (place * list.len() as f64) as usize;
                list.get(i).or(list.last()).cloned().unwrap_or_default()
            }
            Values::Range(range) => range.at(place),
        }
    }
}

impl Range {
    /// Nothing where a text is no range: `../rows.jsonl` is a path.
    fn parse(text: &str) -> std::result::Result<Option<Self>, String> {
        let text = text.trim();
        let (log, plain) = match (text.strip_prefix(LOG), text.strip_prefix(LIN)) {
            (Some(rest), _) => (Some(true), rest),
            (_, Some(rest)) => (Some(false), rest),
            _ => (None, text),
        };
        let Some((low, high)) = plain.split_once(UP_TO).map(|(low, high)| (low.trim(), high.trim())) else {
            return Ok(None);
        };
        let (Ok(first), Ok(last)) = (low.parse::<f64>(), high.parse::<f64>()) else { return Ok(None) };
        if !(first.is_finite() && last.is_finite() && first < last) {
            return Err("a range goes from a number to a larger one".to_string());
        }
        if log == Some(true) && first <= 0.0 {
            return Err("factors need numbers above 0".to_string());
        }
        let whole = |text: &str, x: f64| !text.contains('.') && x.fract() == 0.0 && x.abs() < 9e15;
        Ok(Some(Self {
            low: first,
            high: last,
            log: log.unwrap_or(first > 0.0 && last / first > DECADE),
            whole: whole(low, first) && whole(high, last),
        }))
    }

    /// The number at a place from 0 to 1, written with four digits: what is run is what is read.
    fn at(&self, place: f64) -> String {
        // Each whole number has a share of the same length, or factor.
        let high = if self.whole { self.high + 1.0 } else { self.high };
        let x = match self.log {
            true => (self.low.ln() * (1.0 - place) + high.ln() * place).exp(),
            false => self.low * (1.0 - place) + high * place,
        };
        if self.whole {
            return format!("{:.0}", x.floor().clamp(self.low, self.high));
        }
        let rounded = format!("{x:.3e}").parse().unwrap_or(x);
        format!("{:?}", f64::clamp(rounded, self.low, self.high))
    }
}

/// The parts between commas that stand in no quotes and no brackets.
fn split(text: &str) -> std::result::Result<Vec<String>, String> {
    let (mut parts, mut quote, mut depth) = (vec![String::new()], None, 0_usize);
    for c in text.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, '[' | '(' | '{') => depth += 1,
            (None, ']' | ')' | '}') => depth = depth.checked_sub(1).ok_or("a bracket closes that did not open")?,
            (None, ',') if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("there is one at least").push(c);
    }
    match (quote, depth) {
        (Some(quote), _) => Err(format!("a quote {quote} does not close")),
        (None, 1..) => Err("a bracket does not close".to_string()),
        (None, 0) => Ok(parts.into_iter().map(|part| part.trim().to_string()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        match Axis::parse("x", text).expect(text).values {
            Values::List(list) => list,
            Values::Range(range) => panic!("{text}: {range:?}"),
        }
    }

    fn range(text: &str) -> Range {
        match Axis::parse("x", text).expect(text).values {
            Values::Range(range) => range,
            Values::List(list) => panic!("{text}: {list:?}"),
        }
    }

    #[test]
    fn values_stand_between_commas_and_may_hold_some() {
        assert_eq!(list("0.1, 0.3"), ["0.1", "0.3"]);
        assert_eq!(list("'a,b',c"), ["'a,b'", "c"]);
        assert_eq!(list("[1, 2],[3]"), ["[1, 2]", "[3]"]);
        assert_eq!(list("#{a: 1, b: 2}"), ["#{a: 1, b: 2}"]);
        assert_eq!(list(""), [""]);
        assert_eq!(list("../rows.jsonl,a..b"), ["../rows.jsonl", "a..b"]);
    }

    #[test]
    fn ranges_are_of_factors_where_they_are_long_and_whole_where_their_ends_are() {
        let of = |low, high, log, whole| Range { low, high, log, whole };
        for (text, expected) in [
            ("1e-5..1e-3", of(1e-5, 1e-3, true, false)),
            ("0.1..0.3", of(0.1, 0.3, false, false)),
            ("0.1..1.0", of(0.1, 1.0, false, false)),
            ("lin:1e-5..1e-3", of(1e-5, 1e-3, false, false)),
            ("log:0.1..0.3", of(0.1, 0.3, true, false)),
            ("16..64", of(16.0, 64.0, false, true)),
            ("1..1000", of(1.0, 1000.0, true, true)),
            ("0..1", of(0.0, 1.0, false, true)),
            ("0.0..1.0", of(0.0, 1.0, false, false)),
            ("-2..2", of(-2.0, 2.0, false, true)),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
    }

    #[test]
    fn what_says_nothing_is_refused() {
        for (text, told) in [
            ("0.3..0.1", "to a larger one"),
            ("1..1", "to a larger one"),
            ("0..inf", "to a larger one"),
            ("log:0..1", "numbers above 0"),
            ("0.1,,0.3", "a value is empty"),
            ("0.1,", "a value is empty"),
            ("0.1,0.1", "0.1 stands twice"),
            ("0.1..0.2,0.3", "a range stands alone"),
            ("'a,b", "does not close"),
            ("[1,2", "does not close"),
            ("1]", "did not open"),
        ] {
            let e = Axis::parse("x", text).expect_err(text);
            assert!(e.what.contains(told) && e.what.starts_with("--set x="), "{text}: {e}");
        }
    }

    #[test]
    fn places_are_numbers_between_the_ends() {
        let at = |text: &str, place: f64| Axis::parse("x", text).expect(text).at(place);
        assert_eq!([at("1e-5..1e-3", 0.0), at("1e-5..1e-3", 0.5), at("1e-5..1e-3", 1.0)], ["1e-5", "0.0001", "0.001"]);
        assert_eq!([at("0.1..0.3", 0.25), at("0.1..0.3", 1.0 / 3.0)], ["0.15", "0.1667"]);
        assert_eq!([at("16..64", 0.0), at("16..64", 0.999_999), at("16..64", 1.0)], ["16", "64", "64"]);
        // Thirds of 1, 2, 3.
        assert_eq!([0.0, 0.34, 0.67].map(|place| at("1..3", place)), ["1", "2", "3"]);
        assert_eq!([0.0, 0.49, 0.5, 0.99].map(|place| at("a,b", place)), ["a", "a", "b", "b"]);
    }
}
