//! Linear → divergence on a device: the kernels of `kl.cu` on a chunk of both models' logits after another.

use super::chunks::{Chunk, Cut, Pairs, Side};
use super::logprob::{THREADS, rows};
use crate::error::Result;
use crate::gpu::{Arg, Array, DType, Grid, Kernel};
use crate::kernel::divergence::{Divergence, LinearDivergence};
use crate::kernel::op::DeviceForm;
use crate::kernel::tape::{Grads, Tape, Var};

/// What the backward pass reads.
pub struct Kept {
    inputs: [Var; 2],
    own: Side,
    other: Side,
    pairs: Pairs,
    /// Of each row both softmaxes, the largest z and Σ exp(z − largest), and Σ exp(z − largest)·(z − z′): `[U,5]`. Of
    /// `Forward` the reference has the policy's place.
    found: Array,
    /// Of `Jsd` each row's Σ p·log(p/m) and Σ p′·log(p′/m), `[U,2]`.
    sums: Option<Array>,
}

impl DeviceForm<4> for LinearDivergence {
    type Kept = Kept;

    fn device(&self, tape: &Tape, inputs: [&Var; 4]) -> Result<(Array, Kept)> {
        self.cut(tape, inputs, Cut::USUAL)
    }

    fn device_backward(&self, kept: &Kept, dy: &Array, grads: &mut Grads) -> Result<()> {
        let Kept { inputs, own, other, pairs, found, sums } = kept;
        let kernel = self.kernel(
            match self.of {
                Divergence::Full => "kl_grad",
                Divergence::Forward => "forward_grad",
                Divergence::Jsd(_) => "jsd_grad",
            },
            own,
        );
        let buffer = other.buffer("logits of the reference", DType::F32)?;
        own.backward(inputs.each_ref(), grads, |chunk, logits, dz| {
            let reference = other.logits(chunk, &buffer)?;
            let (first, of_rows) = (pairs.first(chunk)?, rows(found, chunk)?);
            let sums = sums.as_ref().map(|sums| rows(sums, chunk)).transpose()?;
            let mut args: Vec<Arg> = [logits, &reference, &of_rows].map(Into::into).to_vec();
            args.extend(sums.as_ref().map(Arg::from));
            args.extend([&first, dy, dz].map(Arg::from));
            args.push((chunk.columns.len() as u32).into());
            args.extend(self.numbers([own.cap(), other.cap()]));
            own.gpu().launch(&kernel, Grid::of(chunk.rows.len(), THREADS), &args)
        })
    }
}

impl LinearDivergence {
    fn scale(&self) -> f32 {
        (1.0 / self.targets.temperature) as f32
    }

    /// What kernels over chunks end with: 1 / temperature, both caps, and of `Jsd` its beta.
    fn numbers(&self, [cap, other]: [f32; 2]) -> Vec<Arg<'static>> {
        let beta = if let Divergence::Jsd(beta) = self.of { Some(beta) } else { None };
        [self.scale(), cap, other].into_iter().chain(beta).map(Arg::from).collect()
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
        let kernel = self.kernel("absorb_kl", &own);
        let turned = self.of == Divergence::Forward;
        each_chunk(tape, &own, &other, |chunk, mut logits| {
            let mut caps = [own.cap(), other.cap()];
            if turned {
                logits.reverse();
                caps.reverse();
            }
            let of_rows = rows(&found, chunk)?;
            let mut args: Vec<Arg> = [logits[0], logits[1], &of_rows].map(Into::into).to_vec();
            args.extend([chunk.columns.len() as u32, u32::from(chunk.is_first())].map(Arg::from));
            args.extend([self.scale(), caps[0], caps[1]].map(Arg::from));
            gpu.launch(&kernel, Grid::of(chunk.rows.len(), THREADS), &args)
        })?;
        let sums = match self.of {
            Divergence::Jsd(_) => Some(self.jsd(tape, [&own, &other], &found)?),
            _ => None,
        };
        if pairs.len() > 0 {
            let name = if sums.is_some() { "finish_jsd" } else { "finish_kl" };
            let arrays = [sums.as_ref().unwrap_or(&found), &pairs.rows, &y].map(Into::into);
            let mut args = [&arrays[..], &[pairs.len().into()]].concat();
            if let Divergence::Jsd(beta) = self.of {
                args.push(beta.into());
            }
            gpu.launch(&self.kernel(name, &own), Grid::over(pairs.len(), 1), &args)?;
        }
        Ok((y, Kept { inputs: [h.clone(), w.clone()], own, other, pairs, found, sums }))
    }

    /// Σ p·log(p/m) and Σ p′·log(p′/m) of each row, once both softmaxes are found.
    fn jsd(&self, tape: &Tape, [own, other]: [&Side; 2], found: &Array) -> Result<Array> {
        let sums = own.gpu().empty("divergences from a mixture", DType::F32, &[own.rows(), 2])?;
        let kernel = self.kernel("absorb_jsd", own);
        each_chunk(tape, own, other, |chunk, [logits, reference]| {
            let (of_rows, sums) = (rows(found, chunk)?, rows(&sums, chunk)?);
            let mut args: Vec<Arg> = [logits, reference, &of_rows, &sums].map(Into::into).to_vec();
            args.extend([chunk.columns.len() as u32, u32::from(chunk.is_first())].map(Arg::from));
            args.extend(self.numbers([own.cap(), other.cap()]));
            own.gpu().launch(&kernel, Grid::of(chunk.rows.len(), THREADS), &args)
        })?;
        Ok(sums)
    }
}

/// `f(chunk, both models' logits)` of one chunk after another.
fn each_chunk(
    tape: &Tape,
    own: &Side,
    other: &Side,
    mut f: impl FnMut(&Chunk, [&Array; 2]) -> Result<()>,
) -> Result<()> {
    let buffers = [own.buffer("logits", DType::F32)?, other.buffer("logits of the reference", DType::F32)?];
    for chunk in own.chunks() {
        tape.stop().check()?;
        f(&chunk, [&own.logits(&chunk, &buffers[0])?, &other.logits(&chunk, &buffers[1])?])?;
    }
    Ok(())
}
