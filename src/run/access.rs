//! What a script may read, write and start: folders and programs, fixed before it begins, and what a person adds at a
//! prompt. A script from elsewhere must not be able to look around or to leave anything behind.
//!
//! Owns the rule only; whoever opens a path that a script has named asks it first.

use crate::error::{Error, Kind, Result};
use crate::files::{self, hub};
use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

/// A program that the command line lets scripts use, `exec:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedProgram {
    pub name: String,
    /// The program and its arguments.
    pub words: Vec<String>,
}

/// The rule; copies are the same one.
#[derive(Debug, Clone, Default)]
pub struct Access(Option<Rc<Folders>>);

#[derive(Debug)]
struct Folders {
    reads: Vec<PathBuf>,
    writes: Vec<PathBuf>,
    /// What a person has allowed to be read since.
    allowed: RefCell<Vec<PathBuf>>,
}

impl Access {
    /// Nothing is refused: for programs that use this library with scripts of their own.
    pub fn everything() -> Self {
        Self(None)
    }

    /// Reads and writes below the current folder and below `out`; reads below `allowed` (files or folders) and in the
    /// cache of models as well.
    pub fn confined(out: Option<&Path>, allowed: &[PathBuf]) -> Self {
        let own = std::iter::once(Path::new(".")).chain(out).map(real);
        let writes: Vec<PathBuf> = own.collect();
        let reads = writes.iter().cloned().chain(hub::cache_folder().into_iter().map(|path| real(&path)));
        let reads = reads.chain(allowed.iter().map(|path| real(path))).collect();
        Self(Some(Rc::new(Folders { reads, writes, allowed: RefCell::default() })))
    }

    /// From here on what is below `path` may be read.
    pub fn allow(&self, path: &Path) {
        if let Some(folders) = &self.0 {
            folders.allowed.borrow_mut().push(real(path));
        }
    }

    /// What `work` comes to while these may be read as well.
    pub fn allowing<T>(&self, paths: &[PathBuf], work: impl FnOnce() -> T) -> T {
        let Some(folders) = &self.0 else { return work() };
        let before = folders.allowed.borrow().len();
        paths.iter().for_each(|path| self.allow(path));
        let done = work();
        // What was allowed for good in between stands behind.
        let mut allowed = folders.allowed.borrow_mut();
        let end = allowed.len().min(before + paths.len());
        allowed.drain(before.min(end)..end);
        done
    }

    /// # Errors
    /// A path that may not be read.
    pub fn read(&self, path: &Path) -> Result<()> {
        let place = real(path);
        let allowed = |folders: &Folders| folders.allowed.borrow().iter().any(|folder| place.starts_with(folder));
        match &self.0 {
            Some(folders) if allowed(folders) => {}
            _ => self.check("read", path, |folders| &folders.reads)?,
        }
        if files::is_link(path) && !files::exists(path) {
            return Err(Error::file(format!("{} is a link, and nothing is where it leads", path.display()))
                .hint("make the link anew, or give the file itself"));
        }
        Ok(())
    }

    /// # Errors
    /// A path that may not be written, or where there is something that is neither a file nor a folder.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.check("write", path, |folders| &folders.writes)?;
        if files::is_folder(path) { Ok(()) } else { files::require_file(path) }
    }

    fn check(&self, what: &str, path: &Path, of: impl Fn(&Folders) -> &[PathBuf]) -> Result<()> {
        let Some(folders) = &self.0 else { return Ok(()) };
        let place = real(path);
        if of(folders).iter().any(|folder| place.starts_with(folder)) {
            return Ok(());
        }
        let link = path.ancestors().find(|path| files::is_link(path));
        let reason = match link {
            Some(link) if link == path => format!("it is a link to {}, outside of its folders", place.display()),
            Some(link) => {
                format!("{} is a link, by which it is {}, outside of its folders", link.display(), place.display())
            }
            None => "it is outside of its folders".to_string(),
        };
        let e = Error::new(Kind::File, format!("a script may not {what} {}: {reason}", path.display()));
        Err(match what {
            "read" => {
                e.hint("a script may read in the current folder, its own and the run's; --allow PATH adds another")
            }
            _ => e.hint("a script may write in the current folder and the run's: start rhopo where the file should go"),
        })
    }
}

