//! Tasks in scripts.

use super::convert::{AtLeastOne, Drawn};
use super::encode::{demo_map, pair_map};
use crate::data::task::arithmetic::Arithmetic;
use crate::data::task::countdown::Countdown;
use crate::data::task::drawn::Drawn as DrawnTask;
use crate::data::task::file::FromFile;
use crate::data::task::guess::Guess;
use crate::data::task::reverse::Reverse;
use crate::data::task::tldr::Tldr;
use crate::data::task::{self, Task};
use crate::data::{Batch, Demo, Pair, User};
use crate::engine::ModelHandle;
use crate::error::{Error, Result};
use crate::run::evaluate::{self, Evaluation};
use crate::run::{Session, Stream};
use crate::script::lang::native::{
    Argument, Call, FromScript, Handle, Opt, OptionSet, OptionValue, Options, Place, Presence, Registry, options,
};
use rhai::{Array, Dynamic, FLOAT, INT, Map};
use std::any::TypeId;
use std::path::Path;
use std::rc::Rc;

type TaskHandle = Rc<dyn Task>;
type UserHandle = Rc<dyn User>;

impl Handle for TaskHandle {
    const NAME: &'static str = "Task";
    const RECEIVER: &'static str = "task";
}

impl Handle for UserHandle {
    const NAME: &'static str = "User";
    const RECEIVER: &'static str = "user";
}

pub fn register(reg: &mut Registry) {
    reg.handle::<TaskHandle>(|task| format!("Task({})", task.name()));
    reg.handle::<UserHandle>(|user| format!("User({user:?})"));
    reg.function("load_task", ["name", "options"], |call: &Call, name: String, options: TaskOptions| {
        open(call.session, &name, options.0)
    });
    train(reg);
    test(reg);
    reg.function("score", ["b"], |task: &mut TaskHandle, b: Batch| task.score(&b));
    reg.function("user", [], |task: &mut TaskHandle| task.user());
    reg.property("turns", |task: &mut TaskHandle| task.turns());
    reg.property("max_tokens", |task: &mut TaskHandle| task.max_tokens());
    reg.function(
        "evaluate",
        ["model", "options"],
        |call: &Call, task: &mut TaskHandle, model: ModelHandle, Options(options): Options<Evaluating>| {
            let Evaluating { n, max_tokens } = options;
            let evaluation = Evaluation { n, max_tokens, key: call.session.key(Stream::Evaluate) };
            evaluate::mean_reward(call.session.engine(), &**task, &model, &evaluation)
        },
    );
}

fn train(reg: &mut Registry) {
    reg.function("prompts", ["n"], |call: &Call, task: &mut TaskHandle, n: AtLeastOne| {
        task.prompts(n.0, call.session.key(Stream::Prompts))
    });
    reg.function("demos", ["n"], |call: &Call, task: &mut TaskHandle, n: Drawn| {
        task.demos(n.0, call.session.key(Stream::Prompts)).map(demos)
    });
    reg.function("pairs", ["n"], |call: &Call, task: &mut TaskHandle, n: Drawn| {
        task.pairs(n.0, call.session.key(Stream::Prompts)).map(pairs)
    });
}

fn test(reg: &mut Registry) {
    reg.function("test_prompts", ["n"], |task: &mut TaskHandle, n: AtLeastOne| task.test_prompts(n.0));
    reg.function("test_demos", ["n"], |task: &mut TaskHandle, n: Drawn| task.test_demos(n.0).map(demos));
    reg.function("test_pairs", ["n"], |task: &mut TaskHandle, n: Drawn| task.test_pairs(n.0).map(pairs));
}

fn demos(demos: Vec<Demo>) -> Array {
    demos.iter().map(demo_map).collect()
}

fn pairs(pairs: Vec<Pair>) -> Array {
    pairs.iter().map(pair_map).collect()
}

options! {
    struct Evaluating {
        /// held-out prompts: always the same ones, all of them if there are fewer
        n: usize = 256,
        /// of an answer, or of one turn of it; task.max_tokens unless given
        max_tokens: Option<usize>,
    }
}

options! {
    /// Of every task.
    struct Common {
        /// a file or folder, as load_data reads it, whose prompts are used instead of the task's own; the rows need the
        /// fields that the reward reads. One row in eight, by the hash of its prompt, is held out. "" stands for none
        data: Option<String>,
    }
}

options! {
    struct ArithmeticOptions: common: Common {
        /// digits of both operands, 1 to 9
        digits: usize = 2,
        /// among "+", "-" and "*"
        ops: Vec<String> = vec!["+".to_string()],
    }
}

