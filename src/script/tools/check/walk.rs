//! Ways through the text of a script and of the modules that it imports.

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

/// The modules that a script imports, and those that they import, each once. What cannot be read is left out: it is an
/// error of its own.
pub fn imported(host: &Host, source: &Source, ast: &AST) -> Vec<AST> {
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
pub fn property(behind: &Expr) -> Option<(&str, Position)> {
    match behind {
        Expr::Property(property, pos) => Some((property.2.as_str(), *pos)),
        Expr::Dot(next, ..) | Expr::Index(next, ..) => property(&next.lhs),
        _ => None,
    }
}
