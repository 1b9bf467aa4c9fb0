//! Checkpoints, adapters, heads, tokenizers and templates against the reference implementations.

#[path = "../common/mod.rs"]
mod common;

mod adapters;
mod chat;
mod checkpoints;
#[cfg(feature = "emulate")]
mod device;
#[cfg(feature = "emulate")]
mod device_memory;
mod frozen;
mod gguf;
mod heads;
mod hub;
mod inspect;
mod model_reference;
mod special_tokens;
mod templates;
mod two_heads;
mod vocabulary;
