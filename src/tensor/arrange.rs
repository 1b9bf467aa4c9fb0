//! Moving cells without changing them: transpose, reshape, concat, stack, gather, indexing; and one-hot vectors.
//!
//! Each is a map from cells of the result to cells of the inputs, so that one backward rule serves all.

use crate::error::{Error, Result};
use crate::tensor::create::count;
use crate::tensor::value::{common_device, common_dtype};
use crate::tensor::{DType, Tensor, memory, shape, tape};

/// Where a cell of the result comes from: the input and the cell in it; `None` is 0.
pub(crate) type Cell = Option<(usize, usize)>;

/// `count`, where each cell has a `Cell` beside it.
fn room(dims: &[usize]) -> Result<usize> {
    let cells = count(dims)?;
    memory::room((cells * size_of::<Cell>()) as u64)?;
    Ok(cells)
}

/// A tensor of shape `dims` with its cells taken from `inputs`, row major.
pub(crate) fn rearrange(inputs: &[&Tensor], dims: &[usize], cells: Vec<Cell>) -> Result<Tensor> {
    let from = inputs.iter().map(|t| t.to_vec()).collect::<Result<Vec<_>>>()?;
    let values = cells.iter().map(|cell| cell.map_or(0.0, |(n, i)| from[n][i])).collect();
    let out = Tensor::from_host(values, dims, common_dtype(inputs), &common_device(inputs))?;
    Ok(tape::record(out, inputs, |_, wanted| {
        let lengths: Vec<usize> = from.iter().map(Vec::len).collect();
        move |upstream: &[f64]| {
            let mut parts: Vec<Vec<f64>> =
                lengths.iter().zip(&wanted).map(|(len, wanted)| vec![0.0; if *wanted { *len } else { 0 }]).collect();
            for (cell, g) in cells.iter().zip(upstream) {
                if let Some((n, i)) = cell
                    && wanted[*n]
                {
                    parts[*n][*i] += g;
                }
            }
            Ok(parts)
        }
    }))
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
        room(&dims)?;
        let cells = (0..batch * m * n).map(|c| {
            let (b, j, i) = (c / (m * n), c % (m * n) / m, c % m);
            Some((0, b * m * n + i * n + j))
        });
        rearrange(&[self], &dims, cells.collect())
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
        Ok(tape::record(out, &[self], |_, _| |upstream: &[f64]| Ok(vec![upstream.to_vec()])))
    }

    /// The entries at `indices` of the first axis, in that order; a per-token tensor stays one.
    pub fn select(&self, indices: &[usize]) -> Result<Tensor> {
        let (&rows, rest) =
            self.dims().split_first().ok_or_else(|| Error::shape("a single number has no rows to take"))?;
        let width: usize = rest.iter().product();
        let dims: Vec<usize> = std::iter::once(indices.len()).chain(rest.iter().copied()).collect();
        let mut cells = Vec::with_capacity(room(&dims)?);
        for &i in indices {
            let i = shape::position("rows", rows, i as i64)?;
            cells.extend((0..width).map(|j| Some((0, i * width + j))));
        }
        Ok(rearrange(&[self], &dims, cells)?.with_tokens(self.is_tokens()))
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
        let inner: usize = from[at + 1..].iter().product();
        let mut cells = Vec::with_capacity(room(dims)?);
        for (cell, &value) in index.to_vec()?.iter().enumerate() {
            let position = whole("gather", value, from[at])?;
            let (outer, k) = (cell / (dims[at] * inner), cell % inner);
            cells.push(Some((0, (outer * from[at] + position) * inner + k)));
        }
        rearrange(&[self], dims, cells)
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
        let mut cells = Vec::with_capacity(room(&dims)?);
        for o in 0..outer {
            for (n, part) in parts.iter().enumerate() {
                let run = part.dims()[at] * inner;
                cells.extend((0..run).map(|i| Some((n, o * run + i))));
            }
        }
        let tokens = parts.iter().any(Tensor::is_tokens);
        Ok(rearrange(&parts.iter().collect::<Vec<_>>(), &dims, cells)?.with_tokens(tokens))
    }

    /// Joins tensors of one shape along a new first axis.
    pub fn stack(parts: &[Tensor]) -> Result<Tensor> {
        let first = parts.first().ok_or_else(|| Error::value("`stack` of an empty array"))?;
        if let Some(other) = parts.iter().find(|p| p.dims() != first.dims()) {
            let (a, b) = (shape::show(first.dims()), shape::show(other.dims()));
            return Err(Error::shape(format!("`stack` takes tensors of one shape, found {a} and {b}")));
        }
        let dims: Vec<usize> = std::iter::once(parts.len()).chain(first.dims().iter().copied()).collect();
        room(&dims)?;
        let cells = (0..parts.len()).flat_map(|n| (0..first.len()).map(move |i| Some((n, i)))).collect();
        rearrange(&parts.iter().collect::<Vec<_>>(), &dims, cells)
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

fn whole(what: &str, value: f64, n: usize) -> Result<usize> {
    if value.fract() == 0.0 && value >= 0.0 && value < n as f64 {
        return Ok(value as usize);
    }
    if n == 0 {
        return Err(Error::value(format!("`{what}`: there is nothing to choose {value} from")));
    }
    Err(Error::value(format!("`{what}`: {value} is not a whole number from 0 to {}", n - 1)))
}
