//! Maps in scripts: what the language itself does with them; `pages/maps.md` says what each means.

use crate::script::lang::native::{Call, Fallible, Registry};
use rhai::{Dynamic, EvalAltResult, Map};
use std::any::TypeId;

pub fn register(reg: &mut Registry) {
    reg.of_the_language::<Map>("len", &[], "int");
    reg.of_the_language::<Map>("keys", &[], "array");
    reg.of_the_language::<Map>("values", &[], "array");
    reg.of_the_language::<Map>("contains", &[("key", "string")], "bool");
    reg.of_the_language::<Map>("remove", &[("key", "string")], "any");
    reg.of_the_language::<Map>("mixin", &[("other", "map")], "");
    reg.of_the_language::<Map>("fill_with", &[("other", "map")], "");
    reg.of_the_language::<Map>("filter", &[("test", "Fn")], "map");
    // The language's own takes values that have no comparison, as a text and a number, for an error.
    let both = [[TypeId::of::<Map>(); 2]];
    reg.hidden_on("==", ["a", "b"], &both, |call: &Call, a: Map, b: Map| alike(call, a, b));
    reg.hidden_on("!=", ["a", "b"], &both, |call: &Call, a: Map, b: Map| alike(call, a, b).map(|alike| !alike));
}

/// Whether both have the same keys with equal values.
fn alike(call: &Call, a: Map, mut b: Map) -> Fallible<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (key, mut value) in a {
        let Some(other) = b.get_mut(&key) else { return Ok(false) };
        let differs = value.type_id() != other.type_id();
        let equal = call.context.call_native_fn_raw("==", true, &mut [&mut value, other]).or_else(|e| match *e {
            EvalAltResult::ErrorFunctionNotFound(ref signature, _) if differs && signature.starts_with("==") => {
                Ok(Dynamic::FALSE)
            }
            _ => Err(e),
        })?;
        if !equal.as_bool().unwrap_or(false) {
            return Ok(false);
        }
    }
    Ok(true)
}
