//! A question about a run: an expression of the language over names and their values, which is true or false.

use crate::error::{Error, Kind, Result};
use crate::script::builder::free_words;
use crate::script::lang::value::{describe, from_json};
use rhai::{AST, Dynamic, Engine, EvalAltResult, Scope};
use serde_json::{Map, Value};

/// An expression, read once.
pub struct Query {
    engine: Engine,
    expression: AST,
    text: String,
}

impl Query {
    /// # Errors
    /// A text that is no expression.
    pub fn new(text: &str) -> Result<Self> {
        let mut engine = Engine::new();
        free_words(&mut engine);
        let read = engine.compile_expression(text);
        let expression = read.map_err(|e| {
            Error::value(format!("`{text}` is not an expression: {}", e.err_type()))
                .hint("for instance: clip > 0.1 && state == \"finished\"")
        })?;
        Ok(Self { engine, expression, text: text.to_string() })
    }

    /// Whether it is true of these values; a `/` in a name is written `_`. A name of `known` that is not among them has no value, and compares with none.
    ///
    /// # Errors
    /// A name that is not known; anything but true or false.
    pub fn holds(&self, values: &Map<String, Value>, known: &[String]) -> Result<bool> {
        let mut scope = Scope::new();
        for name in known {
            scope.push_dynamic(written(name), values.get(name).map_or(Dynamic::UNIT, from_json));
        }
        let value = self.engine.eval_ast_with_scope::<Dynamic>(&mut scope, &self.expression);
        let value = value.map_err(|e| match *e {
            EvalAltResult::ErrorVariableNotFound(ref name, _) => self.unknown(name, known),
            e => Error::value(format!("`{}` cannot be evaluated: {e}", self.text)),
        })?;
        let found = describe(&value);
        value.as_bool().map_err(|_| Error::value(format!("`{}` must be true or false, found {found}", self.text)))
    }

    fn unknown(&self, name: &str, known: &[String]) -> Error {
        let quotient = known.iter().find(|known| known.contains('/') && self.text.contains(known.as_str()));
        match quotient {
            Some(meant) => Error::new(Kind::Name, format!("unknown name `{name}`"))
                .hint(format!("`{meant}` is a quotient here: its name is written `{}`", written(meant))),
            None => Error::unknown("name", name, &known.iter().map(|known| written(known)).collect::<Vec<_>>()),
        }
    }
}

/// How a name stands in an expression, where `seconds/sample` would be a quotient.
pub fn written(name: &str) -> String {
    name.replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(text: &str) -> Result<bool> {
        let values =
            json!({ "clip": 0.2, "script": "grpo", "step": 3, "keep": true, "eval": 0.7, "seconds/sample": 0.5 });
        let known = ["clip", "script", "step", "keep", "beta", "eval", "seconds/sample"].map(str::to_string);
        Query::new(text)?.holds(values.as_object().expect("an object"), &known)
    }

    #[test]
    fn expressions_are_about_a_runs_values() {
        for text in [
            "clip > 0.1 && script == \"grpo\"",
            "step >= 3",
            "keep",
            "clip * 10 == step - 1",
            "clip == 0.2",
            "eval > 0.6",
            "seconds_sample < 1",
        ] {
            assert!(ask(text).expect(text), "{text}");
        }
        for text in ["clip > 1", "beta > 0.0", "beta == 0.1", "!keep"] {
            assert!(!ask(text).expect(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_question_is_refused() {
        assert_eq!(ask("clipp > 1").expect_err("a name").hint.as_deref(), Some("did you mean `clip`?"));
        let quotient = ask("seconds/sample < 1").expect_err("a quotient").hint.expect("advice");
        assert!(quotient.ends_with("its name is written `seconds_sample`"), "{quotient}");
        let known = ask("qqqqqqqq > 1").expect_err("a name").hint.expect("advice");
        assert!(known.contains("seconds_sample") && !known.contains('/'), "{known}");
        assert!(ask("clip + 1").expect_err("a number").what.contains("must be true or false"));
        assert!(ask("clip >").expect_err("half").what.contains("is not an expression"));
        assert!(ask("clip > 1; let x = 2").is_err(), "statements");
    }
}
