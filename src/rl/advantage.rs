//! Advantages: how much better than expected an answer or a token was. Data, without a graph.
//!
//! Group methods take `[B,1]` rewards in which the n answers to a prompt are adjacent rows. A reward that is not
//! finite is an error that names its row: it would poison its whole group silently.

use crate::error::{Error, Kind, Result};
use crate::tensor::blocks::{BLOCK, make, make_chunks};
use crate::tensor::cells::{Cells, Numbers};
use crate::tensor::value::common_dtype;
use crate::tensor::{Tensor, shape};
use rayon::prelude::*;

/// `(r − mean)/(std + 1e-4)` per group, Bessel-corrected std (GRPO; arXiv:2402.03300).
pub fn group(reward: &Tensor, n: usize) -> Result<Tensor> {
    by_group("advantage::group", reward, n, |r| {
        let centred = centre(r);
        let std = (centred.iter().map(|d| d * d).sum::<f64>() / (r.len() - 1) as f64).sqrt();
        centred.iter().map(|d| d / (std + 1e-4)).collect()
    })
}

/// `r − mean` per group (Dr. GRPO; arXiv:2503.20783).
pub fn group_center(reward: &Tensor, n: usize) -> Result<Tensor> {
    by_group("advantage::group_center", reward, n, centre)
}

/// `r` minus the mean of the other rewards of its group (RLOO; arXiv:2402.14740).
pub fn rloo(reward: &Tensor, n: usize) -> Result<Tensor> {
    // r − (Σ − r)/(n−1) is n/(n−1) times the distance from the mean of all n.
    by_group("advantage::rloo", reward, n, |r| {
        let scale = r.len() as f64 / (r.len() - 1) as f64;
        centre(r).iter().map(|d| d * scale).collect()
    })
}

/// `(r − mean)/mean` per group, 0 where the mean is not positive (MaxRL; arXiv:2602.02710): with rewards of 0 and 1 the
/// mean of `A·∇log p` over a group is the mean of `∇log p` over its right answers minus that over all, which estimates
/// the gradient of the logarithm of the pass rate.
pub fn max_rl(reward: &Tensor, n: usize) -> Result<Tensor> {
    by_group("advantage::max_rl", reward, n, |r| {
        let mean = r.iter().sum::<f64>() / r.len() as f64;
        if mean > 0.0 { centre(r).iter().map(|d| d / mean).collect() } else { vec![0.0; r.len()] }
    })
}

/// What `gae` gives, both `[B,T]` and 0 outside the mask.
pub struct Gae {
    pub advantage: Tensor,
    /// The target of the value function: advantage + value.
    pub ret: Tensor,
}

/// Generalised advantage estimation (Schulman et al. 2015, arXiv:1506.02438, eq. 16) over masked cells; cells
/// outside the mask are skipped: the next value and the trace pass through them. All inputs `[B,T]`.
pub fn gae(reward: &Tensor, value: &Tensor, mask: &Tensor, gamma: f64, lambda: f64) -> Result<Gae> {
    let name = "advantage::gae";
    let (rewards, values, mask_cells) =
        (rows(name, "reward", reward, mask)?, rows(name, "value", value, mask)?, Cells::of(mask.data())?);
    let (rewards, values, held) = (rewards.read(), values.read(), mask_cells.read());
    let (rewards, values, masks) = (rewards.numbers(), values.numbers(), held.numbers());
    let advantages = by_rows(mask, |start, row| {
        let (mut next_value, mut trace) = (0.0, 0.0);
        for t in (0..row.len()).rev().filter(|t| masks.at(start + t) != 0.0) {
            let (r, v) = (rewards.at(start + t), values.at(start + t));
            trace = r + gamma * next_value - v + gamma * lambda * trace;
            next_value = v;
            row[t] = trace;
        }
    });
    let returns = make(mask.len(), |start, strip, _: &mut [_; 0]| {
        for (i, cell) in strip.iter_mut().enumerate() {
            let at = start + i;
            *cell = if masks.at(at) == 0.0 { 0.0 } else { advantages[at] + values.at(at) };
        }
    });
    let make = |cells| like(&[reward, value], mask, cells);
    Ok(Gae { ret: make(returns)?, advantage: make(advantages)? })
}

