//! The prompt in a terminal of its own: what a person types, and what they see.
#![cfg(unix)]

use crate::common::terminal::Terminal;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn repl(dir: &Path) -> Terminal {
    let terminal = Terminal::start(dir, &["repl"]);
    terminal.expect("rhopo> ", SOON);
    terminal
}

#[test]
fn bytes_that_are_no_text_do_not_end_the_session() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut t = repl(dir.path());
    t.enter("let keep = 42;");
    t.bytes(b"\"\xe9\"\r");
    t.expect("the input is not valid text (UTF-8)", SOON);
    t.bytes(b"\x03");
    t.answer("keep + 1", "43");
}

/// What a pipe gives `rhopo repl` in `dir`: its exit code, what it prints, and what it says.
fn piped(dir: &Path, input: &[u8], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).arg("repl").envs(environment.iter().copied()).env("RHOPO_HISTORY", dir.join("history"));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rhopo starts");
    child.stdin.take().expect("a pipe").write_all(input).expect("written");
    let done = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

/// All that comes of lines.
fn lines_piped(dir: &Path, lines: &[&str], environment: &[(&str, &str)]) -> String {
    let (_, out, said) = piped(dir, format!("{}\n", lines.join("\n")).as_bytes(), environment);
    format!("{out}{said}")
}

#[test]
fn a_pipe_that_breaks_off_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let piped = |input: &[u8]| piped(dir.path(), input, &[]);
    let (code, out, _) = piped(b"40 + 2\n[1,\n2].len()\n");
    assert_eq!((code, out.contains("42") && out.contains('2')), (Some(0), true), "{out}");
    let (code, out, said) = piped(b"40 + 2\nlet a = [1,\n2,\n");
    assert_eq!((code, out.contains("42")), (Some(1), true), "{out}");
    assert!(said.contains("the input ends inside a bracket, a string or a comment"), "{said}");
    let (code, out, said) = piped(b"40 + 2\n\"\xe9\"\n");
    assert_eq!((code, out.contains("42")), (Some(1), true), "{out}");
    assert!(said.contains("the input is not valid text (UTF-8)"), "{said}");
    let (code, out, _) = piped(b"40 + 2\n\"\xe9\"\n50 + 5\n");
    assert_eq!((code, out.contains("42") && out.contains("55")), (Some(1), true), "what follows is read: {out}");
}

/// The whole of a first afternoon: model, samples, advantage, a loss, a step, a curve, an interruption, mistakes, and
/// the session as a script that runs.
#[test]
fn a_session_from_the_first_sample_to_a_script() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut t = repl(dir.path());
    t.enter("let policy = load_model(\"tiny\")");
    t.answer("policy", "Model(tiny, Qwen2ForCausalLM, 999040 parameters)");
    t.enter("let b = sample(policy, [\"1+1=\", \"20+3=\"], #{ n: 4, max_tokens: 4 });");
    t.answer("b", "Batch of 8 rows");
    t.enter("b.reward = b.text.map(|t| if t == \"2\" { 1.0 } else { t.len() * 0.1 });");
    t.enter("b.advantage = advantage::group(b.reward, 4);");
    t.answer("b.advantage", "Tensor [8,1] f32 cpu");
    // Nothing is evaluated before the brace closes, and the lines within are indented.
    t.enter("fn loss(logp, b) {");
    t.enter("let ratio = exp(logp - b.old_logprob);");
    t.enter("-seq_mean(ratio * b.advantage, b.mask)");
    t.enter("}");
    t.enter("let opt = adamw(policy, #{ lr: 1e-4 });");
    t.answer("opt.step(loss(logprob(policy, b), b))", "grad_norm: ");
    t.answer("_.grad_norm >= 0.0", "true");
    t.answer(":plot [1.0, 4.0, 9.0, 16.5]", "16.5");

    // Ctrl-C in the middle of a sample that would take a minute: it stops, and what was there is as it was.
    t.enter("let slow = load_model(\"tiny\", #{ random: true });");
    t.enter("let before = logprob(policy, b).to_array();");
    let waited = interrupt(&mut t, "let long = sample(slow, [\"1+1=\"], #{ n: 1024, max_tokens: 400 });");
    println!("sample stopped after {waited:?}");
    assert!(waited < Duration::from_millis(500), "sample stopped after {waited:?}");
    t.answer("logprob(policy, b).to_array() == before", "true");

    // Three different mistakes; each is told and none ends the session.
    t.answer("lograob(policy, b)", "did you mean `logprob`?");
    t.answer("let y = b.rewad", "did you mean `reward`?");
    t.answer("zeros([2, 3]) + zeros([2, 2])", "[2,3]");
    t.answer("1 + 41", "42");

    // A function that was said twice is saved as it was said last, and of an input that failed what it did.
    t.enter("fn half(x) { x / 3.0 }");
    t.enter("fn half(x) { x / 2.0 }");
    t.answer("let kept = half(8.0); kept.nope()", "nope");
    t.answer("kept + 1000.0", "1004.0");
    t.answer(":save session", "saved session.rhai");
    t.answer(":save session", "overwrite it? [y/N]");
    t.answer("y", "saved session.rhai");
    t.enter(":quit");
    assert_eq!(t.wait(SOON), 0);

    let saved = fs::read_to_string(dir.path().join("session.rhai")).expect("saved");
    assert!(saved.contains("fn loss(logp, b) {\n    let ratio"), "{saved}");
    assert!(saved.contains("let ans = opt.step(") && !saved.contains("lograob"), "{saved}");
    let mut again = Terminal::start(dir.path(), &["run", "session"]);
    assert!(!saved.contains("x / 3.0") && saved.contains("let kept = half(8.0);"), "{saved}");
    assert_eq!(again.wait(SOON), 0, "{}", again.seen());
    assert!(!again.seen().contains("Error"), "{}", again.seen());
}

