//! Reductions over the tokens that a mask selects. Each names its aggregation, because the choice is part of the
//! objective.
//!
//! A mask is `[B,T]`, 1 where a cell counts and 0 where it does not; holes are allowed, and values between weigh.
//! What stands in a cell outside the mask changes neither a value nor a gradient, NaN included. Masks are data: no
//! gradient flows into them.

use crate::error::{Error, Result};
use crate::tensor::arrange::{Run, rearrange};
use crate::tensor::masked::{self, Over};
use crate::tensor::{Tensor, ops, shape};

/// Σ over each row's masked cells, `[B,1]`.
pub fn seq_sum(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    sum("seq_sum", x, mask, Over::Rows)
}

/// The mean over each row's masked cells, `[B,1]`; 0 for a row without any.
pub fn seq_avg(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    row_means("seq_avg", x, mask)
}

/// The mean over all B rows of `seq_avg`, rows without masked cells included (GRPO; arXiv:2402.03300, eq. 3).
pub fn seq_mean(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    row_means("seq_mean", x, mask)?.mean(None)
}

/// Σxm/Σm over the batch (DAPO; arXiv:2503.14476, eq. 8); 0 if nothing is masked in.
pub fn token_mean(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    mean_of_cells("token_mean", x, mask)
}

/// Σxm/(B·length): a constant instead of the answers' lengths (Dr. GRPO; arXiv:2503.20783).
pub fn const_mean(x: &Tensor, mask: &Tensor, length: f64) -> Result<Tensor> {
    if !(length.is_finite() && length > 0.0) {
        return Err(Error::value(format!("`const_mean` divides by a positive length, found {length}")));
    }
    let sum = sum("const_mean", x, mask, Over::Batch)?;
    ops::DIV.on(&sum, &sum.number(mask.dims()[0] as f64 * length)?)
}

/// `(x − mean)/(std + 1e-8)` over the masked cells, biased variance; 0 outside the mask.
pub fn whiten(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let mean = mean_of_cells("whiten", x, mask)?;
    let centred = ops::SUB.on(x, &mean)?;
    let variance = mean_of_cells("whiten", &ops::SQUARE.on(&centred)?, mask)?;
    let spread = ops::ADD.on(&ops::SQRT.on(&variance)?, &variance.number(1e-8)?)?;
    ops::MASKED.on(&ops::DIV.on(&centred, &spread)?, &mask.detach())
}

/// Puts each row's number `r` (`[B,1]`) on the last masked cell of the row; 0 elsewhere. `[B,T]`.
pub fn at_last(r: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let (rows, width) = mask.matrix("at_last")?;
    if r.dims() != [rows, 1] {
        let (found, mask) = (shape::show(r.dims()), shape::show(mask.dims()));
        return Err(Error::shape(format!("`at_last` takes one value per row of the mask {mask}, found shape {found}"))
            .hint(format!("a value per row has shape [{rows},1]")));
    }
    let mut runs = Vec::with_capacity(rows);
    for (i, row) in mask.to_rows()?.iter().enumerate() {
        if let Some(last) = row.iter().rposition(|m| *m != 0.0) {
            runs.push(Run { to: i * width + last, input: 0, from: i, len: 1 });
        }
    }
    Ok(rearrange(&[r], mask.dims(), runs)?.with_tokens(mask.is_tokens()))
}

fn row_means(name: &str, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let sums = sum(name, x, mask, Over::Rows)?;
    ops::DIV.on(&sums, &nonzero(&mask.detach().sum_last()?)?)
}

fn mean_of_cells(name: &str, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let sum = sum(name, x, mask, Over::Batch)?;
    ops::DIV.on(&sum, &nonzero(&mask.detach().sum_cells()?)?)
}

/// Σ of `x` under the mask, of shape `[B,T]` to which x may be stretched.
fn sum(name: &str, x: &Tensor, mask: &Tensor, over: Over) -> Result<Tensor> {
    let (found, expected) = (shape::show(x.dims()), shape::show(mask.dims()));
    mask.matrix(name)?;
    if shape::broadcast(name, &[x.dims(), mask.dims()]).ok().as_deref() != Some(mask.dims()) {
        return Err(Error::shape(format!("`{name}`: values of shape {found} do not fit the mask of shape {expected}"))
            .hint("x is [B,T] like its mask (or [B,1], for the same value on every token)"));
    }
    let mask = mask.detach();
    if x.dims() == mask.dims() {
        return masked::sum(x, &mask, over);
    }
    let cells = ops::MASKED.on(x, &mask)?;
    match over {
        Over::Rows => cells.sum_last(),
        Over::Batch => cells.sum_cells(),
    }
}

/// Counts to divide by: an empty one becomes 1, and its sum is 0.
fn nonzero(counts: &Tensor) -> Result<Tensor> {
    ops::WHERE.on(counts, counts, &counts.number(1.0)?)
}
