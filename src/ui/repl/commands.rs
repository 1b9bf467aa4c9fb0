//! What begins with a colon: looking things up, files, time, curves and settings.

use super::{draw, plot};
use crate::error::Error;
use crate::files;
use crate::run::Table;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::reference::{self, Entry};
use crate::script::live::console::{Repl, SAVED};
use crate::script::tools::pages;
use crate::ui::list::section;
use crate::ui::terminal::report;
use crate::ui::{out, table};
use std::path::Path;

/// Whether the conversation goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Stay,
    Leave,
}

/// What follows the name of a file that is not to be run.
const FUNCTIONS: &str = "functions";

type Outcome = Result<(), Diagnostic>;

/// Name, what follows it, what it does.
const CATALOG: [(&str, &str, &str); 14] = [
    (":help", "NAME", "show what a function does, with an example and its output"),
    (":source", "NAME", "show the Rhai source of a function or a script"),
    (":search", "WORDS", "list functions whose name or description contains all these words"),
    (":vars", "", "list the variables and functions in scope"),
    (":time", "[N] EXPR", "evaluate, N times if given, and show how long it took"),
    (":plot", "EXPR", "draw numbers as a curve: an array, a tensor, a map of several"),
    (":load", "FILE [functions]", "run a script and keep its variables and functions, or keep its functions only"),
    (":reload", "", "read loaded files and modules again, for their functions, without running them"),
    (":edit", "[NAME]", "edit the last input, or a function, in $VISUAL or $EDITOR, and evaluate the result"),
    (":allow", "PATH", "let scripts read a file, or everything below a folder"),
    (":save", "FILE", "save this session as a script"),
    (":set", "NAME VALUE", "set the seed or the device from here on; alone, show both"),
    (":clear", "", "clear the screen"),
    (":quit", "", "leave the prompt; at a pause, stop the run"),
];

/// The commands with what each is for.
pub fn names() -> Vec<(&'static str, &'static str)> {
    CATALOG.iter().map(|(name, _, about)| (*name, *about)).collect()
}

/// Who sits at the prompt: can be asked.
pub trait Person {
    /// Whether to go on; `None` where nobody can answer.
    fn confirms(&self, question: &str) -> Option<bool>;
}

/// Does what a line that begins with a colon says; tables keep within the terminal's columns.
///
/// # Errors
/// An unknown command, one that lacks what must follow, and whatever fails in it.
pub fn run(repl: &mut Repl<'_, '_>, line: &str, person: &dyn Person) -> Result<Done, Diagnostic> {
    let width = draw::width();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match expand(name)? {
        ":help" if rest.is_empty() => overview(),
        ":help" => help(repl, rest)?,
        ":source" => source(repl, needed(":source", rest)?)?,
        ":search" => search(repl, needed(":search", rest)?),
        ":vars" => variables(repl, width),
        ":time" => time(repl, needed(":time", rest)?, width)?,
        ":plot" => {
            let curves = repl.curves(needed(":plot", rest)?)?;
            plot::lines(&curves, width)?.iter().for_each(|line| say(line));
        }
        ":load" => load(repl, needed(":load", rest)?, person)?,
        ":reload" => reload(repl)?,
        ":edit" => edit(repl, rest, width)?,
        ":allow" => allow(repl, needed(":allow", rest)?)?,
        ":save" => save(repl, needed(":save", rest)?, person)?,
        ":set" => set(repl, rest)?,
        ":clear" => {
            out::coloured_line("\u{1b}[2J\u{1b}[H");
        }
        _ => return Ok(Done::Leave),
    }
    Ok(Done::Stay)
}

/// A command may be cut short where only one begins so: `:h`, `:q`.
fn expand(name: &str) -> Result<&'static str, Error> {
    let known: Vec<&'static str> = CATALOG.iter().map(|(known, ..)| *known).collect();
    let fits: Vec<&'static str> = known.iter().copied().filter(|known| known.starts_with(name)).collect();
    match fits[..] {
        [one] => Ok(one),
        _ if known.contains(&name) => Ok(fits[0]),
        [] | [_, ..] => Err(Error::unknown("command", name, &known)),
    }
}

fn needed<'a>(name: &str, rest: &'a str) -> Result<&'a str, Error> {
    let Some((_, what, about)) = CATALOG.iter().find(|(known, ..)| *known == name).filter(|_| rest.is_empty()) else {
        return Ok(rest);
    };
    Err(Error::value(format!("{name} needs an argument: {name} {what}")).hint(*about))
}

fn say(text: &str) {
    out::line(text);
}

