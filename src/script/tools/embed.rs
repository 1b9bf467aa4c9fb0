//! rhopo inside another program: a script goes in, a value or an error comes out, both as plain data.
//! Owns no engine: every call builds a host as `builder.rs` does, on a thread with room for deep recursion.

use crate::error::{self, Error};
use crate::run::access::Access;
use crate::run::report::{Reporter, Silent};
use crate::run::thread::on_large_stack;
use crate::run::{Launch, device};
use crate::script::builder::HostBuilder;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::loader::{Loader, Source};
use crate::script::lang::render::render;
pub use crate::script::tools::embedded_value::Value;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

type Print = Arc<dyn Fn(&str) + Send + Sync>;

/// Runs scripts for a Rust program. Each call of [`run`](Self::run) is a program run of its own, as `rhopo run` is one:
/// nothing of one is left for the next but what it wrote.
///
/// ```
/// use rhopo::Runtime;
///
/// let runtime = Runtime::new().set("clip", 0.1);
/// let gain = runtime.run("let cfg = args(#{ clip: 0.2 }); clip(1.7, 1 - cfg.clip, 1 + cfg.clip)")?;
/// assert_eq!(gain.number(), Some(1.1));
/// # Ok::<(), rhopo::ScriptError>(())
/// ```
#[derive(Clone, Default)]
pub struct Runtime {
    device: Option<String>,
    seed: Option<u64>,
    sets: Vec<(String, String)>,
    out: Option<PathBuf>,
    allowed: Vec<PathBuf>,
    print: Option<Print>,
}

impl Runtime {
    /// On the CPU, silent, with the hyper-parameters that scripts give themselves. Scripts read and write below the current
    /// folder only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where models are: `cpu`, `cuda`, `cuda:1`, or `auto`, which is a GPU where there is one. As `--device`.
    #[must_use]
    pub fn device(self, name: impl Into<String>) -> Self {
        Self { device: Some(name.into()), ..self }
    }

    /// The seed of all random numbers. As `--seed`.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Changes a hyper-parameter that scripts declare with `args`. As `--set NAME=VALUE`.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        self.sets.push((name.into(), value.to_string()));
        self
    }

    /// The folder that `open_run` makes, in place of `runs/NAME-TIME`. As `--out`.
    #[must_use]
    pub fn out(self, folder: impl Into<PathBuf>) -> Self {
        Self { out: Some(folder.into()), ..self }
    }

    /// Lets scripts read a file, or what lies below a folder. As `--allow`.
    #[must_use]
    pub fn allow(mut self, path: impl Into<PathBuf>) -> Self {
        self.allowed.push(path.into());
        self
    }

    /// Calls `print` with each line that a script prints; otherwise they are dropped.
    #[must_use]
    pub fn on_print(self, print: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { print: Some(Arc::new(print)), ..self }
    }

    /// Runs a script and returns the value of its last expression.
    ///
    /// # Errors
    /// What goes wrong in the script, with the place in it.
    pub fn run(&self, text: &str) -> Result<Value, ScriptError> {
        self.start(|loader| Ok(loader.keep("script.rhai".into(), text.into())))
    }

    /// Runs a script by name (`grpo`) or path, as `rhopo run` finds it.
    ///
    /// # Errors
    /// There is no such script; what goes wrong in it.
    pub fn run_script(&self, name: &str) -> Result<Value, ScriptError> {
        self.start(|loader| loader.find(name))
    }

    fn start(&self, find: impl FnOnce(&Loader) -> error::Result<Source> + Send) -> Result<Value, ScriptError> {
        // Nothing of an engine can leave its thread, so values and errors become plain data there.
        let done = on_large_stack(|| {
            let loader = Loader::new(None);
            // The program names its script; what that names is confined.
            loader.confine(&Access::everything());
            let value = find(&loader).map_err(Diagnostic::from).and_then(|source| self.evaluate(&source, &loader));
            value.map_err(|e| ScriptError::new(e, &loader))
        });
        let failed = |e: Error| ScriptError::new(e.into(), &Loader::default());
        done.map_err(failed)?.unwrap_or_else(|panic| Err(failed(Error::panicked(panic.as_ref()))))
    }

    fn evaluate(&self, source: &Source, loader: &Rc<Loader>) -> Result<Value, Diagnostic> {
        let host = HostBuilder::new().launch(self.launch()?).loader(loader).build();
        Ok(Value::of(&host.run_for_value(source)?)?)
    }

    fn launch(&self) -> error::Result<Launch> {
        let place = device::parse(self.device.as_deref().unwrap_or("cpu"))?;
        let reporter: Rc<dyn Reporter> = match &self.print {
            Some(print) => Rc::new(Printing(print.clone())),
            None => Rc::new(Silent),
        };
        Ok(Launch {
            seed: self.seed,
            sets: self.sets.clone(),
            said: self.sets.clone(),
            out: self.out.clone(),
            access: Access::confined(self.out.as_deref(), &self.allowed),
            threads: rayon::current_num_threads(),
            reporter,
            ..Launch::new(place.clone(), crate::engine::Settings::at(&place))
        })
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, seed, sets, out, allowed, print: _ } = self;
        let mut shown = f.debug_struct("Runtime");
        shown.field("device", device).field("seed", seed).field("sets", sets).field("out", out);
        shown.field("allowed", allowed).finish_non_exhaustive()
    }
}

