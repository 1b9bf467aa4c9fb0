//! The `Tensor` value: data on a device, an optional place in a differentiable graph, and whether it is per token.
//!
//! Owns construction and reading; arithmetic is in `ops`, `reduce`, `arrange` and `matmul`, the graph in `tape`.

use crate::error::{Error, Result};
use crate::tensor::blocks::{Scratch, make};
use crate::tensor::cells::Cells;
use crate::tensor::shape;
use crate::tensor::tape::Node;
use candle_core::{DType, Device, Tensor as Data};
use std::any::Any;
use std::sync::Arc;

/// An immutable array of f32 or f64, rank 0 to 3. Cloning is cheap.
#[derive(Clone)]
pub struct Tensor {
    data: Data,
    node: Option<Arc<Node>>,
    tokens: bool,
}

impl Tensor {
    /// A constant. `data` is f32 or f64 (other types are read as f32) and of rank 0 to 3.
    pub fn new(data: Data) -> Self {
        Self { data: data.detach(), node: None, tokens: false }
    }

    /// A differentiable leaf of the engine, per token where its rank is 2; `Gradients::sources` hands `origin` back.
    pub fn source(data: Data, origin: Arc<dyn Any + Send + Sync>) -> Self {
        let tokens = data.rank() == 2 && data.dims()[1] > 1;
        let node = Node::leaf(&data, Some(origin));
        Self { node: Some(node), tokens, ..Self::new(data) }
    }

    pub fn scalar(value: f64, device: &Device) -> Result<Self> {
        Self::from_host(vec![value], &[], DType::F32, device)
    }

    /// A number of the same type and on the same device as this tensor, for arithmetic with it.
    pub fn number(&self, value: f64) -> Result<Self> {
        Self::from_host(vec![value], &[], self.dtype(), self.device())
    }

    /// f32 values in row-major order.
    pub fn from_vec(values: Vec<f32>, dims: &[usize], device: &Device) -> Result<Self> {
        check_count(values.len(), dims)?;
        Ok(Self::new(Data::from_vec(values, dims, device)?))
    }

    /// f64 values in row-major order.
    pub fn from_vec_f64(values: Vec<f64>, dims: &[usize], device: &Device) -> Result<Self> {
        check_count(values.len(), dims)?;
        Ok(Self::new(Data::from_vec(values, dims, device)?))
    }

    /// A constant of type `dtype` from f64 values, rounded once.
    pub(crate) fn from_host(values: Vec<f64>, dims: &[usize], dtype: DType, device: &Device) -> Result<Self> {
        if dtype == DType::F64 {
            return Self::from_vec_f64(values, dims, device);
        }
        check_count(values.len(), dims)?;
        Self::made(dims, dtype, device, |start, strip, _: &mut [_; 0]| {
            strip.copy_from_slice(&values[start..start + strip.len()]);
        })
    }

    /// A constant of type `dtype` that `fill` computes strip by strip, rounded once: `fill(first cell, strip, scratch)`.
    pub(crate) fn made<const N: usize>(
        dims: &[usize],
        dtype: DType,
        device: &Device,
        fill: impl Fn(usize, &mut [f64], &mut Scratch<N>) + Sync,
    ) -> Result<Self> {
        let n = dims.iter().product();
        match dtype {
            DType::F64 => Self::from_vec_f64(make(n, fill), dims, device),
            _ => Self::from_vec(make(n, fill), dims, device),
        }
    }

    /// Says whether this is a value per token of a batch, which `mean` and `sum` refuse.
    pub fn with_tokens(mut self, tokens: bool) -> Self {
        self.tokens = tokens;
        self
    }

    pub(crate) fn with_node(mut self, node: Option<Arc<Node>>) -> Self {
        self.node = node;
        self
    }

    /// The same values without a graph.
    pub fn detach(&self) -> Self {
        self.clone().with_node(None)
    }

