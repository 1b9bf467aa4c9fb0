//! Whether a script would take what `--set` says, before anything of it runs.

use crate::run::session::Program;
use crate::script::bind::args;
use crate::script::host::Host;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::functions;
use crate::script::lang::loader::Source;

/// Reads a script and sets its hyper-parameters as the host was launched, as running it would. False where they are known only
/// once it runs.
///
/// # Errors
/// A text that is no script; names that it does not have, and values that do not fit, in the words of a run.
pub fn check(host: &Host, source: &Source) -> Result<bool, Diagnostic> {
    host.compile(source)?;
    let session = host.session();
    session.set_program(Program { name: source.stem(), label: source.label.clone(), text: source.text.clone() });
    match functions::defaults(host.engine(), source) {
        Ok(defaults) => args::declare(session, defaults)?,
        Err(_) if source.text.contains(&format!("{}(", functions::ARGS)) => {
            return Ok(session.launched().sets.is_empty());
        }
        Err(_) => {
            session.check_sets()?;
            return Ok(true);
        }
    };
    Ok(true)
}
