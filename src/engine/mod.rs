//! Running models on rows. Everything above speaks to an [`Engine`] by requests that are plain data; what is behind it
//! changes no line of a script.
//!
//! Owns the trait, its requests and handles, and what every engine shares: from a script's loss to planes and back
//! (`autograd`), and the optimizer that scripts hold. `solo` is the engine of this process.

mod autograd;
mod handle;
mod interface;
pub mod memory;
mod optimizer;
mod request;
mod settings;
mod state;
pub mod solo;
mod weights;

pub use autograd::{differentiate, gradient, measure};
pub use handle::{Gradient, HeldModel, ModelHandle, Moments, Pass};
pub use interface::Engine;
pub use optimizer::{Optimizer, StepStats};
pub use request::{
    AdamwOptions, COLDEST, Divergence, FisherRequest, ForwardRequest, Measure, Member, Mixing, MixtureRequest,
    OpenRequest, Plane, SampleOptions, SampleRequest, Samples, Stateful, StepRequest, Upstream,
};
pub use settings::Settings;
pub use solo::Solo;
pub use state::State;
pub use weights::{Fisher, Snapshot, average, mix, shift};

use std::rc::Rc;

/// The engine of this process, as a session holds it.
pub fn local(settings: Settings) -> Rc<dyn Engine> {
    Rc::new(Solo::new(settings))
}
