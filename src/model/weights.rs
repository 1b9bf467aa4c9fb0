//! Parameters in files: safetensors, one file or shards with an index, read to f32 and written in f32, f16 or bf16.
//!
//! Owns no shapes (`Config::parameters` says what must be there). Every difference between a file and the
//! configuration is an error that names the tensor, the file, what was expected and what was found.

use crate::error::{Error, Result};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const PICKLES: [&str; 3] = ["bin", "pt", "pth"];
/// Headers of real models stay far below; a larger length is not a safetensors file.
const MAX_HEADER: u64 = 100_000_000;
/// How many differences one error lists.
const LISTED: usize = 8;

/// Whether a folder holds safetensors weights under one of the names that are read.
pub fn exist(dir: &Path) -> bool {
    dir.join(SINGLE).is_file() || dir.join(INDEX).is_file()
}

/// The type that numbers are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveDtype {
    F32,
    F16,
    BF16,
}

impl SaveDtype {
    pub const NAMES: [&str; 3] = ["f32", "f16", "bf16"];

    /// `f32`, `f16` or `bf16`.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::BF16),
            _ => Err(Error::unknown("dtype", name, &Self::NAMES).hint(format!("known: {}", Self::NAMES.join(", ")))),
        }
    }

    /// Fails for a type that weights are stored but not trained in.
    pub fn check_trainable(self) -> Result<()> {
        match self {
            Self::F32 => Ok(()),
            Self::F16 | Self::BF16 => {
                Err(Error::value(format!("models are trained in f32, not in {}", self.long_name()))
                    .hint("leave dtype out: files in half precision are read to f32, and save takes a dtype"))
            }
        }
    }

    /// The name in `config.json`.
    pub fn long_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
        }
    }

    fn stored(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
        }
    }

    fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::F32 => values.iter().for_each(|x| out.extend(x.to_le_bytes())),
            Self::F16 => values.iter().for_each(|&x| out.extend(f16::from_f32(x).to_le_bytes())),
            Self::BF16 => values.iter().for_each(|&x| out.extend(bf16::from_f32(x).to_le_bytes())),
        }
    }
}

/// Where one tensor's bytes are.
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// From the start of the file.
    start: u64,
    end: u64,
}

/// The numbers of every parameter in `expected` (name and shape), in that order, from the safetensors in `dir`.
///
/// `tied` allows a `lm_head.weight` that repeats the embedding, as some published models do.
pub fn read(dir: &Path, expected: &[(String, Vec<usize>)], tied: bool) -> Result<Vec<Vec<f32>>> {
    let paths = files(dir)?;
    let mut opened = Vec::with_capacity(paths.len());
    let mut found = BTreeMap::new();
    for (i, path) in paths.iter().enumerate() {
        let mut file = File::open(path).map_err(|e| unreadable(path, &e))?;
        for (name, entry) in header(&mut file, path, i)? {
            if let Some(Entry { file, .. }) = found.insert(name.clone(), entry) {
                return Err(Error::model(format!(
                    "tensor {name} is in two files: {} and {}",
                    paths[file].display(),
                    path.display()
                )));
            }
        }
        opened.push(file);
    }
    let repeated = if tied { found.remove("lm_head.weight") } else { None };
    compare(expected, &found, &paths)?;
    let mut load = |name: &str, entry: &Entry| numbers(&mut opened[entry.file], &paths[entry.file], name, entry);
    let mut all = Vec::with_capacity(expected.len());
    for (name, _) in expected {
        let values = load(name, &found[name])?;
        if name == "model.embed_tokens.weight"
            && let Some(head) = &repeated
            && load("lm_head.weight", head)? != values
        {
            return Err(Error::model(format!(
                "{} holds a lm_head.weight that differs from model.embed_tokens.weight, but config.json ties them",
                paths[head.file].display()
            ))
            .hint("set tie_word_embeddings to false in config.json to use the head as it is"));
        }
        all.push(values);
    }
    Ok(all)
}

