//! docs/algorithms: a page for every shipped script, in one form, with the script's own hyper-parameters and defaults.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const SECTIONS: [&str; 6] = ["Objective", "Pseudocode", "Hyper-parameters", "Metrics", "Differences", "Measured"];
/// The rows of the table under the title, in order, and whether a page may do without.
const FACTS: [(&str, bool); 8] = [
    ("paper", false),
    ("family", false),
    ("learns from", false),
    ("models held", false),
    ("columns read by `loss`", true),
    ("advantage", true),
    ("aggregation", true),
    ("script", false),
];
/// Trains nothing, so there is no curve to show.
const NO_PICTURE: &[&str] = &["best_of_n"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder with this extension: stem → text, in order of name.
fn texts(folder: &str, extension: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    let wanted = paths.iter().filter(|path| path.extension().is_some_and(|found| found == extension));
    wanted
        .map(|path| {
            let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (stem, fs::read_to_string(path).expect("text"))
        })
        .collect()
}

fn scripts() -> BTreeMap<String, String> {
    texts("scripts", "rhai")
}

/// The pages, without the index.
fn pages() -> BTreeMap<String, String> {
    let mut pages = texts("docs/algorithms", "md");
    assert!(pages.remove("README").is_some(), "docs/algorithms/README.md, the index, is missing");
    pages
}

/// The page's headings and the lines below each, in order. What stands in a fenced block is no heading.
fn sections(page: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::<(&str, Vec<&str>)>::new();
    let mut fenced = false;
    for line in page.lines() {
        fenced ^= line.starts_with("```");
        match line.strip_prefix("## ") {
            Some(title) if !fenced => found.push((title, Vec::new())),
            _ => found.last_mut().into_iter().for_each(|(_, lines)| lines.push(line)),
        }
    }
    found
}

fn section<'a>(page: &'a str, title: &str) -> Vec<&'a str> {
    let found = sections(page).into_iter().find(|(found, _)| *found == title);
    found.map(|(_, lines)| lines).unwrap_or_default()
}

/// The first two cells of each row of a table but its head; a cell that is code, without its backquotes.
fn rows<'a>(lines: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let table = lines.iter().filter(|line| line.starts_with('|')).skip(2);
    let code = |cell: &'a str| cell.strip_prefix('`')?.strip_suffix('`');
    let cell = |cell: &'a str| code(cell.trim()).unwrap_or(cell.trim());
    table
        .map(|line| {
            let mut cells = line.trim_matches('|').split(" | ");
            (cell(cells.next().unwrap_or_default()), cell(cells.next().unwrap_or_default()))
        })
        .collect()
}

/// The hyper-parameters of a script, in order: the pairs `name: value,` between `args(#{` and `});`, comments left out.
fn hyper_parameters<'a>(name: &str, script: &'a str) -> Vec<(&'a str, &'a str)> {
    let start = script.split_once("args(#{").unwrap_or_else(|| panic!("{name}.rhai has no args map")).1;
    let map = start.split_once("\n});").unwrap_or_else(|| panic!("{name}.rhai: its args map does not end")).0;
    let pairs = map.lines().flat_map(|line| pairs(without_comment(line)));
    pairs
        .map(|pair| {
            let (key, value) =
                pair.split_once(':').unwrap_or_else(|| panic!("{name}.rhai: `{pair}` is not `name: value`"));
            (key.trim(), value.trim())
        })
        .collect()
}

/// What stands between a line's commas; a comma in a text or between brackets is part of a value.
fn pairs(line: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0, false);
    for (i, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                found.push(line[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    found.push(line[start..].trim());
    found.retain(|pair| !pair.is_empty());
    found
}

/// The line up to its comment; `//` in a text is none.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    for (i, c) in line.char_indices() {
        quoted ^= c == '"';
        if !quoted && line[i..].starts_with("//") {
            return &line[..i];
        }
    }
    line
}

/// The targets of the links and pictures of a page. What stands in a fenced block or between backquotes is no link.
fn links(page: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in page.lines() {
        fenced ^= line.starts_with("```");
        if fenced {
            continue;
        }
        for plain in line.split('`').step_by(2) {
            found.extend(plain.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)));
        }
    }
    found
}

/// Fails with all complaints at once, one a line.
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_script_has_a_page_and_every_page_a_script() {
    let (scripts, pages) = (scripts(), pages());
    let index = fs::read_to_string(root().join("docs/algorithms/README.md")).expect("the index");
    let mut complaints = Vec::new();
    for name in scripts.keys() {
        if !pages.contains_key(name) {
            complaints.push(format!("scripts/{name}.rhai has no page docs/algorithms/{name}.md"));
        }
        if !links(&index).contains(&format!("{name}.md").as_str()) {
            complaints.push(format!("docs/algorithms/README.md has no link to {name}.md"));
        }
    }
    for name in pages.keys().filter(|name| !scripts.contains_key(*name)) {
        complaints.push(format!("docs/algorithms/{name}.md is about no script: scripts/{name}.rhai is missing"));
    }
    none(complaints);
}

