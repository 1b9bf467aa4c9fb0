//! `rhopo test`: runs the `fn test_…()` of Rhai files and says which hold.

use crate::error::Error;
use crate::run::Launch;
use crate::run::access::Access;
use crate::script::builder::HostBuilder;
use crate::script::host::Host;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::loader::Loader;
use crate::script::tools::testing;
use crate::ui::limits::LimitArgs;
use crate::ui::out;
use crate::ui::progress::Progress;
use crate::ui::terminal::{INTERRUPTED, report};
use crate::ui::thread::on_engine_thread;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Options of `rhopo test`.
#[derive(Debug, Clone, clap::Args)]
pub struct TestArgs {
    /// Files, folders to search for them, or names of scripts
    #[arg(value_name = "PATH|NAME", default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// Run only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Folder of modules that replace built-in ones of std/ with the same name
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub stdlib: Option<PathBuf>,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Runs the tests; the exit code is 1 where one fails or there is none.
pub fn test(args: TestArgs) -> ExitCode {
    on_engine_thread(move || {
        let loader = Loader::new(args.stdlib.clone());
        match Runner::new(&loader, &args).and_then(|runner| runner.all(&args)) {
            Ok(code) => code,
            Err(e) => {
                report(&e, &loader);
                1
            }
        }
    })
}

struct Runner {
    loader: Rc<Loader>,
    launch: Launch,
    /// The time for all of them is over.
    over: Arc<AtomicBool>,
    limits: LimitArgs,
}

impl Runner {
    fn new(loader: &Rc<Loader>, args: &TestArgs) -> Result<Self, Diagnostic> {
        let named = args.paths.iter().chain(&args.stdlib).chain(&args.limits.allow).cloned();
        let access = Access::confined(None, &named.collect::<Vec<_>>());
        loader.confine(&access);
        let mut launch = args.limits.launch(access, Launch::default());
        Progress::attach(&mut launch, false);
        launch.interrupt.install(|_| {})?;
        let over = args.limits.watch(&launch.stop());
        Ok(Self { loader: loader.clone(), launch, over, limits: args.limits.clone() })
    }

    /// A host of its own for each test: all end by the same Ctrl-C.
    fn host(&self) -> Host {
        HostBuilder::new().launch(self.launch.clone()).loader(&self.loader).limits(self.limits.enforce()).build()
    }

    fn all(&self, args: &TestArgs) -> Result<u8, Diagnostic> {
        let begun = Instant::now();
        let (mut passed, mut failed) = (0, Vec::new());
        let mut labels = Vec::new();
        for path in &args.paths {
            let (found, unread) = self.labels(path);
            labels.extend(found);
            for e in unread {
                failed.push(format!("  {}", e.message));
                report(&e, &self.loader);
            }
        }
        for label in labels {
            let label = label.strip_prefix("./").unwrap_or(&label);
            let wanted = |name: &String| args.only.as_ref().is_none_or(|only| name.contains(only));
            let found = self.loader.find(label).map_err(Diagnostic::from);
            let tests: Vec<String> = match found.and_then(|source| testing::tests(&self.host(), &source)) {
                Ok(tests) => tests.into_iter().filter(wanted).collect(),
                Err(e) => {
                    out::line(&format!("{label}\n  FAIL  its tests cannot be run"));
                    failed.push(format!("  {label}"));
                    report(&e, &self.loader);
                    continue;
                }
            };
            if !tests.is_empty() {
                out::line(label);
            }
            for test in tests {
                match self.one(label, &test) {
                    Ok(()) => passed += 1,
                    Err(e) if e.interrupted && self.over.load(Ordering::Relaxed) => {
                        return Err(self.limits.time_is_over().into());
                    }
                    Err(e) if e.interrupted => return Ok(INTERRUPTED),
                    Err(e) => {
                        out::note(&format!("{label}: {test}"));
                        failed.push(format!("  {label}: {test}"));
                        report(&e, &self.loader);
                    }
                }
            }
        }
        if passed + failed.len() == 0 {
            let e = Error::value("no tests found");
            return Err(e
                .hint("a test is a function without arguments in a .rhai file, and its name starts with test_")
                .into());
        }
        if !failed.is_empty() {
            out::line(&format!("failed:\n{}", failed.join("\n")));
        }
        out::line(&format!("{passed} passed, {} failed in {:.1} s", failed.len(), begun.elapsed().as_secs_f64()));
        Ok(u8::from(!failed.is_empty()))
    }

    /// The files that a path is or holds; else the script that is known by this name. And what could not be read.
    fn labels(&self, path: &Path) -> (Vec<String>, Vec<Diagnostic>) {
        let name = path.display().to_string();
        match testing::sources(&self.launch.access.at(path)) {
            Ok((files, unread)) => {
                let labels = files.iter().map(|file| file.display().to_string()).collect();
                (labels, unread.into_iter().map(Diagnostic::from).collect())
            }
            Err(e) => match self.loader.find(&name) {
                Ok(source) => (vec![source.label], Vec::new()),
                Err(_) => (Vec::new(), vec![e.into()]),
            },
        }
    }

    fn one(&self, label: &str, test: &str) -> Result<(), Diagnostic> {
        let begun = Instant::now();
        let outcome = testing::run(&self.host(), label, test);
        let said = if outcome.is_ok() { "ok  " } else { "FAIL" };
        out::line(&format!("  {said}  {test}  {:.2} s", begun.elapsed().as_secs_f64()));
        outcome
    }
}
