//! AdamW's rule for one parameter (Loshchilov & Hutter 2017, arXiv:1711.05101).
//!
//! Owns the arithmetic; which parameters are updated, and when, is the optimizer's (`engine::adamw`).

use super::device::adamw::Step;
use super::form::Routine;
use super::host;
use super::simd::simd;
use super::value::Value;
use crate::error::Result;
use rayon::prelude::*;

/// One step's rule, the same for every parameter.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub beta1: f32,
    pub beta2: f32,
    /// lr over the first moment's bias correction.
    pub rate: f32,
    /// √ of the second moment's bias correction.
    pub root: f32,
    pub eps: f32,
    /// What weight decay leaves of a parameter.
    pub keep: f32,
    /// What clipping leaves of a gradient.
    pub scale: f32,
}

/// Changes a parameter and its moments in place; all four have one shape.
pub struct Update<'a> {
    pub rule: &'a Rule,
    pub parameter: &'a Value,
    pub grad: &'a Value,
    pub first: &'a Value,
    pub second: &'a Value,
}

impl Routine for Update<'_> {
    type Out = ();

    fn values(&self) -> impl IntoIterator<Item = &Value> {
        [self.parameter, self.grad, self.first, self.second]
    }

    fn host(self) -> Result<()> {
        const CHUNK: usize = 16 * 1024;
        let grad = host::read(self.grad.host()?)?;
        let (first, second) = (self.first.host()?, self.second.host()?);
        host::write(self.parameter.host()?, |p| {
            let moments = host::write(first, |m| {
                host::write(second, |v| {
                    p.par_chunks_mut(CHUNK)
                        .zip(m.par_chunks_mut(CHUNK))
                        .zip(v.par_chunks_mut(CHUNK))
                        .zip(grad.par_chunks(CHUNK))
                        .for_each(|(((p, m), v), g)| adamw(self.rule, p, m, v, g));
                })
                .expect("moments are host tensors of the parameter's shape");
            });
            moments.expect("moments are host tensors of the parameter's shape");
        })
    }

    fn device(self) -> Result<()> {
        let Self { rule, parameter, grad, first, second } = self;
        let (parameters, grad) = (parameter.array()?, grad.array()?);
        Step { rule, parameters, grad, first: first.array()?, second: second.array()?, copy: None }.run()
    }

    fn plain(self) -> Result<()> {
        let Self { rule, parameter, grad, first, second } = self;
        let (parameter, grad, first, second) = (parameter.host()?, grad.host()?, first.host()?, second.host()?);
        let g = (grad * f64::from(rule.scale))?;
        let m = ((first * f64::from(rule.beta1))? + (&g * f64::from(1.0 - rule.beta1))?)?;
        let v = ((second * f64::from(rule.beta2))? + (g.sqr()? * f64::from(1.0 - rule.beta2))?)?;
        let scaled = ((v.sqrt()? / f64::from(rule.root))? + f64::from(rule.eps))?;
        let p = ((parameter * f64::from(rule.keep))? - ((&m / scaled)? * f64::from(rule.rate))?)?;
        for (old, new) in [(parameter, p), (first, m), (second, v)] {
            old.slice_set(&new.contiguous()?, 0, 0)?;
        }
        Ok(())
    }
}

simd! {
    fn adamw(rule: &Rule, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
        for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * rule.scale;
            *m = rule.beta1 * *m + (1.0 - rule.beta1) * g;
            *v = rule.beta2 * *v + (1.0 - rule.beta2) * g * g;
            *p = rule.keep * *p - rule.rate * *m / (v.sqrt() / rule.root + rule.eps);
        }
    }
}
