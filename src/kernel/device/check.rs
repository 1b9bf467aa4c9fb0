//! Every form of an operation, asked on a device: `rhopo gpu check kernels`.
//!
//! Values and gradients are held to the plain composition in f64 of the numbers that the device has. Where neither
//! tensor cores nor products of fractions take part, their bits are also held to those of the emulator, whose hashes
//! `check_bits.tsv` records. Owns the cases and the bounds.

use crate::error::Result;
use crate::gpu::check::{Finding, Verdict};
use crate::gpu::{DType, Gpu};
use crate::kernel::adamw::{Rule, Update};
use crate::kernel::attention::{Attention, Heads};
use crate::kernel::divergence::{Divergence, LinearDivergence};
use crate::kernel::dot::dot;
use crate::kernel::elementwise::{Add, Columns, Gate, Gather, Gelu, Scale};
use crate::kernel::form::Routine;
use crate::kernel::layer_norm::LayerNorm;
use crate::kernel::linear::{Layout, linear, linear_add};
use crate::kernel::logprob::{LinearLogprob, Targets};
use crate::kernel::op::DeviceForm;
use crate::kernel::packs::Packs;
use crate::kernel::rms_norm::Rms;
use crate::kernel::rotary::{Angles, Rotary, Scaling, frequencies};
use crate::kernel::segments::{Segment, Segments};
use crate::kernel::softcap::Softcap;
use crate::kernel::tape::{ParameterGrads, Tape, Var};
use crate::kernel::value::Value;
use crate::tensor::rng::Key;
use candle_core::{Device, Tensor};
use half::bf16;
use std::collections::BTreeMap;
use std::sync::Arc;

/// `name⇥hash` a line.
const RECORDED: &str = include_str!("check_bits.tsv");

/// Of a value and of gradients, as shares of the largest number of each.
fn bounds(compute: DType) -> [f64; 2] {
    match compute {
        // Three roundings to 8 digits.
        DType::Bf16 => [3.0 / 256.0; 2],
        _ => [5e-6, 3e-5],
    }
}

/// All operations, forward and backward, in f32 and in bf16, over a few shapes; `small`: one shape of each.
///
/// # Errors
/// A computation that the host cannot make. What fails on the device is a finding.
pub fn kernels(gpu: &Gpu, small: bool) -> Result<Vec<Finding>> {
    let recorded: BTreeMap<&str, &str> = RECORDED.lines().filter_map(|line| line.split_once('\t')).collect();
    let mut found = Vec::new();
    for case in cases(small)? {
        for compute in [DType::F32, DType::Bf16] {
            let name = case.name(compute);
            found.push(match case.outcome(gpu, compute) {
                Ok(outcome) => outcome.finding(recorded.get(name.as_str()).copied(), bounds(compute), name),
                Err(e) => Finding { what: name, found: e.what, verdict: Verdict::Wrong },
            });
        }
    }
    found.extend(routines(gpu, small, &recorded)?);
    Ok(found)
}

/// Which results have the same bits on every device.
#[derive(Clone, Copy, PartialEq)]
enum Exact {
    All,
    /// All in f32, where no tensor core takes part.
    InF32,
    /// Sums of products are exact; those of gradients are of fractions.
    Value,
    Nothing,
}

type Apply = Box<dyn Fn(&mut Tape, &[Var]) -> Result<Var>>;

/// An operation and its inputs.
struct Case {
    name: String,
    inputs: Vec<Tensor>,
    /// Inputs from here on get no gradient.
    trained: usize,
    /// Inputs that are f32 in every compute type.
    wide: &'static [usize],
    exact: Exact,
    apply: Apply,
}

/// A value and its gradients.
struct Outcome {
    /// Of the value and of gradients.
    gaps: [f64; 2],
    hash: Option<String>,
}

