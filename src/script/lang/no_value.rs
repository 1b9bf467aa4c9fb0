//! Methods that change a list, a text or a map and give nothing: where a script uses their value all the same, it is
//! refused as it is compiled. Owns not what they do.

use crate::error::Error;
use rhai::{AST, ASTNode, Expr, Position, Stmt};

/// What gives nothing, and what to write where a value is wanted.
const METHODS: [(&str, &str); 10] = [
    ("push", "push in a statement of its own, or write list + [item]"),
    ("append", "append in a statement of its own, or write a + b"),
    ("insert", "insert in a statement of its own, and use the list then"),
    ("clear", "write [], \"\" or #{} where an empty one is wanted"),
    ("chop", "chop in a statement of its own, or write list.extract(start)"),
    ("splice", "splice in a statement of its own, and use the list then"),
    ("dedup", "dedup in a statement of its own, and use the list then"),
    ("for_each", "list.map(|x| …) returns what the closure does"),
    ("mixin", "mixin in a statement of its own, or write a + b"),
    ("fill_with", "fill_with in a statement of its own, and use the map then"),
];

/// The first use of such a value. A script that has a function or a key of that name means its own.
pub fn used(ast: &AST) -> Option<(Error, Position)> {
    let mut found = Vec::new();
    let mut own: Vec<String> = ast.iter_functions().map(|f| f.name.to_string()).collect();
    ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Expr(Expr::Map(map, _))) => own.extend(map.0.iter().map(|(key, _)| key.name.to_string())),
            Some(ASTNode::Expr(Expr::Property(property, _))) => own.push(property.2.to_string()),
            Some(ASTNode::Expr(call @ (Expr::MethodCall(f, pos) | Expr::FnCall(f, pos)))) => {
                let method = METHODS.iter().find(|(name, _)| f.namespace.is_empty() && *name == f.name.as_str());
                found.extend(method.filter(|_| is_used(call, path)).map(|method| (method, *pos)));
            }
            _ => {}
        }
        true
    });
    let ((name, way), pos) = found.into_iter().find(|((name, _), _)| !own.iter().any(|known| known == name))?;
    Some((Error::value(format!("`{name}` returns nothing, but its value is used")).hint(*way), pos))
}

/// Whether something is done with the value of the call at the end of a path. What stands last in a block may be what a
/// function returns, or nothing that anybody looks at.
fn is_used(call: &Expr, path: &[ASTNode]) -> bool {
    let mut inner = call;
    for (i, node) in path.iter().enumerate().rev().skip(1) {
        match node {
            // An expression alone is what its block gives, and within a text the block's value stands in it.
            ASTNode::Stmt(Stmt::Expr(..)) => {}
            ASTNode::Expr(Expr::Stmt(block)) => {
                let outer = i.checked_sub(1).map(|outer| &path[outer]);
                return block.len() == 1 && matches!(outer, Some(ASTNode::Expr(Expr::InterpolatedString(..))));
            }
            // Behind the last point it is what the whole chain gives.
            ASTNode::Expr(outer @ (Expr::Dot(chain, ..) | Expr::Index(chain, ..))) if is(&chain.rhs, inner) => {
                inner = outer;
            }
            ASTNode::Expr(_) => return true,
            ASTNode::Stmt(Stmt::Var(..) | Stmt::Assignment(..) | Stmt::Return(..)) => return true,
            ASTNode::Stmt(Stmt::If(flow, _) | Stmt::While(flow, _)) => return is(&flow.expr, inner),
            ASTNode::Stmt(Stmt::FnCall(..)) => return true,
            _ => return false,
        }
    }
    false
}

fn is(a: &Expr, b: &Expr) -> bool {
    std::ptr::eq(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhai::Engine;

    fn lines(text: &str) -> Option<usize> {
        let mut engine = Engine::new();
        // As scripts are compiled: nothing is folded away.
        engine.set_optimization_level(rhai::OptimizationLevel::None);
        let ast = engine.compile(text).expect("compiles");
        used(&ast).map(|(_, pos)| pos.line().expect("a line"))
    }

    #[test]
    fn values_that_are_used_are_found() {
        for text in [
            "let a = [];\nlet b = a.push(1);",
            "let a = [];\na = a.push(1);",
            "let a = [];\nprint(a.push(1));",
            "let a = [];\nprint(1 + a.push(1));",
            "let a = [];\nlet b = a.push(1).len();",
            "let a = #{ b: [] };\nlet b = a.b.push(1);",
            "let a = [];\nlet b = push(a, 1);",
            "let a = [];\nlet f = || { return a.push(1); };",
            "let a = [];\nif a.push(1) == 1 { }",
            "let a = [];\nlet b = [a.insert(0, 1)];",
            "let a = [];\nlet b = `${a.push(1)}`;",
        ] {
            assert_eq!(lines(text), Some(2), "{text}");
        }
    }

    #[test]
    fn statements_and_what_a_script_calls_so_itself_are_not() {
        for text in [
            "let a = []; a.push(1); a.push(2)",
            "let a = #{ b: [] }; a.b.push(1);",
            "let a = []; [1].for_each(|| a.push(this));",
            "let a = []; if true { a.push(1) } else { a.insert(0, 2) }",
            "let a = [[]]; for i in 0..3 { a[0].push(i) }",
            "fn push(x) { x } let b = 1; let c = b.push();",
            "let m = #{ push: |x| x }; let c = m.push(1);",
            "push([], 1);",
            "let a = []; let b = `${a.push(1); a.len()}`;",
        ] {
            assert_eq!(lines(text), None, "{text}");
        }
    }
}
