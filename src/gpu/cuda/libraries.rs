//! Finds NVIDIA's libraries at run time and opens them, once for the process.
//!
//! cudarc asks the loader for a library by its bare name, and panics where there is none. So each library is opened
//! here by its path first: the loader then answers the bare name with what is open. Nothing of cudarc may be called
//! before `Library::require` has said that its library is there.

use crate::error::{Error, Kind, Result};
use crate::files::{self, anywhere};
use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Folders to look in before all others, separated by colons.
const FOLDERS: &str = "RHOPO_CUDA";

/// A library of NVIDIA's, found or not.
#[derive(Debug, Clone)]
pub struct Library {
    /// Without the ending: `libnvrtc`.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    pub found: std::result::Result<Found, Missing>,
}

/// Where a library is.
#[derive(Debug, Clone)]
pub struct Found {
    /// None where the system's loader knew it by name.
    pub path: Option<PathBuf>,
    pub version: String,
}

/// Where a library is not.
#[derive(Debug, Clone)]
pub struct Missing {
    /// File names that would have done.
    pub names: Vec<String>,
    /// Folders that were looked in, after the loader's own.
    pub folders: Vec<PathBuf>,
    /// Why a file that was there could not be opened.
    pub why: Option<String>,
}

/// The three that are needed.
#[derive(Debug, Clone)]
pub struct Libraries {
    pub driver: Library,
    pub compiler: Library,
    pub products: Library,
}

impl Libraries {
    pub fn all(&self) -> [&Library; 3] {
        [&self.driver, &self.compiler, &self.products]
    }
}

/// The libraries of this machine; the first call looks for them.
pub fn libraries() -> &'static Libraries {
    static LIBRARIES: OnceLock<Libraries> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
        let asked = asked_for();
        let usual = usual();
        Libraries {
            driver: Candidate {
                name: "libcuda",
                about: "the driver",
                endings: &["so.1", "so"],
                beside: None,
                // SAFETY: opens libraries by name, which runs their initialisers; nothing else is done with them.
                present: || unsafe { cudarc::driver::sys::is_culib_present() },
                version: driver_version,
            }
            .find(&asked, &usual),
            compiler: Candidate {
                name: "libnvrtc",
                about: "the compiler of kernels",
                endings: &["so.13", "so.12", "so"],
                // It opens this one by its bare name at the first compilation, and does not look beside itself.
                beside: Some("libnvrtc-builtins.so"),
                // SAFETY: as above.
                present: || unsafe { cudarc::nvrtc::sys::is_culib_present() },
                version: nvrtc_version,
            }
            .find(&asked, &usual),
            products: Candidate {
                name: "libcublasLt",
                about: "matrix products",
                endings: &["so.13", "so.12", "so"],
                beside: None,
                // SAFETY: as above.
                present: || unsafe { cudarc::cublaslt::sys::is_culib_present() },
                // SAFETY: the library is there, and the function only gives a number.
                version: || dotted(unsafe { cudarc::cublaslt::sys::cublasLtGetVersion() }, [10_000, 100]),
            }
            .find(&asked, &usual),
        }
    })
}

impl Library {
    /// # Errors
    /// A library that was not found: its name, and where it was looked for.
    pub fn require(&self) -> Result<&Found> {
        self.found.as_ref().map_err(|missing| {
            let what = format!("{} ({}) was not found: {missing}", self.name, self.about);
            Error::new(Kind::Device, what)
                .hint(format!("set {FOLDERS} to the folder that has it; without a GPU, run with --device cpu"))
        })
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let folders: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        write!(f, "looked for {} on the loader's own path", self.names.join(", "))?;
        if !folders.is_empty() {
            write!(f, " and in {}", folders.join(", "))?;
        }
        self.why.as_ref().map_or(Ok(()), |why| write!(f, "; {why}"))
    }
}

