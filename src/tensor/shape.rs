//! Shape rules: which shapes an elementwise operation accepts, and how cells of a result map to cells of its inputs.
//!
//! Nothing is guessed: a shape is stretched only along its ones, and only `[]` and `[1]` change their rank.

use crate::error::{Error, Result};

/// Ranks above this are refused.
pub const MAX_RANK: usize = 3;

/// `[8, 32]` as `[8,32]`.
pub fn show(dims: &[usize]) -> String {
    let parts: Vec<String> = dims.iter().map(ToString::to_string).collect();
    format!("[{}]", parts.join(","))
}

/// The common shape of `shapes`, or an error that names both shapes that disagree.
pub fn broadcast(what: &str, shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let mut out: Vec<usize> = Vec::new();
    for dims in shapes {
        out = pair(&out, dims).ok_or_else(|| mismatch(what, &out, dims))?;
    }
    Ok(out)
}

fn pair(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    if is_number(b) && a.len() >= b.len() {
        return Some(a.to_vec());
    }
    if is_number(a) && b.len() >= a.len() {
        return (b.len() <= MAX_RANK).then(|| b.to_vec());
    }
    if a.len() != b.len() {
        return None;
    }
    a.iter().zip(b).map(|(&m, &n)| if m == n || n == 1 { Some(m) } else { (m == 1).then_some(n) }).collect()
}

fn is_number(dims: &[usize]) -> bool {
    matches!(dims, [] | [1])
}

fn mismatch(what: &str, a: &[usize], b: &[usize]) -> Error {
    let error = Error::shape(format!("`{what}` cannot combine shapes {} and {}", show(a), show(b)));
    let (low, high) = if a.len() < b.len() { (a, b) } else { (b, a) };
    match (low, high) {
        ([n], [rows, _]) if n == rows => {
            error.hint(format!("a per-row value has shape [{n},1]: use x.reshape([-1, 1])"))
        }
        ([n], [_, columns]) if n == columns => {
            error.hint(format!("a value per column has shape [1,{n}]: use x.reshape([1, -1])"))
        }
        _ => error.hint("shapes [], [B,1], [1,T] and [B,T] combine with each other; B and T must agree"),
    }
}

/// Dimensions filled up with leading ones to rank 3.
pub(crate) fn padded(dims: &[usize]) -> [usize; MAX_RANK] {
    let mut out = [1; MAX_RANK];
    out[MAX_RANK - dims.len()..].copy_from_slice(dims);
    out
}

/// Steps through a row-major input of shape `dims` while walking `out`; 0 where the input is stretched.
pub(crate) fn strides(dims: &[usize], out: &[usize; MAX_RANK]) -> [usize; MAX_RANK] {
    let dims = padded(dims);
    let full = [dims[1] * dims[2], dims[2], 1];
    std::array::from_fn(|i| if dims[i] == 1 && out[i] != 1 { 0 } else { full[i] })
}

/// An axis counted from the front, or from the back if negative.
pub fn axis(what: &str, dims: &[usize], axis: i64) -> Result<usize> {
    let rank = dims.len() as i64;
    let at = if axis < 0 { axis + rank } else { axis };
    if (0..rank).contains(&at) {
        return Ok(at as usize);
    }
    Err(Error::shape(format!("`{what}`: axis {axis} of a tensor of shape {}", show(dims)))
        .hint(format!("it has {rank} axes, counted from 0")))
}

/// A position along an axis of `len` cells, counted from the front, or from the back if negative.
pub fn position(what: &str, len: usize, index: i64) -> Result<usize> {
    let at = if index < 0 { index + len as i64 } else { index };
    if (0..len as i64).contains(&at) {
        return Ok(at as usize);
    }
    Err(Error::value(format!("{what}: index {index} is out of range for length {len}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combine(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
        let (there, back) = (broadcast("+", &[a, b]).ok(), broadcast("+", &[b, a]).ok());
        assert_eq!(there, back, "{a:?} {b:?}");
        there
    }

    #[test]
    fn shapes_of_a_batch_combine() {
        let all: [&[usize]; 6] = [&[], &[1], &[1, 1], &[4, 1], &[1, 5], &[4, 5]];
        for a in all {
            assert_eq!(combine(a, &[4, 5]), Some(vec![4, 5]));
            assert_eq!(combine(a, a), Some(a.to_vec()));
            assert_eq!(combine(a, &[]), Some(a.to_vec()));
        }
        assert_eq!(combine(&[4, 1], &[1, 5]), Some(vec![4, 5]));
        assert_eq!(combine(&[1], &[7]), Some(vec![7]));
        assert_eq!(combine(&[2, 1, 5], &[2, 4, 1]), Some(vec![2, 4, 5]));
    }

    #[test]
    fn what_needs_guessing_is_refused() {
        for (a, b) in [
            (&[4][..], &[4, 5][..]),
            (&[5], &[4, 5]),
            (&[4], &[4, 1]),
            (&[4, 5], &[5, 4]),
            (&[4], &[1, 1]),
            (&[4, 5], &[2, 4, 5]),
        ] {
            assert_eq!(combine(a, b), None);
        }
        let error = broadcast("*", &[&[4], &[4, 5]]).unwrap_err();
        assert_eq!(error.what, "`*` cannot combine shapes [4] and [4,5]");
        assert_eq!(error.hint.as_deref(), Some("a per-row value has shape [4,1]: use x.reshape([-1, 1])"));
    }

    #[test]
    fn axes_and_positions_count_from_both_ends() {
        assert_eq!(axis("sum", &[2, 3], -1).unwrap(), 1);
        assert!(axis("sum", &[2, 3], 2).is_err());
        assert_eq!(position("x[i]", 5, -5).unwrap(), 0);
        assert!(position("x[i]", 5, 5).is_err());
    }
}
