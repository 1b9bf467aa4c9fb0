//! The model card of a run: README.md beside the weights, whose YAML the hub reads and whose Markdown people do.
//!
//! Owns what it says and that nothing in it breaks out of its place (`quote.rs`). The same run says the same, also one that
//! was killed and continued: no dates, no times, none of the options that only say where and how often something is written.

use crate::error::Result;
use crate::files::{self, Location};
use crate::model::{Head, ModelInfo};
use crate::run::checkpoint::state::Best;
use crate::run::edit::{self, Edit};
use crate::run::folder::{CONFIG, SCRIPT};
use crate::run::metrics::Metrics;
use crate::run::names::{self, Writer};
use crate::run::quote::{markdown, shell, yaml};
use serde_json::Value;

pub const FILE: &str = "README.md";
/// By this a card is known that may be written again.
pub const MARK: &str =
    "<!-- Written by rhopo, and again whenever the run saves the model. Without this line the file stays. -->";
/// Options with one value that change no number.
const SILENT: [&str; 4] = ["--out", "--checkpoint", "--samples", "--threads"];

/// The card of a model that the run in `folder` saves; none where the folder does not say how the run began.
pub fn text(folder: &Location, model: &ModelInfo, metrics: &Metrics, best: Option<&Best>) -> Option<String> {
    let [config, script] = [CONFIG, SCRIPT].map(|name| folder.join(name));
    let config: Value = serde_json::from_str(&files::text(&config).ok()?).ok()?;
    let (header, hash) = (header(&files::text(&script).ok()?), files::digest(&script).ok()?.1);
    let told: Vec<Edit> = metrics.edits().cloned().collect();
    let edits = edit::edits(&told).into_iter().filter(|edit| !edit.is_undone()).map(|edit| edit.file).collect();
    let run = Began { config, header, hash, edits };
    let parts = [
        run.front(model),
        format!("{MARK}\n"),
        run.what(model, best),
        results(metrics),
        run.arguments(),
        run.made(),
        open(model),
    ];
    Some(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n"))
}

/// The README.md in a folder of weights, if it is somebody's own.
///
/// # Errors
/// A file that cannot be read.
pub fn own(folder: &Location) -> Result<Option<Vec<u8>>> {
    let path = folder.join(FILE);
    if !files::is_file(&path) {
        return Ok(None);
    }
    let bytes = files::bytes(&path)?;
    Ok((!String::from_utf8_lossy(&bytes).contains(MARK)).then_some(bytes))
}

/// The first line of a script's header, where it has one.
fn header(script: &str) -> Option<String> {
    let line = script.lines().next()?.strip_prefix("//!")?.trim();
    (!line.is_empty()).then(|| line.to_string())
}

/// How the run began, as its folder has it.
struct Began {
    config: Value,
    header: Option<String>,
    hash: String,
    /// Files of the folder with what was changed meanwhile.
    edits: Vec<String>,
}

impl Began {
    fn script(&self) -> &str {
        self.config["script"].as_str().unwrap_or("run")
    }

    fn version(&self) -> &str {
        self.config["versions"]["rhopo"].as_str().unwrap_or_default()
    }

    fn front(&self, model: &ModelInfo) -> String {
        let base = model.base.as_ref().map_or_else(String::new, |base| format!("base_model: {}\n", yaml(base)));
        let library = if model.rank.is_some() { "peft" } else { "transformers" };
        format!("---\n{base}library_name: {library}\ntags:\n- rhopo\n- {}\n---\n", yaml(self.script()))
    }

    fn what(&self, model: &ModelInfo, best: Option<&Best>) -> String {
        let (script, architecture) = (markdown(self.script()), markdown(&model.architecture));
        let kind = match model.rank {
            Some(rank) => format!("A LoRA adapter of rank {rank} for {architecture}"),
            None => format!("A model, {architecture} with {} parameters", model.size),
        };
        let base = model.base.as_ref().map_or_else(String::new, |base| format!(", made from {}", markdown(base)));
        let header = self.header.as_ref().map_or_else(String::new, |header| format!(" ({})", markdown(header)));
        let version = markdown(self.version());
        let mut text =
            format!("# {script}\n\n{kind}{base}. Trained by the script {script}{header} with rhopo {version}.\n");
        if let Some(Best { name, value, step }) = best {
            text += &format!("\nThe best of the run by {}: {} after step {step}.\n", markdown(name), number(*value));
        }
        text
    }

    fn arguments(&self) -> String {
        let args = self.config["args"].as_object().into_iter().flatten().filter(|(name, _)| *name != "seed");
        let mut rows: Vec<_> = args.map(|(name, value)| [name.clone(), value.to_string()]).collect();
        rows.push(["seed".into(), self.config["seed"].to_string()]);
        let rows = rows.iter().map(|[name, value]| format!("| {} | {} |\n", markdown(name), markdown(value)));
        let mut text = format!("## Hyper-parameters\n\n| name | value |\n| --- | --- |\n{}", rows.collect::<String>());
        for resumed in self.config["resumed"].as_array().into_iter().flatten() {
            let set = assignments(&words(&resumed["arguments"]));
            if !set.is_empty() {
                text += &format!("\nFrom step {} on: {}\n", resumed["step"], markdown(&set.join(" ")));
            }
        }
        text
    }

    fn made(&self) -> String {
        let mut hash = format!("The script's text has the XXH3 (128 bits) {}.\n", markdown(&self.hash));
        if !self.edits.is_empty() {
            hash += &format!("It was changed while it ran: {} in the run's folder.\n", self.edits.join(", "));
        }
        let mut command = words(&self.config["command"]);
        // What a continued run was given further has come after these.
        let resumed = self.config["resumed"].as_array().into_iter().flatten();
        let later: usize = resumed.map(|resumed| words(&resumed["arguments"]).len()).sum();
        command.truncate(command.len().saturating_sub(later));
        if command.is_empty() {
            return format!("## How it was made\n\n{hash}");
        }
        let command = ["rhopo", "run"].map(str::to_string).into_iter().chain(told(command));
        let command = command.map(|word| shell(&word)).collect::<Vec<_>>().join(" ");
        format!("## How it was made\n\n{}\n{hash}", fenced("sh", &command))
    }
}

/// The words of a recorded command line.
fn words(recorded: &Value) -> Vec<String> {
    recorded.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_string)).collect()
}