    /// The same values as a new leaf: `tape::backward` gives its gradient. What it was computed from is cut off.
    pub fn with_grad(&self) -> Self {
        self.clone().with_node(Some(Node::leaf(&self.data, None)))
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    pub fn dims(&self) -> &[usize] {
        self.data.dims()
    }

    pub fn len(&self) -> usize {
        self.data.elem_count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn device(&self) -> &Device {
        self.data.device()
    }

    pub fn dtype(&self) -> DType {
        if self.data.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
    }

    /// Whether this is a value per token of a batch.
    pub fn is_tokens(&self) -> bool {
        self.tokens
    }

    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    /// Whether it is what `with_grad` made: a variable that was computed from nothing.
    pub fn is_variable(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.is_variable())
    }

    /// The only value of a tensor with one cell.
    pub fn item(&self) -> Result<f64> {
        if self.len() == 1 {
            return Ok(self.to_vec()?[0]);
        }
        Err(Error::shape(format!(
            "`item` of a tensor of shape {}: it holds {} numbers",
            shape::show(self.dims()),
            self.len()
        ))
        .hint("reduce it first, for instance with mean(x) or token_mean(x, mask), or take x.to_array()"))
    }

    /// All values in row-major order.
    pub fn to_vec(&self) -> Result<Vec<f64>> {
        read(&self.data)
    }

    /// The values of a `[B,T]` tensor by row.
    pub fn to_rows(&self) -> Result<Vec<Vec<f64>>> {
        let (rows, width) = self.matrix("to_rows")?;
        let values = self.to_vec()?;
        Ok((0..rows).map(|i| values[i * width..(i + 1) * width].to_vec()).collect())
    }

    /// B and T of a tensor of rank 2.
    pub fn matrix(&self, what: &str) -> Result<(usize, usize)> {
        if let &[rows, width] = self.dims() {
            return Ok((rows, width));
        }
        Err(Error::shape(format!("`{what}` takes a tensor of shape [B,T], found {}", shape::show(self.dims()))))
    }
}

/// Values of a candle tensor on the host.
pub(crate) fn read(data: &Data) -> Result<Vec<f64>> {
    Ok(Cells::of(data)?.read().numbers().wide().into_owned())
}

/// The type of a result: f64 where any input is.
pub(crate) fn common_dtype(inputs: &[&Tensor]) -> DType {
    if inputs.iter().any(|t| t.dtype() == DType::F64) { DType::F64 } else { DType::F32 }
}

/// The device of a result: an accelerator wins over the CPU.
pub(crate) fn common_device(inputs: &[&Tensor]) -> Device {
    let devices = || inputs.iter().map(|t| t.device());
    devices().find(|d| !d.is_cpu()).or_else(|| devices().next()).cloned().unwrap_or(Device::Cpu)
}

fn check_count(found: usize, dims: &[usize]) -> Result<()> {
    if dims.len() > shape::MAX_RANK {
        return Err(Error::shape(format!(
            "a tensor has at most {} axes, found {}",
            shape::MAX_RANK,
            shape::show(dims)
        )));
    }
    let expected: usize = dims.iter().product();
    if found == expected {
        return Ok(());
    }
    Err(Error::shape(format!("shape {} holds {expected} numbers, found {found}", shape::show(dims))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_in_row_major_order() {
        let x = Tensor::from_vec(vec![1., 2., 3., 4., 5., 6.], &[2, 3], &Device::Cpu).unwrap();
        assert_eq!(x.to_rows().unwrap(), [[1., 2., 3.], [4., 5., 6.]]);
        assert_eq!((x.dims(), x.dtype(), x.requires_grad()), (&[2, 3][..], DType::F32, false));
        assert!(x.with_grad().requires_grad() && !x.with_grad().detach().requires_grad());
    }

    #[test]
    fn wrong_counts_and_items_are_refused() {
        let error = Tensor::from_vec(vec![1.; 5], &[2, 3], &Device::Cpu).err().unwrap();
        assert_eq!(error.what, "shape [2,3] holds 6 numbers, found 5");
        let error = Tensor::from_vec(vec![1.; 6], &[2, 3], &Device::Cpu).unwrap().item().unwrap_err();
        assert_eq!(error.what, "`item` of a tensor of shape [2,3]: it holds 6 numbers");
        assert_eq!(Tensor::scalar(2.5, &Device::Cpu).unwrap().item().unwrap(), 2.5);
    }
}
