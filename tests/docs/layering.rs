//! Holds the layers: who may use whom, who may know Rhai, candle and the terminal, and what training code never calls.

use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first: a layer may use those before it.
const LAYERS: [&str; 14] = [
    "error", "files", "budget", "tensor", "gpu", "kernel", "rl", "model", "engine", "data", "run", "script", "ui",
    "main",
];

/// Operations of candle without a backward pass: they cut the gradient silently.
const CUTTING: [&str; 8] = [
    "ops::rms_norm",
    "ops::layer_norm",
    "candle_nn::RmsNorm",
    "candle_nn::LayerNorm",
    "candle_nn::rms_norm",
    "candle_nn::layer_norm",
    "softmax_last_dim",
    "rotary_emb::",
];

/// What looks at paths and opens files, in the standard library and in those that we use.
const OPENERS: [&str; 24] = [
    "std::fs",
    "fs::",
    ".exists()",
    ".try_exists()",
    ".is_file()",
    ".is_dir()",
    ".is_symlink()",
    ".metadata()",
    ".symlink_metadata()",
    ".canonicalize()",
    ".read_dir()",
    ".read_link()",
    "::from_file(",
    "SVGBackend::new",
    "BitMapBackend::new",
    "hf_hub",
    "tempfile",
    "memmap",
    "Mmap",
    "mmaped",
    ".load_history(",
    ".append_history(",
    ".save_history(",
    "Command::new",
];

/// A door that refuses nothing: for what a person or the machine names, and for programs with scripts of their own.
const UNGUARDED: [&str; 2] = ["anywhere", "Door::everything"];
/// Who has one. The completion of paths shows what a person points at; `Access` gives it to programs that embed the library.
const GUARDIANS: [&str; 5] = [
    "src/gpu/",
    "src/run/access.rs",
    "src/run/computer.rs",
    "src/script/live/console/complete.rs",
    "src/budget/machine.rs",
];

/// Words of `OPENERS` that mean something else where they stand: the metadata of formats.
const NO_OPENERS: [(&str, &str); 2] = [("data/dataset/parquet.rs", ".metadata()"), ("data/stored.rs", ".metadata()")];

pub(super) struct File {
    pub(super) path: PathBuf,
    layer: String,
    /// The code without comments and tests, which may use whatever shows that it is right.
    pub(super) code: String,
}

pub(super) fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &mut found);
    let tests = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
    let files = found.into_iter().filter(|path| !tests(path)).map(|path| read(&root, path));
    files.filter(|file| file.layer != "lib").collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            collect(&entry, found);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            found.push(entry);
        }
    }
}

fn read(root: &Path, path: PathBuf) -> File {
    let inside = path.strip_prefix(root).expect("below src");
    let first = inside.iter().next().expect("a name").to_string_lossy();
    let layer = first.strip_suffix(".rs").unwrap_or(&first).to_string();
    let text = fs::read_to_string(&path).expect("readable");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
    File { path, layer, code: code.join("\n") }
}

pub(super) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The modules of this crate that a file names: after `crate::` or `rhopo::`, and inside `use crate::{…}`.
fn used(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for root in ["crate::", "rhopo::"] {
        for (at, _) in code.match_indices(root) {
            if code[..at].chars().next_back().is_some_and(|c| is_name(c) || c == '$') {
                continue;
            }
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => names.extend(tops(group)),
                None => names.push(rest.chars().take_while(|c| is_name(*c)).collect()),
            }
        }
    }
    names
}

/// The first names of the paths in `{a::b, c::{d, e}}`.
fn tops(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut start) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if depth == 0 && start && is_name(c) => {
                names.push(group[at..].chars().take_while(|c| is_name(*c)).collect());
                start = false;
            }
            _ => {}
        }
    }
    names
}

fn place(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|known| *known == layer)
}

