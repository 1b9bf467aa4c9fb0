//! Estimators of KL(policy ‖ reference) from the log-probabilities of sampled tokens
//! (Schulman 2020, "Approximating KL divergence": k1, k2, k3). Per token; aggregate with `mask`.

use crate::error::Result;
use crate::tensor::elementwise::op;
use crate::tensor::{Op, Tensor, ops};

/// `logp − reference`: unbiased, high variance.
pub fn k1(logp: &Tensor, reference: &Tensor) -> Result<Tensor> {
    ops::SUB.on(logp, reference)
}

/// `(logp − reference)² / 2`: biased, its gradient is that of the divergence in expectation.
pub fn k2(logp: &Tensor, reference: &Tensor) -> Result<Tensor> {
    let square = ops::SQUARE.on(&k1(logp, reference)?)?;
    ops::MUL.on(&square, &square.number(0.5)?)
}

/// `e^(reference − logp) − (reference − logp) − 1`: unbiased, never negative.
pub fn k3(logp: &Tensor, reference: &Tensor) -> Result<Tensor> {
    K3.on(logp, reference)
}

/// One operation rather than four: `expm1` keeps the small differences that rounding `e^d` to f32 would lose.
static K3: Op<2> = op!(2, "kl::k3", |[p, q]| (q - p).exp_m1() - (q - p), |g, [p, q], _| {
    let slope = g * (q - p).exp_m1();
    [-slope, slope]
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Device;

    #[test]
    fn k3_keeps_small_differences_and_is_zero_on_policy() {
        let p = Tensor::from_vec(vec![-1.0, -2.0], &[1, 2], &Device::Cpu).unwrap();
        let q = Tensor::from_vec(vec![-1.0, -2.000_488_3], &[1, 2], &Device::Cpu).unwrap();
        let d = f64::from(-2.000_488_3_f32) + 2.0;
        let found = k3(&p, &q).unwrap().to_vec().unwrap();
        assert_eq!(found[0], 0.0);
        assert!((found[1] / (d.exp_m1() - d) - 1.0).abs() < 1e-6, "{found:?}");
    }
}