impl Outcome {
    fn finding(self, recorded: Option<&str>, bounds: [f64; 2], what: String) -> Finding {
        let [value, gradient] = self.gaps;
        let close = value <= bounds[0] && gradient <= bounds[1];
        let bits = match (&self.hash, recorded) {
            (None, _) => String::new(),
            (Some(hash), Some(recorded)) if hash == recorded => ", bits as recorded".into(),
            (Some(hash), recorded) => format!(", bits {hash}, not {}", recorded.unwrap_or("recorded")),
        };
        let same = self.hash.is_none() || self.hash.as_deref() == recorded;
        let verdict = if close && same { Verdict::Holds } else { Verdict::Wrong };
        Finding { what, found: format!("{value:.1e}, {gradient:.1e}{bits}"), verdict }
    }
}

impl Case {
    fn name(&self, compute: DType) -> String {
        format!("{} {}", self.name, compute.name())
    }

    fn outcome(&self, gpu: &Gpu, compute: DType) -> Result<Outcome> {
        let carry = |(i, t): (usize, &Tensor)| {
            let numbers: Vec<f32> = t.flatten_all()?.to_vec1()?;
            upload(gpu, if self.wide.contains(&i) { DType::F32 } else { compute }, &numbers, t.dims())
        };
        let inputs = self.inputs.iter().enumerate().map(carry).collect::<Result<Vec<_>>>()?;
        let found = self.run(&inputs, compute)?;
        let exact = self.run(&inputs.iter().map(in_f64).collect::<Result<Vec<_>>>()?, compute)?;
        let gaps = found.iter().zip(&exact).map(|(found, exact)| Ok(gap(&numbers(found)?, &numbers(exact)?)));
        let gaps: Vec<f64> = gaps.collect::<Result<_>>()?;
        let hashed = match self.exact {
            Exact::All => found.len(),
            Exact::InF32 if compute == DType::F32 => found.len(),
            Exact::Value => 1,
            Exact::InF32 | Exact::Nothing => 0,
        };
        let bits = found[..hashed].iter().map(Value::to_vec).collect::<Result<Vec<_>>>()?;
        // A zero may have either sign: that of a product is the library's affair.
        let bits: Vec<u64> = bits.concat().into_iter().map(|x| (x + 0.0).to_bits().into()).collect();
        Ok(Outcome {
            gaps: [gaps[0], gaps[1..].iter().copied().fold(0.0, larger)],
            hash: (hashed > 0).then(|| hash(&bits)),
        })
    }

    /// The value, then the gradients.
    fn run(&self, inputs: &[Value], compute: DType) -> Result<Vec<Value>> {
        let mut tape = Tape::recording(Packs::new(0)).computing(compute);
        let vars: Vec<Var> = (0..inputs.len()).map(|i| tape.parameter(&inputs[i], i, i < self.trained)).collect();
        let out = (self.apply)(&mut tape, &vars)?;
        let upstream = integers(Key::new(99), out.value.len());
        let upstream = match &out.value {
            Value::Host(_) => in_f64(&tensor(&upstream, out.value.dims())?.into())?,
            Value::Device(y) => upload(y.gpu(), y.dtype(), &upstream, y.dims())?,
        };
        let mut grads = ParameterGrads::default();
        tape.backward(&out, upstream, &mut grads)?;
        let grads = (0..self.trained).filter_map(|i| grads.get(i).cloned());
        Ok(std::iter::once(out.value.clone()).chain(grads).collect())
    }

    fn wide(self, wide: &'static [usize]) -> Self {
        Self { wide, ..self }
    }

    fn exact(self, exact: Exact) -> Self {
        Self { exact, ..self }
    }
}

fn upload(gpu: &Gpu, dtype: DType, numbers: &[f32], dims: &[usize]) -> Result<Value> {
    Ok(match dtype {
        DType::Bf16 => {
            gpu.upload("a check", &numbers.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>(), dims)?.into()
        }
        _ => gpu.upload("a check", numbers, dims)?.into(),
    })
}

fn tensor(numbers: &[f32], dims: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_slice(numbers, dims, &Device::Cpu)?)
}

fn in_f64(value: &Value) -> Result<Value> {
    Ok(tensor(&value.to_vec()?, value.dims())?.to_dtype(candle_core::DType::F64)?.into())
}

