//! What the README and the pages show: every function, number of arguments and option in a block of Rhai is one that
//! there is. Blocks are fragments, so their variables may be the reader's own.

use rhopo::script::builder::HostBuilder;
use rhopo::script::lang::loader::Source;
use rhopo::script::tools::check::check;
use std::fs;
use std::path::{Path, PathBuf};

/// The Markdown files of a folder and those below it.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => found.extend(pages(&path)),
            false if path.extension().is_some_and(|extension| extension == "md") => found.push(path),
            false => {}
        }
    }
    found
}

fn blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split("```rhai\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0))
}

#[test]
fn what_the_pages_call_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut looked_at, mut wrong) = (0, Vec::new());
    for path in std::iter::once(root.join("README.md")).chain(pages(&root.join("docs"))) {
        let page = fs::read_to_string(&path).expect("text");
        for block in blocks(&page) {
            let source = Source { label: "block.rhai".into(), text: block.into() };
            let host = HostBuilder::new().strict().build();
            let called = ["has no option", " argument", "there is no function"];
            let found = check(&host, &source).into_iter().map(|finding| finding.message);
            let found = found.filter(|message| called.iter().any(|words| message.contains(words)));
            wrong.extend(found.map(|message| format!("{}: {message}\n{block}", path.display())));
            looked_at += 1;
        }
    }
    assert!(looked_at > 150, "{looked_at}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
