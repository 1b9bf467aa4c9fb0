//! What inputs at a pause leave as it is: the functions that the loop calls, and the names and types of hyper-parameters.

use crate::error::{Error, Result};
use crate::script::lang::functions;
use crate::script::lang::value::describe;
use rhai::{AST, ASTNode, Expr, Map, Scope, Stmt};
use std::cell::Cell;

/// What holds for inputs between two steps of a script.
pub struct Bounds {
    /// Names and numbers of arguments of the script's functions.
    functions: Vec<(String, usize)>,
    /// Whether functions of the prompt take their place.
    replaced: bool,
    /// The variable that holds the hyper-parameters.
    variable: Option<String>,
    /// Whether one of the script's functions was defined anew.
    defined: Cell<bool>,
}

impl Bounds {
    pub fn of(ast: &AST, replaced: bool) -> Self {
        let functions = ast.iter_functions().map(|f| (f.name.to_string(), f.params.len())).collect();
        let variable = functions::hyper_parameters(ast).map(|(name, _)| name);
        Self { functions, replaced, variable, defined: Cell::new(false) }
    }

    /// Whether one of the script's functions was defined anew since this was asked last.
    pub fn take_defined(&self) -> bool {
        self.defined.take()
    }

    /// Looks at an input before it runs.
    ///
    /// # Errors
    /// A function that cannot take the place of the script's.
    pub(super) fn check(&self, input: &AST) -> Result<()> {
        for f in input.iter_functions() {
            let takes: Vec<usize> =
                self.functions.iter().filter(|known| known.0 == f.name).map(|known| known.1).collect();
            match takes[..] {
                [] => {}
                _ if !self.replaced => {
                    let what = format!("`{}` is a function of the run, which keeps its own", f.name);
                    let hint = "begin the run with --pause or --watch to change its functions, or choose another name";
                    return Err(Error::value(what).hint(hint));
                }
                [before, ..] if !takes.contains(&f.params.len()) => {
                    return Err(other_arguments(f.name, before, f.params.len()));
                }
                _ => self.defined.set(true),
            }
        }
        Ok(())
    }

    /// The hyper-parameters as they are.
    pub(super) fn hyper_parameters(&self, scope: &Scope) -> Option<Map> {
        scope.get_value(self.variable.as_deref()?)
    }

    /// Looks at the hyper-parameters after an input; those that do not fit are all put back.
    ///
    /// # Errors
    /// A name that was not there, or a value of another type.
    pub(super) fn hold(&self, scope: &mut Scope, before: Map) -> Result<()> {
        let (Some(name), Some(now)) = (self.variable.as_deref(), self.hyper_parameters(scope)) else { return Ok(()) };
        let Err(e) = compare(&before, &now) else { return Ok(()) };
        if let Some(mut map) = scope.get_mut(name).and_then(|slot| slot.write_lock::<Map>()) {
            *map = before;
        }
        Err(e)
    }
}

fn compare(before: &Map, now: &Map) -> Result<()> {
    let is_number = |value: &rhai::Dynamic| value.is_int() || value.is_float();
    for (key, value) in now {
        let Some(old) = before.get(key) else {
            let names: Vec<&str> = before.keys().map(|key| key.as_str()).collect();
            return Err(Error::unknown("hyper-parameter", key, &names));
        };
        if old.type_id() != value.type_id() && !(is_number(old) && is_number(value)) && !old.is_unit() {
            let what = format!("`{key}` is {}, and cannot become {}", describe(old), describe(value));
            return Err(Error::value(what).hint("give it a value of the same type"));
        }
    }
    Ok(())
}

/// A function that the running script calls otherwise.
pub fn other_arguments(name: &str, before: usize, now: usize) -> Error {
    Error::value(format!("`{name}` took {before} arguments when the run began, and takes {now} now"))
        .hint("the body of a running script stays as it was: give the function its old arguments, or start a new run")
}

/// Whether an input may have changed something: it defines, assigns or calls. What only names values and computes with
/// them looks.
pub(super) fn may_change(input: &AST) -> bool {
    if input.iter_functions().any(|f| !f.name.starts_with("anon$")) {
        return true;
    }
    let mut changes = false;
    input.walk(&mut |path: &[ASTNode]| {
        changes |= match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(..) | Stmt::Assignment(..) | Stmt::Import(..))) => true,
            Some(ASTNode::Stmt(Stmt::FnCall(call, _)) | ASTNode::Expr(Expr::FnCall(call, _))) => {
                call.op_token.is_none()
            }
            Some(ASTNode::Expr(Expr::MethodCall(..))) => true,
            _ => false,
        };
        !changes
    });
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhai::{Dynamic, Engine};

    fn ast(text: &str) -> AST {
        Engine::new().compile(text).expect("a script")
    }

    #[test]
    fn what_only_looks_changes_nothing() {
        for text in ["b", "b.reward", "1 + x * 2", "t[0]"] {
            assert!(!may_change(&ast(text)), "{text}");
        }
        for text in ["cfg.beta = 1", "let x = 2;", "fn f() { 1 }", "opt.step(loss)", "f(1)", "x += 1"] {
            assert!(may_change(&ast(text)), "{text}");
        }
    }

    #[test]
    fn functions_of_the_loop_keep_their_arguments_or_stay() {
        let script = ast("fn loss(a, b) { a } loss(1, 2)");
        let bounds = Bounds::of(&script, true);
        bounds.check(&ast("fn helper(x) { x }")).expect("another name");
        assert!(!bounds.take_defined());
        bounds.check(&ast("fn loss(a, b) { b }")).expect("as many arguments");
        assert!(bounds.take_defined() && !bounds.take_defined());
        bounds.check(&ast("fn loss(a) { a }")).expect_err("fewer arguments");
        Bounds::of(&script, false).check(&ast("fn loss(a, b) { b }")).expect_err("the run keeps its own");
    }

    #[test]
    fn hyper_parameters_keep_their_names_and_types() {
        let bounds = Bounds::of(&ast("let cfg = args(#{ lr: 0.1 });"), true);
        let map = |name: &str, value: Dynamic| Map::from([(name.into(), value)]);
        let mut scope = Scope::new();
        scope.push("cfg", map("lr", Dynamic::from_float(0.1)));
        let before = bounds.hyper_parameters(&scope).expect("there");
        for (name, value) in [("lrr", Dynamic::from_float(1.0)), ("lr", "much".into())] {
            scope.set_value("cfg", map(name, value));
            bounds.hold(&mut scope, before.clone()).expect_err(name);
            assert_eq!(bounds.hyper_parameters(&scope).expect("there")["lr"].as_float(), Ok(0.1), "put back");
        }
        scope.set_value("cfg", map("lr", Dynamic::ONE));
        bounds.hold(&mut scope, before).expect("a number stays one");
    }
}
