//! A GGUF file opened: typed metadata, and tensors of the expected shape.
//!
//! Owns every check of what a file claims, so that a damaged or foreign one is an error before any number is read.
//! What the keys and tensors mean is `facts.rs`' and `weights.rs`' affair.

use super::walk;
use crate::error::{Error, Result};
use crate::files::{self, Location};
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use candle_core::quantized::{GgmlDType, ggml_file};
use candle_core::{Device, Tensor};
use std::collections::BTreeSet;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

const MAGIC: &[u8; 4] = b"GGUF";
/// Formats that are read.
pub const FORMATS: [GgmlDType; 13] = [
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];
const DAMAGED: &str = "the file may be cut short or damaged: compare its size with the source, or fetch it again";

/// A tensor's bytes, row after row.
pub struct Stored {
    pub format: GgmlDType,
    pub bytes: Vec<u8>,
}

/// What the header says of a tensor.
pub struct Listed<'a> {
    pub name: &'a str,
    pub format: GgmlDType,
    pub numbers: usize,
    pub bytes: u64,
}

/// A file with its header read.
pub struct File {
    pub path: Location,
    content: Content,
    reader: BufReader<files::File>,
    /// Tensors that were asked for: `finish` refuses the others.
    used: BTreeSet<String>,
}

impl File {
    /// Reads the header of `path`: a GGUF file, or a folder that holds one.
    pub fn open(path: &Location) -> Result<Self> {
        let path = if files::is_folder(path) { only_file(path)? } else { path.clone() };
        if !files::exists(&path) {
            return Err(Error::file(format!("{} does not exist", path.display()))
                .hint("load_frozen takes the path of a GGUF file, or of a folder that holds one"));
        }
        let mut reader = BufReader::new(files::open(&path)?);
        let mut magic = [0; 4];
        if reader.read_exact(&mut magic).is_err() || magic != *MAGIC {
            return Err(Error::model(format!("{} is not a GGUF file: it does not begin with `GGUF`", path.display()))
                .hint("models in the Hugging Face layout are opened by load_model"));
        }
        if walk::alignment_is_zero(&mut reader) {
            return Err(Error::model(format!("{}: general.alignment is 0", path.display())).hint(DAMAGED));
        }
        reader.rewind().map_err(|e| files::unreadable(&path, &e))?;
        let content = Content::read(&mut reader).map_err(|e| unreadable(&path, e))?;
        let file = Self { path, content, reader, used: BTreeSet::new() };
        file.check_extent()?;
        Ok(file)
    }

