//! README, the guide and the page of tasks, as a reader follows them: files are written, scripts run and commands called in
//! the order of the page, in a folder that holds what readers bring along (`folder/`), and the dialogue at the prompt is
//! typed in. What is marked (`sh minutes`) runs where `RHOPO_DOCS` has its marks:
//! `RHOPO_DOCS=minutes,python cargo test --release --features emulate --test docs commands`.

use super::blocks::is_whole;
use super::fences::{Block, MARKS, blocks, pages, root};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Marks of blocks that are to run as well, separated by commas.
const ALLOWED: &str = "RHOPO_DOCS";
const PROMPT: &str = "rhopo>";
/// Stands in for cargo on pages: the program under test is built already, and tests do not test themselves.
const CARGO: &str = "#!/bin/sh
case \"$1\" in
build | install | test | bench | doc) exit 0 ;;
run) while [ $# -gt 0 ] && [ \"$1\" != -- ]; do shift; done; shift; exec rhopo \"$@\" ;;
*) echo \"nothing stands in for cargo $1\" >&2; exit 1 ;;
esac
";
/// What a page says of the last lines that a command wrote.
const LINES: usize = 30;

/// What all readers have.
struct Shelf {
    folder: tempfile::TempDir,
    allowed: Vec<String>,
}

impl Shelf {
    fn new(allowed: Vec<String>) -> Self {
        let shelf = Self { folder: tempfile::tempdir().expect("a folder"), allowed };
        let (bin, own) = (shelf.bin(), shelf.own());
        for made in [&bin, &own, &shelf.home()] {
            fs::create_dir(made).expect("made");
        }
        symlink(env!("CARGO_BIN_EXE_rhopo"), bin.join("rhopo")).expect("linked");
        fs::write(bin.join("cargo"), CARGO).expect("written");
        fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755)).expect("may be started");
        copy(&root().join("tests/docs/folder"), &own);
        // What a clone of the repository has, and pages name.
        for folder in ["examples", "tests/interop"] {
            copy(&root().join(folder), &own.join(folder));
        }
        fs::copy(root().join("tests/fixtures/gguf/quantised.gguf"), own.join("judge.gguf")).expect("copied");
        shelf
            .run(&own, "rhopo repl", "load_model(\"tiny\").save(\"my-model\")\n")
            .expect("a model of the reader's own");
        shelf
    }

    fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    /// What every page's folder begins with.
    fn own(&self) -> PathBuf {
        self.folder.path().join("own")
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn permits(&self, block: &Block) -> bool {
        block.marks.iter().all(|mark| self.allowed.contains(mark))
    }

    /// Runs lines of a shell in a folder, up to the first that fails.
    ///
    /// # Errors
    /// How it ended, and the last that it wrote.
    fn run(&self, folder: &Path, lines: &str, typed: &str) -> Result<(), String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let input = self.folder.path().join("typed");
        fs::write(&input, typed).expect("written");
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", lines]).current_dir(folder).stdin(fs::File::open(&input).expect("there"));
        shell.env("PATH", format!("{}:{path}", self.bin().display())).env("HOME", self.home());
        shell.env("RHOPO_HISTORY", self.home().join("history")).env_remove("XDG_CACHE_HOME");
        if !self.allowed.iter().any(|mark| mark == "network") {
            shell.env("HF_HUB_OFFLINE", "1");
        }
        let done = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("a shell");
        if done.status.success() {
            return Ok(());
        }
        let written = [done.stdout, done.stderr].concat();
        let written = String::from_utf8_lossy(&written);
        let last: Vec<&str> = written.lines().rev().take(LINES).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Err(format!("{}\n{}", done.status, last.join("\n")))
    }

    /// Follows a page from its first block to its last; returns how many ran, and what went wrong.
    fn follow(&self, page: &Path) -> (usize, Vec<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let here = folder.path().join("reader");
        copy(&self.own(), &here);
        let (mut ran, mut wrong, mut said) = (0, Vec::new(), String::new());
        for block in blocks(page).0 {
            wrong.extend(unmarked_cargo(&block));
            if !self.permits(&block) {
                continue;
            }
            let done = match (&block.file, block.word.as_str()) {
                (Some(file), _) => Some(write(&here.join(file), &block.text)),
                (None, "sh") => Some(self.run(&here, &block.text, "")),
                (None, "rhai") if is_whole(&block) && !is_shipped(&block) => Some(self.script(&here, &block)),
                (None, "repl") => {
                    said += &typed(&block.text);
                    None
                }
                _ => None,
            };
            ran += usize::from(done.is_some());
            wrong.extend(done.and_then(Result::err).map(|e| format!("{}:\n{}{e}", block.place, block.text)));
        }
        if !said.is_empty() {
            ran += 1;
            let done = self.run(&here, "rhopo repl", &said);
            wrong.extend(done.err().map(|e| format!("{}, at the prompt:\n{said}{e}", page.display())));
        }
        (ran, wrong)
    }

    /// Runs a script, or the tests that it is.
    fn script(&self, folder: &Path, block: &Block) -> Result<(), String> {
        let name = "block.rhai";
        write(&folder.join(name), &block.text)?;
        let command = if block.text.contains("fn test_") { "test" } else { "run" };
        self.run(folder, &format!("rhopo {command} {name}; rm {name}"), "")
    }
}

