//! Gradients of the differentiable functions against central differences, and indifference to what is masked out.

use crate::error::Result;
use crate::rl::{advantage, divergence, mask, pairs};
use crate::tensor::gradient_tests::{Function, check, random, weighted};
use crate::tensor::large_tests::any_threads;
use crate::tensor::rng::Key;
use crate::tensor::{Device, Tensor, ops, tape};
use std::slice::from_ref;

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
            let out = f(from_ref(&x))?;
            let gradients = tape::backward(&weighted(f, from_ref(&x))?)?;
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

/// A ragged mask with holes, a row without any cell, and weights between 0 and 1.
fn large_mask(rows: usize, width: usize) -> Tensor {
    let cell = |i: usize, t: usize| match (i % 7, t) {
        (3, _) => 0.0,
        (_, t) if t > (i * 131) % width || t % 11 == 5 => 0.0,
        (_, t) if t % 13 == 1 => 0.3,
        _ => 1.0,
    };
    let cells = (0..rows * width).map(|c| cell(c / width, c % width)).collect();
    Tensor::from_vec(cells, &[rows, width], &Device::Cpu).expect("as many numbers as the shape holds")
}

const LARGE: [[usize; 2]; 2] = [[300, 257], [3, 40_000]];

#[test]
fn large_batches_give_the_same_bits_on_any_number_of_threads() {
    for dims in LARGE {
        let mask = large_mask(dims[0], dims[1]);
        let x = || [random(&dims, Key::new(1), -2.0, 2.0)];
        let two = || [random(&dims, Key::new(1), -2.0, 2.0), random(&dims, Key::new(2), -2.0, 2.0)];
        any_threads("seq_sum", &|t| mask::seq_sum(&t[0], &mask), &x());
        any_threads("seq_avg", &|t| mask::seq_avg(&t[0], &mask), &x());
        any_threads("token_mean", &|t| mask::token_mean(&t[0], &mask), &x());
        any_threads("const_mean", &|t| mask::const_mean(&t[0], &mask, 7.0), &x());
        any_threads("whiten", &|t| mask::whiten(&t[0], &mask), &x());
        any_threads("at_last", &|t| mask::at_last(&t[0], &mask), &[random(&[dims[0], 1], Key::new(3), -1.0, 1.0)]);
        any_threads("k3", &|t| divergence::k3(&t[0], &t[1]), &two());
        any_threads("gae", &|t| Ok(advantage::gae(&t[0], &t[1], &mask, 0.9, 0.7)?.ret), &two());
        any_threads("to_go", &|t| advantage::to_go(&t[0], &mask, 0.9), &x());
    }
}

/// Sums under a mask are those of the product with it, forward and backward, and to the bit where a block holds a row.
#[test]
fn sums_under_a_large_mask_are_those_of_the_product() -> Result<()> {
    for dims in LARGE {
        let mask = large_mask(dims[0], dims[1]);
        let x = random(&dims, Key::new(1), -2.0, 2.0);
        let plain = |t: &[Tensor]| ops::MASKED.on(&t[0], &mask)?.sum_last();
        let fused = |t: &[Tensor]| mask::seq_sum(&t[0], &mask);
        for x in [x.clone(), x.to_dtype(crate::tensor::DType::F32)?] {
            assert_eq!(fused(from_ref(&x))?.to_vec()?, plain(from_ref(&x))?.to_vec()?);
            let gradient = |f: Function| -> Result<Vec<f64>> {
                let x = x.with_grad();
                let gradients = tape::backward(&weighted(f, from_ref(&x))?)?;
                gradients.of(&x).expect("the sum depends on x").to_vec()
            };
            assert_eq!(gradient(&fused)?, gradient(&plain)?);
        }
        let total: f64 = ops::MASKED.on(&x, &mask)?.to_vec()?.iter().sum();
        let count = mask.sum(None)?.item()?;
        let found = mask::token_mean(&x, &mask)?.item()?;
        assert!((found - total / count).abs() < 1e-13, "{found} instead of {}", total / count);
    }
    Ok(())
}

/// `gae` and `to_go` of a large batch are those of its rows alone; what stands outside the mask is nothing.
#[test]
fn advantages_of_a_large_batch_are_those_of_its_rows() -> Result<()> {
    let [rows, width] = LARGE[0];
    let mask = large_mask(rows, width);
    let dirty = |key: u64| {
        let clean = random(&[rows, width], Key::new(key), -1.0, 1.0).to_vec()?;
        let cells = clean.iter().zip(mask.to_vec()?).map(|(x, m)| if m == 0.0 { f64::NAN } else { *x }).collect();
        Tensor::from_vec_f64(cells, &[rows, width], &Device::Cpu)
    };
    let (reward, value) = (dirty(1)?, dirty(2)?);
    let all = advantage::gae(&reward, &value, &mask, 0.9, 0.7)?;
    let to_go = advantage::to_go(&reward, &mask, 0.9)?;
    for i in (0..rows).step_by(13) {
        let one = |x: &Tensor| x.select(&[i]);
        let (reward, value, mask) = (one(&reward)?, one(&value)?, one(&mask)?);
        let alone = advantage::gae(&reward, &value, &mask, 0.9, 0.7)?;
        assert_eq!(one(&all.advantage)?.to_vec()?, alone.advantage.to_vec()?);
        assert_eq!(one(&all.ret)?.to_vec()?, alone.ret.to_vec()?);
        assert_eq!(one(&to_go)?.to_vec()?, advantage::to_go(&reward, &mask, 0.9)?.to_vec()?);
        // Written out for one row.
        let (r, m) = (reward.to_vec()?, mask.to_vec()?);
        let sum = (0..width).rev().filter(|t| m[*t] != 0.0).fold(0.0, |sum, t| r[t] + 0.9 * sum);
        let first = m.iter().position(|m| *m != 0.0);
        assert_eq!(first.map_or(0.0, |t| to_go.to_rows().expect("rows")[i][t]), sum);
    }
    assert!(all.advantage.to_vec()?.iter().chain(&all.ret.to_vec()?).all(|x| x.is_finite()));
    let inside = random(&[rows, width], Key::new(3), -1.0, 1.0).to_vec()?;
    let weights = mask.to_vec()?;
    let place = (0..rows * width).rev().find(|i| weights[*i] != 0.0).expect("a cell");
    let cells = inside.iter().enumerate().map(|(i, x)| if i == place { f64::INFINITY } else { *x }).collect();
    let wrong = Tensor::from_vec_f64(cells, &[rows, width], &Device::Cpu)?;
    let error = advantage::to_go(&wrong, &mask, 0.9).expect_err("refused");
    let (row, token) = (place / width, place % width);
    assert_eq!(error.what, format!("`advantage::to_go`: reward is inf in row {row}, token {token}"));
    Ok(())
}
