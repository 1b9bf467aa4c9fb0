//! `open_run` and the handle it returns: the step loop, logging, tracking and saving.

use crate::data::Batch;
use crate::engine::ModelHandle;
use crate::error::{Error, Result};
use crate::model::SaveDtype;
use crate::run::steps::Steps;
use crate::run::{Run, Session};
use crate::script::options::{Options, describe};
use crate::script::registry::{Doc, Registry};
use crate::script::value::to_json;
use crate::tensor::Tensor;
use crate::tensor::shape::show as show_shape;
use rhai::{Dynamic, EvalAltResult, FLOAT, INT, Map, Module, NativeCallContext};
use std::any::TypeId;
use std::rc::Rc;

type Handle = Rc<Run>;
type Fallible<T> = std::result::Result<T, Box<EvalAltResult>>;

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    reg.global().set_custom_type::<Handle>("Run");
    reg.global().set_custom_type::<Steps>("Steps");
    iterate(reg.global());
    open(reg, session);
    folder(reg);
    steps(reg, session);
    log(reg);
    show(reg, session);
    track(reg);
    save(reg, session);
}

fn open(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "open_run(cfg: map) -> Run",
        "Opens the run folder (`runs/NAME-TIME`, or `--out`) with `config.json` and the script's text.",
    )
    .param("cfg", "map", "the hyper-parameters, written to config.json")
    .errors("A run is open already, or the folder given with --out holds something.")
    .example("let run = open_run(#{ steps: 2 });\nfor step in run.steps(2) {\n    run.log(#{ loss: 1.0 / step });\n}");
    let session = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("open_run", move |ctx: NativeCallContext, cfg: Map| {
            let program = session.program().label;
            if let Some(other) = ctx.call_source().filter(|source| *source != program) {
                return Err(Error::value(format!("{other} opens a run of its own, so it cannot be imported"))
                    .hint("to call its functions without running it: script(\"NAME\").call(\"loss\", [logp, b, cfg])")
                    .into());
            }
            Ok(session.open_run(&to_json(&Dynamic::from(cfg)))?)
        });
    });
}

fn folder(reg: &mut Registry) {
    let doc = Doc::named("dir", "run.dir -> string", "The run's folder, for files of one's own.").example(
        "let run = open_run(#{});\nlet b = batch(#{ reward: [1, 0] });\nb.save(run.dir + \"/first.safetensors\");\n\
         assert_eq(load_batch(run.dir + \"/first.safetensors\").reward, b.reward);",
    );
    reg.add(doc, |m| {
        m.set_getter_fn("dir", |run: &mut Handle| Ok(run.folder().path().display().to_string()));
    });
}

fn steps(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::named(
        "steps",
        "run.steps(n: int) -> Steps",
        "The step loop: `for step in run.steps(n)` counts 1 to n, shows progress, and ends early on Ctrl-C.",
    )
    .param("n", "int", "the number of steps; a further loop counts on from where the last one ended")
    .errors("n is negative.")
    .example("let run = open_run(#{});\nlet last = 0;\nfor step in run.steps(3) { last = step; }\nassert_eq(last, 3);");
    let session = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("steps", move |run: &mut Handle, n: INT| {
            let wrong = || Error::value(format!("run.steps: the number of steps must not be negative, found {n}"));
            Ok(Steps::new(&session, run, u64::try_from(n).map_err(|_| wrong())?))
        });
    });
}

fn iterate(m: &mut Module) {
    m.set_iter_result(TypeId::of::<Steps>(), |steps| {
        let step = |step: Result<u64>| Ok(Dynamic::from(step? as INT));
        Box::new(steps.cast::<Steps>().into_iter().map(step))
    });
}

fn log(reg: &mut Registry) {
    let doc = Doc::named(
        "log",
        "run.log(values: map)",
        "Adds numbers to the current step's line of metrics.jsonl; a name that comes again in a step is averaged.",
    )
    .param("values", "map", "names and numbers; a tensor must hold one value and is detached")
    .errors("A value is no number. NaN and infinity are numbers here, and `null` in the file.")
    .example("let run = open_run(#{});\nrun.log(#{ eval: 0.25, reward: tensor([[1.0]]) });");
    reg.add(doc, |m| {
        m.set_native_fn("log", |run: &mut Handle, values: Map| {
            for (name, value) in &values {
                run.log(name, number(name, value)?);
            }
            Ok(())
        });
    });
}

