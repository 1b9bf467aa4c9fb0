//! The engine of this process: packing, sampling, deferred log-probs and their backward pass, optimizers.

pub mod adamw;
mod cache;
mod choose;
pub mod divergence;
pub mod generate;
pub mod leaf;
pub mod memory;
mod network;
pub mod pack;
pub mod sample;
pub mod settings;
pub mod update;
