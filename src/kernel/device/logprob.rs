//! Linear → log-probability on a device: the kernels `absorb` and `softmax_grad` on a chunk of the logits after another.

use super::chunks::{Chunk, Cut, Pairs, Side};
use crate::error::Result;
use crate::gpu::{Array, DType, Grid, Kernel};
use crate::kernel::logprob::LinearLogprob;
use crate::kernel::op::DeviceForm;
use crate::kernel::tape::{Grads, Tape, Var};

/// Threads of a block that takes a row (`softmax.cuh`).
pub(super) const THREADS: u32 = 256;

/// What the backward pass reads.
pub struct Kept {
    inputs: [Var; 2],
    side: Side,
    pairs: Pairs,
    /// The softmax of each row: the largest z, Σ exp(z − largest) and Σ exp(z − largest)·z, `[U,3]`.
    softmax: Array,
}

impl DeviceForm<2> for LinearLogprob {
    type Kept = Kept;

    fn device(&self, tape: &Tape, inputs: [&Var; 2]) -> Result<(Array, Kept)> {
        self.cut(tape, inputs, Cut::USUAL)
    }

    fn device_backward(&self, kept: &Kept, dy: &Array, grads: &mut Grads) -> Result<()> {
        let Kept { inputs, side, pairs, softmax } = kept;
        let kernel = Kernel::typed("softmax_grad", "softmax_grad", &[("Z", side.dtype())]);
        side.backward(inputs.each_ref(), grads, |chunk, logits, dz| {
            let grid = Grid::of(chunk.rows.len(), THREADS);
            let (first, rows) = (pairs.first(chunk)?, rows(softmax, chunk)?);
            let [columns, from] = [chunk.columns.len() as u32, chunk.columns.start as u32];
            let arrays = [logits, &rows, &first, &pairs.tokens, dy, dz].map(Into::into);
            let numbers = [columns.into(), from.into(), self.scale().into(), side.cap().into()];
            side.gpu().launch(&kernel, grid, &[&arrays[..], &numbers[..]].concat())
        })
    }
}

impl LinearLogprob {
    fn scale(&self) -> f32 {
        (1.0 / self.targets.temperature) as f32
    }

    /// The forward pass with the logits cut as asked.
    pub(super) fn cut(&self, tape: &Tape, inputs: [&Var; 2], cut: Cut) -> Result<(Array, Kept)> {
        let side = Side::new(inputs, self.softcap, cut)?;
        let gpu = side.gpu();
        let pairs = Pairs::new(gpu, &self.targets, side.rows())?;
        let softmax = gpu.empty("softmax of rows", DType::F32, &[side.rows(), 3])?;
        let target = gpu.empty("logits of tokens", DType::F32, &[pairs.len()])?;
        let y = gpu.empty("log-probs", DType::F32, &[pairs.len(), 2])?;
        let buffer = side.buffer("logits", DType::F32)?;
        let kernel = Kernel::plain("absorb", "absorb");
        for chunk in side.chunks() {
            tape.stop().check()?;
            let logits = side.logits(&chunk, &buffer)?;
            let (first, rows) = (pairs.first(&chunk)?, rows(&softmax, &chunk)?);
            let [columns, from] = [chunk.columns.len() as u32, chunk.columns.start as u32];
            let arrays = [&logits, &first, &pairs.tokens, &rows, &target].map(Into::into);
            let begins = u32::from(chunk.is_first());
            let numbers = [columns.into(), from.into(), begins.into(), self.scale().into(), side.cap().into()];
            gpu.launch(&kernel, Grid::of(chunk.rows.len(), THREADS), &[&arrays[..], &numbers[..]].concat())?;
        }
        if pairs.len() > 0 {
            let arrays = [&softmax, &target, &pairs.rows, &y].map(Into::into);
            let args = [&arrays[..], &[pairs.len().into()]].concat();
            gpu.launch(&Kernel::plain("absorb", "finish"), Grid::over(pairs.len(), 1), &args)?;
        }
        Ok((y, Kept { inputs: inputs.map(Var::clone), side, pairs, softmax }))
    }
}

/// What the chunk's rows came to.
pub(super) fn rows(of_all: &Array, chunk: &Chunk) -> Result<Array> {
    of_all.rows(chunk.rows.start, chunk.rows.len())
}
