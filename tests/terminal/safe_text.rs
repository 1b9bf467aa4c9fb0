//! Nothing that others wrote is obeyed by the terminal: names of files, texts of models and data, labels, errors. Each way to it is
//! a line of the table; what is shown is shown as codes.

use crate::common::terminal::Terminal;
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// A title, a colour in one byte, and a turn of the direction.
const EVIL: &str = "\u{1b}]0;evil\u{7}\u{9b}31m\u{202e}";
/// What must not arrive: the rest of such sequences, once those that rhopo means are taken out.
const OBEYED: [char; 3] = ['\u{7}', '\u{9b}', '\u{202e}'];

/// Ways that write a file and say no more than its name.
const QUIET: [&str; 2] = ["plot", "report"];

type Lay = fn(&Path);

fn script(dir: &Path, text: &str) {
    fs::write(dir.join("own.rhai"), text.replace("EVIL", EVIL)).expect("written");
}

fn model(dir: &Path, name: &str, change: impl Fn(String) -> String) {
    let to = dir.join("m");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/qwen2");
    fs::create_dir(&to).expect("made");
    for entry in fs::read_dir(from).expect("a fixture") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
    let text = fs::read_to_string(to.join(name)).expect("there");
    fs::write(to.join(name), change(text)).expect("written");
}

/// As JSON writes it.
fn escaped() -> String {
    serde_json::to_string(EVIL).expect("a text").trim_matches('"').to_string()
}

