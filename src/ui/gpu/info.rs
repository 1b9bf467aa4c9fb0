//! `rhopo gpu info`: the libraries, the GPUs, the cache of compiled kernels.

use crate::error::Result;
use crate::files;
use crate::gpu::Facts;
use crate::gpu::cuda::{self, Compiler, Library};
use crate::ui::{list, out};

/// Prints what there is; a machine without any of it is no error.
///
/// # Errors
/// A cache that cannot be read.
pub(super) fn info() -> Result<()> {
    let libraries = cuda::libraries().all().map(|library| (library.name.to_string(), about(library))).to_vec();
    let sections = [list::section("libraries", libraries), list::section("devices", devices()), cache()?];
    for line in sections.concat() {
        out::line(&line);
    }
    Ok(())
}

fn devices() -> Vec<(String, String)> {
    let none = |why: String| vec![("none".to_string(), why)];
    if cuda::libraries().driver.found.is_err() {
        return none("without NVIDIA's driver none can be seen".into());
    }
    let about = |card: &Facts| {
        let (memory, processors) = (card.memory as f64 / f64::from(1 << 30), card.processors);
        format!("{}, {}, {memory:.1} GiB, {processors} multiprocessors", card.name, card.architecture)
    };
    match cuda::cards() {
        Err(e) => none(e.what),
        Ok(cards) if cards.is_empty() => none("the driver sees no GPU".into()),
        Ok(cards) => cards.iter().enumerate().map(|(n, card)| (format!("cuda:{n}"), about(card))).collect(),
    }
}

fn about(library: &Library) -> String {
    let about = library.about;
    match &library.found {
        Err(missing) => format!("{about}: not found: {missing}"),
        Ok(found) => {
            let place = found.path.as_ref().map(|path| path.display().to_string());
            format!("{about}: {}, {}", found.version, place.unwrap_or("on the loader's own path".into()))
        }
    }
}

fn cache() -> Result<Vec<String>> {
    let Some(folder) = Compiler::cache_folder() else {
        return Ok(list::section("kernels", vec![("none".into(), "without a home folder nothing is kept".into())]));
    };
    let kept = files::anywhere(&folder);
    let count = if files::is_folder(&kept) { files::entries(&kept)?.len() } else { 0 };
    let kept = format!("{count} compiled files");
    Ok(list::section("kernels", vec![(folder.display().to_string(), kept)]))
}
