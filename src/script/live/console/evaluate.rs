//! Evaluating an input, statement by statement, in the variables that are in reach; taking over its functions.

use super::bounds::may_change;
use super::{Explained, Input, LABEL, LAST, Repl};
use crate::error::Error;
use crate::files;
use crate::run::access::Access;
use crate::run::session::Program;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::lex;
use crate::script::lang::loader::{self, Source};
use rhai::{AST, Caches, Dynamic, EvalAltResult, EvalContext, Expr, Position, Stmt, StmtBlock};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;

impl Repl<'_, '_> {
    pub(super) fn take(&mut self, text: &str) -> Explained<Dynamic> {
        let text = lex::replace_blank(text, LAST);
        // Every line of the session has a number of its own, so that errors in earlier functions find their lines.
        let above = self.console.text.matches('\n').count();
        self.console.text += &format!("{}\n", text.trim_end());
        let whole = self.console.loader().keep(LABEL.into(), self.console.text.clone());
        let source = Source { label: LABEL.into(), text: format!("{}{text}", "\n".repeat(above)) };
        let session = self.session().clone();
        if self.is_program() {
            session.set_program(Program { name: "session".into(), label: LABEL.into(), text: whole.text });
            session.forget_arguments();
        }
        let ast = self.engine_compile(&source)?;
        let bounds = self.console.bounds.clone();
        bounds.as_ref().map_or(Ok(()), |bounds| bounds.check(&ast))?;
        self.adopt(&ast, LABEL);
        self.console.state.warn(&source, &ast);
        let access = session.access().clone();
        let typed = paths(&text, &access);
        let before = bounds.as_ref().and_then(|bounds| bounds.hyper_parameters(self.scope));
        let ran = access.allowing(&typed, || self.run(&ast, LABEL));
        if let (Some(bounds), Some(before)) = (bounds, before) {
            bounds.hold(self.scope, before)?;
        }
        let value = match ran {
            Ok(value) => value,
            Err((done, e)) => {
                // A loop that was interrupted has done something too, and is part of the session.
                let looped = e.interrupted && is_loop(&text, done);
                self.keep_what_was_done(&text, &ast, done + usize::from(looped));
                return Err(e);
            }
        };
        let has_value = !value.is_unit();
        let last = lex::last_statement(&text);
        let returned = text[last..].strip_prefix("return").map(str::len);
        let text = returned.map_or_else(
            || text.clone(),
            |rest| format!("{}{}", &text[..last], text[text.len() - rest..].trim_start()),
        );
        self.console.inputs.push(Input { text, value_at: has_value.then_some(last), changes: may_change(&ast) });
        if has_value {
            self.scope.set_or_push(LAST, value.clone());
        }
        Ok(value)
    }

    /// Runs a file between two steps of a script, as if it were typed.
    pub(super) fn load_at_pause(&mut self, source: &Source) -> Explained<()> {
        let ast = self.engine_compile(source)?;
        let bounds = self.console.bounds.clone();
        bounds.as_ref().map_or(Ok(()), |bounds| bounds.check(&ast))?;
        self.adopt(&ast, &source.label);
        let before = bounds.as_ref().and_then(|bounds| bounds.hyper_parameters(self.scope));
        let ran = self.run(&ast, &source.label);
        if let (Some(bounds), Some(before)) = (bounds, before) {
            bounds.hold(self.scope, before)?;
        }
        let _ = ran.map_err(|(_, e)| e)?;
        self.console.inputs.push(Input { text: source.text.clone(), value_at: None, changes: true });
        Ok(())
    }

    /// Of an input that failed, the statements before that: what they did stays.
    fn keep_what_was_done(&mut self, text: &str, ast: &AST, done: usize) {
        let starts: Vec<usize> = lex::statements(text).into_iter().filter(|at| !is_function(text, *at)).collect();
        if starts.len() != ast.statements().len() {
            return;
        }
        let end = starts.get(done).copied().unwrap_or(text.len());
        if !text[..end].trim().is_empty() {
            self.console.inputs.push(Input { text: text[..end].to_string(), value_at: None, changes: may_change(ast) });
        }
    }

    /// Whether this is the program itself, not a look into one that pauses.
    fn is_program(&self) -> bool {
        let label = self.session().program().label;
        label.is_empty() || label == LABEL
    }

    /// Runs what functions see of a text, and no other line.
    pub(super) fn run_only(&mut self, ast: &AST, label: &str) -> Explained<()> {
        let kept: Vec<Stmt> = ast.statements().iter().filter(|s| declares(s)).cloned().collect();
        self.run(&AST::new(kept, ast.shared_lib().clone()), label).map(|_| ()).map_err(|(_, e)| e)
    }

    pub(super) fn engine_compile(&self, source: &Source) -> Explained<AST> {
        let explain = |e: Box<EvalAltResult>| self.console.state.explain(&e, &AST::empty(), &source.label);
        loader::compile(self.engine, source).map_err(explain)
    }

    /// Compiles a text and takes over its functions.
    pub(super) fn compile(&mut self, source: &Source) -> Explained<AST> {
        let ast = self.engine_compile(source)?;
        self.adopt(&ast, &source.label);
        Ok(ast)
    }

