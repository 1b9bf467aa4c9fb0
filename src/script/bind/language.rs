//! Functions of the language itself that are bound anew, because its own can hang, panic or take all memory.

use super::convert::Answer;
use crate::error::Error;
use crate::run::Session;
use crate::script::registry::Registry;
use crate::script::value::to_json;
use crate::tensor::memory;
use rhai::{Dynamic, FLOAT, INT, ImmutableString, Map};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Between two looks at Ctrl-C.
const NAP: Duration = Duration::from_millis(50);

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    let m = reg.global();
    let own = session.clone();
    m.set_native_fn("sleep", move |seconds: FLOAT| sleep(&own, seconds));
    let own = session.clone();
    m.set_native_fn("sleep", move |seconds: INT| sleep(&own, seconds as FLOAT));
    // A function in the map is named and not looked into: it may hold the map itself.
    m.set_native_fn("to_json", |map: &mut Map| -> Answer<String> {
        Ok(to_json(&Dynamic::from(map.clone())).to_string())
    });
    m.set_native_fn("replace", |text: &mut ImmutableString, from: ImmutableString, to: ImmutableString| {
        replace(text, &from, &to)
    });
}

fn sleep(session: &Session, seconds: FLOAT) -> Answer<()> {
    const LONGEST: FLOAT = 86_400.0;
    if !(0.0..=LONGEST).contains(&seconds) {
        return Err(Error::value(format!("sleep: expected 0 to {LONGEST} seconds, found {seconds}")).into());
    }
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        session.check()?;
        std::thread::sleep(left.min(NAP));
    }
    Ok(())
}

/// In place, as the language does it; the length is known before the memory is taken.
fn replace(text: &mut ImmutableString, from: &str, to: &str) -> Answer<()> {
    let found = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
    let more = (to.len() as u64).saturating_mul(found as u64);
    memory::room(more)?;
    if more > crate::script::limits::STRING_SIZE as u64 {
        return Err(Error::value(format!("replace: {found} replacements make the text too long")).into());
    }
    *text = text.replace(from, to).into();
    Ok(())
}
