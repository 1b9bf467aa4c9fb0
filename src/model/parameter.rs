//! One weight of a model, and where its numbers lie.
//!
//! On a device trained weights lie side by side in one array, the arena, so that one kernel updates all of them; their
//! f32 masters are what is saved, and what operations read is a copy in the compute type. Owns no names' meaning.

use crate::error::{Error, Kind, Result};
use crate::gpu::{Array, DType, Gpu, Place};
use crate::kernel::blend::{Blend, copy_as};
use crate::kernel::device::dot::Parts;
use crate::kernel::form::Routine;
use crate::kernel::gradients::{ArenaLayout, GradArena, ParameterGrads};
use crate::kernel::value::Value;
use candle_core::{Device, Tensor, Var};
use half::bf16;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One weight. A trained one on the host is a candle variable, which the optimizer changes in place.
#[derive(Debug, Clone)]
pub struct Parameter {
    pub(super) name: String,
    /// What operations read.
    pub(super) value: Value,
    /// The f32 numbers that are trained, where `value` is a copy of them in another type.
    pub(super) master: Option<Array>,
    pub(super) trains: bool,
    /// Whether nobody else holds these numbers, so that they may be changed in place.
    pub(super) own: bool,
}

/// The trained weights of a model on a device.
#[derive(Clone)]
pub struct Arena {
    /// f32
    pub master: Array,
    /// What operations read of matrices, of the same offsets, where the compute type is another.
    pub working: Option<Array>,
    /// Where each weight lies in it.
    pub layout: Arc<ArenaLayout>,
}

/// Says only how large it is.
impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arena of {} weights", self.master.len())
    }
}

impl Arena {
    /// Numbers that a weight of `len` takes in it.
    pub fn room(len: usize) -> usize {
        len.next_multiple_of(ALIGNMENT)
    }

    /// Accumulators for the gradients of its weights.
    ///
    /// # Errors
    /// Too little memory.
    pub fn gradients(&self) -> Result<ParameterGrads> {
        let all = self.master.gpu().zeros("gradients", DType::F32, self.master.dims())?;
        Ok(ParameterGrads::within(GradArena { all, layout: self.layout.clone() }))
    }
}

/// Weights begin at multiples of this many numbers, so that kernels may read 16 bytes at a time.
const ALIGNMENT: usize = 64;

impl Parameter {
    /// On the host.
    pub(super) fn new(name: String, shape: &[usize], values: Vec<f32>, trains: bool) -> Result<Self> {
        let tensor = match trains {
            true => Var::from_vec(values, shape, &Device::Cpu)?.into_inner(),
            false => Tensor::from_vec(values, shape, &Device::Cpu)?,
        };
        Ok(Self { name, value: tensor.into(), master: None, trains, own: trains })
    }

    /// One that is trained, on the host, from a copy of the numbers.
    pub(super) fn trained(name: String, tensor: &Tensor) -> Result<Self> {
        Ok(Self { name, value: Var::from_tensor(tensor)?.into_inner().into(), master: None, trains: true, own: true })
    }

    /// The numbers that are saved, as a tensor on the host; a device is waited for.
    ///
    /// # Errors
    /// A device that has failed.
    pub(super) fn on_host(&self) -> Result<Tensor> {
        match &self.value {
            Value::Host(t) => Ok(t.detach()),
            Value::Device(_) => Ok(Tensor::from_vec(self.numbers()?, self.value.dims(), &Device::Cpu)?),
        }
    }

    /// The numbers that are saved, row-major; a device is waited for.
    ///
    /// # Errors
    /// A device that has failed.
    pub(super) fn numbers(&self) -> Result<Vec<f32>> {
        match &self.master {
            Some(master) => master.gpu().read(master),
            None => self.value.to_vec(),
        }
    }

    /// Overwrites the numbers.
    ///
    /// # Errors
    /// Another count of numbers; a device that has failed.
    pub(super) fn write(&self, numbers: &[f32]) -> Result<()> {
        match &self.value {
            Value::Host(t) => crate::kernel::host::write(t, |own| own.copy_from_slice(numbers)),
            Value::Device(array) => {
                if let Some(master) = &self.master {
                    master.gpu().write(master, numbers)?;
                }
                store(array, numbers)
            }
        }
    }

