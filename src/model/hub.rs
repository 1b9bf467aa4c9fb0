//! Models on the Hugging Face hub: taken from its cache where they are there, else downloaded into it.
//!
//! Owns which files a model needs and what is said when they cannot be had. The cache is the one that transformers
//! and the hub's own tools use. `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` mean what
//! they mean there.

use super::weights::{self, INDEX, SINGLE, files};
use crate::error::{Error, Kind, Result};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const ENDPOINT: &str = "https://huggingface.co";
const CONFIG: &str = "config.json";
/// An adapter on its own, in PEFT's layout.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// Every tokenizer that can be read has these. A snapshot without them may be one that was never fetched as a whole.
const TOKENIZER: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];
/// Taken where the model has them.
const BESIDE: [&str; 6] = [
    "generation_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// Whether `text` could be a hub id: `owner/name`, or `owner/name@revision`.
pub fn is_id(text: &str) -> bool {
    Id::parse(text).is_some()
}

/// The folder of the model `owner/name` or `owner/name@revision`, in the hub's cache. A snapshot that is complete
/// there is used as it is, without asking the hub; else what is missing is downloaded.
///
/// # Errors
/// A hub that cannot be reached or does not know the model; a model without safetensors.
pub fn fetch(id: &str) -> Result<PathBuf> {
    fetch_with(id, &mut |_| {})
}

/// The same; `tell` hears the name of each file before it is downloaded.
pub fn fetch_with(id: &str, tell: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let id = Id::parse(id).ok_or_else(|| {
        Error::new(Kind::Name, format!("{id:?} is no hub id")).hint("a hub id is owner/name, or owner/name@revision")
    })?;
    let hub = Hub::from_env()?;
    let kept = hub.snapshot(&id);
    if let Some(dir) = kept.as_ref().filter(|dir| is_whole(dir)) {
        return Ok(dir.clone());
    }
    let usable = kept.filter(|dir| is_usable(dir));
    if hub.offline {
        return usable.ok_or_else(|| hub.unreachable(&id, "HF_HUB_OFFLINE is set, and it is not in the cache"));
    }
    match (hub.download(&id, tell), usable) {
        (Ok(dir), _) => Ok(dir),
        // What is there serves as it is: some models have no tokenizer.
        (Err(_), Some(dir)) => Ok(dir),
        (Err(e), None) => Err(e),
    }
}

/// A hub id taken apart.
struct Id {
    name: String,
    revision: String,
}

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (owner, model) = name.split_once('/')?;
        let fine = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
        // Names become folders: none of them may lead out of the cache.
        let part = |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && part.chars().all(fine);
        let all = part(owner) && part(model) && revision.split('/').all(part);
        all.then(|| Self { name: name.to_string(), revision: revision.to_string() })
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.name.clone(), RepoType::Model, revision.to_string())
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.revision.as_str() {
            "main" => write!(f, "{}", self.name),
            revision => write!(f, "{}@{revision}", self.name),
        }
    }
}

/// Where the hub and its cache are.
struct Hub {
    cache: Cache,
    endpoint: String,
    token: Option<String>,
    offline: bool,
}

