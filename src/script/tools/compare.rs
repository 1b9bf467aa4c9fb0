//! `rhopo compare`: the script that compares (`compare.rhai`), what it is told of the objectives, and what it found.
//!
//! Owns which hyper-parameters are set in which of them. Owns no drawing.

use super::check::columns::{self, FILL};
use crate::error::{Error, Result};
use crate::run::comparison::Comparison;
use crate::run::session::Program;
use crate::script::bind::args;
use crate::script::host::Host;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::functions;
use crate::script::lang::loader::Source;
use crate::script::lang::value::to_json;
use rhai::{Dynamic, Map};
use serde_json::Value;
use std::collections::BTreeSet;

const COMPARISON: &str = include_str!("compare.rhai");
const LABEL: &str = "compare.rhai";
/// Rows that belong together: pairs, where the batch is sampled here.
const GROUP: &str = "group";
/// Also read by the comparison itself, for the steps before it.
const LEARNING_RATE: &str = "lr";
const CLIP: &str = "clip";
/// The first steps of AdamW move every weight alike, so the steps before the comparison take a tenth of the learning rate, as
/// where a run warms up.
const WARMING_UP: f64 = 10.0;

/// What is to be compared.
pub struct Objectives {
    each: Vec<Objective>,
}

/// A script before any of it is called.
struct Objective {
    name: String,
    /// Nothing where it declares none.
    hyper: Option<Map>,
    /// What the command line says of them.
    set: Vec<(String, Dynamic)>,
    /// Read by its loss.
    columns: BTreeSet<String>,
    properties: BTreeSet<String>,
}

impl Objectives {
    /// Reads scripts. What is wrong with one of them is said when it is compared.
    ///
    /// # Errors
    /// A script that there is not.
    pub fn read(host: &Host, names: &[String]) -> std::result::Result<Self, Diagnostic> {
        let each = names.iter().map(|name| Objective::read(host, name));
        Ok(Self { each: each.collect::<Result<_>>()? })
    }

    /// Sets a hyper-parameter of all that have it; returns what is worth saying about that. `sampled`: the batch is of pairs
    /// that are sampled for the comparison.
    ///
    /// # Errors
    /// A name that none has, a value that does not fit.
    pub fn set(&mut self, name: &str, text: &str, sampled: bool) -> Result<Option<String>> {
        let has = |objective: &&Objective| objective.hyper.as_ref().is_some_and(|hyper| hyper.contains_key(name));
        let (with, without): (Vec<_>, Vec<_>) = self.each.iter().partition(has);
        if with.is_empty() {
            let keys = self.each.iter().flat_map(|objective| objective.hyper.iter().flat_map(Map::keys));
            let known: BTreeSet<&str> = keys.map(|key| key.as_str()).collect();
            let e = Error::unknown("hyper-parameter", name, &known.into_iter().collect::<Vec<_>>());
            return Err(Error { what: format!("--set {name}: {}", e.what), ..e });
        }
        if sampled && name == GROUP {
            return Err(Error::value("--set group: the batch is of pairs, so a group has 2 rows")
                .hint("save a batch of larger groups with b.save, and compare on it: --batch FILE"));
        }
        let named = |those: &[&Objective]| those.iter().map(|o| o.name.clone()).collect::<Vec<_>>().join(", ");
        let unread: Vec<&Objective> = with.iter().copied().filter(|objective| !objective.reads(name)).collect();
        let mut notes = Vec::new();
        if !without.is_empty() {
            let verbs = if without.len() == 1 { ("has", "stays as it is") } else { ("have", "stay as they are") };
            notes.push(format!("{} {} no hyper-parameter `{name}`, and {}", named(&without), verbs.0, verbs.1));
        }
        if !unread.is_empty() {
            notes.push(format!("the loss of {} does not read `{name}`, which changes nothing there", named(&unread)));
        }
        for objective in &mut self.each {
            if let Some(before) = objective.hyper.as_ref().and_then(|hyper| hyper.get(name)) {
                let value = args::parse(name, text, before)?;
                objective.set.push((name.to_string(), value));
            }
        }
        Ok((!notes.is_empty()).then(|| format!("--set {name}: {}", notes.join("; "))))
    }

