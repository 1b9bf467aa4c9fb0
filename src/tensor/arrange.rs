//! Moving cells without changing them: transpose, reshape, concat, stack, gather, indexing; and one-hot vectors.
//!
//! What takes whole runs of cells says which (`Run`), so that one driver and one backward rule serve all of it.

use crate::budget::memory;
use crate::error::{Error, Result};
use crate::tensor::blocks::{BLOCK, Cell, each_block, make_chunks};
use crate::tensor::cells::{Cells, Held, Numbers};
use crate::tensor::create::count;
use crate::tensor::lanes::transposed;
use crate::tensor::value::{common_device, common_dtype};
use crate::tensor::{DType, Tensor, shape, tape};

/// `len` cells of the result, from `to` on, are those of input `input` from `from` on.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub to: usize,
    pub input: usize,
    pub from: usize,
    pub len: usize,
}

/// Whether there is room for so many runs.
fn room(runs: usize) -> Result<()> {
    memory::room((runs * size_of::<Run>()) as u64)
}

/// A tensor of shape `dims` of runs of `inputs`' cells, in the order of their places, of which no two overlap. Cells
/// between them are 0.
pub(crate) fn rearrange(inputs: &[&Tensor], dims: &[usize], runs: Vec<Run>) -> Result<Tensor> {
    let n = count(dims)?;
    let cells = inputs.iter().map(|t| Cells::of(t.data())).collect::<Result<Vec<_>>>()?;
    let held: Vec<Held> = cells.iter().map(Cells::read).collect();
    let numbers: Vec<Numbers> = held.iter().map(Held::numbers).collect();
    let device = common_device(inputs);
    let out = match common_dtype(inputs) {
        DType::F64 => Tensor::from_vec_f64(joined(&numbers, n, &runs), dims, &device)?,
        _ => Tensor::from_vec(joined(&numbers, n, &runs), dims, &device)?,
    };
    Ok(tape::record(out, inputs, |_, wanted| {
        let back: Vec<Option<Back>> =
            (0..inputs.len()).map(|n| wanted[n].then(|| Back::new(inputs[n].len(), n, &runs))).collect();
        move |upstream| Ok(back.iter().map(|b| b.as_ref().map_or_else(Vec::new, |b| b.gradient(&upstream))).collect())
    }))
}

fn joined<T: Cell>(inputs: &[Numbers], n: usize, runs: &[Run]) -> Vec<T> {
    make_chunks(n, BLOCK, n, |chunk, out: &mut [T]| {
        let (start, end) = (chunk * BLOCK, chunk * BLOCK + out.len());
        let first = runs.partition_point(|run| run.to + run.len <= start);
        for run in runs[first..].iter().take_while(|run| run.to < end) {
            let (low, high) = (run.to.max(start), end.min(run.to + run.len));
            T::copy(inputs[run.input], run.from + low - run.to, &mut out[low - start..high - start]);
        }
    })
}

/// Where the gradient of an input comes from.
struct Back {
    cells: usize,
    /// By their places in the input; those of one place by their places in the result.
    runs: Vec<Run>,
    longest: usize,
}

impl Back {
    fn new(cells: usize, input: usize, runs: &[Run]) -> Self {
        let mut runs: Vec<Run> = runs.iter().filter(|run| run.input == input).copied().collect();
        runs.sort_by_key(|run| run.from);
        let longest = runs.iter().map(|run| run.len).max().unwrap_or(0);
        Self { cells, runs, longest }
    }

    fn gradient(&self, upstream: &[f64]) -> Vec<f64> {
        make_chunks(self.cells, BLOCK, self.cells, |chunk, grad: &mut [f64]| {
            let (start, end) = (chunk * BLOCK, chunk * BLOCK + grad.len());
            let first = self.runs.partition_point(|run| run.from + self.longest <= start);
            for run in self.runs[first..].iter().take_while(|run| run.from < end) {
                let (low, high) = (run.from.max(start), end.min(run.from + run.len));
                if low < high {
                    let g = &upstream[run.to + low - run.from..run.to + high - run.from];
                    grad[low - start..high - start].iter_mut().zip(g).for_each(|(grad, g)| *grad += g);
                }
            }
        })
    }
}

impl Tensor {
    /// Swaps the last two axes.
    pub fn transpose(&self) -> Result<Tensor> {
        let (batch, m, n) = match *self.dims() {
            [m, n] => (1, m, n),
            [batch, m, n] => (batch, m, n),
            _ => {
                return Err(Error::shape(format!(
                    "`transpose` needs two axes, found shape {}",
                    shape::show(self.dims())
                )));
            }
        };
        let mut dims = self.dims().to_vec();
        let rank = dims.len();
        dims.swap(rank - 2, rank - 1);
        count(&dims)?;
        let cells = Cells::of(self.data())?;
        let out = match cells.read().numbers() {
            Numbers::F64(x) => Tensor::from_vec_f64(transposed(x, batch, m, n), &dims, self.device())?,
            Numbers::F32(x) => Tensor::from_vec(transposed(x, batch, m, n), &dims, self.device())?,
        };
        Ok(tape::record(out, &[self], |_, _| move |upstream: Vec<f64>| Ok(vec![transposed(&upstream, batch, n, m)])))
    }