impl Hub {
    fn from_env() -> Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let home = match set("HF_HOME") {
            Some(home) => PathBuf::from(home),
            None => std::env::home_dir().map(|home| home.join(".cache/huggingface")).ok_or_else(|| {
                Error::file("there is no home folder to keep the hub's cache in").hint("set HF_HOME to a folder")
            })?,
        };
        let shared = Cache::new(home.join("hub"));
        let cache = set("HF_HUB_CACHE").map_or_else(|| shared.clone(), |path| Cache::new(path.into()));
        let yes = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        Ok(Self {
            endpoint: set("HF_ENDPOINT").unwrap_or(ENDPOINT.into()).trim_end_matches('/').to_string(),
            token: set("HF_TOKEN").or_else(|| shared.token()),
            offline: set("HF_HUB_OFFLINE").is_some_and(yes),
            cache,
        })
    }

    /// The folder in the cache that a revision stands for, if there is one: a name is looked up, a commit is one.
    fn snapshot(&self, id: &Id) -> Option<PathBuf> {
        let repo = id.repo(&id.revision);
        let named = self.cache.path().join(repo.folder_name()).join("refs").join(&id.revision);
        let commit = std::fs::read_to_string(named).map_or(id.revision.clone(), |commit| commit.trim().to_string());
        let dir = self.cache.repo(repo).pointer_path(&commit);
        (files::plain(&commit) && dir.is_dir()).then_some(dir)
    }

    fn download(&self, id: &Id, tell: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let failed = |e: ApiError| self.failed(id, &e);
        let builder = ApiBuilder::from_cache(self.cache.clone()).with_progress(false);
        let builder = builder.with_endpoint(self.endpoint.clone()).with_token(self.token.clone());
        let api: Api = builder.build().map_err(failed)?;
        let info = api.repo(id.repo(&id.revision)).info().map_err(failed)?;
        if !files::plain(&info.sha) {
            return Err(self.unreachable(id, &format!("the hub names the commit {:?}", info.sha)));
        }
        // By its commit: all files are of one version, whatever is pushed meanwhile.
        let (repo, dir) = (api.repo(id.repo(&info.sha)), self.cache.repo(id.repo(&info.sha)).pointer_path(&info.sha));
        let listed: BTreeSet<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        let mut get = |name: &str| -> Result<()> {
            if dir.join(name).is_file() {
                return Ok(());
            }
            tell(name);
            repo.download(name).map(|_| ()).map_err(failed)
        };
        let (first, weights) = plan(id, &listed)?;
        for name in first.iter().chain(TOKENIZER.iter().chain(&BESIDE).filter(|name| listed.contains(*name))) {
            get(name)?;
        }
        get(weights)?;
        if weights == INDEX {
            for shard in shards(&dir.join(INDEX))? {
                if !listed.contains(shard.as_str()) || !files::plain(&shard) {
                    return Err(Error::model(format!(
                        "{id} names the shard {shard:?} in {INDEX}, but does not hold it"
                    ))
                    .hint("the model was not uploaded as a whole: choose another revision, owner/name@revision"));
                }
                get(&shard)?;
            }
        }
        let written = self.cache.repo(id.repo(&id.revision)).create_ref(&info.sha);
        written.map_err(|e| Error::file(format!("{} could not be written: {e}", self.cache.path().display())))?;
        Ok(dir)
    }

    fn failed(&self, id: &Id, e: &ApiError) -> Error {
        let text = e.to_string();
        let status = ["401", "403", "404"].into_iter().find(|status| text.contains(&format!("status: {status}")));
        match status {
            Some(status) => Error::model(format!(
                "{} has no model {id}, or does not show it to you (status {status})",
                self.endpoint
            ))
            .hint(format!(
                "{}; for a private or gated model set HF_TOKEN, after you have been given access on its page",
                no_folder(id)
            )),
            None => self.unreachable(id, &text),
        }
    }

    fn unreachable(&self, id: &Id, reason: &str) -> Error {
        let (cache, folder) = (self.cache.path().display(), id.repo("main").folder_name());
        Error::model(format!("the model {id} could not be fetched from {}: {reason}", self.endpoint)).hint(format!(
            "{}; without network put {CONFIG}, {SINGLE} (or {INDEX} and the shards that it names), {}, {} and, where the \
             model has them, generation_config.json and chat_template.jinja into a folder and give its path, or copy the \
             folder {folder} from the cache of a machine that has it to {cache}",
            no_folder(id),
            TOKENIZER[0],
            TOKENIZER[1],
        ))
    }
}

/// An id looks like a path, and may have been meant as one.
fn no_folder(id: &Id) -> String {
    format!("there is no folder {id} either")
}

