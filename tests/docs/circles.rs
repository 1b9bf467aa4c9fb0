//! Holds that the files of a layer do not use each other in circles: each can be read once those below it are known.

use super::layering::{files, is_name};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Layers whose files form no circle.
const STRAIGHT: [&str; 5] = ["files", "script", "ui", "run", "engine"];

/// The rooms of `script/`, lowest first: a room may use those before it.
const ROOMS: [&str; 6] = ["lang", "bind", "live", "host", "builder", "tools"];

/// `script::lang::lex`
type Name = Vec<String>;

/// A file: what it calls things from elsewhere, and the paths in its code.
#[derive(Default)]
struct Module {
    /// Names that `use` brings, with their paths.
    imported: BTreeMap<String, Name>,
    /// Names of those that others may take from here.
    offered: BTreeSet<String>,
    children: BTreeSet<String>,
    paths: Vec<Name>,
}

fn words(path: &str) -> Name {
    path.split("::").map(|word| word.trim().to_string()).collect()
}

/// `src/script/live/console/mod.rs` is `script::live::console`.
fn name_of(path: &Path) -> Name {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let inside = path.strip_prefix(root).expect("below src").with_extension("");
    let mut name: Name = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if name.last().is_some_and(|last| last == "mod") {
        name.pop();
    }
    name
}

/// The paths of a `use` tree, each with the name it has from then on: `a::{self, b as c}` is `a` and `a::b` as `c`.
fn leaves(tree: &str) -> Vec<(Name, String)> {
    let tree = tree.trim();
    if let Some((before, inside)) = tree.split_once('{') {
        let inside = inside.strip_suffix('}').expect("a group ends");
        let front = words(before.trim().trim_end_matches("::"));
        let front: Name = front.into_iter().filter(|word| !word.is_empty()).collect();
        let parts = split(inside).into_iter().filter(|part| !part.trim().is_empty()).flat_map(|part| leaves(&part));
        let behind = parts.map(|(path, name)| match path.len() == 1 && path[0] == "self" {
            true => (front.clone(), if name == "self" { front.last().cloned().unwrap_or_default() } else { name }),
            false => ([front.clone(), path].concat(), name),
        });
        return behind.collect();
    }
    let (path, name) = tree.split_once(" as ").unwrap_or((tree, tree.rsplit("::").next().unwrap_or(tree)));
    vec![(words(path), name.trim().to_string())]
}

/// The parts between commas that stand in no group.
fn split(text: &str) -> Vec<String> {
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("one at least").push(c);
    }
    parts
}

fn read(code: &str) -> Module {
    let mut module = Module::default();
    let mut rest = String::new();
    // `use` and `mod` stand at the beginning of a line; a `use` may run over several.
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let public = line.trim_start().starts_with("pub");
        let bare = line.trim_start().trim_start_matches("pub(super) ").trim_start_matches("pub(crate) ");
        let bare = bare.trim_start_matches("pub ");
        if let Some(child) = bare.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            module.children.insert(child.to_string());
        } else if let Some(begin) = bare.strip_prefix("use ") {
            let mut tree = begin.to_string();
            while !tree.contains(';') {
                tree += lines.next().expect("`use` ends");
            }
            for (path, name) in leaves(tree.split(';').next().unwrap_or_default()) {
                if public {
                    module.offered.insert(name.clone());
                }
                module.imported.insert(name, path);
            }
        } else {
            rest += line;
            rest.push('\n');
        }
    }
    module.paths = paths(&rest);
    module
}

/// Everything of the form `a::b`.
fn paths(code: &str) -> Vec<Name> {
    let pieces = code.split(|c: char| !is_name(c) && c != ':');
    let path = |piece: &str| piece.trim_matches(':').to_string();
    pieces.map(path).filter(|piece| piece.contains("::")).map(|piece| words(&piece)).collect()
}

struct House {
    modules: BTreeMap<Name, Module>,
}

impl House {
    fn read() -> Self {
        let modules = files().into_iter().map(|file| (name_of(&file.path), read(&file.code))).collect();
        Self { modules }
    }

    /// The path from the root of the crate that `path` in the file `at` stands for, if it is one of this crate.
    fn absolute(&self, at: &Name, path: &[String]) -> Option<Name> {
        let (first, rest) = path.split_first()?;
        let module = &self.modules[at];
        let base = match first.as_str() {
            "crate" => Name::new(),
            "self" => at.clone(),
            "super" => at[..at.len().checked_sub(1)?].to_vec(),
            first if module.children.contains(first) => [at.clone(), vec![first.to_string()]].concat(),
            first => {
                // A name that stands for itself, as in `use serde_json`, is no path of ours.
                let meant = module.imported.get(first).filter(|meant| meant[0] != first)?;
                self.absolute(at, meant)?
            }
        };
        let mut found = base;
        for word in rest {
            match word.as_str() {
                "super" => drop(found.pop()),
                word => found.push(word.to_string()),
            }
        }
        Some(found)
    }

    /// The file that a path ends in; what a file hands on is where it comes from.
    fn file(&self, path: &[String]) -> Option<Name> {
        let end = (1..=path.len()).rev().find(|&end| self.modules.contains_key(&path[..end]))?;
        let (module, next) = (&path[..end].to_vec(), path.get(end));
        let handed_on = next.filter(|next| self.modules[module].offered.contains(*next));
        match handed_on.and_then(|next| self.absolute(module, &self.modules[module].imported[next])) {
            Some(source) => self.file(&[&source, &path[end + 1..]].concat()),
            None => Some(module.clone()),
        }
    }

