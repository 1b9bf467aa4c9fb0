//! Text of a script: it runs to its end within its limits, or says what is wrong.
#![no_main]

use rhopo::budget::memory;
use rhopo::run::Launch;
use rhopo::run::access::Access;
use rhopo::script::builder::HostBuilder;
use rhopo::script::lang::limits::Limits;
use rhopo::script::lang::loader::Loader;
use rhopo::script::lang::render::render;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// What one script may take; the memory is the process's, with what the sanitizer keeps.
const OPERATIONS: u64 = 20_000;
const SECONDS: u64 = 2;
const MEMORY: u64 = 2 << 30;
/// The engine needs a large stack, here as elsewhere.
const STACK: usize = 1 << 30;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let text = text.to_string();
    let script = thread::Builder::new().stack_size(STACK).spawn(move || run(text)).expect("a thread");
    script.join().expect("no panic");
});

fn run(text: String) {
    memory::set_limit(MEMORY);
    let folder = rhopo_fuzz::folder();
    // What is written lands where it does no harm.
    std::env::set_current_dir(folder.path()).expect("entered");
    let launch = Launch { access: Access::confined(None, &[]), out: Some("run".into()), ..Launch::default() };
    let (end, _watch) = watch(launch.engine.settings().stop.clone());
    let loader = Loader::new(None);
    let limits = Limits { operations: Some(OPERATIONS), time: Some(Duration::from_secs(SECONDS)) };
    let host = HostBuilder::new().launch(launch).loader(&loader).limits(limits).build();
    if let Err(e) = host.run(&loader.keep("fuzz".into(), text)) {
        assert!(!e.message.contains("rhopo itself failed"), "{}", e.message);
        assert!(!render(&e, &loader, true).trim().is_empty());
    }
    drop(end);
}

/// Asks native work to stop when the time is over, unless the first value goes before.
fn watch(stop: Arc<AtomicBool>) -> (mpsc::Sender<()>, thread::JoinHandle<()>) {
    let (end, ended) = mpsc::channel();
    let watch = thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(SECONDS)) == Err(mpsc::RecvTimeoutError::Timeout) {
            stop.store(true, Ordering::Relaxed);
        }
    });
    (end, watch)
}
