//! Log-probs and divergences on an emulated device: over several chunks against f64, which bits depend on what, and what
//! memory they take.

use super::chunks::Cut;
use crate::gpu::{DType, Gpu};
use crate::kernel::divergence::{Divergence, LinearDivergence};
use crate::kernel::entries_tests::carried;
use crate::kernel::logprob::{LinearLogprob, Targets};
use crate::kernel::op::DeviceForm;
use crate::kernel::packs::Packs;
use crate::kernel::tape::{ParameterGrads, Tape, Var};
use crate::kernel::tests::{numbers, random};
use crate::kernel::value::Value;
use crate::tensor::rng::Key;
use crate::ui::out;
use candle_core::{Device, Tensor};

/// U rows of hidden states, V tokens, and the widths of the model and of a reference.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    vocabulary: usize,
    widths: [usize; 2],
}

/// Cuts with several chunks of rows and of columns in small matrices.
const SMALL: Cut = Cut { columns: 1000, numbers: 3000 };

/// Some rows have several pairs, some none.
fn targets(Sizes { rows, vocabulary, .. }: Sizes, key: Key) -> Targets {
    let rows: Vec<u32> = (0..rows as u32).flat_map(|r| vec![r; [1, 3, 0, 1][r as usize % 4]]).collect();
    let tokens = (0..rows.len() as u64).map(|i| key.below(i, vocabulary as u64) as u32).collect();
    Targets { rows: rows.into(), tokens, temperature: 0.8 }
}

/// h `[U,H]`, W `[V,H]`, h′ `[U,H′]`, W′ `[V,H′]`.
fn inputs(Sizes { rows, vocabulary, widths: [own, other] }: Sizes, key: Key) -> [Tensor; 4] {
    let t = |rows, width, stream| random(&[rows, width], key.fold(stream));
    [t(rows, own, 1), t(vocabulary, own, 2), t(rows, other, 3), t(vocabulary, other, 4)]
}

/// A value, and the gradients of h and W.
#[derive(Debug, Clone, PartialEq)]
struct Found(Vec<Vec<f32>>);

/// Which operation.
#[derive(Clone)]
enum Scored {
    Logprob(LinearLogprob),
    Kl(LinearDivergence),
}

impl Scored {
    /// Both operations with and without soft caps.
    fn all(targets: &Targets) -> Vec<Self> {
        let logprob = |softcap| Self::Logprob(LinearLogprob { targets: targets.clone(), softcap, found: None });
        let kl = |of, softcap, other| Self::Kl(LinearDivergence { of, targets: targets.clone(), softcap, other });
        let kls = [Divergence::Full, Divergence::Forward, Divergence::Jsd(0.3)].into_iter().flat_map(|of| {
            // Between distributions that share nothing the gradient of Jsd is next to nothing, a difference of large numbers:
            // caps keep them from that.
            let bare = (!matches!(of, Divergence::Jsd(_))).then(|| kl(of, None, None));
            bare.into_iter().chain([kl(of, Some(3.0), None), kl(of, Some(4.0), Some(3.0))])
        });
        [logprob(None), logprob(Some(3.0))].into_iter().chain(kls).collect()
    }

    fn planes(&self) -> usize {
        match self {
            Self::Logprob(_) => 2,
            Self::Kl(_) => 1,
        }
    }

    fn vars(&self, tape: &Tape, inputs: &[Value]) -> Vec<Var> {
        let count = if matches!(self, Self::Logprob(_)) { 2 } else { 4 };
        (0..count).map(|i| tape.parameter(&inputs[i], i, i < 2)).collect()
    }