/// The discounted sum of this and all later masked rewards of the row, `[B,T]`, 0 outside the mask.
pub fn to_go(reward: &Tensor, mask: &Tensor, gamma: f64) -> Result<Tensor> {
    let (rewards, mask_cells) = (rows("advantage::to_go", "reward", reward, mask)?, Cells::of(mask.data())?);
    let (rewards, held) = (rewards.read(), mask_cells.read());
    let (rewards, masks) = (rewards.numbers(), held.numbers());
    let cells = by_rows(mask, |start, row| {
        let mut sum = 0.0;
        for t in (0..row.len()).rev().filter(|t| masks.at(start + t) != 0.0) {
            sum = rewards.at(start + t) + gamma * sum;
            row[t] = sum;
        }
    });
    like(&[reward], mask, cells)
}

/// As many cells as `mask` has, row by row: `fill(first cell, row)` gets the row cleared.
fn by_rows(mask: &Tensor, fill: impl Fn(usize, &mut [f64]) + Sync) -> Vec<f64> {
    let width = mask.dims()[1];
    let rows = (BLOCK / width.max(1)).max(1);
    make_chunks(mask.len(), rows * width, mask.len(), |chunk, cells: &mut [f64]| {
        for (i, row) in cells.chunks_mut(width).enumerate() {
            fill((chunk * rows + i) * width, row);
        }
    })
}

fn like(inputs: &[&Tensor], mask: &Tensor, cells: Vec<f64>) -> Result<Tensor> {
    let tokens = mask.is_tokens() || inputs.iter().any(|t| t.is_tokens());
    Ok(Tensor::from_host(cells, mask.dims(), common_dtype(inputs), mask.device())?.with_tokens(tokens))
}

/// The cells of `x`, of the mask's shape and finite wherever the mask selects.
fn rows(name: &str, argument: &str, x: &Tensor, mask: &Tensor) -> Result<Cells> {
    mask.matrix(name)?;
    if x.dims() != mask.dims() {
        let (found, expected) = (shape::show(x.dims()), shape::show(mask.dims()));
        let hint = "a reward per row goes onto its last token with at_last(reward, mask)";
        return Err(Error::shape(format!("`{name}`: {argument} has shape {found}, the mask {expected}")).hint(hint));
    }
    let (cells, masks) = (Cells::of(x.data())?, Cells::of(mask.data())?);
    if let Some(i) = first_not_finite(cells.read().numbers(), masks.read().numbers()) {
        let (value, width) = (cells.read().numbers().at(i), mask.dims()[1]);
        return Err(not_finite(name, argument, value, format!("row {}, token {}", i / width, i % width)));
    }
    Ok(cells)
}

/// The first cell under the mask that is not finite.
fn first_not_finite(x: Numbers, mask: Numbers) -> Option<usize> {
    let of_block = |start: usize| {
        let end = x.len().min(start + BLOCK);
        (start..end).find(|&i| mask.at(i) != 0.0 && !x.at(i).is_finite())
    };
    if x.len() <= BLOCK {
        return of_block(0);
    }
    (0..x.len().div_ceil(BLOCK)).into_par_iter().map(|block| of_block(block * BLOCK)).find_first(Option::is_some)?
}

fn by_group(name: &str, reward: &Tensor, n: usize, f: impl Fn(&[f64]) -> Vec<f64>) -> Result<Tensor> {
    let found = shape::show(reward.dims());
    let &[rows, 1] = reward.dims() else {
        return Err(Error::shape(format!("`{name}` takes one reward per row, shape [B,1], found {found}")));
    };
    if n < 2 {
        return Err(Error::value(format!("`{name}` compares answers within a group: n must be at least 2, found {n}"))
            .hint("sample several answers per prompt: sample(policy, prompts, #{ n: 8 })"));
    }
    if rows % n != 0 {
        return Err(Error::shape(format!("`{name}`: {rows} rows do not divide into groups of {n}"))
            .hint("n is the number of answers per prompt, as in sample's option n"));
    }
    let rewards = reward.to_vec()?;
    if let Some(i) = rewards.iter().position(|r| !r.is_finite()) {
        return Err(not_finite(name, "reward", rewards[i], format!("row {i}")));
    }
    let cells = rewards.chunks(n).flat_map(f).collect();
    Tensor::from_host(cells, reward.dims(), reward.dtype(), reward.device())
}

/// Distances from the mean; exactly 0 where all are equal, because they are taken relative to the first.
fn centre(r: &[f64]) -> Vec<f64> {
    let mean = r.iter().map(|x| x - r[0]).sum::<f64>() / r.len() as f64;
    r.iter().map(|x| x - r[0] - mean).collect()
}

fn not_finite(name: &str, argument: &str, value: f64, place: String) -> Error {
    Error::new(Kind::NotFinite, format!("`{name}`: {argument} is {value} in {place}"))
        .hint("a score must be a number for every answer; use 0 or a penalty where it is undefined")
}
