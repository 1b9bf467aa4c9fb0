//! Linear maps on an emulated device: which types values and gradients have. That they equal their plain compositions is
//! the suite's.

use crate::gpu::{DType, Gpu};
use crate::kernel::entries_tests::carried;
use crate::kernel::linear::{Layout, linear, linear_add, linear_f32};
use crate::kernel::packs::Packs;
use crate::kernel::tape::{ParameterGrads, Tape, Var};
use crate::kernel::tests::random;
use crate::kernel::value::Value;
use crate::tensor::rng::Key;

const N: usize = 5;

fn value(gpu: &Gpu, dims: &[usize], dtype: DType) -> Value {
    carried(&random(dims, Key::new(dims[0] as u64)), gpu, dtype).expect("uploads")
}

fn dtype(v: &Var) -> DType {
    v.array().expect("on a device").dtype()
}

#[test]
fn values_have_the_type_of_the_weight_the_residual_or_f32() {
    for [x, w] in [[DType::Bf16, DType::Bf16], [DType::F32, DType::Bf16], [DType::F32, DType::F32]] {
        let gpu = Gpu::emulated(1);
        let mut tape = Tape::recording(Packs::new(0)).computing(w);
        let x = tape.constant(value(&gpu, &[N, 12], x));
        let w = tape.parameter(value(&gpu, &[7, 12], w), 0, true);
        let bias = tape.parameter(value(&gpu, &[7], DType::F32), 1, true);
        for b in [None, Some(&bias)] {
            let y = linear(&mut tape, &x, &w, b, Layout::OutIn).expect("runs");
            assert_eq!(dtype(&y), dtype(&w));
            let y = linear_f32(&mut tape, &x, &w, b, Layout::OutIn).expect("runs");
            assert_eq!(dtype(&y), DType::F32);
            let residual = tape.constant(value(&gpu, &[N, 7], DType::F32));
            let y = linear_add(&mut tape, &x, &w, b, &residual, Layout::OutIn).expect("runs");
            assert_eq!(dtype(&y), DType::F32);
        }
        gpu.synchronise().expect("no mistake");
    }
}

#[test]
fn a_result_in_f32_is_not_rounded() {
    let gpu = Gpu::emulated(1);
    let mut tape = Tape::forward_only(Packs::new(0)).computing(DType::Bf16);
    let [x, w] = [[N, 100], [7, 100]].map(|dims| tape.constant(value(&gpu, &dims, DType::Bf16)));
    let y = linear_f32(&mut tape, &x, &w, None, Layout::OutIn).expect("runs");
    let [x, w, y] = [&x, &w, &y].map(|v| v.value.to_vec().expect("no mistake"));
    for (i, y) in y.iter().enumerate() {
        let (x, w) = (&x[i / 7 * 100..][..100], &w[i % 7 * 100..][..100]);
        let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
        assert!((f64::from(*y) - exact).abs() < 2e-5, "{y}, not {exact}");
    }
}

/// The residual stream in f32 through a map whose weight is bf16: gradients of both, and where each goes.
#[test]
fn gradients_have_the_type_of_their_value() {
    let gpu = Gpu::emulated(3);
    let mut tape = Tape::recording(Packs::new(0)).computing(DType::Bf16);
    let w = tape.parameter(value(&gpu, &[6, 6], DType::Bf16), 0, true);
    let x = tape.parameter(value(&gpu, &[N, 6], DType::F32), 1, true);
    // An activation in f32, so that the tape itself adds the gradients of one value.
    let stream = linear_add(&mut tape, &x, &w, None, &x, Layout::OutIn).expect("runs");
    let y = linear(&mut tape, &stream, &w, None, Layout::InOut).expect("runs");
    let out = linear_add(&mut tape, &y, &w, None, &stream, Layout::OutIn).expect("runs");
    let mut grads = ParameterGrads::default();
    tape.backward(&out, value(&gpu, &[N, 6], DType::F32), &mut grads).expect("walks back");
    for i in [0, 1] {
        let grad = grads.get(i).expect("a gradient");
        assert_eq!(grad.array().expect("on a device").dtype(), DType::F32);
        assert!(grad.to_vec().expect("no mistake").iter().all(|x| x.is_finite() && *x != 0.0));
    }
}
