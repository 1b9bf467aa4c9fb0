//! Attention's kernels on the emulator: against the plain composition in f64 over random forests, and to the bit where
//! bits must agree.

use super::attention::{Inputs, Shape};
use super::attention_lists::{KeyArrays, Lists, Queries, QueryArrays, ROWS};
use super::decode::{DeviceKeyValues, DeviceRows};
use crate::gpu::{Array, DType, Gpu};
use crate::kernel::attention::{Attention, Heads};
use crate::kernel::op::Operation;
use crate::kernel::segments::{Segment, Segments};
use crate::kernel::tests::{numbers, ragged, random};
use crate::tensor::rng::Key;
use crate::ui::out;
use candle_core::{Tensor, Var};
use half::bf16;
use std::ops::Range;
use std::slice::from_ref;
use std::sync::Arc;

/// Numbers of a type, as f32.
fn rounded(t: &Tensor, dtype: DType) -> Vec<f32> {
    let numbers: Vec<f32> = t.flatten_all().and_then(|t| t.to_vec1()).expect("f32 numbers");
    let round = |x: &f32| if dtype == DType::Bf16 { f32::from(bf16::from_f32(*x)) } else { *x };
    numbers.iter().map(round).collect()
}

fn upload(gpu: &Gpu, numbers: &[f32], width: usize, dtype: DType) -> Array {
    let dims = [numbers.len() / width, width];
    match dtype {
        DType::Bf16 => gpu.upload("bf16", &numbers.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>(), &dims),
        _ => gpu.upload("f32", numbers, &dims),
    }
    .expect("room")
}

fn read(array: &Array) -> Vec<f32> {
    match array.dtype() {
        DType::Bf16 => {
            array.gpu().read::<bf16>(array).map(|numbers| numbers.into_iter().map(f32::from).collect::<Vec<f32>>())
        }
        _ => array.gpu().read(array),
    }
    .expect("kernels without mistakes")
}

/// Heads, segments and random numbers of a type for them.
struct Case {
    heads: Heads,
    dtype: DType,
    segments: Arc<Segments>,
    /// q, k, v and the gradient of what comes out, row-major.
    numbers: [Vec<f32>; 4],
}

impl Case {
    fn new(heads: Heads, dtype: DType, segments: Segments, key: Key) -> Self {
        let n = segments.tokens();
        let draw = |(width, stream): (usize, u64)| rounded(&random(&[n, width], key.fold(stream)), dtype);
        let [query, shared] = [heads.query * heads.dim, heads.key * heads.dim];
        Self {
            heads,
            dtype,
            segments: Arc::new(segments),
            numbers: [(query, 1), (shared, 2), (shared, 3), (query, 4)].map(draw),
        }
    }

    fn widths(&self) -> [usize; 4] {
        let [query, shared] = [self.heads.query * self.heads.dim, self.heads.key * self.heads.dim];
        [query, shared, shared, query]
    }

    fn arrays(&self, gpu: &Gpu) -> [Array; 4] {
        std::array::from_fn(|i| upload(gpu, &self.numbers[i], self.widths()[i], self.dtype))
    }

    fn shape(&self) -> Shape {
        Shape::new(self.heads, self.dtype).expect("a width that there is")
    }

    /// What comes out where a block has so many rows, and `pack` heads.
    fn forward(&self, gpu: &Gpu, rows: usize, pack: usize) -> Vec<f32> {
        let [q, k, v, _] = self.arrays(gpu);
        let lists = QueryArrays::upload(gpu, &Queries::new(&self.segments, rows)).expect("room");
        read(&self.shape().forward(&q, [&k, &v], &lists, pack).expect("the kernel runs").0)
    }

