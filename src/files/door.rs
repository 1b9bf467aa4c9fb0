//! The door: what may be read and written, as handles of folders, and the one way from a path to what lies there.
//!
//! Owns which grant a path is looked up beneath, and what is said when none will have it. Strings only choose the handle;
//! the lookup beneath it is one step with the opening, so that nothing can be exchanged in between. Who is granted what
//! is `run::access`'s.

use super::grant::{Grant, Way, led_out, settled};
use crate::error::{Error, Kind};
use cap_std::fs::Metadata;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// What is to be done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Read,
    Write,
    /// Write below it: it is made where it is not there.
    Folder,
}

/// Why something could not be done with a path.
#[derive(Debug)]
pub enum Stopped {
    /// The door does not open it.
    Refused,
    Failed(io::Error),
}

/// Who is refused something: what an error says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visitor {
    /// A script, and what it names.
    Script,
    /// A command that looks at what somebody else may have made.
    Command,
}

/// Copies are the same door.
#[derive(Debug, Clone)]
pub struct Door(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    visitor: Visitor,
    /// What relative paths are relative to.
    here: PathBuf,
    grants: RwLock<Vec<Arc<Grant>>>,
}

/// What was granted, to be taken back.
#[derive(Debug)]
pub struct Granted(Option<Arc<Grant>>);

impl Door {
    /// One that opens nothing yet.
    pub fn closed(visitor: Visitor) -> Self {
        // Where there is none, nothing is beneath it: not the root, which would be everything.
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/no current folder"));
        Self(Arc::new(Rules { visitor, here, grants: RwLock::default() }))
    }

    /// One that refuses nothing: for what a person names, and for programs with scripts of their own.
    pub fn everything() -> Self {
        // Taken once: looked at often, as for the memory that is left.
        static ROOT: OnceLock<Option<Arc<Grant>>> = OnceLock::new();
        let door = Self::closed(Visitor::Command);
        let root = door.0.here.ancestors().last().unwrap_or(Path::new("/"));
        let root = ROOT.get_or_init(|| Grant::new(root, true).ok().map(Arc::new));
        door.0.grants.write().unwrap_or_else(PoisonError::into_inner).extend(root.clone());
        door
    }

    /// From here on what is below `path` may be read, and written where `writes`. An empty path grants nothing.
    pub fn grant(&self, path: &Path, writes: bool) -> Granted {
        let path = Some(path).filter(|path| !path.as_os_str().is_empty());
        // What cannot be looked at cannot be opened either.
        let made = path.and_then(|path| Grant::new(&self.absolute(path), writes).ok()).map(Arc::new);
        if let Some(grant) = &made {
            self.0.grants.write().unwrap_or_else(PoisonError::into_inner).push(grant.clone());
        }
        Granted(made)
    }

    /// Ends what was granted.
    pub fn take_back(&self, granted: Granted) {
        if let Some(gone) = granted.0 {
            self.0.grants.write().unwrap_or_else(PoisonError::into_inner).retain(|grant| !Arc::ptr_eq(grant, &gone));
        }
    }

    /// Whether this folder itself was granted: its handle leads to it, whatever it is called.
    pub(super) fn holds(&self, folder: &Metadata) -> bool {
        self.0.grants.read().unwrap_or_else(PoisonError::into_inner).iter().any(|grant| grant.is(folder))
    }

    /// Does something at a path; what has to be opened is looked up beneath a handle.
    pub(super) fn through<T>(
        &self,
        need: Need,
        path: &Path,
        work: impl Fn(Way<'_>) -> io::Result<T>,
    ) -> Result<T, Stopped> {
        if path.as_os_str().is_empty() {
            return Err(Stopped::Failed(io::ErrorKind::NotFound.into()));
        }
        let grants = self.0.grants.read().unwrap_or_else(PoisonError::into_inner).clone();
        let grants = || grants.iter().filter(|grant| need == Need::Read || grant.writes());
        let beneath = |path: &Path| {
            for (grant, tail) in grants().filter_map(|grant| Some((grant, grant.tail(path)?))) {
                match grant.at(tail, need == Need::Folder, &work) {
                    Err(e) if led_out(&e) => {}
                    done => return Some(done.map_err(Stopped::Failed)),
                }
            }
            None
        };
        let path = self.absolute(path);
        // By its name; else, as a link may lead from one folder into another, by where it leads now.
        beneath(&path).or_else(|| beneath(&settled(&path))).unwrap_or(Err(Stopped::Refused))
    }

    /// What is said of a path that is refused.
    pub(super) fn refusal(&self, need: Need, path: &Path) -> Error {
        let what = if need == Need::Read { "read" } else { "write" };
        let reason = match self.link_out(path) {
            Some((link, to)) if link == path => format!("it is a link to {}, outside of its folders", to.display()),
            Some((link, to)) => {
                format!("{} is a link, by which it is {}, outside of its folders", link.display(), to.display())
            }
            None => "it is outside of its folders".to_string(),
        };
        match (self.0.visitor, what) {
            (Visitor::Script, _) => {
                let e = Error::new(Kind::File, format!("a script may not {what} {}: {reason}", path.display()));
                e.hint(match need {
                    Need::Read => {
                        "a script may read in the current folder, its own and the run's; --allow PATH adds another"
                    }
                    _ => "a script may write in the current folder and the run's: start rhopo where the file should go",
                })
            }
            (Visitor::Command, _) => {
                let reason = reason.replace("outside of its folders", "outside of the folder that was named");
                Error::new(Kind::File, format!("cannot {what} {}: {reason}", path.display()))
                    .hint("name the file or the folder itself that is meant")
            }
        }
    }

    /// The first link on the way that leads out, and where the whole path is by it. Only what the door opens is looked at:
    /// nothing is told of what lies elsewhere.
    fn link_out(&self, path: &Path) -> Option<(PathBuf, PathBuf)> {
        let mut ancestors: Vec<&Path> = path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
        ancestors.reverse();
        ancestors.into_iter().find_map(|part| {
            let link = self.through(Need::Read, part, |way| way.link()).ok()?;
            let refused = matches!(self.through(Need::Read, part, |way| way.look()), Err(Stopped::Refused));
            let to = self.absolute(part).parent().map_or_else(|| link.clone(), |above| above.join(&link));
            let rest = path.strip_prefix(part).ok().filter(|rest| !rest.as_os_str().is_empty());
            let to = without_dots(&rest.map_or_else(|| to.clone(), |rest| to.join(rest)));
            refused.then(|| (part.to_path_buf(), to))
        })
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        // `components` leaves `.` out, as in `./a`.
        self.0.here.join(path).components().collect()
    }
}

/// For show: `..` after a link may lead elsewhere.
fn without_dots(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut whole, part| {
        match part {
            Component::ParentDir => drop(whole.pop()),
            part => whole.push(part),
        }
        whole
    })
}
