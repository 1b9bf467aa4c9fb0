//! The cache of the Hugging Face hub on disk, and what is downloaded into it.
//!
//! Owns where both are and the library that knows the cache's layout; `download.rs` has the transfer. The cache is the one
//! that transformers and the hub's own tools use; `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` mean what they mean
//! there, and one that is set to nothing is not set. Which files a model needs is `model::hub`'s affair.

use super::door::Door;
use super::download::{self, Endpoint, Remote};
use super::failure::unwritable;
use super::location::{Location, is_folder, is_plain};
use super::read;
use crate::error::{Error, Result};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const ENDPOINT: &str = "https://huggingface.co";

/// Where the hub and its cache are.
#[derive(Clone)]
pub struct Hub {
    cache: Cache,
    pub endpoint: String,
    token: Option<String>,
    /// Nothing is to be downloaded.
    pub offline: bool,
}

/// What the hub says of a revision.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// A repository at one commit, as the hub lists it.
pub struct Snapshot {
    hub: Hub,
    name: String,
    commit: String,
    /// Where its files are in the cache, once they are there.
    pub folder: PathBuf,
    /// Names of its files.
    pub files: BTreeSet<String>,
}

impl Hub {
    /// # Errors
    /// No home folder, and nothing that says where else the cache is.
    pub fn from_env() -> Result<Self> {
        let home = home().ok_or_else(|| {
            Error::file("there is no home folder to keep the hub's cache in").hint("set HF_HOME to a folder")
        })?;
        let shared = Cache::new(home.join("hub"));
        let yes = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        Ok(Self {
            endpoint: set("HF_ENDPOINT").unwrap_or(ENDPOINT.into()).trim_end_matches('/').to_string(),
            token: set("HF_TOKEN").map(|token| token.trim().to_string()).or_else(|| shared.token()),
            offline: set("HF_HUB_OFFLINE").is_some_and(yes),
            cache: cache_folder().map_or(shared, Cache::new),
        })
    }

    /// The cache's folder.
    pub fn cache(&self) -> &Path {
        self.cache.path()
    }

    /// The folder in the cache that a revision stands for, if there is one: a name is looked up, a commit is one.
    pub fn cached(&self, door: &Door, name: &str, revision: &str) -> Option<Location> {
        let repo = repo(name, revision);
        let named = door.at(self.cache()).join(repo.folder_name()).join("refs").join(revision);
        let commit = read::text(&named).map_or(revision.to_string(), |commit| commit.trim().to_string());
        let folder = door.at(self.cache.repo(repo).pointer_path(&commit));
        (is_plain(&commit) && is_folder(&folder)).then_some(folder)
    }

    fn at<'a>(&'a self, path: &str, left: &'a AtomicBool) -> Endpoint<'a> {
        Endpoint { url: format!("{}/{path}", self.endpoint), token: self.token.as_deref(), left }
    }

    /// Asks the hub for a revision.
    ///
    /// # Errors
    /// The reason why it could not be had; `left` was set.
    pub fn snapshot(&self, name: &str, revision: &str, left: &AtomicBool) -> std::result::Result<Snapshot, String> {
        let at = self.at(&format!("api/{}", repo(name, revision).api_url()), left);
        let Info { sha, siblings } = serde_json::from_value(download::json(&at)?)
            .map_err(|e| format!("the hub's list of files lacks something: {e}"))?;
        if !is_plain(&sha) {
            return Err(format!("the hub names the commit {sha:?}"));
        }
        // By its commit: all files are of one version, whatever is pushed meanwhile.
        Ok(Snapshot {
            hub: self.clone(),
            name: name.to_string(),
            folder: self.cache.repo(repo(name, &sha)).pointer_path(&sha),
            commit: sha,
            files: siblings.into_iter().map(|file| file.rfilename).collect(),
        })
    }
}

impl Snapshot {
    /// Downloads a file into the cache.
    ///
    /// # Errors
    /// The reason why it could not be had; `left` was set.
    pub fn download(&self, file: &str, left: &AtomicBool) -> std::result::Result<(), String> {
        let at = self.hub.at(&format!("{}/resolve/{}/{file}", self.name, self.commit), left);
        let remote = Remote { at, commit: &self.commit, name: file };
        download::fetch(&remote, &self.hub.cache().join(folder_name(&self.name)))
    }

    /// Notes in the cache that `revision` stands for this commit.
    ///
    /// # Errors
    /// A cache that cannot be written.
    pub fn keep_as(&self, revision: &str) -> Result<()> {
        let kept = self.hub.cache.repo(repo(&self.name, revision)).create_ref(&self.commit);
        kept.map_err(|e| unwritable(self.hub.cache(), &e))
    }
}

fn repo(name: &str, revision: &str) -> Repo {
    Repo::with_revision(name.to_string(), RepoType::Model, revision.to_string())
}

/// The name of a repository's folder in the cache.
pub fn folder_name(name: &str) -> String {
    Repo::model(name.to_string()).folder_name()
}

/// Where models from the hub are kept.
pub fn cache_folder() -> Option<PathBuf> {
    set("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home()?.join("hub")))
}

/// The folder of the hub's tools.
fn home() -> Option<PathBuf> {
    set("HF_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cache/huggingface")))
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
