//! `rhopo check`: what is wrong with a script, found without running its loop. One file per kind of finding.
//! Everything is read off the syntax tree; of the comments, which it has not, the header's promise alone is read.
//! Owns findings and their order; what the language itself refuses is `diagnostics`' to word.

mod calls;
pub mod columns;
mod facts;
mod finding;
mod hyper;
mod objective;
mod task;
mod walk;

pub use finding::Finding;

use crate::script::host::Host;
use crate::script::lang::lints;
use crate::script::lang::loader::Source;

/// Everything that is found in a script, from its first line to its last. `host` is a strict one.
pub fn check(host: &Host, source: &Source) -> Vec<Finding> {
    let ast = match host.compile(source) {
        Ok(ast) => ast,
        Err(diagnostic) => return vec![Finding::of(diagnostic, &source.label)],
    };
    let mut found = calls::findings(host, source, &ast);
    found.extend(hyper::findings(host, source, &ast));
    found.extend(task::findings(source, &ast));
    found.extend(lints::find(source, &ast).into_iter().map(|s| Finding::at(&source.label, s.position, s.text, None)));
    // A script that is wrong on its face says nothing new when it is tried.
    if found.is_empty() {
        found.extend(objective::findings(host, source, &ast));
    }
    found.sort_by_key(|finding| (finding.line, finding.column));
    found.dedup();
    found
}