/// Enters something that takes long, presses Ctrl-C after a second and says how long it took to stop.
fn interrupt(t: &mut Terminal, line: &str) -> Duration {
    t.enter(line);
    std::thread::sleep(Duration::from_secs(1));
    let pressed = Instant::now();
    t.press('\u{3}');
    t.expect("interrupted", Duration::from_secs(5));
    pressed.elapsed()
}

#[test]
fn a_step_is_interrupted_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut t = repl(dir.path());
    t.enter("let policy = load_model(\"tiny\", #{ random: true });");
    t.enter("let opt = adamw(policy, #{ lr: 1e-2 });");
    // Rows of 160 tokens, each with a prompt of its own: the backward pass takes seconds.
    t.enter("let digits = \"0123456789\"; for i in 0..4 { digits += digits; }");
    t.enter("let rows = []; for i in 0..400 { rows += [#{ prompt: `${i}+${i}=`, completion: digits }]; }");
    t.enter("let b = encode(policy, rows); let few = encode(policy, rows.extract(0, 2));");
    t.enter("let before = logprob(policy, few).to_array();");
    t.enter("let loss = -seq_mean(logprob(policy, b), b.mask);");
    t.answer("loss.item() > 0.0", "true");
    let waited = interrupt(&mut t, "opt.step(loss)");
    println!("opt.step stopped after {waited:?}");
    assert!(waited < Duration::from_millis(500), "opt.step stopped after {waited:?}");
    t.answer("logprob(policy, few).to_array() == before", "true");
    t.answer("let s = opt.step(-seq_mean(logprob(policy, few), few.mask)); s.loss > 0.0", "true");
    t.answer("logprob(policy, few).to_array() == before", "false");
}

#[test]
fn keys_complete_and_search() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut t = repl(dir.path());
    t.enter("let numbers = [10, 20, 30];");
    t.keys("numb\t.len() + 1000\r");
    t.expect("1003", SOON);
    // The history, backwards.
    t.keys("\u{12}let numb");
    t.expect("reverse-i-search", SOON);
    t.keys("\u{7}\r");
    t.answer("let cfg = #{ clip: 0.25 }; cfg", "clip: 0.25");
    t.keys("cfg.cl\t * 4.0 + 7000.0\r");
    t.expect("7001.0", SOON);
    // The signature of what is being called is there before it is called.
    t.keys("seq_mean(");
    t.expect("mask: Tensor", SOON);
    t.press('\u{3}');
    t.answer("6 * 7000", "42000");
    // Ctrl-D leaves.
    assert_eq!(t.leave(SOON), 0);
}

#[test]
fn commands_answer() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("mine.rhai"), "fn f(x) { x + 1000 }\nlet loaded = f(1);\n").expect("written");
    let mut t = repl(dir.path());
    t.answer(":help kl::k3", "unbiased and never negative");
    t.answer(":help", "list the variables and functions in scope");
    t.answer(":search adaptive coefficient", "schedule::adapt");
    t.answer(":source schedule::linear", "1.0 - (step - 1.0) / steps");
    t.answer(":source schedule::linear", "fn linear(step, steps, warmup)");
    t.answer(":hepl", "did you mean `:help`?");
    t.answer(":load mine", "rhopo> ");
    t.answer("loaded + f(1)", "2002");
    fs::write(dir.path().join("mine.rhai"), "fn f(x) { x + 5000 }\nlet loaded = f(1);\n").expect("written");
    t.answer(":reload", "reloaded: mine.rhai");
    t.answer("f(1)", "5001");
    t.answer(":vars", "loaded");
    t.answer(":source f", "x + 5000");
    t.answer(":time 1 + 1", "s");
    t.answer(":set seed 9", "rhopo> ");
    t.answer(":set", "seed 9");
    t.answer("exit(3)", "3");
    t.answer("throw \"mine\"", "mine");
    t.answer("let deep = |f| f.call(f); deep.call(deep)", "too deeply");
    t.answer(":time nothing", "there is no variable `nothing`");
}

