//! The model's own reverse-mode tape: a list of steps, each with the function that carries a gradient back.
//!
//! A tape can be walked back any number of times (`gradient` before `step`), gives frozen operands no gradient
//! memory, adds straight into the parameters' accumulators, and neither walks nor drops recursively.
//! Owns no operation.

use super::device::sums as device;
use super::form::{self, Routine};
use super::gemm::Packed;
pub use super::gradients::ParameterGrads;
use super::host;
use super::packs::{Packs, Side};
use super::value::Value;
use crate::budget;
use crate::error::Result;
use crate::gpu::{Array, DType};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where a value's gradient goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Nowhere: a frozen weight or an input.
    Constant,
    Activation(usize),
    Parameter(usize),
}

/// A value on the tape.
#[derive(Debug, Clone)]
pub struct Var {
    pub value: Value,
    slot: Slot,
    /// The parameter's index in its model, trainable or not: the key of packed copies.
    index: Option<usize>,
    /// Where it is going along the tape's direction; zero where there is none.
    tangent: Option<Value>,
}

impl Var {
    /// The tensor of a value on the host.
    ///
    /// # Errors
    /// A value of a device.
    pub fn tensor(&self) -> Result<&Tensor> {
        self.value.host()
    }

    /// The array of a value on a device.
    ///
    /// # Errors
    /// A value of the host.
    pub fn array(&self) -> Result<&Array> {
        self.value.array()
    }

    pub fn needs_grad(&self) -> bool {
        self.slot != Slot::Constant
    }

    /// Whether it is one of the model's parameters, trainable or not.
    pub(super) fn is_parameter(&self) -> bool {
        self.index.is_some()
    }

    pub(super) fn tangent(&self) -> Option<&Value> {
        self.tangent.as_ref()
    }

    pub(super) fn without_tangent(&self) -> Self {
        Self { tangent: None, ..self.clone() }
    }

    pub(super) fn with_tangent(self, tangent: Value) -> Self {
        Self { tangent: Some(tangent), ..self }
    }

    /// Where the gradient goes, without the value: what an operation keeps of an input that it will not read again.
    pub fn sink(&self) -> Sink {
        Sink(self.slot)
    }
}

/// Where a value's gradient goes; holds no value.
#[derive(Debug, Clone, Copy)]
pub struct Sink(Slot);

impl Sink {
    pub fn needs_grad(&self) -> bool {
        self.0 != Slot::Constant
    }
}

impl From<&Var> for Sink {
    fn from(v: &Var) -> Self {
        v.sink()
    }
}

type Backward = Box<dyn Fn(&Value, &mut Grads) -> Result<()> + Send + Sync>;

/// Set from outside when the work in hand is no longer wanted; looked at between operations, and between the parts of
/// long ones.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// # Errors
    /// `Interrupted`, once it is set.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(budget::interrupted()) } else { Ok(()) }
    }
}

impl From<&Arc<AtomicBool>> for Stop {
    fn from(flag: &Arc<AtomicBool>) -> Self {
        Self(flag.clone())
    }
}

/// The steps of one forward pass.
pub struct Tape {
    steps: Vec<(usize, Backward)>,
    activations: usize,
    recording: bool,
    plain: bool,
    compute: DType,
    packs: Arc<Packs>,
    decoding: bool,
    stop: Stop,
    direction: Arc<Direction>,
}

/// A direction among a model's parameters, by their indices: the tangents that a pass begins with.
pub type Direction = BTreeMap<usize, Value>;

impl Tape {
    /// A tape that keeps what the backward pass needs.
    pub fn recording(packs: Arc<Packs>) -> Self {
        Self {
            steps: Vec::new(),
            activations: 0,
            recording: true,
            plain: false,
            compute: DType::F32,
            packs,
            decoding: false,
            stop: Stop::default(),
            direction: Arc::default(),
        }
    }

    /// A tape that keeps nothing: values only.
    pub fn forward_only(packs: Arc<Packs>) -> Self {
        Self { recording: false, ..Self::recording(packs) }
    }

    /// Runs every operation as its plain composition, also where a fused one exists.
    pub fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// For passes that decode answers: they read every weight for a few tokens, again and again.
    pub fn decoding(mut self) -> Self {
        self.decoding = true;
        self
    }

