//! Hyper-parameters: ones that are declared and never read, and ones that are read and not declared.

use super::finding::Finding;
use super::walk::{expressions, imported, property};
use crate::script::host::Host;
use crate::script::lang::loader::Source;
use crate::script::lang::messages::did_you_mean;
use rhai::{AST, Expr, Position, Stmt};
use std::collections::BTreeSet;

const ARGS: &str = "args";
/// Read by the runtime itself.
const SEED: &str = "seed";

pub fn findings(host: &Host, source: &Source, ast: &AST) -> Vec<Finding> {
    let Some((variable, keys)) = declared(ast) else { return Vec::new() };
    let (mut read, mut properties) = (Vec::new(), read_elsewhere(host, source, ast, &variable));
    expressions(ast, &mut |expr| match expr {
        Expr::Property(property, _) => drop(properties.insert(property.2.to_string())),
        Expr::Dot(dot, ..) => {
            if let (Expr::Variable(lhs, ..), Some((name, pos))) = (&dot.lhs, property(&dot.rhs))
                && lhs.1 == variable
            {
                read.push((name.to_string(), pos));
            }
        }
        _ => {}
    });
    let names: Vec<&str> = keys.iter().map(|(name, _)| name.as_str()).collect();
    let unread = keys.iter().filter(|(name, _)| name != SEED && !properties.contains(name)).map(|(name, pos)| {
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
            let Expr::Dot(dot, ..) = expr else { return };
            let of = match &dot.lhs {
                Expr::Variable(found, ..) => found.1.as_str(),
                lhs => property(lhs).map_or("", |(name, _)| name),
            };
            if let (true, Some((name, _))) = (of == variable, property(&dot.rhs)) {
                read.insert(name.to_string());
            }
        });
    }
    read
}

/// The variable that `args(#{ … })` is bound to, and the keys of that map with their places.
fn declared(ast: &AST) -> Option<(String, Vec<(String, Position)>)> {
    ast.statements().iter().find_map(|statement| {
        let Stmt::Var(var, ..) = statement else { return None };
        let (name, Expr::FnCall(call, _), _) = &**var else { return None };
        let (ARGS, Some(Expr::Map(map, _))) = (call.name.as_str(), call.args.first()) else { return None };
        let keys = map.0.iter().map(|(key, _)| (key.name.to_string(), key.pos)).collect();
        Some((name.name.to_string(), keys))
    })
}
