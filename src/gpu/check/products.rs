//! Matrix products: exact where the numbers allow it, and whether a row's bits depend on how many rows there are.

use super::{Finding, difference, integers, is_large, normal, read, upload};
use crate::error::Result;
use crate::gpu::array::{Array, DType};
use crate::gpu::device::Gpu;
use crate::gpu::product::{Operand, Product, Start};
use half::bf16;

/// Operands and result.
const TYPES: [(DType, DType); 3] = [(DType::Bf16, DType::F32), (DType::Bf16, DType::Bf16), (DType::F32, DType::F32)];

/// Rows, terms, columns: odd ones, and terms that no tile divides.
const SIZES: [[usize; 3]; 7] =
    [[1, 1, 1], [3, 5, 7], [16, 64, 8], [17, 1000, 33], [64, 4095, 128], [129, 4097, 65], [5, 8200, 3]];

/// Weights `[out,in]` of Qwen2 0.5B and 1.5B.
const WEIGHTS: [[usize; 2]; 7] =
    [[896, 896], [9728, 896], [896, 4864], [1536, 1536], [17920, 1536], [1536, 8960], [4096, 896]];

/// Of the rows that a weight is given, how many at once.
const ROWS: [usize; 8] = [1, 7, 32, 64, 200, 512, 1000, 4096];

/// All layouts, types and starts against sums on the host; then rows alone against rows among others.
///
/// # Errors
/// None: what fails is a finding.
pub fn products(gpu: &Gpu) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for (operands, result) in TYPES {
        for layout in [[false, false], [false, true], [true, false], [true, true]] {
            for start in [false, true] {
                let case = Case { operands, result, layout, start };
                let wrong = SIZES.iter().map(|sizes| case.wrong(gpu, *sizes)).find(|wrong| !matches!(wrong, Ok(None)));
                found.push(Finding::held(case.name(), wrong.unwrap_or(Ok(None))));
            }
        }
    }
    let (weights, most) = if is_large(gpu) { (&WEIGHTS[..], ROWS.len()) } else { (&[[40, 72], [24, 17]][..], 4) };
    for &[out, width] in weights {
        for backward in [false, true] {
            let what = if backward { "dx = dy·W" } else { "y = x·Wᵀ" };
            let name = format!("{what}, W [{out},{width}]: bits of rows alone and among others");
            found.push(match dependent(gpu, [out, width], &ROWS[..most], backward) {
                Err(e) => Finding::held(name, Err(e)),
                Ok(rows) if rows.is_empty() => Finding::told(name, "the same"),
                Ok(rows) => Finding::told(name, format!("OTHER at {rows:?} rows")),
            });
        }
    }
    let unpinned = gpu.counters().unpinned_products;
    found.push(Finding::told("shapes with an algorithm of their own", unpinned.to_string()));
    Ok(found)
}

struct Case {
    operands: DType,
    result: DType,
    /// Which operands are stored transposed.
    layout: [bool; 2],
    start: bool,
}

impl Case {
    fn name(&self) -> String {
        let [a, b] = self.layout.map(|transposed| if transposed { "ᵀ" } else { "" });
        let start = if self.start { " + start" } else { "" };
        format!("{:?} a{a}·b{b}{start} in {:?}", self.operands, self.result)
    }

    /// What is wrong with out = a · b + start at these sizes: nothing may be, as all sums are exact.
    fn wrong(&self, gpu: &Gpu, [m, k, n]: [usize; 3]) -> Result<Option<String>> {
        let (a, b, start) = (integers(1, m * k), integers(2, k * n), integers(3, m * n));
        let [a_dims, b_dims] = [[m, k], [k, n]];
        let turned = |dims: [usize; 2], transposed: bool| if transposed { [dims[1], dims[0]] } else { dims };
        let a_array = upload(gpu, self.operands, &stored(&a, a_dims, self.layout[0]), &turned(a_dims, self.layout[0]))?;
        let b_array = upload(gpu, self.operands, &stored(&b, b_dims, self.layout[1]), &turned(b_dims, self.layout[1]))?;
        let first = upload(gpu, self.result, &start, &[m, n])?;
        let out = gpu.empty("a check", self.result, &[m, n])?;
        let operand = |array, transposed| {
            let operand = Operand::from(array);
            if transposed { operand.t() } else { operand }
        };
        gpu.product(Product {
            a: operand(&a_array, self.layout[0]),
            b: operand(&b_array, self.layout[1]),
            out: &out,
            start: if self.start { Start::From(&first) } else { Start::Zero },
        })?;
        let found = read(gpu, &out)?;
        let columns = stored(&b, b_dims, true);
        let sum = |at: usize| {
            let (row, column) = (&a[at / n * k..][..k], &columns[at % n * k..][..k]);
            let sum: f32 = row.iter().zip(column).map(|(x, y)| x * y).sum();
            let sum = if self.start { sum + start[at] } else { sum };
            if self.result == DType::Bf16 { bf16::from_f32(sum).to_f32() } else { sum }
        };
        // A zero may have either sign.
        let found: Vec<f32> = found.iter().map(|x| x + 0.0).collect();
        let wrong = difference(&found, (0..m * n).map(|at| sum(at) + 0.0));
        Ok(wrong.map(|wrong| format!("[{m},{k}]·[{k},{n}]: {wrong}")))
    }
}

/// Row-major numbers as they lie in memory, transposed or not.
fn stored(numbers: &[f32], [rows, columns]: [usize; 2], transposed: bool) -> Vec<f32> {
    match transposed {
        false => numbers.to_vec(),
        true => (0..rows * columns).map(|at| numbers[at % rows * columns + at / rows]).collect(),
    }
}

/// The numbers of rows at which the first rows have other bits than among all rows.
fn dependent(gpu: &Gpu, [out, width]: [usize; 2], rows: &[usize], backward: bool) -> Result<Vec<usize>> {
    let [inputs, outputs] = if backward { [out, width] } else { [width, out] };
    let weight = upload(gpu, DType::Bf16, &normal(4, out * width), &[out, width])?;
    let all = rows.iter().copied().max().unwrap_or(0);
    let x = upload(gpu, DType::Bf16, &normal(5, all * inputs), &[all, inputs])?;
    let multiplied = |x: &Array, rows: usize| {
        let y = gpu.empty("a check", DType::F32, &[rows, outputs])?;
        let b = if backward { Operand::from(&weight) } else { Operand::from(&weight).t() };
        gpu.product(Product { a: x.into(), b, out: &y, start: Start::Zero })?;
        gpu.read::<f32>(&y)
    };
    let among = multiplied(&x, all)?;
    let mut other = Vec::new();
    for &count in rows {
        let alone = multiplied(&x.rows(0, count)?, count)?;
        if difference(&alone, among.iter().copied()).is_some() {
            other.push(count);
        }
    }
    Ok(other)
}
