//! The kernels' texts, embedded by the build script.

include!(concat!(env!("OUT_DIR"), "/kernel_texts.rs"));

/// The text of a file of `kernels/`.
pub fn text(file: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == file).map(|(_, text)| *text)
}
