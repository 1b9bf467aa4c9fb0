//! Writing safetensors.

use super::SaveDtype;
use crate::error::{Error, Result};
use crate::files::{self, Location};
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::HashMap;

/// Numbers turned into bytes at a time.
const BLOCK: usize = 1 << 18;

/// Writes `parameters` (name, shape, numbers; sorted by name) to `path`. The same numbers give the same bytes.
pub fn write<S: AsRef<str>>(path: &Location, parameters: &[(S, Vec<usize>, Vec<f32>)], dtype: SaveDtype) -> Result<()> {
    for (name, _, values) in parameters {
        if let Some(x) = values.iter().find(|x| x.is_finite() && !dtype.rounded(**x).is_finite()) {
            return Err(Error::value(format!(
                "tensor {} holds {x}, which {} has no number for",
                name.as_ref(),
                dtype.name()
            ))
            .hint("save in bf16 or f32: f16 ends at 65504"));
        }
    }
    let width = dtype.stored().bitsize() / 8;
    let mut offset = 0;
    let mut infos = Vec::with_capacity(parameters.len());
    for (name, shape, values) in parameters {
        let end = offset + values.len() * width;
        let info = TensorInfo { dtype: dtype.stored(), shape: shape.clone(), data_offsets: (offset, end) };
        infos.push((name.as_ref().to_string(), info));
        offset = end;
    }
    // One key only: a hash map's order cannot show.
    let about = HashMap::from([("format".to_string(), "pt".to_string())]);
    let invalid = |e: &dyn std::fmt::Display| Error::model(format!("{}: {e}", path.display()));
    let metadata = Metadata::new(Some(about), infos).map_err(|e| invalid(&e))?;
    let mut head = serde_json::to_vec(&metadata).map_err(|e| invalid(&e))?;
    head.resize(head.len().next_multiple_of(8), b' ');
    files::replace(path, |out| {
        out.write_all(&(head.len() as u64).to_le_bytes())?;
        out.write_all(&head)?;
        let mut bytes = Vec::new();
        for block in parameters.iter().flat_map(|(_, _, values)| values.chunks(BLOCK)) {
            dtype.encode(block, &mut bytes);
            out.write_all(&bytes)?;
        }
        Ok(())
    })
}
