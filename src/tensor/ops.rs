//! The catalogue of elementwise operations: value and derivative of each, at one cell.
//!
//! Owns no loops (those are in `elementwise`). Choices at kinks follow PyTorch: `min`, `max` share a tie in halves,
//! `clip` passes the gradient at its bounds, `abs` and `relu` have derivative 0 at 0. A branch that was not
//! taken gets exactly 0, whatever stands in it.

use crate::tensor::Op;
use crate::tensor::elementwise::op;

pub static NEG: Op<1> = op!(1, "-", |[x]| -x, |g, _, _| [-g]);
pub static EXP: Op<1> = op!(1, "exp", |[x]| x.exp(), |g, _, y| [g * y]);
pub static LOG: Op<1> = op!(1, "log", |[x]| x.ln(), |g, [x], _| [g / x]);
pub static LOG1P: Op<1> = op!(1, "log1p", |[x]| x.ln_1p(), |g, [x], _| [g / (1.0 + x)]);
pub static SQRT: Op<1> = op!(1, "sqrt", |[x]| x.sqrt(), |g, _, y| [0.5 * g / y]);
pub static SQUARE: Op<1> = op!(1, "square", |[x]| x * x, |g, [x], _| [2.0 * g * x]);
pub static ABS: Op<1> = op!(1, "abs", |[x]| x.abs(), |g, [x], _| [times_sign(g, x)]);
pub static SIGN: Op<1> = op!(1, "sign", |[x]| if x == 0.0 { 0.0 } else { x.signum() });
pub static SIGMOID: Op<1> = op!(1, "sigmoid", |[x]| sigmoid(x), |g, [x], _| [g * sigmoid(x) * sigmoid(-x)]);
pub static LOG_SIGMOID: Op<1> = op!(1, "log_sigmoid", |[x]| -softplus(-x), |g, [x], _| [g * sigmoid(-x)]);
pub static SOFTPLUS: Op<1> = op!(1, "softplus", |[x]| softplus(x), |g, [x], _| [g * sigmoid(x)]);
pub static RELU: Op<1> =
    op!(1, "relu", |[x]| if x <= 0.0 { 0.0 } else { x }, |g, [x], _| [if x <= 0.0 { 0.0 } else { g }]);
pub static TANH: Op<1> = op!(1, "tanh", |[x]| x.tanh(), |g, [x], _| [g / (x.cosh() * x.cosh())]);

/// Every operation of one tensor that scripts call by name.
pub static UNARY: [&Op<1>; 12] =
    [&EXP, &LOG, &LOG1P, &SQRT, &SQUARE, &ABS, &SIGN, &SIGMOID, &LOG_SIGMOID, &SOFTPLUS, &RELU, &TANH];

pub static ADD: Op<2> = op!(2, "+", |[x, y]| x + y, |g, _, _| [g, g]);
pub static SUB: Op<2> = op!(2, "-", |[x, y]| x - y, |g, _, _| [g, -g]);
pub static MUL: Op<2> = op!(2, "*", |[x, y]| x * y, |g, [x, y], _| [g * y, g * x]);
pub static DIV: Op<2> = op!(2, "/", |[x, y]| x / y, |g, [x, y], _| [g / y, -g * x / (y * y)]);
/// The remainder with the sign of `x`, as Rhai's `%` on numbers.
pub static REM: Op<2> = op!(2, "%", |[x, y]| x % y, |g, [x, y], _| [g, -g * (x / y).trunc()]);
pub static POW: Op<2> = op!(2, "**", |[x, y]| x.powf(y), |g, [x, y], z| {
    let dx = if y == 0.0 { 0.0 } else { g * y * x.powf(y - 1.0) };
    let dy = if x == 0.0 && y >= 0.0 { 0.0 } else { g * z * x.ln() };
    [dx, dy]
});

/// NaN in either input is NaN, as everywhere in arithmetic.
pub static MIN: Op<2> =
    op!(2, "min", |[x, y]| if x < y || x.is_nan() { x } else { y }, |g, [x, y], _| smaller(g, x, y));
pub static MAX: Op<2> =
    op!(2, "max", |[x, y]| if x > y || x.is_nan() { x } else { y }, |g, [x, y], _| smaller(g, -x, -y));

pub static EQ: Op<2> = op!(2, "==", |[x, y]| truth(x == y));
pub static NE: Op<2> = op!(2, "!=", |[x, y]| truth(x != y));
pub static LT: Op<2> = op!(2, "<", |[x, y]| truth(x < y));
pub static LE: Op<2> = op!(2, "<=", |[x, y]| truth(x <= y));
pub static GT: Op<2> = op!(2, ">", |[x, y]| truth(x > y));
pub static GE: Op<2> = op!(2, ">=", |[x, y]| truth(x >= y));

/// Every operator of two tensors.
pub static BINARY: [&Op<2>; 6] = [&ADD, &SUB, &MUL, &DIV, &REM, &POW];
/// Every comparison; the results are 0 and 1.
pub static COMPARE: [&Op<2>; 6] = [&EQ, &NE, &LT, &LE, &GT, &GE];

/// `where(condition, a, b)`: `a` where the condition is not 0.
pub static WHERE: Op<3> = op!(3, "where", |[c, x, y]| if c != 0.0 { x } else { y }, |g, [c, _, _], _| if c != 0.0 {
    [0.0, g, 0.0]
} else {
    [0.0, 0.0, g]
});

/// `clip(x, lo, hi)`; where `lo > hi` the result is `hi`.
pub static CLIP: Op<3> = op!(
    3,
    "clip",
    |[x, lo, hi]| {
        let raised = if x < lo || lo.is_nan() { lo } else { x };
        if raised > hi || hi.is_nan() { hi } else { raised }
    },
    |g, [x, lo, hi], _| {
        if x > hi || hi < lo {
            [0.0, 0.0, g]
        } else if x < lo {
            [0.0, g, 0.0]
        } else {
            [g, 0.0, 0.0]
        }
    }
);

/// `x·m` where the mask `m` is not 0, else 0: what stands outside the mask does not count, NaN included.
pub static MASKED: Op<2> = op!(2, "mask", |[x, m]| if m == 0.0 { 0.0 } else { x * m }, |g, [_, m], _| if m == 0.0 {
    [0.0, 0.0]
} else {
    [g * m, 0.0]
});

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn times_sign(g: f64, x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { g * x.signum() }
}

fn smaller(g: f64, x: f64, y: f64) -> [f64; 2] {
    if x < y {
        [g, 0.0]
    } else if y < x {
        [0.0, g]
    } else {
        [0.5 * g, 0.5 * g]
    }
}

fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
