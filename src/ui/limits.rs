//! Options that `rhopo run` and `rhopo repl` share: with what scripts run, what they may use and reach.

use crate::budget::memory;
use crate::engine::Settings;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::model::SaveDtype;
use crate::run::access::{Access, AllowedProgram};
use crate::run::{Launch, device};
use crate::script::lang::limits::Limits;
use crate::ui::out;
use crate::ui::watchdog::{self, Bounds};
use clap::builder::RangedU64ValueParser;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Hyper-parameters that are paths in every script that has them.
const PATHS: [&str; 6] = ["data", "model", "task", "reward", "judge", "pretrain"];

/// With what scripts run.
#[derive(Debug, Clone, clap::Args)]
pub struct EngineArgs {
    /// Number of threads [default: one per core]
    #[arg(long, value_parser = thread_count)]
    pub threads: Option<u16>,
    /// Device for models: auto (a GPU if there is one), cpu, cuda, cuda:N
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Number format on a GPU, bf16 or f32; a CPU always uses f32 [default: bf16]
    #[arg(long)]
    pub dtype: Option<String>,
    /// Tokens in a micro-batch while training; fewer take less memory [default: 4096, or 16384 on a GPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub token_budget: Option<u32>,
    /// Folder of modules that replace built-in ones of std/ with the same name
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub stdlib: Option<PathBuf>,
}

impl EngineArgs {
    /// What a session begins with.
    ///
    /// # Errors
    /// A folder, a device or a number of threads that there is not.
    pub fn launch(&self) -> Result<Launch> {
        if let Some(folder) = self.stdlib.as_ref().filter(|folder| !files::is_folder(&files::anywhere(folder))) {
            return Err(Error::file(format!("--stdlib: there is no folder {}", folder.display())));
        }
        let place = device::parse(&self.device)?;
        if let ("auto", Some(gpu)) = (self.device.as_str(), place.gpu()) {
            out::note(&format!("using {place}, {} (--device cpu uses the CPU)", gpu.facts().name));
        }
        let mut settings = Settings::at(&place);
        if let Some(tokens) = self.token_budget {
            settings.token_budget = tokens as usize;
        }
        let dtype = self.dtype.as_deref().map(SaveDtype::parse).transpose()?;
        let compute = dtype.map(|dtype| dtype.compute(&place)).transpose()?;
        let launch = Launch::new(place, settings);
        Ok(Launch { threads: threads(self.threads)?, compute: compute.unwrap_or(launch.compute), ..launch })
    }
}

/// Where scripts end.
#[derive(Debug, Clone, clap::Args)]
pub struct LimitArgs {
    /// Let the script read this file or folder too, not only the current folder, its own and the run's
    #[arg(long, value_name = "PATH")]
    pub allow: Vec<PathBuf>,
    /// Let the script use a program for its rewards, as --set reward=exec:NAME; CMD is split into words as in a shell, but
    /// no shell runs it
    #[arg(long, value_name = "NAME=CMD", value_parser = program)]
    pub allow_exec: Vec<AllowedProgram>,
    /// Let the kernel refuse whatever lies outside too, where it can (Landlock); --max-ops implies it
    #[arg(long)]
    pub confine: bool,
    /// Seconds that such a program may take for each answer
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub exec_seconds: u32,
    /// Stop the script with an error after this many operations [default: no limit; of check: 100 million]
    #[arg(long, value_name = "N")]
    pub max_ops: Option<u64>,
    /// Stop the script with an error after this many seconds [default: no limit; of check: 10]
    #[arg(long, value_name = "S")]
    pub max_seconds: Option<u64>,
    /// Most memory that the script may hold, in GiB [default: what the machine has]
    #[arg(long, value_name = "GIB", value_parser = gibibytes)]
    pub max_memory: Option<u64>,
}

impl LimitArgs {
    /// What scripts may reach: what the command line names as a path is allowed. Hyper-parameters that a script declares as
    /// paths are allowed when it does.
    pub fn access(
        &self,
        scripts: &[String],
        out: Option<&Path>,
        sets: &[(String, String)],
        stdlib: Option<&Path>,
    ) -> Access {
        let paths = || sets.iter().filter(|(name, _)| PATHS.contains(&name.as_str()));
        let named = paths().map(|(_, value)| Path::new(value)).filter(|path| files::exists(&files::anywhere(path)));
        let tasks = paths().filter_map(|(_, value)| rhai_file(value));
        let folders = scripts.iter().filter_map(|script| own_folder(script)).chain(tasks.filter_map(own_folder));
        let allowed = self.allow.iter().map(PathBuf::as_path).chain(named).chain(stdlib).map(Path::to_path_buf);
        Access::confined(out, &allowed.chain(folders).collect::<Vec<_>>())
    }

    /// What a session begins with, as far as it is said here.
    pub fn launch(&self, access: Access, launch: Launch) -> Launch {
        let patience = Duration::from_secs(self.exec_seconds.into());
        Launch { access, programs: self.allow_exec.clone(), patience, ..launch }
    }

    /// These, and where they say nothing so much at most.
    pub fn or_at_most(self, operations: u64, seconds: u64) -> Self {
        Self { max_ops: self.max_ops.or(Some(operations)), max_seconds: self.max_seconds.or(Some(seconds)), ..self }
    }

    /// These, and what `recorded` has where they say nothing: limits only, as they grant nothing.
    pub fn over(self, recorded: &Self) -> Self {
        Self {
            max_ops: self.max_ops.or(recorded.max_ops),
            max_seconds: self.max_seconds.or(recorded.max_seconds),
            max_memory: self.max_memory.or(recorded.max_memory),
            allow: recorded.allow.clone(),
            allow_exec: recorded.allow_exec.clone(),
            ..self
        }
    }