/// The marks that are to run as well.
fn allowed() -> Vec<String> {
    let marks = std::env::var(ALLOWED).unwrap_or_default();
    let marks: Vec<String> =
        marks.split(',').map(|mark| mark.trim().to_string()).filter(|mark| !mark.is_empty()).collect();
    let unknown: Vec<&String> = marks.iter().filter(|mark| !MARKS.contains(&mark.as_str())).collect();
    assert!(unknown.is_empty(), "{ALLOWED}: {unknown:?} mark nothing, expected some of {}", MARKS.join(", "));
    marks
}

/// Copies a folder and what is below it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let path = entry.expect("an entry").path();
        let there = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &there),
            false => drop(fs::copy(&path, there).expect("copied")),
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// What a dialogue's person types: what stands behind the prompt, and the lines that go on.
fn typed(dialogue: &str) -> String {
    let typed = dialogue.lines().map(|line| line.strip_prefix(PROMPT).map_or(line, str::trim_start));
    typed.map(|line| format!("{line}\n")).collect()
}

/// A script of ours, word for word: it takes minutes, and has tests of its own.
fn is_shipped(block: &Block) -> bool {
    let scripts = fs::read_dir(root().join("scripts")).expect("scripts").map(|entry| entry.expect("an entry").path());
    scripts.into_iter().any(|path| fs::read_to_string(path).is_ok_and(|text| text.trim_end() == block.text.trim_end()))
}

/// What builds takes minutes wherever it is not built already.
fn unmarked_cargo(block: &Block) -> Option<String> {
    let builds = block.word == "sh" && block.text.lines().any(|line| line.trim_start().starts_with("cargo "));
    let marked = block.marks.iter().any(|mark| mark == "minutes");
    (builds && !marked).then(|| format!("{}: what begins with cargo takes minutes: mark it", block.place))
}

/// Follows pages, of which at least so many blocks run in a plain test.
fn follow(pages: &[PathBuf], least: usize) {
    let shelf = Shelf::new(allowed());
    let (mut ran, mut wrong) = (0, Vec::new());
    for page in pages {
        let (blocks, complaints) = shelf.follow(page);
        ran += blocks;
        wrong.extend(complaints);
    }
    assert!(wrong.is_empty(), "{} of the pages' blocks:\n{}", wrong.len(), wrong.join("\n"));
    assert!(ran >= least, "only {ran} blocks ran");
}

#[test]
fn the_readme_is_true() {
    follow(&[root().join("README.md")], 2);
}

#[test]
fn the_guide_is_true() {
    follow(&pages(&root().join("docs/guide"), true), 20);
}

#[test]
fn the_page_of_tasks_is_true() {
    follow(&[root().join("docs/tasks.md")], 1);
}

#[test]
fn what_fails_on_a_page_is_told() {
    let shelf = Shelf::new(Vec::new());
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page.md");
    let text = "```rhai mine.rhai\nprint(1);\n```\n```sh\nrhopo run mine\ntest -f my-model/config.json\n```\n\
                ```sh\nfalse\ntrue\n```\n```rhai\nlet x = 1;\nthrow \"no\";\n```\n```rhai\nprint(b.reward);\n```\n\
                ```rhai\nfn test_a() { assert(1 == 2); }\n```\n```sh\ncargo build\n```\n```sh gpu\nfalse\n```\n\
                ```repl\nrhopo> let a = [1,\n  2];\nrhopo> a.len()\n```\n```text\n2\n```\n```repl\nrhopo> a[5]\n```\n";
    fs::write(&page, text).expect("written");
    let (ran, wrong) = shelf.follow(&page);
    let places: Vec<&str> = wrong.iter().map(|text| text.lines().next().expect("a line")).collect();
    assert_eq!(ran, 7, "{wrong:#?}");
    let ends =
        ["page.md:8:", "page.md:12:", "page.md:19:", "page.md:22: what begins with cargo takes minutes: mark it"];
    assert_eq!(places.len(), 5, "{wrong:#?}");
    for (place, end) in places.iter().zip(ends.into_iter().chain(["page.md, at the prompt:"])) {
        assert!(place.ends_with(end), "{place}: {wrong:#?}");
    }
}
