//! Functions that the compiler can vectorise: `exp`, `ln`, the normal distribution, sums and maxima in a fixed order.
//!
//! Owns no operation: each kernel writes its inner loop once, inside `simd!`, and the widest instruction set of
//! the machine runs it (`tensor::simd`). Lane-wise sums have a fixed order, so a row's result never depends on its
//! neighbours.

#[cfg(test)]
pub(crate) use crate::tensor::simd::forced;
pub(crate) use crate::tensor::simd::simd;
pub use crate::tensor::simd::{Level, level};

/// e^x to about 1 ulp: range reduction by powers of two, then a degree-6 polynomial. 0 below −87.3; NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5·2²³: adding it rounds to an integer in the low mantissa bits
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.7);
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN2_LO, n.mul_add(-LN2_HI, clamped));
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    let scale = f32::from_bits(
        ((shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32).wrapping_add(127) << 23) as u32,
    );
    if x < -87.3 { 0.0 } else { y * scale }
}

/// ln x to about 1 ulp, for numbers above 0 that are no subnormals: the exponent, and a polynomial of the mantissa around 1
/// (Moshier's Cephes). Exactly 0 at 1; NaN stays NaN.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    const ROOT_HALF: u32 = 0x3f35_04f3;
    let bits = x.to_bits().wrapping_sub(ROOT_HALF);
    let exponent = ((bits as i32) >> 23) as f32;
    let m = f32::from_bits((bits & 0x007f_ffff) + ROOT_HALF) - 1.0;
    let terms = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let square = m * m;
    let y = exponent.mul_add(-2.121_944_4e-4, polynomial(m, terms) * m * square);
    let y = (-0.5_f32).mul_add(square, y) + m;
    let y = exponent.mul_add(0.693_359_4, y);
    if x.is_nan() { x } else { y }
}

/// tanh x to about 2 ulp: an odd polynomial near 0 (Moshier's Cephes), where 1 − e^(−2|x|) would cancel, then that.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let (t, square) = (x.abs(), x * x);
    let near = [-5.704_988_7e-3, 2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1];
    let small = (polynomial(square, near) * square).mul_add(x, x);
    let e = exp(-2.0 * t);
    let large = ((1.0 - e) / (1.0 + e)).copysign(x);
    if t < 0.625 { small } else { large }
}

/// Σ cᵢ·x^(n−i): the highest power's coefficient first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    coefficients.into_iter().fold(0.0, |sum, c| sum.mul_add(x, c))
}

/// The normal distribution: Φ(x) and its density, both to a few ulp, the lower tail included.
///
/// Near 0 Φ − ½ is an odd polynomial. Beyond 1 the tail is e^(−x²/2) times a polynomial in s = 1/(1 + 0.4·|x|); both
/// polynomials were fitted for the least relative error (7e-10 on |x| < 1, 8e-8 on 1 ≤ |x| < 13.3, where the tail ends).
#[inline(always)]
pub fn normal(x: f32) -> (f32, f32) {
    const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
    let t = if x.abs() < 14.0 { x.abs() } else { 14.0 };
    let square = t * t;
    let rounding = t.mul_add(t, -square); // of the square: at the end of the tail it would cost 40 ulp
    let e = exp(-0.5 * square);
    let e = (-0.5 * e).mul_add(rounding, e);
    let near = [-7.654_199e-6, 1.134_863_5e-4, -1.186_329_9e-3, 9.973_323e-3, -6.649_036e-2, 0.398_942_3];
    let far = [6.812_136_6e-2, -0.186_427_98, 0.105_363_145, 5.554_057_3e-2, 0.139_002_31, 0.159_1, 0.159_595_79];
    let s = 1.0 / 0.4_f32.mul_add(t, 1.0);
    let tail = e * (s * polynomial(s, far));
    let middle = x.mul_add(polynomial(square, near), 0.5);
    let outer = if x < 0.0 { tail } else { 1.0 - tail };
    (if t < 1.0 { middle } else { outer }, e * FRAC_1_SQRT_2PI)
}

/// Lanes of a fixed-order sum: wide enough for one AVX-512 register of f32.
const LANES: usize = 16;

/// Σ f(xᵢ) in a fixed order: lanes of 16, then the lanes in pairs.
#[inline(always)]
pub fn sum_by(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let [sum] = sums_by(n, |i| [f(i)]);
    sum
}

/// Several sums at once, each in the order of `sum_by`.
#[inline(always)]
pub fn sums_by<const N: usize>(n: usize, f: impl Fn(usize) -> [f32; N]) -> [f32; N] {
    let mut lanes = [[0.0f32; LANES]; N];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        // A loop that computes and one that adds: in one the compiler leaves the lanes in memory, and goes one by one.
        let mut terms = [[0.0f32; LANES]; N];
        for l in 0..LANES {
            // SAFETY: whole lanes end at n at the latest. Where `f` reads a slice of n numbers, nothing is left to check.
            unsafe { std::hint::assert_unchecked(i + l < n) };
            let x = f(i + l);
            terms.iter_mut().zip(x).for_each(|(terms, x)| terms[l] = x);
        }
        for (lanes, terms) in lanes.iter_mut().zip(&terms) {
            lanes.iter_mut().zip(terms).for_each(|(lane, x)| *lane += x);
        }
        i += LANES;
    }
    for l in 0..n - whole {
        let x = f(whole + l);
        for (lanes, x) in lanes.iter_mut().zip(x) {
            lanes[l] += x;
        }
    }
    lanes.map(|mut lanes| {
        let mut width = LANES / 2;
        while width > 0 {
            for l in 0..width {
                lanes[l] += lanes[l + width];
            }
            width /= 2;
        }
        lanes[0]
    })
}

