//! Pairs of adjacent rows: rows 2k (the preferred or first one) and 2k+1.

use crate::error::{Error, Result};
use crate::tensor::{Tensor, ops, shape};

/// Rows 0, 2, 4, …
pub fn first(x: &Tensor) -> Result<Tensor> {
    every_second("pair_first", x, 0)
}

/// Rows 1, 3, 5, …
pub fn second(x: &Tensor) -> Result<Tensor> {
    every_second("pair_second", x, 1)
}

/// The first of each pair minus the second.
pub fn diff(x: &Tensor) -> Result<Tensor> {
    ops::SUB.on(&every_second("pair_diff", x, 0)?, &every_second("pair_diff", x, 1)?)
}

fn every_second(name: &str, x: &Tensor, start: usize) -> Result<Tensor> {
    let found = shape::show(x.dims());
    let rows = *x.dims().first().ok_or_else(|| Error::shape(format!("`{name}` takes rows, found shape {found}")))?;
    if rows % 2 == 1 {
        return Err(Error::shape(format!("`{name}` takes an even number of rows, found shape {found}"))
            .hint("pairs are adjacent rows: the preferred one at 2k, the other at 2k+1"));
    }
    x.select(&(start..rows).step_by(2).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Device;

    #[test]
    fn an_odd_number_of_rows_is_refused() {
        let error = diff(&Tensor::full(&[3, 1], 1.0, &Device::Cpu).unwrap()).unwrap_err();
        assert_eq!(error.what, "`pair_diff` takes an even number of rows, found shape [3,1]");
        assert!(first(&Tensor::scalar(1.0, &Device::Cpu).unwrap()).is_err());
    }
}
