//! Scripts that try to end the process, to fill the machine or to get out of their folder: each ends with an error or by
//! itself. The corpus is `fixtures/hostile/`, several scripts to a file, each below a line `//# name`.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Far more than any takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(100);
/// More than this is not read by anybody.
const LONGEST_ERROR: usize = 20_000;

struct Outcome {
    code: Option<i32>,
    err: String,
    took: Duration,
}

/// Waits for a process; none where it has no exit status, or had to be killed.
pub(super) fn ended(child: &mut Child, begun: Instant, patience: Duration) -> Option<i32> {
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        if begun.elapsed() > patience {
            child.kill().and_then(|()| child.wait().map(drop)).expect("killed");
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs `own.rhai` in `dir` as a script from elsewhere is run.
fn run(dir: &Path, options: &[&str]) -> Outcome {
    let (out, err) = (dir.join(".out"), dir.join(".err"));
    let file = |path: &Path| Stdio::from(fs::File::create(path).expect("a file"));
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rhopo"))
        .current_dir(dir)
        .args(["run", "own", "--threads", "1", "--max-memory", "1.5"])
        .args(options)
        .env("HF_HUB_OFFLINE", "1")
        // With it, panics that were caught would be told as well.
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .expect("rhopo starts");
    let code = ended(&mut child, begun, PATIENCE);
    let err = String::from_utf8_lossy(&fs::read(&err).expect("written")).into_owned();
    Outcome { code, err, took: begun.elapsed() }
}

fn wrong(outcome: &Outcome) -> Option<String> {
    let Outcome { code, err, took } = outcome;
    let last = err.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said");
    match code {
        None => Some(format!("no end after {took:?}: {last}")),
        Some(0 | 1) if err.contains("rhopo itself failed") || err.contains("panicked") => {
            Some(format!("a panic: {err}"))
        }
        Some(1) if !err.contains("Error: ") => Some("an error without a text".to_string()),
        Some(1) if err[err.find("Error: ").unwrap_or(0)..].len() > LONGEST_ERROR => {
            Some(format!("{} bytes of error", err.len()))
        }
        Some(0 | 1) => None,
        Some(code) => Some(format!("ended with {code}: {last}")),
    }
}

/// Names and texts of the files in a folder of the fixtures.
pub(super) fn texts_of(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let name = |file: &Path| file.file_stem().expect("a name").to_string_lossy().into_owned();
    files.iter().map(|file| (name(file), fs::read_to_string(file).expect("text"))).collect()
}

/// Names and texts of the corpus.
fn corpus() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (_, text) in texts_of("hostile") {
        for part in text.split("//# ").skip(1) {
            let (name, script) = part.split_once('\n').expect("a name");
            found.push((name.to_string(), script.to_string()));
        }
    }
    found.extend(generated());
    found
}

/// Long and deep texts that nobody would want to keep.
fn generated() -> Vec<(String, String)> {
    let deep = |open: &str, close: &str| format!("let x = {}1{};", open.repeat(100_000), close.repeat(100_000));
    let texts = [
        ("brackets", deep("(", ")")),
        ("arrays", deep("[", "]")),
        ("blocks", format!("{}{}", "{".repeat(100_000), "}".repeat(100_000))),
        ("signs", format!("let x = {}1;", "-".repeat(200_000))),
        ("nots", format!("let x = {}true;", "!".repeat(200_000))),
        ("sums", format!("let x = 1{};", "+1".repeat(100_000))),
        ("powers", format!("let x = 1{};", "**1".repeat(20_000))),
        ("dots", format!("let x = #{{}}; x{};", ".a".repeat(100_000))),
        ("places", format!("let x = []; x{};", "[0]".repeat(100_000))),
        ("branches", format!("let x = 0; if x == 1 {{ }}{}", " else if x == 1 { }".repeat(40_000))),
        ("functions", (0..20_000).map(|i| format!("fn f{i}() {{ }}\n")).collect()),
        ("variables", (0..20_000).map(|i| format!("let x{i} = 1;\n")).collect()),
        ("parameters", format!("fn f({}) {{ }}", (0..20_000).map(|i| format!("a{i}")).collect::<Vec<_>>().join(", "))),
        ("closures", format!("let f = {}1;", "|x| ".repeat(20_000))),
        ("interpolations", format!("let x = {}1{};", "`${".repeat(5_000), "}`".repeat(5_000))),
        ("a long name", format!("let {} = 1;", "x".repeat(900_000))),
        ("a long text", format!("let x = \"{}", "x".repeat(900_000))),
        ("too long a script", "// x\n".repeat(400_000)),
        ("an open comment", "/*".repeat(100_000)),
        ("a byte order mark", "\u{feff}let x = 1;".to_string()),
        ("a nul", "let x = 1;\0let y = 2;".to_string()),
    ];
    texts.into_iter().map(|(name, text)| (format!("text: {name}"), text)).collect()
}

#[test]
fn every_hostile_script_ends_cleanly() {
    let cases = Mutex::new(corpus().into_iter());
    let failed = Mutex::new(Vec::new());
    let slowest = Mutex::new((Duration::ZERO, String::new()));
    let work = || {
        loop {
            let Some((name, text)) = cases.lock().expect("no panic").next() else { return };
            let dir = tempfile::tempdir().expect("a folder");
            fs::write(dir.path().join("own.rhai"), text).expect("written");
            let outcome = run(dir.path(), &["--max-ops", "1000000", "--max-seconds", "3"]);
            if let Some(what) = wrong(&outcome) {
                failed.lock().expect("no panic").push(format!("{name}: {what}"));
            }
            let mut slowest = slowest.lock().expect("no panic");
            if outcome.took > slowest.0 {
                *slowest = (outcome.took, name);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    println!("slowest: {:?}", slowest.lock().expect("no panic"));
    let failed = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "{} of the scripts:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn endless_loops_end_by_the_number_of_operations() {
    let dir = tempfile::tempdir().expect("a folder");
    for text in [
        "loop { }",
        "while true { let x = 1; }",
        "let n = 0; do { n += 1 } while n >= 0;",
        "try { loop { } } catch { loop { } }",
        "let f = |f| f; loop { f = f.call(f); }",
        "for i in 0..9000000000000000000 { }",
        "[1].map(|x| loop { })",
        "loop { try { throw 1 } catch (e) { } }",
        "let s = script(\"own2\"); s.call(\"f\", []);",
        "let run = open_run(#{}); for step in run.steps(1000000000) { }",
    ] {
        fs::write(dir.path().join("own.rhai"), text).expect("written");
        fs::write(dir.path().join("own2.rhai"), "fn f() { loop { } }").expect("written");
        let outcome = run(dir.path(), &["--max-ops", "200000"]);
        assert_eq!(wrong(&outcome), None, "{text}");
        assert!(outcome.err.contains("more than 200000 operations"), "{text}: {}", outcome.err);
    }
}

#[test]
fn what_runs_natively_ends_by_time() {
    let dir = tempfile::tempdir().expect("a folder");
    for text in
        ["sleep(60);", "sample(load_model(\"tiny\", #{ random: true }), [\"1\"], #{ n: 20000, max_tokens: 200 });"]
    {
        fs::write(dir.path().join("own.rhai"), text).expect("written");
        let outcome = run(dir.path(), &["--max-seconds", "1"]);
        assert_eq!((wrong(&outcome), outcome.code), (None, Some(1)), "{text}");
        assert!(
            outcome.err.contains("more than 1 s") && outcome.took < Duration::from_secs(10),
            "{text}: {}",
            outcome.err
        );
    }
}

#[test]
fn modules_that_import_each_other_end() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), "import \"other\" as other; fn f() { 1 }").expect("written");
    fs::write(dir.path().join("other.rhai"), "import \"own\" as own; fn f() { 2 }").expect("written");
    let outcome = run(dir.path(), &[]);
    assert_eq!(wrong(&outcome), None);
    assert!(outcome.err.contains("imports itself, or modules that import it"), "{}", outcome.err);
}

/// Whatever a script names: it reads nothing outside of its folders and writes nothing there, but what the command line
/// names.
#[test]
fn nothing_outside_is_read_or_written() {
    let (dir, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("another"));
    let secret = other.path().join("secret.jsonl");
    fs::write(&secret, "{\"prompt\": \"hidden words\"}\n").expect("written");
    fs::write(other.path().join("mine.rhai"), "fn f() { 1 }").expect("written");
    let at = other.path().display().to_string();
    let reads = [
        format!("load_data(\"{at}/secret.jsonl\")"),
        format!("load_task(\"arithmetic\", #{{ data: \"{at}/secret.jsonl\" }})"),
        format!("load_task(\"{at}/mine.rhai\")"),
        format!("load_task(\"arithmetic\", #{{ reward: \"{at}/mine.rhai\" }})"),
        format!("load_task(\"arithmetic\", #{{ reward: \"{at}/judge.gguf\" }})"),
        format!("load_task(\"arithmetic\", #{{ reward: \"{at}\" }})"),
        format!("load_batch(\"{at}/secret.jsonl\")"),
        format!("load_model(\"{at}\")"),
        format!("load_model(\"tiny\", #{{ adapter: \"{at}\" }})"),
        format!("load_frozen(\"{at}/secret.jsonl\")"),
        format!("script(\"{at}/mine\")"),
        format!("defaults(\"{at}/mine\")"),
        format!("import \"{at}/mine\" as mine;"),
        format!("load_data(\"{at}/../{}/secret.jsonl\")", other.path().file_name().expect("a name").display()),
    ];
    let writes = [
        format!("batch(#{{ reward: [1] }}).save(\"{at}/new\")"),
        format!("batch(#{{ reward: [1] }}).save(\"{at}/secret.jsonl\")"),
        format!("load_model(\"tiny\").save(\"{at}/model\")"),
        format!("heatmap(\"{at}/x.svg\", #{{ x: ones([1, 1]) }})"),
    ];
    let before = fs::read_dir(other.path()).expect("a folder").count();
    for (what, texts) in [("read", &reads[..]), ("write", &writes[..])] {
        for text in texts {
            fs::write(dir.path().join("own.rhai"), text).expect("written");
            let outcome = run(dir.path(), &[]);
            assert_eq!(wrong(&outcome), None, "{text}");
            let refused = format!("a script may not {what} ");
            assert!(outcome.err.contains(&refused) && !outcome.err.contains("hidden words"), "{text}: {}", outcome.err);
        }
    }
    assert_eq!(fs::read_dir(other.path()).expect("a folder").count(), before, "nothing new");
    assert!(fs::read_to_string(&secret).expect("there").contains("hidden"), "nothing replaced");
    // What the command line names is allowed.
    fs::write(dir.path().join("own.rhai"), format!("{}; script(\"{at}/mine\").call(\"f\", []);", reads[0]))
        .expect("written");
    let outcome = run(dir.path(), &["--allow", &at]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.err);
    fs::write(dir.path().join("own.rhai"), "let cfg = args(#{ data: \"\" }); load_data(cfg.data);").expect("written");
    let outcome = run(dir.path(), &["--set", &format!("data={at}/secret.jsonl")]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.err);
}

#[test]
fn memory_ends_before_the_machine_does() {
    let dir = tempfile::tempdir().expect("a folder");
    for text in [
        "let all = []; loop { all.push(load_model(\"tiny\", #{ random: true })); }",
        "let all = []; loop { all.push(zeros([1000, 1000])); }",
        "let all = []; let t = \"x\"; for i in 0..20 { t += t; } loop { all.push(t + `${all.len()}`); }",
        "let x = ones([1000, 1000]).with_grad(); loop { x = x * 1.5; }",
    ] {
        fs::write(dir.path().join("own.rhai"), text).expect("written");
        let outcome = run(dir.path(), &[]);
        assert_eq!(wrong(&outcome), None, "{text}");
        assert!(
            outcome.err.contains("out of memory: ") || outcome.err.contains("grew too large"),
            "{text}: {}",
            outcome.err
        );
    }
}
