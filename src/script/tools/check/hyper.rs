//! Hyper-parameters: ones that are declared and never read, and ones that are read and not declared.

use super::finding::Finding;
use super::walk::{expressions, imported, is_variable, property, read_off};
use crate::script::host::Host;
use crate::script::lang::functions::{self, ARGS};
use crate::script::lang::loader::Source;
use crate::script::lang::messages::did_you_mean;
use rhai::{AST, Expr, Position};
use std::collections::BTreeSet;

/// Read by the runtime itself.
const SEED: &str = "seed";
/// Methods of a map that read all of it.
const WHOLE: [&str; 2] = ["keys", "values"];

pub fn findings(host: &Host, source: &Source, ast: &AST) -> Vec<Finding> {
    let Some((variable, keys)) = declared(ast) else { return Vec::new() };
    let (mut read, mut properties) = (Vec::new(), read_elsewhere(host, source, ast, &variable));
    expressions(ast, &mut |expr| {
        let Some((of, name, pos)) = read_off(expr) else { return };
        // Functions may call the map something else, so that whatever has such a name may be it.
        properties.insert(name.to_string());
        if is_variable(of, &variable) {
            read.push((name.to_string(), pos));
        }
    });
    let whole = is_read_whole(ast, &variable);
    let names: Vec<&str> = keys.iter().map(|(name, _)| name.as_str()).collect();
    let unread = keys.iter().filter(|(name, _)| !whole && name != SEED && !properties.contains(name));
    let unread = unread.map(|(name, pos)| {
        let hint = format!("read it as {variable}.{name}, or take it out");
        Finding::at(&source.label, *pos, format!("the hyper-parameter `{name}` is never read"), Some(hint))
    });
    let unknown = read.iter().filter(|(name, _)| !names.contains(&name.as_str())).map(|(name, pos)| {
        let hint = did_you_mean(name, &names).unwrap_or_else(|| format!("declare it in {ARGS}(#{{ … }})"));
        Finding::at(&source.label, *pos, format!("there is no hyper-parameter `{name}`"), Some(hint))
    });
    unread.chain(unknown).collect()
}

/// What imported modules read off something of this name, whose map they are given: `cfg.clip`, `at.cfg.clip`.
fn read_elsewhere(host: &Host, source: &Source, ast: &AST, variable: &str) -> BTreeSet<String> {
    let mut read = BTreeSet::new();
    for module in imported(host, source, ast) {
        expressions(&module, &mut |expr| {
            let Some((of, name, _)) = read_off(expr) else { return };
            if is_variable(of, variable) || property(of).is_some_and(|(of, _)| of == variable) {
                read.insert(name.to_string());
            }
        });
    }
    read
}

/// Whether all hyper-parameters are read together, or by names that only show when the script runs: `cfg.keys()`, `cfg[name]`.
fn is_read_whole(ast: &AST, variable: &str) -> bool {
    let mut whole = false;
    expressions(ast, &mut |expr| {
        whole |= match expr {
            Expr::Dot(chain, ..) if is_variable(&chain.lhs, variable) => {
                matches!(&chain.rhs, Expr::MethodCall(call, _) if WHOLE.contains(&call.name.as_str()))
            }
            Expr::Index(chain, ..) if is_variable(&chain.lhs, variable) => read_off(expr).is_none(),
            _ => false,
        };
    });
    whole
}

/// The variable that `args(#{ … })` is bound to, and the keys of that map with their places.
fn declared(ast: &AST) -> Option<(String, Vec<(String, Position)>)> {
    let (variable, Expr::Map(map, _)) = functions::hyper_parameters(ast)? else { return None };
    Some((variable, map.0.iter().map(|(key, _)| (key.name.to_string(), key.pos)).collect()))
}
