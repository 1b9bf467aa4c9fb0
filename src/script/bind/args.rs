//! `args`: hyper-parameters with their defaults, overridden from the command line.

use super::ranges;
use crate::error::{Error, Result};
use crate::run::Session;
use crate::run::options::{KNOWN, Kind, Known, RunOptions};
use crate::script::lang::native::{Call, Registry};
use crate::script::lang::value::describe;
use rhai::{Dynamic, Engine, FLOAT, INT, Map};
use std::path::Path;

/// The tag of a default that is a path: a text like any other, until `args` meets it.
const PATH: i32 = 19;

pub fn register(reg: &mut Registry) {
    reg.function("args", ["defaults"], |call: &Call, defaults: Map| -> Result<Map> {
        // Only the program itself is configured; what it calls or imports keeps its defaults.
        match call.context.call_source() == Some(call.session.program().label.as_str()) {
            true => declare(call.session, defaults),
            false => Ok(defaults),
        }
    });
    reg.function("path", ["default"], |default: String| -> Dynamic {
        let mut value = Dynamic::from(default);
        value.set_tag(PATH as _);
        value
    });
}

/// Takes over the hyper-parameters of the program, as the command line has set them.
///
/// # Errors
/// A second declaration; an override of an unknown name, or one that does not fit; a seed that is none.
pub fn declare(session: &Session, defaults: Map) -> Result<Map> {
    let names: Vec<String> = defaults.keys().map(ToString::to_string).collect();
    session.declare(names.clone())?;
    let mut cfg = overridden(session, defaults)?;
    session.set_run_options(run_options(&cfg, &names)?);
    if let Some(slot) = cfg.get_mut("seed") {
        let seed = slot.as_int().ok().and_then(|seed| u64::try_from(seed).ok()).ok_or_else(|| {
            Error::value(format!("`seed` must be a whole number, 0 or more, found {}", describe(slot)))
        })?;
        session.set_seed(seed);
        *slot = Dynamic::from(session.seed() as INT);
    }
    Ok(cfg)
}

/// What the command line has put beside the script's `own` hyper-parameters.
fn run_options(cfg: &Map, own: &[String]) -> Result<RunOptions> {
    let put = |name: &str| cfg.get(name).filter(|_| !own.iter().any(|own| own == name));
    let count = |value: Option<&Dynamic>| value.and_then(|n| n.as_int().ok()).map(|n| n.max(0) as u64);
    let options = RunOptions {
        reward: put("reward").and_then(|value| value.clone().into_string().ok()),
        eval_every: count(put("eval_every")),
        eval_n: count(put("eval_n")).map(|n| n as usize),
        own: own.iter().any(|name| name == "eval_every"),
        keep: put("keep").is_some_and(|value| value.as_bool() == Ok(true)),
        max_tokens: count(cfg.get("max_tokens")).map(|n| n as usize),
    };
    options.check()
}

/// What stands for a name of every script where the command line does not give it.
fn default_of(known: &Known) -> Dynamic {
    match known.kind {
        Kind::Text => "".into(),
        Kind::Count => Dynamic::ZERO,
        Kind::Flag => Dynamic::FALSE,
    }
}

/// The defaults with the command line's overrides, and what it says of every script that has a task.
///
/// # Errors
/// An override of an unknown name, or one that does not fit its default.
pub fn overridden(session: &Session, defaults: Map) -> Result<Map> {
    let names: Vec<String> = defaults.keys().map(ToString::to_string).collect();
    let mut cfg = defaults;
    for (name, text) in &session.launched().sets {
        if let Some(slot) = cfg.get_mut(name.as_str()) {
            let declared = slot.is_string() && i64::from(slot.tag()) == i64::from(PATH);
            *slot = parse(name, text, slot)?;
            ranges::check_divisor(name, slot, &session.program().text)?;
            // Only what says that it is a path is one: another text may happen to be the name of a folder.
            if declared && session.launched().said.contains(&(name.clone(), text.clone())) {
                session.access().allow(Path::new(&*slot.clone().into_immutable_string().unwrap_or_default()));
            }
            continue;
        }
        let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
            return Err(Error::unknown("hyper-parameter", name, &names));
        };
        if let Some(call) = known.lacks(&session.program().text) {
            let lacks = if call.starts_with("load_task") { "has no task" } else { "tracks no policy" };
            let what = format!("--set {name}: this script {lacks}, and no `{name}` of its own");
            return Err(Error::value(what).hint(format!("it is for scripts that call {call}…)")));
        }
        // Its range is `RunOptions`' to say: a script may mean something else by the name.
        cfg.insert(name.as_str().into(), typed(name, text, &default_of(known))?);
    }
    Ok(cfg)
}