    /// The same cells, row major, in another shape; one length may be -1 and follows from the others.
    pub fn reshape(&self, dims: &[i64]) -> Result<Tensor> {
        let wrong = || {
            let wanted: Vec<String> = dims.iter().map(ToString::to_string).collect();
            Error::shape(format!(
                "`reshape` cannot turn shape {} into [{}]",
                shape::show(self.dims()),
                wanted.join(",")
            ))
            .hint(format!("it holds {} numbers; one length may be -1", self.len()))
        };
        let open = dims.iter().filter(|d| **d == -1).count();
        if open > 1 || dims.iter().any(|d| *d < -1) || dims.len() > shape::MAX_RANK {
            return Err(wrong());
        }
        let known = dims.iter().filter(|d| **d != -1).try_fold(1usize, |n, d| n.checked_mul(*d as usize));
        let known = known.ok_or_else(wrong)?;
        let rest = if open == 1 && known > 0 { self.len() / known } else { 1 };
        if known * rest != self.len() {
            return Err(wrong());
        }
        let dims: Vec<usize> = dims.iter().map(|d| if *d == -1 { rest } else { *d as usize }).collect();
        count(&dims)?;
        let out = Tensor::new(self.data().reshape(dims)?);
        Ok(tape::record(out, &[self], |_, _| |upstream| Ok(vec![upstream])))
    }

    /// The entries at `indices` of the first axis, in that order; a per-token tensor stays one.
    pub fn select(&self, indices: &[usize]) -> Result<Tensor> {
        let (&rows, rest) =
            self.dims().split_first().ok_or_else(|| Error::shape("a single number has no rows to take"))?;
        let width: usize = rest.iter().product();
        let dims: Vec<usize> = std::iter::once(indices.len()).chain(rest.iter().copied()).collect();
        room(indices.len())?;
        let run = |(to, &i): (usize, &usize)| {
            let from = shape::position("rows", rows, i as i64)? * width;
            Ok(Run { to: to * width, input: 0, from, len: width })
        };
        let runs = indices.iter().enumerate().map(run).collect::<Result<_>>()?;
        Ok(rearrange(&[self], &dims, runs)?.with_tokens(self.is_tokens()))
    }

    /// `x[i]`: entry `i` of the first axis, which goes away; negative `i` counts from the end.
    pub fn index(&self, i: i64) -> Result<Tensor> {
        let (&rows, rest) = self
            .dims()
            .split_first()
            .ok_or_else(|| Error::shape("x[i] of a single number").hint("its value is x.item()"))?;
        let row = self.select(&[shape::position("x[i]", rows, i)?])?;
        row.reshape(&rest.iter().map(|d| *d as i64).collect::<Vec<_>>())
    }

    /// Picks along an axis: with `axis` 1, cell `[i,j]` is `x[i][index[i][j]]`. `index` has the rank of `x` and its
    /// lengths on the other axes.
    pub fn gather(&self, index: &Tensor, axis: i64) -> Result<Tensor> {
        let at = shape::axis("gather", self.dims(), axis)?;
        let (dims, from) = (index.dims(), self.dims());
        let fits = dims.len() == from.len() && (0..dims.len()).all(|a| a == at || dims[a] == from[a]);
        if !fits {
            let (x, index) = (shape::show(from), shape::show(dims));
            return Err(Error::shape(format!(
                "`gather` along axis {at}: index of shape {index} does not fit x of shape {x}"
            ))
            .hint("index has the same shape as x, except along that axis"));
        }
        count(dims)?;
        let inner: usize = from[at + 1..].iter().product();
        let places = Places { of_index: dims[at] * inner, of_x: from[at] * inner, cells: vec![0; index.len()] };
        let places = places.find(index, inner, from[at])?;
        let cells = Cells::of(self.data())?;
        let held = cells.read();
        let pick = |start: usize, strip: &mut [f64], _: &mut [_; 0]| {
            let places = &places.cells[start..start + strip.len()];
            match held.numbers() {
                Numbers::F32(x) => strip.iter_mut().zip(places).for_each(|(to, &i)| *to = f64::from(x[i as usize])),
                Numbers::F64(x) => strip.iter_mut().zip(places).for_each(|(to, &i)| *to = x[i as usize]),
            }
        };
        let out = Tensor::made(dims, self.dtype(), self.device(), pick)?;
        let x = self.len();
        Ok(tape::record(out, &[self], |_, _| move |upstream: Vec<f64>| Ok(vec![places.gradient(x, &upstream)])))
    }

