//! The header of one safetensors file: which tensors it holds, of which type and shape, and where.
//!
//! Nothing is trusted: every position is checked against the length of the file before a byte of data is read.
//! Owns no folders and no names: what should be in a file is the caller's affair.

use crate::error::{Error, Result};
use crate::files::unreadable;
use safetensors::tensor::Dtype;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Number, Value};
use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};
use std::marker::PhantomData;
use std::path::Path;

/// Headers of real models stay far below; the format's own limit.
const MAX_HEADER: u64 = 100_000_000;
const ABOUT: &str = "__metadata__";

/// Where one tensor's bytes are.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Which of several files.
    pub file: usize,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// From the start of the data, as the header counts.
    pub from: u64,
    pub to: u64,
}

/// The header of a file.
#[derive(Debug)]
pub(super) struct Header {
    pub tensors: Vec<(String, Entry)>,
    /// Bytes of the whole file.
    pub size: u64,
    /// Where the data starts.
    pub data: u64,
}

/// The entry of a tensor as it is written; numbers may be anything that JSON calls one.
#[derive(Deserialize)]
#[serde(expecting = "an object with dtype, shape and data_offsets")]
struct Raw {
    dtype: String,
    shape: Vec<Number>,
    data_offsets: Vec<Number>,
}

/// A JSON object whose keys differ, in the order of the file.
pub(super) struct Unique<V>(pub Vec<(String, V)>);

/// What a value under `key` is read as; errors name the key.
pub(super) trait Keyed: Sized {
    fn next<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> std::result::Result<Self, A::Error>;
}

impl Keyed for Value {
    fn next<'de, A: MapAccess<'de>>(_: &str, map: &mut A) -> std::result::Result<Self, A::Error> {
        map.next_value()
    }
}

impl Keyed for Option<Raw> {
    fn next<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> std::result::Result<Self, A::Error> {
        if key == ABOUT {
            return map.next_value::<IgnoredAny>().map(|_| None);
        }
        map.next_value().map(Some).map_err(|e| A::Error::custom(format!("tensor {key}: {e}")))
    }
}

impl<'de, V: Keyed> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Pairs<V>(PhantomData<V>);
        impl<'de, V: Keyed> Visitor<'de> for Pairs<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Unique<V>, A::Error> {
                let (mut pairs, mut seen) = (Vec::new(), BTreeSet::new());
                while let Some(key) = map.next_key::<String>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format!("{key} appears twice")));
                    }
                    let value = V::next(&key, &mut map)?;
                    pairs.push((key, value));
                }
                Ok(Unique(pairs))
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

/// What to say of a file that is not as the format wants it.
pub(super) fn broken(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::model(format!("{}: {what}", path.display())).hint("the file is damaged or incomplete: fetch it again")
}

/// Reads the header of the file at `path`, which is number `index` of several.
///
/// # Errors
/// A file that is no safetensors file or is cut short; an entry that is not one, or whose bytes do not fit its type
/// and shape or lie outside the file. Holes and overlaps are `check_layout`'s.
pub(super) fn read<R: Read + Seek>(file: &mut R, path: &Path, index: usize) -> Result<Header> {
    let size = file.seek(SeekFrom::End(0)).and_then(|size| file.rewind().map(|()| size));
    let size = size.map_err(|e| unreadable(path, &e))?;
    if size < 8 {
        return Err(broken(path, format!("the file has {size} bytes, too few for a safetensors file")));
    }
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|e| unreadable(path, &e))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length > size - 8 {
        return Err(broken(
            path,
            format!(
                "a header of {length} bytes is announced, but the file has {size} bytes: not a safetensors file, or \
                 cut short"
            ),
        ));
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(|e| unreadable(path, &e))?;
    let parsed: Unique<Option<Raw>> =
        serde_json::from_slice(&text).map_err(|e| broken(path, format!("the header could not be read: {e}")))?;
    let data = 8 + length;
    let mut tensors = Vec::with_capacity(parsed.0.len());
    for (name, raw) in parsed.0 {
        let Some(raw) = raw else { continue };
        let entry = raw.check(index).map_err(|what| broken(path, format!("tensor {name}: {what}")))?;
        if entry.to > size - data {
            return Err(broken(
                path,
                format!(
                    "tensor {name} of shape {:?} ends at byte {}, but the file has {size} bytes: it is cut short",
                    entry.shape,
                    data.saturating_add(entry.to)
                ),
            ));
        }
        tensors.push((name, entry));
    }
    Ok(Header { tensors, size, data })
}

impl Raw {
    /// The entry, or what is wrong with it.
    fn check(self, file: usize) -> std::result::Result<Entry, String> {
        let list = |numbers: &[Number]| numbers.iter().map(Number::to_string).collect::<Vec<_>>().join(", ");
        let dtype: Dtype = serde_json::from_value(Value::String(self.dtype.clone()))
            .map_err(|_| format!("the type {:?} is unknown", self.dtype))?;
        let size = |n: &Number| n.as_u64().and_then(|n| usize::try_from(n).ok());
        let shape: Option<Vec<usize>> = self.shape.iter().map(size).collect();
        let shape = shape.ok_or_else(|| format!("the shape is [{}], expected sizes", list(&self.shape)))?;
        let (from, to) = match self.data_offsets.iter().map(Number::as_u64).collect::<Vec<_>>()[..] {
            [Some(from), Some(to)] if from <= to => (from, to),
            _ => {
                return Err(format!(
                    "data_offsets is [{}], expected where its bytes begin and end",
                    list(&self.data_offsets)
                ));
            }
        };
        let count = shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim as u64));
        let bits = count.and_then(|n| n.checked_mul(dtype.bitsize() as u64));
        if bits != (to - from).checked_mul(8) {
            return Err(format!("shape {shape:?} of type {dtype:?} cannot lie in bytes {from}..{to}"));
        }
        Ok(Entry { file, dtype, shape, from, to })
    }
}

/// Fails unless the tensors of one file cover its data once: no hole, no overlap, nothing behind the last.
pub(super) fn check_layout<'a>(
    path: &Path,
    data: u64,
    tensors: impl Iterator<Item = (&'a String, &'a Entry)>,
) -> Result<()> {
    let mut sorted: Vec<_> = tensors.collect();
    sorted.sort_by_key(|(name, entry)| (entry.from, entry.to, *name));
    let (mut end, mut last) = (0, None);
    for (name, entry) in sorted {
        if entry.from > end {
            return Err(broken(path, format!("bytes {end}..{} of the data belong to no tensor", entry.from)));
        }
        if let Some((before, from)) = last.filter(|_| entry.from < end) {
            let (from_here, to_here) = (entry.from, entry.to);
            return Err(broken(
                path,
                format!(
                    "tensors {before} and {name} overlap: they lie in bytes {from}..{end} and {from_here}..{to_here}"
                ),
            ));
        }
        if entry.to > entry.from {
            (end, last) = (entry.to, Some((name, entry.from)));
        }
    }
    if end < data {
        return Err(broken(path, format!("bytes {end}..{data} of the data belong to no tensor")));
    }
    Ok(())
}
