//! One file or folder that a door opens: a handle, taken when it was granted, beneath which everything is looked up.
//!
//! Owns the handle and the way from it. The kernel, or cap-std where it cannot, refuses every link and every `..` that
//! leads out; here no string decides what is opened. Which grants a door has is `door.rs`'s.

use cap_fs_ext::{DirExt, FollowSymlinks, MetadataExt, OpenOptionsFollowExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, OpenOptions};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

#[derive(Debug)]
pub struct Grant {
    /// As it was named, and without links; both absolute.
    named: PathBuf,
    real: PathBuf,
    /// The folder itself, or the nearest one above it that was there.
    base: Dir,
    /// The way from there: empty for a folder, the name of a file, or what was not there yet.
    rest: PathBuf,
    writes: bool,
}

impl Grant {
    /// # Errors
    /// No folder above it may be looked into.
    pub fn new(named: &Path, writes: bool) -> io::Result<Self> {
        let real = settled(named);
        let (mut front, mut rest) = (real.as_path(), PathBuf::new());
        loop {
            match (Dir::open_ambient_dir(front, ambient_authority()), front.parent(), front.file_name()) {
                (Ok(base), _, _) => {
                    return Ok(Self { named: named.to_path_buf(), real: real.clone(), base, rest, writes });
                }
                (Err(_), Some(above), Some(name)) => {
                    rest = if rest.as_os_str().is_empty() { PathBuf::from(name) } else { Path::new(name).join(rest) };
                    front = above;
                }
                (Err(e), _, _) => return Err(e),
            }
        }
    }

    pub fn writes(&self) -> bool {
        self.writes
    }

    /// Whether it is this folder that was granted.
    pub fn is(&self, folder: &Metadata) -> bool {
        self.rest.as_os_str().is_empty() && self.base.dir_metadata().is_ok_and(|base| same(&base, folder))
    }

    /// What leads from what was granted to an absolute path, if that is how it begins.
    pub fn tail<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        path.strip_prefix(&self.named).or_else(|_| path.strip_prefix(&self.real)).ok()
    }

    /// Does something at what lies at `tail`. `make`: a granted folder that is not there is made first.
    pub fn at<T>(&self, tail: &Path, make: bool, work: impl FnOnce(Way<'_>) -> io::Result<T>) -> io::Result<T> {
        let empty = |path: &Path| path.as_os_str().is_empty();
        if empty(&self.rest) {
            let path = if empty(tail) { Path::new(".") } else { tail };
            return work(Way { dir: &self.base, path, follow: FollowSymlinks::Yes });
        }
        if make {
            self.base.create_dir_all(&self.rest)?;
        }
        match (empty(tail), self.rest.parent(), self.rest.file_name()) {
            (true, Some(above), Some(name)) => {
                let dir = self.descend(above)?;
                work(Way { dir: &dir, path: Path::new(name), follow: FollowSymlinks::No })
            }
            _ => work(Way { dir: &self.descend(&self.rest)?, path: tail, follow: FollowSymlinks::Yes }),
        }
    }

    /// No part of what was granted was a link then, and none may be one now.
    fn descend(&self, path: &Path) -> io::Result<Dir> {
        path.components().try_fold(self.base.try_clone()?, |dir, part| dir.open_dir_nofollow(part))
    }
}

/// A path beneath a handle.
pub struct Way<'a> {
    dir: &'a Dir,
    path: &'a Path,
    follow: FollowSymlinks,
}

impl Way<'_> {
    pub fn open(&self, options: &mut OpenOptions) -> io::Result<File> {
        self.dir.open_with(self.path, options.follow(self.follow))
    }

    /// What is there, wherever a link to it leads.
    pub fn look(&self) -> io::Result<Metadata> {
        match self.follow {
            FollowSymlinks::Yes => self.dir.metadata(self.path),
            FollowSymlinks::No => self.dir.symlink_metadata(self.path),
        }
    }

    /// The text of the link that it is.
    pub fn link(&self) -> io::Result<PathBuf> {
        self.dir.read_link_contents(self.path)
    }

    pub fn folder(&self) -> io::Result<Dir> {
        match self.follow {
            FollowSymlinks::Yes => self.dir.open_dir(self.path),
            FollowSymlinks::No => self.dir.open_dir_nofollow(self.path),
        }
    }

    /// Makes it and those above it. What its path leaves again by `..` must be there: it is not made.
    pub fn make_folder(&self) -> io::Result<()> {
        let parts: Vec<Component> = self.path.components().collect();
        let turn = parts.iter().rposition(|part| *part == Component::ParentDir).map_or(0, |last| last + 1);
        let [front, rest] = [&parts[..turn], &parts[turn..]].map(|parts| parts.iter().collect::<PathBuf>());
        let beneath = if turn == 0 { self.dir.try_clone()? } else { self.dir.open_dir(front)? };
        if rest.as_os_str().is_empty() || rest == Path::new(".") { Ok(()) } else { beneath.create_dir_all(rest) }
    }

    /// The folder that it lies in, and its name there: what is done by both follows no link and meets nothing else,
    /// whatever happens to the path meanwhile.
    pub fn parent(&self) -> io::Result<(Dir, OsString)> {
        let Some(Component::Normal(name)) = self.path.components().next_back() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path ends with no name"));
        };
        let above = self.path.parent().filter(|above| !above.as_os_str().is_empty());
        Ok((above.map_or_else(|| self.dir.try_clone(), |above| self.dir.open_dir(above))?, name.to_os_string()))
    }
}

/// Whether an error says that a path led out of the folder that it was looked up beneath.
pub fn led_out(e: &io::Error) -> bool {
    // cap-std's own error; that of a missing permission has the system's number.
    e.kind() == io::ErrorKind::PermissionDenied && e.raw_os_error().is_none()
}

/// Whether both are the same file or folder, whatever it is called.
pub fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// An absolute path without links and dots, also where its end is not there yet.
pub fn settled(path: &Path) -> PathBuf {
    /// As many as the system follows.
    const LINKS: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        match forward(&path) {
            Ok(settled) => return settled,
            Err(next) => path = next,
        }
    }
    path
}

/// The path settled, or where a link that leads nowhere puts it.
fn forward(path: &Path) -> Result<PathBuf, PathBuf> {
    let mut front = path;
    loop {
        let rest = || path.strip_prefix(front).unwrap_or(Path::new(""));
        if let Ok(known) = front.canonicalize() {
            return Ok(rest().components().fold(known, |mut known, part| {
                match part {
                    Component::ParentDir => drop(known.pop()),
                    part => known.push(part),
                }
                known
            }));
        }
        let Some(above) = front.parent() else { return Ok(path.to_path_buf()) };
        if let Ok(link) = front.read_link() {
            return Err(above.join(link).join(rest()));
        }
        front = above;
    }
}
