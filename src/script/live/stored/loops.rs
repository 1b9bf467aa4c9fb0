//! The step loops that a script has: their variables, and whether they can be stored.

use crate::error::{Error, Result};
use rhai::{AST, ASTNode, Expr, Module, Stmt, StmtBlock};
use std::collections::BTreeSet;

/// The script's step loops.
#[derive(Debug, Default)]
pub(super) struct Loops {
    /// The variables that count steps in the script's body.
    pub variables: Vec<String>,
    /// Whether a function has a step loop.
    in_function: bool,
    /// The line of a loop that stands in another one.
    nested: Option<usize>,
    /// Which statements of the body are step loops.
    statements: Vec<usize>,
    /// The names that the body's step loops read last in a step.
    last_reads: BTreeSet<String>,
}

impl Loops {
    pub fn of(ast: &AST) -> Self {
        let mut loops = Self::default();
        let body = AST::new(ast.statements().to_vec(), Module::new());
        body.walk(&mut |path: &[ASTNode]| {
            if let Some(ASTNode::Stmt(Stmt::For(parts, position))) = path.last()
                && counts_steps(&parts.2.expr)
            {
                loops.variables.push(parts.0.name.to_string());
                loops.last_reads.extend(last_read(&parts.2.body));
                if path[..path.len() - 1].iter().any(is_loop) {
                    loops.nested = loops.nested.or(position.line());
                }
            }
            true
        });
        let counts = |(_, s): &(usize, &Stmt)| matches!(s, Stmt::For(parts, _) if counts_steps(&parts.2.expr));
        loops.statements = ast.statements().iter().enumerate().filter(counts).map(|(at, _)| at).collect();
        let mut all = 0;
        ast.walk(&mut |path: &[ASTNode]| {
            all += usize::from(
                matches!(path.last(), Some(ASTNode::Stmt(Stmt::For(parts, _))) if counts_steps(&parts.2.expr)),
            );
            true
        });
        loops.in_function = all > loops.variables.len();
        loops
    }

    /// Whether what is read `deep` levels of calls down lies in reach of the loop: in the body's own, nothing that a function
    /// of the step reads does.
    pub fn reaches(&self, deep: usize) -> bool {
        deep == 0 || self.variables.is_empty()
    }

    /// Whether a step may read nothing more once it has read this name.
    pub fn may_end_with(&self, name: &str) -> bool {
        self.last_reads.contains(name)
    }

    /// Which statement of the body is the `number`th step loop, from 1; none where loops stand in other statements as well.
    pub fn statement(&self, number: u64) -> Option<usize> {
        let plain = !self.in_function && self.statements.len() == self.variables.len();
        self.statements.get(usize::try_from(number).ok()?.checked_sub(1)?).copied().filter(|_| plain)
    }

    /// Whether a loop of the script's body can go on in another process.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(&self) -> Result<()> {
        if self.variables.is_empty() {
            let e =
                Error::value("a checkpoint cannot hold a step loop that is not written as `for step in run.steps(n)`");
            return Err(e.hint("for step in run.steps(cfg.steps) { … }"));
        }
        if self.in_function {
            return Err(Error::value(
                "a checkpoint cannot hold step loops in the script's body and in a function of it",
            )
            .hint("put all into the body, or all into functions"));
        }
        let Some(line) = self.nested else { return Ok(()) };
        Err(Error::value(format!("a checkpoint cannot hold a step loop inside another loop (line {line})"))
            .hint("make it one loop over all steps: if (step - 1) % per_round == 0 { … } begins a round"))
    }
}

/// The name that stands last in a loop's body.
fn last_read(body: &StmtBlock) -> Option<String> {
    let mut last = None;
    AST::new(body.statements().to_vec(), Module::new()).walk(&mut |path: &[ASTNode]| {
        if let Some(ASTNode::Expr(Expr::Variable(variable, _, position))) = path.last()
            && last.as_ref().is_none_or(|(_, before)| before <= position)
        {
            last = Some((variable.1.to_string(), *position));
        }
        true
    });
    last.map(|(name, _)| name)
}

/// `run.steps(n)`
fn counts_steps(expr: &Expr) -> bool {
    match expr {
        Expr::Dot(parts, ..) => match &parts.rhs {
            Expr::MethodCall(call, _) | Expr::FnCall(call, _) => call.name == "steps",
            _ => false,
        },
        _ => false,
    }
}

fn is_loop(node: &ASTNode) -> bool {
    matches!(node, ASTNode::Stmt(Stmt::For(..) | Stmt::While(..) | Stmt::Do(..)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhai::Engine;

    fn of(text: &str) -> Loops {
        Loops::of(&Engine::new().compile(text).expect("a script"))
    }

    #[test]
    fn one_after_the_other_can_be_stored() {
        let loops = of("for i in run.steps(3) { for x in 0..2 { f(x); } }\nfor step in run.steps(cfg.n) { }");
        assert_eq!(loops.variables, ["i", "step"]);
        assert_eq!([0, 1, 2, 3].map(|number| loops.statement(number)), [None, Some(0), Some(1), None]);
        loops.check().expect("none stands in another");
    }

    #[test]
    fn a_body_is_over_with_its_last_name() {
        let loops = of(
            "let run = 1; for step in run.steps(3) { let a = step; if a > b { f(a) } else { f(c[d]) }; g(#{ x: e }); }",
        );
        assert_eq!(
            ["run", "step", "a", "d", "e"].map(|name| loops.may_end_with(name)),
            [false, false, false, false, true]
        );
        assert!(!of("for step in run.steps(3) { }").may_end_with("step"));
    }

    #[test]
    fn what_functions_read_is_out_of_reach_of_a_loop_in_the_body() {
        let body = of("fn f() { let x = 1; x } for step in run.steps(3) { f(); }");
        assert!(body.reaches(0) && !body.reaches(1));
        assert!(of("fn f(run) { for step in run.steps(3) { } } f(run);").reaches(1));
    }

    #[test]
    fn one_within_another_cannot() {
        let e = of("let x = 1;\nfor i in 0..3 {\n  for step in run.steps(3) { x += step; }\n}")
            .check()
            .expect_err("nested");
        assert!(e.what.ends_with("(line 3)"), "{e}");
        of("fn f(run) { for step in run.steps(2) { } } for step in run.steps(3) { f(run); }")
            .check()
            .expect_err("both");
        of("while true { for step in run.steps(3) { } }").check().expect_err("nested");
        of("let steps = run.steps(3); for step in steps { }").check().expect_err("not recognised");
    }
}