    /// Of a run that goes on: what it was started with and is not allowed again, as its folder may be anybody's.
    pub fn tell_withheld(&self, granted: &Self) {
        let paths = self.allow.iter().filter(|path| !granted.allow.contains(path));
        let paths = paths.map(|path| format!("--allow {}", path.display()));
        let programs = self.allow_exec.iter().filter(|program| !granted.allow_exec.contains(program));
        let programs =
            programs.map(|program| format!("--allow-exec {}={}", program.name, shell_words::join(&program.words)));
        for withheld in paths.chain(programs) {
            out::note(&format!("the run was started with {withheld}: say it again if it is still meant"));
        }
    }

    /// Puts the kernel's wall up as well, where it is asked for: before any thread is started. `read` and `write` are what
    /// the command needs beside what is said here.
    ///
    /// # Errors
    /// A kernel that has it and refuses.
    pub fn put_wall_up(&self, read: Vec<PathBuf>, write: Vec<PathBuf>) -> Result<()> {
        if !self.confine && self.max_ops.is_none() {
            return Ok(());
        }
        let named = read.into_iter().chain(self.allow.iter().cloned());
        let mut read: Vec<PathBuf> = named.filter(|path| !path.as_os_str().is_empty()).collect();
        if !self.allow_exec.is_empty() {
            // A program of the person's own lies, and reads, anywhere; the wall is its wall as well.
            read.push("/".into());
        }
        let caches = [files::hub::cache_folder(), files::cache_folder()].into_iter().flatten();
        let temporary = (!self.allow_exec.is_empty()).then(std::env::temp_dir);
        let write: Vec<PathBuf> =
            write.into_iter().chain(caches).chain(temporary).chain([PathBuf::from(".")]).collect();
        // A folder that is not there cannot be allowed. One that cannot be made is told where it is needed.
        write.iter().for_each(|path| drop(files::create_folder(&files::anywhere(path))));
        if !files::confine(&read, &write)? {
            out::note("this kernel has no Landlock: what scripts reach is held by rhopo alone");
        }
        Ok(())
    }

    /// Sets `stop` when the time is over, so that what runs natively ends as well; the answer becomes true then. What does
    /// not end by itself is ended with the process.
    pub fn watch(&self, stop: &Arc<AtomicBool>) -> Arc<AtomicBool> {
        watchdog::watch(Bounds { time: self.max_seconds.map(Duration::from_secs), memory: self.max_memory }, stop)
    }

    /// What is said when it is.
    pub fn time_is_over(&self) -> Error {
        let seconds = self.max_seconds.unwrap_or_default();
        Error::value(format!("the script took more than {seconds} s")).hint("the limit is --max-seconds")
    }

    /// Sets what holds for the whole process and returns what holds for each script.
    pub fn enforce(&self) -> Limits {
        if let Some(bytes) = self.max_memory {
            memory::set_limit(bytes);
        }
        Limits { operations: self.max_ops, time: self.max_seconds.map(Duration::from_secs) }
    }
}

/// Reads `--seed`: scripts hold it as a number of theirs.
pub(super) fn seed() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(..=i64::MAX as u64)
}

/// Reads `--threads`: more than a few for each core only wait for each other.
pub(super) fn thread_count(text: &str) -> std::result::Result<u16, String> {
    const PER_CORE: usize = 4;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = PER_CORE * cores;
    let count = text.parse::<u16>().ok().filter(|count| (1..=most).contains(&usize::from(*count)));
    count.ok_or_else(|| format!("expected 1 to {most}, at most {PER_CORE} for each of this machine's {cores} cores"))
}

/// Sets the size of the pool that all computing shares.
pub(super) fn threads(wanted: Option<u16>) -> Result<usize> {
    if let Some(wanted) = wanted {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(wanted.into()).build_global();
        pool.map_err(|e| Error::new(Kind::Internal, format!("--threads: {e}")))?;
    }
    Ok(rayon::current_num_threads())
}

/// `mine.rhai` of `mine.rhai:digits=3`: a task's or a reward's file is a script like any other.
pub(super) fn rhai_file(value: &str) -> Option<&str> {
    value.find(".rhai").map(|at| &value[..at + ".rhai".len()])
}

fn program(text: &str) -> std::result::Result<AllowedProgram, String> {
    let (name, command) = text.split_once('=').unwrap_or((text, ""));
    let words = shell_words::split(command).map_err(|e| format!("{command}: {e}"))?;
    match name.trim() {
        name if !name.is_empty() && !words.is_empty() => Ok(AllowedProgram { name: name.into(), words }),
        _ => Err("expected NAME=CMD, as in \"check=python3 grade.py\"".to_string()),
    }
}

/// The folder of a script that is a file.
pub fn own_folder(script: &str) -> Option<PathBuf> {
    let mut paths = [script.to_string(), format!("{script}.rhai")].into_iter().map(PathBuf::from);
    let path = paths.find(|path| files::is_file(&files::anywhere(path)))?;
    // A script in the current folder has the folder "".
    path.parent().map(|folder| Path::new(".").join(folder))
}

/// Reads `--max-memory`.
pub(super) fn gibibytes(text: &str) -> std::result::Result<u64, String> {
    let gib: f64 = text.parse().map_err(|_| format!("expected a number of GiB, such as 4 or 0.5, found `{text}`"))?;
    if !(0.1..1e6).contains(&gib) {
        return Err("expected at least 0.1 GiB".to_string());
    }
    Ok((gib * (1_u64 << 30) as f64) as u64)
}
