//! Which maps of a model an adapter's configuration means, as PEFT matches their names.

use super::ALL;
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::trunk::names;
use fancy_regex::Regex;
use serde_json::{Map, Value, json};

/// `target_modules` and what narrows it.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    among: Names,
    /// `exclude_modules`.
    except: Option<Names>,
    /// `layers_to_transform`: these layers alone.
    layers: Option<Vec<u64>>,
    /// `layers_pattern`: what a layer's number stands behind.
    behind: Vec<String>,
}

/// A list of names, or a pattern of whole names.
#[derive(Debug, Clone)]
enum Names {
    /// Whole names (`model.layers.0.self_attn.q_proj`) or the ends of some (`q_proj`).
    Listed(Vec<String>),
    Pattern {
        text: String,
        whole: Regex,
    },
}

impl Names {
    fn read(key: &str, value: &Value) -> Result<Self> {
        let wrong =
            |expected: &str| Error::model(format!("adapter_config.json: {key} is {value}, expected {expected}"));
        match value {
            Value::String(text) => {
                // PEFT asks Python's `re.fullmatch`.
                let whole = Regex::new(&format!("^(?:{text})$")).map_err(|e| wrong(&format!("a pattern: {e}")))?;
                Ok(Self::Pattern { text: text.clone(), whole })
            }
            Value::Array(list) => {
                let names: Option<Vec<String>> = list.iter().map(|item| item.as_str().map(str::to_string)).collect();
                names.map(Self::Listed).ok_or_else(|| wrong("a list of names, or a pattern"))
            }
            _ => Err(wrong("a list of names, or a pattern")),
        }
    }

    fn hold(&self, name: &str) -> bool {
        match self {
            Self::Listed(names) => names.iter().any(|end| ends(name, end)),
            // A pattern that takes too long to decide matches nothing.
            Self::Pattern { whole, .. } => whole.is_match(name).unwrap_or(false),
        }
    }
}

/// Whether `name` is `end`, or ends with it after a point.
fn ends(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl Targets {
    pub fn named(names: Vec<String>) -> Self {
        Self { among: Names::Listed(names), except: None, layers: None, behind: Vec::new() }
    }

    /// What an `adapter_config.json` says.
    ///
    /// # Errors
    /// Keys that hold something else than PEFT writes there.
    pub fn read(source: &Map<String, Value>, config: &Config) -> Result<Self> {
        let get = |key: &str| source.get(key).filter(|value| !value.is_null());
        let among = match get("target_modules") {
            Some(Value::String(all)) if all == ALL => Names::Listed(config.modules()),
            Some(value) if value.as_array().is_none_or(|names| !names.is_empty()) => {
                Names::read("target_modules", value)?
            }
            found => {
                let found = found.unwrap_or(&Value::Null);
                let what = format!("adapter_config.json: target_modules is {found}");
                return Err(Error::model(format!("{what}, expected a list of names, a pattern, or {ALL:?}")));
            }
        };
        let except = get("exclude_modules").filter(|value| value.as_array().is_none_or(|names| !names.is_empty()));
        let layers = match get("layers_to_transform") {
            None => None,
            Some(Value::Array(list)) if list.is_empty() => None,
            Some(value) => {
                let listed = value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
                let numbers: Option<Vec<u64>> = listed.into_iter().map(Value::as_u64).collect();
                Some(numbers.ok_or_else(|| {
                    let what = format!("adapter_config.json: layers_to_transform is {value}");
                    Error::model(format!("{what}, expected numbers of layers"))
                })?)
            }
        };
        let behind = match get("layers_pattern") {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(list)) => list.iter().filter_map(|text| text.as_str().map(str::to_string)).collect(),
            _ => Vec::new(),
        };
        Ok(Self { among, except: except.map(|v| Names::read("exclude_modules", v)).transpose()?, layers, behind })
    }

    /// As `target_modules` has it.
    pub fn to_json(&self) -> Value {
        match &self.among {
            Names::Listed(names) => json!(names),
            Names::Pattern { text, .. } => json!(text),
        }
    }

    /// Whether the map of that name is meant.
    pub fn hold(&self, name: &str) -> bool {
        self.among.hold(name)
            && !self.except.as_ref().is_some_and(|except| except.hold(name))
            && self.layers.as_ref().is_none_or(|layers| self.layer(name).is_some_and(|layer| layers.contains(&layer)))
    }

    /// The number of the layer that a map belongs to.
    fn layer(&self, name: &str) -> Option<u64> {
        let parts: Vec<&str> = name.split('.').collect();
        let mut pairs = parts.windows(2);
        let fits = |word: &str| self.behind.is_empty() || self.behind.iter().any(|pattern| pattern == word);
        pairs.find_map(|pair| pair[1].parse().ok().filter(|_| fits(pair[0])))
    }

    /// That none of the model's maps is meant.
    pub fn unmatched(&self, config: &Config) -> Error {
        let known = config.modules();
        let shown = match &self.among {
            Names::Listed(names) if names.len() == 1 => return unknown(&names[0], config),
            Names::Listed(names) => names.join(", "),
            Names::Pattern { text, .. } => text.clone(),
        };
        Error::value(format!("lora: no map of the model is meant by {shown}")).hint(format!(
            "the linear maps of {}: {}",
            config.architecture,
            known.join(", ")
        ))
    }

    /// Fails at a name that is neither one of this model's maps nor one of another family's, which lists for several
    /// families hold: whoever wrote it has mistyped it.
    pub fn check_each(&self, config: &Config) -> Result<()> {
        let Names::Listed(names) = &self.among else { return Ok(()) };
        let linears: Vec<_> = (0..config.blocks.len()).flat_map(|layer| config.linears(layer)).collect();
        let own = |name: &str| linears.iter().any(|linear| ends(&linear.name, name));
        let strange = |name: &&String| !own(name) && !names::is_linear(name);
        names.iter().find(strange).map_or(Ok(()), |name| Err(unknown(name, config)))
    }
}

fn unknown(target: &str, config: &Config) -> Error {
    let known = config.modules();
    Error::unknown("lora target", target, &known).hint(format!(
        "the linear maps of {}: {}",
        config.architecture,
        known.join(", ")
    ))
}