    /// Computes in this type on a device: what products read, and what norms and linear maps give.
    pub fn computing(mut self, compute: DType) -> Self {
        self.compute = compute;
        self
    }

    /// Carries the tangents of this direction from the trained parameters through the pass.
    pub fn along(mut self, direction: Arc<Direction>) -> Self {
        self.direction = direction;
        self
    }

    /// The type that operations compute in on a device.
    pub fn compute(&self) -> DType {
        self.compute
    }

    /// Ends with an error once `stop` is set.
    pub fn stopping(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    pub fn constant(&self, value: impl Into<Value>) -> Var {
        Var { value: value.into(), slot: Slot::Constant, index: None, tangent: None }
    }

    /// Parameter number `index` of the model.
    pub fn parameter(&self, value: impl Into<Value>, index: usize, trainable: bool) -> Var {
        let slot = if trainable && self.recording { Slot::Parameter(index) } else { Slot::Constant };
        let tangent = self.direction.get(&index).filter(|_| trainable).cloned();
        Var { value: value.into(), slot, index: Some(index), tangent }
    }

    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }

    /// Adds a step whose gradient flows to `inputs` through `backward`; a constant where none of them needs one.
    pub(super) fn push(
        &mut self,
        value: Value,
        inputs: &[&Var],
        backward: impl Fn(&Value, &mut Grads) -> Result<()> + Send + Sync + 'static,
    ) -> Var {
        if !self.recording || !inputs.iter().any(|v| v.needs_grad()) {
            return self.constant(value);
        }
        let id = self.activations;
        self.activations += 1;
        self.steps.push((id, Box::new(backward)));
        Var { value, slot: Slot::Activation(id), index: None, tangent: None }
    }

    /// The packed copy of a weight, which `fill` makes where it is kept; `None` where it is not.
    pub(super) fn packed(
        &self,
        w: &Var,
        side: Side,
        fill: impl FnOnce(&mut Packed) -> Result<()>,
    ) -> Result<Option<Arc<Packed>>> {
        self.stop.check()?;
        w.index.map_or(Ok(None), |index| self.packs.get((index, side), self.decoding, fill))
    }

    pub fn packs(&self) -> Arc<Packs> {
        self.packs.clone()
    }

    /// Runs a routine as this tape runs its operations.
    ///
    /// # Errors
    /// The routine's own.
    pub fn run<R: Routine>(&self, routine: R) -> Result<R::Out> {
        form::run(routine, self.plain)
    }

    /// Carries `upstream` (the gradient of `out`) back to the parameters, adding to `parameters`.
    pub fn backward(&self, out: &Var, upstream: impl Into<Value>, parameters: &mut ParameterGrads) -> Result<()> {
        self.backward_from(vec![(out, upstream.into())], parameters)
    }

    /// As `backward`, from several values with a gradient each.
    pub fn backward_from(&self, outs: Vec<(&Var, Value)>, parameters: &mut ParameterGrads) -> Result<()> {
        let begin = |grads: &mut Grads| outs.into_iter().try_for_each(|(out, upstream)| grads.add_owned(out, upstream));
        self.backward_by(begin, parameters)
    }

    /// As `backward`, from the gradients that `begin` adds.
    pub(super) fn backward_by(
        &self,
        begin: impl FnOnce(&mut Grads) -> Result<()>,
        parameters: &mut ParameterGrads,
    ) -> Result<()> {
        let mut grads = Grads { tape: self, activations: vec![None; self.activations], parameters };
        begin(&mut grads)?;
        for (id, backward) in self.steps.iter().rev() {
            if let Some((upstream, _)) = grads.activations[*id].take() {
                self.stop.check()?;
                backward(&upstream, &mut grads)?;
            }
        }
        Ok(())
    }
}

/// The gradients under way during one backward pass.
pub struct Grads<'a> {
    tape: &'a Tape,
    activations: Vec<Option<Held>>,
    parameters: &'a mut ParameterGrads,
}

/// A gradient, and whether nobody else holds the tensor, so that it may be added to in place.
type Held = (Value, bool);

