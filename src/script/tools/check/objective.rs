//! The objective: columns that nothing sets, and what `loss` does on small random rows (`objective.rhai`).

use super::columns::{self, FILL, batch_parameter};
use super::facts::{self, LOSS};
use super::finding::Finding;
use super::walk::imported;
use crate::script::host::Host;
use crate::script::lang::functions;
use crate::script::lang::loader::Source;
use crate::script::lang::messages::did_you_mean;
use crate::script::lang::value::to_json;
use rhai::{AST, Position};
use serde_json::Value;
use std::collections::BTreeSet;

const TRIAL: &str = include_str!("objective.rhai");
/// Begins each line of a header.
const HEADER: &str = "//!";
/// A line of the header that promises what the first on-policy gradient is: the one comment that is read.
const PROMISE: &str = "On-policy:";
/// What it may promise.
const PROMISED: &str = "policy-gradient";
/// What `sample`, `encode`, `encode_pairs` and `converse` set.
const NATIVE: [&str; 11] =
    ["mask", "old_logprob", "length", "finished", "text", "prompt", "label", "turn", "turns", "messages", "rollin"];

pub fn findings(host: &Host, source: &Source, ast: &AST) -> Vec<Finding> {
    let Some(batch) = batch_parameter(ast) else { return Vec::new() };
    let promised = match promise(&source.text) {
        None => false,
        Some((_, PROMISED)) => true,
        Some((line, other)) => {
            let message = format!("the header promises `{other}`, which is not known");
            let hint = format!("write `{HEADER} {PROMISE} {PROMISED}`, or take the line out");
            return vec![Finding::at(&source.label, Position::new(line, 1), message, Some(hint))];
        }
    };
    let read = columns::read(ast, &batch);
    let mut set = columns::set(ast);
    imported(host, source, ast).iter().for_each(|module| set.extend(columns::set(module)));
    set.extend(columns::asked_for(ast));
    let trains = facts::trains(ast) && !columns::sets_by_name(ast);
    let known: Vec<&str> = NATIVE.into_iter().chain(set.iter().map(String::as_str)).collect();
    let missing = read.iter().filter(|(name, _)| trains && !known.contains(&name.as_str()));
    let missing: Vec<Finding> = missing
        .map(|(name, pos)| {
            let hint = did_you_mean(name, &known).unwrap_or_else(|| format!("set it in the loop: {batch}.{name} = …"));
            Finding::at(
                &source.label,
                *pos,
                format!("`{LOSS}` reads the column `{name}`, which nothing sets"),
                Some(hint),
            )
        })
        .collect();
    if !missing.is_empty() {
        return missing;
    }
    if facts::leaves_hyper_parameters_open(ast) {
        return Vec::new();
    }
    let columns: BTreeSet<String> = read.into_iter().map(|(name, _)| name).collect();
    // What a module reads off a batch, the closures of a table of methods for instance, must be there as well.
    let elsewhere = imported(host, source, ast).into_iter().flat_map(|module| columns::read(&module, &batch));
    let elsewhere: BTreeSet<String> = elsewhere.map(|(name, _)| name).collect();
    let also = elsewhere.difference(&columns).cloned().collect();
    Trial { columns, also, promised }.run(host, source, ast)
}

/// What the header promises of the first on-policy gradient, and on which line.
fn promise(text: &str) -> Option<(u16, &str)> {
    let mut header = text.lines().map_while(|line| line.strip_prefix(HEADER)).enumerate();
    header.find_map(|(i, line)| {
        let promised = line.trim().strip_prefix(PROMISE)?.trim();
        Some((u16::try_from(i + 1).unwrap_or(u16::MAX), promised))
    })
}

/// What `loss` is tried on.
struct Trial {
    /// Columns that the script's functions read, and those that only its modules do.
    columns: BTreeSet<String>,
    also: Vec<String>,
    /// The first on-policy gradient is to be the policy gradient's.
    promised: bool,
}

impl Trial {
    /// Runs the trial and puts its outcome in words, at the place of `fn loss`.
    fn run(self, host: &Host, source: &Source, ast: &AST) -> Vec<Finding> {
        let (name, columns) = (Value::from(source.label.as_str()), Value::from_iter(self.columns));
        let (also, promised) = (Value::from(self.also), self.promised);
        let (unit, declared) = (facts::unit(ast), functions::hyper_parameters(ast).is_some());
        let head = format!(
            "let name = {name}; let columns = {columns}; let also = {also}; let unit = {unit}; let declared = {declared}; let promised = {promised};\n"
        );
        let trial = Source { label: "rhopo check".into(), text: head + FILL + TRIAL };
        let place = facts::line_of(ast, LOSS, 3);
        let codes = match host.eval(&trial) {
            Ok(codes) => to_json(&codes),
            Err(mut diagnostic) => {
                diagnostic.frames.retain(|frame| frame.label == source.label);
                return vec![Finding::of(diagnostic, &source.label)];
            }
        };
        let codes = codes.as_array().cloned().unwrap_or_default();
        codes.iter().filter_map(Value::as_str).map(|code| worded(code, &source.label, place)).collect()
    }
}

fn worded(code: &str, label: &str, place: Position) -> Finding {
    let (message, hint) = match code {
        "gradient" => (
            "the loss has no gradient with respect to `logp`",
            "is logp used, and not detached? Columns of a batch are data: what is computed from them alone has no gradient",
        ),
        "finite" => (
            "the loss, or its gradient, is not finite on random rows",
            "what is divided by, or what is log, sqrt or exp taken of?",
        ),
        "repeat" => (
            "the loss is another one when it is computed again on the same rows",
            "a loss is a function of its arguments: draw random numbers in the loop, and give them to it as a column",
        ),
        "mask" => (
            "the loss depends on cells outside the mask",
            "end in seq_mean, token_mean, const_mean or seq_sum with b.mask, which do not see these cells",
        ),
        "order" => (
            "the loss depends on the order of the rows",
            "aggregate rows by mean or sum; rows of a pair (2k, 2k+1) or a group may depend on each other",
        ),
        _ => (
            "the first on-policy gradient is not the policy gradient's, which the header promises",
            "where ratios are 1, a token's gradient must be -A, times what the aggregation gives its row",
        ),
    };
    Finding::at(label, place, message.to_string(), Some(hint.to_string()))
}
