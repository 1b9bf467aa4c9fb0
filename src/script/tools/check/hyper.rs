//! Hyper-parameters: ones that are declared and never read, and ones that are read and not declared.

use super::finding::Finding;
use super::walk::{expressions, imported, is_variable, property, read_off};
use crate::script::host::Host;
use crate::script::lang::functions::{self, ARGS};
use crate::script::lang::loader::Source;
use crate::script::lang::messages::did_you_mean;
use rhai::{AST, ASTNode, Expr, Position, Stmt};
use std::collections::BTreeSet;

/// Read by the runtime itself.
const SEED: &str = "seed";
/// Methods of a map that read all of it.
const WHOLE: [&str; 2] = ["keys", "values"];

pub fn findings(host: &Host, source: &Source, ast: &AST) -> Vec<Finding> {
    let Some((variable, keys)) = declared(ast) else { return Vec::new() };
    let ambiguous = is_ambiguous(ast, &variable);
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
    let added = added(ast, &variable);
    let is_known = |name: &str| names.contains(&name) || added.contains(name);
    let unknown = read.iter().filter(|(name, _)| !ambiguous && !is_known(name)).map(|(name, pos)| {
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

/// What a script adds to its hyper-parameters itself: `cfg.total = …`.
fn added(ast: &AST, variable: &str) -> BTreeSet<String> {
    let mut added = BTreeSet::new();
    ast.walk(&mut |path: &[ASTNode]| {
        if let [.., ASTNode::Stmt(Stmt::Assignment(assignment))] = path
            && let Some((of, name, _)) = read_off(&assignment.1.lhs)
            && is_variable(of, variable)
        {
            added.insert(name.to_string());
        }
        true
    });
    added
}

/// Whether something else has the variable's name as well: a second `let`, a `for`, or a parameter that is given another
/// value.
fn is_ambiguous(ast: &AST, variable: &str) -> bool {
    let (mut declared, mut other) = (0, false);
    let places: Vec<(String, usize, usize)> = ast
        .iter_functions()
        .filter_map(|f| Some((f.name.to_string(), f.params.len(), f.params.iter().position(|p| *p == variable)?)))
        .collect();
    ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(var, ..))) if var.0.as_str() == variable => declared += 1,
            Some(ASTNode::Stmt(Stmt::For(each, _))) => other |= each.0.as_str() == variable,
            Some(ASTNode::Stmt(Stmt::FnCall(call, _)) | ASTNode::Expr(Expr::FnCall(call, _))) => {
                let given = |(name, takes, at): &(String, usize, usize)| {
                    call.name == name.as_str() && call.args.len() == *takes && !is_variable(&call.args[*at], variable)
                };
                other |= call.namespace.is_empty() && places.iter().any(given);
            }
            _ => {}
        }
        true
    });
    other || declared > 1
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
