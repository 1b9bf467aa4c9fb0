//! Elementwise operations of one, two or three tensors: one driver for values, broadcasting and gradients.
//!
//! Owns no operation; the catalogue is in `ops`.

use crate::error::Result;
use crate::tensor::blocks::{Scratch, make};
use crate::tensor::cells::{Cells, Held, Numbers};
use crate::tensor::create::count;
use crate::tensor::reduce::sum_stretched;
use crate::tensor::shape::{self, MAX_RANK};
use crate::tensor::value::{common_device, common_dtype};
use crate::tensor::{Tensor, tape};
use candle_core::Tensor as Data;

/// An elementwise operation of `N` tensors: its value at one cell and what it passes back. `op!` makes one.
pub struct Op<const N: usize> {
    /// As scripts call it.
    pub name: &'static str,
    pub value: fn([f64; N]) -> f64,
    pub(crate) values: Values<N>,
    /// `None` where the derivative is zero everywhere: the result has no graph.
    pub(crate) slopes: Option<Slopes<N>>,
}

/// `value` of many cells: `(inputs, results)`.
pub(crate) type Values<const N: usize> = fn([&[f64]; N], &mut [f64]);
/// The gradient of one input at many cells: `(input, upstream, inputs, results, gradient)`. Where upstream is zero so is the
/// gradient, whatever stands there.
pub(crate) type Slopes<const N: usize> = fn(usize, &[f64], [&[f64]; N], &[f64], &mut [f64]);

/// `op!(N, name, |inputs| value, |upstream, inputs, value| gradients)`: an [`Op`] with loops that the compiler can
/// vectorise, at every instruction set. Without gradients the result has no graph.
macro_rules! op {
    ($n:literal, $name:literal, |$x:pat_param| $value:expr $(,)?) => {{
        #[inline(always)]
        fn value($x: [f64; $n]) -> f64 {
            $value
        }
        $crate::tensor::simd::simd! {
            fn values(x: [&[f64]; $n], out: &mut [f64]) {
                $crate::tensor::elementwise::each_value(value, x, out)
            }
        }
        $crate::tensor::Op { name: $name, value, values, slopes: None }
    }};
    ($n:literal, $name:literal, |$x:pat_param| $value:expr, |$g:pat_param, $i:pat_param, $y:pat_param| $slope:expr $(,)?) => {{
        #[inline(always)]
        fn slope($g: f64, $i: [f64; $n], $y: f64) -> [f64; $n] {
            $slope
        }
        $crate::tensor::simd::simd! {
            fn slopes(n: usize, g: &[f64], x: [&[f64]; $n], y: &[f64], out: &mut [f64]) {
                $crate::tensor::elementwise::each_slope(slope, n, g, x, y, out)
            }
        }
        $crate::tensor::Op { slopes: Some(slopes), ..$crate::tensor::elementwise::op!($n, $name, |$x| $value) }
    }};
}
pub(crate) use op;

#[inline(always)]
pub(crate) fn each_value<const N: usize>(value: impl Fn([f64; N]) -> f64, x: [&[f64]; N], out: &mut [f64]) {
    let x = x.map(|x| &x[..out.len()]);
    for (i, out) in out.iter_mut().enumerate() {
        *out = value(std::array::from_fn(|n| x[n][i]));
    }
}

#[inline(always)]
pub(crate) fn each_slope<const N: usize>(
    slope: impl Fn(f64, [f64; N], f64) -> [f64; N],
    n: usize,
    g: &[f64],
    x: [&[f64]; N],
    y: &[f64],
    out: &mut [f64],
) {
    // A loop for every input, so that none computes what is not asked for.
    match n {
        0 => each_slope_of::<N, 0>(slope, g, x, y, out),
        1 => each_slope_of::<N, 1>(slope, g, x, y, out),
        _ => each_slope_of::<N, 2>(slope, g, x, y, out),
    }
}

#[inline(always)]
fn each_slope_of<const N: usize, const INPUT: usize>(
    slope: impl Fn(f64, [f64; N], f64) -> [f64; N],
    g: &[f64],
    x: [&[f64]; N],
    y: &[f64],
    out: &mut [f64],
) {
    let x = x.map(|x| &x[..out.len()]);
    let (g, y) = (&g[..out.len()], &y[..out.len()]);
    for (i, out) in out.iter_mut().enumerate() {
        *out = if g[i] == 0.0 { 0.0 } else { slope(g[i], std::array::from_fn(|n| x[n][i]), y[i])[INPUT.min(N - 1)] };
    }
}

impl Op<1> {
    pub fn on(&'static self, x: &Tensor) -> Result<Tensor> {
        apply(self, [x])
    }
}

impl Op<2> {
    pub fn on(&'static self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        apply(self, [a, b])
    }
}

impl Op<3> {
    pub fn on(&'static self, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
        apply(self, [a, b, c])
    }
}