fn number(name: &str, value: &Dynamic) -> Result<f64> {
    let plain = value.as_float().or_else(|_| value.as_int().map(|i| i as FLOAT));
    if let Ok(x) = plain.or_else(|_| value.as_bool().map(|b| FLOAT::from(u8::from(b)))) {
        return Ok(x);
    }
    let Some(tensor) = value.read_lock::<Tensor>() else {
        return Err(Error::value(format!("run.log: `{name}` must be a number, found {}", describe(value))));
    };
    if tensor.len() != 1 {
        let what =
            format!("run.log: `{name}` must be one number, found a tensor of shape {}", show_shape(tensor.dims()));
        return Err(Error::shape(what).hint("reduce it first: mean(x) per row, token_mean(x, mask) per token"));
    }
    Ok(tensor.to_vec()?[0])
}

fn show(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::named(
        "show",
        "run.show(b: Batch, k: int)",
        "Shows k sampled rows with their rewards every few steps, and logs the batch's `entropy` at every step.",
    )
    .param("b", "Batch", "sampled rows; `reward`, `length` and `finished` are shown where they are set")
    .param("k", "int", "how many rows")
    .errors("k is negative.")
    .example(
        "let run = open_run(#{});\nlet b = batch(#{ reward: [[1.0], [0.0]], text: [\"4\", \"5\"] });\nrun.show(b, 2);",
    );
    let session = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("show", move |run: &mut Handle, batch: Batch, k: INT| {
            let wrong = || Error::value(format!("run.show: the number of rows must not be negative, found {k}"));
            Ok(run.show(&session, &batch, usize::try_from(k).map_err(|_| wrong())?)?)
        });
    });
}

fn track(reg: &mut Registry) {
    let doc = Doc::named(
        "track",
        "run.track(handles: map)",
        "Names what belongs to the run's state; on Ctrl-C the trained models among it are saved if the script did not.",
    )
    .param("handles", "map", "names and handles: models, optimizers, tasks")
    .errors("A value is no handle.")
    .example("let run = open_run(#{});\nrun.track(#{});");
    reg.add(doc, |m| {
        m.set_native_fn("track", |run: &mut Handle, handles: Map| {
            for (name, handle) in handles {
                if let Some(model) = handle.read_lock::<ModelHandle>() {
                    run.track(&name, model.clone());
                } else if is_plain(&handle) {
                    let found = describe(&handle);
                    let e = Error::value(format!("run.track: `{name}` must be a handle, found {found}"));
                    return Err(e.hint("track models, optimizers and tasks; numbers go to run.log").into());
                }
            }
            Ok(())
        });
    });
}

fn is_plain(value: &Dynamic) -> bool {
    value.is_unit() || value.is_int() || value.is_float() || value.is_bool() || value.is_string() || value.is_array()
}

fn save(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::named(
        "save",
        "run.save(model: Model, options?: map)",
        "Writes the model into the run folder's `model/`, in the Hugging Face layout, whole or not at all.",
    )
    .param("model", "Model", "the model to write")
    .param("options", "map", "`dtype`: \"f32\" (as trained, unless given), \"f16\" or \"bf16\"")
    .errors("The folder cannot be written, or the dtype is unknown.")
    .example("let run = open_run(#{});\nlet policy = load_model(\"tiny\");\nrun.save(policy, #{ dtype: \"f16\" });");
    reg.add(doc, |m| {
        let plain = session.clone();
        m.set_native_fn("save", move |run: &mut Handle, model: ModelHandle| write(&plain, run, &model, Map::new()));
        let session = session.clone();
        m.set_native_fn("save", move |run: &mut Handle, model: ModelHandle, options: Map| {
            write(&session, run, &model, options)
        });
    });
}

fn write(session: &Session, run: &Run, model: &ModelHandle, options: Map) -> Fallible<()> {
    let mut options = Options::new("run.save", options)?;
    let dtype = options.string("dtype")?.map_or(Ok(SaveDtype::F32), |name| SaveDtype::parse(&name))?;
    options.finish()?;
    Ok(run.save(session.engine(), model, dtype)?)
}
