//! Batches from files, tasks and dialogues.

#[path = "../common/mod.rs"]
mod common;

mod dialogues;
mod files;
mod tasks;