    /// An error that begins with the file's path.
    pub fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::model(format!("{}: {what}", self.path.display()))
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.read(key, "a text", |v| v.to_string().ok().map(String::as_str))
    }

    /// A whole number that is not negative, of any width.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number, 0 or more", count)
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number", number)
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", |v| v.to_bool().ok())
    }

    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let text = |v: &'_ Value| v.to_string().is_ok();
        let list = self.read(key, "an array of texts", |v| v.to_vec().ok().filter(|list| list.iter().all(text)))?;
        Ok(list.map(|list| list.iter().filter_map(|v| v.to_string().ok().map(String::as_str)).collect()))
    }

    pub fn counts(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.read(key, "an array of whole numbers", |v| v.to_vec().ok()?.iter().map(count).collect())
    }

    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.read(key, "an array of numbers", |v| v.to_vec().ok()?.iter().map(number).collect())
    }

    /// The value of a key that a file must have.
    pub fn require<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| {
            self.wrong(format!("the metadata has no `{key}`"))
                .hint("convert the model again with a current convert_hf_to_gguf.py of llama.cpp")
        })
    }

    fn read<'a, T>(&'a self, key: &str, want: &str, get: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.content.metadata.get(key) else { return Ok(None) };
        let found = || format!("the metadata key `{key}` must be {want}, found {:?}", value.value_type());
        get(value).map(Some).ok_or_else(|| self.wrong(found()))
    }

    pub fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// The shape of a tensor, rows first, where there is one of this name.
    pub fn dims(&self, name: &str) -> Option<&[usize]> {
        self.content.tensor_infos.get(name).map(|info| info.shape.dims())
    }

    /// The format that most numbers of the file are in.
    pub fn format(&self) -> GgmlDType {
        let total = |format: GgmlDType| -> usize {
            let infos = self.content.tensor_infos.values().filter(|info| info.ggml_dtype == format);
            infos.map(|info| info.shape.elem_count()).fold(0, usize::saturating_add)
        };
        FORMATS.into_iter().max_by_key(|&format| total(format)).unwrap_or(GgmlDType::F32)
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> Vec<Listed<'_>> {
        let mut infos: Vec<_> = self.content.tensor_infos.iter().collect();
        infos.sort_unstable_by_key(|(name, _)| *name);
        let listed = infos.into_iter().map(|(name, info)| Listed {
            name,
            format: info.ggml_dtype,
            numbers: info.shape.elem_count(),
            bytes: bytes(info).expect("checked when the file was opened"),
        });
        listed.collect()
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.reader.get_ref().size()
    }

    /// How many numbers the tensors hold.
    pub fn parameters(&self) -> usize {
        self.content.tensor_infos.values().map(|info| info.shape.elem_count()).fold(0, usize::saturating_add)
    }

    /// The tensor `name` of shape `dims` as the file has it; `order` gives the row of the file that each comes from.
    pub fn stored(&mut self, name: &str, dims: &[usize], order: Option<&dyn Fn(usize) -> usize>) -> Result<Stored> {
        self.used.insert(name.to_string());
        let info = self.content.tensor_infos.get(name).ok_or_else(|| {
            self.wrong(format!("the tensor {name} is missing"))
                .hint("the file is incomplete or of another architecture")
        })?;
        if info.shape.dims() != dims {
            let found = info.shape.dims();
            return Err(self.wrong(format!("the tensor {name} has shape {found:?}, expected {dims:?}")));
        }
        let (format, start) = (info.ggml_dtype, self.content.tensor_data_offset + info.offset);
        let mut bytes = vec![0; bytes(info).expect("checked when the file was opened") as usize];
        let read = self.reader.seek(SeekFrom::Start(start)).and_then(|_| self.reader.read_exact(&mut bytes));
        read.map_err(|e| self.wrong(format!("the tensor {name} could not be read: {e}")).hint(DAMAGED))?;
        if let Some(order) = order {
            let row = bytes.len() / dims[0];
            let sorted = (0..dims[0]).flat_map(|i| &bytes[order(i) * row..(order(i) + 1) * row]).copied().collect();
            bytes = sorted;
        }
        Ok(Stored { format, bytes })
    }

    /// A tensor of shape `dims` as plain f32.
    pub fn plain(&mut self, name: &str, dims: &[usize], order: Option<&dyn Fn(usize) -> usize>) -> Result<Tensor> {
        let Stored { format, bytes } = self.stored(name, dims, order)?;
        let device = &Device::Cpu;
        let tensor = ggml_file::qtensor_from_ggml(format, &bytes, dims.to_vec(), device)?.dequantize(device)?;
        let finite = tensor.flatten_all()?.to_vec1::<f32>()?.iter().all(|v| v.is_finite());
        if !finite {
            return Err(self.wrong(format!("the tensor {name} holds numbers that are not finite")));
        }
        Ok(tensor)
    }

    /// Refuses a file with tensors that nobody asked for: they would change what the model computes.
    pub fn finish(&self) -> Result<()> {
        let known = |name: &&String| !self.used.contains(*name);
        match self.content.tensor_infos.keys().filter(known).min() {
            Some(name) => Err(self
                .wrong(format!("the tensor {name} is not one of its architecture's"))
                .hint("the file holds a variant that is not supported")),
            None => Ok(()),
        }
    }

    /// Every tensor must have numbers, whole blocks, a format that can be computed with, and lie inside the file.
    fn check_extent(&self) -> Result<()> {
        let length = self.reader.get_ref().size();
        let mut infos: Vec<_> = self.content.tensor_infos.iter().collect();
        infos.sort_unstable_by_key(|(name, _)| *name);
        for (name, info) in infos {
            if !FORMATS.contains(&info.ggml_dtype) {
                return Err(self
                    .wrong(format!("the tensor {name} is in the format {:?}", info.ggml_dtype))
                    .hint(formats()));
            }
            let (dims, block) = (info.shape.dims(), info.ggml_dtype.block_size());
            let size = bytes(info).filter(|&size| size > 0 && dims.last().is_some_and(|last| last % block == 0));
            let Some(size) = size else {
                let format = info.ggml_dtype;
                return Err(self.wrong(format!("the tensor {name} has shape {dims:?}, which {format:?} cannot hold")));
            };
            let end = self.content.tensor_data_offset.checked_add(info.offset).and_then(|at| at.checked_add(size));
            if end.is_none_or(|end| end > length) {
                return Err(self
                    .wrong(format!("the tensor {name} reaches past the end of the file, which has {length} bytes"))
                    .hint(DAMAGED));
            }
        }
        Ok(())
    }
}

/// Whether a file begins as GGUF files do.
pub fn begins(path: &Location) -> bool {
    let mut magic = [0; 4];
    files::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok()) && magic == *MAGIC
}

/// Bytes of a tensor's data, where they can be counted.
fn bytes(info: &TensorInfo) -> Option<u64> {
    let count = info.shape.dims().iter().try_fold(1usize, |n, &dim| n.checked_mul(dim))?;
    (count / info.ggml_dtype.block_size()).checked_mul(info.ggml_dtype.type_size()).map(|size| size as u64)
}

fn count(value: &Value) -> Option<usize> {
    let signed = match *value {
        Value::I8(v) => i64::from(v),
        Value::I16(v) => i64::from(v),
        Value::I32(v) => i64::from(v),
        Value::I64(v) => v,
        Value::Bool(_) => return None,
        _ => return value.to_u64().ok()?.try_into().ok(),
    };
    signed.try_into().ok()
}

fn number(value: &Value) -> Option<f64> {
    match *value {
        Value::F32(v) => Some(f64::from(v)),
        Value::F64(v) => Some(v),
        _ => count(value).map(|v| v as f64),
    }
}

fn formats() -> String {
    let names: Vec<String> = FORMATS.iter().map(|format| format!("{format:?}")).collect();
    format!("formats that can be read: {}", names.join(", "))
}

fn unreadable(path: &Path, e: candle_core::Error) -> Error {
    let what = Error::from(e).what;
    let error = Error::model(format!("{} could not be read: {what}", path.display()));
    error.hint(if what.contains("unknown dtype") { formats() } else { DAMAGED.into() })
}

/// The one `*.gguf` of a folder.
fn only_file(dir: &Location) -> Result<Location> {
    let is_gguf = |path: &Location| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    let found: Vec<Location> = files::entries(dir)?.into_iter().filter(is_gguf).collect();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(Error::model(format!("{} holds no GGUF file", dir.display()))
            .hint("models in the Hugging Face layout are opened by load_model")),
        _ => {
            let names: Vec<_> = found.iter().filter_map(|p| p.file_name()).map(|n| n.to_string_lossy()).collect();
            Err(Error::model(format!("{} holds {} GGUF files", dir.display(), names.len()))
                .hint(format!("give the path of one of them: {}", names.join(", "))))
        }
    }
}
