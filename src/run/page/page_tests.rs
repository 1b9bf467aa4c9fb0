use super::*;
use serde_json::json;
use std::fs;

/// Markup, the end of whatever it may stand in, and what a terminal and a template obey.
const HOSTILE: &str =
    "\"'><script>alert(1)</script></title></style></pre><img src=x onerror=alert(2)>&lt;\u{1b}[31m\u{202e}{{ 7*7 }}]]>";

/// The folder of a run in which everything that a text can come from is this text.
fn folder(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: String| fs::write(dir.path().join(name), content).expect("written");
    let config = json!({
        "script": text, "args": { text: text, "nested": { text: [text] } }, "seed": text, "device": text,
        "command": [text, "--set", text], "versions": { text: text }, "machine": { text: text, "cpu": text },
        "machines": [{ "step": text, "machine": { "cpu": text } }], "resumed": [{ "step": text, "arguments": [text] }],
    });
    write(CONFIG, config.to_string());
    write(SCRIPT, format!("//! {text}\n{text}\n"));
    write("script-2.rhai", format!("{text} more\n"));
    write("pause-3.rhai", format!("{text}\n"));
    write("log.txt", format!("{text}\n"));
    let lines = [
        json!({ "step": 1, "seconds": 1, text: 1, format!("eval{text}"): 0.5, format!("{text}/a"): 1, format!("{text}/b"): 1 }),
        json!({ "step": 2, "event": "edit", "file": "script-2.rhai", "of": text }),
        json!({ "step": 3, "event": "edit", "file": "pause-3.rhai" }),
        json!({ "step": 3, "seconds": 2, text: 2, "reward": 0.5 }),
    ];
    write(METRICS, lines.map(|line| format!("{line}\n")).concat());
    let rows = [json!({ "step": 1, "prompt": text, "text": text, "reward": 1.0, text: text }), json!({ "step": text })];
    write("samples.jsonl", rows.map(|row| format!("{row}\n")).concat());
    fs::create_dir(dir.path().join("model-best")).expect("a folder");
    write("model-best/best.json", json!({ "name": text, "value": text, "step": text }).to_string());
    dir
}

fn read(dir: &Location) -> String {
    let path = dir.join(FILE);
    write_of(dir, &path).expect("written");
    fs::read_to_string(path).expect("UTF-8")
}

/// Every tag of a page, in order; markup is what a browser would take for it.
fn tags(html: &str) -> Vec<String> {
    let parts = html.split('<').skip(1).map(|part| part.split(['>', ' ', '\n']).next().unwrap_or_default().to_string());
    parts.collect()
}

#[test]
fn no_text_is_ever_markup() {
    let (hostile, harmless) =
        (read(&files::anywhere(folder(HOSTILE).path())), read(&files::anywhere(folder("harmless").path())));
    assert!(
        !hostile.contains("<script") && !hostile.contains("<img") && !hostile.contains("onerror=alert(2)>"),
        "{hostile}"
    );
    let ours = |html: &str| {
        let mut tags = tags(html);
        tags.sort();
        tags.dedup();
        tags
    };
    assert_eq!(ours(&hostile), ours(&harmless), "a text has made a tag of its own");
    // Outside of tags no text is left that could begin one, and no attribute holds a quote of a text.
    assert!(hostile.matches("&lt;script&gt;alert(1)&lt;").count() > 15, "it is shown as text: {hostile}");
    assert!(hostile.contains("\\x1b[31m\\u{202e}{{ 7*7 }}") && !hostile.contains("49]]"), "{hostile}");
    assert!(!hostile.chars().any(|c| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}'));
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_runs_nothing() {
    let html = read(&files::anywhere(folder("harmless").path()));
    assert!(
        html.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'")
    );
    for elsewhere in ["src=", "@import", "url(", "<link", "<script", "<iframe", "<object", "javascript:", "https:"] {
        assert!(!html.contains(elsewhere), "{elsewhere}");
    }
    let addresses: Vec<&str> = html.match_indices("http:").map(|(at, _)| &html[at..at + 26]).collect();
    assert!(addresses.iter().all(|address| *address == "http://www.w3.org/2000/svg"), "{addresses:?}");
    let links: Vec<&str> =
        html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap_or_default()).collect();
    assert!(links.iter().all(|link| link.starts_with('#')), "{links:?}");
}

#[test]
fn a_page_says_what_its_folder_holds() {
    let html = read(&files::anywhere(folder("harmless").path()));
    for said in [
        "killed",
        "harmless --set harmless",
        "Step 2: harmless",
        "Step 3: said at the pause",
        "+harmless more",
        "stroke-dasharray",
    ] {
        assert!(html.contains(said), "{said}: {html}");
    }
    let e = write_of(&files::anywhere(std::env::temp_dir()).join("no run is here"), &files::anywhere("nowhere"))
        .expect_err("no run");
    assert!(e.what.contains("there is no run in"), "{e}");
}

/// A run of days: a name that changes, long names, prompts, arguments, a long script, many edits.
#[test]
fn a_page_is_bounded_whatever_the_run_was() {
    let dir = folder("harmless");
    let write = |name: &str, content: String| fs::write(dir.path().join(name), content).expect("written");
    let long = "long <&> ".repeat(20_000);
    let mut lines = String::new();
    for step in 0..3000 {
        let mut line = json!({ "step": step, "eval": if step % 2 == 0 { json!(null) } else { json!(step) } });
        line[format!("own{}", step % 400)] = json!(step);
        (0..12).for_each(|i| line[format!("all/{i}")] = json!((step * i) % 17));
        lines +=
            &format!("{{\"step\":{step},\"event\":\"edit\",\"file\":\"script-2.rhai\",\"of\":\"own.rhai\"}}\n{line}\n");
    }
    lines += &format!("{}\n", json!({ "step": 3000, long.as_str(): 1 }));
    write(METRICS, lines);
    write(SCRIPT, long.repeat(3));
    write("script-2.rhai", long.replace(' ', "\n"));
    write("log.txt", (0..9000).map(|_| &long[..900]).collect::<Vec<_>>().join("\n"));
    let row = json!({ "step": 1, "prompt": long, "text": long }).to_string();
    write("samples.jsonl", format!("{row}\n").repeat(30));
    let args: Map<String, Value> = (0..2000).map(|i| (format!("a{i}"), json!(long))).collect();
    write(CONFIG, json!({ "script": "own", "args": args, "command": [long] }).to_string());
    let html = read(&files::anywhere(dir.path()));
    assert!(html.len() < 6 << 20, "{} bytes", html.len());
    for left in [
        "343 panels of curves",
        "214 names that were logged",
        "2960 evaluations",
        "1700 hyper-parameters",
        "2970 earlier edits",
        "408928 bytes of the script",
        "the beginning of log.txt",
    ] {
        assert!(html.contains(left), "{left}: {}", &html[html.len() - 800..]);
    }
}

#[test]
fn files_that_are_links_are_not_shown() {
    #[cfg(unix)]
    {
        let dir = folder("harmless");
        let secret = dir.path().join("elsewhere");
        fs::write(&secret, "a secret").expect("written");
        for name in ["script-2.rhai", "log.txt", "samples.jsonl"] {
            fs::remove_file(dir.path().join(name)).expect("there");
            std::os::unix::fs::symlink(&secret, dir.path().join(name)).expect("a link");
        }
        let html = read(&files::anywhere(dir.path()));
        assert!(!html.contains("a secret") && html.contains("script-2.rhai is not in the folder"), "{html}");
    }
}
