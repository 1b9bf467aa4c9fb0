//! A second wall around a run: Landlock, by which Linux refuses this process, and what it starts, whatever lies outside of
//! what it was given, whoever in it asks.
//!
//! Owns what the system itself needs. What a run needs is `ui::limits`'s to say. The wall holds for the thread that puts
//! it up and for those that it starts, so it is put up before any.

use crate::error::{Error, Result};
use std::path::PathBuf;

/// What programs and libraries are read from, and what the system says of itself.
const SYSTEM: [&str; 12] =
    ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/proc", "/sys", "/run", "/nix"];
/// Devices are opened for writing.
const DEVICES: &str = "/dev";
/// Folders that variables name from which libraries of a GPU are opened.
const LIBRARIES: [&str; 5] = ["RHOPO_CUDA", "CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"];

/// Puts the wall up: beneath `read` is read, beneath `write` anything is done; beside what the system needs. Says whether
/// this kernel has one.
///
/// # Errors
/// A kernel that has it and refuses.
pub fn confine(read: &[PathBuf], write: &[PathBuf]) -> Result<bool> {
    let set = LIBRARIES.iter().filter_map(std::env::var_os);
    let set: Vec<PathBuf> = set.flat_map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>()).collect();
    let own = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_path_buf()));
    let read: Vec<PathBuf> =
        SYSTEM.iter().map(PathBuf::from).chain(set).chain(own).chain(read.iter().cloned()).collect();
    let write: Vec<PathBuf> = write.iter().cloned().chain([PathBuf::from(DEVICES)]).collect();
    wall(&read, &write).map_err(|e| Error::file(format!("the kernel's own confinement (Landlock) failed: {e}")))
}

#[cfg(target_os = "linux")]
fn wall(read: &[PathBuf], write: &[PathBuf]) -> std::result::Result<bool, landlock::RulesetError> {
    use landlock::{
        ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, path_beneath_rules,
    };
    // The newest that is known here; an older kernel holds as much of it as it can.
    let abi = ABI::V5;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(read, AccessFs::from_read(abi)))?
        .add_rules(path_beneath_rules(write, AccessFs::from_all(abi)))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(not(target_os = "linux"))]
fn wall(_: &[PathBuf], _: &[PathBuf]) -> std::result::Result<bool, std::convert::Infallible> {
    Ok(false)
}
