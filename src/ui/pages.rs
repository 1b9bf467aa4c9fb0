//! Pages that commands write into a folder: of the reference, for editors, of the manual. Owns no text.

use crate::error::Result;
use crate::files;
use crate::ui::out;
use std::path::Path;

/// Writes pages, by file name and text, into a folder, and says where.
pub(super) fn write_pages(folder: &Path, pages: Vec<(String, String)>) -> Result<()> {
    let folder = files::anywhere(folder);
    files::create_folder(&folder)?;
    for (name, text) in pages {
        let path = folder.join(name);
        files::write(&path, text)?;
        out::line(&path.display().to_string());
    }
    Ok(())
}
