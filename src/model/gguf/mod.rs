//! Frozen models from GGUF files: a decoder whose weights stay quantised, for judges and simulated users.
//!
//! Owns what a file becomes: the metadata a trunk (`facts.rs`), the tensors its maps (`quantised.rs`, `blocks.rs`), the
//! rest a tokenizer (`tokens.rs`). The forward pass is the decoder's, rows and the KV cache are `engine`'s, as for trained
//! models.

mod blocks;
mod facts;
mod file;
mod quantised;
pub mod summary;
mod tokens;
mod walk;

pub use file::FORMATS;
pub use quantised::Quantised;

use super::decoder::Decoder;
use super::trunk::{Rotation, Trunk};
use super::{Head, ModelInfo};
use crate::error::Result;
use crate::files::Location;
use crate::gpu::{DType, Place};
use crate::kernel::rotary::Scaling;
use file::File;
use quantised::Tensors;
use std::sync::Arc;

/// The tensor that holds what angles are divided by.
const FACTORS: &str = "rope_freqs.weight";

/// A model that only answers and scores.
pub struct Frozen {
    /// What is known of it without its weights; the model is read as this.
    pub info: ModelInfo,
    pub decoder: Decoder<Quantised>,
    /// What its weights take in memory.
    pub bytes: u64,
}

impl std::ops::Deref for Frozen {
    type Target = ModelInfo;
    fn deref(&self) -> &ModelInfo {
        &self.info
    }
}

impl Frozen {
    /// Opens a GGUF file, or the only one of a folder. `tokenizer` is a `tokenizer.json` or its folder; without it the
    /// one beside the file is taken, else the one in the file's metadata.
    ///
    /// # Errors
    /// A file that is no GGUF file, is cut short, or holds an architecture, a feature or a format that is not supported;
    /// a missing key or tensor, a wrong shape; a tokenizer that cannot be made, or that belongs to another model.
    pub fn open(path: &Location, tokenizer: Option<&Location>) -> Result<Self> {
        let mut file = File::open(path)?;
        let (architecture, mut trunk) = facts::read(&file)?;
        let (tokenizer, eos) = tokens::read(&file, tokenizer, trunk.vocab_size)?;
        let info = ModelInfo {
            id: ModelInfo::fresh_id(),
            name: path.display().to_string(),
            base: None,
            architecture: architecture.name.to_string(),
            head: Head::Lm,
            tokenizer: Some(Arc::new(tokenizer)),
            chat: tokens::chat(&file)?.map(Arc::new),
            eos,
            context: trunk.max_positions,
            vocab_size: trunk.vocab_size,
            size: file.parameters(),
            trained: 0,
            rank: None,
            format: Some(format!("{:?}", file.format())),
            notes: Vec::new(),
            place: Place::Host,
            compute: DType::F32,
        };
        stretch(&mut file, Arc::make_mut(&mut trunk))?;
        let dim = trunk.blocks[0].heads.dim;
        let mut tensors = Tensors { file: &mut file, architecture, dim, bytes: 0 };
        let decoder = Decoder::build(trunk, &mut tensors)?;
        let bytes = tensors.bytes;
        file.finish()?;
        Ok(Self { info, decoder, bytes })
    }
}

/// The factors of Llama 3.1 and later, which files hold as a tensor.
fn stretch(file: &mut File, trunk: &mut Trunk) -> Result<()> {
    if !file.has(FACTORS) {
        return Ok(());
    }
    for Rotation { dims, scaling, .. } in &mut trunk.rotations {
        let factors = file.plain(FACTORS, &[dims.div_ceil(2)], None)?.to_vec1::<f32>()?;
        let linear = if let Scaling::Linear { factor } = scaling { *factor } else { 1.0 };
        let factors = factors.into_iter().map(|factor| f64::from(factor) * linear).collect();
        *scaling = Scaling::Factors { factors, magnitude: 1.0 };
    }
    Ok(())
}
