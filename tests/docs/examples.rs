//! Every example of a native function runs.

use rhopo::run::Launch;
use rhopo::script::builder::HostBuilder;
use rhopo::script::host::Host;
use rhopo::script::lang::limits::Limits;
use rhopo::script::lang::loader::Loader;
use rhopo::script::lang::native::Declaration;
use rhopo::script::lang::render::render;

/// The engine needs its large stack here as well.
fn on_a_large_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(test).expect("a thread");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn host(out: Option<std::path::PathBuf>, loader: &std::rc::Rc<Loader>) -> Host {
    let limits = Limits { operations: Some(1_000_000), ..Limits::default() };
    HostBuilder::new().launch(Launch { out, ..Launch::default() }).loader(loader).limits(limits).build()
}

fn run(doc: &Declaration) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let loader = Loader::new(None);
    let source = loader.keep(format!("example of {}", doc.path()), doc.section.example.clone());
    let host = host(Some(folder.path().join("run")), &loader);
    host.run(&source).map_err(|e| render(&e, &loader, false))
}

#[test]
fn every_example_runs() {
    on_a_large_stack(|| {
        let host = host(None, &Loader::new(None));
        let failed: Vec<String> = host.docs().iter().filter_map(|doc| run(doc).err()).collect();
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    });
}
