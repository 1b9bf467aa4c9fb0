//! How far a script may go: calls, sizes, operations and time.

use crate::budget::{self, memory};
use crate::error::{Error, Result};
use crate::run::Session;
use rhai::{Dynamic, Engine, OptimizationLevel};
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Calls within calls. The stack of the engine's thread holds far more; scripts need far fewer.
pub const CALL_LEVELS: usize = 128;
const EXPRESSION_DEPTH: usize = 256;
/// Characters, elements, entries.
pub const STRING_SIZE: usize = 64 << 20;
pub const ARRAY_SIZE: usize = 16 << 20;
const MAP_SIZE: usize = 1 << 20;
const VARIABLES: usize = 4096;
const FUNCTIONS: usize = 4096;
const MODULES: usize = 256;

/// How often the clock is compared with the limit, and the machine asked for what memory is left.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What one script may use.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Operations, calls between scripts included; `None` is no limit.
    pub operations: Option<u64>,
    pub time: Option<Duration>,
}

impl Limits {
    fn check_operations(&self, used: u64) -> Result<()> {
        match self.operations.filter(|most| used > *most) {
            Some(most) => Err(Error::value(format!("the script used more than {most} operations"))
                .hint("is there a loop that never ends?")),
            None => Ok(()),
        }
    }

    fn check_time(&self, used: Duration) -> Result<()> {
        match self.time.filter(|most| used > *most) {
            Some(most) => {
                budget::end();
                Err(Error::value(format!("the script took more than {} s", most.as_secs_f64()))
                    .hint("the limit is --max-seconds"))
            }
            None => Ok(()),
        }
    }
}

/// What was used since the script, or the input at a prompt, began.
pub struct Usage {
    operations: Cell<u64>,
    since: Cell<Instant>,
}

impl Default for Usage {
    fn default() -> Self {
        Self { operations: Cell::new(0), since: Cell::new(Instant::now()) }
    }
}

impl Usage {
    /// A script or an input begins.
    pub fn restart(&self) {
        self.operations.set(0);
        self.since.set(Instant::now());
    }

    /// Adds an operation and returns how many there are.
    fn count(&self) -> u64 {
        self.operations.set(self.operations.get() + 1);
        self.operations.get()
    }

    fn elapsed(&self) -> Duration {
        self.since.get().elapsed()
    }
}

/// Rhai's own limits depend on its build profile, so every one is set.
pub fn bound(engine: &mut Engine) {
    engine
        .set_max_call_levels(CALL_LEVELS)
        .set_max_expr_depths(EXPRESSION_DEPTH, EXPRESSION_DEPTH)
        .set_max_operations(0)
        .set_max_variables(VARIABLES)
        .set_max_functions(FUNCTIONS)
        .set_max_modules(MODULES)
        .set_max_string_size(STRING_SIZE)
        .set_max_array_size(ARRAY_SIZE)
        .set_max_map_size(MAP_SIZE)
        .set_strict_variables(false)
        .set_fail_on_invalid_map_property(true)
        // Maps of constants stay map literals, whose keys serve as suggestions; positions stay exact.
        .set_optimization_level(OptimizationLevel::None);
}

/// Counts operations and time on our side: Rhai begins anew in every call that a native function makes.
pub fn count(engine: &mut Engine, session: &Rc<Session>, limits: &Limits) -> Rc<Usage> {
    let (usage, counter, limits) = (Rc::new(Usage::default()), session.clone(), limits.clone());
    let (total, looked) = (usage.clone(), Cell::new(Instant::now()));
    engine.on_progress(move |_| {
        let operations = total.count();
        // What is small alone adds up; the clock is looked at rarely because it takes as long as an operation.
        if operations.is_multiple_of(32) && looked.get().elapsed() >= LOOK_EVERY {
            looked.set(Instant::now());
            let checked = limits.check_time(total.elapsed()).and_then(|()| memory::enough());
            if let Err(e) = checked {
                return Some(Dynamic::from(e));
            }
        }
        let checked = limits.check_operations(operations).and_then(|()| counter.check());
        checked.err().map(Dynamic::from)
    });
    usage
}