fn overview() {
    let lines = CATALOG.iter().map(|(name, what, about)| (format!("{name} {what}"), about.to_string())).collect();
    section("Type an expression or a statement. `ans` or `_` is the last value; a `;` at the end hides it.", lines)
        .iter()
        .for_each(|line| say(line));
    say("Tab completes, Ctrl-R searches the history, Ctrl-C interrupts, Ctrl-D leaves.");
}

fn help(repl: &Repl<'_, '_>, name: &str) -> Outcome {
    // `b.select` is `select`.
    let name = name.rsplit('.').next().unwrap_or(name).trim_end_matches("()");
    let inside = format!("{name}::");
    let module = repl.entries().iter().filter(|entry| entry.path.starts_with(&inside));
    let module: Vec<(String, String)> =
        module.map(|entry| (entry.path.clone(), entry.section.summary.clone())).collect();
    if !module.is_empty() {
        section(&format!("module {name}"), module).iter().for_each(|line| say(line));
        return Ok(());
    }
    if let Some((command, what, about)) = CATALOG.iter().find(|(known, ..)| *known == name) {
        say(&format!("{command} {what}\n  {about}"));
        return Ok(());
    }
    if let Some(own) = repl.own_functions().iter().find(|own| own.split('(').next() == Some(name)) {
        say(&format!("{own}\n  defined here; :source {name} shows it"));
        return Ok(());
    }
    let found = match reference::find(repl.entries(), name) {
        Ok(found) => found,
        Err(e) => {
            let pages = repl.of_the_language(name);
            pages.iter().for_each(|(signature, about)| say(&format!("{signature}\n{about}\n")));
            return if pages.is_empty() { Err(at_prompt(&e).into()) } else { Ok(()) };
        }
    };
    for entry in found {
        say(pages::page(entry)?.trim_end());
    }
    Ok(())
}

/// The command line's way to list all is another than the prompt's.
fn at_prompt(e: &Error) -> Error {
    match e.hint.as_deref() {
        Some(hint) if hint.starts_with("did you mean") => e.clone(),
        _ => e.clone().hint(":search WORDS searches descriptions too"),
    }
}

fn source(repl: &Repl<'_, '_>, name: &str) -> Outcome {
    let (label, text) = repl.source(name)?;
    say(&format!("// {label}\n{}", text.trim_end()));
    Ok(())
}

fn search(repl: &Repl<'_, '_>, words: &str) {
    let words: Vec<String> = words.to_lowercase().split_whitespace().map(str::to_string).collect();
    let has_all = |entry: &&Entry| {
        let text = format!("{} {} {}", entry.signatures().join(" "), entry.section.summary, entry.section.notes)
            .to_lowercase();
        words.iter().all(|word| text.contains(word))
    };
    let found: Vec<(String, String)> = repl
        .entries()
        .iter()
        .filter(has_all)
        .map(|entry| (entry.path.clone(), entry.section.summary.clone()))
        .collect();
    match found.is_empty() {
        true => say("nothing matches all these words"),
        false => section("", found).iter().skip(1).for_each(|line| say(line)),
    }
}

fn variables(repl: &Repl<'_, '_>, width: usize) {
    let rows = repl.variables(width.saturating_sub(30)).into_iter().map(|v| vec![v.name, v.kind, v.value]);
    let functions = repl.own_functions().into_iter().map(|f| {
        let name = f.split('(').next().unwrap_or(&f).to_string();
        vec![name, "fn".to_string(), f]
    });
    let rows: Vec<Vec<String>> = rows.chain(functions).collect();
    if rows.is_empty() {
        say("no variables or functions yet");
        return;
    }
    let head = ["name", "type", "value"].map(str::to_string).to_vec();
    table::lines(&Table { title: String::new(), head, rows }).iter().for_each(|line| say(line));
}

/// `:time 20 exp(x)` evaluates twenty times.
fn time(repl: &mut Repl<'_, '_>, text: &str, width: usize) -> Outcome {
    let repeated = text.split_once(char::is_whitespace).and_then(|(n, rest)| Some((n.parse().ok()?, rest.trim())));
    // `:time 2 * x` is an expression, not a count.
    let begins = |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || "_\"`#([".contains(c));
    let (times, text): (usize, &str) = repeated.filter(|(n, rest)| *n > 0 && begins(rest)).unwrap_or((1, text));
    let (answer, took) = repl.timed(text, times, width)?;
    answer.value.iter().for_each(draw::draw);
    let mut took: Vec<f64> = took.iter().map(std::time::Duration::as_secs_f64).collect();
    took.sort_by(f64::total_cmp);
    let (first, middle, last) = (took[0], took[took.len() / 2], took[took.len() - 1]);
    say(&match times {
        1 => duration(first),
        n => format!("{} (median of {n}; {} to {})", duration(middle), duration(first), duration(last)),
    });
    Ok(())
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// Opens a text in the person's editor, and evaluates what comes back.
fn edit(repl: &mut Repl<'_, '_>, name: &str, width: usize) -> Outcome {
    let text = match name {
        "" => repl.last_input().unwrap_or_default(),
        name => repl.source(name)?.1,
    };
    let editor =
        ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".to_string());
    let folder = files::temporary_folder()?;
    let path = files::anywhere(folder.path()).join("input.rhai");
    files::write(&path, text.clone())?;
    files::editor::edit(&editor, &path)?;
    let edited = files::text(&path)?;
    if edited.trim() == text.trim() {
        say("nothing changed");
        return Ok(());
    }
    say(edited.trim_end());
    repl.eval(&edited, width).map(|answer| answer.value.iter().for_each(draw::draw))
}

