//! Numbers as a person reads them: as few digits as tell them apart.

/// Five digits, and no zeros at the end: `0.2`, `0.00003`, `1.2346e-7`.
pub fn short(x: f64) -> String {
    let rounded: f64 = format!("{x:.4e}").parse().unwrap_or(x);
    if rounded != 0.0 && !(1e-5..1e7).contains(&rounded.abs()) { format!("{rounded:e}") } else { format!("{rounded}") }
}
