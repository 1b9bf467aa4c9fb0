//! The shipped tasks: their options, and how a name opens one.

use crate::data::task::arithmetic::Arithmetic;
use crate::data::task::countdown::Countdown;
use crate::data::task::drawn::Drawn as DrawnTask;
use crate::data::task::guess::Guess;
use crate::data::task::reverse::Reverse;
use crate::data::task::tldr::Tldr;
use crate::data::task::{self, Task};
use crate::error::{Error, Result};
use crate::script::lang::native::{Argument, FromScript, Opt, OptionSet, OptionValue, Place, Presence, options};
use rhai::{Dynamic, FLOAT, INT, Map};
use std::any::TypeId;
use std::rc::Rc;

options! {
    /// Of every task.
    pub(super) struct Common {
        /// a file or folder, as load_data reads it, whose prompts are used instead of the task's own; the rows need the
        /// fields that the reward reads. One row in eight, by the hash of its prompt, is held out. "" stands for none
        data: Option<String>,
        /// what gives the reward instead of the task: a Rhai file with `fn score(b)`, the folder of a model with a score
        /// head, a GGUF file that judges, or "exec:NAME", a program allowed by --allow-exec. "" stands for the task
        /// itself; what `--set reward=…` says unless given
        reward: Option<String>,
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
pub(super) struct TaskOptions(pub Map);

impl Argument for TaskOptions {
    const TYPE: &'static str = "map";
    const PRESENCE: Presence = Presence::Options;

    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Map>()]
    }

    /// All of them, each with the tasks that take it.
    fn options() -> Vec<Opt> {
        let common: Vec<&str> = Common::list().iter().map(|opt| opt.name).collect();
        let own = |opt: &Opt| !common.contains(&opt.name);
        let mut found = Common::list();
        let tasks = [
            ("arithmetic", ArithmeticOptions::list()),
            ("countdown", CountdownOptions::list()),
            ("reverse", ReverseOptions::list()),
            ("tldr", TldrOptions::list()),
            ("guess", GuessOptions::list()),
        ];
        for (task, opt) in
            tasks.into_iter().flat_map(|(task, list)| list.into_iter().filter(&own).map(move |o| (task, o)))
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
pub(super) fn split_name(text: &str, mut options: Map) -> Result<(&str, Map)> {
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

/// The task of this name, and what it shares with all others.
///
/// # Errors
/// An unknown task or option; an option outside its range.
pub(super) fn open(name: &str, options: Map) -> Result<(Rc<dyn Task>, Common)> {
    task::check_name(name)?;
    let call = "load_task";
    Ok(match name {
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
    })
}