options! {
    struct CountdownOptions: common: Common {
        /// how many numbers there are, 2 to 5
        numbers: usize = 3,
        /// the largest number, 5 to 99
        max: usize = 9,
        /// the reward where the numbers are right and the value is not
        partial: f64 = 0.0,
    }
}

options! {
    struct ReverseOptions: common: Common {
        /// letters, or the fewest and the most, 1 to 64
        length: Lengths = Lengths(4, 8),
    }
}

options! {
    struct TldrOptions: common: Common {
        /// facts in a post, 2 to 4
        facts: usize = 3,
    }
}

options! {
    struct GuessOptions: common: Common {
        /// the largest number, 8 to 9999
        max: usize = 31,
        /// how often the assistant may guess, 1 to 64
        turns: usize = 5,
        /// the reward is this to the power of the turns before
        discount: f64 = 1.0,
    }
}

/// Options of whichever task is named: which ones it takes is known when the name has been read.
struct TaskOptions(Map);

impl Argument for TaskOptions {
    const TYPE: &'static str = "map";
    const PRESENCE: Presence = Presence::Options;

    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Map>()]
    }

    /// All of them, each with the tasks that take it.
    fn options() -> Vec<Opt> {
        let own = |opt: &Opt| opt.name != "data";
        let mut found = Common::list();
        let tasks = [
            ("arithmetic", ArithmeticOptions::list()),
            ("countdown", CountdownOptions::list()),
            ("reverse", ReverseOptions::list()),
            ("tldr", TldrOptions::list()),
            ("guess", GuessOptions::list()),
        ];
        for (task, opt) in
            tasks.into_iter().flat_map(|(task, list)| list.into_iter().filter(own).map(move |o| (task, o)))
        {
            let about = format!("{task}: {}", opt.meaning());
            match found.iter_mut().find(|known| known.name == opt.name) {
                Some(known) => known.about += &format!(". {about}"),
                None => found.push(Opt { about, default: None, ..opt }),
            }
        }
        found
    }

    fn take(value: Option<Dynamic>, place: Place<'_>) -> Result<Self> {
        value.map_or(Ok(Map::new()), |value| <Map as FromScript>::read(value, place)).map(Self)
    }
}

/// The shortest and the longest.
#[derive(Debug, Clone, Copy)]
struct Lengths(usize, usize);

impl OptionValue for Lengths {
    const TYPE: &'static str = "int or [int, int]";

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        let count = |value: &Dynamic| value.as_int().ok().and_then(|n| usize::try_from(n).ok());
        let both = match value.as_array_ref() {
            Ok(list) if list.len() == 2 => count(&list[0]).zip(count(&list[1])),
            Ok(_) => None,
            Err(_) => count(&value).map(|n| (n, n)),
        };
        let wanted = "a whole number or two, the shortest and the longest";
        let wrong = || place.refused(wanted, &value).hint("for instance #{ length: [4, 8] }");
        both.map(|(shortest, longest)| Self(shortest, longest)).ok_or_else(wrong)
    }

    fn written(&self) -> String {
        format!("[{}, {}]", self.0, self.1)
    }
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

fn open(session: &Session, text: &str, options: Map) -> Result<TaskHandle> {
    let (name, options) = split_name(text, options)?;
    task::check_name(name)?;
    let call = "load_task";
    let (task, common): (TaskHandle, Common) = match name {
        "countdown" => {
            let CountdownOptions { common, numbers, max, partial } = OptionSet::of(call, options)?;
            (Rc::new(DrawnTask::new(Countdown::new(numbers, max, partial)?)), common)
        }
        "reverse" => {
            let ReverseOptions { common, length: Lengths(shortest, longest) } = OptionSet::of(call, options)?;
            (Rc::new(DrawnTask::new(Reverse::new(shortest, longest)?)), common)
        }
        "tldr" => {
            let TldrOptions { common, facts } = OptionSet::of(call, options)?;
            (Rc::new(DrawnTask::new(Tldr::new(facts)?)), common)
        }
        "guess" => {
            let GuessOptions { common, max, turns, discount } = OptionSet::of(call, options)?;
            (Rc::new(DrawnTask::new(Guess::new(max, turns, discount)?)), common)
        }
        _ => {
            let ArithmeticOptions { common, digits, ops } = OptionSet::of(call, options)?;
            (Rc::new(DrawnTask::new(Arithmetic::new(digits, &ops)?)), common)
        }
    };
    match common.data.filter(|data| !data.is_empty()) {
        Some(path) => {
            session.access().read(Path::new(&path))?;
            Ok(Rc::new(FromFile::open(task, Path::new(&path))?))
        }
        None => Ok(task),
    }
}
