//! AdamW on a device: one launch over a parameter, or over all parameters of a model that lie in one array.

use crate::error::{Error, Kind, Result};
use crate::gpu::{Arg, Array, DType, Grid, Kernel};
use crate::kernel::adamw::Rule;

/// Parameters that are changed in place, with their moments; all arrays have one length.
pub struct Step<'a> {
    pub rule: &'a Rule,
    /// f32, as are `grad` and both moments.
    pub parameters: &'a Array,
    pub grad: &'a Array,
    pub first: &'a Array,
    pub second: &'a Array,
    /// What operations read, where that is not the parameters themselves: f32 or bf16.
    pub copy: Option<&'a Array>,
}

impl Step<'_> {
    /// Queues the step.
    ///
    /// # Errors
    /// Arrays that differ in length, types that do not fit; a device that has failed.
    pub fn run(self) -> Result<()> {
        let Self { rule, parameters, grad, first, second, copy } = self;
        let (gpu, n) = (parameters.gpu(), parameters.len());
        let mut arrays = vec![parameters, grad, first, second];
        let single = arrays.iter().all(|a| a.dtype() == DType::F32);
        arrays.extend(copy);
        if !single || arrays.iter().any(|a| a.len() != n) {
            return Err(Error::new(Kind::Internal, format!("no step of AdamW over {arrays:?}")));
        }
        if n == 0 {
            return Ok(());
        }
        let kernel = match copy {
            Some(copy) => Kernel::typed("adamw", "adamw_copy", &[("C", copy.dtype())]),
            None => Kernel::typed("adamw", "adamw", &[("C", DType::F32)]),
        };
        let Rule { beta1, beta2, rate, root, eps, keep, scale } = *rule;
        let mut args: Vec<_> = arrays.into_iter().map(Into::into).collect();
        args.push(n.into());
        args.extend([beta1, beta2, rate, root, eps, keep, scale].map(Arg::from));
        gpu.launch(&kernel, Grid::over(n, 4), &args)
    }
}
