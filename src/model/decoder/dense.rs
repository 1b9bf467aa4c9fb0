//! Maps whose weight is a plain matrix, with a low-rank adapter beside it where the model has one: what is trained.

use super::{Decoder, LinearMap, NormWeights, Source, Weight};
use crate::error::Result;
use crate::kernel::elementwise::{gather, scale};
use crate::kernel::linear::{Layout, linear, linear_add, linear_f32};
use crate::kernel::logprob::LmHead;
use crate::kernel::tape::{Tape, Var};
use crate::kernel::value::Value;
use crate::model::trunk::{Head, Linear, Trunk, VALUE_BESIDE};
use crate::model::{Adapter, Model, lora};
use std::sync::Arc;

/// W·x + b, and s·B·A·x beside it.
pub struct Dense {
    weight: Weight,
    bias: Option<Weight>,
    layout: Layout,
    lora: Option<Lora>,
}

/// s·B·A beside a weight.
struct Lora {
    a: Weight,
    b: Weight,
    scale: f32,
}

impl Decoder<Dense> {
    /// # Errors
    /// None: a model has all its configuration's parameters.
    pub fn new(model: &Model) -> Result<Self> {
        Self::build(model.config.trunk.clone(), &mut Parameters(model))
    }

    /// The language-model head.
    pub fn head(&self, tape: &Tape) -> LmHead {
        LmHead { weight: self.head.weight.var(tape), softcap: self.trunk.logit_softcap }
    }
}

impl LinearMap for Dense {
    fn apply(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let (weight, bias) = (self.weight.var(tape), self.bias.as_ref().map(|b| b.var(tape)));
        let y = linear(tape, x, &weight, bias.as_ref(), self.layout)?;
        self.adapt(tape, x, y)
    }

    fn apply_f32(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let (weight, bias) = (self.weight.var(tape), self.bias.as_ref().map(|b| b.var(tape)));
        let y = linear_f32(tape, x, &weight, bias.as_ref(), self.layout)?;
        self.adapt(tape, x, y)
    }

    fn add_to(&self, tape: &mut Tape, x: &Var, residual: &Var) -> Result<Var> {
        let (weight, bias) = (self.weight.var(tape), self.bias.as_ref().map(|b| b.var(tape)));
        let y = linear_add(tape, x, &weight, bias.as_ref(), residual, self.layout)?;
        self.adapt(tape, x, y)
    }

    fn rows(&self, tape: &mut Tape, ids: Arc<[u32]>) -> Result<Var> {
        let table = self.weight.var(tape);
        gather(tape, &table, ids)
    }
}

impl Dense {
    fn plain(weight: Weight, bias: Option<Weight>) -> Self {
        Self { weight, bias, layout: Layout::OutIn, lora: None }
    }

    /// y + s·B·(A·x)
    fn adapt(&self, tape: &mut Tape, x: &Var, y: Var) -> Result<Var> {
        let Some(lora) = &self.lora else { return Ok(y) };
        let low = linear(tape, x, &lora.a.var(tape), None, Layout::OutIn)?; // [N,rank]
        let low = scale(tape, &low, lora.scale)?;
        linear_add(tape, &low, &lora.b.var(tape), None, &y, Layout::OutIn)
    }
}

/// A model's own.
struct Parameters<'m>(&'m Model);

impl Parameters<'_> {
    fn weight(&self, name: &str) -> Result<Weight> {
        let index = self.0.index(name)?;
        let value = match self.0.parameter(name)? {
            Value::Host(t) => t.detach().into(),
            value => value.clone(),
        };
        Ok(Weight { value, parameter: Some((index, self.0.trains(index))) })
    }
}

impl Source for Parameters<'_> {
    type Map = Dense;

    fn linear(&mut self, linear: &Linear) -> Result<Dense> {
        let bias = linear.bias.then(|| self.weight(&format!("{}.bias", linear.name))).transpose()?;
        let lora = |adapter: &Adapter| -> Result<Lora> {
            let [a, b] = lora::names(&linear.name);
            Ok(Lora { a: self.weight(&a)?, b: self.weight(&b)?, scale: adapter.scale() as f32 })
        };
        let adapter = self.0.adapter.as_ref().filter(|adapter| adapter.adapts(&linear.name));
        Ok(Dense {
            weight: self.weight(&format!("{}.weight", linear.name))?,
            bias,
            layout: linear.layout,
            lora: adapter.map(lora).transpose()?,
        })
    }

    fn table(&mut self, name: &str, _: usize, _: usize) -> Result<Dense> {
        Ok(Dense::plain(self.weight(&format!("{name}.weight"))?, None))
    }

    fn norm(&mut self, name: &str, _: usize, biased: bool) -> Result<NormWeights> {
        let bias = biased.then(|| self.weight(&format!("{name}.bias"))).transpose()?;
        Ok(NormWeights { weight: self.weight(&format!("{name}.weight"))?, bias })
    }

    fn head(&mut self, trunk: &Trunk, _: &Dense) -> Result<Dense> {
        let name = trunk.head_name();
        let bias = match trunk.head {
            Head::Value => Some(self.weight(&format!("{name}.bias"))?),
            Head::Lm | Head::Score | Head::LmValue => None,
        };
        Ok(Dense::plain(self.weight(&format!("{name}.weight"))?, bias))
    }

    fn beside(&mut self, trunk: &Trunk) -> Result<Option<Dense>> {
        if trunk.head != Head::LmValue {
            return Ok(None);
        }
        let [weight, bias] = ["weight", "bias"].map(|part| self.weight(&format!("{VALUE_BESIDE}.{part}")));
        Ok(Some(Dense::plain(weight?, Some(bias?))))
    }
}
