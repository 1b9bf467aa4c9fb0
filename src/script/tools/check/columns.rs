//! Columns of a batch: which of them functions read, which a script sets, and how to fill one by its name
//! (`columns.rhai`). Owns no judgement.

use super::facts::{LOSS, loss_parameter};
use super::walk::{expressions, imported, is_variable, read_off};
use crate::script::host::Host;
use crate::script::lang::functions::ARGS;
use crate::script::lang::loader::Source;
use rhai::{AST, ASTNode, Expr, Position, Stmt};
use std::collections::BTreeSet;

/// `fn column(name, logp, mask)` in Rhai.
pub const FILL: &str = include_str!("columns.rhai");
/// What a batch has beside columns.
const PROPERTIES: [&str; 1] = ["rows"];
/// The method that lists them.
const COLUMNS: &str = "columns";
/// How Rhai begins the names of closures.
const CLOSURE: &str = "anon$";

/// What the second parameter of `loss(logp, b, cfg)` is called.
pub fn batch_parameter(ast: &AST) -> Option<String> {
    loss_parameter(ast, 1)
}

/// The columns that functions read of what they call `batch`, each where it is read first.
pub fn read(ast: &AST, batch: &str) -> Vec<(String, Position)> {
    let mut read: Vec<(String, Position)> = Vec::new();
    expressions(&ast.clone_functions_only(), &mut |expr| {
        if let Some((of, name, pos)) = read_off(expr)
            && is_variable(of, batch)
            && !PROPERTIES.contains(&name)
            && !read.iter().any(|(known, _)| known == name)
        {
            read.push((name.to_string(), pos));
        }
    });
    read
}

/// The columns that a script sets, of whatever batch: those that it assigns, and the keys of maps, which rows are made of.
pub fn set(ast: &AST) -> BTreeSet<String> {
    let mut set = BTreeSet::new();
    ast.walk(&mut |path: &[ASTNode]| {
        match path {
            [.., ASTNode::Stmt(Stmt::Assignment(assignment))] => {
                set.extend(read_off(&assignment.1.lhs).map(|(_, name, _)| name.to_string()));
            }
            // Hyper-parameters are no columns.
            [.., ASTNode::Expr(Expr::FnCall(call, _)), ASTNode::Expr(Expr::Map(..))] if call.name == ARGS => {}
            [.., ASTNode::Expr(Expr::Map(map, _))] => {
                set.extend(map.0.iter().map(|(key, _)| key.as_str().to_string()));
            }
            _ => {}
        }
        true
    });
    set
}

/// Whether a script sets columns by names that only show when it runs: `b[name] = …`.
pub fn sets_by_name(ast: &AST) -> bool {
    let mut found = false;
    ast.walk(&mut |path: &[ASTNode]| {
        if let [.., ASTNode::Stmt(Stmt::Assignment(assignment))] = path {
            found |= matches!(&assignment.1.lhs, Expr::Index(..)) && read_off(&assignment.1.lhs).is_none();
        }
        !found
    });
    found
}

/// The texts of a script that looks which columns there are, as in `"extra" in b.columns()`: it may ask for any of them.
pub fn asked_for(ast: &AST) -> BTreeSet<String> {
    let (mut found, mut asks) = (BTreeSet::new(), false);
    expressions(ast, &mut |expr| match expr {
        Expr::StringConstant(text, _) => drop(found.insert(text.to_string())),
        Expr::MethodCall(call, _) => asks |= call.name == COLUMNS,
        _ => {}
    });
    if asks { found } else { BTreeSet::new() }
}

/// The columns that `loss` reads, itself or through what it calls.
pub fn of_loss(host: &Host, source: &Source, ast: &AST) -> BTreeSet<String> {
    let Some(batch) = batch_parameter(ast) else { return BTreeSet::new() };
    let read = reached(host, source, ast).iter().flat_map(|part| read(part, &batch)).collect::<Vec<_>>();
    read.into_iter().map(|(name, _)| name).collect()
}

/// What `loss` and the functions that it leads to read off anything: hyper-parameters among others.
pub fn properties_of_loss(host: &Host, source: &Source, ast: &AST) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in reached(host, source, ast) {
        expressions(&part, &mut |expr| found.extend(read_off(expr).map(|(_, name, _)| name.to_string())));
    }
    found
}

/// The functions that `loss` leads to, of the script and of each module. A closure may be called by anybody.
fn reached(host: &Host, source: &Source, ast: &AST) -> Vec<AST> {
    let asts: Vec<AST> = std::iter::once(ast.clone()).chain(imported(host, source, ast)).collect();
    let mut names = BTreeSet::from([LOSS.to_string()]);
    loop {
        let within = |ast: &AST| {
            let mut part = ast.clone_functions_only();
            part.retain_functions(|_, _, name, _| names.contains(name) || name.starts_with(CLOSURE));
            part
        };
        let parts: Vec<AST> = asts.iter().map(within).collect();
        let mut called = BTreeSet::new();
        for part in &parts {
            expressions(part, &mut |expr| {
                if let Expr::FnCall(call, _) | Expr::MethodCall(call, _) = expr {
                    called.insert(call.name.to_string());
                }
            });
        }
        if called.is_subset(&names) {
            return parts;
        }
        names.extend(called);
    }
}
