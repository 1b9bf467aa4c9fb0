//! Linear → divergence on a device: the kernels of `kl.cu` on a chunk of both models' logits after another.

use super::chunks::{Cut, Pairs, Side};
use super::logprob::{THREADS, rows};
use crate::error::Result;
use crate::gpu::{Array, DType, Grid, Kernel};
use crate::kernel::divergence::LinearKl;
use crate::kernel::op::DeviceForm;
use crate::kernel::tape::{Grads, Tape, Var};

/// What the backward pass reads.
pub struct Kept {
    inputs: [Var; 2],
    own: Side,
    other: Side,
    pairs: Pairs,
    /// Of each row both softmaxes, the largest z and Σ exp(z − largest), and Σ exp(z − largest)·(z − z′): `[U,5]`.
    found: Array,
}

impl DeviceForm<4> for LinearKl {
    type Kept = Kept;

    fn device(&self, tape: &Tape, inputs: [&Var; 4]) -> Result<(Array, Kept)> {
        self.cut(tape, inputs, Cut::USUAL)
    }

    fn device_backward(&self, kept: &Kept, dy: &Array, grads: &mut Grads) -> Result<()> {
        let Kept { inputs, own, other, pairs, found } = kept;
        let kernel = self.kernel("kl_grad", own);
        let buffer = other.buffer("logits of the reference", DType::F32)?;
        own.backward(inputs.each_ref(), grads, |chunk, logits, dz| {
            let reference = other.logits(chunk, &buffer)?;
            let (first, rows) = (pairs.first(chunk)?, rows(found, chunk)?);
            let arrays = [logits, &reference, &rows, &first, dy, dz].map(Into::into);
            let numbers = [self.scale(), own.cap(), other.cap()].map(Into::into);
            let columns = [(chunk.columns.len() as u32).into()];
            let args = [&arrays[..], &columns[..], &numbers[..]].concat();
            own.gpu().launch(&kernel, Grid::of(chunk.rows.len(), THREADS), &args)
        })
    }
}

impl LinearKl {
    fn scale(&self) -> f32 {
        (1.0 / self.targets.temperature) as f32
    }

    fn kernel(&self, function: &'static str, own: &Side) -> Kernel {
        Kernel::typed("kl", function, &[("Z", own.dtype())])
    }

    /// The forward pass with the logits cut as asked.
    pub(super) fn cut(&self, tape: &Tape, inputs: [&Var; 4], cut: Cut) -> Result<(Array, Kept)> {
        let [h, w, other, head] = inputs;
        let (own, other) = (Side::new([h, w], self.softcap, cut)?, Side::new([other, head], self.other, cut)?);
        let gpu = own.gpu();
        let pairs = Pairs::new(gpu, &self.targets, own.rows())?;
        let found = gpu.empty("divergences of rows", DType::F32, &[own.rows(), 5])?;
        let y = gpu.empty("divergences", DType::F32, &[pairs.len(), 1])?;
        let buffers = [own.buffer("logits", DType::F32)?, other.buffer("logits of the reference", DType::F32)?];
        let kernel = self.kernel("absorb_kl", &own);
        for chunk in own.chunks() {
            tape.stop().check()?;
            let (logits, reference) = (own.logits(&chunk, &buffers[0])?, other.logits(&chunk, &buffers[1])?);
            let rows = rows(&found, &chunk)?;
            let arrays = [&logits, &reference, &rows].map(Into::into);
            let counts = [chunk.columns.len() as u32, u32::from(chunk.is_first())].map(Into::into);
            let numbers = [self.scale(), own.cap(), other.cap()].map(Into::into);
            let args = [&arrays[..], &counts[..], &numbers[..]].concat();
            gpu.launch(&kernel, Grid::of(chunk.rows.len(), THREADS), &args)?;
        }
        if pairs.len() > 0 {
            let arrays = [&found, &pairs.rows, &y].map(Into::into);
            let args = [&arrays[..], &[pairs.len().into()]].concat();
            gpu.launch(&self.kernel("finish_kl", &own), Grid::over(pairs.len(), 1), &args)?;
        }
        Ok((y, Kept { inputs: [h.clone(), w.clone()], own, other, pairs, found }))
    }
}
