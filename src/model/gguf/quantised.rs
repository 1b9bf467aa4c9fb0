//! Maps whose weight stays as a GGUF file holds it, and the file as a decoder's source of them.
//!
//! Owns no file format (`file.rs`). Nothing here is differentiated.

use super::facts::Architecture;
use super::file::File;
use crate::error::Result;
use crate::kernel::tape::{Tape, Var};
use crate::model::decoder::{LinearMap, NormWeights, Source, Weight};
use crate::model::trunk::{Linear, Trunk};
use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{DType, Device, Module, Tensor};
use std::sync::Arc;

/// W·x + b by candle's quantised products.
pub struct Quantised {
    weight: Arc<QTensor>,
    product: QMatMul,
    bias: Option<Tensor>,
}

impl Quantised {
    fn new(weight: Arc<QTensor>, bias: Option<Tensor>) -> Result<Self> {
        Ok(Self { product: QMatMul::from_arc(weight.clone())?, weight, bias })
    }
}

impl LinearMap for Quantised {
    fn apply(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let y = self.product.forward(x.tensor()?)?;
        Ok(tape.constant(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        }))
    }

    fn rows(&self, tape: &mut Tape, ids: Arc<[u32]>) -> Result<Var> {
        let ids = Tensor::new(&ids[..], &self.weight.device())?;
        let rows = match &self.product {
            QMatMul::QTensor(weight) => weight.embedding(&ids)?,
            QMatMul::Tensor(weight) | QMatMul::TensorF16(weight) => {
                weight.index_select(&ids, 0)?.to_dtype(DType::F32)?
            }
        };
        Ok(tape.constant(rows))
    }
}

/// A file whose tensors become maps.
pub struct Tensors<'a> {
    pub file: &'a mut File,
    pub architecture: &'a Architecture,
    /// Numbers of a head.
    pub dim: usize,
    pub device: &'a Device,
}

impl Tensors<'_> {
    fn weight(&mut self, name: &str, dims: &[usize]) -> Result<Arc<QTensor>> {
        Ok(Arc::new(self.file.tensor(&format!("{name}.weight"), dims, None, self.device)?))
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
        let weight = self.file.tensor(&format!("{}.weight", linear.name), &dims, order, self.device)?;
        let bias = format!("{}.bias", linear.name);
        let biased = linear.bias || self.file.has(&bias);
        let bias = biased.then(|| self.file.plain(&bias, &dims[..1], order, self.device)).transpose()?;
        Quantised::new(Arc::new(weight), bias)
    }

    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<Quantised> {
        Quantised::new(self.weight(name, &[rows, width])?, None)
    }

    fn norm(&mut self, name: &str, width: usize, biased: bool) -> Result<NormWeights> {
        let mut plain =
            |kind: &str| self.file.plain(&format!("{name}.{kind}"), &[width], None, self.device).map(Weight::constant);
        Ok(NormWeights { weight: plain("weight")?, bias: biased.then(|| plain("bias")).transpose()? })
    }

    fn head(&mut self, trunk: &Trunk, embedding: &Quantised) -> Result<Quantised> {
        if trunk.tied {
            return Ok(Quantised { weight: embedding.weight.clone(), product: embedding.product.clone(), bias: None });
        }
        self.table(trunk.names.lm_head, trunk.vocab_size, trunk.hidden_size)
    }
}
