//! What a script may read, write and start: folders and programs, fixed before it begins, and what a person adds at a
//! prompt. A script from elsewhere must not be able to look around or to leave anything behind.
//!
//! Owns the rule: what a door is told to open (`files::Door`). A path that a script names becomes a `Location` here, and
//! nothing in the layers below opens anything else.

use crate::error::{Error, Result};
use crate::files::{self, Door, Location, Visitor, hub};
use std::path::{Path, PathBuf};

/// A program that the command line lets scripts use, `exec:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedProgram {
    pub name: String,
    /// The program and its arguments.
    pub words: Vec<String>,
}

/// The rule; copies are the same one. By default nothing is open.
#[derive(Debug, Clone)]
pub struct Access(Door);

impl Default for Access {
    fn default() -> Self {
        Self(Door::closed(Visitor::Script))
    }
}

impl Access {
    /// Nothing is refused: for programs that use this library with scripts of their own.
    pub fn everything() -> Self {
        Self(Door::everything())
    }

    /// Reads and writes below the current folder and below `out`; reads below `allowed` (files or folders) and in the
    /// cache of models as well.
    pub fn confined(out: Option<&Path>, allowed: &[PathBuf]) -> Self {
        let access = Self::default();
        access.0.grant(Path::new("."), true);
        out.map(|out| access.0.grant(out, true));
        access.with(allowed)
    }

    /// Reads as `confined` does, and writes nothing: for what is only looked at.
    pub fn reading(allowed: &[PathBuf]) -> Self {
        let access = Self::default();
        access.0.grant(Path::new("."), false);
        access.with(allowed)
    }

    fn with(self, allowed: &[PathBuf]) -> Self {
        let cache = hub::cache_folder();
        allowed.iter().chain(&cache).for_each(|path| self.allow(path));
        self
    }

    /// Reads below what a person has named: for commands that run nothing of what they find there.
    pub fn looking(named: &[PathBuf]) -> Self {
        let access = Self(Door::closed(Visitor::Command));
        named.iter().for_each(|path| access.allow(path));
        access
    }

    pub fn door(&self) -> &Door {
        &self.0
    }

    /// A path, to be opened as far as that is allowed.
    pub fn at(&self, path: impl AsRef<Path>) -> Location {
        self.0.at(path.as_ref())
    }

    /// From here on what is below `path` may be read.
    pub fn allow(&self, path: &Path) {
        self.0.grant(path, false);
    }

    /// What `work` comes to while these may be read as well.
    pub fn allowing<T>(&self, paths: &[PathBuf], work: impl FnOnce() -> T) -> T {
        let granted: Vec<_> = paths.iter().map(|path| self.0.grant(path, false)).collect();
        let done = work();
        granted.into_iter().for_each(|granted| self.0.take_back(granted));
        done
    }

    /// # Errors
    /// A path that may not be read.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Location> {
        let at = self.at(path);
        at.admit()?;
        if files::is_link(&at) && !files::exists(&at) {
            return Err(Error::file(format!("{} is a link, and nothing is where it leads", at.display()))
                .hint("make the link anew, or give the file itself"));
        }
        Ok(at)
    }

    /// # Errors
    /// A path that may not be written, or where there is something that is neither a file nor a folder.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<Location> {
        let at = self.at(path);
        at.admit_writing()?;
        if !files::is_folder(&at) {
            files::require_file(&at)?;
        }
        Ok(at)
    }
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
        access.write(out.join("new/file")).expect("below the run folder, though it is not there");
        access.write(Path::new("here")).expect("below the current folder");
        access.read(other.join("file")).expect("allowed");
        access.write(other.join("file")).expect_err("only to be read");
        access.read(&other).expect_err("the folder was not allowed");
        access.read(out.join("../other/more")).and_then(|at| files::text(&at)).expect_err("dots lead out");
        std::fs::create_dir(&out).and_then(|()| std::fs::write(other.join("more"), "x")).expect("written");
        access.read(out.join("../other/more")).and_then(|at| files::text(&at)).expect_err("and so they do now");
        access.read(Path::new("/etc/passwd")).expect_err("outside");
        // `--svg compare.svg` has the folder "".
        Access::confined(Path::new("compare.svg").parent(), &[PathBuf::new()])
            .read(Path::new("/etc/passwd"))
            .expect_err("outside");
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
        let e = said(access.read(link.join("passwd")).expect_err("outside"));
        let by = "OUT/link is a link, by which it is /etc/passwd, outside of its folders";
        assert_eq!(e, format!("a script may not read OUT/link/passwd: {by}"));
        access.write(link.join("new")).expect_err("outside");
        std::os::unix::fs::symlink(out.join("nowhere"), out.join("lost")).expect("linked");
        let e = said(access.read(out.join("lost")).expect_err("nothing"));
        assert_eq!(e, "OUT/lost is a link, and nothing is where it leads");
        access.write(out.join("lost")).expect("writing replaces it");
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_not_written() {
        let e = Access::everything().write(Path::new("/dev/null")).expect_err("no file");
        assert_eq!(e.what, "/dev/null is not a file");
    }
}
