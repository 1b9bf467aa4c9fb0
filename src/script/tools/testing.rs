//! `fn test_…()` of Rhai files: where they are, and running one. Each runs in a session of its own, so that tests see
//! the same random numbers in whatever order they run.

use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::script::host::Host;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::loader::Source;

const PREFIX: &str = "test_";
/// Folders that hold no sources: what runs leave, and what Cargo builds.
const PASSED_OVER: [&str; 2] = ["runs", "target"];

/// What `rhopo definitions` writes for editors: declarations without bodies.
const DEFINITIONS: &str = ".d.rhai";

/// The Rhai files that `path` is or holds, sorted, and why folders in it could not be read. Hidden folders, those of runs, and
/// definition files are passed over.
///
/// # Errors
/// No such path, or one that cannot be read.
pub fn sources(path: &Location) -> Result<(Vec<Location>, Vec<Error>)> {
    if files::is_file(path) {
        return Ok((vec![path.clone()], Vec::new()));
    }
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    collect(files::entries(path)?, &mut found, &mut unread);
    found.sort_by(|a, b| a.cmp(b));
    Ok((found, unread))
}

fn collect(entries: Vec<Location>, found: &mut Vec<Location>, unread: &mut Vec<Error>) {
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if files::is_folder(&path) && !files::is_link(&path) && !name.starts_with('.') && !PASSED_OVER.contains(&&*name)
        {
            match files::entries(&path) {
                Ok(entries) => collect(entries, found, unread),
                Err(e) => unread.push(e),
            }
        } else if files::is_file(&path) && name.ends_with(".rhai") && !name.ends_with(DEFINITIONS) {
            found.push(path);
        }
    }
}

/// The names of a file's tests, in the order in which they stand there.
///
/// # Errors
/// A text that does not compile, or a test that takes arguments.
pub fn tests(host: &Host, source: &Source) -> std::result::Result<Vec<String>, Diagnostic> {
    // Most files have none, and need not be whole: a script in the making beside them is nobody's failure.
    if !source.text.contains(&format!("fn {PREFIX}")) {
        return Ok(Vec::new());
    }
    let mut found: Vec<(usize, String)> = Vec::new();
    for (name, arguments) in host.functions(source)? {
        if !name.starts_with(PREFIX) {
            continue;
        }
        if arguments > 0 {
            let what = format!("{}: `{name}` takes arguments, and a test takes none", source.label);
            return Err(Error::value(what).hint(format!("call it something else than {PREFIX}…")).into());
        }
        found.push((source.text.find(&format!("fn {name}(")).unwrap_or(usize::MAX), name));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

/// Runs one test of a file in a host of its own. It sees its file's functions, imports and constants; the body is not
/// run.
///
/// # Errors
/// What the test ends with.
pub fn run(host: &Host, file: &str, test: &str) -> std::result::Result<(), Diagnostic> {
    let text = format!("script({}).call({}, [])", quoted(file), quoted(test));
    // No text is kept under this label, so that errors begin with a frame of the file.
    host.run(&Source { label: "rhopo test".to_string(), text })
}

/// A Rhai string: JSON's escapes are among Rhai's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::{run, sources, tests as names};
    use crate::script::builder::HostBuilder;
    use std::fs;
    use std::path::Path;

    #[test]
    fn files_are_found_below_a_folder_but_not_in_runs() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["b.rhai", "sub/a.rhai", "runs/x/script.rhai", ".hidden/c.rhai", "notes.txt", "rhopo.d.rhai"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, "").expect("written");
        }
        let (found, unread) = sources(&crate::files::anywhere(dir.path())).expect("found");
        assert!(unread.is_empty());
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(dir.path()).expect("below")).collect();
        assert_eq!(names, [Path::new("b.rhai"), Path::new("sub/a.rhai")]);
        sources(&crate::files::anywhere(dir.path()).join("none")).expect_err("there is none");
    }

    #[test]
    fn tests_are_listed_in_order_and_run_apart() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("own.rhai");
        let text = "import \"std/schedule\" as schedule;\nconst HALF = 0.5;\nthrow \"the body runs\";\n\
                    fn test_b() { assert_eq(schedule::linear(1, 2), 1.0); assert_eq(global::HALF, 0.5); }\n\
                    fn helper() { 1 }\nfn test_a() { assert_eq(helper(), 2); }\n";
        fs::write(&path, text).expect("written");
        let host = || HostBuilder::new().build();
        let label = path.display().to_string();
        let source = host().loader().find(&label).expect("found");
        assert_eq!(names(&host(), &source).expect("compiles"), ["test_b", "test_a"]);
        run(&host(), &label, "test_b").expect("passes");
        let e = run(&host(), &label, "test_a").expect_err("fails");
        assert_eq!((e.message.as_str(), e.frames[0].line), ("expected 2, found 1", 6));
    }
}