/// The same from a file that is already in memory (built-in models).
pub fn read_bytes(bytes: &[u8], label: &str, expected: &[(String, Vec<usize>)]) -> Result<Vec<Vec<f32>>> {
    let path = PathBuf::from(label);
    let mut file = std::io::Cursor::new(bytes);
    let found = header(&mut file, &path, 0)?.into_iter().collect();
    compare(expected, &found, std::slice::from_ref(&path))?;
    expected.iter().map(|(name, _)| numbers(&mut file, &path, name, &found[name])).collect()
}

/// Writes `parameters` (name, shape, numbers; sorted by name) to `path`. The same numbers give the same bytes.
pub fn write(path: &Path, parameters: &[(&str, Vec<usize>, Vec<f32>)], dtype: SaveDtype) -> Result<()> {
    let width = dtype.stored().bitsize() / 8;
    let mut offset = 0;
    let mut infos = Vec::with_capacity(parameters.len());
    for (name, shape, values) in parameters {
        let end = offset + values.len() * width;
        let info = TensorInfo { dtype: dtype.stored(), shape: shape.clone(), data_offsets: (offset, end) };
        infos.push((name.to_string(), info));
        offset = end;
    }
    // One key only: a hash map's order cannot show.
    let about = HashMap::from([("format".to_string(), "pt".to_string())]);
    let invalid = |e: &dyn std::fmt::Display| Error::model(format!("{}: {e}", path.display()));
    let metadata = Metadata::new(Some(about), infos).map_err(|e| invalid(&e))?;
    let mut head = serde_json::to_vec(&metadata).map_err(|e| invalid(&e))?;
    head.resize(head.len().next_multiple_of(8), b' ');
    replace(path, |out| {
        out.write_all(&(head.len() as u64).to_le_bytes())?;
        out.write_all(&head)?;
        let mut bytes = Vec::new();
        for (_, _, values) in parameters {
            dtype.encode(values, &mut bytes);
            out.write_all(&bytes)?;
        }
        Ok(())
    })
}

/// Replaces a file as a whole: what stood there stays until the new content is complete.
pub fn replace(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let part = path.with_file_name(format!(".{name}.part-{}", std::process::id()));
    let done = File::create(&part).and_then(|file| {
        let mut out = BufWriter::new(file);
        fill(&mut out)?;
        out.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        std::fs::rename(&part, path)
    });
    done.map_err(|e| {
        // The unfinished file is ours; if it cannot be removed either, the first failure is the one to report.
        std::fs::remove_file(&part).ok();
        Error::file(format!("{} could not be written: {e}", path.display()))
    })
}

