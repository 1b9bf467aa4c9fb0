//! Ways through the syntax tree of a script and of the modules that it imports.

use crate::script::host::Host;
use crate::script::lang::loader::Source;
use rhai::{AST, ASTNode, Expr, Position, Stmt};
use std::collections::BTreeSet;

/// Calls `each` with every expression of a script, functions and closures included.
pub fn expressions(ast: &AST, each: &mut dyn FnMut(&Expr)) {
    ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Expr(expr)) => each(expr),
            // A call that stands alone is a statement.
            Some(ASTNode::Stmt(Stmt::FnCall(call, pos))) => each(&Expr::FnCall(call.clone(), *pos)),
            _ => {}
        }
        true
    });
}

/// Whether a script has a variable or a parameter of this name, in whatever function.
pub fn declares(ast: &AST, name: &str) -> bool {
    let mut found = ast.iter_functions().any(|f| f.params.contains(&name));
    ast.walk(&mut |path: &[ASTNode]| {
        found |= match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(var, ..))) => var.0.as_str() == name,
            Some(ASTNode::Stmt(Stmt::For(each, _))) => {
                each.0.as_str() == name || each.1.as_ref().is_some_and(|counter| counter.as_str() == name)
            }
            _ => false,
        };
        !found
    });
    found
}

/// The modules that a script imports, and those that they import, each once. What cannot be read is left out: it is an
/// error of its own.
pub fn imported(host: &Host, source: &Source, ast: &AST) -> Vec<AST> {
    let mut found = Vec::new();
    let mut left = vec![(source.clone(), ast.clone())];
    let mut seen = BTreeSet::new();
    while let Some((from, ast)) = left.pop() {
        for (path, _) in imports(&ast) {
            let Ok(module) = host.module(path, &from.label) else { continue };
            if seen.insert(module.label.clone())
                && let Ok(ast) = host.compile(&module)
            {
                found.push(ast.clone());
                left.push((module, ast));
            }
        }
    }
    found
}

/// The paths that a script imports, each with the name that the module has there.
pub fn imports(ast: &AST) -> impl Iterator<Item = (&str, &str)> {
    ast.statements().iter().filter_map(|statement| match statement {
        Stmt::Import(import, _) => match &**import {
            (Expr::StringConstant(path, _), alias) => Some((path.as_str(), alias.as_str())),
            _ => None,
        },
        _ => None,
    })
}

/// What is read off what, and where: `x` and `a` of `x.a`, `x["a"]`, `x.a.b` and `x["a"][0]`.
pub fn read_off(expr: &Expr) -> Option<(&Expr, &str, Position)> {
    match expr {
        Expr::Dot(chain, ..) => property(&chain.rhs).map(|(name, pos)| (&chain.lhs, name, pos)),
        Expr::Index(chain, ..) => text(&chain.rhs).map(|(name, pos)| (&chain.lhs, name, pos)),
        _ => None,
    }
}

/// The property that comes first behind a dot: `a` of `.a`, `.a.b` and `.a[0]`.
pub fn property(behind: &Expr) -> Option<(&str, Position)> {
    match behind {
        Expr::Property(property, pos) => Some((property.2.as_str(), *pos)),
        Expr::Dot(next, ..) | Expr::Index(next, ..) => property(&next.lhs),
        _ => None,
    }
}

/// The same of a text in brackets.
fn text(inside: &Expr) -> Option<(&str, Position)> {
    match inside {
        Expr::StringConstant(text, pos) => Some((text.as_str(), *pos)),
        Expr::Dot(next, ..) | Expr::Index(next, ..) => text(&next.lhs),
        _ => None,
    }
}

/// Whether an expression is the variable of this name.
pub fn is_variable(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Variable(variable, ..) if variable.1.as_str() == name)
}
