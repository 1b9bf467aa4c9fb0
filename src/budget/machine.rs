//! What the system can still give this process: the least of what the machine has free, what the process may address
//! (`ulimit -v`), and what its control groups leave.
//!
//! Linux; elsewhere nothing is known.

use crate::files;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Bytes that can still be given.
pub(super) fn free() -> Option<u64> {
    let kib = field(&system("/proc/meminfo")?, "MemAvailable:")?;
    let groups = groups().iter().filter_map(Group::left).min();
    Some((kib << 10).min(groups.unwrap_or(u64::MAX)))
}

/// Bytes that may still be addressed, where that is limited.
pub(super) fn addressable() -> Option<u64> {
    let most = address_limit()?;
    let taken = field(&system("/proc/self/status")?, "VmSize:")? << 10;
    Some(most.saturating_sub(taken))
}

#[cfg(target_os = "linux")]
fn address_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::As).current
}

#[cfg(not(target_os = "linux"))]
fn address_limit() -> Option<u64> {
    None
}

/// A control group with a limit on memory, as version 2 or 1 has it.
struct Group {
    limit: PathBuf,
    usage: PathBuf,
    /// Counts what is held only to be read again, which the system takes back.
    facts: PathBuf,
    cached: &'static str,
}

impl Group {
    fn v2(folder: &Path) -> Self {
        Self::in_folder(folder, ["memory.max", "memory.current"], "inactive_file ")
    }

    fn v1(folder: &Path) -> Self {
        Self::in_folder(folder, ["memory.limit_in_bytes", "memory.usage_in_bytes"], "total_inactive_file ")
    }

    fn in_folder(folder: &Path, [limit, usage]: [&str; 2], cached: &'static str) -> Self {
        Self { limit: folder.join(limit), usage: folder.join(usage), facts: folder.join("memory.stat"), cached }
    }

    /// None where nothing is limited: version 2 says `max` then, version 1 a number beyond every machine.
    fn most(&self) -> Option<u64> {
        const UNLIMITED: u64 = 1 << 60;
        number(&self.limit).filter(|bytes| *bytes < UNLIMITED)
    }

    fn left(&self) -> Option<u64> {
        let cached = system(&self.facts).and_then(|text| field(&text, self.cached)).unwrap_or(0);
        Some(self.most()?.saturating_sub(number(&self.usage)?.saturating_sub(cached)))
    }
}

/// This process's groups that limit memory: its own and those around it.
fn groups() -> &'static [Group] {
    static GROUPS: OnceLock<Vec<Group>> = OnceLock::new();
    GROUPS.get_or_init(|| limited(&system("/proc/self/cgroup").unwrap_or_default(), Path::new("/sys/fs/cgroup")))
}

/// `own` has a line `number:controllers:path` for each tree that the process is in; the trees lie at `root`. In a container
/// the path may be one that is not there, and the tree's root the process's group.
fn limited(own: &str, root: &Path) -> Vec<Group> {
    let around = |tree: PathBuf, path: &str| {
        let path = Path::new(path.trim_start_matches('/'));
        path.ancestors().map(|part| tree.join(part)).collect::<Vec<_>>()
    };
    let of = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        if controllers.is_empty() {
            return Some(around(root.to_path_buf(), path).iter().map(|folder| Group::v2(folder)).collect::<Vec<_>>());
        }
        let memory = controllers.split(',').any(|name| name == "memory");
        memory.then(|| around(root.join("memory"), path).iter().map(|folder| Group::v1(folder)).collect())
    };
    own.lines().filter_map(of).flatten().filter(|group| group.most().is_some()).collect()
}

fn number(path: &Path) -> Option<u64> {
    system(path)?.trim().parse().ok()
}

pub(super) fn system(path: impl AsRef<Path>) -> Option<String> {
    files::text(&files::anywhere(path.as_ref())).ok()
}

/// The number in the line that begins with `name`.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn lay(root: &Path, folder: &str, files: &[(&str, &str)]) {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).expect("made");
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).expect("written"));
    }

    fn left(own: &str, root: &Path) -> Vec<u64> {
        limited(own, root).iter().filter_map(Group::left).collect()
    }

    #[test]
    fn a_group_leaves_what_it_does_not_hold_for_good() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        lay(root, "a/b", &[("memory.max", "max\n"), ("memory.current", "10\n")]);
        lay(
            root,
            "a",
            &[("memory.max", "1000\n"), ("memory.current", "700\n"), ("memory.stat", "anon 1\ninactive_file 200\n")],
        );
        assert_eq!(left("0::/a/b\n", root), [500], "the group around it has a limit, the own one none");
        // Within a container the tree begins at the own group, whatever its path is outside.
        lay(root, "", &[("memory.max", "900\n"), ("memory.current", "100\n")]);
        assert_eq!(left("0::/elsewhere/deep\n", root), [800]);
    }

    #[test]
    fn version_1_is_read_as_well() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        lay(root, "memory", &[("memory.limit_in_bytes", "9223372036854771712\n"), ("memory.usage_in_bytes", "5\n")]);
        let stat = ("memory.stat", "cache 9\ntotal_inactive_file 30\n");
        lay(root, "memory/job", &[("memory.limit_in_bytes", "500\n"), ("memory.usage_in_bytes", "200\n"), stat]);
        assert_eq!(left("5:cpu,memory:/job\n4:pids:/job\n", root), [330]);
    }
}
