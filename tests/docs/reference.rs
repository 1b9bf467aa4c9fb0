//! The reference is what the code says: its pages are those that `rhopo doc --write docs/reference` would write, and
//! every function on them has a summary, parameters and an example.

use rhopo::script::builder::HostBuilder;
use rhopo::script::lang::loader::Loader;
use rhopo::script::lang::native::{Param, Presence};
use rhopo::script::lang::reference::{self, Entry};
use rhopo::script::lang::render::render;
use rhopo::script::tools::pages;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn entries() -> Vec<Entry> {
    reference::entries(HostBuilder::new().build().docs())
}

/// The engine needs its large stack here as well.
fn on_a_large_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(test).expect("a thread");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn the_pages_are_up_to_date_and_their_examples_run() {
    on_a_large_stack(|| {
        let made = pages::pages(&entries()).unwrap_or_else(|e| panic!("{}", render(&e, &Loader::new(None), false)));
        let made: BTreeMap<String, String> = made.into_iter().collect();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
        let read = |path: std::path::PathBuf| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("a page"))
        };
        let kept: BTreeMap<String, String> =
            fs::read_dir(folder).expect("docs/reference").map(|entry| read(entry.expect("an entry").path())).collect();
        let names = |pages: &BTreeMap<String, String>| pages.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&kept), names(&made), "run: rhopo doc --write docs/reference");
        for (name, text) in &made {
            assert!(kept[name] == *text, "docs/reference/{name} is out of date: rhopo doc --write docs/reference");
        }
    });
}

fn untold(entry: &Entry, param: &Param) -> bool {
    match param.presence {
        Presence::Options => param.options.iter().any(|opt| opt.name.is_empty() || opt.about.is_empty()),
        _ => entry.section.param(&param.name).is_none_or(|(_, about)| about.is_empty()),
    }
}

#[test]
fn every_function_says_what_it_does_takes_and_shows() {
    let entries = entries();
    assert!(entries.len() > 150, "{}", entries.len());
    let lacking = |entry: &&Entry| {
        let library = entry.topic.starts_with("std/");
        // Of the library's functions the line that imports the module is no example yet.
        let shown = entry.section.example.lines().any(|line| !line.trim().is_empty() && !line.starts_with("import "));
        entry.topic.is_empty()
            || entry.section.summary.is_empty()
            || !shown
            || (!library && entry.forms.iter().flat_map(|form| &form.params).any(|param| untold(entry, param)))
    };
    let lacking: Vec<&str> = entries.iter().filter(lacking).map(|entry| entry.path.as_str()).collect();
    assert!(lacking.is_empty(), "without topic, summary, parameters or example: {}", lacking.join(", "));
}