    /// The files of its own layer that a file uses.
    fn uses(&self, at: &Name) -> BTreeSet<Name> {
        let module = &self.modules[at];
        let brought = module.imported.iter().filter(|(name, _)| !module.offered.contains(*name)).map(|(_, path)| path);
        let paths = brought.chain(&module.paths).filter_map(|path| self.absolute(at, path));
        // A module as such is no use of it; what is taken out of it is a path of its own.
        let items = paths.filter(|path| !self.modules.contains_key(path));
        items.filter_map(|path| self.file(&path)).filter(|file| file != at && file[0] == at[0]).collect()
    }

    fn graph(&self, layer: &str) -> BTreeMap<Name, BTreeSet<Name>> {
        let inside = self.modules.keys().filter(|name| name.first().is_some_and(|first| first == layer));
        inside.map(|name| (name.clone(), self.uses(name))).collect()
    }
}

/// The shortest way from a file back to itself.
fn way_back(graph: &BTreeMap<Name, BTreeSet<Name>>, start: &Name) -> Option<Vec<Name>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in &graph[way.last().expect("a beginning")] {
                if next == start {
                    return Some([way, vec![next.clone()]].concat());
                }
                if seen.insert(next.clone()) {
                    longer.push([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

/// The files that each stand on a way back to themselves, by circle: the shortest way, and how many files are in it.
fn circles(graph: &BTreeMap<Name, BTreeSet<Name>>) -> Vec<(Vec<Name>, BTreeSet<Name>)> {
    let reach = |start: &Name| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![start.clone()]);
        while let Some(at) = left.pop() {
            left.extend(graph[&at].iter().filter(|next| seen.insert((*next).clone())).cloned());
        }
        seen
    };
    let reached: BTreeMap<&Name, BTreeSet<Name>> = graph.keys().map(|name| (name, reach(name))).collect();
    let mut found: Vec<(Vec<Name>, BTreeSet<Name>)> = Vec::new();
    for name in graph.keys().filter(|name| reached[name].contains(*name)) {
        if found.iter().any(|(_, files)| files.contains(name)) {
            continue;
        }
        let files: BTreeSet<Name> =
            reached[name].iter().filter(|other| reached[other].contains(name)).cloned().collect();
        let shortest = files.iter().filter_map(|file| way_back(graph, file)).min_by_key(Vec::len);
        found.push((shortest.expect("a file in a circle has a way back"), files));
    }
    found
}

fn text(names: &[Name], between: &str) -> String {
    names.iter().map(|name| name.join("::")).collect::<Vec<_>>().join(between)
}

#[test]
fn files_of_a_layer_form_no_circle() {
    let house = House::read();
    let mut wrong = Vec::new();
    for layer in STRAIGHT {
        for (way, files) in circles(&house.graph(layer)) {
            let files: Vec<Name> = files.into_iter().collect();
            wrong.push(format!("{} files in a circle: {}\n  {}", files.len(), text(&way, " → "), text(&files, ", ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rooms_of_script_stand_above_each_other() {
    let house = House::read();
    let place = |name: &Name| {
        let room = name.get(1).and_then(|room| ROOMS.iter().position(|known| known == room));
        room.unwrap_or_else(|| panic!("{}: no known room", name.join("::")))
    };
    let graph = house.graph("script");
    let below = graph.iter().filter(|(name, _)| name.len() > 1).flat_map(|(name, uses)| {
        uses.iter().filter(|other| place(other) > place(name)).map(|other| [name.join("::"), other.join("::")])
    });
    let wrong: Vec<String> = below.map(|[name, other]| format!("{name} uses {other}, which stands above it")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn uses_are_read_out_of_code() {
    let own = |path: &str| words(path);
    assert_eq!(
        leaves("crate::script::{a::{self, B}, c as d}"),
        [
            (own("crate::script::a"), "a".to_string()),
            (own("crate::script::a::B"), "B".to_string()),
            (own("crate::script::c"), "d".to_string()),
        ]
    );
    let module = |text: &str| read(text);
    let modules = [
        ("ui", "mod a;\nmod b;\npub use a::A;\n"),
        ("ui::a", "use super::b;\npub struct A;\nfn f() { b::g() }\n"),
        ("ui::b", "use crate::ui::A;\npub fn g() {}\n"),
        ("ui::c", "use crate::ui::{\n    b::g,\n};\nuse std::fs;\n"),
    ];
    let house = House { modules: modules.into_iter().map(|(name, code)| (words(name), module(code))).collect() };
    assert_eq!(house.uses(&own("ui::a")), BTreeSet::from([own("ui::b")]));
    assert_eq!(house.uses(&own("ui::b")), BTreeSet::from([own("ui::a")]), "what is handed on is where it comes from");
    assert_eq!(house.uses(&own("ui")), BTreeSet::new(), "handing on is no use");
    let found = circles(&house.graph("ui"));
    assert_eq!(found.len(), 1);
    assert_eq!(text(&found[0].0, " → "), "ui::a → ui::b → ui::a");
}
