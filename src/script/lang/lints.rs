//! Places where the language does something else than most would expect, found by reading a script: almost always a
//! slip. What they come to is told beside the run, or by `rhopo check`; nothing is refused.

use crate::script::lang::lex;
use crate::script::lang::loader::Source;
use rhai::{AST, ASTNode, Expr, FnCallExpr, Position, Stmt};

/// A place, and what happens there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    pub position: Position,
    pub text: String,
}

/// Everything of the kind in a script, in its order.
pub fn find(source: &Source, ast: &AST) -> Vec<Lint> {
    let mut found = Vec::new();
    ast.walk(&mut |path: &[ASTNode]| {
        let at = match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, pos))) => {
                truncation(call, *pos).or_else(|| power(source, call, *pos))
            }
            Some(ASTNode::Stmt(Stmt::Share(names))) => {
                names.iter().find_map(|(name, _)| capture(path, name.as_str(), name.pos))
            }
            _ => None,
        };
        found.extend(at);
        true
    });
    found
}

/// A division of whole numbers written out that leaves a rest, which the language drops.
fn truncation(call: &FnCallExpr, position: Position) -> Option<Lint> {
    let (a, b) = match (call.name.as_str(), &call.args[..]) {
        ("/", [Expr::IntegerConstant(a, _), Expr::IntegerConstant(b, _)]) if *b != 0 && a % b != 0 => (a, b),
        _ => return None,
    };
    let text = format!("{a} / {b} is {}: whole numbers drop the rest; write {a}.0 / {b}", a / b);
    Some(Lint { position, text })
}

/// `-x ** 2`: the sign binds tighter than the power.
fn power(source: &Source, call: &FnCallExpr, position: Position) -> Option<Lint> {
    let [base, _] = &call.args[..] else { return None };
    let negative = match base {
        Expr::FnCall(inner, _) => inner.name == "-" && inner.args.len() == 1,
        Expr::IntegerConstant(n, _) => *n < 0,
        Expr::FloatConstant(x, _) => **x < 0.0,
        _ => false,
    };
    if call.name != "**" || !negative {
        return None;
    }
    // With the sign in brackets it is what was meant. The tree does not keep brackets, the pieces of the text do.
    let between = source.text.get(offset(&source.text, base.position())?..offset(&source.text, position)?)?;
    if closes(between) {
        return None;
    }
    let text = "-x ** 2 is (-x) ** 2: a sign binds tighter than a power; write -(x ** 2)".to_string();
    Some(Lint { position, text })
}

/// Where a place is in a text, in bytes.
fn offset(text: &str, at: Position) -> Option<usize> {
    let start: usize = text.split_inclusive('\n').take(at.line()?.checked_sub(1)?).map(str::len).sum();
    let (inside, _) = text[start..].char_indices().nth(at.position()?.checked_sub(1)?)?;
    Some(start + inside)
}

/// Whether a bracket closes that was opened before the text.
fn closes(text: &str) -> bool {
    let mut depth = 0_i64;
    lex::pieces(text).iter().any(|piece| {
        depth += match piece.text {
            "(" => 1,
            ")" => -1,
            _ => 0,
        };
        depth < 0
    })
}

/// A closure that is kept from one turn of a loop to the next sees the loop's variable as it is then.
fn capture(path: &[ASTNode], name: &str, position: Position) -> Option<Lint> {
    let counts = |node: &ASTNode| matches!(node, ASTNode::Stmt(Stmt::For(x, _)) if x.0.as_str() == name);
    let from = path.iter().rposition(counts)?;
    let kept = |node: &ASTNode| match node {
        ASTNode::Expr(Expr::Array(..) | Expr::Map(..)) => true,
        ASTNode::Expr(Expr::MethodCall(call, _) | Expr::FnCall(call, _)) => {
            matches!(call.name.as_str(), "push" | "insert")
        }
        _ => false,
    };
    let called = |node: &ASTNode| match node {
        ASTNode::Expr(Expr::MethodCall(call, _) | Expr::FnCall(call, _)) => {
            !matches!(call.name.as_str(), "push" | "insert" | "curry") && !lex::is_operator(&call.name)
        }
        _ => false,
    };
    // The nearest of both decides: what is given to `map` is used at once, what is pushed stays.
    let near = path[from..].iter().rev().find(|node| kept(node) || called(node))?;
    if !kept(near) {
        return None;
    }
    let text = format!(
        "closures share the variables they capture: each of these sees the last `{name}`; give each its own with a \
         function that returns the closure"
    );
    Some(Lint { position, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhai::Engine;

    fn lines(text: &str) -> Vec<usize> {
        let source = Source { label: "test".into(), text: text.into() };
        let mut engine = Engine::new();
        engine.set_optimization_level(rhai::OptimizationLevel::None);
        let ast = engine.compile(text).expect("compiles");
        find(&source, &ast).iter().map(|found| found.position.line().expect("a line")).collect()
    }

    #[test]
    fn divisions_that_drop_a_rest_are_told() {
        assert_eq!(lines("let x = 6 / 3;\nlet y = 1 / 2;\nlet z = 1.0 / 2;"), [2]);
    }

    #[test]
    fn a_sign_before_a_power_is_told() {
        assert_eq!(
            lines("let x = 3;\nlet a = -x ** 2;\nlet b = (-x) ** 2;\nlet c = -(x ** 2);\nlet d = 1 - x ** 2;"),
            [2]
        );
        assert_eq!(lines("print(-3 ** 2);\nprint((-3) ** 2);"), [1]);
        assert_eq!(lines("let x = 3;\nlet a = (-x) /* - */ ** 2;\nlet b = -x /* ) */\n    ** 2;"), [4]);
        assert_eq!(lines("let x = 3;\nlet a = -(x) ** 2;\nlet b = `${(-x) ** 2}${\"-\"}${-x ** 2}`;"), [2, 3]);
    }

    #[test]
    fn closures_kept_in_a_loop_are_told() {
        assert_eq!(lines("let fs = [];\nfor i in 0..3 {\n    fs.push(|| i);\n}"), [3]);
        assert_eq!(lines("let fs = [];\nfor i in 0..3 {\n    fs += [|| i];\n}"), [3]);
        assert_eq!(lines("let a = [1];\nfor i in 0..3 {\n    let b = a.map(|x| x + i);\n}"), [0usize; 0]);
    }
}