    /// keep·self + by·x in place, x f32 of the same shape and place.
    ///
    /// # Errors
    /// Numbers of a device that are no f32: what is added would be lost to rounding.
    pub(super) fn blend(&self, keep: f64, x: &Value, by: f64) -> Result<()> {
        let Some(master) = &self.master else {
            if let Value::Device(array) = &self.value
                && array.dtype() != DType::F32
            {
                let what =
                    format!("`{}` is kept in {}, in which small changes are lost", self.name, array.dtype().name());
                return Err(Error::new(Kind::Device, what).hint(
                    "a model that load_model opened keeps its weights in f32, a frozen copy with #{ dtype: \"f32\" } too",
                ));
            }
            return Blend { into: &self.value, keep, x, by }.run();
        };
        Blend { into: &master.into(), keep, x, by }.run()?;
        copy_as(self.value.array()?, master)
    }

    /// The numbers in f32, where they lie.
    ///
    /// # Errors
    /// Too little memory; a device that has failed.
    pub(super) fn wide(&self) -> Result<Value> {
        Ok(match (&self.value, &self.master) {
            (_, Some(master)) => master.into(),
            (Value::Device(array), None) if array.dtype() != DType::F32 => {
                let wide = array.gpu().empty("weights", DType::F32, array.dims())?;
                copy_as(&wide, array)?;
                wide.into()
            }
            (value, None) => value.clone(),
        })
    }

    /// A copy that is never trained; weights that never change are shared with it.
    pub(super) fn still(&self) -> Result<Self> {
        let value = match &self.value {
            Value::Host(t) if self.own => t.detach().copy()?.into(),
            Value::Device(array) if self.own => {
                let copy = array.gpu().empty("a frozen model's weights", array.dtype(), array.dims())?;
                array.gpu().copy(&copy, array)?;
                copy.into()
            }
            value => value.clone(),
        };
        Ok(Self { name: self.name.clone(), value, master: None, trains: false, own: self.own })
    }
}

/// Carries weights to where a model is to be; trained ones on a device into an arena.
pub(super) fn carry(
    parameters: Vec<Parameter>,
    place: &Place,
    compute: DType,
) -> Result<(Vec<Parameter>, Option<Arena>)> {
    let Place::Gpu(gpu) = place else { return Ok((parameters, None)) };
    let arena = arena(&parameters, gpu, compute)?;
    let carried = parameters.into_iter().enumerate().map(|(i, p)| onto(p, i, gpu, compute, arena.as_ref()));
    Ok((carried.collect::<Result<_>>()?, arena))
}

fn arena(parameters: &[Parameter], gpu: &Gpu, compute: DType) -> Result<Option<Arena>> {
    let (mut offsets, mut parts, mut end) = (BTreeMap::new(), Vec::new(), 0);
    for (i, p) in parameters.iter().enumerate().filter(|(_, p)| p.trains) {
        offsets.insert(i, end);
        parts.push(end..end + p.value.len());
        end += Arena::room(p.value.len());
    }
    if offsets.is_empty() {
        return Ok(None);
    }
    let master = gpu.zeros("weights", DType::F32, &[end])?;
    let working = match compute {
        DType::F32 => None,
        _ => Some(gpu.zeros("weights", compute, &[end])?),
    };
    let layout = ArenaLayout { offsets, parts: Parts::new(gpu, &parts)? };
    Ok(Some(Arena { master, working, layout: Arc::new(layout) }))
}

/// Vectors (norms, biases) are read in f32, matrices in the compute type.
fn onto(p: Parameter, place: usize, gpu: &Gpu, compute: DType, arena: Option<&Arena>) -> Result<Parameter> {
    let (numbers, dims) = (p.value.to_vec()?, p.value.dims().to_vec());
    let wide = dims.len() < 2;
    let spot = arena.and_then(|arena| Some((arena, *arena.layout.offsets.get(&place)?)));
    let (value, master) = match spot {
        None => (gpu.empty("weights", if wide { DType::F32 } else { compute }, &dims)?, None),
        Some((arena, at)) => match &arena.working {
            Some(working) if !wide => (working.view(at, &dims)?, Some(arena.master.view(at, &dims)?)),
            _ => (arena.master.view(at, &dims)?, None),
        },
    };
    let carried = Parameter { value: value.into(), master, ..p };
    carried.write(&numbers)?;
    Ok(carried)
}

/// Numbers into an array of f32 or of bf16.
fn store(array: &Array, numbers: &[f32]) -> Result<()> {
    match array.dtype() {
        DType::F32 => array.gpu().write(array, numbers),
        DType::Bf16 => {
            let rounded: Vec<bf16> = numbers.iter().map(|&x| bf16::from_f32(x)).collect();
            array.gpu().write(array, &rounded)
        }
        other => Err(Error::new(Kind::Internal, format!("weights of {other:?}"))),
    }
}
