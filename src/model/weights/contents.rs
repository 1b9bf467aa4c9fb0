//! What weight files hold, known from their headers; matched with what is wanted, then read block by block.

use super::header::{self, Entry, check_layout};
use super::{Naming, Wanted, index};
use crate::error::{Error, Result};
use crate::files::{self, File, Location, unreadable};
use half::{bf16, f16};
use safetensors::tensor::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How many differences one error lists.
const LISTED: usize = 8;
/// Bytes read at a time: what reading holds beside the numbers themselves.
const BLOCK: usize = 1 << 20;

/// Endings of names that old checkpoints carry and that are no parameters: the causal masks of GPT-2 and GPT-NeoX, and
/// the frequencies of rotary embeddings.
const BUFFERS: [&str; 5] =
    [".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".inv_freq"];

/// What weight files hold, from their headers alone.
#[derive(Debug)]
pub struct Contents<R> {
    files: Vec<Opened<R>>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Opened<R> {
    path: PathBuf,
    reader: R,
    size: u64,
    /// Where the data starts.
    data: u64,
}

/// Where the wanted parameters are.
struct Plan {
    /// The name in the files of each, in the order wanted.
    places: Vec<Option<String>>,
    /// A head in the files that must repeat the embedding: the embedding's place in `wanted`, the head's name.
    repeated: Option<(usize, String)>,
}

impl Contents<File> {
    /// The weights of a folder.
    pub fn folder(dir: &Location) -> Result<Self> {
        let found = index::find(dir)?;
        let mut contents = Self::empty();
        for path in found.paths {
            contents.open(&path)?;
        }
        if let Some((index, entries)) = found.index {
            for (tensor, file) in entries {
                // As in transformers a file's other tensors count too, whether the index lists them or not.
                if contents.tensors.get(&tensor).is_none_or(|entry| entry.file != file) {
                    return Err(Error::model(format!(
                        "{} says that {} holds the tensor {tensor}, which it does not",
                        index.display(),
                        contents.files[file].path.display()
                    ))
                    .hint(
                        "the index and the shards belong to different models, or a shard is damaged: fetch them again",
                    ));
                }
            }
        }
        Ok(contents)
    }

    /// One file.
    pub fn file(path: &Location) -> Result<Self> {
        let mut contents = Self::empty();
        contents.open(path)?;
        Ok(contents)
    }

    fn open(&mut self, path: &Location) -> Result<()> {
        let file = files::open(path)?;
        self.add(path.to_path_buf(), file)
    }
}

impl<'a> Contents<Cursor<&'a [u8]>> {
    /// A file in memory, called `label` in errors.
    pub fn bytes(bytes: &'a [u8], label: &str) -> Result<Self> {
        let mut contents = Self::empty();
        contents.add(PathBuf::from(label), Cursor::new(bytes))?;
        Ok(contents)
    }
}

impl<R: Read + Seek> Contents<R> {
    fn empty() -> Self {
        Self { files: Vec::new(), tensors: BTreeMap::new() }
    }

    fn add(&mut self, path: PathBuf, mut reader: R) -> Result<()> {
        let header = header::read(&mut reader, &path, self.files.len())?;
        for (name, entry) in header.tensors {
            if let Some(before) = self.tensors.get(&name) {
                let before = self.files[before.file].path.display();
                return Err(Error::model(format!("tensor {name} is in two files: {before} and {}", path.display())));
            }
            self.tensors.insert(name, entry);
        }
        self.files.push(Opened { path, reader, size: header.size, data: header.data });
        Ok(())
    }

    /// Path and bytes of each file.
    pub fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.files.iter().map(|file| (file.path.as_path(), file.size))
    }

    /// Numbers stored, by type (`BF16`).
    pub fn dtypes(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for entry in self.tensors.values() {
            *found.entry(format!("{:?}", entry.dtype)).or_default() +=
                (entry.to - entry.from) * 8 / entry.dtype.bitsize() as u64;
        }
        found
    }

    /// Fails as `read` would for what the headers show.
    pub fn check(&self, wanted: &[Wanted], names: &Naming) -> Result<()> {
        self.plan(wanted, names).map(|_| ())
    }

    pub(super) fn read(&mut self, wanted: &[Wanted], names: &Naming) -> Result<Vec<Option<Vec<f32>>>> {
        let plan = self.plan(wanted, names)?;
        let mut all = Vec::with_capacity(wanted.len());
        for place in &plan.places {
            all.push(place.as_deref().map(|name| self.numbers(name)).transpose()?);
        }
        if let Some((embedding, head)) = plan.repeated
            && let Some(values) = &all[embedding]
            && !self.repeats(&head, values)?
        {
            return Err(Error::model(format!(
                "{} holds a {head} that differs from {}, but config.json ties them",
                self.files[self.tensors[&head].file].path.display(),
                wanted[embedding].name
            ))
            .hint("set tie_word_embeddings to false in config.json to use the head as it is"));
        }
        Ok(all)
    }

    /// Finds every wanted parameter; all differences between what is wanted and what the files hold, as one error.
    fn plan(&self, wanted: &[Wanted], names: &Naming) -> Result<Plan> {
        let mut differences = Vec::new();
        let (mut places, mut used) = (Vec::with_capacity(wanted.len()), BTreeSet::new());
        for Wanted { name, shape, optional } in wanted {
            let place = self.find(name, names);
            used.extend(place);
            match place.map(|name| &self.tensors[name]) {
                None if *optional => {}
                None => differences.push(format!("tensor {name} of shape {shape:?} is missing from {}", self.place())),
                Some(entry) if entry.shape != *shape => differences.push(format!(
                    "tensor {name} in {}: expected shape {shape:?}, found {:?}",
                    self.path(entry),
                    entry.shape
                )),
                Some(_) => {}
            }
            places.push(place.map(str::to_string));
        }
        let repeated = names.tied.as_ref().and_then(|[embedding, head]| {
            let place = wanted.iter().position(|w| w.name == *embedding)?;
            (self.tensors.contains_key(head) && !used.contains(head.as_str())).then(|| (place, head.clone()))
        });
        for (name, entry) in &self.tensors {
            let known = used.contains(name.as_str())
                || names.ignored.contains(name)
                || repeated.as_ref().is_some_and(|(_, head)| head == name)
                || BUFFERS.iter().any(|ending| name.ends_with(ending));
            if !known {
                let path = self.path(entry);
                differences
                    .push(format!("tensor {name} of shape {:?} in {path} has no place in the model", entry.shape));
            }
        }
        if !differences.is_empty() {
            let more = differences.len().saturating_sub(LISTED);
            differences.truncate(LISTED);
            if more > 0 {
                differences.push(format!("and {more} more"));
            }
            return Err(
                Error::model(differences.join("\n")).hint("config.json and the weights must belong to the same model")
            );
        }
        for (name, entry) in places.iter().flatten().map(|name| (name, &self.tensors[name])) {
            if ![Dtype::F32, Dtype::F16, Dtype::BF16].contains(&entry.dtype) {
                return Err(not_float(name, &self.files[entry.file].path, entry.dtype));
            }
        }
        for (i, file) in self.files.iter().enumerate() {
            let own = self.tensors.iter().filter(|(_, entry)| entry.file == i);
            check_layout(&file.path, file.size - file.data, own)?;
        }
        Ok(Plan { places, repeated })
    }

    /// The name in the files of the parameter `name`.
    fn find<'s>(&'s self, name: &str, names: &Naming) -> Option<&'s str> {
        let get = |name: &str| self.tensors.get_key_value(name).map(|(name, _)| name.as_str());
        let short = || Some(names.base).filter(|base| !base.is_empty()).and_then(|base| get(name.strip_prefix(base)?));
        let tied = || names.tied.as_ref().filter(|[embedding, _]| embedding == name).and_then(|[_, head]| get(head));
        get(name).or_else(short).or_else(tied)
    }

    fn path(&self, entry: &Entry) -> std::path::Display<'_> {
        self.files[entry.file].path.display()
    }

    /// The file, or how many there are.
    fn place(&self) -> String {
        match &self.files[..] {
            [one] => one.path.display().to_string(),
            many => format!("{} files", many.len()),
        }
    }

    /// Reads one tensor to f32.
    fn numbers(&mut self, name: &str) -> Result<Vec<f32>> {
        let entry = self.tensors[name].clone();
        let count = ((entry.to - entry.from) * 8 / entry.dtype.bitsize() as u64) as usize;
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|_| {
            Error::model(format!("tensor {name} of shape {:?} does not fit into memory", entry.shape))
                .hint("choose a smaller model, or a machine with more memory")
        })?;
        self.blocks(name, &entry, |block| {
            values.extend_from_slice(block);
            true
        })?;
        match values.iter().position(|x: &f32| !x.is_finite()) {
            None => Ok(values),
            Some(i) => {
                Err(Error::model(format!("tensor {name} in {}: number {i} is {}", self.path(&entry), values[i]))
                    .hint("weights must be finite: the run that saved them had failed"))
            }
        }
    }

    /// Whether the tensor holds `values`.
    fn repeats(&mut self, name: &str, values: &[f32]) -> Result<bool> {
        let entry = self.tensors[name].clone();
        let (mut at, mut same) = (0, true);
        self.blocks(name, &entry, |block| {
            same = values.get(at..at + block.len()) == Some(block);
            at += block.len();
            same
        })?;
        Ok(same && at == values.len())
    }

    /// Gives a tensor's numbers to `take`, block by block, until it returns false.
    fn blocks(&mut self, name: &str, entry: &Entry, mut take: impl FnMut(&[f32]) -> bool) -> Result<()> {
        let file = &mut self.files[entry.file];
        let decode: fn(&[u8], &mut Vec<f32>) = match entry.dtype {
            Dtype::F32 => |bytes, out| out.extend(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b))),
            Dtype::F16 => |bytes, out| {
                out.extend(bytes.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()));
            },
            Dtype::BF16 => |bytes, out| {
                out.extend(bytes.as_chunks::<2>().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()));
            },
            other => return Err(not_float(name, &file.path, other)),
        };
        let mut left = (entry.to - entry.from) as usize;
        let (mut bytes, mut values) = (vec![0; left.min(BLOCK)], Vec::new());
        file.reader.seek(SeekFrom::Start(file.data + entry.from)).map_err(|e| unreadable(&file.path, &e))?;
        while left > 0 {
            let part = &mut bytes[..left.min(BLOCK)];
            file.reader.read_exact(part).map_err(|e| unreadable(&file.path, &e))?;
            left -= part.len();
            values.clear();
            decode(part, &mut values);
            if !take(&values) {
                break;
            }
        }
        Ok(())
    }
}

fn not_float(name: &str, path: &Path, found: Dtype) -> Error {
    Error::model(format!("tensor {name} in {}: expected type F32, F16 or BF16, found {found:?}", path.display()))
        .hint("quantised weights are not trained: use the model's original weights")
}