    /// Joins along an existing axis.
    pub fn concat(parts: &[Tensor], axis: i64) -> Result<Tensor> {
        let first = parts.first().ok_or_else(|| Error::value("`concat` of an empty array"))?;
        let at = shape::axis("concat", first.dims(), axis)?;
        for part in parts {
            let (a, b) = (first.dims(), part.dims());
            if a.len() != b.len() || (0..a.len()).any(|i| i != at && a[i] != b[i]) {
                let (a, b) = (shape::show(a), shape::show(b));
                return Err(Error::shape(format!("`concat` along axis {at} cannot join shapes {a} and {b}")));
            }
        }
        let mut dims = first.dims().to_vec();
        dims[at] = parts.iter().map(|p| p.dims()[at]).sum();
        let inner: usize = first.dims()[at + 1..].iter().product();
        let outer: usize = first.dims()[..at].iter().product();
        count(&dims)?;
        room(outer.saturating_mul(parts.len()))?;
        let mut runs = Vec::with_capacity(outer * parts.len());
        let mut to = 0;
        for o in 0..outer {
            for (input, part) in parts.iter().enumerate() {
                let len = part.dims()[at] * inner;
                runs.push(Run { to, input, from: o * len, len });
                to += len;
            }
        }
        let tokens = parts.iter().any(Tensor::is_tokens);
        Ok(rearrange(&parts.iter().collect::<Vec<_>>(), &dims, runs)?.with_tokens(tokens))
    }

    /// Joins tensors of one shape along a new first axis.
    pub fn stack(parts: &[Tensor]) -> Result<Tensor> {
        let first = parts.first().ok_or_else(|| Error::value("`stack` of an empty array"))?;
        if let Some(other) = parts.iter().find(|p| p.dims() != first.dims()) {
            let (a, b) = (shape::show(first.dims()), shape::show(other.dims()));
            return Err(Error::shape(format!("`stack` takes tensors of one shape, found {a} and {b}")));
        }
        let dims: Vec<usize> = std::iter::once(parts.len()).chain(first.dims().iter().copied()).collect();
        let len = first.len();
        let runs = (0..parts.len()).map(|input| Run { to: input * len, input, from: 0, len }).collect();
        rearrange(&parts.iter().collect::<Vec<_>>(), &dims, runs)
    }

    /// 1 at each value's position along a new last axis of length `n`, else 0; `[B,1]` becomes `[B,n]`. No graph.
    pub fn one_hot(&self, n: usize) -> Result<Tensor> {
        let mut values = vec![0.0; count(&[self.len(), n])?];
        for (i, &v) in self.to_vec()?.iter().enumerate() {
            values[i * n + whole("one_hot", v, n)?] = 1.0;
        }
        let kept = match self.dims() {
            [rows, 1] => &[*rows],
            dims => dims,
        };
        let dims: Vec<usize> = kept.iter().copied().chain([n]).collect();
        Tensor::from_host(values, &dims, DType::F32, self.device())
    }
}

/// Which cell of x every cell of an index picks. Both fall into the same number of entries, and none reaches into
/// another.
struct Places {
    /// Cells of an entry.
    of_index: usize,
    of_x: usize,
    /// At most 2^26 cells are a tensor.
    cells: Vec<u32>,
}

impl Places {
    /// Reads `index`, whose values are positions along an axis of `len` cells with `inner` cells behind each.
    fn find(mut self, index: &Tensor, inner: usize, len: usize) -> Result<Self> {
        const WRONG: u32 = u32::MAX;
        let values = Cells::of(index.data())?;
        let held = values.read();
        let (numbers, of_index, of_x) = (held.numbers(), self.of_index, self.of_x);
        each_block(&mut self.cells, |start, block| {
            for (i, place) in block.iter_mut().enumerate() {
                let (cell, value) = (start + i, numbers.at(start + i));
                *place = whole("gather", value, len)
                    .map_or(WRONG, |position| (cell / of_index * of_x + position * inner + cell % inner) as u32);
            }
        });
        match self.cells.iter().position(|place| *place == WRONG) {
            Some(i) => whole("gather", numbers.at(i), len).map(|_| self),
            None => Ok(self),
        }
    }

    fn gradient(&self, cells: usize, upstream: &[f64]) -> Vec<f64> {
        let entries = (BLOCK / self.of_x.max(1)).max(1);
        make_chunks(cells, entries * self.of_x, cells.max(upstream.len()), |chunk, grad: &mut [f64]| {
            let entries = chunk * entries..chunk * entries + grad.len() / self.of_x;
            for cell in entries.start * self.of_index..entries.end * self.of_index {
                grad[self.cells[cell] as usize - entries.start * self.of_x] += upstream[cell];
            }
        })
    }
}

fn whole(what: &str, value: f64, n: usize) -> Result<usize> {
    if value.fract() == 0.0 && value >= 0.0 && value < n as f64 {
        return Ok(value as usize);
    }
    if n == 0 {
        return Err(Error::value(format!("`{what}`: there is nothing to choose {value} from")));
    }
    Err(Error::value(format!("`{what}`: {value} is not a whole number from 0 to {}", n - 1)))
}