/// The weight files of a folder: the single file, or the shards that the index names.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let single = dir.join(SINGLE);
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = dir.join(INDEX);
    if !index.is_file() {
        return Err(no_weights(dir));
    }
    let text = std::fs::read_to_string(&index).map_err(|e| unreadable(&index, &e))?;
    let value: Value =
        serde_json::from_str(&text).map_err(|e| Error::model(format!("{} could not be read: {e}", index.display())))?;
    let map = value.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| Error::model(format!("{} has no weight_map", index.display())))?;
    let mut names: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    for name in &names {
        if name.contains(['/', '\\']) || !dir.join(name).is_file() {
            return Err(Error::model(format!(
                "{} names the file {name:?}, which is not in the folder",
                index.display()
            ))
            .hint("the model was not copied as a whole: fetch the missing shard"));
        }
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

fn no_weights(dir: &Path) -> Error {
    let listing = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut pickles: Vec<PathBuf> = listing
        .filter(|path| path.extension().and_then(|ext| ext.to_str()).is_some_and(|ext| PICKLES.contains(&ext)))
        .collect();
    pickles.sort();
    let missing = Error::model(format!("{} holds no {SINGLE} (nor {INDEX})", dir.display()));
    match pickles.first().and_then(|path| path.file_name()) {
        Some(name) => missing.hint(format!(
            "{} is a pickle, which runs code when it is opened, so it is not read: \
             save the model again in transformers with safe_serialization=True",
            name.to_string_lossy()
        )),
        None => missing.hint("a model folder holds config.json, model.safetensors and tokenizer.json"),
    }
}

/// The tensors of one file, every position checked against the file's length.
fn header<R: Read + Seek>(file: &mut R, path: &Path, index: usize) -> Result<Vec<(String, Entry)>> {
    let broken = |what: String| {
        Error::model(format!("{}: {what}", path.display())).hint("the file is damaged or incomplete: fetch it again")
    };
    let size = file.seek(SeekFrom::End(0)).and_then(|size| file.rewind().map(|()| size));
    let size = size.map_err(|e| unreadable(path, &e))?;
    if size < 8 {
        return Err(broken(format!("the file has {size} bytes, too few for a safetensors file")));
    }
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|e| unreadable(path, &e))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length > size - 8 {
        return Err(broken(format!(
            "a header of {length} bytes is announced, but the file has {size} bytes: not a safetensors file, or cut short"
        )));
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(|e| unreadable(path, &e))?;
    let parsed: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|e| broken(format!("the header could not be read: {e}")))?;
    let mut entries = Vec::with_capacity(parsed.len());
    for (name, value) in parsed {
        if name == "__metadata__" {
            continue;
        }
        let info: TensorInfo = serde_json::from_value(value)
            .map_err(|e| broken(format!("the entry of tensor {name} could not be read: {e}")))?;
        let (from, to) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let count = info.shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
        let bits = count.and_then(|n| n.checked_mul(info.dtype.bitsize()));
        if to < from || bits.is_none_or(|bits| bits as u64 != (to - from).saturating_mul(8)) {
            return Err(broken(format!(
                "tensor {name} of shape {:?} and type {:?} cannot lie in bytes {from}..{to}",
                info.shape, info.dtype
            )));
        }
        let (start, end) = (8 + length + from, (8 + length).saturating_add(to));
        if end > size {
            return Err(broken(format!(
                "tensor {name} of shape {:?} ends at byte {end}, but the file has {size} bytes: it is cut short",
                info.shape
            )));
        }
        entries.push((name, Entry { file: index, dtype: info.dtype, shape: info.shape, start, end }));
    }
    Ok(entries)
}

/// All differences between what the configuration asks for and what the files hold, as one error.
fn compare(expected: &[(String, Vec<usize>)], found: &BTreeMap<String, Entry>, paths: &[PathBuf]) -> Result<()> {
    let mut differences = Vec::new();
    let place = if let [one] = paths { one.display().to_string() } else { format!("{} files", paths.len()) };
    for (name, shape) in expected {
        match found.get(name) {
            None => differences.push(format!("tensor {name} of shape {shape:?} is missing from {place}")),
            Some(entry) if entry.shape != *shape => differences.push(format!(
                "tensor {name} in {}: expected shape {shape:?}, found {:?}",
                paths[entry.file].display(),
                entry.shape
            )),
            Some(_) => {}
        }
    }
    for (name, entry) in found {
        if expected.binary_search_by(|(known, _)| known.cmp(name)).is_err() {
            let path = paths[entry.file].display();
            differences.push(format!("tensor {name} of shape {:?} in {path} has no place in the model", entry.shape));
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    let more = differences.len().saturating_sub(LISTED);
    differences.truncate(LISTED);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    Err(Error::model(differences.join("\n")).hint("config.json and the weights must belong to the same model"))
}

/// Reads one tensor to f32.
fn numbers<R: Read + Seek>(file: &mut R, path: &Path, name: &str, entry: &Entry) -> Result<Vec<f32>> {
    let mut bytes = vec![0; (entry.end - entry.start) as usize];
    let read = file.seek(SeekFrom::Start(entry.start)).and_then(|_| file.read_exact(&mut bytes));
    read.map_err(|e| unreadable(path, &e))?;
    let values: Vec<f32> = match entry.dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::F16 => bytes.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks::<2>().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        other => {
            return Err(Error::model(format!(
                "tensor {name} in {}: expected type F32, F16 or BF16, found {other:?}",
                path.display()
            ))
            .hint("quantised weights are not trained: use the model's original weights"));
        }
    };
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(values),
        Some(i) => Err(Error::model(format!("tensor {name} in {}: number {i} is {}", path.display(), values[i]))
            .hint("weights must be finite: the run that saved them had failed")),
    }
}

fn unreadable(path: &Path, e: &std::io::Error) -> Error {
    Error::file(format!("{} could not be read: {e}", path.display()))
}
