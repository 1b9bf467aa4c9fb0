//! Tensors of many blocks: the same bits for any number of threads, and what their parts give by themselves.

use crate::error::Result;
use crate::tensor::gradient_tests::{Function, random, weighted};
use crate::tensor::rng::Key;
use crate::tensor::{DType, Device, Tensor, ops, tape};
use std::slice::from_ref;

/// Several blocks each; the last has lanes that are longer than a block.
const SHAPES: [[usize; 2]; 3] = [[300, 257], [2051, 24], [3, 40_000]];

/// Value and gradients of `f`, as bits.
fn bits(f: Function, inputs: &[Tensor]) -> Result<Vec<Vec<u64>>> {
    let leaves: Vec<Tensor> = inputs.iter().map(Tensor::with_grad).collect();
    let loss = weighted(f, &leaves)?;
    let mut found = vec![f(inputs)?];
    if loss.requires_grad() {
        let gradients = tape::backward(&loss)?;
        found.extend(leaves.iter().filter_map(|leaf| gradients.of(leaf)));
    }
    found.iter().map(|x| Ok(x.to_vec()?.into_iter().map(f64::to_bits).collect())).collect()
}

/// `f` gives the same bits on one, two and seven threads, in both types.
pub(crate) fn any_threads(name: &str, f: &(dyn Fn(&[Tensor]) -> Result<Tensor> + Sync), inputs: &[Tensor]) {
    for dtype in [DType::F32, DType::F64] {
        let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(dtype).expect("a type")).collect();
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| bits(f, &inputs)).unwrap_or_else(|e| panic!("{name}: {e}"))
        };
        let one = on(1);
        for threads in [2, 7] {
            assert!(on(threads) == one, "{name} {dtype:?} {:?} on {threads} threads", inputs[0].dims());
        }
    }
}

fn inputs(shape: [usize; 2]) -> [Tensor; 2] {
    [random(&shape, Key::new(1), 0.1, 2.0), random(&shape, Key::new(2), 0.2, 3.0)]
}

#[test]
fn elementwise_operations_on_any_number_of_threads() {
    for shape in SHAPES {
        let [x, y] = inputs(shape);
        for op in ops::UNARY {
            any_threads(op.name, &|t| op.on(&t[0]), from_ref(&x));
        }
        for op in ops::BINARY.iter().chain(&ops::COMPARE).chain([&&ops::MIN, &&ops::MAX, &&ops::MASKED]) {
            any_threads(op.name, &|t| op.on(&t[0], &t[1]), &[x.clone(), y.clone()]);
        }
        for dims in [&[shape[0], 1][..], &[1, shape[1]], &[1, 1], &[]] {
            let stretched = random(dims, Key::new(3), 0.3, 2.0);
            any_threads("/", &|t| ops::DIV.on(&t[0], &t[1]), &[x.clone(), stretched.clone()]);
            any_threads("clip", &|t| ops::CLIP.on(&t[1], &t[0], &t[2]), &[stretched.clone(), x.clone(), y.clone()]);
            any_threads("where", &|t| ops::WHERE.on(&t[0], &t[1], &t[2]), &[x.clone(), stretched, y.clone()]);
        }
    }
}

#[test]
fn lanes_on_any_number_of_threads() {
    for shape in SHAPES {
        let x = [inputs(shape)[0].clone()];
        for axis in [None, Some(0), Some(1)] {
            any_threads("sum", &|t| t[0].sum(axis), &x);
            any_threads("mean", &|t| t[0].mean(axis), &x);
            any_threads("variance", &|t| t[0].variance(axis), &x);
            any_threads("std", &|t| t[0].std(axis), &x);
            any_threads("max", &|t| t[0].largest(axis), &x);
            any_threads("min", &|t| t[0].smallest(axis), &x);
        }
        for axis in [0, 1] {
            any_threads("softmax", &|t| t[0].softmax(axis), &x);
            any_threads("log_softmax", &|t| t[0].log_softmax(axis), &x);
            any_threads("cumsum", &|t| t[0].cumsum(axis), &x);
            any_threads("argsort", &|t| t[0].argsort(axis), &x);
        }
    }
}