/// A run's folder of that name, with a text of the kind in each file.
fn run(dir: &Path, name: &str) {
    script(
        dir,
        "let cfg = args(#{ note: \"EVIL\" });\nlet run = open_run(cfg);\nfor step in run.steps(3) { run.log(#{ \"EVIL\": step, mine: step }); }\n",
    );
    let to = dir.join(name);
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_rhopo"))
        .current_dir(dir)
        .args(["run", "own", "--out"])
        .arg(&to)
        .output()
        .expect("rhopo starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A name, what is laid, and the words of the command, in which `EVIL` stands for the text.
const WAYS: &[(&str, Lay, &[&str])] = &[
    ("print", |dir| script(dir, "print(\"EVIL\");"), &["run", "own"]),
    ("print a map", |dir| script(dir, "print(#{ \"EVIL\": [\"EVIL\"] });"), &["run", "own"]),
    ("an error", |dir| script(dir, "throw \"EVIL\";"), &["run", "own"]),
    ("a line in an error", |dir| script(dir, "let x = \"EVIL\" + nothing;"), &["run", "own"]),
    ("a comment in an error", |dir| script(dir, "nothing(); // EVIL"), &["run", "own"]),
    ("a syntax error", |dir| script(dir, "let x = \"EVIL\" let"), &["run", "own"]),
    ("an unknown name", |dir| script(dir, "#{ a: 1 }.a.b[\"EVIL\"];"), &["run", "own"]),
    ("a model's name", |dir| script(dir, "load_model(\"EVIL\");"), &["run", "own"]),
    ("a task's name", |dir| script(dir, "load_task(\"EVIL\");"), &["run", "own"]),
    ("a module's name", |dir| script(dir, "import \"EVIL\" as m;"), &["run", "own"]),
    ("a path", |dir| script(dir, "load_data(\"EVIL.jsonl\");"), &["run", "own"]),
    ("a path outside", |dir| script(dir, "load_data(\"/EVIL\");"), &["run", "own"]),
    ("an option", |dir| script(dir, "sample(load_model(\"tiny\"), [\"1\"], #{ \"EVIL\": 1 });"), &["run", "own"]),
    ("a column", |dir| script(dir, "let b = batch(#{ x: [1] }); b[\"EVIL\"];"), &["run", "own"]),
    ("a batch", |dir| script(dir, "print(batch(#{ x: [1], \"EVIL\": [\"EVIL\"] }));"), &["run", "own"]),
    (
        "a metric",
        |dir| script(dir, "let run = open_run(#{});\nfor s in run.steps(2) { run.log(#{ \"EVIL\": s }); }"),
        &["run", "own", "--out", "o"],
    ),
    (
        "samples",
        |dir| {
            script(
                dir,
                "let run = open_run(#{});\nfor s in run.steps(1) { run.show(batch(#{ text: [\"EVIL\"], prompt: [\"EVIL\"] }), 1); }",
            );
        },
        &["run", "own", "--out", "o"],
    ),
    (
        "a field of data",
        |dir| {
            fs::write(dir.join("d.jsonl"), format!("{{\"{}\": 1}}\n", escaped())).expect("written");
            script(dir, "load_data(\"d.jsonl\").prompts(1);");
        },
        &["run", "own"],
    ),
    (
        "a value of data",
        |dir| {
            fs::write(
                dir.join("d.jsonl"),
                format!("{{\"prompt\": \"a\", \"label\": \"{0}\", \"completion\": \"{0}\"}}\n", escaped()),
            )
            .expect("written");
            script(dir, "load_data(\"d.jsonl\").labelled(1);");
        },
        &["run", "own"],
    ),
    ("a heat map's path", |dir| script(dir, "heatmap(\"EVIL/x.txt\", #{ x: ones([1, 1]) });"), &["run", "own"]),
    (
        "a script's file",
        |dir| fs::write(dir.join(format!("{EVIL}.rhai")), "nothing();").expect("written"),
        &["run", "EVIL.rhai"],
    ),
    ("a script that is not there", |_| (), &["run", "EVIL"]),
    ("a hyper-parameter", |dir| script(dir, "let cfg = args(#{ a: 1 });"), &["run", "own", "--set", "EVIL=1"]),
    ("a hyper-parameter's value", |dir| script(dir, "let cfg = args(#{ a: 1 });"), &["run", "own", "--set", "a=EVIL"]),
    ("an unknown command", |_| (), &["EVIL"]),
    ("an output folder", |dir| script(dir, "let run = open_run(#{});"), &["run", "own", "--out", "EVIL"]),
    (
        "check: a finding",
        |dir| script(dir, "let cfg = args(#{ \"EVIL\": 1 });\nfn loss(logp, b, cfg) { mean(logp * cfg[\"EVIL2\"]) }"),
        &["check", "own"],
    ),
    (
        "check: a file",
        |dir| fs::write(dir.join(format!("{EVIL}.rhai")), "let x = nothing;").expect("written"),
        &["check", "EVIL.rhai"],
    ),
    (
        "compare: a file",
        |dir| fs::write(dir.join(format!("{EVIL}.rhai")), "let x = nothing;").expect("written"),
        &["compare", "EVIL.rhai"],
    ),
    (
        "test: a file",
        |dir| fs::write(dir.join(format!("{EVIL}.rhai")), "fn test_it() { throw \"x\"; }").expect("written"),
        &["test", "EVIL.rhai"],
    ),
    ("test: an error", |dir| script(dir, "fn test_it() { throw \"EVIL\"; }"), &["test", "own.rhai"]),
    (
        "list: a header",
        |dir| {
            fs::create_dir(dir.join("scripts")).expect("made");
            fs::write(dir.join("scripts/mine.rhai"), format!("//! {EVIL}\n")).expect("written");
        },
        &["list"],
    ),
    (
        "list: a name",
        |dir| {
            fs::create_dir(dir.join("scripts")).expect("made");
            fs::write(dir.join(format!("scripts/{EVIL}.rhai")), "//! Mine.\n").expect("written");
        },
        &["list"],
    ),
    ("new: a name", |_| (), &["new", "EVIL"]),
    ("new: a model script", |_| (), &["new", "mine", "--from", "EVIL"]),
    ("doc", |_| (), &["doc", "EVIL"]),
    ("inspect: a folder", |_| (), &["inspect", "EVIL"]),
    (
        "inspect: an architecture",
        |dir| model(dir, "config.json", |text| text.replacen("Qwen2ForCausalLM", &escaped(), 1)),
        &["inspect", "m"],
    ),
    (
        "inspect: a type",
        |dir| model(dir, "config.json", |text| text.replacen("\"qwen2\"", &format!("\"{}\"", escaped()), 1)),
        &["inspect", "m"],
    ),
    (
        "inspect: a folder with a model",
        |dir| {
            model(dir, "config.json", |text| text);
            fs::rename(dir.join("m"), dir.join(EVIL)).expect("renamed");
        },
        &["inspect", "EVIL"],
    ),
    (
        "a template's error",
        |dir| {
            model(dir, "config.json", |text| text);
            fs::write(dir.join("m/chat_template.jinja"), format!("{{{{ raise_exception(\"{EVIL}\") }}}}"))
                .expect("written");
            script(dir, "load_model(\"m\").chat([#{ role: \"user\", content: \"x\" }]);");
        },
        &["run", "own"],
    ),
    ("runs", |dir| run(dir, &format!("runs/{EVIL}")), &["runs"]),
    ("runs: a filter", |dir| run(dir, "runs/a"), &["runs", "--where", "EVIL == 1"]),
    (
        "diff",
        |dir| {
            run(dir, EVIL);
            run(dir, "b");
        },
        &["diff", "EVIL", "b"],
    ),
    ("report", |dir| run(dir, EVIL), &["report", "EVIL", "-o", "p.html"]),
    ("plot", |dir| run(dir, EVIL), &["plot", "EVIL", "--y", "mine", "-o", "p.svg"]),
    ("plot: a metric that is not there", |dir| run(dir, "a"), &["plot", "a", "--y", "EVIL2"]),
    ("replay", |_| (), &["replay", "EVIL"]),
    ("sweep", |dir| script(dir, "let cfg = args(#{ a: 1 });"), &["sweep", "own", "--set", "EVIL=1,2"]),
];

#[test]
fn nothing_that_others_wrote_is_obeyed() {
    let mut wrong = Vec::new();
    for (name, lay, words) in WAYS {
        let dir = tempfile::tempdir().expect("a folder");
        lay(dir.path());
        let words: Vec<String> = words.iter().map(|word| word.replace("EVIL", EVIL)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut t = Terminal::start(dir.path(), &words);
        t.wait(SOON);
        t.settle();
        let seen = t.seen();
        let files = ["p.svg", "p.html", "o/curves.svg", "o/report.html"];
        let files = files.into_iter().filter_map(|file| fs::read_to_string(dir.path().join(file)).ok());
        if let Some(text) = files.chain([seen.clone()]).find(|text| text.contains(OBEYED)) {
            wrong.push(format!("{name}: obeyed: {text:?}"));
        } else if !seen.contains("31m") && !QUIET.contains(name) {
            wrong.push(format!("{name}: not shown at all: {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), WAYS.len(), wrong.join("\n"));
}

#[test]
fn nor_at_the_prompt() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut t = Terminal::start(dir.path(), &["repl"]);
    t.expect("rhopo> ", SOON);
    // Typed as escapes: what is typed as it is a line editor shows by itself.
    let typed = "\\x1b]0;evil\\x07\\u009b31m\\u202e";
    let inputs = [
        "\"EVIL\"",
        "[\"EVIL\"]",
        "#{ \"EVIL\": \"EVIL\" }",
        "batch(#{ text: [\"EVIL\"], \"EVIL\": [1] })",
        "throw \"EVIL\"",
        "print(\"EVIL\")",
        "load_model(\"EVIL\")",
        "let x = \"EVIL\"",
        ":vars",
    ];
    for (i, input) in inputs.into_iter().enumerate() {
        t.enter(&input.replace("EVIL", typed));
        // The line editor writes its prompt at every key: only an answer says that the input is done.
        t.answer(&format!("{i} + 4000"), &(i + 4000).to_string());
    }
    let seen = t.seen();
    assert!(!seen.contains(OBEYED), "{seen:?}");
    // As each was typed, and once more in the answer to all but the last two.
    assert!(seen.matches("31m").count() >= 2 * inputs.len() - 2, "{seen}");
}