#[test]
fn a_run_at_the_prompt_is_written_whole_and_keeps_its_seed() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut t = repl(dir.path());
    t.answer("let cfg = args(#{ seed: 5, lr: 1.0 }); cfg.seed + 1000", "1005");
    t.enter("let run = open_run(cfg);");
    t.enter("for step in run.steps(3) { run.log(#{ a: step }); }");
    t.enter("run.log(#{ late: 1 });");
    t.enter(":quit");
    assert_eq!(t.wait(SOON), 0);
    let runs = fs::read_dir(dir.path().join("runs")).expect("runs").next().expect("a run").expect("an entry").path();
    let lines = fs::read_to_string(runs.join("metrics.jsonl")).expect("metrics");
    assert!(lines.lines().count() == 3 && lines.contains("\"late\":1.0"), "{lines}");
    assert!(fs::read_to_string(runs.join("config.json")).expect("config").contains("\"seed\": 5"));
}

/// The whole way from the command line to the prompt, and what is looked up there.
#[test]
fn the_prompt_is_there_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let terminal = Terminal::start(dir.path(), &["repl"]);
        terminal.expect("rhopo> ", SOON);
        times.push(begun.elapsed());
    }
    times.sort();
    println!("from start to prompt: {times:?}");
    // A debug build is another program.
    if !cfg!(debug_assertions) {
        assert!(times[2] < Duration::from_millis(300), "{times:?}");
    }
}

#[test]
fn a_path_that_is_typed_may_be_read_and_others_once_they_are_allowed() {
    let (dir, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("another"));
    let path = other.path().join("rows.jsonl");
    fs::write(&path, "{\"prompt\": \"1+1=\", \"completion\": \"2\"}\n").expect("written");
    let hidden = format!("fn rows() {{ load_data([\"{}\", \"rows.jsonl\"].join(\"/\")) }}", other.path().display());
    fs::write(dir.path().join("own.rhai"), hidden).expect("written");
    let typed = format!("let d = load_data(\"{}\"); 41 + 1", path.display());
    let said = lines_piped(dir.path(), &[&typed], &[]);
    assert!(said.contains("42") && !said.contains("may not read"), "{said}");
    let said = lines_piped(dir.path(), &[":load own", "rows()"], &[]);
    assert!(said.contains("a script may not read"), "{said}");
    let allow = format!(":allow {}", other.path().display());
    let said = lines_piped(dir.path(), &[":load own", &allow, "let d = rows(); 41 + 1"], &[]);
    assert!(said.contains("42") && !said.contains("may not read"), "{said}");
}

#[test]
fn an_input_is_edited_and_timed_over_and_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let said =
        lines_piped(dir.path(), &["let x = 40;", ":edit", "x + 2"], &[("EDITOR", "sed -i s/40/50/"), ("VISUAL", "")]);
    assert!(said.contains("let x = 50;") && said.contains("52"), "{said}");
    let said = lines_piped(dir.path(), &["let n = [];", ":time 5 n.push(1)", "n.len() + 100", ":time 2 * 3"], &[]);
    assert!(said.contains("(median of 5;") && said.contains("105") && said.contains('6'), "{said}");
}

#[test]
fn an_input_that_goes_on_is_indented() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut t = repl(dir.path());
    for line in ["fn f(x) {", "if x {", "let pair = [", "1,", "", "2", "];", "pair[0]", "} else {", "`a"] {
        t.enter(line);
    }
    // Within a text nothing is put in; a space typed by hand stays.
    for line in ["b`", " + `c`", "}", "}"] {
        t.enter(line);
    }
    t.answer("f(true) + 6999", "7000");
    t.answer(":save session", "saved session.rhai");
    let saved = fs::read_to_string(dir.path().join("session.rhai")).expect("saved");
    let inner = "        let pair = [\n            1,\n\n            2\n        ];\n        pair[0]\n";
    let whole = format!("fn f(x) {{\n    if x {{\n{inner}    }} else {{\n        `a\nb`\n         + `c`\n    }}\n}}\n");
    assert!(saved.contains(&whole), "{saved}");
}

#[test]
fn long_and_many_inputs_of_a_pipe_end_soon() {
    let dir = tempfile::tempdir().expect("a folder");
    let begun = Instant::now();
    let many: String = (0..2000).map(|i| format!("let x{i} = {i};\n")).collect();
    let (code, out, said) = piped(dir.path(), format!("{many}x1999 + 1\n").as_bytes(), &[]);
    assert_eq!((code, out.trim()), (Some(0), "2000"), "{said}");
    let long = format!("1{}\n2 + 2\n", "+1".repeat(1 << 19));
    let (code, out, said) = piped(dir.path(), long.as_bytes(), &[]);
    assert_eq!((code, out.trim()), (Some(1), "4"), "{said}");
    assert!(said.contains("at most 65536 are read"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}

#[test]
fn a_history_that_is_no_text_is_mended_and_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("history");
    fs::write(&path, b"#V2\nlet old = 1;\nlet b\xff = 2;\n").expect("written");
    let (code, out, said) = piped(dir.path(), b"50 + 5\n", &[]);
    assert_eq!((code, out.trim()), (Some(0), "55"), "{said}");
    let mut t = repl(dir.path());
    t.answer("40 + 2", "42");
    let history = fs::read_to_string(&path).expect("text");
    assert!(history.contains("let old = 1;") && history.contains("40 + 2"), "{history}");
    assert!(!history.contains("50 + 5"), "nobody typed it: {history}");
}
