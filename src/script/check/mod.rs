//! `rhopo check`: what is wrong with a script, found without running its loop. One file per kind of finding.
//! Owns findings and their order; what the language itself refuses is `diagnostics`' to word.

mod calls;
mod hyper;
mod objective;

use crate::script::diagnostics::{Diagnostic, Frame};
use crate::script::host::Host;
use crate::script::loader::Source;
use crate::script::surprises;
use rhai::{AST, ASTNode, Expr, Position, Stmt};
use std::collections::BTreeSet;

/// Something wrong, where, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub label: String,
    /// From 1; 0 where it has no place.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl Finding {
    fn at(label: &str, pos: Position, message: String, hint: Option<String>) -> Self {
        let (line, column) = (pos.line().unwrap_or(0), pos.position().unwrap_or(1));
        Self { label: label.to_string(), line, column, message, hint }
    }

    /// A script that does not compile has one finding: where it stops.
    fn of(diagnostic: Diagnostic, label: &str) -> Self {
        let frame = diagnostic.frames.into_iter().next();
        let (label, line, column) = frame.map_or((label.to_string(), 0, 0), |f| (f.label, f.line, f.column));
        Self { label, line, column, message: diagnostic.message, hint: diagnostic.hint }
    }
}

impl From<Finding> for Diagnostic {
    fn from(f: Finding) -> Self {
        let frame = Frame { label: f.label, line: f.line, column: f.column, what: "here".into() };
        let frames = if f.line > 0 { vec![frame] } else { Vec::new() };
        Self { message: f.message, hint: f.hint, frames, interrupted: false }
    }
}

/// Everything that is found in a script, from its first line to its last. `host` is a strict one.
pub fn check(host: &Host, source: &Source) -> Vec<Finding> {
    let ast = match host.compile(source) {
        Ok(ast) => ast,
        Err(diagnostic) => return vec![Finding::of(diagnostic, &source.label)],
    };
    let mut found = calls::findings(host, source, &ast);
    found.extend(hyper::findings(host, source, &ast));
    found.extend(
        surprises::find(source, &ast).into_iter().map(|s| Finding::at(&source.label, s.position, s.text, None)),
    );
    // A script that is wrong on its face says nothing new when it is tried.
    if found.is_empty() {
        found.extend(objective::findings(host, source, &ast));
    }
    found.sort_by_key(|finding| (finding.line, finding.column));
    found.dedup();
    found
}

/// Calls `each` with every expression of a script, functions and closures included.
fn expressions(ast: &AST, each: &mut dyn FnMut(&Expr)) {
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

/// The modules that a script imports, and those that they import, each once. What cannot be read is left out: it is an
/// error of its own.
fn imported(host: &Host, source: &Source, ast: &AST) -> Vec<AST> {
    let mut found = Vec::new();
    let (mut left, mut seen) = (imports(ast, source), BTreeSet::new());
    while let Some((path, from)) = left.pop() {
        let Ok(module) = host.module(&path, &from) else { continue };
        if seen.insert(module.label.clone())
            && let Ok(ast) = host.compile(&module)
        {
            left.extend(imports(&ast, &module));
            found.push(ast);
        }
    }
    found
}

/// The paths that a script imports, each with the label that it is relative to.
fn imports(ast: &AST, source: &Source) -> Vec<(String, String)> {
    let path = |statement: &Stmt| match statement {
        Stmt::Import(import, _) => match &import.0 {
            Expr::StringConstant(path, _) => Some((path.to_string(), source.label.clone())),
            _ => None,
        },
        _ => None,
    };
    ast.statements().iter().filter_map(path).collect()
}

/// The property that comes first behind a dot: `a` of `.a`, `.a.b` and `.a[0]`.
fn property(behind: &Expr) -> Option<(&str, Position)> {
    match behind {
        Expr::Property(property, pos) => Some((property.2.as_str(), *pos)),
        Expr::Dot(next, ..) | Expr::Index(next, ..) => property(&next.lhs),
        _ => None,
    }
}
