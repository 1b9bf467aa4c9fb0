//! Functions of the language itself that are bound anew, because its own can hang, panic or take all memory.

use crate::data::json;
use crate::error::{Error, Result};
use crate::run::Session;
use crate::script::lang::native::{Call, Fallible, FromScript, Number, Place, Registry, Typed};
use crate::script::lang::order;
use crate::script::lang::value::{from_json, to_json};
use rhai::{Array, Dynamic, FLOAT, INT, ImmutableString, Map};
use std::any::TypeId;
use std::time::{Duration, Instant};

/// Between two looks at Ctrl-C.
const NAP: Duration = Duration::from_millis(50);

pub fn register(reg: &mut Registry) {
    reg.hidden("sleep", ["seconds"], |call: &Call, seconds: Seconds| sleep(call.session, seconds.0));
    // A function in the map is named and not looked into: it may hold the map itself.
    reg.hidden("to_json", ["map"], |map: Ordered| to_json(&map.0).to_string());
    reg.hidden("keys", ["map"], |map: Ordered| map.keys().into_iter().map(Dynamic::from).collect::<Array>());
    reg.hidden("values", ["map"], |map: Ordered| map.entries().into_iter().map(|(_, value)| value).collect::<Array>());
    for name in ["print", "to_string", "debug", "to_debug"] {
        reg.hidden(name, ["map"], |call: &Call, map: Ordered| shown(call, &map));
    }
    reg.hidden("parse_json", ["text"], |text: ImmutableString| json::parse(&text).map(|json| from_json(&json)));
}

/// A map with the order of its keys.
struct Ordered(Dynamic);

impl Typed for Ordered {
    const TYPE: &'static str = "map";
}

impl FromScript for Ordered {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Map>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        if value.is_map() { Ok(Self(value)) } else { Err(place.wrong("a map", &value)) }
    }
}

impl Ordered {
    fn keys(&self) -> Vec<ImmutableString> {
        self.entries().into_iter().map(|(key, _)| key).collect()
    }

    fn entries(&self) -> Vec<(ImmutableString, Dynamic)> {
        let Ok(map) = self.0.as_map_ref() else { return Vec::new() };
        order::keys(&self.0, &map).into_iter().map(|key| (key.as_str().into(), map[key].clone())).collect()
    }
}

/// `#{"a": 1}`, as the language writes maps.
fn shown(call: &Call, map: &Ordered) -> Fallible<String> {
    let mut text = String::from("#{");
    for (i, (key, value)) in map.entries().into_iter().enumerate() {
        let value: ImmutableString = call.context.call_native_fn("to_debug", (value,))?;
        text += &format!("{}{:?}: {value}", if i > 0 { ", " } else { "" }, key.as_str());
    }
    Ok(text + "}")
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