/// Reads an override as the type of its default.
///
/// # Errors
/// A text that is no value of that type; a number outside the range of its name.
pub fn parse(name: &str, text: &str, default: &Dynamic) -> Result<Dynamic> {
    let value = typed(name, text, default)?;
    ranges::check(name, &value, default)
        .map_err(|e| Error { what: format!("--set {name}={text}: {}", e.what), ..e })?;
    Ok(value)
}

fn typed(name: &str, text: &str, default: &Dynamic) -> Result<Dynamic> {
    let wrong = |want: &str| {
        let e = Error::value(format!("--set {name}={text}: expected {want}, as its default is {}", describe(default)));
        match default.is_int() && text.parse::<FLOAT>().is_ok() {
            true => e.hint(format!("write the default as a float ({default}.0) if fractions make sense")),
            false => e,
        }
    };
    let text = text.trim();
    if default.is_string() {
        return Ok(unquoted(text).to_string().into());
    }
    if default.is_int() {
        return whole(text).map(Dynamic::from).ok_or_else(|| wrong("a whole number"));
    }
    if default.is_float() {
        let number = text.parse::<FLOAT>().ok().filter(|x| !x.is_nan());
        return number.map(Dynamic::from).ok_or_else(|| wrong("a number"));
    }
    if default.is_bool() {
        return text.parse::<bool>().map(Dynamic::from).map_err(|_| wrong("true or false"));
    }
    if default.is_array() || default.is_map() || default.is_unit() {
        return structured(text, default).ok_or_else(|| wrong("a value of the same type"));
    }
    Err(Error::value(format!("--set {name}: {} cannot be set from the command line", describe(default))))
}

/// `200`, `1_000`, and `1e3`, which is whole as well.
fn whole(text: &str) -> Option<INT> {
    let plain = text.replace('_', "");
    plain.parse().ok().or_else(|| {
        let x: FLOAT = plain.parse().ok()?;
        (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as INT)
    })
}

/// An array or a map as a script writes it; after `()` any plain value, else the text itself.
fn structured(text: &str, default: &Dynamic) -> Option<Dynamic> {
    let value = Engine::new_raw().eval_expression::<Dynamic>(text).ok();
    if default.is_unit() {
        return Some(value.unwrap_or_else(|| text.to_string().into()));
    }
    value.filter(|value| value.type_id() == default.type_id())
}

fn unquoted(text: &str) -> &str {
    let inner = |quote| text.strip_prefix(quote).and_then(|t: &str| t.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, default: impl Into<Dynamic>) -> std::result::Result<String, String> {
        parse("x", text, &default.into()).map(|v| format!("{v:?}")).map_err(|e| e.to_string())
    }

    #[test]
    fn overrides_take_the_type_of_the_default() {
        assert_eq!(set("3", 1_i64).as_deref(), Ok("3"));
        assert_eq!(set("1e3", 1_i64).as_deref(), Ok("1000"));
        assert_eq!(set("1", 0.5).as_deref(), Ok("1.0"));
        assert_eq!(set("false", true).as_deref(), Ok("false"));
        assert_eq!(set("'a b'", "x").as_deref(), Ok("\"a b\""));
        assert_eq!(set("[1, 2]", vec![Dynamic::ZERO]).as_deref(), Ok("[1, 2]"));
        assert_eq!(set("word", ()).as_deref(), Ok("\"word\""));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let e = set("0.5", 200_i64).expect_err("no whole number");
        assert_eq!(e, "--set x=0.5: expected a whole number, as its default is the int 200");
        set("yes", true).expect_err("no bool");
        set("#{}", vec![Dynamic::ZERO]).expect_err("no array");
    }
}