/// The path without links and dots, also where its end is not there yet.
fn real(path: &Path) -> PathBuf {
    // The folder of a bare file name; below "" everything would be.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    if let Some(whole) = files::real(path) {
        return whole;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut rest = Vec::new();
    let mut front = absolute.as_path();
    while let Some(parent) = front.parent() {
        rest.push(front.components().next_back().unwrap_or(Component::CurDir));
        front = parent;
        if let Some(mut known) = files::real(front) {
            for part in rest.iter().rev() {
                match part {
                    Component::ParentDir => {
                        known.pop();
                    }
                    Component::Normal(name) => known.push(name),
                    _ => {}
                }
            }
            return known;
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_hold_what_is_below_them_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let (out, other) = (dir.path().join("out"), dir.path().join("other"));
        std::fs::create_dir(&other).expect("made");
        std::fs::write(other.join("file"), "x").expect("written");
        let access = Access::confined(Some(&out), &[other.join("file")]);
        access.write(&out.join("new/file")).expect("below the run folder, though it is not there");
        access.write(Path::new("here")).expect("below the current folder");
        access.read(&other.join("file")).expect("allowed");
        access.write(&other.join("file")).expect_err("only to be read");
        access.read(&other).expect_err("the folder was not allowed");
        access.read(&out.join("../other/more")).expect_err("dots lead out");
        access.read(Path::new("/etc/passwd")).expect_err("outside");
        // `--svg compare.svg` has the folder "".
        Access::confined(Path::new("compare.svg").parent(), &[]).read(Path::new("/etc/passwd")).expect_err("outside");
        Access::everything().read(Path::new("/etc/passwd")).expect("a program's own scripts");
    }

    #[test]
    fn what_a_person_allows_may_be_read_for_a_while_or_for_good() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("file");
        std::fs::write(&file, "x").expect("written");
        let access = Access::confined(None, &[]);
        access.read(&file).expect_err("outside");
        access.allowing(std::slice::from_ref(&file), || access.read(&file).expect("while it lasts"));
        access.read(&file).expect_err("outside again");
        access.allow(dir.path());
        access.read(&file).expect("below what was allowed");
        access.write(&file).expect_err("only to be read");
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_where_they_point() {
        let dir = tempfile::tempdir().expect("a folder");
        let out = dir.path().join("out");
        std::fs::create_dir(&out).expect("made");
        std::os::unix::fs::symlink("/etc", out.join("link")).expect("linked");
        let access = Access::confined(Some(&out), &[]);
        let link = out.join("link");
        let said = |e: Error| e.what.replace(&out.display().to_string(), "OUT");
        let e = said(access.read(&link).expect_err("outside"));
        assert_eq!(e, "a script may not read OUT/link: it is a link to /etc, outside of its folders");
        let e = said(access.read(&link.join("passwd")).expect_err("outside"));
        let by = "OUT/link is a link, by which it is /etc/passwd, outside of its folders";
        assert_eq!(e, format!("a script may not read OUT/link/passwd: {by}"));
        access.write(&link.join("new")).expect_err("outside");
        std::os::unix::fs::symlink(out.join("nowhere"), out.join("lost")).expect("linked");
        let e = said(access.read(&out.join("lost")).expect_err("nothing"));
        assert_eq!(e, "OUT/lost is a link, and nothing is where it leads");
        access.write(&out.join("lost")).expect("writing replaces it");
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_not_written() {
        let e = Access::everything().write(Path::new("/dev/null")).expect_err("no file");
        assert_eq!(e.what, "/dev/null is not a file");
    }
}