#[test]
fn arrangements_and_products_on_any_number_of_threads() -> Result<()> {
    for shape in SHAPES {
        let [x, y] = inputs(shape);
        any_threads("transpose", &|t| t[0].transpose(), from_ref(&x));
        for axis in [0, 1] {
            any_threads("concat", &|t| Tensor::concat(t, axis), &[x.clone(), y.clone()]);
            let index = x.argsort(axis)?;
            any_threads("gather", &|t| t[0].gather(&index, axis), from_ref(&x));
        }
        any_threads("stack", &|t| Tensor::stack(t), &[x.clone(), y.clone()]);
        let rows: Vec<usize> = (0..shape[0]).map(|i| i * 7 % shape[0]).chain([0, 0, 1]).collect();
        any_threads("select", &|t| t[0].select(&rows), from_ref(&x));
    }
    let pair = |dims: [&[usize]; 2]| [random(dims[0], Key::new(1), -1.0, 1.0), random(dims[1], Key::new(2), -1.0, 1.0)];
    any_threads("matmul", &|t| t[0].matmul(&t[1]), &pair([&[131, 67], &[67, 83]]));
    any_threads("matmul", &|t| t[0].matmul(&t[1]), &pair([&[3, 33, 40], &[3, 40, 35]]));
    Ok(())
}

/// The rows of `f(inputs)` and of its gradients are those of `f` of each row alone, bit for bit.
fn by_rows(name: &str, f: Function, inputs: &[Tensor]) -> Result<()> {
    let leaves: Vec<Tensor> = inputs.iter().map(Tensor::with_grad).collect();
    let whole = f(&leaves)?;
    let weights = random(whole.dims(), Key::new(7), -1.0, 1.0);
    let gradients = tape::backward(&ops::MUL.on(&whole, &weights)?.sum_cells()?)?;
    for i in (0..whole.dims()[0]).step_by(17) {
        let leaves_of_row = inputs.iter().map(|x| Ok(x.select(&[i])?.with_grad())).collect::<Result<Vec<_>>>()?;
        let row = f(&leaves_of_row)?;
        assert_eq!(row.to_vec()?, whole.select(&[i])?.to_vec()?, "{name}: row {i}");
        let of_row = tape::backward(&ops::MUL.on(&row, &weights.select(&[i])?)?.sum_cells()?)?;
        for (all, one) in leaves.iter().zip(&leaves_of_row) {
            let (all, one) = (gradients.of(all).expect("in the graph"), of_row.of(one).expect("in the graph"));
            assert_eq!(one.to_vec()?, all.select(&[i])?.to_vec()?, "{name}: gradient of row {i}");
        }
    }
    Ok(())
}

#[test]
fn a_large_tensor_is_its_rows() -> Result<()> {
    let shape = [300, 257];
    for dtype in [DType::F32, DType::F64] {
        let [x, y] = inputs(shape).map(|x| x.to_dtype(dtype).expect("a type"));
        let row = random(&[shape[0], 1], Key::new(3), 0.3, 2.0).to_dtype(dtype)?;
        for op in ops::UNARY.iter().filter(|op| op.slopes.is_some()) {
            by_rows(op.name, &|t| op.on(&t[0]), from_ref(&x))?;
        }
        for op in ops::BINARY.iter().chain([&&ops::MIN, &&ops::MAX]) {
            by_rows(op.name, &|t| op.on(&t[0], &t[1]), &[x.clone(), y.clone()])?;
            by_rows(op.name, &|t| op.on(&t[0], &t[1]), &[x.clone(), row.clone()])?;
        }
        by_rows("clip", &|t| ops::CLIP.on(&t[0], &t[1], &t[2]), &[x.clone(), row.clone(), y.clone()])?;
        for f in [Tensor::sum, Tensor::mean, Tensor::variance, Tensor::std, Tensor::largest, Tensor::smallest] {
            by_rows("a reduction", &|t| f(&t[0], Some(1)), from_ref(&x))?;
        }
        for f in [Tensor::softmax, Tensor::log_softmax, Tensor::cumsum] {
            by_rows("a lane", &|t| f(&t[0], 1), from_ref(&x))?;
            // Along the other axis it is the same of the transposed tensor.
            let f = |t: &[Tensor]| f(&t[0].transpose()?, 0)?.transpose();
            by_rows("a lane of columns", &f, from_ref(&x))?;
        }
        let right = random(&[257, 90], Key::new(4), -1.0, 1.0).to_dtype(dtype)?;
        by_rows("matmul", &|t| t[0].matmul(&right), from_ref(&x))?;
    }
    Ok(())
}

