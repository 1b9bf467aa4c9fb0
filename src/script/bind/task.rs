//! Tasks in scripts.

use super::convert::{Answer, drawn};
use crate::data::task::arithmetic::Arithmetic;
use crate::data::task::countdown::Countdown;
use crate::data::task::drawn::Drawn;
use crate::data::task::file::FromFile;
use crate::data::task::guess::Guess;
use crate::data::task::reverse::Reverse;
use crate::data::task::tldr::Tldr;
use crate::data::task::{self, Task};
use crate::data::{Batch, Prompts, User};
use crate::engine::ModelHandle;
use crate::error::{Error, Result};
use crate::run::evaluate::{self, Evaluation};
use crate::run::{Session, Stream};
use crate::script::options::{Options, describe};
use crate::script::registry::{Doc, Registry};
use crate::tensor::Tensor;
use rhai::{Array, Dynamic, FLOAT, INT, Map};
use std::path::Path;
use std::rc::Rc;

/// Held-out prompts that `evaluate` uses unless told.
const EVALUATED: usize = 256;

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    reg.global().set_custom_type::<Rc<dyn Task>>("Task");
    reg.global().set_custom_type::<Rc<dyn User>>("User");
    for name in ["to_string", "to_debug"] {
        let show = |task: &mut Rc<dyn Task>| -> Answer<String> { Ok(format!("Task({})", task.name())) };
        reg.global().set_native_fn(name, show);
        reg.global().set_native_fn(name, |user: &mut Rc<dyn User>| -> Answer<String> { Ok(format!("User({user:?})")) });
    }
    load(reg, session);
    train(reg, session);
    test(reg);
    score(reg);
    dialogue(reg);
    evaluation(reg, session);
}

fn load(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "load_task(name: string, options?: map) -> Task",
        "A task: training prompts, held-out prompts that never overlap with them, a reward, demonstrations and pairs.",
    )
    .param(
        "name",
        "string",
        "arithmetic, countdown, reverse, tldr or guess: docs/tasks.md describes them. Options that are single values may \
         follow it, as in \"guess:max=12,turns=4\": so --set task=… reaches them",
    )
    .param(
        "data",
        "string",
        "a file or folder, as load_data reads it, whose prompts are used instead of the task's own; the rows need the \
         fields that the reward reads. One row in eight, by the hash of its prompt, is held out. \"\" stands for none",
    )
    .param("digits", "int", "arithmetic: digits of both operands, 1 to 9; 2 unless given")
    .param("ops", "array of string", "arithmetic: among \"+\", \"-\" and \"*\"; [\"+\"] unless given")
    .param("numbers", "int", "countdown: how many numbers there are, 2 to 5; 3 unless given")
    .param("max", "int", "countdown: the largest number, 5 to 99; 9 unless given. guess: 8 to 9999; 31 unless given")
    .param("partial", "float", "countdown: the reward where the numbers are right and the value is not; 0 unless given")
    .param("length", "int or [int, int]", "reverse: letters, or the fewest and the most, 1 to 64; [4, 8] unless given")
    .param("facts", "int", "tldr: facts in a post, 2 to 4; 3 unless given")
    .param("turns", "int", "guess: how often the assistant may guess, 1 to 64; 5 unless given")
    .param("discount", "float", "guess: the reward is this to the power of the turns before; 1 unless given")
    .errors(
        "An unknown task or option, an option outside its range or given twice, an unknown operation; data that cannot \
         be read, or lacks a field that the reward reads.",
    )
    .example(
        "let task = load_task(\"arithmetic\", #{ digits: 1, ops: [\"+\", \"*\"] });\nassert_eq(task.prompts(5).len(), 5);\n\
         let task = load_task(\"countdown\", #{ numbers: 4, max: 20 });\nprint(task.prompts(1));\n\
         assert_eq(load_task(\"guess:turns=4\").turns, 4);",
    );
    reg.add(doc, |m| {
        let (plain, session) = (session.clone(), session.clone());
        m.set_native_fn("load_task", move |name: &str| -> Answer<Rc<dyn Task>> { Ok(open(&plain, name, Map::new())?) });
        m.set_native_fn("load_task", move |name: &str, options: Map| -> Answer<Rc<dyn Task>> {
            Ok(open(&session, name, options)?)
        });
    });
}

