//! Gradients of the differentiable functions against central differences, and indifference to what is masked out.

use crate::error::Result;
use crate::rl::{advantage, divergence, mask, pairs};
use crate::tensor::gradient_tests::{Function, check, random, weighted};
use crate::tensor::rng::Key;
use crate::tensor::{Device, Tensor, ops, tape};

/// A mask with holes, and a row without any cell.
const CELLS: [f32; 12] = [1., 1., 0., 1., 0., 0., 0., 0., 1., 0., 1., 1.];

fn mask() -> Tensor {
    Tensor::from_vec(CELLS.to_vec(), &[3, 4], &Device::Cpu).expect("twelve numbers")
}

#[test]
fn gradients_agree_with_differences() {
    let mask = mask();
    let x = || random(&[3, 4], Key::new(1), -2.0, 2.0);
    let two = || [x(), random(&[3, 4], Key::new(2), -2.0, 2.0)];
    check("seq_sum", &|t| mask::seq_sum(&t[0], &mask), &[x()]);
    check("seq_sum of rows", &|t| mask::seq_sum(&t[0], &mask), &[random(&[3, 1], Key::new(7), -1.0, 1.0)]);
    check("seq_avg", &|t| mask::seq_avg(&t[0], &mask), &[x()]);
    check("seq_mean", &|t| mask::seq_mean(&t[0], &mask), &[x()]);
    check("token_mean", &|t| mask::token_mean(&t[0], &mask), &[x()]);
    check("const_mean", &|t| mask::const_mean(&t[0], &mask, 7.0), &[x()]);
    check("whiten", &|t| mask::whiten(&t[0], &mask), &[x()]);
    check("at_last", &|t| mask::at_last(&t[0], &mask), &[random(&[3, 1], Key::new(3), -1.0, 1.0)]);
    check("k1", &|t| divergence::k1(&t[0], &t[1]), &two());
    check("k2", &|t| divergence::k2(&t[0], &t[1]), &two());
    check("k3", &|t| divergence::k3(&t[0], &t[1]), &two());
    let rows = || [random(&[4, 3], Key::new(4), -2.0, 2.0)];
    check("pair_first", &|t| pairs::first(&t[0]), &rows());
    check("pair_second", &|t| pairs::second(&t[0]), &rows());
    check("pair_diff", &|t| pairs::diff(&t[0]), &rows());
}

#[test]
fn what_stands_outside_the_mask_changes_no_value_and_no_gradient() -> Result<()> {
    let mask = mask();
    let filled = |with: f64| {
        let values = (0..12).map(|i| if CELLS[i] == 0.0 { with } else { (i as f64 * 0.7).sin() }).collect();
        Tensor::from_vec_f64(values, &[3, 4], &Device::Cpu).expect("twelve numbers")
    };
    let reference = random(&[3, 4], Key::new(3), -1.0, 1.0);
    let functions: [(&str, Function); 7] = [
        ("seq_sum", &|t| mask::seq_sum(&t[0], &mask)),
        ("seq_avg", &|t| mask::seq_avg(&t[0], &mask)),
        ("seq_mean", &|t| mask::seq_mean(&t[0], &mask)),
        ("token_mean", &|t| mask::token_mean(&t[0], &mask)),
        ("const_mean", &|t| mask::const_mean(&t[0], &mask, 5.0)),
        ("whiten", &|t| mask::whiten(&t[0], &mask)),
        ("k3 of a ratio", &|t| {
            let ratio = ops::EXP.on(&ops::SUB.on(&t[0], &reference)?)?;
            mask::token_mean(&divergence::k3(&ops::LOG.on(&ratio)?, &t[0])?, &mask)
        }),
    ];
    for (name, f) in functions {
        let run = |with: f64| -> Result<(Vec<f64>, Vec<f64>)> {
            let x = filled(with).with_grad();
            let out = f(std::slice::from_ref(&x))?;
            let gradients = tape::backward(&weighted(f, std::slice::from_ref(&x))?)?;
            let gradient = gradients.of(&x).expect("the sum depends on x");
            Ok((out.to_vec()?, gradient.to_vec()?))
        };
        let clean = run(0.3)?;
        for with in [f64::NAN, f64::INFINITY, 1e300, -7.0] {
            assert_eq!(run(with)?, clean, "{name} with {with}");
        }
    }
    let gae = |with| advantage::gae(&filled(with), &filled(with), &mask, 0.9, 0.7)?.ret.to_vec();
    assert_eq!(gae(f64::NAN)?, gae(0.0)?);
    let to_go = |with| advantage::to_go(&filled(with), &mask, 0.9)?.to_vec();
    assert_eq!(to_go(f64::NAN)?, to_go(0.0)?);
    Ok(())
}
