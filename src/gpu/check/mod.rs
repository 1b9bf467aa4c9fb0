//! What is taken for granted of a device, held against the device itself: `rhopo gpu check`.
//!
//! Each check asks through `Gpu` alone, so that the emulator answers the same questions. Owns what is asked and what the
//! answer must be, and no printing.

mod ceilings;
mod intrinsics;
mod products;

pub use ceilings::{ceilings, matrix_rate};
pub use intrinsics::intrinsics;
pub use products::products;

use super::array::{Array, DType};
use super::device::Gpu;
use crate::error::Result;
use crate::tensor::rng::Key;
use half::bf16;

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    pub found: String,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    Wrong,
    /// A figure, or a property that may be so or not.
    Told,
}

impl Finding {
    fn told(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), found: found.into(), verdict: Verdict::Told }
    }

    /// Holds where nothing is wrong; an error of the device is wrong as well.
    fn held(what: impl Into<String>, wrong: Result<Option<String>>) -> Self {
        let (found, verdict) = match wrong {
            Ok(None) => ("holds".to_string(), Verdict::Holds),
            Ok(Some(wrong)) => (wrong, Verdict::Wrong),
            Err(e) => (e.what, Verdict::Wrong),
        };
        Self { what: what.into(), found, verdict }
    }
}

/// Whether large sizes are no trouble: an emulated device has few processors.
fn is_large(gpu: &Gpu) -> bool {
    gpu.facts().processors >= 16
}

/// The first number that is another than expected, compared by bits.
fn difference(found: &[f32], expected: impl Iterator<Item = f32>) -> Option<String> {
    let mut pairs = found.iter().zip(expected).enumerate();
    let (at, (found, expected)) = pairs.find(|(_, (found, expected))| found.to_bits() != expected.to_bits())?;
    Some(format!("number {at} is {found:?} ({:08x}), not {expected:?} ({:08x})", found.to_bits(), expected.to_bits()))
}

/// Integers from -2 to 2: sums of their products are exact in any order.
fn integers(seed: u64, count: usize) -> Vec<f32> {
    let key = Key::new(seed);
    (0..count as u64).map(|at| key.below(at, 5) as f32 - 2.0).collect()
}

/// Normal numbers, as weights and activations are.
fn normal(seed: u64, count: usize) -> Vec<f32> {
    let key = Key::new(seed);
    (0..count as u64).map(|at| key.normal(at) as f32).collect()
}

fn upload(gpu: &Gpu, dtype: DType, numbers: &[f32], dims: &[usize]) -> Result<Array> {
    match dtype {
        DType::Bf16 => gpu.upload("a check", &numbers.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<bf16>>(), dims),
        _ => gpu.upload("a check", numbers, dims),
    }
}

fn read(gpu: &Gpu, array: &Array) -> Result<Vec<f32>> {
    match array.dtype() {
        DType::Bf16 => Ok(gpu.read::<bf16>(array)?.into_iter().map(bf16::to_f32).collect()),
        _ => gpu.read(array),
    }
}

#[cfg(all(test, feature = "emulate"))]
mod tests {
    use super::*;

    /// The emulator stands for a device: it must hold what a device is held to.
    #[test]
    fn the_emulated_device_holds() {
        let gpu = Gpu::emulated(3);
        for found in [intrinsics(&gpu), products(&gpu), ceilings(&gpu)].map(|found| found.expect("a device")) {
            for finding in &found {
                assert!(finding.verdict != Verdict::Wrong && !finding.found.contains("OTHER"), "{finding:?}");
            }
            assert!(!found.is_empty());
        }
    }
}