/// `guess:max=12,turns=4` is the name `guess`; what follows it joins `options`.
fn split_name(text: &str, mut options: Map) -> Result<(&str, Map)> {
    let (name, more) = text.split_once(':').unwrap_or((text, ""));
    for part in more.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').ok_or_else(|| {
            Error::value(format!("`load_task`: `{part}` in {text:?} is not name=value"))
                .hint("write options behind the task's name as in guess:max=12,turns=4")
        })?;
        let int = value.parse::<INT>().ok().map(Dynamic::from);
        let number = int.or_else(|| value.parse::<FLOAT>().ok().map(Dynamic::from));
        if options.insert(key.into(), number.unwrap_or_else(|| value.to_string().into())).is_some() {
            return Err(Error::value(format!("`load_task`: option `{key}` of {text:?} is given twice"))
                .hint("keep it in one place: behind the name or in the options"));
        }
    }
    Ok((name, options))
}

fn open(session: &Session, text: &str, options: Map) -> Result<Rc<dyn Task>> {
    let (name, options) = split_name(text, options)?;
    task::check_name(name)?;
    let mut options = Options::new("load_task", options)?;
    let data = options.string("data")?.filter(|data| !data.is_empty());
    let task: Rc<dyn Task> = match name {
        "countdown" => {
            let (numbers, max) = (options.count("numbers")?.unwrap_or(3), options.count("max")?.unwrap_or(9));
            Rc::new(Drawn::new(Countdown::new(numbers, max, options.float("partial")?.unwrap_or(0.0))?))
        }
        "reverse" => {
            let (shortest, longest) = options.value("length").map_or(Ok((4, 8)), |length| lengths(&length))?;
            Rc::new(Drawn::new(Reverse::new(shortest, longest)?))
        }
        "tldr" => Rc::new(Drawn::new(Tldr::new(options.count("facts")?.unwrap_or(3))?)),
        "guess" => {
            let (max, turns) = (options.count("max")?.unwrap_or(31), options.count("turns")?.unwrap_or(5));
            Rc::new(Drawn::new(Guess::new(max, turns, options.float("discount")?.unwrap_or(1.0))?))
        }
        _ => {
            let digits = options.count("digits")?.unwrap_or(2);
            let ops = options.strings("ops")?.unwrap_or_else(|| vec!["+".into()]);
            Rc::new(Drawn::new(Arithmetic::new(digits, &ops)?))
        }
    };
    options.finish()?;
    match data {
        Some(path) => {
            session.access().read(Path::new(&path))?;
            Ok(Rc::new(FromFile::open(task, Path::new(&path))?))
        }
        None => Ok(task),
    }
}

/// One length, or the shortest and the longest.
fn lengths(value: &Dynamic) -> Result<(usize, usize)> {
    let count = |value: &Dynamic| value.as_int().ok().and_then(|n| usize::try_from(n).ok());
    let both = match value.as_array_ref() {
        Ok(list) if list.len() == 2 => count(&list[0]).zip(count(&list[1])),
        Ok(_) => None,
        Err(_) => count(value).map(|n| (n, n)),
    };
    both.ok_or_else(|| {
        let what = "`load_task`: option `length` must be a whole number or two, the shortest and the longest";
        Error::value(format!("{what}, found {}", describe(value))).hint("for instance #{ length: [4, 8] }")
    })
}