/// The command line without what changes no number.
fn told(words: Vec<String>) -> Vec<String> {
    let (mut told, mut words) = (Vec::new(), words.into_iter());
    while let Some(word) = words.next() {
        let silent =
            |option: &&str| word.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
        match SILENT.into_iter().find(silent) {
            // Its value is the next word.
            Some(option) if word == option => drop(words.next()),
            Some(_) => {}
            None => told.push(word),
        }
    }
    told
}

/// What `--set` gives.
fn assignments(words: &[String]) -> Vec<String> {
    let mut set = Vec::new();
    let mut inside = false;
    for word in words {
        match word.strip_prefix("--set=") {
            Some(first) => {
                inside = true;
                set.push(first.to_string());
            }
            None if word.starts_with("--") => inside = word == "--set",
            None if inside => set.push(word.clone()),
            None => {}
        }
    }
    set
}

/// The first and the last number of each name. What the run adds to a line it adds when the line is over: of the step that
/// saves it is not there yet, so that it is left out.
fn results(metrics: &Metrics) -> String {
    let mut rows = Vec::<(&str, f64, f64)>::new();
    for line in metrics.lines().iter().chain([metrics.current()]) {
        for (name, value) in line.numbers().filter(|(name, _)| is_result(name)) {
            match rows.iter_mut().find(|(known, ..)| *known == name) {
                Some((.., last)) => *last = value,
                None => rows.push((name, value, value)),
            }
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let row = |(name, first, last): (&str, f64, f64)| {
        let what = names::find(name).map_or_else(String::new, |known| markdown(known.what));
        format!("| {} | {} | {} | {what} |\n", markdown(name), number(first), number(last))
    };
    let rows: String = rows.into_iter().map(row).collect();
    format!("## Results\n\n| name | first | last | what it is |\n| --- | --- | --- | --- |\n{rows}")
}

fn is_result(name: &str) -> bool {
    names::find(name).is_none_or(|known| known.exact && matches!(known.writer, Writer::Script | Writer::Show))
}

/// Four digits that count. What is not finite has none: a run that went on has it from a file that does not say which.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "not finite".into();
    }
    let rounded: f64 = format!("{value:.3e}").parse().unwrap_or(value);
    let text = format!("{rounded:?}");
    text.strip_suffix(".0").unwrap_or(&text).to_string()
}

