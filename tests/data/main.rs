//! Batches from files, tasks and dialogues.

#[path = "../common/mod.rs"]
mod common;

mod dialogues;
mod encoding;
mod files;
mod tasks;
mod whole;
