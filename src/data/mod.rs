//! What is learned from: batches of rows with named columns, prompts, demonstrations, data sets and tasks.
//!
//! Owns no models and no objectives: `engine` runs rows, scripts say what to do with the numbers.

pub mod answers;
pub mod batch;
pub mod dataset;
pub mod dialogue;
pub mod encode;
pub mod fit;
pub mod join;
pub mod json;
pub mod max_length;
pub mod minibatch;
pub mod origin;
pub mod prompts;
pub mod reset;
pub mod stored;
pub mod task;
pub mod user;
pub mod whole;

#[cfg(test)]
mod encode_tests;

pub use batch::{Batch, Column};
pub use dataset::Dataset;
pub use encode::{Demo, Pair};
pub use join::join;
pub use prompts::{Content, Prompt, Prompts};
pub use reset::ResetPrompts;
pub use task::Task;
pub use user::User;
pub use whole::Example;
