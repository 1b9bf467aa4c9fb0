//! Writing safetensors, and writing files as a whole.

use super::SaveDtype;
use crate::error::{Error, Result, require_file};
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Numbers turned into bytes at a time.
const BLOCK: usize = 1 << 18;

/// Writes `parameters` (name, shape, numbers; sorted by name) to `path`. The same numbers give the same bytes.
pub fn write<S: AsRef<str>>(path: &Path, parameters: &[(S, Vec<usize>, Vec<f32>)], dtype: SaveDtype) -> Result<()> {
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
    replace(path, |out| {
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

/// Replaces a file as a whole: what stood there stays until the new content is complete.
pub fn replace(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    require_file(path)?;
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