fn numbers(value: &Value) -> Result<Vec<f64>> {
    match value {
        Value::Host(t) => Ok(t.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1()?),
        Value::Device(_) => Ok(value.to_vec()?.into_iter().map(f64::from).collect()),
    }
}

/// A NaN is larger than any number.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The largest distance as a share of the largest number.
fn gap(found: &[f64], exact: &[f64]) -> f64 {
    let size = exact.iter().fold(1e-3, |most: f64, x| most.max(x.abs()));
    found.iter().zip(exact).map(|(a, b)| (a - b).abs() / size).fold(0.0, larger)
}

/// FNV-1a over the bytes.
fn hash(bits: &[u64]) -> String {
    let bytes = bits.iter().flat_map(|x| x.to_le_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// Fractions from -2 to 2. Without a logarithm, so that they are the same on every machine.
fn fractions(key: Key, count: usize) -> Vec<f32> {
    (0..count as u64).map(|at| (key.uniform(at) * 4.0 - 2.0) as f32).collect()
}

/// -1, 0 and 1: sums of their products are exact in any order.
fn integers(key: Key, count: usize) -> Vec<f32> {
    (0..count as u64).map(|at| key.below(at, 3) as f32 - 1.0).collect()
}

/// An operation over matrices and vectors of fractions.
fn case<const N: usize>(name: &str, op: impl DeviceForm<N> + Clone, dims: [&[usize]; N]) -> Result<Case> {
    let drawn = |(i, dims): (usize, &&[usize])| tensor(&fractions(Key::new(i as u64 + 1), dims.iter().product()), dims);
    let inputs = dims.iter().enumerate().map(drawn).collect::<Result<Vec<_>>>()?;
    Ok(Case {
        name: format!("{name} {:?}", dims[0]),
        inputs,
        trained: N,
        wide: &[],
        exact: Exact::All,
        apply: Box::new(move |tape, vars| tape.finish(op.clone(), std::array::from_fn(|i| &vars[i]))),
    })
}

fn cases(small: bool) -> Result<Vec<Case>> {
    let mut all = Vec::new();
    for [rows, width] in few(small, &[[5, 33], [65, 256], [70, 1000]]) {
        let (x, w): (&[usize], &[usize]) = (&[rows, width], &[width]);
        all.push(case("rms_norm", Rms { eps: 1e-6, offset: 1.0 }, [x, w])?.wide(&[0, 1]));
        all.push(case("layer_norm", LayerNorm { eps: 1e-5 }, [x, w, w])?.wide(&[0, 1, 2]));
        all.push(case("silu·up", Gate::Silu, [x, x])?);
        all.push(case("gelu·up", Gate::Gelu(Gelu::Tanh), [x, x])?);
        all.push(case("gelu", Gelu::Exact, [x])?);
        all.push(case("softcap", Softcap { by: 0.7 }, [x])?);
        all.push(case("scale", Scale(0.37), [x])?);
        all.push(case("add", Add, [x, x])?.wide(&[0]));
        let part = Columns { start: 3, stride: width / 3, width: width / 4, count: 2 };
        all.push(case("columns", part, [x])?);
        let ids = (0..3 * rows as u32).map(|i| (i * 7 + i / 5) % rows as u32).collect();
        all.push(case("gather", Gather { ids }, [x])?);
        // Cosines are the host's own: they may differ in a last bit from machine to machine.
        let positions: Vec<u32> = (0..rows as u32).map(|i| i * 3).collect();
        let angles = Angles::new(&positions, &frequencies(8, 1e4, &Scaling::None), 1.0);
        all.push(case("rotary", Rotary { angles, head_dim: 8 }, [&[rows, 48]])?.exact(Exact::Nothing));
        all.extend(maps(rows, width)?);
    }
    for dim in few(small, &[12, 64, 128, 256]) {
        all.push(attended(dim)?);
    }
    for [rows, vocabulary, width] in few(small, &[[6, 50, 24], [20, 4500, 33]]) {
        all.extend(scored(rows, vocabulary, width)?);
    }
    Ok(all)
}

fn few<T: Copy>(small: bool, shapes: &[T]) -> impl Iterator<Item = T> {
    shapes.iter().copied().take(if small { 1 } else { shapes.len() })
}

/// Linear maps of integers: exact whatever multiplies.
fn maps(rows: usize, width: usize) -> Result<[Case; 2]> {
    const OUT: usize = 20;
    let map = |name: &str, last: &[usize], wide, apply: Apply| -> Result<Case> {
        let dims: [&[usize]; 3] = [&[rows, width], &[OUT, width], last];
        let drawn =
            |(i, dims): (usize, &&[usize])| tensor(&integers(Key::new(i as u64 + 4), dims.iter().product()), dims);
        let inputs = dims.iter().enumerate().map(drawn).collect::<Result<Vec<_>>>()?;
        let name = format!("{name} {:?}", dims[0]);
        Ok(Case { name, inputs, trained: 3, wide, exact: Exact::All, apply })
    };
    let biased = |tape: &mut Tape, v: &[Var]| linear(tape, &v[0], &v[1], Some(&v[2]), Layout::OutIn);
    let added = |tape: &mut Tape, v: &[Var]| linear_add(tape, &v[0], &v[1], None, &v[2], Layout::OutIn);
    Ok([
        map("linear", &[OUT], &[2], Box::new(biased))?,
        map("linear onto a residual", &[rows, OUT], &[2], Box::new(added))?,
    ])
}

/// A prompt with two answers, one of which goes on in two ways, and a row by itself, in a window.
fn attended(dim: usize) -> Result<Case> {
    let segment = |start, len, context: &[std::ops::Range<usize>]| Segment { start, len, context: context.to_vec() };
    let prompt = std::slice::from_ref(&(0..70));
    let segments = Segments::new(vec![
        segment(0, 70, &[]),
        segment(70, 9, prompt),
        segment(79, 30, prompt),
        segment(109, 5, &[0..70, 79..109]),
        segment(114, 3, &[0..70, 79..109]),
        segment(117, 20, &[]),
    ])?;
    let n = segments.tokens();
    let heads = Heads { window: Some(66), ..Heads::new(4, 2, dim) };
    let [query, key] = [[n, 4 * dim], [n, 2 * dim]];
    let op = Attention { segments: Arc::new(segments), heads };
    Ok(case("attention", op, [&query, &key, &key])?.exact(Exact::InF32))
}

/// Scores of integers over a vocabulary: the logits are exact.
fn scored(rows: usize, vocabulary: usize, width: usize) -> Result<[Case; 2]> {
    let pairs: Arc<[u32]> = (0..rows as u32).flat_map(|r| vec![r; [1, 3, 0, 1][r as usize % 4]]).collect();
    let tokens = (0..pairs.len() as u64).map(|i| Key::new(8).below(i, vocabulary as u64) as u32).collect();
    let targets = Targets { rows: pairs, tokens, temperature: 4.0 };
    let drawn = |(seed, rows): (u64, usize)| tensor(&integers(Key::new(seed), rows * width), &[rows, width]);
    let all = (20..).zip([rows, vocabulary, rows, vocabulary]).map(drawn).collect::<Result<Vec<_>>>()?;
    let scored = |name: &str, count: usize, apply: Apply| Case {
        name: format!("{name} [{rows},{vocabulary}]"),
        inputs: all[..count].to_vec(),
        trained: 2,
        wide: &[],
        exact: Exact::Value,
        apply,
    };
    let logprob = LinearLogprob { targets: targets.clone(), softcap: None, found: None };
    let kl = LinearDivergence { of: Divergence::Full, targets, softcap: Some(8.0), other: None };
    Ok([
        scored("logprob", 2, Box::new(move |tape, v| tape.finish(logprob.clone(), [&v[0], &v[1]]))),
        scored("kl", 4, Box::new(move |tape, v| tape.finish(kl.clone(), [&v[0], &v[1], &v[2], &v[3]]))),
    ])
}

/// AdamW's update and sums of products, against the host's.
fn routines(gpu: &Gpu, small: bool, recorded: &BTreeMap<&str, &str>) -> Result<Vec<Finding>> {
    const RULE: Rule = Rule { beta1: 0.9, beta2: 0.95, rate: 1.3e-2, root: 0.31, eps: 1e-8, keep: 0.9991, scale: 0.73 };
    let mut found = Vec::new();
    for n in few(small, &[1001, 70_000]) {
        let mut x = [1, 2, 3, 4].map(|seed| fractions(Key::new(seed), n));
        x[3].iter_mut().for_each(|v| *v *= *v);
        let updated = |values: [Value; 4]| -> Result<Vec<f32>> {
            let [parameter, grad, first, second] = &values;
            Update { rule: &RULE, parameter, grad, first, second }.run()?;
            Ok([parameter.to_vec()?, first.to_vec()?, second.to_vec()?].concat())
        };
        let there = x.iter().map(|x| upload(gpu, DType::F32, x, &[n])).collect::<Result<Vec<_>>>();
        let here = x.iter().map(|x| Ok(tensor(x, &[n])?.into())).collect::<Result<Vec<Value>>>()?;
        let four = |values: Vec<Value>| -> [Value; 4] { values.try_into().expect("four were made") };
        let exact: Vec<f64> = updated(four(here))?.into_iter().map(f64::from).collect();
        let outcome = there.and_then(|there| {
            let sum = dot(&there[0], &there[1])?;
            let numbers: Vec<f32> = updated(four(there))?;
            let bits: Vec<u64> = numbers.iter().map(|x| x.to_bits().into()).collect();
            let numbers: Vec<f64> = numbers.into_iter().map(f64::from).collect();
            let update = Outcome { gaps: [gap(&numbers, &exact), 0.0], hash: Some(hash(&bits)) };
            let all: f64 = x[0].iter().zip(&x[1]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            Ok([update, Outcome { gaps: [gap(&[sum], &[all]), 0.0], hash: Some(hash(&[sum.to_bits()])) }])
        });
        let names = ["adamw", "dot"].map(|name| format!("{name} [{n}]"));
        match outcome {
            Ok(outcomes) => found.extend(outcomes.into_iter().zip(names).map(|(outcome, name)| {
                outcome.finding(recorded.get(name.as_str()).copied(), bounds(DType::F32), name)
            })),
            Err(e) => found.push(Finding { what: names[0].clone(), found: e.what, verdict: Verdict::Wrong }),
        }
    }
    Ok(found)
}

#[cfg(all(test, feature = "emulate"))]
mod tests {
    use super::*;

    /// Also that the hashes are those of the emulator: where a kernel changes, `check_bits.tsv` follows.
    #[test]
    fn the_emulated_device_holds() {
        let found = kernels(&Gpu::emulated(5), false).expect("findings");
        let wrong: Vec<String> = found
            .iter()
            .filter(|finding| finding.verdict != Verdict::Holds)
            .map(|finding| format!("{}\t{}", finding.what, finding.found))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        for line in RECORDED.lines() {
            let name = line.split('\t').next().expect("a name");
            let known = found.iter().any(|finding| finding.what == name && finding.found.contains("as recorded"));
            assert!(known, "{name} is recorded and no longer asked");
        }
    }

    #[test]
    fn other_bits_and_large_errors_are_wrong() {
        let finding = |gaps, recorded| {
            Outcome { gaps, hash: Some("a".into()) }.finding(Some(recorded), [1e-6, 1e-5], String::new()).verdict
        };
        assert_eq!(finding([0.0, 0.0], "a"), Verdict::Holds);
        assert_eq!(finding([0.0, 0.0], "b"), Verdict::Wrong);
        assert_eq!(finding([0.0, 2e-5], "a"), Verdict::Wrong);
        assert_eq!(finding([f64::NAN, 0.0], "a"), Verdict::Wrong);
    }
}