    /// What comes out, and the gradients of q, k and v.
    fn run(&self, gpu: &Gpu) -> [Vec<f32>; 4] {
        let ([q, k, v, dy], lists, shape) = (self.arrays(gpu), Lists::default(), self.shape());
        let queries = lists.queries(&self.segments, gpu).expect("room");
        let keys: Arc<KeyArrays> = lists.keys(&self.segments, gpu).expect("room");
        let (y, lse) = shape.forward(&q, [&k, &v], &queries, 1).expect("the kernel runs");
        let delta = shape.delta(&y, &dy).expect("the kernel runs");
        let from = Inputs { qkv: [&q, &k, &v], dy: &dy, lse: &lse, delta: &delta };
        let dq = shape.query_grad(&from, &queries).expect("the kernel runs");
        let [dk, dv] = shape.key_grads(&from, &keys).expect("the kernels run");
        [y, dq, dk, dv].map(|array| read(&array))
    }

    /// The plain composition in f64.
    fn oracle(&self) -> [Vec<f64>; 4] {
        let n = self.segments.tokens();
        let tensor = |i: usize| {
            let numbers: Vec<f64> = self.numbers[i].iter().map(|x| f64::from(*x)).collect();
            Tensor::from_vec(numbers, (n, self.widths()[i]), &candle_core::Device::Cpu)
        };
        let vars = [0, 1, 2].map(|i| tensor(i).and_then(|t| Var::from_tensor(&t)).expect("a leaf"));
        let inputs = vars.each_ref().map(|var| var.as_tensor().clone());
        let attention = Attention { segments: self.segments.clone(), heads: self.heads };
        let y = attention.plain(&inputs).expect("the composition runs");
        let scalar = tensor(3).and_then(|dy| &y * dy).and_then(|y| y.sum_all()).expect("a sum");
        let grads = scalar.backward().expect("a gradient");
        let [dq, dk, dv] = vars.map(|var| numbers(grads.get(&var).expect("a gradient of each leaf")));
        [numbers(&y), dq, dk, dv]
    }
}

/// The largest error as a share of the largest number, and the norm of the error as a share of the norm.
fn deviation(found: &[f32], exact: &[f64]) -> [f64; 2] {
    assert_eq!(found.len(), exact.len());
    let (mut gap, mut size, mut error, mut norm) = (0.0f64, 1e-3f64, 0.0, 1e-12);
    for (a, b) in found.iter().zip(exact) {
        let off = (f64::from(*a) - b).abs();
        assert!(off.is_finite());
        (gap, size, error, norm) = (gap.max(off), size.max(b.abs()), error + off * off, norm + b * b);
    }
    [gap / size, (error / norm).sqrt()]
}

/// Heads of a width: groups, windows, caps and scales that differ from seed to seed.
fn heads(dim: usize, seed: u64) -> Heads {
    let [one, pair, seven] = [(1, 1), (4, 2), (7, 1)].map(|(query, key)| Heads::new(query, key, dim));
    match seed % 3 {
        0 => pair,
        1 => Heads { window: Some(37), softcap: Some(1.5), ..seven },
        _ => Heads { window: Some(5), scale: 1.3 * one.scale, ..one },
    }
}

/// The largest deviations over random forests for heads of each width.
fn deviations(dtype: DType, dims: &[usize]) -> [[f64; 2]; 4] {
    let mut most = [[0.0f64; 2]; 4];
    for &dim in dims {
        for seed in 0..3 {
            let key = Key::new(seed).fold(dim as u64);
            let case = Case::new(heads(dim, seed), dtype, ragged(key, 90), key);
            let found = case.run(&Gpu::emulated(seed));
            for ((found, exact), most) in found.iter().zip(&case.oracle()).zip(&mut most) {
                let deviation = deviation(found, exact);
                (most[0], most[1]) = (most[0].max(deviation[0]), most[1].max(deviation[1]));
            }
        }
    }
    let line = |name: &str, [largest, norm]: [f64; 2]| format!("{name} {largest:.1e} {norm:.1e}");
    let all: Vec<String> = ["y", "dq", "dk", "dv"].iter().zip(most).map(|(name, most)| line(name, most)).collect();
    out::line(&format!(
        "attention in {dtype:?} (errors: largest of the largest, norm of the norm): {}",
        all.join(", ")
    ));
    most
}

