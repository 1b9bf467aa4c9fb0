//! Typed reading of the one trailing option map that functions take: `sample(model, prompts, #{ n: 8 })`.
//!
//! Owns no defaults and no ranges: callers do.

use crate::error::{Error, Kind, Result};
use rhai::{Array, Dynamic, FLOAT, INT, Map};

/// An option map being read. Every key that is asked for is a known one; `finish` refuses the rest.
#[derive(Debug)]
pub struct Options {
    function: &'static str,
    map: Map,
    known: Vec<&'static str>,
}

impl Options {
    /// `function` is named in errors. Takes a map, or `()` for none.
    pub fn new(function: &'static str, map: impl Into<Dynamic>) -> Result<Self> {
        let map: Dynamic = map.into();
        let map = match map.is_unit() {
            true => Map::new(),
            false => map.try_cast_result::<Map>().map_err(|other| {
                Error::value(format!("`{function}`: options must be a map, found {}", describe(&other)))
                    .hint("write them as #{ name: value, … }")
            })?,
        };
        Ok(Self { function, map, known: Vec::new() })
    }

    pub fn float(&mut self, key: &'static str) -> Result<Option<f64>> {
        self.read(key, "a number", |v| v.as_float().or_else(|_| v.as_int().map(|i| i as FLOAT)).ok())
    }

    pub fn int(&mut self, key: &'static str) -> Result<Option<i64>> {
        self.read(key, "a whole number", |v| v.as_int().ok())
    }

    /// A count: a whole number that is not negative.
    pub fn count(&mut self, key: &'static str) -> Result<Option<usize>> {
        self.read(key, "a whole number, 0 or more", |v| v.as_int().ok().and_then(|i: INT| i.try_into().ok()))
    }

    pub fn bool(&mut self, key: &'static str) -> Result<Option<bool>> {
        self.read(key, "true or false", |v| v.as_bool().ok())
    }

    pub fn string(&mut self, key: &'static str) -> Result<Option<String>> {
        self.read(key, "a string", |v| v.clone().into_string().ok())
    }

    /// An array of strings; one string stands for an array of one.
    pub fn strings(&mut self, key: &'static str) -> Result<Option<Vec<String>>> {
        self.read(key, "an array of strings", |v| match v.clone().into_string() {
            Ok(one) => Some(vec![one]),
            Err(_) => v.as_array_ref().ok()?.iter().map(|x| x.clone().into_string().ok()).collect(),
        })
    }

    pub fn floats(&mut self, key: &'static str) -> Result<Option<Vec<f64>>> {
        self.read(key, "an array of numbers", |v| {
            let number = |x: &Dynamic| x.as_float().or_else(|_| x.as_int().map(|i| i as FLOAT)).ok();
            v.as_array_ref().ok()?.iter().map(number).collect()
        })
    }

    pub fn map(&mut self, key: &'static str) -> Result<Option<Map>> {
        self.read(key, "a map", |v| v.as_map_ref().ok().map(|m| m.clone()))
    }

    pub fn array(&mut self, key: &'static str) -> Result<Option<Array>> {
        self.read(key, "an array", |v| v.as_array_ref().ok().map(|a| a.clone()))
    }

    /// Whatever was given: a handle, a tensor, a closure.
    pub fn value(&mut self, key: &'static str) -> Option<Dynamic> {
        self.known.push(key);
        self.map.remove(key).filter(|v| !v.is_unit())
    }

    /// The keys that were asked for.
    #[cfg(test)]
    pub fn known(&self) -> &[&'static str] {
        &self.known
    }

    /// Refuses keys that were never asked for, suggesting the nearest one that was.
    pub fn finish(self) -> Result<()> {
        let Some(key) = self.map.keys().next() else { return Ok(()) };
        Err(Error::unknown(&format!("option of `{}`:", self.function), key, &self.known))
    }

    fn read<T>(&mut self, key: &'static str, want: &str, get: impl Fn(&Dynamic) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let wrong = || {
            let (function, found) = (self.function, describe(&value));
            Error::new(Kind::Value, format!("`{function}`: option `{key}` must be {want}, found {found}"))
        };
        get(&value).map(Some).ok_or_else(wrong)
    }
}

/// A value as error texts name it: `the float 0.5`, `a Tensor`.
pub fn describe(value: &Dynamic) -> String {
    match value.type_name() {
        "()" => "nothing".into(),
        "i64" => format!("the int {value}"),
        "f64" => format!("the float {value}"),
        "bool" => format!("{value}"),
        "string" => format!("the string {value:?}"),
        "array" => "an array".into(),
        "map" => "a map".into(),
        "Fn" => "a function".into(),
        other => format!("a {}", other.rsplit("::").next().unwrap_or(other).trim_end_matches('>')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        let map: Map = rhai::Engine::new().eval(text).expect("a map");
        Options::new("sample", map).expect("options")
    }

    #[test]
    fn ints_serve_as_floats_and_absent_keys_are_none() {
        let mut o = options("#{ lr: 1, betas: [0, 0.5] }");
        assert_eq!(o.float("lr").expect("lr"), Some(1.0));
        assert_eq!(o.floats("betas").expect("betas"), Some(vec![0.0, 0.5]));
        assert_eq!(o.int("n").expect("n"), None);
        o.finish().expect("nothing left");
    }

    #[test]
    fn a_wrong_type_says_what_was_found() {
        let e = options("#{ n: 2.5 }").int("n").expect_err("a float is no int");
        assert_eq!(e.to_string(), "`sample`: option `n` must be a whole number, found the float 2.5");
    }

    #[test]
    fn an_unknown_key_gets_a_suggestion() {
        let mut o = options("#{ temprature: 1.0 }");
        o.float("temperature").expect("absent");
        let e = o.finish().expect_err("misspelt");
        assert_eq!(e.to_string(), "unknown option of `sample`: `temprature`");
        assert_eq!(e.hint.as_deref(), Some("did you mean `temperature`?"));
    }

    #[test]
    fn options_must_be_a_map() {
        let e = Options::new("sample", Dynamic::from(3_i64)).expect_err("an int");
        assert_eq!(e.to_string(), "`sample`: options must be a map, found the int 3");
    }
}
