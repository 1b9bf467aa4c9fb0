//! `rhopo gpu build`: all kernels compiled ahead.

use super::BuildArgs;
use crate::error::{Error, Kind, Result};
use crate::gpu::cuda::{Build, Compiler, Usage};
use crate::run::Table;
use crate::ui::{out, table};
use std::time::Instant;

/// Compiles every kernel for each architecture, and prints what the assembler says of each function.
///
/// # Errors
/// No NVRTC; an architecture that it does not know; a kernel that does not compile.
pub(super) fn build(args: &BuildArgs) -> Result<()> {
    let compiler = args.out.clone().map_or_else(Compiler::new, Compiler::keeping_in)?;
    for architecture in &args.arch {
        known(&compiler, architecture)?;
    }
    for architecture in &args.arch {
        let start = Instant::now();
        let builds = compiler.compile_all(architecture)?;
        for line in table::lines(&summary(architecture, &builds)) {
            out::line(&line);
        }
        let cached = builds.iter().filter(|build| build.compiled.cached).count();
        let folder = compiler.folder().map(|folder| format!(" in {}", folder.display())).unwrap_or_default();
        out::line(&format!(
            "{architecture}: {} files by NVRTC {}{folder}, {cached} of them cached, {:.1} s",
            builds.len(),
            compiler.version(),
            start.elapsed().as_secs_f64()
        ));
    }
    Ok(())
}

/// An architecture may have a letter behind it, which NVRTC does not list: `sm_90a`.
fn known(compiler: &Compiler, architecture: &str) -> Result<()> {
    let known = compiler.architectures()?;
    let plain = architecture.strip_suffix(['a', 'f']).unwrap_or(architecture);
    match known.iter().any(|name| name == plain) {
        true => Ok(()),
        false => {
            let what =
                format!("NVRTC {} cannot compile kernels for the architecture `{architecture}`", compiler.version());
            let known = known.join(", ");
            Err(Error::new(Kind::Device, what).hint(format!("one to each --arch, also as sm_90a: {known}")))
        }
    }
}

fn summary(architecture: &str, builds: &[Build]) -> Table {
    let head = ["file", "definitions", "function", "registers", "spilled", "shared", "seconds"];
    // The time is that of the whole file, and stands once.
    let row = |build: &Build| {
        let seconds = if build.compiled.cached { "cached".into() } else { format!("{:.2}", build.seconds) };
        let cells = |(n, usage): (usize, &Usage)| {
            let numbers = [u64::from(usage.registers), usage.spilled, usage.shared].map(|number| number.to_string());
            let names = [build.file.into(), build.definitions.into(), usage.function.clone()];
            [&names[..], &numbers, &[if n == 0 { seconds.clone() } else { String::new() }]].concat()
        };
        build.compiled.functions.iter().enumerate().map(cells).collect::<Vec<Vec<String>>>()
    };
    Table {
        title: architecture.into(),
        head: head.map(str::to_string).to_vec(),
        rows: builds.iter().flat_map(row).collect(),
    }
}