impl Grads<'_> {
    /// The tape that is walked back.
    pub fn tape(&self) -> &Tape {
        self.tape
    }

    /// Adds a gradient that was made for this call.
    pub fn add_owned(&mut self, to: impl Into<Sink>, grad: impl Into<Value>) -> Result<()> {
        self.add(to.into(), (grad.into(), true))
    }

    /// Adds a gradient that others hold too.
    pub fn add_shared(&mut self, to: impl Into<Sink>, grad: impl Into<Value>) -> Result<()> {
        self.add(to.into(), (grad.into(), false))
    }

    fn add(&mut self, to: Sink, more: Held) -> Result<()> {
        match to.0 {
            Slot::Constant => {}
            Slot::Parameter(index) => {
                let sum = self.parameters.slot(index, &more.0)?;
                *sum = Sum { sum: (sum.clone(), true), more }.run()?.0;
            }
            Slot::Activation(id) => {
                self.activations[id] = Some(match self.activations[id].take() {
                    None => more,
                    Some(sum) => Sum { sum, more }.run()?,
                });
            }
        }
        Ok(())
    }

    /// Changes the gradient of `to` in place: for host forms.
    pub fn accumulate(&mut self, to: &Var, change: impl FnMut(&mut [f32])) -> Result<()> {
        match to.slot {
            Slot::Parameter(index) => host::write(self.parameters.slot(index, &to.value)?.host()?, change),
            Slot::Constant => Ok(()),
            Slot::Activation(id) => {
                if let Some((sum, true)) = &self.activations[id] {
                    return host::write(sum.host()?, change);
                }
                let sum = to.tensor()?.zeros_like()?;
                host::write(&sum, change)?;
                self.add_owned(to, sum)
            }
        }
    }

    /// The array that the gradient of `to` is to be added into in place, zeros where there is none yet: f32 for a
    /// parameter, of the value's own type for an activation. For device forms; `None` where no gradient is needed.
    pub fn slot(&mut self, to: &Var) -> Result<Option<Array>> {
        Ok(match to.slot {
            Slot::Constant => None,
            Slot::Parameter(index) => Some(self.parameters.slot(index, &to.value)?.array()?.clone()),
            Slot::Activation(id) => {
                if !matches!(&self.activations[id], Some((_, true))) {
                    self.add_owned(to, to.value.zeros_like()?)?;
                }
                let held = self.activations[id].as_ref().expect("a gradient was just added");
                Some(held.0.array()?.clone())
            }
        })
    }
}

/// What two gradients of one value come to: added in place where one of them is held here alone.
struct Sum {
    sum: Held,
    more: Held,
}

impl Routine for Sum {
    type Out = Held;

    fn values(&self) -> impl IntoIterator<Item = &Value> {
        [&self.sum.0, &self.more.0]
    }

    fn host(self) -> Result<Held> {
        match (self.sum, self.more) {
            ((sum, true), (more, _)) => add_into(sum.host()?, more.host()?).map(|()| (sum, true)),
            ((sum, _), (more, true)) => add_into(more.host()?, sum.host()?).map(|()| (more, true)),
            ((sum, _), (more, _)) => Ok(((sum.host()? + more.host()?)?.into(), true)),
        }
    }

    fn device(self) -> Result<Held> {
        match (self.sum, self.more) {
            ((sum, true), (more, _)) => device::add_into(sum.array()?, more.array()?).map(|()| (sum, true)),
            ((sum, _), (more, true)) => device::add_into(more.array()?, sum.array()?).map(|()| (more, true)),
            ((sum, _), (more, _)) => Ok((device::add(sum.array()?, more.array()?)?.into(), true)),
        }
    }

    fn plain(self) -> Result<Held> {
        Ok(((self.sum.0.host()? + self.more.0.host()?)?.into(), true))
    }
}

/// sum += x, on every thread.
fn add_into(sum: &Tensor, x: &Tensor) -> Result<()> {
    let x = x.contiguous()?;
    let x = host::read(&x)?;
    host::write(sum, |sum| {
        host::for_rows(sum, 1, |at, block| {
            let x = &x[at..at + block.len()];
            block.iter_mut().zip(x).for_each(|(s, x)| *s += x);
        });
    })
}
