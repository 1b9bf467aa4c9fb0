//! Sums of products on a device, in f64: norms of gradients and the angles between them, for all parameters of a model
//! at once.

use crate::error::{Error, Kind, Result};
use crate::gpu::{Array, DType, Gpu, Grid, Kernel};
use std::ops::Range;

/// Parts of an array, such as the parameters that lie in it, each of which has a sum of its own.
pub struct Parts {
    /// From where to where: a block's share, `[pieces,2]`.
    pieces: Array,
    /// The first piece of each part, and the end: `[parts+1]`.
    firsts: Array,
    /// Of each piece: f64 `[pieces]`.
    sums: Array,
    /// Of each part: f64 `[parts]`.
    out: Array,
    /// The numbers that an array must have.
    end: usize,
}

impl Parts {
    /// # Errors
    /// Too little memory; a device that has failed.
    pub fn new(gpu: &Gpu, parts: &[Range<usize>]) -> Result<Self> {
        /// Numbers of a piece.
        const PIECE: usize = 1 << 16;
        let (mut pieces, mut firsts) = (Vec::new(), vec![0u64]);
        for part in parts {
            for from in part.clone().step_by(PIECE) {
                pieces.extend([from as u64, (from + PIECE).min(part.end) as u64]);
            }
            firsts.push(pieces.len() as u64 / 2);
        }
        let count = pieces.len() / 2;
        Ok(Self {
            pieces: gpu.upload("pieces of arrays", &pieces, &[count, 2])?,
            firsts: gpu.upload("parts of arrays", &firsts, &[firsts.len()])?,
            sums: gpu.empty("sums of pieces", DType::F64, &[count])?,
            out: gpu.empty("sums of parts", DType::F64, &[parts.len()])?,
            end: parts.iter().map(|part| part.end).max().unwrap_or(0),
        })
    }

    /// Σ a·b of each part, of f32 arrays; not finite where a number of it is not. The host waits once.
    ///
    /// # Errors
    /// Arrays of another type, or that end before a part does; a device that has failed.
    pub fn dot(&self, a: &Array, b: &Array) -> Result<Vec<f64>> {
        const THREADS: u32 = 256;
        if [a, b].iter().any(|x| x.dtype() != DType::F32 || x.len() < self.end) {
            return Err(Error::new(Kind::Internal, format!("no sums of {} numbers of {a:?} and {b:?}", self.end)));
        }
        let (gpu, Self { pieces, firsts, sums, out, .. }) = (self.out.gpu(), self);
        let launch = |function, blocks, arrays: &[&Array]| {
            let args: Vec<_> = arrays.iter().map(|a| (*a).into()).collect();
            if blocks == 0 {
                return Ok(());
            }
            gpu.launch(&Kernel::plain("dot", function), Grid::of(blocks, THREADS), &args)
        };
        launch("dot_pieces", sums.len(), &[a, b, pieces, sums])?;
        launch("dot_parts", out.len(), &[sums, firsts, out])?;
        gpu.read(out)
    }
}