fn train(reg: &mut Registry, session: &Rc<Session>) {
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
            Ok(task.prompts(some("prompts", n)?, run.key(Stream::Prompts))?)
        });
    });
    let doc = Doc::named(
        "demos",
        "task.demos(n: int) -> array",
        "n training prompts with a good answer each, as maps #{ prompt, completion, … } for `encode`.",
    )
    .param("n", "int", "how many")
    .errors("A negative n; a task with `data` whose rows have no `completion`.")
    .example(
        "let task = load_task(\"arithmetic\");\nlet model = load_model(\"tiny\");\n\
         let b = encode(model, task.demos(4));\nassert_eq(mean(task.score(b)).item(), 1.0);",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("demos", move |task: &mut Rc<dyn Task>, n: INT| -> Answer<Array> {
            let demos = task.demos(drawn("demos", n)?, run.key(Stream::Prompts))?;
            demos.iter().map(super::encode::demo_map).collect()
        });
    });
    let doc = Doc::named(
        "pairs",
        "task.pairs(n: int) -> array",
        "n training prompts with a good answer and a flawed one each, as maps #{ prompt, chosen, rejected, … } for \
         `encode_pairs`.",
    )
    .param("n", "int", "how many")
    .errors("A negative n; a task with `data` whose rows have no `chosen` and `rejected`.")
    .example(
        "let task = load_task(\"tldr\");\nlet model = load_model(\"tiny\");\n\
         let b = encode_pairs(model, task.pairs(4));\nassert(pair_diff(task.score(b)).min().item() > 0.0);",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("pairs", move |task: &mut Rc<dyn Task>, n: INT| -> Answer<Array> {
            let pairs = task.pairs(drawn("pairs", n)?, run.key(Stream::Prompts))?;
            pairs.iter().map(super::encode::pair_map).collect()
        });
    });
}

/// At least one.
fn some(function: &str, n: INT) -> Result<usize> {
    match drawn(function, n)? {
        0 => Err(Error::value(format!("`{function}`: n is 0, expected at least 1"))),
        n => Ok(n),
    }
}

fn test(reg: &mut Registry) {
    let doc = Doc::named(
        "test_prompts",
        "task.test_prompts(n: int) -> Prompts",
        "The first n held-out prompts: always the same ones, all of them if there are fewer.",
    )
    .param("n", "int", "how many")
    .errors("n below 1; data with one prompt only.")
    .example(
        "let task = load_task(\"reverse\");\n\
         assert_eq(task.test_prompts(8).to_array(), load_task(\"reverse\").test_prompts(8).to_array());",
    );
    reg.add(doc, |m| {
        m.set_native_fn("test_prompts", |task: &mut Rc<dyn Task>, n: INT| -> Answer<Prompts> {
            Ok(task.test_prompts(some("test_prompts", n)?)?)
        });
    });
    let doc = Doc::named(
        "test_demos",
        "task.test_demos(n: int) -> array",
        "The first n held-out problems with a good answer each, as task.demos gives them.",
    )
    .param("n", "int", "how many")
    .errors("As task.demos; data with one prompt only.")
    .example(
        "let task = load_task(\"countdown\");\nlet demo = task.test_demos(1)[0];\n\
         let b = batch(#{ text: [demo.completion], numbers: [demo.numbers], target: [demo.target] });\n\
         assert_eq(task.score(b).item(), 1.0);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("test_demos", |task: &mut Rc<dyn Task>, n: INT| -> Answer<Array> {
            task.test_demos(drawn("test_demos", n)?)?.iter().map(super::encode::demo_map).collect()
        });
    });
    let doc = Doc::named(
        "test_pairs",
        "task.test_pairs(n: int) -> array",
        "The first n held-out problems with a good answer and a flawed one each, as task.pairs gives them.",
    )
    .param("n", "int", "how many")
    .errors("As task.pairs; data with one prompt only.")
    .example("let pair = load_task(\"arithmetic\").test_pairs(1)[0];\nassert(pair.chosen != pair.rejected);");
    reg.add(doc, |m| {
        m.set_native_fn("test_pairs", |task: &mut Rc<dyn Task>, n: INT| -> Answer<Array> {
            task.test_pairs(drawn("test_pairs", n)?)?.iter().map(super::encode::pair_map).collect()
        });
    });
}

