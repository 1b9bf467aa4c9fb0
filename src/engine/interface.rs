//! What an engine does: the seam between scripts and whatever runs their models.

use super::handle::{Gradient, ModelHandle, Moments};
use super::request::{
    FisherRequest, ForwardRequest, MixtureRequest, OpenRequest, Plane, SampleRequest, Samples, Stateful, StepRequest,
    Upstream,
};
use super::settings::Settings;
use super::state::State;
use crate::error::Result;
use crate::files::Location;
use crate::model::SaveDtype;
use crate::model::rows::Rows;

/// Holds models and runs them on rows: this process's cores, a GPU, many ranks, a remote service.
///
/// Every call can end with an `Interrupted` error once `settings().stop` is set, and with an error of a handle that
/// another engine made.
pub trait Engine {
    /// What it may use and how it computes.
    fn settings(&self) -> &Settings;

    /// # Errors
    /// A model that cannot be found, read, or run.
    fn open(&self, request: &OpenRequest) -> Result<ModelHandle>;

    /// A copy of the model as it is now, which never changes and has no gradient.
    ///
    /// # Errors
    /// A model that cannot be copied.
    fn frozen(&self, model: &ModelHandle) -> Result<ModelHandle>;

    /// The model under its adapter: the same weights, without gradient.
    ///
    /// # Errors
    /// A model without an adapter.
    fn reference(&self, model: &ModelHandle) -> Result<ModelHandle>;

    /// A model of its own with the adapter's change added to the weights.
    ///
    /// # Errors
    /// A model without an adapter.
    fn merge(&self, model: &ModelHandle) -> Result<ModelHandle>;

    /// A copy that never changes and has no gradient, whose scores are larger by `by`.
    ///
    /// # Errors
    /// A model without a score head, or with an adapter; a shift that is not finite.
    fn shifted(&self, model: &ModelHandle, by: f64) -> Result<ModelHandle>;

    /// Writes a folder that transformers opens, or of a model with an adapter one that PEFT opens.
    ///
    /// # Errors
    /// A folder that cannot be written.
    fn save(&self, model: &ModelHandle, dir: &Location, dtype: SaveDtype) -> Result<()>;

    /// # Errors
    /// An option outside its range, an empty prompt, one that leaves no room for `max_tokens` in the context, a token
    /// that the model does not know.
    fn sample(&self, request: &SampleRequest) -> Result<Samples>;

    /// Samples from a mixture of models; the log-probs are the mixture's own.
    ///
    /// # Errors
    /// As `sample`, of any member; members of different vocabularies or in different places.
    fn sample_mixture(&self, request: &MixtureRequest) -> Result<Samples>;

    /// Measures rows; with a way back where the model is trained.
    ///
    /// # Errors
    /// A model without the head that the measure needs, rows that it cannot take, vocabularies of different sizes.
    fn forward(&self, request: &ForwardRequest) -> Result<Plane>;

    /// Carries gradients of planes, in the order in which the planes were made, back to the parameters: one gradient for
    /// each model that is reached. Exact for any number of micro-batches; may be called again.
    ///
    /// # Errors
    /// A trained parameter that no gradient reaches, or one that is not finite.
    fn backward(&self, upstream: &[Upstream]) -> Result<Vec<Gradient>>;

    /// Σ g·h over all parameters of one model.
    ///
    /// # Errors
    /// Gradients that are not of this engine.
    fn dot(&self, g: &Gradient, h: &Gradient) -> Result<f64>;

    /// F·v at the weights of now; v is a gradient of the same model. Exact for any number of micro-batches.
    ///
    /// # Errors
    /// A model without a language-model head, rows that it cannot take, a place without forward derivatives.
    fn fisher(&self, request: &FisherRequest, v: &Gradient) -> Result<Gradient>;

    /// Σ cᵢ·gᵢ of gradients of one model; at least one.
    ///
    /// # Errors
    /// Gradients that are not of this engine; a sum that is not finite.
    fn combine(&self, terms: &[(f64, Gradient)]) -> Result<Gradient>;

    /// The gradient that `state` gave the numbers of.
    ///
    /// # Errors
    /// Numbers of other parameters or other shapes.
    fn gradient(&self, model: &ModelHandle, state: &State) -> Result<Gradient>;

    /// θ ← θ + c·g of the model that the gradient is of; raises its version and frees its activations.
    ///
    /// # Errors
    /// Too little memory; a device that has failed.
    fn shift(&self, g: &Gradient, c: f64) -> Result<()>;

    /// Σ wᵢ·θᵢ as a model of its own, otherwise like the first, ready to be trained; at least one.
    ///
    /// # Errors
    /// Models of other weights than the first's, or with adapters.
    fn average(&self, models: &[(f64, ModelHandle)]) -> Result<ModelHandle>;

    /// (1 − share)·into + share·other in place, of which the other counts with its adapter merged; raises the version of
    /// `into` and frees its activations.
    ///
    /// # Errors
    /// Models of different weights or places; an `into` with an adapter, or whose weights others share.
    fn mix(&self, into: &ModelHandle, share: f64, other: &ModelHandle) -> Result<()>;

    /// What an optimizer of these models remembers: nothing yet.
    ///
    /// # Errors
    /// Models that are not of this engine.
    fn moments(&self, models: &[ModelHandle]) -> Result<Moments>;

    /// Scales the gradients by their joint norm, updates the models they are of, which raises these models' versions, and
    /// frees their activations. Returns the norm before it was scaled.
    ///
    /// # Errors
    /// Numbers that cannot be read from the device.
    fn step(&self, request: &StepRequest) -> Result<f64>;

    /// # Errors
    /// Numbers that cannot be read from the device.
    fn state(&self, of: Stateful) -> Result<State>;

    /// Puts a state back; raises the version of a model.
    ///
    /// # Errors
    /// A state of other models or other shapes. Nothing is changed then.
    fn restore(&self, of: Stateful, state: &State) -> Result<()>;

    /// What a step of the model over the rows holds, by name, in bytes.
    ///
    /// # Errors
    /// Rows that the model cannot take.
    fn memory(&self, model: &ModelHandle, rows: &Rows) -> Result<Vec<(&'static str, u64)>>;
}