fn open(model: &ModelInfo) -> String {
    let kind = match model.head {
        Head::Lm | Head::LmValue => "CausalLM",
        Head::Score => "SequenceClassification",
        Head::Value => "TokenClassification",
    };
    let (library, class) = match model.rank {
        Some(_) => ("peft", format!("AutoPeftModelFor{kind}")),
        None => ("transformers", format!("AutoModelFor{kind}")),
    };
    let mut python = match (library, model.tokenizer.is_some()) {
        (_, false) => format!("from {library} import {class}\n"),
        ("transformers", true) => format!("from transformers import {class}, AutoTokenizer\n"),
        (_, true) => format!("from {library} import {class}\nfrom transformers import AutoTokenizer\n"),
    };
    python += &format!("\nmodel = {class}.from_pretrained(\"FOLDER\")\n");
    if model.tokenizer.is_some() {
        python += "tokenizer = AutoTokenizer.from_pretrained(\"FOLDER\")\n";
    }
    let rhai = fenced("rhai", "let model = load_model(\"FOLDER\");");
    format!(
        "## How to open it\n\nFOLDER is the folder of this file.\n\n{}\n{rhai}",
        fenced("python", python.trim_end())
    )
}

/// A block of code, whose fence is longer than any in it.
fn fenced(language: &str, code: &str) -> String {
    let longest = code.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{code}\n{fence}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_string).collect()
    }

    #[test]
    fn options_that_change_no_number_are_left_out() {
        let words = split("--seed 3 --out=x grpo --checkpoint 1 --set lr=1 --threads 2 --outer --samples all");
        assert_eq!(told(words), split("--seed 3 grpo --set lr=1 --outer"));
        assert_eq!(told(split("grpo --out")), ["grpo"]);
    }

    #[test]
    fn what_a_continued_run_sets_is_found() {
        assert_eq!(
            assignments(&split("--threads 1 --set lr=1 a=2 --seed 3 --set=b=4 c=5")),
            ["lr=1", "a=2", "b=4", "c=5"]
        );
        assert!(assignments(&split("--device cpu")).is_empty());
    }

    #[test]
    fn numbers_have_four_digits_that_count() {
        for (value, text) in [
            (0.123_456, "0.1235"),
            (2e-6, "2e-6"),
            (12.0, "12"),
            (123_456.0, "123500"),
            (1e300, "1e300"),
            (-0.5, "-0.5"),
            (0.0, "0"),
            (f64::NAN, "not finite"),
            (f64::NEG_INFINITY, "not finite"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_header_is_the_first_line() {
        assert_eq!(header("//! GRPO: x \n//! more").as_deref(), Some("GRPO: x"));
        for none in ["", "//!", "let x = 1;\n//! later", "// a comment"] {
            assert_eq!(header(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_fence_is_longer_than_those_in_it() {
        assert_eq!(fenced("sh", "a"), "```sh\na\n```\n");
        assert_eq!(fenced("sh", "a ```` b"), "`````sh\na ```` b\n`````\n");
    }
}
