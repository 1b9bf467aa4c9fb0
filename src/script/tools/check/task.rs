//! A task's or a reward's file: functions that take other arguments than they are called with.

use super::facts;
use super::finding::Finding;
use crate::script::bind::task::FUNCTIONS;
use crate::script::lang::loader::Source;
use rhai::AST;

pub fn findings(source: &Source, ast: &AST) -> Vec<Finding> {
    let has = |name: &str| ast.iter_functions().any(|f| f.name == name);
    // A script with a loop of its own calls its functions as it likes.
    if facts::trains(ast) || !["score", "items", "prompts"].into_iter().any(has) {
        return Vec::new();
    }
    let functions = ast.iter_functions().filter_map(|f| {
        let (name, least) = FUNCTIONS.into_iter().find(|(name, _)| *name == f.name)?;
        let found = f.params.len();
        (!(least..=least + 1).contains(&found)).then(|| {
            let arguments = if least == 0 { "no argument" } else { "one argument" };
            let message = format!("`{name}` takes {found} arguments, and a task's is called with {arguments}");
            let hint = "it may take the task's options as one argument more".to_string();
            Finding::at(&source.label, facts::line_of(ast, name, found), message, Some(hint))
        })
    });
    functions.collect()
}
