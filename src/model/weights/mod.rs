//! Parameters in files: safetensors, one file or shards with an index, read to f32 and written in f32, f16 or bf16.
//!
//! Owns no shapes (`Config::parameters` says what must be there). Every difference between a file and the
//! configuration is an error that names the tensor, the file, what was expected and what was found.

mod contents;
mod header;
pub(crate) mod index;
mod write;

pub use contents::Contents;
pub use index::{missing, remove_shards};
pub use write::write;

use super::Config;
use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::gpu::{DType, Place};
use half::{bf16, f16};
use safetensors::tensor::Dtype;

pub const SINGLE: &str = "model.safetensors";
pub const INDEX: &str = "model.safetensors.index.json";
/// What is said where a file is missing.
pub const NEEDS: &str = "a model folder holds config.json, model.safetensors and tokenizer.json";

/// Whether a folder holds safetensors weights under one of the names that are read.
pub fn exist(dir: &Location) -> bool {
    [SINGLE, INDEX].iter().any(|name| files::is_file(&dir.join(name)))
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

    /// The type that operations compute in at a place; trained weights are f32 all the same.
    ///
    /// # Errors
    /// A type that weights are stored in, but that is not computed in there.
    pub fn compute(self, place: &Place) -> Result<DType> {
        match (self, place) {
            (Self::F32, _) => Ok(DType::F32),
            (Self::BF16, Place::Gpu(_)) => Ok(DType::Bf16),
            (Self::F16 | Self::BF16, _) => {
                let types = if place.gpu().is_some() { "bf16 or f32" } else { "f32" };
                Err(Error::value(format!("models on {place} compute in {types}, not in {}", self.name()))
                    .hint("leave dtype out: files of any type are read, and save takes a dtype"))
            }
        }
    }

    /// A number as it comes back from the file.
    fn rounded(self, x: f32) -> f32 {
        match self {
            Self::F32 => x,
            Self::F16 => f16::from_f32(x).to_f32(),
            Self::BF16 => bf16::from_f32(x).to_f32(),
        }
    }

    /// As scripts call it.
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
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

/// A parameter to be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub name: String,
    pub shape: Vec<usize>,
    /// Need not be in the files: a head that is new.
    pub optional: bool,
}

impl Wanted {
    /// Parameters that must be there.
    pub fn all(parameters: impl IntoIterator<Item = (String, Vec<usize>)>) -> Vec<Self> {
        parameters.into_iter().map(|(name, shape)| Self { name, shape, optional: false }).collect()
    }
}

/// How the names in files may differ from those wanted.
#[derive(Debug, Clone, Default)]
pub struct Naming {
    /// What the names of the trunk begin with (`model.`): files of a trunk alone leave it out.
    pub base: &'static str,
    /// Embedding and head of a model that ties them: one may repeat the other, or stand for it.
    pub tied: Option<[String; 2]>,
    /// Tensors that are passed over: the head that a file has and the model does not.
    pub ignored: Vec<String>,
}

impl Naming {
    /// As published files of such a model have it.
    pub fn of(config: &Config) -> Self {
        let names = config.names;
        let tied = config.tied.then(|| [names.embedding, names.lm_head].map(|name| format!("{name}.weight")));
        Self { base: names.base, tied, ignored: Vec::new() }
    }
}

/// The numbers of each parameter in `wanted`, in that order, from the safetensors in `dir`; `None` for an optional one
/// that the files do not hold. Beside what it returns this holds a block of a tensor.
///
/// # Errors
/// Files that are missing, damaged, or hold something else than `wanted`; numbers that are not finite.
pub fn read(dir: &Location, wanted: &[Wanted], names: &Naming) -> Result<Vec<Option<Vec<f32>>>> {
    Contents::folder(dir)?.read(wanted, names)
}

/// The same from one file.
pub fn read_file(path: &Location, wanted: &[Wanted], names: &Naming) -> Result<Vec<Option<Vec<f32>>>> {
    Contents::file(path)?.read(wanted, names)
}

/// The same from a file that is already in memory (built-in models).
pub fn read_bytes(bytes: &[u8], label: &str, wanted: &[Wanted], names: &Naming) -> Result<Vec<Option<Vec<f32>>>> {
    Contents::bytes(bytes, label)?.read(wanted, names)
}

#[cfg(test)]
mod tests;
