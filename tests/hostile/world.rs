//! Two folders, the one that a person works in and one outside of it, and how rhopo is run there: as somebody without rights.

use super::attacks::ended;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What nobody may see.
pub const SECRET: &str = "hidden words 7391";
/// Somebody whom nothing belongs to, where the tests are root's.
const NOBODY: u32 = 65_534;
const PATIENCE: Duration = Duration::from_secs(100);

/// What has to lie there before something is tried. `{out}` is the folder outside, `{in}` the other.
#[derive(Debug, Clone)]
pub enum Step {
    Write(&'static str, String),
    /// A link, and the text of it.
    Link(&'static str, &'static str),
    /// The built-in model, saved as a folder.
    Model(&'static str),
    /// A run that could go on.
    Run(&'static str),
    /// A file of a run, with a text in place of another.
    Edit(&'static str, &'static str, &'static str),
    Copy(&'static str, &'static str),
    Remove(&'static str),
}

pub struct World {
    inside: TempDir,
    outside: TempDir,
}

/// What was said, to the person or in a file.
pub struct Outcome {
    pub code: Option<i32>,
    pub said: String,
}

impl World {
    pub fn new() -> Self {
        let world =
            Self { inside: tempfile::tempdir().expect("a folder"), outside: tempfile::tempdir().expect("another") };
        let out = world.outside.path();
        let row = format!("{{\"prompt\": \"{SECRET}\", \"completion\": \"{SECRET}\", \"answer\": 1}}\n");
        fs::write(out.join("secret.jsonl"), row).expect("written");
        fs::write(out.join("secret.txt"), SECRET).expect("written");
        fs::write(
            out.join("x.rhai"),
            format!("//! {SECRET}\nfn f() {{ \"{SECRET}\" }}\nfn score(b) {{ throw f(); }}\n"),
        )
        .expect("written");
        copy(&made().path().join("model"), &out.join("model"));
        fs::write(out.join("model/chat_template.jinja"), SECRET).expect("written");
        fs::write(out.join("model/vocab.json"), SECRET).expect("written");
        fs::create_dir(out.join("folder")).expect("made");
        fs::write(out.join("folder/kept"), SECRET).expect("written");
        world
    }

    pub fn inside(&self) -> &Path {
        self.inside.path()
    }

    pub fn outside(&self) -> &Path {
        self.outside.path()
    }

    /// `{out}`, `{in}`, and `{up}`, the way from the one to the other.
    pub fn fill(&self, text: &str) -> String {
        let name = self.outside.path().file_name().expect("a name").to_string_lossy();
        text.replace("{out}", &self.outside.path().display().to_string())
            .replace("{in}", &self.inside.path().display().to_string())
            .replace("{up}", &format!("../{name}"))
    }

    pub fn lay(&self, steps: &[Step]) {
        let at = |name: &str| self.inside.path().join(self.fill(name));
        let above = |path: &Path| fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        for step in steps {
            match step {
                Step::Write(name, text) => {
                    above(&at(name));
                    fs::write(at(name), self.fill(text)).expect("written");
                }
                Step::Link(name, to) => {
                    above(&at(name));
                    if at(name).symlink_metadata().is_ok_and(|about| about.is_dir()) {
                        fs::remove_dir_all(at(name)).expect("removed");
                    }
                    fs::remove_file(at(name)).ok();
                    symlink(self.fill(to), at(name)).expect("linked");
                }
                Step::Model(name) => copy(&made().path().join("model"), &at(name)),
                Step::Run(name) => copy(&made().path().join("run"), &at(name)),
                Step::Edit(name, from, to) => {
                    let text = fs::read_to_string(at(name)).expect("text");
                    assert!(text.contains(from), "{name} has no {from}: {text}");
                    fs::write(at(name), text.replacen(from, &self.fill(to), 1)).expect("written");
                }
                Step::Copy(from, to) => {
                    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(from);
                    if from.is_dir() {
                        copy(&from, &at(to));
                    } else {
                        above(&at(to));
                        fs::copy(from, at(to)).expect("copied");
                    }
                }
                Step::Remove(name) => fs::remove_file(at(name)).expect("removed"),
            }
        }
    }

    /// Runs `rhopo` inside, as somebody without rights.
    pub fn run(&self, words: &[String], variables: &[(&str, String)]) -> Outcome {
        self.run_with(words, variables, "")
    }

    pub fn run_with(&self, words: &[String], variables: &[(&str, String)], typed: &str) -> Outcome {
        give(self.inside.path());
        give(self.outside.path());
        run(self.inside.path(), words, variables, typed)
    }

    /// Names and bytes of everything outside.
    pub fn state(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        each(self.outside.path(), &mut |path| {
            let bytes = if path.is_dir() { Vec::new() } else { fs::read(path).unwrap_or_default() };
            found.push((path.to_path_buf(), bytes));
        });
        found.sort();
        found
    }

    /// A file inside, laid by nobody, that holds the secret.
    pub fn leak(&self) -> Option<PathBuf> {
        let mut found = None;
        each(self.inside.path(), &mut |path| {
            let plain = path.symlink_metadata().is_ok_and(|about| about.is_file());
            if plain && fs::read(path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(SECRET)) {
                found = Some(path.to_path_buf());
            }
        });
        found
    }
}

/// A saved model and a run with a checkpoint, made once.
fn made() -> &'static TempDir {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a folder");
        let script = "let run = open_run(#{});\nlet policy = load_model(\"tiny\");\nlet kept = blob(3, 7);\nlet n = 0;\n\
                      run.track(#{ policy: policy });\nfor step in run.steps(4) { n += step; kept[0] = n; run.log(#{ n: n }); \
                      run.show(batch(#{ text: [\"a\"], reward: [1] }), 1); }\nrun.save(policy);\nprint(\"went on\");\n";
        fs::write(dir.path().join("own.rhai"), script).expect("written");
        fs::write(dir.path().join("save.rhai"), "load_model(\"tiny\").save(\"model\");").expect("written");
        give(dir.path());
        for words in [&["run", "save"][..], &["run", "own", "--out", "run", "--checkpoint", "2"]] {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            let done = run(dir.path(), &words, &[], "");
            assert_eq!(done.code, Some(0), "{}", done.said);
        }
        fs::remove_file(dir.path().join("run/status.json")).expect("it has ended");
        dir
    })
}

/// A program in a folder, as somebody without rights starts it.
pub fn command(dir: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).env("HOME", dir.join(".home")).env("HF_HUB_OFFLINE", "1");
    for name in ["RUST_BACKTRACE", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "XDG_STATE_HOME"] {
        command.env_remove(name);
    }
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn run(dir: &Path, words: &[String], variables: &[(&str, String)], typed: &str) -> Outcome {
    let logs = tempfile::tempdir().expect("a folder");
    let (out, err, input) = (logs.path().join("out"), logs.path().join("err"), logs.path().join("in"));
    fs::write(&input, typed).expect("written");
    let file = |path: &Path| Stdio::from(fs::File::create(path).expect("a file"));
    let mut command = command(dir, env!("CARGO_BIN_EXE_rhopo"));
    command.args(words).envs(variables.iter().map(|(name, value)| (name, value)));
    command.stdin(fs::File::open(&input).expect("there")).stdout(file(&out)).stderr(file(&err));
    let begun = Instant::now();
    let mut child = command.spawn().expect("rhopo starts");
    let code = ended(&mut child, begun, PATIENCE);
    let read = |path| String::from_utf8_lossy(&fs::read(path).expect("written")).into_owned();
    Outcome { code, said: format!("{}{}", read(&out), read(&err)) }
}

/// `rhopo` in a folder, which is given to somebody without rights, as whom it is run.
pub fn command_of_nobody(dir: &Path, words: &[String]) -> Command {
    give(dir);
    let mut rhopo = command(dir, env!("CARGO_BIN_EXE_rhopo"));
    rhopo.args(words);
    rhopo
}

pub fn is_root() -> bool {
    static ROOT: OnceLock<bool> = OnceLock::new();
    *ROOT.get_or_init(|| tempfile::tempdir().expect("a folder").path().metadata().expect("there").uid() == 0)
}

/// All of it belongs to the one who runs rhopo: only rhopo itself stands between.
pub fn give(folder: &Path) {
    if is_root() {
        chown(folder, Some(NOBODY), Some(NOBODY)).expect("root may");
        each(folder, &mut |path| std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).expect("root may"));
    }
}

/// Calls `what` with everything below a folder; links are not followed.
fn each(folder: &Path, what: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        what(&path);
        if path.symlink_metadata().is_ok_and(|about| about.is_dir()) {
            each(&path, what);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &to) } else { fs::copy(&path, &to).map(drop).expect("copied") }
    }
}