    /// What the comparison is told of them, as `--set` of its own.
    ///
    /// # Errors
    /// A value that cannot be written down.
    pub fn arguments(&self) -> Result<Vec<(String, String)>> {
        let scripts = self.each.iter().map(Objective::literal).collect::<Result<Vec<_>>>()?;
        let mut arguments = vec![("scripts".to_string(), format!("[{}]", scripts.join(", ")))];
        for (name, share) in [(LEARNING_RATE, WARMING_UP), (CLIP, 1.0)] {
            if let Some(x) = self.each.iter().find_map(|objective| objective.number(name)) {
                // A quotient, as 2e-4 / 10 is the number 2e-5 and 2e-4 * 0.1 is not.
                arguments.push((name.to_string(), format!("{:?}", x / share)));
            }
        }
        Ok(arguments)
    }
}

impl Objective {
    fn read(host: &Host, name: &str) -> Result<Self> {
        let source = host.loader().find(name)?;
        let hyper = functions::defaults(host.engine(), &source).ok();
        let (columns, properties) = match host.compile(&source) {
            Ok(ast) => (columns::of_loss(host, &source, &ast), columns::properties_of_loss(host, &source, &ast)),
            Err(_) => Default::default(),
        };
        Ok(Self { name: name.to_string(), hyper, set: Vec::new(), columns, properties })
    }

    /// Whether the comparison depends on this hyper-parameter.
    fn reads(&self, name: &str) -> bool {
        name == LEARNING_RATE || self.properties.contains(name)
    }

    /// A hyper-parameter as it is compared, where it is a number above 0.
    fn number(&self, name: &str) -> Option<f64> {
        let set = self.set.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value);
        let value = set.or_else(|| self.hyper.as_ref()?.get(name))?;
        let number = value.as_float().or_else(|_| value.as_int().map(|x| x as f64)).ok()?;
        (number.is_finite() && number > 0.0).then_some(number)
    }

    /// As the comparison reads it.
    fn literal(&self) -> Result<String> {
        let set = self.set.iter().map(|(name, value)| Ok(format!("{}: {}", quoted(name), literal(name, value)?)));
        let set = set.collect::<Result<Vec<_>>>()?.join(", ");
        let columns: Vec<String> = self.columns.iter().map(|name| quoted(name)).collect();
        let (name, declared, columns) = (quoted(&self.name), self.hyper.is_some(), columns.join(", "));
        Ok(format!("#{{ name: {name}, declared: {declared}, set: #{{{set}}}, columns: [{columns}] }}"))
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A value as a script writes it.
fn literal(name: &str, value: &Dynamic) -> Result<String> {
    if let Ok(items) = value.as_array_ref() {
        let items = items.iter().map(|item| literal(name, item)).collect::<Result<Vec<_>>>()?;
        return Ok(format!("[{}]", items.join(", ")));
    }
    if let Ok(map) = value.as_map_ref() {
        let entries = map.iter().map(|(key, value)| Ok(format!("{}: {}", quoted(key), literal(name, value)?)));
        return Ok(format!("#{{{}}}", entries.collect::<Result<Vec<_>>>()?.join(", ")));
    }
    if value.is_unit() {
        return Ok("()".to_string());
    }
    if let Ok(x) = value.as_float() {
        return match x.is_finite() {
            true => Ok(format!("{x:?}")),
            false => Err(Error::value(format!("--set {name}={x}: expected a finite number"))),
        };
    }
    Ok(to_json(value).to_string())
}

/// Runs the comparison in a host that was launched with its arguments.
///
/// # Errors
/// Those of the script; nothing that could be compared.
pub fn compare(host: &Host) -> std::result::Result<Comparison, Diagnostic> {
    let source: Source = host.loader().keep(LABEL.into(), format!("{FILL}{COMPARISON}"));
    let program = Program { name: source.stem(), label: source.label.clone(), text: source.text.clone() };
    host.session().set_program(program);
    Ok(Comparison::read(to_json(&host.eval(&source)?))?)
}
