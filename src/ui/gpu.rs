//! `rhopo gpu`: what this machine has for models on a GPU, and the kernels compiled ahead.

mod bench;
#[cfg(feature = "cuda")]
mod build;
mod check;
#[cfg(feature = "cuda")]
mod info;
mod table;

use crate::script::lang::loader::Loader;
use crate::ui::terminal::report;
use std::path::PathBuf;
use std::process::ExitCode;

/// What `rhopo gpu` can be asked.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum GpuCommand {
    /// Show NVIDIA's libraries, the GPUs and the cache of compiled kernels
    ///
    /// The libraries are opened when they are first needed. libcuda comes with NVIDIA's driver; libnvrtc and libcublasLt
    /// come with a CUDA toolkit or as Python packages (pip install nvidia-cuda-nvrtc nvidia-cublas). They are looked up
    /// in the folders of RHOPO_CUDA (separated by colons; lib, lib64 and nvidia/*/lib below them are searched too), on
    /// the system's library path, in CUDA_HOME, CUDA_PATH and /usr/local/cuda, and among the packages of the active
    /// Python.
    Info,
    /// Compile all kernels ahead of time, on any machine that has NVRTC
    Build(BuildArgs),
    /// Check that a device computes what rhopo relies on
    Check(check::CheckArgs),
    /// Time a training step of a full-size model with random weights
    Bench(bench::BenchArgs),
    /// Summarise the results of tests/device/run
    Table {
        /// Folder that holds them
        #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
        folder: PathBuf,
    },
}

/// Options of `rhopo gpu build`.
#[derive(Debug, Clone, clap::Args)]
pub struct BuildArgs {
    /// Architecture to compile for, such as sm_90a; may be repeated
    #[arg(long, value_name = "ARCH", required = true)]
    pub arch: Vec<String>,
    /// Folder for the compiled kernels [default: the user's cache]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

/// Does what was asked.
pub fn gpu(command: &GpuCommand) -> ExitCode {
    let done = match command {
        GpuCommand::Info => show(),
        GpuCommand::Build(args) => compile(args),
        GpuCommand::Check(args) => check::check(args),
        GpuCommand::Bench(args) => bench::bench(args),
        GpuCommand::Table { folder } => table::table(folder),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            report(&e.into(), &Loader::default());
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "cuda")]
use {build::build as compile, info::info as show};

#[cfg(not(feature = "cuda"))]
use absent::{compile, show};

/// What a program says that was built without the feature `cuda`.
#[cfg(not(feature = "cuda"))]
mod absent {
    use crate::error::{Error, Kind, Result};
    use crate::ui::out;

    const WHAT: &str = "this rhopo was built without the feature `cuda`: it knows no GPU";

    pub(super) fn show() -> Result<()> {
        out::line(WHAT);
        Ok(())
    }

    pub(super) fn compile(_: &super::BuildArgs) -> Result<()> {
        Err(Error::new(Kind::Device, WHAT).hint("build it with the feature `cuda`, which is on by default"))
    }
}
