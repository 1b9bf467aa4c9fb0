//! `rhopo compare`: several objectives on one frozen batch. The comparison itself is a script, `compare.rhai`.

use crate::run::Launch;
use crate::run::access::Access;
use crate::script::builder::HostBuilder;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::loader::Loader;
use crate::ui::limits::own_folder;
use crate::ui::progress::Progress;
use crate::ui::terminal::report;
use crate::ui::thread::on_engine_thread;
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

const COMPARISON: &str = include_str!("compare.rhai");

/// Options of `rhopo compare`.
#[derive(Debug, Clone, clap::Args)]
pub struct CompareArgs {
    /// Files, scripts of ./scripts, or ones that rhopo brings along
    #[arg(value_name = "NAME|FILE", required = true)]
    pub scripts: Vec<String>,
    /// The batch, as b.save writes it [default: pairs sampled from the model]
    #[arg(long, value_name = "FILE")]
    pub batch: Option<PathBuf>,
    /// Whose gradients are compared: a folder, a built-in model, or a model on the hub
    #[arg(long, default_value = "tiny")]
    pub model: String,
    /// The picture of every cell's gradient
    #[arg(long, value_name = "FILE", default_value = "compare.svg")]
    pub svg: PathBuf,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Runs the comparison.
pub fn compare(args: CompareArgs) -> ExitCode {
    on_engine_thread(move || {
        let loader = Loader::new(None);
        run(&args, &loader).inspect_err(|e| report(e, &loader)).map_or(1, |()| 0)
    })
}

fn run(args: &CompareArgs, loader: &Rc<Loader>) -> Result<(), Diagnostic> {
    // An unknown script is a mistake of the command line and not of the comparison.
    args.scripts.iter().try_for_each(|script| loader.find(script).map(drop))?;
    let text = |path: &PathBuf| path.display().to_string();
    let mut sets = vec![
        ("scripts".to_string(), Value::from(args.scripts.clone()).to_string()),
        ("model".to_string(), args.model.clone()),
        ("svg".to_string(), text(&args.svg)),
    ];
    sets.extend(args.batch.as_ref().map(|path| ("batch".to_string(), text(path))));
    let named: Vec<PathBuf> = args.batch.iter().cloned().chain([PathBuf::from(&args.model)]).collect();
    let folders = args.scripts.iter().filter_map(|script| own_folder(script));
    let access = Access::confined(args.svg.parent(), &named.into_iter().chain(folders).collect::<Vec<_>>());
    let mut launch = Launch { access, seed: Some(args.seed), sets, ..Launch::default() };
    Progress::attach(&mut launch, false);
    launch.interrupt.install(|_| {})?;
    let host = HostBuilder::new().launch(launch).loader(loader).build();
    host.run(&loader.keep("compare.rhai".into(), COMPARISON.into()))
}
