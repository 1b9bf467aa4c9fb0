//! The objective: columns that nothing sets, and what `loss` does on small random rows (`objective.rhai`).

use super::columns::{self, FILL, LOSS, batch_parameter};
use super::finding::Finding;
use super::walk::imported;
use crate::script::host::Host;
use crate::script::lang::loader::Source;
use crate::script::lang::messages::did_you_mean;
use crate::script::lang::value::to_json;
use rhai::{AST, Position};
use serde_json::Value;
use std::collections::BTreeSet;

const TRIAL: &str = include_str!("objective.rhai");
/// A line of the header that promises what the first on-policy gradient is.
const PROMISE: &str = "//! On-policy: policy-gradient";
/// What `sample`, `encode`, `encode_pairs` and `converse` set.
const NATIVE: [&str; 11] =
    ["mask", "old_logprob", "length", "finished", "text", "prompt", "label", "turn", "turns", "messages", "rollin"];

pub fn findings(host: &Host, source: &Source, ast: &AST) -> Vec<Finding> {
    let Some(batch) = batch_parameter(ast) else { return Vec::new() };
    let read = columns::read(ast, &batch);
    let mut set = columns::set(ast);
    imported(host, source, ast).iter().for_each(|module| set.extend(columns::set(module)));
    let trains = source.text.contains("open_run(");
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
    // What a module reads off a batch, the closures of a table of methods for instance, must be there as well.
    let elsewhere: Vec<(String, Position)> =
        imported(host, source, ast).into_iter().flat_map(|module| columns::read(&module, &batch)).collect();
    tried(host, source, &read, &elsewhere)
}

/// Runs the trial and puts its outcome in words, at the place of `fn loss`.
fn tried(host: &Host, source: &Source, read: &[(String, Position)], elsewhere: &[(String, Position)]) -> Vec<Finding> {
    let names =
        |read: &[(String, Position)]| -> BTreeSet<String> { read.iter().map(|(name, _)| name.clone()).collect() };
    let columns = names(read);
    let also: Vec<String> = names(elsewhere).difference(&columns).cloned().collect();
    let paired = source.text.contains("pair_") || source.text.contains("pairing::");
    let unit = if source.text.contains("cfg.group") {
        4
    } else if paired {
        2
    } else {
        1
    };
    let promised = source.text.lines().any(|line| line.trim() == PROMISE);
    let (name, columns) = (Value::from(source.label.as_str()), Value::from_iter(columns));
    let also = Value::from(also);
    let declared = source.text.contains("args(#{");
    let head = format!(
        "let name = {name}; let columns = {columns}; let also = {also}; let unit = {unit}; let declared = {declared}; let promised = {promised};\n"
    );
    let trial = Source { label: "rhopo check".into(), text: head + FILL + TRIAL };
    let line = source.text.lines().position(|line| line.starts_with("fn loss(")).map_or(1, |line| line + 1);
    let place = Position::new(u16::try_from(line).unwrap_or(u16::MAX), 4);
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

fn worded(code: &str, label: &str, place: Position) -> Finding {
    let (message, hint) = match code {
        "gradient" => (
            "the loss has no gradient with respect to `logp`",
            "is logp used, and not detached? Columns of a batch are data: what is computed from them alone has no gradient",
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
