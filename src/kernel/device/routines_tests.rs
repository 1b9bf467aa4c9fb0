//! AdamW, sums of products and the logarithm on an emulated device: bits, and what is found where numbers are lost.

use super::adamw::Step;
use super::dot::Parts;
use crate::gpu::{DType, Gpu, Grid, Kernel};
use crate::kernel::adamw::{Rule, Update};
use crate::kernel::dot::dot;
use crate::kernel::form::Routine;
use crate::kernel::tests::random;
use crate::kernel::value::Value;
use crate::tensor::rng::Key;
use half::bf16;

const RULE: Rule = Rule { beta1: 0.9, beta2: 0.95, rate: 1.3e-2, root: 0.31, eps: 1e-8, keep: 0.9991, scale: 0.73 };

fn normals(n: usize, stream: u64) -> Vec<f32> {
    random(&[n], Key::new(stream)).to_vec1().expect("numbers")
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn adamw_has_the_bits_of_the_host_and_copies_them_rounded() {
    for n in [1, 33, 5003] {
        let mut host = [1, 2, 3, 4].map(|stream| normals(n, stream));
        host[3].iter_mut().for_each(|v| *v *= *v);
        let gpu = Gpu::emulated(n as u64);
        let device = host.each_ref().map(|x| gpu.upload("numbers", x, &[n]).expect("uploads"));
        let narrow = gpu.empty("copy", DType::Bf16, &[n]).expect("room");
        let wide = gpu.empty("copy", DType::F32, &[n]).expect("room");
        let tensors =
            host.map(|x| Value::from(candle_core::Tensor::from_vec(x, n, &candle_core::Device::Cpu).expect("as many")));
        for copy in [None, Some(&narrow), Some(&wide)] {
            let [parameter, grad, first, second] = tensors.each_ref();
            Update { rule: &RULE, parameter, grad, first, second }.run().expect("runs");
            let [parameters, grad, first, second] = device.each_ref();
            Step { rule: &RULE, parameters, grad, first, second, copy }.run().expect("is queued");
            for (tensor, array) in tensors.iter().zip(&device) {
                let found = gpu.read::<f32>(array).expect("no mistake");
                assert_eq!(bits(&found), bits(&tensor.to_vec().expect("numbers")));
            }
        }
        let parameters = tensors[0].to_vec().expect("numbers");
        assert_eq!(bits(&gpu.read::<f32>(&wide).expect("no mistake")), bits(&parameters));
    }
}

#[test]
fn adamw_rounds_the_copy_that_operations_read() {
    let (n, gpu) = (1001, Gpu::emulated(5));
    let [parameters, grad, first] =
        [1, 2, 3].map(|stream| gpu.upload("numbers", &normals(n, stream), &[n]).expect("uploads"));
    let second = gpu.zeros("numbers", DType::F32, &[n]).expect("room");
    let copy = gpu.empty("copy", DType::Bf16, &[n]).expect("room");
    let step =
        Step { rule: &RULE, parameters: &parameters, grad: &grad, first: &first, second: &second, copy: Some(&copy) };
    step.run().expect("is queued");
    let rounded: Vec<bf16> =
        gpu.read::<f32>(&parameters).expect("no mistake").into_iter().map(bf16::from_f32).collect();
    assert_eq!(gpu.read::<bf16>(&copy).expect("no mistake"), rounded);
    assert_eq!(gpu.counters().launches, 1);
}

#[test]
fn arrays_that_differ_in_length_are_not_updated() {
    let gpu = Gpu::emulated(0);
    let [a, b] = [3, 4].map(|n| gpu.zeros("numbers", DType::F32, &[n]).expect("room"));
    let step = Step { rule: &RULE, parameters: &a, grad: &b, first: &a, second: &a, copy: None };
    assert!(step.run().unwrap_err().what.contains("AdamW"));
    assert_eq!(gpu.counters().launches, 0);
}

#[test]
fn sums_of_parts_are_those_of_the_host() {
    let n = 200_000;
    let gpu = Gpu::emulated(1);
    let (a, b) = (normals(n, 1), normals(n, 2));
    let [x, y] = [&a, &b].map(|x| gpu.upload("numbers", x, &[n]).expect("uploads"));
    // One of a piece, an empty one, one of several pieces, one after a gap.
    let ranges = [0..5, 5..5, 5..140_001, 150_000..n];
    let parts = Parts::new(&gpu, &ranges).expect("uploads");
    gpu.reset_counters();
    let found = parts.dot(&x, &y).expect("no mistake");
    let counters = gpu.counters();
    assert_eq!((counters.launches, counters.waits), (2, 1));
    for (range, found) in ranges.iter().zip(found) {
        let exact: f64 = range.clone().map(|i| f64::from(a[i]) * f64::from(b[i])).sum();
        assert!((found - exact).abs() <= 1e-12 * (range.len() as f64).max(1.0), "{range:?}: {found}, not {exact}");
    }
    let whole = dot(&(&x).into(), &(&y).into()).expect("no mistake");
    let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    assert!((whole - exact).abs() < 1e-9, "{whole}, not {exact}");
}

#[test]
fn numbers_that_are_not_finite_show_in_their_part_alone() {
    let n = 70_000;
    let mut x = normals(n, 3);
    for (i, lost) in [(10, f32::NAN), (40_000, f32::INFINITY), (60_000, f32::NEG_INFINITY)] {
        x[i] = lost;
    }
    let norms = |seed| {
        let gpu = Gpu::emulated(seed);
        let x = gpu.upload("numbers", &x, &[n]).expect("uploads");
        let parts = Parts::new(&gpu, &[0..10, 10..20, 20..30_000, 30_000..50_000, 50_000..70_000]).expect("uploads");
        parts.dot(&x, &x).expect("no mistake")
    };
    let found = norms(1);
    assert_eq!(found.iter().map(|x| x.is_finite()).collect::<Vec<_>>(), [true, false, true, false, false]);
    let bits = |x: &[f64]| x.iter().filter(|x| x.is_finite()).map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!((2..5).all(|seed| bits(&norms(seed)) == bits(&found)), "the order of threads changes sums");
}

/// Through the last kernel of log-probs: where the largest logit is 0, it takes the logarithm of the sum alone.
#[test]
fn the_logarithm_is_within_an_ulp() {
    let xs: Vec<f32> = (0..20_000u32).map(|i| f32::from_bits(1 + i * 106_953)).collect();
    let n = xs.len();
    let gpu = Gpu::emulated(1);
    let running: Vec<f32> = xs.iter().flat_map(|x| [0.0, *x, 0.0]).collect();
    let rows: Vec<u32> = (0..n as u32).collect();
    let running = gpu.upload("running", &running, &[n, 3]).expect("uploads");
    let rows = gpu.upload("rows", &rows, &[n]).expect("uploads");
    let target = gpu.zeros("target", DType::F32, &[n]).expect("room");
    let y = gpu.empty("y", DType::F32, &[n, 2]).expect("room");
    let args = [(&running).into(), (&target).into(), (&rows).into(), (&y).into(), n.into()];
    gpu.launch(&Kernel::plain("absorb", "finish"), Grid::over(n, 1), &args).expect("is queued");
    for (x, pair) in xs.iter().zip(gpu.read::<f32>(&y).expect("no mistake").chunks_exact(2)) {
        let (found, exact) = (-f64::from(pair[0]), f64::from(*x).ln());
        assert!((found - exact).abs() <= 1.2e-7 * exact.abs(), "ln {x} = {found}, not {exact}");
    }
}
