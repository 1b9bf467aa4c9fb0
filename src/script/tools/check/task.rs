//! A task's or a reward's file: functions that take other arguments than they are called with.

use super::finding::Finding;
use crate::script::bind::task::FUNCTIONS;
use crate::script::lang::loader::Source;
use rhai::{AST, Position};

pub fn findings(source: &Source, ast: &AST) -> Vec<Finding> {
    let has = |name: &str| ast.iter_functions().any(|f| f.name == name);
    // A script with a loop of its own calls its functions as it likes.
    if source.text.contains("open_run(") || !["score", "items", "prompts"].into_iter().any(has) {
        return Vec::new();
    }
    let functions = ast.iter_functions().filter_map(|f| {
        let (name, least) = FUNCTIONS.into_iter().find(|(name, _)| *name == f.name)?;
        let found = f.params.len();
        let line = source.text.lines().position(|line| line.trim_start().starts_with(&format!("fn {name}(")))? + 1;
        (!(least..=least + 1).contains(&found)).then(|| {
            let arguments = if least == 0 { "no argument" } else { "one argument" };
            let message = format!("`{name}` takes {found} arguments, and a task's is called with {arguments}");
            let hint = "it may take the task's options as one argument more".to_string();
            Finding::at(&source.label, Position::new(u16::try_from(line).unwrap_or(u16::MAX), 4), message, Some(hint))
        })
    });
    functions.collect()
}