    /// Functions go before those of the same name that were there.
    pub(super) fn adopt(&mut self, ast: &AST, label: &str) {
        self.console.state.settle(ast, label);
        let before = self.console.defined.shared_lib().clone();
        self.console.defined = self.console.defined.merge(&ast.clone_functions_only());
        self.global.lib.retain(|lib| !Rc::ptr_eq(lib, &before));
        self.global.lib.push(self.console.defined.shared_lib().clone());
    }

    /// The functions of the prompt are these again.
    pub(in crate::script) fn take_back(&mut self, functions: AST) {
        let before = self.console.defined.shared_lib().clone();
        self.global.lib.retain(|lib| !Rc::ptr_eq(lib, &before));
        self.global.lib.push(functions.shared_lib().clone());
        self.console.defined = functions;
    }

    /// Runs the statements one by one; of an error also how many went well before it.
    pub(super) fn run(&mut self, ast: &AST, label: &str) -> std::result::Result<Dynamic, (usize, Diagnostic)> {
        let source = self.global.source.replace(label.into());
        self.console.state.begin();
        let (mut value, mut ended) = (Ok(Dynamic::UNIT), false);
        for (done, statement) in ast.statements().iter().enumerate() {
            let block = StmtBlock::new([statement.clone()], Position::NONE, Position::NONE);
            value = match self.run_block(Expr::Stmt(block.into())) {
                Ok((value, true)) => Ok(value),
                Ok((value, false)) => {
                    ended = true;
                    Ok(value)
                }
                Err(e) => Err((done, e)),
            };
            if ended || value.is_err() {
                break;
            }
        }
        self.global.source = source;
        self.keep_constants(ast);
        value.map_err(|(done, e)| match e {
            Failure::Script(e) => (done, self.console.state.explain(&e, &self.console.defined, label)),
            Failure::Ours(e) => (done, e.into()),
        })
    }

    // Rhai marks the call as volatile by calling it deprecated; its version is pinned by the lock file.
    #[allow(deprecated)]
    /// A statement's value, and whether the next one follows.
    fn run_block(&mut self, block: Expr) -> std::result::Result<(Dynamic, bool), Failure> {
        let Self { engine, global, scope, .. } = self;
        let mut caches = Caches::new();
        let level = global.scope_level;
        let run = || {
            let mut context = EvalContext::new(engine, global, &mut caches, scope, None);
            context.eval_expression_tree_raw(&(&block).into(), false)
        };
        let result = catch_unwind(AssertUnwindSafe(run));
        self.global.scope_level = level;
        match result {
            Err(panic) => Err(Failure::Ours(Error::panicked(panic.as_ref()))),
            Ok(Ok(value)) => Ok((value.flatten(), true)),
            Ok(Err(e)) => match *e {
                EvalAltResult::Return(value, _) | EvalAltResult::Exit(value, _) => Ok((value, false)),
                EvalAltResult::LoopBreak(..) => Ok((Dynamic::UNIT, true)),
                _ => Err(Failure::Script(e)),
            },
        }
    }

    /// `global::X` in functions: Rhai keeps constants only while a text runs that has functions itself.
    fn keep_constants(&mut self, ast: &AST) {
        let constants = self.global.constants.get_or_insert_with(Default::default);
        for statement in ast.statements() {
            if let Stmt::Var(var, flags, _) = statement
                && flags.contains(rhai::ASTFlags::CONSTANT)
                && let Some(value) = self.scope.get(&var.0.name)
            {
                constants.borrow_mut().insert(var.0.name.clone(), value.clone());
            }
        }
    }
}

/// Whether the statement behind the first `done` is a loop.
fn is_loop(text: &str, done: usize) -> bool {
    let starts: Vec<usize> = lex::statements(text).into_iter().filter(|at| !is_function(text, *at)).collect();
    let begins = |word: &&str| starts.get(done).is_some_and(|&at| text[at..].starts_with(*word));
    ["for ", "while ", "loop ", "do "].iter().any(begins)
}

fn is_function(text: &str, at: usize) -> bool {
    ["fn ", "private fn "].iter().any(|begin| text[at..].starts_with(begin))
}

/// The paths that are written out in what a person types: that person may read them, and so may the input. `/` alone
/// is more than anybody means.
fn paths(text: &str, access: &Access) -> Vec<PathBuf> {
    let pieces = lex::pieces(text);
    let texts = pieces.iter().filter(|piece| piece.kind == lex::Kind::Text && piece.closed && piece.text.len() > 2);
    let named = texts.map(|piece| PathBuf::from(&piece.text[1..piece.text.len() - 1]));
    named.filter(|path| path.file_name().is_some() && files::exists(&access.at(path))).collect()
}

/// Imports and constants: what functions see of a file.
fn declares(statement: &Stmt) -> bool {
    match statement {
        Stmt::Import(..) => true,
        Stmt::Var(_, flags, _) => flags.contains(rhai::ASTFlags::CONSTANT),
        _ => false,
    }
}

enum Failure {
    Script(Box<EvalAltResult>),
    Ours(Error),
}