/// Which files a model must have beside its weights, and the file that its weights begin with.
fn plan<'a>(id: &Id, listed: &BTreeSet<&'a str>) -> Result<(Vec<&'a str>, &'a str)> {
    let has = |name: &str| listed.get(name).copied();
    let weights = has(SINGLE).or(has(INDEX));
    if let (Some(config), Some(weights)) = (has(CONFIG), weights) {
        return Ok((vec![config], weights));
    }
    if let (Some(config), Some(weights)) = (has(ADAPTER[0]), has(ADAPTER[1])) {
        return Ok((vec![config], weights));
    }
    let missing = |what: &str| Error::model(format!("{id} on the hub holds no {what}"));
    if weights.is_some() {
        return Err(missing(CONFIG).hint("only models in the layout of transformers are read"));
    }
    Err(missing(SINGLE).hint(match listed.iter().find(|name| files::is_pickle(name)) {
        Some(name) => files::refuse_pickle(name),
        None if listed.iter().any(|name| name.ends_with(".gguf")) => {
            "it holds GGUF files, which load_frozen(path) reads: download one of them".to_string()
        }
        None => "only models with weights in safetensors are read".to_string(),
    }))
}

/// Whether nothing that a model may need can be missing.
fn is_whole(dir: &Path) -> bool {
    is_adapter(dir) || is_usable(dir) && TOKENIZER.iter().all(|name| dir.join(name).is_file())
}

/// Whether a model can be opened from the folder.
fn is_usable(dir: &Path) -> bool {
    let all = |shards: BTreeSet<String>| shards.iter().all(|shard| dir.join(shard).is_file());
    is_adapter(dir)
        || dir.join(CONFIG).is_file()
            && weights::exist(dir)
            && (dir.join(SINGLE).is_file() || shards(&dir.join(INDEX)).is_ok_and(all))
}

fn is_adapter(dir: &Path) -> bool {
    ADAPTER.iter().all(|name| dir.join(name).is_file())
}

/// The files that an index names.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read(index).map_err(|e| Error::file(format!("{} could not be read: {e}", index.display())))?;
    Ok(files::entries(&text, &index.display().to_string())?.into_iter().map(|(_, file)| file).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        for id in ["Qwen/Qwen2.5-0.5B", "a/b@main", "a/b@refs/pr/1", "a/b@0123abc", "x_y/z-1.0"] {
            assert!(is_id(id), "{id}");
        }
        for path in [
            "tiny", "a/b/c", "./a", "../a", "/a", "a/", "/", "a/..", "a/.b", "~/a", "a b/c", "a/b@", "a/b@../c", "a\\b",
        ] {
            assert!(!is_id(path), "{path}");
        }
        assert_eq!(Id::parse("a/b@main").map(|id| id.to_string()).as_deref(), Some("a/b"));
    }

    #[test]
    fn what_a_repository_must_hold() {
        let id = Id::parse("a/b").expect("an id");
        let of = |names: &[&'static str]| plan(&id, &names.iter().copied().collect());
        assert_eq!(of(&["config.json", SINGLE, INDEX]).expect("a model"), (vec!["config.json"], SINGLE));
        assert_eq!(of(&["config.json", INDEX]).expect("a model"), (vec!["config.json"], INDEX));
        assert_eq!(of(&ADAPTER).expect("an adapter"), (vec![ADAPTER[0]], ADAPTER[1]));
        let cases: [(&[&'static str], &str, &str); 4] = [
            (&[SINGLE], "a/b on the hub holds no config.json", "only models in the layout"),
            (
                &["config.json", "pytorch_model.bin"],
                "a/b on the hub holds no model.safetensors",
                "pytorch_model.bin is a pickle",
            ),
            (&["m.Q4_K_M.gguf"], "a/b on the hub holds no model.safetensors", "load_frozen"),
            (
                &["README.md", "training_args.bin"],
                "a/b on the hub holds no model.safetensors",
                "only models with weights",
            ),
        ];
        for (names, what, hint) in cases {
            let e = of(names).expect_err(what);
            assert_eq!(e.what, what);
            assert!(e.hint.as_ref().is_some_and(|found| found.starts_with(hint) || found.contains(hint)), "{e:?}");
        }
    }
}
