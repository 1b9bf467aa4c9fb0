//! The one door to the file system and to other programs: whatever looks at a path, opens a file, writes one or starts a
//! program does it here, and what libraries would open by themselves is opened here for them.
//!
//! Owns how files are opened and what is refused in their place (folders, devices, pipes), that a file is written whole
//! or not at all, and the wording of what goes wrong. Owns no formats, and not which paths a script may name: that is
//! `run::access`, which whoever opens a path for a script asks first.

mod child;
pub mod editor;
mod failure;
mod folder;
mod lock;
pub mod history;
pub mod hub;
mod path;
pub mod program;
mod read;
mod write;

pub use child::Child;
pub use failure::{unreadable, unwritable};
pub use folder::{
    cache_folder, create_folder, entries, remove_file, remove_folder, rename_folder, replace_folder, temporary_folder,
};
pub use lock::{Lock, is_locked, lock};
pub use path::{beside, exists, is_file, is_folder, is_link, is_plain, real, require_file};
pub use read::{File, bytes, digest, digest_of, open, text};
pub use write::{Log, replace, write};

#[cfg(test)]
mod tests;