/// What a library is called, and how it is asked.
struct Candidate {
    name: &'static str,
    about: &'static str,
    /// The best first.
    endings: &'static [&'static str],
    /// How the name begins of one in the same folder that must be opened with it.
    beside: Option<&'static str>,
    /// Whether cudarc can open it by a bare name.
    present: fn() -> bool,
    version: fn() -> String,
}

impl Candidate {
    /// In the folders that were asked for, then where the loader looks by itself, then where it usually is.
    fn find(self, asked: &[PathBuf], usual: &[PathBuf]) -> Library {
        let names: Vec<String> = self.endings.iter().map(|ending| format!("{}.{ending}", self.name)).collect();
        let mut why = None;
        let path = self.open_in(asked, &names, &mut why);
        let path = match path {
            None if (self.present)() => Some(None),
            None => self.open_in(usual, &names, &mut why).map(Some),
            found => Some(found),
        };
        let found = match path {
            Some(path) if (self.present)() => Ok(Found { path, version: (self.version)() }),
            _ => Err(Missing { names, folders: [asked, usual].concat(), why }),
        };
        Library { name: self.name, about: self.about, found }
    }

    /// The first that can be opened; it stays open.
    fn open_in(&self, folders: &[PathBuf], names: &[String], why: &mut Option<String>) -> Option<PathBuf> {
        let paths = folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name)));
        for path in paths.filter(|path| files::is_file(&anywhere(path))) {
            let beside = self.beside.map(|beginning| others(&path, beginning)).unwrap_or_default();
            match beside.iter().try_for_each(|other| open(other)).and_then(|()| open(&path)) {
                Ok(()) => return Some(path),
                Err(e) => *why = Some(format!("{} cannot be opened: {e}", path.display())),
            }
        }
        None
    }
}

/// Files beside a library whose names begin so.
fn others(path: &Path, beginning: &str) -> Vec<PathBuf> {
    let entries = path.parent().and_then(|folder| files::entries(&anywhere(folder)).ok()).unwrap_or_default();
    let fits = |other: &PathBuf| other.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning));
    entries.iter().map(|other| other.to_path_buf()).filter(fits).collect()
}

/// Opens a library for as long as the process lasts.
fn open(path: &Path) -> std::result::Result<(), libloading::Error> {
    // SAFETY: runs the initialisers of a library of NVIDIA's, which anything that uses it must do as well.
    std::mem::forget(unsafe { libloading::Library::new(path) }?);
    Ok(())
}

/// Folders that RHOPO_CUDA names, with those in them where libraries lie; also what is no folder, so that an error
/// names it.
fn asked_for() -> Vec<PathBuf> {
    let set = std::env::var_os(FOLDERS).unwrap_or_default();
    let named = || std::env::split_paths(&set).filter(|path| !path.as_os_str().is_empty());
    let mut folders = within(named());
    folders.extend(named().filter(|path| !files::is_folder(&anywhere(path))));
    folders
}

/// Folders where the libraries are on most machines: a toolkit, or the packages of a Python.
fn usual() -> Vec<PathBuf> {
    let set = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(std::env::var_os).map(PathBuf::from);
    within(set.chain([PathBuf::from("/usr/local/cuda")]).chain(python_packages()))
}

/// Of each folder: itself, and where toolkits and NVIDIA's Python packages keep libraries in it.
fn within(roots: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for root in roots {
        let mut packages = below(&root.join("nvidia"), "");
        // The package of a whole toolkit before those of single libraries, which are older.
        packages.sort_by_key(|folder| !folder.ends_with("cu13"));
        let inside = packages.into_iter().map(|package| package.join("lib"));
        let all = [root.clone(), root.join("lib64"), root.join("lib")].into_iter().chain(inside);
        // One that is reached in two ways is looked in once.
        for folder in all.filter(|folder| files::is_folder(&anywhere(folder))) {
            let real = files::real(&anywhere(&folder));
            if !found.iter().any(|other| files::real(&anywhere(other)) == real) {
                found.push(folder);
            }
        }
    }
    found
}

