//! Models on the Hugging Face hub: taken from its cache where they are there, else downloaded into it.
//!
//! Owns which files a model needs and what is said when they cannot be had; where the cache is, and the downloads
//! themselves, are `files::hub`'s.

use super::chat::NAMED;
use super::weights::{self, INDEX, SINGLE, index};
use crate::budget;
use crate::error::{Error, Kind, Result};
use crate::files::hub::{Hub, folder_name};
use crate::files::{self, Door, Location};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

/// The folder of the model `owner/name` or `owner/name@revision`, in the hub's cache, through `door`. A snapshot that is complete
/// there is used as it is, without asking the hub; else what is missing is downloaded. `tell` hears the name of each
/// file before it is.
///
/// # Errors
/// A hub that cannot be reached or does not know the model; a model without safetensors.
pub fn fetch(id: &str, door: &Door, tell: &mut dyn FnMut(&str)) -> Result<Location> {
    let id = Id::parse(id).ok_or_else(|| {
        Error::new(Kind::Name, format!("{id:?} is not a hub id")).hint("a hub id is owner/name, or owner/name@revision")
    })?;
    let hub = Hub::from_env()?;
    let kept = hub.cached(door, &id.name, &id.revision);
    if let Some(dir) = kept.as_ref().filter(|dir| is_whole(dir)) {
        return Ok(dir.clone());
    }
    let usable = kept.filter(is_usable);
    if hub.offline {
        return usable.ok_or_else(|| unreachable(&hub, &id, "HF_HUB_OFFLINE is set, and it is not in the cache"));
    }
    match (download(&hub, &id, door, tell), usable) {
        (Ok(dir), _) => Ok(dir),
        // What is there serves as it is: some models have no tokenizer.
        (Err(e), Some(dir)) if e.kind != Kind::Interrupted => Ok(dir),
        (Err(e), _) => Err(e),
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
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.revision.as_str() {
            "main" => write!(f, "{}", self.name),
            revision => write!(f, "{}@{revision}", self.name),
        }
    }
}

fn download(hub: &Hub, id: &Id, door: &Door, tell: &mut dyn FnMut(&str)) -> Result<Location> {
    let (asked, name, revision) = (hub.clone(), id.name.clone(), id.revision.clone());
    let snapshot =
        while_wanted(move |left| asked.snapshot(&name, &revision, left))?.map_err(|e| failed(hub, id, &e))?;
    let snapshot = Arc::new(snapshot);
    let folder = door.at(&*snapshot.folder);
    let listed: BTreeSet<&str> = snapshot.files.iter().map(String::as_str).collect();
    let mut get = |name: &str| -> Result<()> {
        if files::is_file(&folder.join(name)) {
            return Ok(());
        }
        tell(name);
        let (from, file) = (snapshot.clone(), name.to_string());
        while_wanted(move |left| from.download(&file, left))?.map_err(|e| failed(hub, id, &e))
    };
    let (first, weights) = plan(id, &listed)?;
    for name in first.iter().chain(TOKENIZER.iter().chain(&BESIDE).filter(|name| listed.contains(*name))) {
        get(name)?;
    }
    let templates = |name: &&str| {
        name.strip_prefix(NAMED).and_then(|name| name.strip_prefix('/')).is_some_and(files::is_plain)
            && name.ends_with(".jinja")
    };
    for name in listed.iter().copied().filter(templates) {
        get(name)?;
    }
    get(weights)?;
    if weights == INDEX {
        for shard in shards(&folder.join(INDEX))? {
            if !listed.contains(shard.as_str()) || !files::is_plain(&shard) {
                return Err(Error::model(format!("{id} names the shard {shard:?} in {INDEX}, but does not hold it"))
                    .hint("the model was not uploaded as a whole: choose another revision, owner/name@revision"));
            }
            get(&shard)?;
        }
    }
    snapshot.keep_as(&id.revision)?;
    Ok(folder)
}

/// Asks a hub that may take as long as it likes, or never answer: it is left alone once the work is no longer wanted, and told
/// so by a flag, which ends it where it goes on.
///
/// # Errors
/// `Interrupted` then; a system that gives no thread.
fn while_wanted<T: Send + 'static>(
    ask: impl FnOnce(&AtomicBool) -> std::result::Result<T, String> + Send + 'static,
) -> Result<std::result::Result<T, String>> {
    let left = Arc::new(AtomicBool::new(false));
    let seen = left.clone();
    let answer = budget::apart(Duration::MAX, move || ask(&seen));
    left.store(true, Ordering::Relaxed);
    Ok(answer?.unwrap_or_else(|| Err("the download has failed".into())))
}

/// What is said when the hub does not give what was asked of it; `text` is its library's reason.
fn failed(hub: &Hub, id: &Id, text: &str) -> Error {
    let status = ["401", "403", "404"].into_iter().find(|status| text.contains(&format!("status: {status}")));
    match status {
        Some(status) => {
            Error::model(format!("{} has no model {id}, or does not show it to you (status {status})", hub.endpoint))
                .hint(format!(
                    "{}; for a private or gated model set HF_TOKEN, after you have been given access on its page",
                    no_folder(id)
                ))
        }
        None => unreachable(hub, id, text),
    }
}

fn unreachable(hub: &Hub, id: &Id, reason: &str) -> Error {
    let (cache, folder) = (hub.cache().display(), folder_name(&id.name));
    Error::model(format!("the model {id} could not be fetched from {}: {reason}", hub.endpoint)).hint(format!(
        "{}; without network put {CONFIG}, {SINGLE} (or {INDEX} and the shards that it names), {}, {} and, where the \
         model has them, generation_config.json and chat_template.jinja into a folder and give its path, or copy the \
         folder {folder} from the cache of a machine that has it to {cache}",
        no_folder(id),
        TOKENIZER[0],
        TOKENIZER[1],
    ))
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
    Err(missing(SINGLE).hint(match listed.iter().find(|name| index::is_pickle(name)) {
        Some(name) => index::refuse_pickle(name),
        None if listed.iter().any(|name| name.ends_with(".gguf")) => {
            "it holds GGUF files, which load_frozen(path) reads: download one of them".to_string()
        }
        None => "only models with weights in safetensors are read".to_string(),
    }))
}

/// Whether nothing that a model may need can be missing.
fn is_whole(dir: &Location) -> bool {
    is_adapter(dir) || is_usable(dir) && has_all(dir, &TOKENIZER)
}

/// Whether a model can be opened from the folder.
fn is_usable(dir: &Location) -> bool {
    let all = |shards: BTreeSet<String>| shards.iter().all(|shard| files::is_file(&dir.join(shard)));
    is_adapter(dir)
        || has_all(dir, &[CONFIG])
            && weights::exist(dir)
            && (has_all(dir, &[SINGLE]) || shards(&dir.join(INDEX)).is_ok_and(all))
}

fn is_adapter(dir: &Location) -> bool {
    has_all(dir, &ADAPTER)
}

fn has_all(dir: &Location, names: &[&str]) -> bool {
    names.iter().all(|name| files::is_file(&dir.join(name)))
}

/// The files that an index names.
fn shards(path: &Location) -> Result<BTreeSet<String>> {
    let entries = index::entries(&files::bytes(path)?, &path.display().to_string())?;
    Ok(entries.into_iter().map(|(_, file)| file).collect())
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