#[test]
fn pages_have_their_facts_and_sections_in_order() {
    let mut complaints = Vec::new();
    for (name, page) in pages() {
        let found: Vec<&str> = sections(&page).into_iter().map(|(title, _)| title).collect();
        if found != SECTIONS {
            complaints.push(format!("{name}.md: sections are {found:?}, expected {SECTIONS:?}"));
        }
        let empty = sections(&page).into_iter().filter(|(_, lines)| lines.iter().all(|line| line.trim().is_empty()));
        complaints.extend(empty.map(|(title, _)| format!("{name}.md: section {title} is empty")));
        let head = page.split("\n## ").next().unwrap_or_default();
        if !head.starts_with("# ") {
            complaints.push(format!("{name}.md does not begin with its title"));
        }
        let facts: Vec<&str> = rows(&head.lines().collect::<Vec<_>>()).into_iter().map(|(fact, _)| fact).collect();
        let wanted = FACTS.iter().filter(|(fact, optional)| !optional || facts.contains(fact)).map(|(fact, _)| *fact);
        let wanted: Vec<&str> = wanted.collect();
        if facts != wanted {
            complaints.push(format!("{name}.md: facts are {facts:?}, expected {wanted:?}"));
        }
        if !section(&page, "Objective").contains(&"```math") {
            complaints.push(format!("{name}.md: Objective has no fenced math block"));
        }
        if !NO_PICTURE.contains(&name.as_str()) && !links(&page).contains(&format!("../results/{name}.svg").as_str()) {
            complaints.push(format!("{name}.md: Measured does not show ../results/{name}.svg"));
        }
    }
    none(complaints);
}

#[test]
fn pages_state_every_hyper_parameter_with_the_default_of_the_script() {
    let (scripts, mut complaints) = (scripts(), Vec::new());
    for (name, page) in pages() {
        let Some(script) = scripts.get(&name) else { continue };
        let expected = hyper_parameters(&name, script);
        let lines = section(&page, "Hyper-parameters");
        let found = rows(&lines);
        for (key, value) in &expected {
            match found.iter().find(|(stated, _)| stated == key) {
                None => complaints.push(format!("{name}.md: `{key}`: expected {value}, found no row")),
                Some((_, stated)) if stated != value => {
                    complaints.push(format!("{name}.md: `{key}`: expected {value}, found {stated}"));
                }
                Some(_) => {}
            }
        }
        let unknown = found.iter().filter(|(stated, _)| !expected.iter().any(|(key, _)| key == stated));
        complaints.extend(unknown.map(|(stated, _)| format!("{name}.md: `{stated}` is not in the script's args map")));
        let order = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>();
        let (mut stated, mut wanted) = (order(&found), order(&expected));
        if stated != wanted {
            stated.sort();
            wanted.sort();
            if stated == wanted {
                complaints.push(format!("{name}.md: the rows are not in the order of the script's args map"));
            }
        }
    }
    none(complaints);
}

#[test]
fn links_of_pages_lead_to_files() {
    let folder = root().join("docs/algorithms");
    let mut complaints = Vec::new();
    for (name, page) in texts("docs/algorithms", "md") {
        // Its own curve is drawn by the measurements, which may come after the page.
        let curve = format!("../results/{name}.svg");
        for link in links(&page) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target == curve {
                continue;
            }
            if !folder.join(target).exists() {
                complaints.push(format!("{name}.md: the link {link} leads to no file"));
            }
        }
    }
    none(complaints);
}

#[test]
fn the_readers_of_this_test_read() {
    let script = "let cfg = args(#{\n    a: \"x//y, z\",   // a text: with everything\n    b: 1e-3, d: [1, 2],\n    c: (),    // last\n});\n";
    let found = hyper_parameters("x", script);
    assert_eq!(found, [("a", "\"x//y, z\""), ("b", "1e-3"), ("d", "[1, 2]"), ("c", "()")]);
    let page = "# X\n\n## One\n\n```text\n## no heading, [no](link)\n```\n`[no](link)` but [yes](there.md#part)\n## Two\n\
                | name | default |\n| --- | --- |\n| `a` | `\"\"` | b |\n";
    assert_eq!(sections(page).iter().map(|(title, _)| *title).collect::<Vec<_>>(), ["One", "Two"]);
    assert_eq!(links(page), ["there.md#part"]);
    assert_eq!(rows(&section(page, "Two")), [("a", "\"\"")]);
}
