//! The one door to the file system and to other programs: whatever looks at a path, opens a file, writes one or starts a
//! program does it here, and what libraries would open by themselves is opened here for them.
//!
//! Owns how files are opened and what is refused in their place (folders, devices, pipes), that a file is written whole
//! or not at all, and the wording of what goes wrong. A [`Location`] is a path with the [`Door`] that it is opened
//! through: handles of folders, beneath which it is looked up in one step with the opening
//! (`docs/design/019-files-by-capability.md`). Owns no formats, and not what scripts are granted: that is `run::access`.

mod child;
mod confine;
mod door;
mod download;
pub mod editor;
mod failure;
mod fill;
mod folder;
mod grant;
pub mod history;
pub mod hub;
mod left;
mod location;
mod lock;
mod place;
pub mod program;
mod read;
mod saving;
mod unfinished;
mod write;

pub use child::Child;
pub use confine::confine;
pub use door::{Door, Granted, Visitor};
pub use failure::{unreadable, unwritable};
pub use fill::fill_folder;
pub use folder::{Held, cache_folder, create_folder, entries, new_folder, remove_file, temporary_folder, tidy};
pub use location::{Location, anywhere, beside, exists, is_file, is_folder, is_link, is_plain, real, require_file};
pub use lock::{Lock, is_locked, lock};
pub use place::{remove_folder, replace_folder};
pub use read::{File, bytes, digest, digest_of, open, text};
pub use unfinished::require_whole;
pub use write::{Log, replace, write};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unfinished_tests;