/// Hands on what scripts print, and nothing else.
struct Printing(Print);

impl Reporter for Printing {
    fn note(&self, _: &str) {}
    fn print(&self, text: &str) {
        (self.0)(text);
    }
}

/// Why a script failed. Shown, it is what `rhopo run` prints: the message, the lines of the script, what to do about it.
#[derive(Clone)]
pub struct ScriptError {
    cause: Diagnostic,
    text: String,
}

impl ScriptError {
    fn new(cause: Diagnostic, loader: &Loader) -> Self {
        let text = render(&cause, loader, false).trim_end().to_string();
        Self { cause, text }
    }

    /// What was found, against what was expected.
    pub fn message(&self) -> &str {
        &self.cause.message
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.cause.hint.as_deref()
    }

    /// The line of the script, from 1, if the error has a place in one.
    pub fn line(&self) -> Option<usize> {
        self.cause.frames.first().map(|frame| frame.line)
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// As it is shown, since that is what a `main` that returns it prints.
impl fmt::Debug for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ScriptError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn values_leave_the_script_as_plain_data() {
        let value = Runtime::new().run("#{ x: tensor([[1, 2], [3, 4]]), n: 3, ok: true, list: [0.5, \"a\", 'b', ()] }");
        let value = value.expect("a map");
        let cells = vec![1.0, 2.0, 3.0, 4.0];
        assert_eq!(value.get("x"), Some(&Value::Tensor { shape: vec![2, 2], cells }));
        assert_eq!((value.get("n"), value.get("ok")), (Some(&Value::Int(3)), Some(&Value::Bool(true))));
        let list = [Value::Float(0.5), Value::Text("a".into()), Value::Text("b".into()), Value::Unit];
        assert_eq!(value.get("list"), Some(&Value::Array(list.into())));
        assert_eq!((value.get("none"), value.number()), (None, None));
        assert_eq!(Runtime::new().run("|x| x").expect("a function"), Value::Other("a function".into()));
    }

    #[test]
    fn one_run_leaves_nothing_for_the_next() {
        let runtime = Runtime::new().seed(4);
        let draw = || runtime.run("rand([3, 1])").expect("a tensor");
        assert_eq!(draw(), draw());
        assert!(runtime.run("let x = 1;").expect("no value") == Value::Unit);
        let e = runtime.run("x").expect_err("another script's");
        assert_eq!((e.message(), e.line()), ("there is no variable `x`", Some(1)));
    }

    #[test]
    fn what_is_printed_goes_to_the_program() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let lines = said.clone();
        let runtime = Runtime::new().on_print(move |line| lines.lock().expect("one script").push(line.to_string()));
        runtime.run("print(1 + 1); print(\"a\");").expect("it prints");
        assert_eq!(*said.lock().expect("it has ended"), ["2", "a"]);
    }

    #[test]
    fn errors_say_where_and_what_to_do() {
        let e = Runtime::new().run("let x = 1.0;\nsigmiod(x)").expect_err("no such function");
        assert_eq!((e.line(), e.hint()), (Some(2), Some("did you mean `sigmoid`?")));
        assert!(format!("{e:?}").contains("script.rhai:2:1") && e.to_string() == format!("{e:?}"), "{e}");
        let e = Runtime::new().set("lr", 1).run("1").expect_err("nothing is declared");
        assert!(e.message().starts_with("--set lr:"), "{e}");
        assert!(Runtime::new().device("cudo").run("1").expect_err("none").message().contains("cudo"));
        assert!(Runtime::new().run_script("gpro").expect_err("none").hint() == Some("did you mean `grpo`?"));
    }

    #[test]
    fn scripts_are_confined_until_a_path_is_allowed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, "{\"prompt\": \"a\"}\n").expect("written");
        let text = format!("load_data({path:?}).rows(1).len()");
        let e = Runtime::new().run(&text).expect_err("outside");
        assert!(e.message().contains("may not read"), "{e}");
        assert_eq!(Runtime::new().allow(dir.path()).run(&text).expect("allowed").number(), Some(1.0));
    }

    #[test]
    fn endless_recursion_ends_in_an_error() {
        let e = Runtime::new().run("fn f(x) { f(x + 1) + 1 } f(0)").expect_err("too deep");
        assert!(e.message().contains("too deeply"), "{e}");
    }
}
