//! Blocks of code on pages. Each begins with a word that says what it holds; what stands behind the word is the name of the
//! file that it is, or marks what a plain test does not run. Owns no running.

use std::fs;
use std::path::{Path, PathBuf};

/// Scripts, dialogues at the prompt, commands; output, data, equations, and what readers write in Python.
pub(super) const WORDS: [&str; 7] = ["rhai", "repl", "sh", "text", "json", "math", "python"];
/// What a block takes that a plain test has not.
pub(super) const MARKS: [&str; 4] = ["minutes", "network", "gpu", "python"];
const FENCE: &str = "```";

/// A block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// `docs/tasks.md:12`, its first line.
    pub(super) place: String,
    pub(super) word: String,
    pub(super) marks: Vec<String>,
    /// Of the reader's own.
    pub(super) file: Option<String>,
    pub(super) text: String,
}

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown files of a folder, and of those below it where `deep`, in order of name.
pub(super) fn pages(folder: &Path, deep: bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        match path.is_dir() {
            true if deep => found.extend(pages(&path, deep)),
            false if path.extension().is_some_and(|extension| extension == "md") => found.push(path),
            _ => {}
        }
    }
    found
}

/// All pages: those of the root, those below `docs`, and what the built-in model says of itself.
pub(super) fn all_pages() -> Vec<PathBuf> {
    [pages(root(), false), pages(&root().join("docs"), true), pages(&root().join("src/model/tiny"), false)].concat()
}

/// The blocks of a page, and what is wrong with its fences.
pub(super) fn blocks(page: &Path) -> (Vec<Block>, Vec<String>) {
    let name = page.strip_prefix(root()).unwrap_or(page).display().to_string();
    read(&name, &fs::read_to_string(page).expect("text"))
}

fn read(name: &str, text: &str) -> (Vec<Block>, Vec<String>) {
    let (mut blocks, mut wrong) = (Vec::<Block>::new(), Vec::new());
    // The block that is open, and how far its fence is indented.
    let mut open: Option<(Block, usize)> = None;
    for (i, line) in text.lines().enumerate() {
        let (bare, place) = (line.trim_start(), format!("{name}:{}", i + 1));
        match open.take() {
            None => {
                if let Some(info) = bare.strip_prefix(FENCE) {
                    let (block, complaint) = begun(place, info);
                    wrong.extend(complaint);
                    open = Some((block, line.len() - bare.len()));
                }
            }
            Some((block, _)) if bare.trim_end() == FENCE => blocks.push(block),
            Some((mut block, indent)) => {
                let outside = line.len() - bare.len();
                block.text += &format!("{}\n", &line[indent.min(outside)..]);
                open = Some((block, indent));
            }
        }
    }
    wrong.extend(open.map(|(block, _)| format!("{}: the block does not end", block.place)));
    (blocks, wrong)
}

/// What a fence begins, and what is wrong with what it says.
fn begun(place: String, info: &str) -> (Block, Option<String>) {
    let mut words = info.split_whitespace().map(str::to_string);
    let word = words.next().unwrap_or_default();
    let (files, marks): (Vec<String>, Vec<String>) = words.partition(|word| word.contains('.'));
    let complaint = match files.len() {
        _ if word.is_empty() => Some(format!("the fence says nothing, expected one of {}", WORDS.join(", "))),
        _ if !WORDS.contains(&word.as_str()) => Some(format!("`{word}` is none of {}", WORDS.join(", "))),
        0 | 1 => marks
            .iter()
            .find(|mark| !MARKS.contains(&mark.as_str()))
            .map(|mark| format!("`{mark}` marks nothing, expected one of {}, or the name of a file", MARKS.join(", "))),
        _ => Some("a block is one file".to_string()),
    };
    let complaint = complaint.map(|complaint| format!("{place}: {complaint}"));
    let block = Block { place, word, marks, file: files.into_iter().next(), text: String::new() };
    (block, complaint)
}

#[test]
fn every_fence_says_what_it_holds() {
    let pages = all_pages();
    assert!(pages.len() > 90, "{}", pages.len());
    let wrong: Vec<String> = pages.iter().flat_map(|page| blocks(page).1).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rows_of_data_are_json() {
    let json = all_pages().into_iter().flat_map(|page| blocks(&page).0).filter(|block| block.word == "json");
    let (mut looked_at, mut wrong) = (0, Vec::new());
    for block in json {
        let values = serde_json::Deserializer::from_str(&block.text).into_iter::<serde_json::Value>();
        wrong.extend(values.filter_map(Result::err).map(|e| format!("{}: {e}", block.place)));
        looked_at += 1;
    }
    assert!(looked_at > 0 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn fences_are_read() {
    let page =
        "# A\n\n```rhai mine.rhai\nlet x = `a\n  b`;\n```\n- b\n\n  ```sh minutes network\n  rhopo list\n  ```\n";
    let (found, wrong) = read("page.md", page);
    assert_eq!(wrong, [""; 0]);
    let block = |place: &str, word: &str, marks: &[&str], file: Option<&str>, text: &str| Block {
        place: place.into(),
        word: word.into(),
        marks: marks.iter().map(ToString::to_string).collect(),
        file: file.map(str::to_string),
        text: text.into(),
    };
    let mine = block("page.md:3", "rhai", &[], Some("mine.rhai"), "let x = `a\n  b`;\n");
    assert_eq!(found, [mine, block("page.md:9", "sh", &["minutes", "network"], None, "rhopo list\n")]);
    for (page, words) in [
        ("```\na\n```\n", "page.md:1: the fence says nothing"),
        ("\n```rust\na\n```\n", "page.md:2: `rust` is none of"),
        ("```sh slow\na\n```\n", "`slow` marks nothing"),
        ("```rhai a.rhai b.rhai\na\n```\n", "one file"),
        ("```sh\na\n", "does not end"),
    ] {
        let (_, wrong) = read("page.md", page);
        assert!(wrong.len() == 1 && wrong[0].contains(words), "{page}: {wrong:?}");
    }
}