#[test]
fn sums_over_blocks_are_close_to_exact_ones() -> Result<()> {
    let x = random(&[300, 257], Key::new(1), -1.0, 3.0);
    let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{a} instead of {b}");
    let rows: Vec<f64> = x.to_rows()?.iter().map(|row| row.iter().sum()).collect();
    let total: f64 = rows.iter().sum();
    close(x.sum(None)?.item()?, total);
    let mean = total / x.len() as f64;
    close(x.mean(None)?.item()?, mean);
    let square = |x: f64| x * x;
    let variance = x.to_vec()?.iter().map(|x| square(x - mean)).sum::<f64>() / x.len() as f64;
    close(x.variance(None)?.item()?, variance);
    let columns = x.transpose()?.sum(Some(1))?.to_vec()?;
    // The gradient of what was stretched is a sum over what it was stretched along.
    for (dims, expected) in [(vec![300, 1], rows), (vec![1, 257], columns), (vec![], vec![total])] {
        let number = Tensor::full(&dims, 1.0, &Device::Cpu)?.to_dtype(DType::F64)?.with_grad();
        let gradients = tape::backward(&ops::MUL.on(&number, &x)?.sum_cells()?)?;
        let found = gradients.of(&number).expect("in the graph").to_vec()?;
        found.iter().zip(expected).for_each(|(a, b)| close(*a, b));
    }
    Ok(())
}

#[test]
fn argsort_orders_as_a_stable_sort_does() -> Result<()> {
    let values = |i: usize| [0.0, -0.0, f64::NAN, 1.5, -2.5, f64::INFINITY, f64::NEG_INFINITY, 1.5][i * 5 % 8];
    for (n, step) in [(50, 0.0), (40_000, 0.0), (50, 1e-12)] {
        let x: Vec<f64> = (0..n).map(|i| values(i) + step * (i % 3) as f64).collect();
        let mut expected: Vec<usize> = (0..n).collect();
        expected.sort_by(|&a, &b| {
            x[a].is_nan().cmp(&x[b].is_nan()).then(x[a].partial_cmp(&x[b]).unwrap_or(std::cmp::Ordering::Equal))
        });
        let found = Tensor::from_vec_f64(x, &[1, n], &Device::Cpu)?.argsort(-1)?.to_vec()?;
        assert_eq!(found, expected.iter().map(|i| *i as f64).collect::<Vec<_>>());
    }
    Ok(())
}

#[test]
fn a_zero_upstream_gradient_stays_zero_in_large_tensors() -> Result<()> {
    let nan = f64::NAN;
    // Every third row is full of what must not leak.
    let cells = (0..90 * 400).map(|i| if i / 400 % 3 == 0 { [nan, f64::INFINITY][i % 2] } else { 0.5 }).collect();
    let x = Tensor::from_vec_f64(cells, &[90, 400], &Device::Cpu)?;
    let keep: Vec<usize> = (0..90).filter(|i| i % 3 != 0).collect();
    let right = random(&[400, 30], Key::new(4), -1.0, 1.0);
    let functions: [(&str, Function); 5] = [
        ("exp", &|t| ops::EXP.on(&t[0])),
        ("a product with itself", &|t| ops::MUL.on(&t[0], &t[0])),
        ("softmax", &|t| t[0].softmax(1)),
        ("std", &|t| t[0].std(Some(1))),
        ("matmul", &|t| t[0].matmul(&right)),
    ];
    for (name, f) in functions {
        let leaf = x.with_grad();
        let gradients = tape::backward(&f(from_ref(&leaf))?.select(&keep)?.sum_cells()?)?;
        let rows = gradients.of(&leaf).expect("in the graph").to_rows()?;
        for (i, row) in rows.iter().enumerate() {
            assert!(row.iter().all(|g| if i % 3 == 0 { *g == 0.0 } else { g.is_finite() }), "{name}: row {i}");
        }
    }
    Ok(())
}
