//! Maps whose weight stays in the few bits in which a GGUF file holds it, and the file as a decoder's source of them.
//!
//! Owns no file format (`file.rs`, `blocks.rs`) and no arithmetic (`kernel/quantised`). Nothing here is differentiated.

use super::blocks;
use super::facts::Architecture;
use super::file::{File, Stored};
use crate::error::Result;
use crate::kernel::elementwise::add;
use crate::kernel::host;
use crate::kernel::quantised::{Addend, Matrix, Product};
use crate::kernel::tape::{Tape, Var};
use crate::model::decoder::{LinearMap, NormWeights, Source, Weight};
use crate::model::trunk::{Linear, Trunk};
use candle_core::Tensor;
use rayon::prelude::*;
use std::sync::Arc;

/// x·W + b
pub struct Quantised {
    weight: Arc<Matrix>,
    bias: Option<Tensor>,
}

impl Quantised {
    /// W `[out,in]` as a file holds it.
    fn new(stored: &Stored, [outputs, inputs]: [usize; 2], bias: Option<Tensor>) -> Self {
        let Stored { format, bytes } = stored;
        let kept = blocks::format(*format).expect("the format was checked when the file was opened");
        let row = bytes.len() / outputs;
        let read = |j: usize, column: &mut _| blocks::read(*format, &bytes[j * row..(j + 1) * row], column);
        Self { weight: Arc::new(Matrix::pack(kept, [inputs, outputs], read)), bias }
    }

    /// What it takes in memory.
    fn bytes(&self) -> u64 {
        (self.weight.bytes() + self.bias.as_ref().map_or(0, |bias| 4 * bias.elem_count())) as u64
    }

    fn product(&self, tape: &mut Tape, x: &Var, addend: Addend) -> Result<Var> {
        tape.stop().check()?;
        Ok(tape.constant(tape.run(Product { x: &x.value, weight: &self.weight, addend })?))
    }
}

impl LinearMap for Quantised {
    fn apply(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        self.product(tape, x, self.bias.as_ref().map_or(Addend::None, Addend::Bias))
    }

    fn add_to(&self, tape: &mut Tape, x: &Var, residual: &Var) -> Result<Var> {
        if self.bias.is_none() {
            return self.product(tape, x, Addend::Rows(&residual.value));
        }
        let y = self.apply(tape, x)?;
        add(tape, residual, &y)
    }

    fn rows(&self, tape: &mut Tape, ids: Arc<[u32]>) -> Result<Var> {
        let width = self.weight.rows();
        let mut rows = vec![0.0; ids.len() * width];
        rows.par_chunks_mut(width).zip(&*ids).for_each(|(row, &id)| self.weight.column(id as usize, row));
        Ok(tape.constant(host::tensor(rows, &[ids.len(), width])?))
    }
}

/// A file whose tensors become maps.
pub struct Tensors<'a> {
    pub file: &'a mut File,
    pub architecture: &'a Architecture,
    /// Numbers of a head.
    pub dim: usize,
    /// What the maps and norms made so far take in memory.
    pub bytes: u64,
}

impl Tensors<'_> {
    fn counted(&mut self, map: Quantised) -> Quantised {
        self.bytes += map.bytes();
        map
    }
}

impl Source for Tensors<'_> {
    type Map = Quantised;

    /// With a bias where the file has one, or where there must be one.
    fn linear(&mut self, linear: &Linear) -> Result<Quantised> {
        let half = self.dim / 2;
        // Pair j of a head is at rows 2j and 2j+1 of the file; here its parts are half a head apart.
        let interleaved = |row: usize| {
            let (head, place) = (row / self.dim * self.dim, row % self.dim);
            head + 2 * (place % half) + place / half
        };
        let turned = self.architecture.interleaved.contains(&linear.slot);
        let order: Option<&dyn Fn(usize) -> usize> = if turned { Some(&interleaved) } else { None };
        let dims = [linear.outputs, linear.inputs];
        let weight = self.file.stored(&format!("{}.weight", linear.name), &dims, order)?;
        let bias = format!("{}.bias", linear.name);
        let biased = linear.bias || self.file.has(&bias);
        let bias = biased.then(|| self.file.plain(&bias, &dims[..1], order)).transpose()?;
        Ok(self.counted(Quantised::new(&weight, dims, bias)))
    }

    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<Quantised> {
        let dims = [rows, width];
        let weight = self.file.stored(&format!("{name}.weight"), &dims, None)?;
        Ok(self.counted(Quantised::new(&weight, dims, None)))
    }

    fn norm(&mut self, name: &str, width: usize, biased: bool) -> Result<NormWeights> {
        self.bytes += 4 * width as u64 * if biased { 2 } else { 1 };
        let mut plain = |kind: &str| self.file.plain(&format!("{name}.{kind}"), &[width], None).map(Weight::constant);
        Ok(NormWeights { weight: plain("weight")?, bias: biased.then(|| plain("bias")).transpose()? })
    }

    fn head(&mut self, trunk: &Trunk, embedding: &Quantised) -> Result<Quantised> {
        if trunk.tied {
            return Ok(Quantised { weight: embedding.weight.clone(), bias: None });
        }
        self.table(trunk.names.lm_head, trunk.vocab_size, trunk.hidden_size)
    }
}