#[test]
fn f32_kernels_equal_the_plain_composition() {
    let found = deviations(DType::F32, &[12, 24, 33, 256]);
    let [y, grads @ ..] = found.map(|[largest, _]| largest);
    assert!(y < 1e-6 && grads.iter().all(|d| *d < 5e-6), "{found:?}");
}

#[test]
fn bf16_kernels_equal_the_plain_composition() {
    let found = deviations(DType::Bf16, &[12, 24, 33, 64, 80, 96, 128, 256]);
    let [y, grads @ ..] = found.map(|[_, norm]| norm);
    assert!(y < 3e-3 && grads.iter().all(|d| *d < 4e-3), "{found:?}");
}

/// A prompt with two answers, one of which goes on in two ways, and another prompt with one.
fn tree() -> Vec<Vec<Range<usize>>> {
    vec![
        vec![0..70, 70..101],
        vec![0..70, 101..190, 190..195],
        vec![0..70, 101..190, 195..215],
        vec![215..220, 220..300],
    ]
}

fn segment(start: usize, end: usize, context: &[Range<usize>]) -> Segment {
    Segment { start, len: end - start, context: context.to_vec() }
}

fn forest() -> Segments {
    Segments::new(vec![
        segment(0, 70, &[]),
        segment(70, 101, from_ref(&(0..70))),
        segment(101, 190, from_ref(&(0..70))),
        segment(190, 195, &[0..70, 101..190]),
        segment(195, 215, &[0..70, 101..190]),
        segment(215, 220, &[]),
        segment(220, 300, from_ref(&(215..220))),
    ])
    .expect("segments in order")
}