fn allow(repl: &Repl<'_, '_>, path: &str) -> Outcome {
    let path = Path::new(path.trim_matches('"'));
    if !files::exists(&files::anywhere(path)) {
        return Err(Error::file(format!("there is no file or folder {}", path.display())).into());
    }
    repl.session().access().allow(path);
    say(&format!("scripts may read {}", path.display()));
    Ok(())
}

/// A script that opens a run would train: that is asked first.
fn load(repl: &mut Repl<'_, '_>, rest: &str, person: &dyn Person) -> Outcome {
    if let Some(name) = rest.strip_suffix(FUNCTIONS).filter(|name| name.ends_with(char::is_whitespace)) {
        return repl.load_functions(name.trim());
    }
    if !repl.opens_run(rest)? {
        return repl.load(rest);
    }
    match person.confirms(&format!("{rest} opens a run, and its steps would begin here: run it?")) {
        Some(true) => repl.load(rest),
        Some(false) => {
            say(&format!("nothing was run; `:load {rest} {FUNCTIONS}` takes its functions alone"));
            Ok(())
        }
        None => {
            let e = Error::value(format!("{rest} opens a run, and its steps would begin here"));
            let ways = format!(":load {rest} {FUNCTIONS} takes its functions alone; rhopo run {rest} -i runs it first");
            Err(e.hint(ways).into())
        }
    }
}

fn reload(repl: &mut Repl<'_, '_>) -> Outcome {
    let (read, wrong) = repl.reload();
    for e in &wrong {
        report(e, repl.loader());
        crate::ui::out::note("the version read before is still in use");
    }
    if read.is_empty() && !wrong.is_empty() {
        return Ok(());
    }
    say(&if read.is_empty() { "nothing changed".to_string() } else { format!("reloaded: {}", read.join(", ")) });
    Ok(())
}

fn save(repl: &Repl<'_, '_>, name: &str, person: &dyn Person) -> Outcome {
    let name = if name.ends_with(".rhai") { name.to_string() } else { format!("{name}.rhai") };
    let path = &files::anywhere(&name);
    let own = files::text(path).is_ok_and(|text| text.starts_with(SAVED));
    if files::exists(path) {
        let what = if own { "an earlier session" } else { "not a saved session" };
        match person.confirms(&format!("{name} already exists and is {what}: overwrite it?")) {
            Some(true) => {}
            // Nobody can be asked: what was saved from here before gives way, and nothing else.
            None if own => {}
            Some(false) => {
                say("nothing was saved");
                return Ok(());
            }
            None => {
                let e = Error::file(format!("{name} already exists"));
                return Err(e.hint("choose another name, or remove the file").into());
            }
        }
    }
    files::write(path, repl.script())?;
    say(&format!("saved {name}; rhopo run {name} repeats the session"));
    Ok(())
}

fn set(repl: &Repl<'_, '_>, rest: &str) -> Outcome {
    let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let value = value.trim().trim_start_matches('=').trim();
    let session = repl.session();
    match (name, value) {
        ("", _) => say(&format!("seed {}\ndevice {}", session.seed(), session.place())),
        ("seed", value) => {
            let wrong = || Error::value(format!("expected a seed of 0 or more, found `{value}`")).hint(":set seed 3");
            repl.set_seed(value.parse().map_err(|_| wrong())?);
        }
        ("device", value) => repl.set_device(value)?,
        (name, _) => return Err(Error::unknown("setting", name, &["seed", "device"]).into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_may_be_cut_short() {
        assert_eq!(expand(":h").expect("help"), ":help");
        assert_eq!(expand(":q").expect("quit"), ":quit");
        assert_eq!(expand(":hepl").expect_err("none").hint.as_deref(), Some("did you mean `:help`?"));
        expand(":s").expect_err("several");
        assert!(needed(":load", "").expect_err("nothing follows").to_string().contains(":load FILE"));
    }
}