#[test]
fn dependencies_point_downwards() {
    let mut wrong = Vec::new();
    for file in files() {
        let own = place(&file.layer).unwrap_or_else(|| panic!("{}: no known layer", file.path.display()));
        for name in used(&file.code) {
            if place(&name).is_some_and(|other| other > own) {
                wrong.push(format!("{} uses {name}", file.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn groups_in_use_lines_are_read() {
    assert_eq!(used("use crate::{script::{a, b}, run, ui::x};"), ["script", "run", "ui"]);
    assert_eq!(used("let x = crate::engine::y(); mycrate::z"), ["engine"]);
}

fn outside(layers: &[&str], words: &[&str]) -> Vec<String> {
    let elsewhere = files().into_iter().filter(|file| !layers.contains(&file.layer.as_str()));
    let names = |code: &str, word: &str| {
        // `fs::` does not stand in `offs::x`, but `.exists()` follows a name.
        let begins = |at: usize| !word.starts_with(is_name) || !code[..at].ends_with(is_name);
        code.match_indices(word).any(|(at, _)| begins(at))
    };
    elsewhere
        .flat_map(|file| {
            let found: Vec<_> = words.iter().filter(|word| names(&file.code, word)).collect();
            found.into_iter().map(|word| format!("{} has {word}", file.path.display())).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn rhai_stays_in_script() {
    assert_eq!(outside(&["script"], &["rhai::"]), [""; 0]);
}

#[test]
fn candle_stays_where_numbers_are_made() {
    // `error` turns candle's errors into ours; nothing else of it is known there.
    assert_eq!(outside(&["tensor", "kernel", "model", "engine", "error"], &["candle_core", "candle_nn"]), [""; 0]);
}

#[test]
fn printing_stays_in_ui() {
    let printing = ["println!", "eprintln!", "print!", "eprint!", "dbg!", "stdout()", "stderr()"];
    assert_eq!(outside(&["ui", "main"], &printing), [""; 0]);
}

#[test]
fn files_are_opened_in_one_place() {
    let mut found = outside(&["files"], &OPENERS);
    for (file, word) in NO_OPENERS {
        let known = found.iter().position(|found| found.ends_with(&format!("{file} has {word}")));
        found.remove(known.unwrap_or_else(|| panic!("{file} has no {word} any more: strike it out of the list")));
    }
    for file in files().into_iter().filter(|file| file.layer != "files") {
        let groups = file.code.match_indices("std::{").map(|(at, group)| tops(&file.code[at + group.len()..]));
        if groups.flatten().any(|name| name == "fs") {
            found.push(format!("{} has std::{{fs}}", file.path.display()));
        }
    }
    assert_eq!(found, [""; 0]);
}

/// Models, data, runs and scripts open what they were handed with its door, and can make no other.
#[test]
fn nothing_below_the_command_line_opens_a_bare_path() {
    let found = outside(&["files", "ui"], &UNGUARDED);
    let root = format!("{}/", env!("CARGO_MANIFEST_DIR"));
    let allowed = |found: &&String| {
        let file = found.strip_prefix(&root).unwrap_or(found);
        GUARDIANS.iter().any(|guardian| file.starts_with(guardian))
    };
    assert_eq!(found.iter().filter(|found| !allowed(found)).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(found.iter().filter(allowed).count() >= GUARDIANS.len(), "strike out who needs none any more");
}

/// Scripts, data and runs know an engine by its trait, its requests and its handles, and a model by what is known of it
/// without its weights: what is behind them may be in another process.
#[test]
fn what_runs_models_is_known_by_its_trait_alone() {
    let inside = [
        ("crate::engine::", &["solo", "Solo", "memory"][..]),
        ("crate::model::", &["Model", "gguf", "decoder", "trunk", "weights"]),
    ];
    let mut wrong = Vec::new();
    for file in files().into_iter().filter(|file| ["data", "run", "script"].contains(&file.layer.as_str())) {
        for (root, hidden) in inside {
            for (at, _) in file.code.match_indices(root) {
                let path = &file.code[at + root.len()..];
                // One path, or a group of them in a `use`.
                let end = if path.starts_with('{') { path.find('}') } else { path.find(|c| !is_name(c) && c != ':') };
                let names = path[..end.unwrap_or(path.len())].split(|c| !is_name(c));
                let found = names.filter(|name| hidden.contains(name));
                wrong.extend(found.map(|name| format!("{} names {root}{name}", within(&file.path))));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn operations_without_a_backward_pass_are_not_called() {
    assert_eq!(outside(&[], &CUTTING), [""; 0]);
}

/// `kernel/form.rs` asks where numbers lie, for every operation; no operation, model or engine asks itself.
#[test]
fn one_place_decides_which_form_of_an_operation_runs() {
    let asks = |file: &File| {
        let layer = ["kernel", "model", "engine"].contains(&file.layer.as_str());
        layer && ["is_cpu", "is_cuda", "Form::Host"].iter().any(|word| file.code.contains(word))
    };
    let mut asking: Vec<String> = files().iter().filter(|file| asks(file)).map(|file| within(&file.path)).collect();
    asking.sort();
    // `op.rs` runs the form that was decided on.
    assert_eq!(asking, ["src/kernel/form.rs", "src/kernel/op.rs"]);
}

fn within(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below the root").display().to_string()
}

#[test]
fn the_readme_shows_the_loss_that_is_shipped() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("a file");
    let script = read("scripts/grpo.rhai");
    let from = script.find("fn loss").expect("a loss");
    let loss = script[from..].split_inclusive("\n}\n").next().expect("its end");
    assert!(loss.lines().count() > 3 && read("README.md").contains(loss), "README.md shows another loss of grpo.rhai");
}

#[test]
fn the_readme_is_read_in_three_minutes() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("a file");
    assert!(readme.lines().count() <= 150, "README.md has {} lines, 150 at most", readme.lines().count());
}

/// Each links the whole library, which takes longer than most of them run.
#[test]
fn there_are_twelve_test_programs_at_most() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let entries = fs::read_dir(&tests).expect("the folder of tests").map(|entry| entry.expect("an entry").path());
    let programs: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|found| found == "rs") || path.join("main.rs").is_file())
        .collect();
    assert!(programs.len() > 1 && programs.len() <= 12, "{programs:?}");
}
