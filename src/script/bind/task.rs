//! Tasks in scripts.

use super::convert::{Answer, drawn};
use crate::data::task::{self, Task, arithmetic::Arithmetic};
use crate::data::{Batch, Prompts};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::run::{Session, Stream, evaluate};
use crate::script::options::Options;
use crate::script::registry::{Doc, Registry};
use crate::tensor::Tensor;
use rhai::{Array, Dynamic, INT, Map};
use std::rc::Rc;
use std::sync::Arc;

/// Held-out prompts that `evaluate` uses unless told.
const EVALUATED: usize = 256;

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    reg.global().set_custom_type::<Rc<dyn Task>>("Task");
    for name in ["to_string", "to_debug"] {
        let show = |task: &mut Rc<dyn Task>| -> Answer<String> { Ok(format!("Task({})", task.name())) };
        reg.global().set_native_fn(name, show);
    }
    load(reg);
    use_it(reg, session);
    evaluation(reg, session);
}

fn load(reg: &mut Registry) {
    let doc = Doc::new(
        "load_task(name: string, options?: map) -> Task",
        "A task: training prompts, held-out prompts that never overlap with them, a reward, and demonstrations.",
    )
    .param("name", "string", "`arithmetic`: 12+34= is to be continued with 46")
    .param("digits", "int", "arithmetic: digits of both operands, 1 to 9; 2 unless given")
    .param("ops", "array of string", "arithmetic: among \"+\", \"-\" and \"*\"; [\"+\"] unless given")
    .errors("An unknown task or option, digits outside 1 to 9, an unknown operation.")
    .example(
        "let task = load_task(\"arithmetic\", #{ digits: 1, ops: [\"+\", \"*\"] });\nassert_eq(task.prompts(5).len(), 5);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("load_task", |name: &str| -> Answer<Rc<dyn Task>> { Ok(open(name, Dynamic::UNIT)?) });
        m.set_native_fn("load_task", |name: &str, options: Map| -> Answer<Rc<dyn Task>> {
            Ok(open(name, options.into())?)
        });
    });
}

fn open(name: &str, options: Dynamic) -> Result<Rc<dyn Task>> {
    task::check_name(name)?;
    let mut options = Options::new("load_task", options)?;
    let digits = options.count("digits")?.unwrap_or(2);
    let ops = options.strings("ops")?.unwrap_or_else(|| vec!["+".into()]);
    options.finish()?;
    Ok(Rc::new(Arithmetic::new(digits, &ops)?))
}

fn use_it(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::named(
        "prompts",
        "task.prompts(n: int) -> Prompts",
        "n training prompts; which ones follows the run's seed and step.",
    )
    .param("n", "int", "how many")
    .errors("n below 1.")
    .example("let task = load_task(\"arithmetic\");\nassert_eq(task.prompts(16).len(), 16);");
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("prompts", move |task: &mut Rc<dyn Task>, n: INT| -> Answer<Prompts> {
            let n = drawn("prompts", n)?;
            if n == 0 {
                return Err(Error::value("`prompts`: n is 0, expected at least 1").into());
            }
            Ok(task.prompts(n, run.key(Stream::Prompts))?)
        });
    });
    let doc = Doc::named("score", "task.score(b: Batch) -> Tensor", "The reward of each row, [B,1].")
        .param("b", "Batch", "rows sampled from this task's prompts")
        .errors("A batch without the columns that the task reads (arithmetic: `text` and `answer`).")
        .source("arithmetic: 1 if the text, without surrounding white space, is exactly the answer, else 0")
        .example(
            "let task = load_task(\"arithmetic\");\nlet b = batch(#{ text: [\"46\", \"47\"], answer: [\"46\", \"46\"] });\n\
             assert_eq(task.score(b).to_array(), [[1.0], [0.0]]);",
        );
    reg.add(doc, |m| {
        m.set_native_fn("score", |task: &mut Rc<dyn Task>, b: Batch| -> Answer<Tensor> { Ok(task.score(&b)?) });
    });
    let doc = Doc::named(
        "demos",
        "task.demos(n: int) -> array",
        "n training prompts with a good answer each, as maps #{ prompt, completion, … } for `encode`.",
    )
    .param("n", "int", "how many")
    .errors("A negative n.")
    .example(
        "let task = load_task(\"arithmetic\");\nlet model = load_model(\"tiny\", #{ random: true });\n\
         let b = encode(model, task.demos(4));\nassert_eq(mean(task.score(b)).item(), 1.0);",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("demos", move |task: &mut Rc<dyn Task>, n: INT| -> Answer<Array> {
            let demos = task.demos(drawn("demos", n)?, run.key(Stream::Prompts))?;
            demos.iter().map(super::encode::demo_map).collect()
        });
    });
}

fn evaluation(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::named(
        "evaluate",
        "task.evaluate(model: Model, options?: map) -> float",
        "The mean reward of one answer, sampled at temperature 1, to each of the first n held-out prompts.",
    )
    .param("model", "Model", "who answers")
    .param("n", "int", "held-out prompts: always the same ones, all of them if there are fewer; 256 unless given")
    .errors("A model without tokenizer; n below 1.")
    .example(
        "let task = load_task(\"arithmetic\");\nlet model = load_model(\"tiny\", #{ random: true });\n\
         let accuracy = task.evaluate(model, #{ n: 8 });\nassert(accuracy >= 0.0 && accuracy <= 1.0);",
    );
    let (plain, run) = (session.clone(), session.clone());
    reg.add(doc, |m| {
        m.set_native_fn("evaluate", move |task: &mut Rc<dyn Task>, model: Arc<Model>| -> Answer<f64> {
            Ok(measure(&plain, task.as_ref(), &model, Dynamic::UNIT)?)
        });
        m.set_native_fn("evaluate", move |task: &mut Rc<dyn Task>, model: Arc<Model>, options: Map| -> Answer<f64> {
            Ok(measure(&run, task.as_ref(), &model, options.into())?)
        });
    });
}

fn measure(session: &Session, task: &dyn Task, model: &Arc<Model>, options: Dynamic) -> Result<f64> {
    let mut options = Options::new("evaluate", options)?;
    let n = options.count("n")?.unwrap_or(EVALUATED);
    options.finish()?;
    evaluate::mean_reward(task, model, n, session.key(Stream::Evaluate), &session.settings())
}
