//! Every operation's gradient against central differences in f64, over random shapes with broadcasting; and what
//! the tape promises: zero upstream stays zero, long chains, repeated and partial backward passes.

use crate::error::Result;
use crate::tensor::rng::Key;
use crate::tensor::{DType, Device, Tensor, ops, tape};
use candle_core::Tensor as Data;
use std::sync::Arc;

pub(crate) type Function<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Random values in (low, high), drawn so that kinks (integers and ties) are not met.
pub(crate) fn random(dims: &[usize], key: Key, low: f64, high: f64) -> Tensor {
    let n: usize = dims.iter().product();
    let values = (0..n as u64).map(|i| low + (high - low) * key.uniform(i)).collect();
    Tensor::from_vec_f64(values, dims, &Device::Cpu).expect("as many numbers as the shape holds")
}

/// Σ f(inputs)·w for a fixed random w, so that every cell of the result counts differently.
pub(crate) fn weighted(f: Function, inputs: &[Tensor]) -> Result<Tensor> {
    let out = f(inputs)?;
    let weights = random(out.dims(), Key::new(99), -1.0, 1.0);
    ops::MUL.on(&out, &weights)?.sum_cells()
}

pub(crate) fn check(name: &str, f: Function, inputs: &[Tensor]) {
    compare(name, f, inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
}

fn compare(name: &str, f: Function, inputs: &[Tensor]) -> Result<()> {
    let leaves: Vec<Tensor> = inputs.iter().map(Tensor::with_grad).collect();
    let gradients = tape::backward(&weighted(f, &leaves)?)?;
    for (n, leaf) in leaves.iter().enumerate() {
        let found = gradients.of(leaf).expect("the sum depends on every input");
        assert_eq!(found.dims(), leaf.dims(), "{name}");
        let found = found.to_vec()?;
        for i in 0..leaf.len() {
            let h = 1e-5;
            let moved = |by: f64| {
                let mut inputs = inputs.to_vec();
                let mut values = inputs[n].to_vec()?;
                values[i] += by;
                inputs[n] = Tensor::from_vec_f64(values, leaf.dims(), &Device::Cpu)?;
                weighted(f, &inputs)?.item()
            };
            let expected = (moved(h)? - moved(-h)?) / (2.0 * h);
            let error = (found[i] - expected).abs() / expected.abs().max(1.0);
            assert!(error < 1e-7, "{name}: input {n} {:?} cell {i}: {} instead of {expected}", leaf.dims(), found[i]);
        }
    }
    Ok(())
}

const SHAPES: [[&[usize]; 2]; 8] = [
    [&[], &[3, 4]],
    [&[3, 1], &[3, 4]],
    [&[1, 4], &[3, 1]],
    [&[3, 4], &[3, 4]],
    [&[1], &[5]],
    [&[], &[]],
    [&[2, 1, 3], &[2, 4, 1]],
    [&[1, 1], &[4, 2]],
];

#[test]
fn unary_operations() {
    for (k, op) in ops::UNARY.iter().chain([&&ops::NEG]).enumerate().filter(|(_, op)| op.slopes.is_some()) {
        let positive = matches!(op.name, "log" | "sqrt");
        for (s, shape) in SHAPES.iter().enumerate() {
            let low = if positive { 0.1 } else { -0.9 };
            let x = random(shape[1], Key::new(k as u64).fold(s as u64), low, 3.0);
            check(op.name, &|t| op.on(&t[0]), &[x]);
        }
    }
}

#[test]
fn binary_operations() {
    for (k, op) in ops::BINARY.iter().chain([&&ops::MIN, &&ops::MAX]).enumerate() {
        for (s, shape) in SHAPES.iter().flat_map(|[a, b]| [[a, b], [b, a]]).enumerate() {
            let key = Key::new(k as u64).fold(s as u64);
            let inputs = [random(shape[0], key.fold(1), 0.3, 2.0), random(shape[1], key.fold(2), 0.4, 3.0)];
            check(op.name, &|t| op.on(&t[0], &t[1]), &inputs);
        }
    }
}

#[test]
fn ternary_operations() -> Result<()> {
    for (s, [a, b]) in SHAPES.iter().enumerate() {
        let key = Key::new(5).fold(s as u64);
        let (x, lo, hi) =
            (random(a, key, -2.0, 2.0), random(b, key.fold(1), -1.0, 0.2), random(&[], key.fold(2), 0.0, 1.0));
        check("clip", &|t| ops::CLIP.on(&t[0], &t[1], &t[2]), &[x.clone(), lo.clone(), hi]);
        let condition = ops::GT.on(&x, &x.number(0.0)?)?;
        check("where", &|t| ops::WHERE.on(&condition, &t[0], &t[1]), &[x, lo]);
    }
    Ok(())
}

#[test]
fn reductions_and_lanes() {
    for dims in [&[3, 4][..], &[5], &[2, 3, 2]] {
        let x = || [random(dims, Key::new(8), -2.0, 2.0)];
        for axis in (0..dims.len() as i64).map(Some).chain([None]) {
            check("sum", &|t| t[0].sum(axis), &x());
            check("mean", &|t| t[0].mean(axis), &x());
            check("variance", &|t| t[0].variance(axis), &x());
            check("std", &|t| t[0].std(axis), &x());
            check("max", &|t| t[0].largest(axis), &x());
            check("min", &|t| t[0].smallest(axis), &x());
            let axis = axis.unwrap_or(-1);
            check("softmax", &|t| t[0].softmax(axis), &x());
            check("log_softmax", &|t| t[0].log_softmax(axis), &x());
            check("cumsum", &|t| t[0].cumsum(axis), &x());
        }
    }
}

#[test]
fn arrangements_and_products() -> Result<()> {
    let x = || random(&[3, 4], Key::new(1), -1.0, 1.0);
    let y = || random(&[3, 4], Key::new(2), -1.0, 1.0);
    check("transpose", &|t| t[0].transpose(), &[x()]);
    check("transpose 3", &|t| t[0].transpose(), &[random(&[2, 3, 4], Key::new(3), -1.0, 1.0)]);
    check("reshape", &|t| t[0].reshape(&[2, -1]), &[x()]);
    check("to_dtype", &|t| t[0].to_dtype(DType::F64), &[x()]);
    check("concat 0", &|t| Tensor::concat(t, 0), &[x(), y()]);
    check("concat 1", &|t| Tensor::concat(t, 1), &[x(), y()]);
    check("stack", &|t| Tensor::stack(t), &[x(), y()]);
    check("select", &|t| t[0].select(&[2, 0, 2]), &[x()]);
    check("index", &|t| t[0].index(-1), &[x()]);
    let index = Tensor::from_vec(vec![1., 1., 3., 0., 2., 2.], &[3, 2], &Device::Cpu)?;
    check("gather", &|t| t[0].gather(&index, 1), &[x()]);
    let index = Tensor::from_vec(vec![2., 0., 1., 1.], &[1, 4], &Device::Cpu)?;
    check("gather 0", &|t| t[0].gather(&index, 0), &[x()]);
    check("matmul", &|t| t[0].matmul(&t[1]), &[x(), random(&[4, 2], Key::new(4), -1.0, 1.0)]);
    let (a, b) = (random(&[2, 3, 4], Key::new(5), -1.0, 1.0), random(&[2, 4, 5], Key::new(6), -1.0, 1.0));
    check("matmul 3", &|t| t[0].matmul(&t[1]), &[a, b]);
    Ok(())
}

fn vector(values: &[f64]) -> Tensor {
    Tensor::from_vec_f64(values.to_vec(), &[values.len()], &Device::Cpu).expect("as many numbers as the shape holds")
}

fn slope(f: Function, x: &[f64]) -> Vec<f64> {
    let x = vector(x).with_grad();
    let loss = f(std::slice::from_ref(&x)).and_then(|out| out.sum_cells()).expect("the operation runs");
    let gradient = tape::backward(&loss).expect("one number").of(&x).expect("the sum depends on x");
    gradient.to_vec().expect("on the host")
}

#[test]
fn kinks_and_ties_follow_pytorch() {
    let zero = || vector(&[0.0]);
    assert_eq!(slope(&|t| ops::ABS.on(&t[0]), &[0.0, -2.0]), [0.0, -1.0]);
    assert_eq!(slope(&|t| ops::RELU.on(&t[0]), &[0.0, 2.0]), [0.0, 1.0]);
    assert_eq!(slope(&|t| ops::MIN.on(&t[0], &zero()), &[0.0, -1.0, 1.0]), [0.5, 1.0, 0.0]);
    assert_eq!(slope(&|t| ops::MAX.on(&t[0], &zero()), &[0.0, -1.0, 1.0]), [0.5, 0.0, 1.0]);
    let bounds = |t: &[Tensor]| ops::CLIP.on(&t[0], &vector(&[-1.0]), &vector(&[1.0]));
    assert_eq!(slope(&bounds, &[-1.5, -1.0, 0.3, 1.0, 1.5]), [0.0, 1.0, 1.0, 1.0, 0.0]);
    assert_eq!(slope(&|t| t[0].largest(None), &[3.0, 1.0, 3.0]), [0.5, 0.0, 0.5]);
    assert_eq!(slope(&|t| t[0].std(None), &[2.0, 2.0]), [0.0, 0.0]);
    assert_eq!(slope(&|t| ops::POW.on(&t[0], &vector(&[2.0])), &[-3.0, 0.0]), [-6.0, 0.0]);
}

#[test]
fn stable_far_from_zero() -> Result<()> {
    let x = vector(&[-800.0, -40.0, 0.0, 40.0, 800.0]);
    let log_sigmoid = ops::LOG_SIGMOID.on(&x)?.to_vec()?;
    assert_eq!([log_sigmoid[0], log_sigmoid[1], log_sigmoid[4]], [-800.0, -40.0, 0.0]);
    assert!((log_sigmoid[3] + (-40.0f64).exp()).abs() < 1e-30);
    assert_eq!(ops::SOFTPLUS.on(&x)?.to_vec()?[4], 800.0);
    assert_eq!(ops::SIGMOID.on(&x)?.to_vec()?[2..], [0.5, 1.0, 1.0]);
    assert_eq!(slope(&|t| ops::LOG_SIGMOID.on(&t[0]), &[-800.0, 800.0]), [1.0, 0.0]);
    assert_eq!(vector(&[1000.0, 1000.0]).softmax(-1)?.to_vec()?, [0.5, 0.5]);
    Ok(())
}

#[test]
fn a_zero_upstream_gradient_stays_zero_whatever_it_meets() -> Result<()> {
    let nan = f64::NAN;
    let inf = f64::INFINITY;
    let bad = [nan, inf, -inf, 0.0, -1.0];
    let keep = vector(&[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    let x: Vec<f64> = bad.iter().copied().chain([0.5]).collect();
    let zeros = |name: &str, f: Function| {
        let found = slope(&|t| ops::MASKED.on(&f(t)?, &keep), &x);
        assert_eq!(found[..5], [0.0; 5], "{name}");
        assert!(found[5].is_finite(), "{name}");
    };
    for op in ops::UNARY.iter().filter(|op| op.slopes.is_some()) {
        zeros(op.name, &|t| op.on(&t[0]));
        zeros(op.name, &|t| ops::EXP.on(&op.on(&t[0])?));
    }
    for op in ops::BINARY.iter().chain([&&ops::MIN, &&ops::MAX]) {
        zeros(op.name, &|t| op.on(&t[0], &vector(&[nan, 0.0, inf, 0.0, nan, 2.0])));
        zeros(op.name, &|t| op.on(&vector(&[nan, 0.0, inf, 0.0, nan, 2.0]), &t[0]));
    }
    // A product with NaN in what the zero gradient meets, and a lane without any gradient.
    let a = Tensor::from_vec_f64(vec![nan, 1.0, 2.0, 3.0], &[2, 2], &Device::Cpu)?.with_grad();
    let product = a.matmul(&a.detach())?.select(&[1])?;
    let gradient = tape::backward(&product.softmax(-1)?.select(&[])?.sum_cells()?)?;
    assert_eq!(gradient.of(&a).expect("the loss depends on it").to_vec()?, [0.0; 4]);
    Ok(())
}

#[test]
fn a_chain_of_a_hundred_thousand_nodes() -> Result<()> {
    let x = Tensor::scalar(1.0, &Device::Cpu)?.with_grad();
    let one = x.number(1.0)?;
    let mut y = x.clone();
    for _ in 0..100_000 {
        y = ops::ADD.on(&y, &one)?;
    }
    let gradients = tape::backward(&y)?;
    assert_eq!(gradients.of(&x).expect("the loss depends on it").item()?, 1.0);
    drop(gradients);
    drop(y);
    Ok(())
}

#[test]
fn sources_come_back_in_order_of_creation_and_backward_changes_nothing() -> Result<()> {
    let data = |v: f32| Data::from_vec(vec![v, v], (2, 1), &Device::Cpu).expect("as many numbers as the shape holds");
    let a = Tensor::source(data(1.0), Arc::new("a"));
    let unused = Tensor::source(data(5.0), Arc::new("unused"));
    let b = Tensor::source(data(2.0), Arc::new("b"));
    // b is used first and twice; a only inside a branch that is switched off.
    let off = ops::MUL.on(&a, &a.number(0.0)?)?;
    let loss = ops::ADD.on(&ops::MUL.on(&b, &b)?, &off)?.mean(None)?;
    for _ in 0..2 {
        let gradients = tape::backward(&loss)?;
        let found: Vec<(&str, Vec<f32>)> = gradients
            .sources()
            .iter()
            .map(|(origin, g)| {
                (
                    *origin.downcast_ref::<&str>().expect("a text"),
                    g.flatten_all().and_then(|g| g.to_vec1()).expect("f32 numbers"),
                )
            })
            .collect();
        assert_eq!(found, [("a", vec![0.0, 0.0]), ("b", vec![2.0, 2.0])]);
        assert!(gradients.of(&unused).is_none() && gradients.of(&a.detach()).is_none());
        let inside = tape::gradient(&loss, &off)?.expect("the loss depends on it");
        assert_eq!(inside.to_vec()?, [0.5, 0.5]);
        assert!(tape::gradient(&loss, &unused)?.is_none());
    }
    Ok(())
}

#[test]
fn losses_that_cannot_be_differentiated_say_why() -> Result<()> {
    let x = Tensor::full(&[4, 1], 1.0, &Device::Cpu)?;
    let error = tape::backward(&x.with_grad()).err().expect("refused");
    assert_eq!(error.what, "a loss is one number, found shape [4,1]");
    let error = tape::backward(&x.mean(None)?).err().expect("refused");
    assert_eq!(error.what, "the loss does not depend on anything that can be differentiated");
    let tokens = Tensor::full(&[4, 3], 1.0, &Device::Cpu)?.with_tokens(true);
    let ratio = ops::EXP.on(&ops::SUB.on(&tokens, &x)?)?;
    let error = ratio.mean(None).expect_err("refused");
    assert_eq!(error.what, "`mean` of per-token values of shape [4,3]: padding would count");
    assert!(error.hint.expect("a hint").contains("token_mean"));
    assert!(ratio.sum(None).expect_err("refused").hint.expect("a hint").contains("seq_sum"));
    Ok(())
}

#[test]
fn sums_are_accurate_and_f64_wins() -> Result<()> {
    let x = Tensor::full(&[1, 1 << 20], 0.1, &Device::Cpu)?;
    let exact = f64::from(0.1f32) * f64::from(1 << 20);
    assert_eq!(x.sum(None)?.item()?, f64::from(exact as f32));
    let y = Tensor::from_vec_f64(vec![0.1], &[1, 1], &Device::Cpu)?;
    assert_eq!(ops::ADD.on(&y, &x.number(1.0)?)?.dtype(), DType::F64);
    Ok(())
}
