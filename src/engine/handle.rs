//! Handles: what the world above an engine holds of the models, passes, gradients and optimizers inside it.
//!
//! A handle says what is known without asking, and keeps alive what the engine holds for it: the last clone that goes
//! lets the engine free it. What is inside is the engine's own affair.

use crate::error::{Error, Kind, Result};
use crate::model::ModelInfo;
use std::any::Any;
use std::sync::Arc;

/// An engine's own end of a handle.
pub type Held = Arc<dyn Any + Send + Sync>;

/// What an engine put behind a handle.
///
/// # Errors
/// A handle of another engine.
pub(super) fn inside<T: Any>(held: &Held) -> Result<&T> {
    (**held)
        .downcast_ref()
        .ok_or_else(|| Error::new(Kind::Internal, "a handle of another engine was given to this one"))
}

/// A model that an engine holds. It is read as its [`ModelInfo`]; the weights are wherever the engine keeps them.
#[derive(Clone)]
pub struct ModelHandle(Arc<dyn HeldModel>);

/// An engine's own end of a model.
pub trait HeldModel: Any + Send + Sync {
    fn info(&self) -> &ModelInfo;
    /// How often the weights were changed.
    fn version(&self) -> u64;
}

impl ModelHandle {
    /// How often the weights were changed.
    pub fn version(&self) -> u64 {
        self.0.version()
    }

    /// The engine's own end, for that engine.
    pub(super) fn held(&self) -> Held {
        self.0.clone()
    }
}

impl<T: HeldModel> From<Arc<T>> for ModelHandle {
    fn from(model: Arc<T>) -> Self {
        Self(model)
    }
}

impl<T: HeldModel> From<&Arc<T>> for ModelHandle {
    fn from(model: &Arc<T>) -> Self {
        Self(model.clone())
    }
}

impl std::ops::Deref for ModelHandle {
    type Target = ModelInfo;
    fn deref(&self) -> &ModelInfo {
        self.0.info()
    }
}

impl std::fmt::Debug for ModelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} #{}, version {}", self.0.info(), self.id, self.version())
    }
}

/// A forward pass that can be walked back, and which of its planes is meant.
#[derive(Clone)]
pub struct Pass(pub Held);

/// ∂loss/∂parameters of one model.
#[derive(Clone)]
pub struct Gradient {
    pub model: ModelHandle,
    pub held: Held,
}

/// What an optimizer remembers of some models: moments and numbers of steps.
#[derive(Clone)]
pub struct Moments {
    pub models: Vec<ModelHandle>,
    pub held: Held,
}
