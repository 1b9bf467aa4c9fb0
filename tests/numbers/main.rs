//! Values and gradients against independent references, and what must never change them.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "emulate")]
mod device;
mod divergence;
mod exactness;
mod fisher;
mod golden;
mod mixtures;
mod gro;
mod objectives_functions;
mod objectives_losses;
mod optim;
mod recorded_values;
mod sampling;
mod weights;