/// Heads in which every tile counts, and such that leave some out.
fn ways(dim: usize) -> [Heads; 2] {
    let all = Heads::new(4, 2, dim);
    [all, Heads { window: Some(66), softcap: Some(2.0), ..all }]
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_query_has_the_same_bits_whatever_is_beside_it() {
    for (dtype, dim) in [(DType::F32, 12), (DType::Bf16, 12), (DType::Bf16, 64), (DType::Bf16, 256)] {
        for heads in ways(dim) {
            let case = Case::new(heads, dtype, forest(), Key::new(7));
            let expected = case.forward(&Gpu::emulated(0), ROWS, 1);
            for (seed, rows, pack) in [(1, ROWS, 1), (2, 7, 1), (3, 1, 2)] {
                let found = case.forward(&Gpu::emulated(seed), rows, pack);
                assert!(bits(&found) == bits(&expected), "{heads:?} {dtype:?}: {rows} rows, {pack} heads a block");
            }
            // Every row by itself, and these in another order: nothing is shared.
            let width = heads.query * heads.dim;
            let rows: Vec<Vec<usize>> =
                tree().into_iter().rev().map(|row| row.into_iter().flatten().collect()).collect();
            let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
            let tokens: Vec<usize> = rows.into_iter().flatten().collect();
            let mut apart = Case::new(heads, dtype, Segments::separate(&lengths).expect("rows"), Key::new(0));
            for (i, width) in case.widths().into_iter().enumerate() {
                let row = |&t: &usize| case.numbers[i][t * width..(t + 1) * width].iter().copied();
                apart.numbers[i] = tokens.iter().flat_map(row).collect();
            }
            let found = apart.forward(&Gpu::emulated(4), ROWS, 1);
            for (row, &token) in found.chunks(width).zip(&tokens) {
                let expected = &expected[token * width..(token + 1) * width];
                assert!(bits(row) == bits(expected), "{heads:?} {dtype:?}: token {token} of a row by itself");
            }
        }
    }
}

#[test]
fn gradients_have_the_same_bits_in_any_order_of_blocks_and_threads() {
    for (dtype, dim) in [(DType::F32, 24), (DType::Bf16, 24), (DType::Bf16, 128)] {
        let case = Case::new(ways(dim)[1], dtype, forest(), Key::new(8));
        let [first, second] = [1, 2].map(|seed| case.run(&Gpu::emulated(seed)).map(|numbers| bits(&numbers)));
        assert!(first == second, "{dtype:?}, {dim}");
    }
}

/// More answers to a prompt than a list has entries: parts of sums.
#[test]
fn long_lists_are_cut() {
    let answers = (0..40).map(|i| segment(66 + i, 67 + i, from_ref(&(0..66))));
    let segments = Segments::new([segment(0, 66, &[])].into_iter().chain(answers).collect()).expect("in order");
    for (dtype, bound) in [(DType::F32, 5e-6), (DType::Bf16, 1e-2)] {
        let case = Case::new(Heads::new(2, 1, 12), dtype, segments.clone(), Key::new(9));
        let found = case.run(&Gpu::emulated(3));
        for (found, exact) in found.iter().zip(&case.oracle()) {
            let [largest, _] = deviation(found, exact);
            assert!(largest < bound, "{dtype:?}: {largest}");
        }
    }
}

/// Two answers to one prompt and one to another, decoded token by token; shorter ones leave earlier.
#[test]
fn a_decoded_row_has_the_bits_of_packed_attention() {
    const PROMPTS: [Range<usize>; 2] = [0..70, 175..180];
    const ANSWERS: [(usize, Range<usize>); 3] = [(0, 70..136), (0, 136..175), (1, 180..250)];
    let segments = [segment(0, 70, &[]), segment(70, 136, &PROMPTS[..1]), segment(136, 175, &PROMPTS[..1])];
    let more = [segment(175, 180, &[]), segment(180, 250, &PROMPTS[1..])];
    let segments = Segments::new(segments.into_iter().chain(more).collect()).expect("segments in order");
    for (dtype, dim) in [(DType::F32, 12), (DType::Bf16, 12), (DType::Bf16, 80)] {
        for heads in ways(dim) {
            let case = Case::new(heads, dtype, segments.clone(), Key::new(9));
            let gpu = Gpu::emulated(5);
            let expected = case.forward(&gpu, ROWS, 1);
            let width = heads.query * dim;
            // Prompts lie end to end, then room for 70 tokens of each answer.
            let kept = DeviceKeyValues::new(&gpu, dtype, heads, 75 + 3 * 70).expect("room");
            let [_, k, v, _] = case.arrays(&gpu);
            let rows = |x: &Array, range: &Range<usize>| x.rows(range.start, range.len()).expect("rows");
            for (prompt, from) in PROMPTS.iter().zip([0, 70]) {
                kept.keep(from, &rows(&k, prompt), &rows(&v, prompt)).expect("copies");
            }
            for t in 0..70 {
                let under_way = || ANSWERS.iter().enumerate().filter(|(_, (_, tokens))| t < tokens.len());
                let at = |(i, (prompt, _)): (usize, &(usize, Range<usize>))| {
                    let prompt = [0..70, 70..75][*prompt].clone();
                    [prompt, 75 + 70 * i..75 + 70 * i + t + 1]
                };
                let places: Vec<[Range<usize>; 2]> = under_way().map(at).collect();
                let tokens: Vec<usize> = under_way().map(|(_, (_, tokens))| tokens.start + t).collect();
                let new = |i: usize| {
                    let width = case.widths()[i];
                    let row = |&token: &usize| case.numbers[i][token * width..(token + 1) * width].iter().copied();
                    upload(&gpu, &tokens.iter().flat_map(row).collect::<Vec<f32>>(), width, dtype)
                };
                let found = DeviceRows::new(&gpu, &places).and_then(|rows| {
                    let [q, k, v] = [0, 1, 2].map(new);
                    kept.attend([&q, &k, &v], &rows)
                });
                for (row, &token) in read(&found.expect("the kernels run")).chunks(width).zip(&tokens) {
                    let expected = &expected[token * width..(token + 1) * width];
                    assert!(bits(row) == bits(expected), "{heads:?} {dtype:?}: token {token}");
                }
            }
        }
    }
}