    /// Runs it on a device with the logits cut as asked.
    fn run(&self, inputs: &[Value], cut: Cut, upstream: &[f32]) -> Found {
        let gpu = inputs[0].array().expect("on a device").gpu().clone();
        let mut tape = Tape::recording(Packs::new(0));
        let vars = self.vars(&tape, inputs);
        let dims = [upstream.len() / self.planes(), self.planes()];
        let out = match self.clone() {
            Self::Logprob(op) => {
                let (y, kept) = op.cut(&tape, [&vars[0], &vars[1]], cut).expect("runs");
                tape.push(y.into(), &[&vars[0], &vars[1]], move |dy, grads| {
                    op.device_backward(&kept, dy.array()?, grads)
                })
            }
            Self::Kl(op) => {
                let (y, kept) = op.cut(&tape, [&vars[0], &vars[1], &vars[2], &vars[3]], cut).expect("runs");
                tape.push(y.into(), &[&vars[0], &vars[1]], move |dy, grads| {
                    op.device_backward(&kept, dy.array()?, grads)
                })
            }
        };
        let mut grads = ParameterGrads::default();
        let upstream = gpu.upload("upstream", upstream, &dims).expect("uploads");
        tape.backward(&out, upstream, &mut grads).expect("walks back");
        let values = [&out.value, grads.get(0).expect("of h"), grads.get(1).expect("of W")];
        Found(Value::all_to_vec(&values).expect("no kernel made a mistake"))
    }

    /// The plain composition in f64, of the numbers that the device has.
    fn oracle(&self, inputs: &[Value], upstream: &[f32]) -> Vec<Vec<f64>> {
        let exact = |value: &Value| {
            let numbers: Vec<f64> = value.to_vec().expect("numbers").into_iter().map(f64::from).collect();
            Value::from(Tensor::from_vec(numbers, value.dims(), &Device::Cpu).expect("as many"))
        };
        let inputs: Vec<Value> = inputs.iter().map(exact).collect();
        let mut tape = Tape::recording(Packs::new(0));
        let vars = self.vars(&tape, &inputs);
        let out = match self.clone() {
            Self::Logprob(op) => tape.finish(op, [&vars[0], &vars[1]]),
            Self::Kl(op) => tape.finish(op, [&vars[0], &vars[1], &vars[2], &vars[3]]),
        };
        let out = out.expect("runs");
        let upstream: Vec<f64> = upstream.iter().map(|x| f64::from(*x)).collect();
        let upstream = Tensor::from_vec(upstream, out.value.dims(), &Device::Cpu).expect("as many");
        let mut grads = ParameterGrads::default();
        tape.backward(&out, upstream, &mut grads).expect("walks back");
        let values = [&out.value, grads.get(0).expect("of h"), grads.get(1).expect("of W")];
        values.map(|v| numbers(v.host().expect("on the host"))).to_vec()
    }
}

fn upstream(len: usize, key: Key) -> Vec<f32> {
    (0..len as u64).map(|i| key.fold(77).normal(i) as f32).collect()
}

fn on(gpu: &Gpu, inputs: &[Tensor; 4], dtype: DType) -> Vec<Value> {
    inputs.iter().map(|t| carried(t, gpu, dtype).expect("uploads")).collect()
}

/// The largest distance as a share of the largest number.
fn gap(found: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(found.len(), exact.len());
    let most = exact.iter().fold(1e-3_f64, |most, x| most.max(x.abs()));
    found
        .iter()
        .zip(exact)
        .map(|(f, e)| (f64::from(*f) - e).abs())
        .fold(0.0, |gap: f64, x| if x > gap { x } else { gap })
        / most
}

