//! The table of metric names, the shipped scripts and their pages speak of the same numbers.

use rhopo::run::access::Access;
use rhopo::run::names::{self, TABLE, Writer};
use rhopo::script::lang::loader;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

type Names = BTreeSet<String>;

/// The script without its comments.
fn code(script: &str) -> String {
    script.lines().map(|line| line.split("//").next().unwrap_or_default().to_string() + "\n").collect()
}

/// What stands between the bracket that `text` begins behind and the one that closes it.
fn inside(text: &str) -> &str {
    let mut depth = 1;
    let end = text.char_indices().find(|(_, c)| {
        depth += i32::from("([{".contains(*c)) - i32::from(")]}".contains(*c));
        depth == 0
    });
    &text[..end.expect("the bracket is closed").0]
}

/// The keys of the maps in `text` that stand in no other bracket.
fn keys(text: &str) -> Names {
    let (mut found, mut rest) = (Names::new(), text);
    while let Some(at) = rest.find(['(', '[', '{']) {
        let map = inside(&rest[at + 1..]);
        if rest[..at].ends_with('#') {
            let mut depth = 0;
            let pairs = map.split(|c| {
                depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c));
                c == ',' && depth == 0
            });
            found.extend(pairs.filter_map(|pair| Some(pair.split_once(':')?.0.trim().trim_matches('"').to_string())));
        }
        rest = &rest[at + 1 + map.len() + 1..];
    }
    found
}

/// The names that a script logs: by `run.log`, as a map, as what a step returns or what a function of its own does; and by
/// `run.show`.
fn logged(script: &str) -> Names {
    let code = code(script);
    let mut found = Names::new();
    for rest in code.split("run.log(").skip(1) {
        let argument = inside(rest);
        found.extend(keys(argument));
        if argument.starts_with("stat") || argument.starts_with("opt.step(") {
            found.extend(["loss".to_string(), "grad_norm".to_string()]);
        }
        let function = argument.split('(').next().unwrap_or_default();
        if let Some((_, body)) = code.split_once(&format!("fn {function}(")) {
            let body = body.split_once("{\n").expect("a body").1;
            found.extend(keys(body.split_once("\n}").expect("its end").0));
        }
    }
    if code.contains("run.show(") {
        found.insert("entropy".into());
        let sets =
            |line: &str| line.split_once(".reward ").is_some_and(|(_, rest)| rest.trim_start().starts_with("= "));
        if code.lines().any(sets) {
            found.insert("reward_std".into());
        }
    }
    found
}

/// The names in the table under `## Metrics`.
fn documented(page: &str) -> Names {
    let section = page.split("\n## Metrics\n").nth(1).expect("Metrics").split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|line| line.split(" | ").next().unwrap_or_default());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_string).collect()
}

fn by_the_run(name: &str) -> bool {
    names::find(name).is_some_and(|known| matches!(known.writer, Writer::Run | Writer::Line))
}

#[test]
fn pages_list_what_their_scripts_log() {
    let mut complaints = Vec::new();
    for source in loader::list(&Access::reading(&[])) {
        let name = source.stem();
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/algorithms/{name}.md"));
        let page = documented(&fs::read_to_string(page).expect("a page"));
        let logged = logged(&source.text);
        complaints.extend(logged.difference(&page).map(|n| format!("{name} logs `{n}`, and its page does not say so")));
        let others = page.difference(&logged).filter(|n| !by_the_run(n));
        complaints.extend(others.map(|n| format!("{name}'s page has `{n}`, which it does not log")));
        let former = logged.iter().filter(|n| names::in_place_of(n).is_some());
        complaints.extend(former.map(|n| format!("{name} logs `{n}`: the table has another name for it")));
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_name_of_the_table_is_used() {
    let all: Names = loader::list(&Access::reading(&[])).iter().flat_map(|source| logged(&source.text)).collect();
    for known in TABLE.iter().filter(|known| matches!(known.writer, Writer::Script | Writer::Show)) {
        assert!(all.contains(known.name), "no shipped script logs `{}`", known.name);
    }
}

#[test]
fn the_readers_of_this_test_read() {
    let script = "fn own(x) {\n    let y = f(#{ no: 1 });\n    #{ a: 1, \"b/c\": g(y, #{ no: 2 }) }\n}\n\
                  run.log(#{ eval: t.evaluate(p, #{ n: 2, m: 3 }), // not: this\n  d: [1, 2][0] });\n\
                  run.log(own(3));\nlet stat = opt.step(l);\nrun.log(stat + #{ e: mean(k::k3(a, b)) });\n\
                  run.show(b, 2);\nb.reward  = 1;";
    let expected = ["a", "b/c", "d", "e", "entropy", "eval", "grad_norm", "loss", "reward_std"];
    assert_eq!(logged(script).iter().map(String::as_str).collect::<Vec<_>>(), expected);
    let page =
        "# X\n\n## Metrics\n\n| name | how |\n| --- | --- |\n| `a` | of `x` |\n| `b`, `c` | y |\n\n## Y\n| `d` | |\n";
    assert_eq!(documented(page).iter().map(String::as_str).collect::<Vec<_>>(), ["a", "b", "c"]);
}