fn score(reg: &mut Registry) {
    let doc = Doc::named("score", "task.score(b: Batch) -> Tensor", "The reward of each row, [B,1].")
        .param("b", "Batch", "rows sampled from this task's prompts")
        .errors(
            "A batch without the columns that the task reads: `text`, and `answer` (arithmetic, reverse), `numbers` and \
             `target` (countdown) or `facts` (tldr); `secret` and `messages`, or `prompt` and `text` (guess).",
        )
        .source("the formula of each reward: docs/tasks.md")
        .example(
            "let task = load_task(\"arithmetic\");\nlet b = batch(#{ text: [\"46\", \"47\"], answer: [\"46\", \"46\"] });\n\
             assert_eq(task.score(b).to_array(), [[1.0], [0.0]]);",
        );
    reg.add(doc, |m| {
        m.set_native_fn("score", |task: &mut Rc<dyn Task>, b: Batch| -> Answer<Tensor> { Ok(task.score(&b)?) });
    });
}

fn dialogue(reg: &mut Registry) {
    let doc = Doc::named(
        "user",
        "task.user() -> User",
        "Who answers the assistant in a task of several turns, for `converse`.",
    )
    .errors("A task of one turn: all but guess.")
    .example("let task = load_task(\"guess\");\nassert_eq(type_of(task.user()), \"User\");");
    reg.add(doc, |m| {
        m.set_native_fn("user", |task: &mut Rc<dyn Task>| -> Answer<Rc<dyn User>> { Ok(task.user()?) });
    });
    let doc = Doc::named("turns", "task.turns -> int", "How often the assistant may speak: 1 in all tasks but guess.")
        .example("assert_eq([load_task(\"guess\").turns, load_task(\"tldr\").turns], [5, 1]);");
    reg.add(doc, |m| {
        m.set_getter_fn("turns", |task: &mut Rc<dyn Task>| -> Answer<INT> { Ok(task.turns() as INT) });
    });
    let doc = Doc::named(
        "max_tokens",
        "task.max_tokens -> int",
        "How many tokens an answer, or one turn of it, may take when it is evaluated.",
    )
    .example("assert_eq(load_task(\"arithmetic\", #{ digits: 2 }).max_tokens, 8);");
    reg.add(doc, |m| {
        m.set_getter_fn("max_tokens", |task: &mut Rc<dyn Task>| -> Answer<INT> { Ok(task.max_tokens() as INT) });
    });
}

fn evaluation(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::named(
        "evaluate",
        "task.evaluate(model: Model, options?: map) -> float",
        "The mean reward of one answer (guess: one dialogue), sampled at temperature 1, to each of the first n held-out \
         prompts.",
    )
    .param("model", "Model", "who answers")
    .param("n", "int", "held-out prompts: always the same ones, all of them if there are fewer; 256 unless given")
    .param("max_tokens", "int", "of an answer, or of one turn of it; task.max_tokens unless given")
    .errors("A model without tokenizer; n or max_tokens below 1; data with one prompt only.")
    .example(
        "let task = load_task(\"arithmetic\");\nlet model = load_model(\"tiny\");\n\
         let accuracy = task.evaluate(model, #{ n: 8 });\nassert(accuracy >= 0.0 && accuracy <= 1.0);",
    );
    let (plain, run) = (session.clone(), session.clone());
    reg.add(doc, |m| {
        m.set_native_fn("evaluate", move |task: &mut Rc<dyn Task>, model: ModelHandle| -> Answer<f64> {
            Ok(measure(&plain, task.as_ref(), &model, Dynamic::UNIT)?)
        });
        m.set_native_fn("evaluate", move |task: &mut Rc<dyn Task>, model: ModelHandle, options: Map| -> Answer<f64> {
            Ok(measure(&run, task.as_ref(), &model, options.into())?)
        });
    });
}

fn measure(session: &Session, task: &dyn Task, model: &ModelHandle, options: Dynamic) -> Result<f64> {
    let mut options = Options::new("evaluate", options)?;
    let n = options.count("n")?.unwrap_or(EVALUATED);
    let max_tokens = options.count("max_tokens")?;
    options.finish()?;
    let evaluation = Evaluation { n, max_tokens, key: session.key(Stream::Evaluate) };
    evaluate::mean_reward(session.engine(), task, model, &evaluation)
}
