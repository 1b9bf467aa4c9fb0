//! Functions of the language itself that are bound anew, because its own can hang, panic or take all memory.

use crate::error::{Error, Result};
use crate::run::Session;
use crate::script::lang::native::{Call, FromScript, Number, Place, Registry, Typed};
use crate::script::lang::value::to_json;
use rhai::{Dynamic, FLOAT, INT, Map};
use std::any::TypeId;
use std::time::{Duration, Instant};

/// Between two looks at Ctrl-C.
const NAP: Duration = Duration::from_millis(50);

pub fn register(reg: &mut Registry) {
    reg.hidden("sleep", ["seconds"], |call: &Call, seconds: Seconds| sleep(call.session, seconds.0));
    // A function in the map is named and not looked into: it may hold the map itself.
    reg.hidden("to_json", ["map"], |map: Map| to_json(&Dynamic::from(map)).to_string());
}

/// A time, of the two types that the language's own function takes.
struct Seconds(FLOAT);

impl Typed for Seconds {
    const TYPE: &'static str = "number";
}

impl FromScript for Seconds {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<FLOAT>(), TypeId::of::<INT>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        <Number as FromScript>::read(value, place).map(|seconds| Self(seconds.0))
    }
}

fn sleep(session: &Session, seconds: FLOAT) -> Result<()> {
    const LONGEST: FLOAT = 86_400.0;
    if !(0.0..=LONGEST).contains(&seconds) {
        return Err(Error::value(format!("sleep: expected 0 to {LONGEST} seconds, found {seconds}")));
    }
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        session.check()?;
        std::thread::sleep(left.min(NAP));
    }
    Ok(())
}
