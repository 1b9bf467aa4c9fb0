//! What an operation is, and how a tape runs one: in the form that serves its values, with that form's backward pass.
//!
//! Owns the backward pass that every plain composition gets for nothing. Owns no arithmetic: an operation states its forms
//! in a file of its own.

use super::form::Form;
use super::tape::{Grads, Sink, Tape, Var};
use super::value::Value;
use crate::error::{Error, Kind, Result};
use crate::gpu::Array;
use candle_core::Tensor;

/// A differentiable operation over N values; its fields are what is not differentiated (an epsilon, positions, ids).
/// `Tape::apply` runs it.
///
/// The form for values on a device is a trait of its own, `DeviceForm`, whose implementations stand in `device/`; the
/// forward derivative is `Tangent`. Models, tape and engine name no form. The suite of operations (`suite_tests.rs`) takes
/// the place as a parameter.
pub trait Operation<const N: usize>: Send + Sync + 'static {
    /// What the host form's backward pass reads, and no more: a `Var` where it needs an input's value, a `Sink` where
    /// it only needs to know where the gradient goes, and what the forward pass found on its way.
    type Saved: Send + Sync + 'static;

    /// The fused form for f32 in the host's memory: the value, and what is kept for `backward`. The tape has the
    /// packed copies of weights, and says when to stop.
    fn host(&self, tape: &Tape, inputs: [&Var; N]) -> Result<(Tensor, Self::Saved)>;

    /// Adds to `grads` what `dy`, the contiguous gradient of the host form's value, comes to.
    fn backward(&self, saved: &Self::Saved, dy: &Tensor, grads: &mut Grads) -> Result<()>;

    /// The plain composition: candle's operations, on any device and in any float type. It states what the operation
    /// means, and candle differentiates it; the fused forms are held to it.
    fn plain(&self, inputs: &[Tensor; N]) -> Result<Tensor>;
}

/// The form of an operation for values on a device; types and gradients as `device/mod.rs` says.
pub trait DeviceForm<const N: usize>: Operation<N> {
    /// What the backward pass reads, and no more.
    type Kept: Send + Sync + 'static;

    /// The value, and what is kept for `device_backward`.
    fn device(&self, tape: &Tape, inputs: [&Var; N]) -> Result<(Array, Self::Kept)>;

    /// Adds to `grads` what `dy`, the gradient of the value, comes to.
    fn device_backward(&self, kept: &Self::Kept, dy: &Array, grads: &mut Grads) -> Result<()>;
}

/// An operation within a pass, which carries tangents on: what scores tokens at a pass's end needs none.
pub trait Tangent<const N: usize>: DeviceForm<N> {
    /// J·u of the host form: the tangent of the value, from the inputs and their tangents u, of which those that are not
    /// there are zero and at least one is. ⟨dy, J·u⟩ = ⟨Jᵀ·dy, u⟩.
    ///
    /// # Errors
    /// Those of the operation.
    fn tangent(
        &self,
        tape: &Tape,
        inputs: [&Var; N],
        tangents: [Option<&Tensor>; N],
        saved: &Self::Saved,
    ) -> Result<Tensor>;
}

impl Tape {
    /// Runs an operation, with the tangent of its value where an input has one, and records its backward pass.
    ///
    /// # Errors
    /// Shapes that do not fit, an interruption; tangents elsewhere than in the host form.
    pub fn apply<const N: usize>(&mut self, op: impl Tangent<N>, inputs: [&Var; N]) -> Result<Var> {
        if inputs.iter().all(|v| v.tangent().is_none()) {
            return self.finish(op, inputs);
        }
        let Form::Host = Form::of(inputs.map(|v| &v.value), self.is_plain())? else {
            return Err(Error::new(
                Kind::Device,
                "forward derivatives are computed by the fused operations of the CPU",
            ));
        };
        // What is kept for the backward pass keeps no tangents.
        let bare = inputs.map(Var::without_tangent);
        let (value, saved) = op.host(self, bare.each_ref())?;
        let tangents: Vec<Option<&Tensor>> =
            inputs.iter().map(|v| v.tangent().map(Value::host).transpose()).collect::<Result<_>>()?;
        let tangents = tangents.try_into().expect("as many tangents as inputs");
        let tangent = op.tangent(self, bare.each_ref(), tangents, &saved)?;
        let out = self.push(value.into(), &bare.each_ref(), move |dy, grads| {
            op.backward(&saved, &dy.host()?.contiguous()?, grads)
        });
        Ok(out.with_tangent(tangent.into()))
    }

    /// Runs an operation at the end of a pass, without tangents, and records its backward pass.
    ///
    /// # Errors
    /// Shapes that do not fit, and an interruption.
    pub fn finish<const N: usize>(&mut self, op: impl DeviceForm<N>, inputs: [&Var; N]) -> Result<Var> {
        match Form::of(inputs.map(|v| &v.value), self.is_plain())? {
            Form::Host => {
                let (value, saved) = op.host(self, inputs)?;
                Ok(self.push(value.into(), &inputs, move |dy, grads| {
                    op.backward(&saved, &dy.host()?.contiguous()?, grads)
                }))
            }
            Form::Device => {
                let (value, kept) = op.device(self, inputs)?;
                Ok(self.push(value.into(), &inputs, move |dy, grads| op.device_backward(&kept, dy.array()?, grads)))
            }
            Form::Plain => {
                let (values, sinks) = (tensors(inputs)?.map(Tensor::clone), inputs.map(Var::sink));
                let value = op.plain(&values)?;
                let back = move |dy: &Value, grads: &mut Grads| plain_backward(&op, &values, sinks, dy.host()?, grads);
                Ok(self.push(value.into(), &inputs, back))
            }
        }
    }
}

/// The tangent of an operation's only input.
pub(super) fn given(tangent: Option<&Tensor>) -> &Tensor {
    tangent.expect("at least one tangent is there")
}

/// The inputs of a form for the host.
pub(super) fn tensors<const N: usize>(inputs: [&Var; N]) -> Result<[&Tensor; N]> {
    let all: Vec<&Tensor> = inputs.iter().map(|v| v.value.host()).collect::<Result<_>>()?;
    Ok(all.try_into().expect("as many tensors as inputs"))
}

/// The backward pass of every plain composition, by candle's own differentiation; frozen inputs take no part.
fn plain_backward<const N: usize>(
    op: &impl Operation<N>,
    inputs: &[Tensor; N],
    sinks: [Sink; N],
    dy: &Tensor,
    grads: &mut Grads,
) -> Result<()> {
    let mut leaves = inputs.clone().map(|t| t.detach());
    for (leaf, sink) in leaves.iter_mut().zip(sinks) {
        if sink.needs_grad() {
            *leaf = candle_core::Var::from_tensor(leaf)?.into_inner();
        }
    }
    let found = (op.plain(&leaves)? * dy)?.sum_all()?.backward()?;
    for (leaf, sink) in leaves.iter().zip(sinks).filter(|(_, sink)| sink.needs_grad()) {
        let grad = found.get(leaf).map_or_else(|| leaf.zeros_like(), |grad| Ok(grad.clone()))?;
        grads.add_owned(sink, grad)?;
    }
    Ok(())
}
