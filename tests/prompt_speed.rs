//! What is looked up while somebody types is there at once: every page of the reference, with its example run, and
//! completion at every place of a script.

mod common;

use common::host;
use rhopo::script::lang::loader::Loader;
use rhopo::script::lang::reference;
use rhopo::script::live::console::complete::{self, Known};
use rhopo::script::tools::pages;
use std::time::{Duration, Instant};

const AT_ONCE: Duration = Duration::from_millis(50);

/// The shortest of five: what else the machine does is not ours.
fn time(mut work: impl FnMut()) -> Duration {
    let once = |_| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    (0..5).map(once).min().expect("five times")
}

fn known() -> Known {
    let host = host();
    Known { entries: reference::entries(host.docs()), ..Known::default() }
}

#[test]
fn every_page_is_there_at_once() {
    let mut times: Vec<(Duration, String)> = Vec::new();
    for entry in known().entries {
        let took = time(|| drop(pages::page(&entry).expect("the example runs")));
        times.push((took, entry.path));
    }
    times.sort();
    let slow: Vec<_> = times.iter().filter(|(took, _)| *took > AT_ONCE).collect();
    println!("median {:?}, slowest {:?}", times[times.len() / 2], &times[times.len() - 5..]);
    // A debug build is another program.
    if !cfg!(debug_assertions) {
        assert!(slow.is_empty(), "{slow:?}");
    }
}

#[test]
fn completion_is_there_at_once() {
    let known = known();
    let text = Loader::new(None).find("grpo").expect("shipped").text;
    let mut slowest = Duration::ZERO;
    for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)).step_by(7) {
        let took = time(|| {
            complete::candidates(&text, at, &known);
            complete::signature(&text[..at], &known);
        });
        slowest = slowest.max(took);
    }
    println!("slowest {slowest:?}");
    if !cfg!(debug_assertions) {
        assert!(slowest < AT_ONCE, "{slowest:?}");
    }
}