/// An input beside the cells of a broadcast result.
struct Input<'a> {
    numbers: Numbers<'a>,
    /// Of the result, filled up with ones.
    out: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
    stretch: Stretch,
}

enum Stretch {
    /// As many cells as the result.
    None,
    /// One cell.
    Number,
    Axes,
}

impl<'a> Input<'a> {
    fn new(held: &'a Held<'_>, dims: &[usize], out: [usize; MAX_RANK]) -> Self {
        let numbers = held.numbers();
        let stretch = match numbers.len() {
            n if n == out.iter().product::<usize>() => Stretch::None,
            1 => Stretch::Number,
            _ => Stretch::Axes,
        };
        Self { numbers, out, strides: shape::strides(dims, &out), stretch }
    }

    /// What stands beside `n` cells of the result from `start` on.
    fn strip<'s>(&'s self, start: usize, n: usize, scratch: &'s mut [f64]) -> &'s [f64] {
        match self.stretch {
            Stretch::None => return self.numbers.strip(start, n, scratch),
            Stretch::Number => scratch[..n].fill(self.numbers.at(0)),
            Stretch::Axes => self.stretched(start, &mut scratch[..n]),
        }
        &scratch[..n]
    }

    fn stretched(&self, start: usize, strip: &mut [f64]) {
        let [_, rows, width] = self.out;
        let mut done = 0;
        while done < strip.len() {
            let (row, k) = ((start + done) / width, (start + done) % width);
            let from = row / rows * self.strides[0] + row % rows * self.strides[1] + k * self.strides[2];
            let end = strip.len().min(done + width - k);
            match self.strides[2] {
                0 => strip[done..end].fill(self.numbers.at(from)),
                _ => self.numbers.load(from, &mut strip[done..end]),
            }
            done = end;
        }
    }
}

/// The numbers of every input.
fn cells<const N: usize>(data: [&Data; N]) -> Result<[Cells; N]> {
    let cells = data.map(Cells::of);
    match cells.iter().position(Result::is_err) {
        None => Ok(cells.map(|cells| cells.expect("none is an error"))),
        Some(i) => Err(cells.into_iter().nth(i).and_then(Result::err).expect("the one that is an error")),
    }
}

fn apply<const N: usize>(op: &'static Op<N>, inputs: [&Tensor; N]) -> Result<Tensor> {
    let dims = shape::broadcast(op.name, &inputs.map(Tensor::dims))?;
    let out = shape::padded(&dims);
    count(&dims)?;
    let cells = cells(inputs.map(Tensor::data))?;
    let held = cells.each_ref().map(Cells::read);
    let sources: [Input; N] = std::array::from_fn(|n| Input::new(&held[n], inputs[n].dims(), out));
    let values = |start: usize, strip: &mut [f64], scratch: &mut Scratch<N>| {
        let mut rooms = scratch.iter_mut();
        let x = sources.each_ref().map(|input| {
            let room = rooms.next().expect("a strip for every input");
            input.strip(start, strip.len(), room)
        });
        (op.values)(x, strip);
    };
    let tokens = inputs.iter().any(|t| t.is_tokens()) && dims.len() == 2;
    let result = Tensor::made(&dims, common_dtype(&inputs), &common_device(&inputs), values)?.with_tokens(tokens);
    let Some(slopes) = op.slopes else {
        return Ok(result);
    };
    Ok(tape::record(result, &inputs, |result, wanted| {
        let saved = inputs.map(|t| t.data().clone());
        let result = result.data().clone();
        move |upstream| backward(slopes, &saved, &result, &wanted, &upstream)
    }))
}

fn backward<const N: usize>(
    slopes: Slopes<N>,
    inputs: &[Data; N],
    result: &Data,
    wanted: &[bool],
    upstream: &[f64],
) -> Result<Vec<Vec<f64>>> {
    let out = shape::padded(result.dims());
    let (cells, values) = (cells(inputs.each_ref())?, Cells::of(result)?);
    let (held, values) = (cells.each_ref().map(Cells::read), values.read());
    let sources: [Input; N] = std::array::from_fn(|n| Input::new(&held[n], inputs[n].dims(), out));
    let part = |n: usize| {
        if !wanted[n] {
            return Vec::new();
        }
        let all = make(upstream.len(), |start, strip, [y, rooms @ ..]: &mut Scratch<4>| {
            let mut rooms = rooms.iter_mut();
            let x = sources.each_ref().map(|input| {
                let room = rooms.next().expect("a strip for every input");
                input.strip(start, strip.len(), room)
            });
            let y = values.numbers().strip(start, strip.len(), y);
            slopes(n, &upstream[start..start + strip.len()], x, y, strip);
        });
        sum_stretched(all, inputs[n].dims(), out)
    };
    Ok((0..N).map(part).collect())
}
