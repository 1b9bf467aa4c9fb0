//! Which files of a folder hold its weights: one, or shards that an index names. What is there instead is named.
//!
//! Owns no headers.

use super::header::Unique;
use super::{INDEX, NEEDS, SINGLE};
use crate::error::{Error, Result};
use crate::files::{self, Location};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;

const PICKLES: [&str; 4] = ["bin", "pt", "pth", "pkl"];
/// What trainers leave beside the weights, in pickles too.
const BESIDE: [&str; 5] = ["training_args", "optimizer", "scheduler", "rng_state", "scaler"];

/// The files, and what the index says of them.
pub(super) struct Files {
    pub paths: Vec<Location>,
    /// The index and its entries: tensor, and its file's place in `paths`.
    pub index: Option<(Location, Vec<(String, usize)>)>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: Option<Unique<Value>>,
}

/// The single file, or the shards that the index names. As in transformers, the single file goes first.
pub(super) fn find(dir: &Location) -> Result<Files> {
    let single = dir.join(SINGLE);
    if files::is_file(&single) {
        return Ok(Files { paths: vec![single], index: None });
    }
    let index = dir.join(INDEX);
    if !files::is_file(&index) {
        return Err(missing(dir, &format!("{SINGLE} (nor {INDEX})")));
    }
    let entries = entries(&files::bytes(&index)?, &index.display().to_string())?;
    let mut names: Vec<&str> = entries.iter().map(|(_, file)| file.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in &names {
        if !files::is_plain(name) || !files::is_file(&files::beside(&index, name)) {
            return Err(Error::model(format!(
                "{} names the file {name:?}, which is not in the folder",
                index.display()
            ))
            .hint("the model was not copied as a whole: fetch the missing shard"));
        }
    }
    let place = |file: &str| names.binary_search(&file).expect("every file is among the names");
    let entries = entries.iter().map(|(tensor, file)| (tensor.clone(), place(file))).collect();
    Ok(Files { paths: names.iter().map(|name| files::beside(&index, name)).collect(), index: Some((index, entries)) })
}

/// The tensors that an index lists, each with the name of its file.
pub(crate) fn entries(text: &[u8], label: &str) -> Result<Vec<(String, String)>> {
    let hint = "the index must map every tensor to its file, as save_pretrained writes it";
    let index: Index =
        serde_json::from_slice(text).map_err(|e| Error::model(format!("{label} could not be read: {e}")).hint(hint))?;
    let map = index.weight_map.filter(|map| !map.0.is_empty());
    let map = map.ok_or_else(|| Error::model(format!("{label} has no weight_map")).hint(hint))?;
    let pair = |(tensor, file): (String, Value)| match file {
        Value::String(file) => Ok((tensor, file)),
        other => {
            let found: String = other.to_string().chars().take(60).collect();
            Err(Error::model(format!("{label}: the file of tensor {tensor} is {found}, expected a name")).hint(hint))
        }
    };
    map.0.into_iter().map(pair).collect()
}

/// Whether the name is that of weights in a pickle.
pub(crate) fn is_pickle(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, ending)| PICKLES.contains(&ending))
        && !BESIDE.iter().any(|beside| name.starts_with(beside))
}

/// That a pickle is not read, and what to do instead.
pub(crate) fn refuse_pickle(name: &str) -> String {
    format!(
        "{name} is a pickle, which runs code when it is opened, so it is not read: \
         save the model again in transformers with safe_serialization=True"
    )
}

/// Removes the shards of a model that a single file has replaced, and their index: what the index names, if it has such a
/// name as a shard has. An index is a file that anybody can write.
///
/// # Errors
/// A file that cannot be removed.
pub fn remove_shards(dir: &Location) -> Result<()> {
    let index = dir.join(INDEX);
    let Ok(text) = files::bytes(&index) else { return Ok(()) };
    let shards = entries(&text, INDEX).unwrap_or_default().into_iter().map(|(_, file)| file);
    let names: BTreeSet<String> = shards.filter(|name| is_shard(name)).collect();
    let shards = names.iter().map(|name| files::beside(&index, name)).filter(files::is_file);
    shards.chain([index.clone()]).try_for_each(|path| files::remove_file(&path))
}

/// `model-00001-of-00002.safetensors`
fn is_shard(name: &str) -> bool {
    let numbers = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    numbers.and_then(|numbers| numbers.split_once("-of-")).is_some_and(|(i, of)| number(i) && number(of))
}

/// That `dir` does not hold `file`; a pickle that is there instead is named with the reason why it is not read.
pub fn missing(dir: &Location, file: &str) -> Error {
    let listing = files::entries(dir).unwrap_or_default().into_iter();
    let mut names = listing.filter_map(|path| path.file_name()?.to_str().map(str::to_string));
    let missing = Error::model(format!("{} holds no {file}", dir.display()));
    match names.find(|name| is_pickle(name)) {
        Some(name) => missing.hint(refuse_pickle(&name)),
        None if file.starts_with("adapter") => {
            missing.hint("an adapter's folder holds adapter_config.json and its weights")
        }
        None => missing.hint(NEEDS),
    }
}
