//! `open_run` and the handle it returns: the step loop, logging, tracking and saving.

use super::model::Saving;
use super::tracked::{State, Tracked};
use crate::data::Batch;
use crate::engine::ModelHandle;
use crate::error::{Error, Result};
use crate::run::steps::Steps;
use crate::run::{EVAL, Run, names};
use crate::script::lang::native::{Call, Handle, Options, Registry};
use crate::script::lang::value::{describe, to_json};
use crate::tensor::Tensor;
use crate::tensor::shape::show as show_shape;
use rhai::{Dynamic, FLOAT, INT, Map, Module};
use std::any::TypeId;
use std::rc::Rc;

impl Handle for Rc<Run> {
    const NAME: &'static str = "Run";
    const RECEIVER: &'static str = "run";
}

impl Handle for Steps {
    const NAME: &'static str = "Steps";
    const RECEIVER: &'static str = "steps";
}

impl Handle for State {
    const NAME: &'static str = "State";
    const RECEIVER: &'static str = "state";
}

fn state(reg: &mut Registry, tracked: &Tracked) {
    reg.handle::<State>(|state| format!("State({})", state.names().join(", ")));
    let own = tracked.clone();
    reg.function("state", ["values"], move |_: &mut Rc<Run>, values: Map| own.state(values));
    let unknown = |state: &State, name: &str| Error::unknown("name of the state", name, &state.names());
    reg.function("get", ["name"], move |state: &mut State, name: String| -> Result<Dynamic> {
        state.get(&name).ok_or_else(|| unknown(state, &name))
    });
    reg.function("set", ["name", "value"], move |state: &mut State, name: String, value: Dynamic| -> Result<()> {
        if state.set(&name, value) { Ok(()) } else { Err(unknown(state, &name)) }
    });
}

pub fn register(reg: &mut Registry, tracked: &Tracked) {
    reg.handle::<Rc<Run>>(|_| "Run".into());
    reg.handle::<Steps>(|_| "Steps".into());
    iterate(reg.global());
    let own = tracked.clone();
    reg.function("open_run", ["cfg"], move |call: &Call, cfg: Map| -> Result<Rc<Run>> {
        let program = call.session.program().label;
        if let Some(other) = call.context.call_source().filter(|source| *source != program) {
            return Err(Error::value(format!("{other} opens a run of its own, so it cannot be imported"))
                .hint("to call its functions without running it: script(\"NAME\").call(\"loss\", [logp, b, cfg])"));
        }
        let run = call.session.open_run(&to_json(&Dynamic::from(cfg)))?;
        own.begin();
        Ok(run)
    });
    reg.property("dir", |run: &mut Rc<Run>| run.folder().path().display().to_string());
    reg.function("steps", ["n"], |call: &Call, run: &mut Rc<Run>, n: usize| Steps::new(call.session, run, n as u64));
    reg.function("log", ["values"], |call: &Call, run: &mut Rc<Run>, values: Map| -> Result<()> {
        if let Some(name) = values.keys().find(|name| names::is_of_every_line(name)) {
            return Err(Error::value(format!("run.log: every line has a `{name}` of its own"))
                .hint(format!("give it another name: my_{name}")));
        }
        for (name, value) in &values {
            let value = number("run.log", name, value)?;
            run.log(name, value);
            if name.as_str() == EVAL {
                call.session.tell_evaluation(run, value);
            }
            if let Some(hint) = run.hint(name) {
                call.session.reporter().note(&hint);
            }
        }
        Ok(())
    });
    reg.function("show", ["b", "k"], |call: &Call, run: &mut Rc<Run>, b: Batch, k: usize| {
        run.show(call.session, &b, k)
    });
    state(reg, tracked);
    let own = tracked.clone();
    reg.function("track", ["handles"], move |run: &mut Rc<Run>, handles: Map| track(run, handles, &own));
    reg.function(
        "keep",
        ["name", "value", "model"],
        |call: &Call, run: &mut Rc<Run>, name: String, value: Dynamic, model: ModelHandle| -> Result<bool> {
            let value = number("run.keep", &name, &value)?;
            call.session.keep(run, &name, value, &model)
        },
    );
    reg.function(
        "save",
        ["model", "options"],
        |call: &Call, run: &mut Rc<Run>, model: ModelHandle, Options(options): Options<Saving>| {
            run.save(call.session.engine(), &model, options.dtype)
        },
    );
}

fn iterate(m: &mut Module) {
    m.set_iter_result(TypeId::of::<Steps>(), |steps| {
        let step = |step: Result<u64>| Ok(Dynamic::from(step? as INT));
        Box::new(steps.cast::<Steps>().into_iter().map(step))
    });
}

fn number(call: &str, name: &str, value: &Dynamic) -> Result<f64> {
    let plain = value.as_float().or_else(|_| value.as_int().map(|i| i as FLOAT));
    if let Ok(x) = plain.or_else(|_| value.as_bool().map(|b| FLOAT::from(u8::from(b)))) {
        return Ok(x);
    }
    let Some(tensor) = value.read_lock::<Tensor>() else {
        return Err(Error::value(format!("{call}: `{name}` must be a number, found {}", describe(value))));
    };
    if tensor.len() != 1 {
        let what =
            format!("{call}: `{name}` must be one number, found a tensor of shape {}", show_shape(tensor.dims()));
        return Err(Error::shape(what).hint("reduce it first: mean(x) per row, token_mean(x, mask) per token"));
    }
    Ok(tensor.to_vec()?[0])
}

fn track(run: &mut Rc<Run>, handles: Map, tracked: &Tracked) -> Result<()> {
    for (name, handle) in &handles {
        if let Some(model) = handle.read_lock::<ModelHandle>() {
            run.track(name, model.clone());
        } else if is_plain(handle) {
            let found = describe(handle);
            return Err(Error::value(format!("run.track: `{name}` must be a handle, found {found}"))
                .hint("track models, optimizers and tasks; numbers go to run.log"));
        }
    }
    tracked.track(handles);
    Ok(())
}

fn is_plain(value: &Dynamic) -> bool {
    value.is_unit() || value.is_int() || value.is_float() || value.is_bool() || value.is_string() || value.is_array()
}