#[test]
fn heads_equal_their_plain_compositions_over_several_chunks() {
    // In bf16 the gradients of logits are rounded, and that of h once more: two roundings as the suite counts them.
    let bounds = |dtype| if dtype == DType::F32 { [2e-6, 2e-5, 2e-5] } else { [2e-6, 7.8e-3, 7.8e-3] };
    let sizes = [
        Sizes { rows: 9, vocabulary: 5003, widths: [24, 17] },
        Sizes { rows: 70, vocabulary: 33, widths: [33, 8] },
        Sizes { rows: 1, vocabulary: 1, widths: [1, 1] },
        Sizes { rows: 5, vocabulary: 4097, widths: [1, 33] },
    ];
    let mut most = [[0.0f64; 3]; 2];
    for (seed, sizes) in (1..4).flat_map(|seed| sizes.map(|sizes| (seed, sizes))) {
        let key = Key::new(seed);
        let (inputs, targets) = (inputs(sizes, key), targets(sizes, key));
        for (t, dtype) in [DType::F32, DType::Bf16].into_iter().enumerate() {
            let gpu = Gpu::emulated(seed);
            let inputs = on(&gpu, &inputs, dtype);
            for op in Scored::all(&targets) {
                let dy = upstream(targets.len() * op.planes(), key);
                let exact = op.oracle(&inputs, &dy);
                for cut in [SMALL, Cut::USUAL] {
                    let found = op.run(&inputs, cut, &dy);
                    for (i, (found, exact)) in found.0.iter().zip(&exact).enumerate() {
                        let gap = gap(found, exact);
                        most[t][i] = most[t][i].max(gap);
                        assert!(gap <= bounds(dtype)[i], "{dtype:?}, result {i}: {gap}");
                    }
                }
            }
        }
    }
    let shown = most.map(|most| most.map(|x| format!("{x:.1e}")).join(" "));
    out::line(&format!("heads on a device, value dh dW: f32 {}, bf16 {}", shown[0], shown[1]));
}

#[test]
fn neither_the_order_of_threads_nor_other_rows_change_a_bit() {
    let sizes = Sizes { rows: 7, vocabulary: 2100, widths: [24, 17] };
    let key = Key::new(4);
    let all = inputs(sizes, key);
    // A pair to each row, so that rows can be cut out.
    let targets = |rows: usize, from: usize| {
        let tokens = (from..from + rows).map(|r| (r * 311) as u32 % 2100).collect();
        Targets { rows: (0..rows as u32).collect(), tokens, temperature: 1.1 }
    };
    for dtype in [DType::F32, DType::Bf16] {
        for (i, op) in Scored::all(&targets(7, 0)).into_iter().enumerate() {
            let dy = upstream(7 * op.planes(), key);
            let run = |seed| op.run(&on(&Gpu::emulated(seed), &all, dtype), SMALL, &dy);
            let found = run(0);
            assert!((1..4).all(|seed| run(seed) == found), "{dtype:?} {i}: the order of threads");
            for [from, rows] in [[0, 1], [3, 1], [6, 1], [2, 4]] {
                let cut = |t: &Tensor| t.narrow(0, from, rows).expect("rows");
                let some = [cut(&all[0]), all[1].clone(), cut(&all[2]), all[3].clone()];
                let op = Scored::all(&targets(rows, from)).swap_remove(i);
                let planes = op.planes();
                let alone =
                    op.run(&on(&Gpu::emulated(1), &some, dtype), SMALL, &dy[from * planes..(from + rows) * planes]);
                let value = &found.0[0][from * planes..(from + rows) * planes];
                assert!(alone.0[0] == value, "{dtype:?} {i}: values of rows {from}..{}", from + rows);
                let dh = &found.0[1][from * 24..(from + rows) * 24];
                assert!(alone.0[1] == dh, "{dtype:?} {i}: gradients of rows {from}..{}", from + rows);
            }
        }
    }
}

