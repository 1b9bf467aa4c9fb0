//! A prompt of its own: a host, with variables that live as long as it does.

use crate::script::host::Host;
use crate::script::live::console::{Console, Repl};
use rhai::{GlobalRuntimeState, Scope};

/// A prompt of its own: an engine with variables that live as long as it does.
pub struct ReplHost {
    host: Host,
    global: GlobalRuntimeState,
    scope: Scope<'static>,
    console: Console,
}

impl ReplHost {
    pub fn new(host: Host) -> Self {
        let console = Console::new(host.state().clone());
        let global = host.engine().new_global_runtime_state();
        Self { host, global, scope: Scope::new(), console }
    }

    pub fn repl(&mut self) -> Repl<'_, 'static> {
        let Self { host, global, scope, console } = self;
        Repl { engine: host.engine(), global, scope, console }
    }
}