/// The largest of `x` (NaN is passed over), −∞ where empty.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::forced::at_every_level;
    use super::*;

    simd! {
        fn exp_all(x: &mut [f32]) {
            for v in x.iter_mut() {
                *v = exp(*v);
            }
        }
    }

    #[test]
    fn exp_is_within_two_ulp() {
        at_every_level(|_| exp_is_close());
    }

    fn exp_is_close() {
        let xs: Vec<f32> = (-8700..=8800).map(|i| i as f32 * 0.01 + 0.0037).filter(|x| *x < 88.6).collect();
        let mut ys = xs.clone();
        exp_all(&mut ys);
        for (x, y) in xs.iter().zip(&ys) {
            let exact = f64::from(*x).exp();
            assert!((f64::from(*y) / exact - 1.0).abs() < 2.5e-7, "exp({x}) = {y}, not {exact}");
        }
        let mut edge = [f32::NEG_INFINITY, -200.0, 0.0, f32::NAN];
        exp_all(&mut edge);
        assert_eq!(edge[..3], [0.0, 0.0, 1.0]);
        assert!(edge[3].is_nan());
    }

    /// Q(x) = 1 − Φ(x) for x ≥ 0, to about 1e-15: a series near 0, a continued fraction in the tail.
    fn upper_tail(x: f64) -> f64 {
        let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        if x > 4.0 {
            return density / (1..200).rev().fold(x, |below, k| x + f64::from(k) / below);
        }
        let terms = (1..200).scan(x, |term, k| {
            *term *= x * x / f64::from(2 * k + 1);
            Some(*term)
        });
        0.5 - density * (x + terms.sum::<f64>())
    }

    simd! {
        fn normal_all(x: &[f32], y: &mut [(f32, f32)]) {
            x.iter().zip(y).for_each(|(x, y)| *y = normal(*x));
        }
    }

    #[test]
    fn the_normal_distribution_is_within_a_few_ulp() {
        at_every_level(|_| normal_is_close());
    }

    fn normal_is_close() {
        let tail = (-130..=130).map(|i| i as f32 * 0.1 + 0.0037);
        let middle = (-4500..=4500).map(|i| i as f32 * 1e-3 + 0.000_31);
        let xs: Vec<f32> = tail.chain(middle).chain([0.0, 1.0, -1.0, 1e-20]).collect();
        let mut ys = vec![(0.0, 0.0); xs.len()];
        normal_all(&xs, &mut ys);
        for (x, (below, density)) in xs.iter().zip(&ys).map(|(x, y)| (f64::from(*x), *y)) {
            let tail = upper_tail(x.abs());
            let exact = if x < 0.0 { tail } else { 1.0 - tail };
            let gap = (f64::from(below) - exact).abs();
            assert!(gap < 6e-7 * exact && gap < 1.2e-7, "normal({x}) = {below}, not {exact}");
            let exact = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
            assert!((f64::from(density) / exact - 1.0).abs() < 3e-7, "density at {x}: {density}, not {exact}");
        }
        let mut edge = [(0.0, 0.0); 3];
        normal_all(&[f32::NEG_INFINITY, f32::INFINITY, 1e30], &mut edge);
        assert_eq!(edge, [(0.0, 0.0), (1.0, 0.0), (1.0, 0.0)]);
    }

    simd! {
        fn tanh_all(x: &mut [f32]) {
            for v in x.iter_mut() {
                *v = tanh(*v);
            }
        }
    }

    #[test]
    fn tanh_is_within_a_few_ulp() {
        at_every_level(|_| tanh_is_close());
    }

    fn tanh_is_close() {
        let xs: Vec<f32> = (-9000..=9000).map(|i| i as f32 * 1e-3 + 0.000_31).chain([1e-20, -1e-7, 0.625]).collect();
        let mut ys = xs.clone();
        tanh_all(&mut ys);
        for (x, y) in xs.iter().zip(&ys) {
            let exact = f64::from(*x).tanh();
            assert!((f64::from(*y) / exact - 1.0).abs() < 3e-7, "tanh({x}) = {y}, not {exact}");
        }
        let mut edge = [f32::NEG_INFINITY, f32::INFINITY, 0.0, f32::NAN];
        tanh_all(&mut edge);
        assert_eq!(edge[..3], [-1.0, 1.0, 0.0]);
        assert!(edge[3].is_nan());
    }

    simd! {
        fn ln_all(x: &[f32], y: &mut [f32]) {
            x.iter().zip(y).for_each(|(x, y)| *y = ln(*x));
        }
    }

    #[test]
    fn ln_is_within_two_ulp() {
        let xs: Vec<f32> =
            (-1250..=1270).map(|i| 2f32.powf(i as f32 * 0.1 + 0.0037)).chain([1.0, 0.9999, 1.0001]).collect();
        for ys in at_every_level(|_| {
            let mut ys = xs.clone();
            ln_all(&xs, &mut ys);
            ys
        }) {
            for (x, y) in xs.iter().zip(&ys) {
                let exact = f64::from(*x).ln();
                assert!((f64::from(*y) - exact).abs() <= 2.5e-7 * exact.abs(), "ln({x}) = {y}, not {exact}");
            }
        }
        let mut edge = [0.0; 2];
        ln_all(&[1.0, f32::NAN], &mut edge);
        assert!(edge[0] == 0.0 && edge[1].is_nan());
    }

    #[test]
    fn sums_and_maxima_cover_every_element() {
        for n in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum_by(n, |i| x[i]), (0..n).sum::<usize>() as f32);
            assert_eq!(max(&x), if n == 0 { f32::NEG_INFINITY } else { n as f32 - 1.0 });
        }
    }
}
