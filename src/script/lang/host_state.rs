//! What an engine was made with: its documentation, where sources come from, the session, and the count of operations.
//! Turns Rhai's errors into diagnostics, which need all of it.

use crate::run::Session;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::limits::Usage;
use crate::script::lang::lints;
use crate::script::lang::loader::{Loader, Source};
use crate::script::lang::messages::Context;
use crate::script::lang::native::Declaration;
use rhai::{AST, ASTNode, EvalAltResult, Expr};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Shared by everything that evaluates scripts in one engine.
pub struct HostState {
    pub docs: Vec<Declaration>,
    pub loader: Rc<Loader>,
    pub session: Rc<Session>,
    pub(in crate::script) usage: Rc<Usage>,
    /// Which text a function stands in, by its name, where one prompt has functions of several.
    pub(in crate::script) origins: RefCell<BTreeMap<String, String>>,
}

impl HostState {
    /// A script or an input begins.
    pub fn begin(&self) {
        self.usage.restart();
    }

    /// Tells of places where the language surprises.
    pub fn warn(&self, source: &Source, ast: &AST) {
        for found in lints::find(source, ast) {
            let line = found.position.line().unwrap_or(0);
            self.session.reporter().note(&format!("{}:{line}: {}", source.label, found.text));
        }
    }

    /// The functions of `ast`, closures included, stand in the text `label`.
    pub fn settle(&self, ast: &AST, label: &str) {
        let names = ast.iter_functions().map(|f| (f.name.to_string(), label.to_string()));
        self.origins.borrow_mut().extend(names);
    }

    /// An error that came up while `ast`, called `label`, ran.
    pub fn explain(&self, e: &EvalAltResult, ast: &AST, label: &str) -> Diagnostic {
        let origins = self.origins.borrow();
        let context = Context {
            origins: &origins,
            docs: &self.docs,
            loader: &self.loader,
            functions: ast.iter_functions().map(|f| (f.name.to_string(), f.to_string())).collect(),
            keys: self.session.arguments().into_iter().flatten().chain(keys(ast)).collect(),
        };
        Diagnostic::explain(e, label, &context)
    }
}

/// The keys of a script's map literals, in its order.
fn keys(ast: &AST) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    ast.walk(&mut |path: &[ASTNode]| {
        if let Some(ASTNode::Expr(Expr::Map(map, _))) = path.last() {
            keys.extend(map.0.iter().map(|(name, _)| name.name.to_string()));
        }
        true
    });
    keys
}