/// Where the active Python and the system's keep packages; no Python is started.
fn python_packages() -> Vec<PathBuf> {
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(std::env::var_os).map(PathBuf::from);
    let user = std::env::home_dir().map(|home| home.join(".local"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|folder| files::is_file(&anywhere(folder.join("python3"))));
    let prefixes = on_path.filter_map(|folder| folder.parent().map(Path::to_path_buf)).collect::<Vec<_>>();
    let system = ["/usr/local", "/usr"].map(PathBuf::from);
    let prefixes = environments.chain(user).chain(prefixes).chain(system);
    let pythons = prefixes.flat_map(|prefix| below(&prefix.join("lib"), "python3"));
    pythons.flat_map(|python| [python.join("site-packages"), python.join("dist-packages")]).collect()
}

/// Folders in a folder whose names begin so.
fn below(folder: &Path, beginning: &str) -> Vec<PathBuf> {
    let folder = anywhere(folder);
    let entries = if files::is_folder(&folder) { files::entries(&folder).unwrap_or_default() } else { Vec::new() };
    let fits = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning));
    entries.iter().filter(|path| fits(path) && files::is_folder(path)).map(|path| path.to_path_buf()).collect()
}

/// 13.0.2 of 130002 for the units 10000 and 100.
fn dotted(number: usize, [major, minor]: [usize; 2]) -> String {
    format!("{}.{}.{}", number / major, number % major / minor, number % minor)
}

/// Of CUDA, up to which the driver goes.
fn driver_version() -> String {
    let mut number: c_int = 0;
    // SAFETY: the library is there; the pointer is to a number of the type that it writes.
    let answer = unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut number) };
    answer
        .result()
        .map_or("of an unknown version".into(), |()| format!("CUDA {}.{}", number / 1000, number % 1000 / 10))
}

fn nvrtc_version() -> String {
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    // SAFETY: the library is there; the pointers are to numbers of the type that it writes.
    let answer = unsafe { cudarc::nvrtc::sys::nvrtcVersion(&mut major, &mut minor) };
    answer.result().map_or("of an unknown version".into(), |()| format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(dotted(130_002, [10_000, 100]), "13.0.2");
        assert_eq!(dotted(120_503, [10_000, 100]), "12.5.3");
    }

    #[test]
    fn folders_of_toolkits_and_of_packages_are_found_the_newest_first() {
        let root = files::temporary_folder().expect("a folder");
        for inside in ["lib64", "nvidia/cublas/lib", "nvidia/cu13/lib"] {
            files::create_folder(&anywhere(root.path()).join(inside)).expect("made");
        }
        let found = within([root.path().to_path_buf(), root.path().to_path_buf()].into_iter());
        let expected = ["", "lib64", "nvidia/cu13/lib", "nvidia/cublas/lib"];
        assert_eq!(found, expected.map(|inside| root.path().join(inside).components().collect::<PathBuf>()));
    }

    #[test]
    fn what_is_missing_is_named_with_where_it_was_looked_for() {
        let folder = files::temporary_folder().expect("a folder");
        files::write(&anywhere(folder.path()).join("librhopo_none.so.1"), b"no library").expect("written");
        let none = Candidate {
            name: "librhopo_none",
            about: "nothing",
            endings: &["so.1"],
            beside: None,
            present: || false,
            version: String::new,
        };
        let e = none.find(&[folder.path().to_path_buf()], &[]).require().expect_err("no library").clone();
        let path = folder.path().display();
        assert!(e.what.starts_with(&format!(
            "librhopo_none (nothing) was not found: looked for librhopo_none.so.1 on the loader's own path and in {path}; \
             {path}/librhopo_none.so.1 cannot be opened: "
        )));
        assert!(e.hint.is_some_and(|hint| hint.contains("--device cpu") && hint.contains(FOLDERS)));
    }
}