#[test]
fn a_row_without_upstream_gets_no_gradient_whatever_its_logits_are() {
    let sizes = Sizes { rows: 3, vocabulary: 1500, widths: [8, 8] };
    let key = Key::new(5);
    let clean = inputs(sizes, key);
    let targets = Targets { rows: [0, 1, 2].into(), tokens: [4, 1200, 7].into(), temperature: 1.0 };
    // Finite hidden states of which logits are infinite and NaN.
    let mut lost = clean.clone();
    for i in [0, 2] {
        let h = Tensor::full(3e38f32, (1, 8), &Device::Cpu).expect("a row");
        let parts = [clean[i].narrow(0, 0, 1), Ok(h), clean[i].narrow(0, 2, 1)].map(|t| t.expect("rows"));
        lost[i] = Tensor::cat(&parts, 0).expect("rows");
    }
    for (i, op) in Scored::all(&targets).into_iter().enumerate() {
        let mut dy = upstream(3 * op.planes(), key);
        dy[op.planes()..2 * op.planes()].fill(0.0);
        let run = |inputs| op.run(&on(&Gpu::emulated(2), inputs, DType::F32), SMALL, &dy).0;
        let (found, expected) = (run(&lost), run(&clean));
        let uncapped = [0, 2].contains(&i);
        assert!(!uncapped || found[0].iter().any(|x| x.is_nan()), "the logits are not lost at all");
        assert!(found[1][8..16].iter().all(|x| *x == 0.0));
        assert_eq!(found[1..], expected[1..]);
    }
}

#[test]
fn equal_distributions_diverge_by_exactly_nothing() {
    let sizes = Sizes { rows: 5, vocabulary: 3001, widths: [12, 12] };
    let key = Key::new(6);
    let [h, w, ..] = inputs(sizes, key);
    for (dtype, softcap) in [(DType::F32, None), (DType::Bf16, Some(8.0))] {
        let inputs = on(&Gpu::emulated(1), &[h.clone(), w.clone(), h.clone(), w.clone()], dtype);
        let targets = targets(sizes, key);
        let dy = upstream(targets.len(), key);
        let found = Scored::Kl(LinearDivergence { of: Divergence::Full, targets, softcap, other: softcap })
            .run(&inputs, SMALL, &dy);
        assert!(found.0.iter().flatten().all(|x| *x == 0.0));
    }
}

#[test]
fn a_large_vocabulary_takes_the_memory_of_a_chunk() {
    let sizes = Sizes { rows: 8, vocabulary: 151_936, widths: [32, 32] };
    let Sizes { rows, vocabulary, .. } = sizes;
    let key = Key::new(7);
    let all = inputs(sizes, key);
    let targets = targets(sizes, key);
    for dtype in [DType::F32, DType::Bf16] {
        let gpu = Gpu::emulated(3);
        let inputs = on(&gpu, &all, dtype);
        for op in [
            Scored::Logprob(LinearLogprob { targets: targets.clone(), softcap: None, found: None }),
            Scored::Kl(LinearDivergence { of: Divergence::Full, targets: targets.clone(), softcap: None, other: None }),
        ] {
            let dy = upstream(targets.len() * op.planes(), key);
            gpu.reset_counters();
            let before = gpu.counters().held;
            op.run(&inputs, Cut::USUAL, &dy);
            let counters = gpu.counters();
            // The gradient of W, f32; beside it two chunks of logits, one of gradients, and what belongs to rows and pairs.
            let (weight, chunk) = (4 * vocabulary * 32, 4 * rows * 4096);
            assert_eq!(counters.largest, (weight as u64, "a gradient"));
            let beside = counters.most - before - weight as u64;
            assert!(beside < 3 * chunk as u64 + 8192, "{beside} bytes, of which a chunk has {chunk}");
            assert!(beside < (4 * rows * vocabulary / 10) as u64);
        }
    }
}

#[test]
fn a_chunk_has_24_mib_at_most() {
    for [rows, vocabulary] in [[1, 1], [8, 151_936], [1 << 20, 50], [1 << 16, 5003], [1 << 16, 151_936], [1, 1 << 20]] {
        let (height, width) = Cut::USUAL.sizes(rows, vocabulary);
        assert!(4 * height * width <= 24 << 20 && width <= 4096 && height <= rows, "{rows} x {vocabulary}");
    }
}
