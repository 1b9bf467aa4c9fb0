//! Random weights, as GPT-2 starts them (Radford et al. 2019, section 2.3): normal with the configured standard
//! deviation, projections back into the residual stream divided by √(2·layers), norms neutral, biases 0.
//!
//! Owns no placement: the caller moves the numbers to a device.

use super::config::Config;
use super::trunk::Slot;
use crate::tensor::rng::Key;
use rayon::prelude::*;

/// The numbers of one parameter, row major. `key` belongs to this parameter alone.
pub fn values(config: &Config, name: &str, shape: &[usize], key: Key) -> Vec<f32> {
    let count: usize = shape.iter().product();
    if name.ends_with(".bias") {
        return vec![0.0; count];
    }
    // Of the weights, those of norms alone have one dimension.
    if shape.len() == 1 {
        return vec![config.norm.neutral(); count];
    }
    let into_residual =
        [Slot::Out, Slot::Down].iter().any(|&slot| name.ends_with(&format!(".{}.weight", config.names.of(slot))));
    let shrink = if into_residual { (2.0 * config.blocks.len() as f64).sqrt() } else { 1.0 };
    let std = config.init_std / shrink;
    (0..count as u64).into_par_iter().map(|i| (std * key.normal(i)) as f32).collect()
}
