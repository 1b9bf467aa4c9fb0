//! From logits to a token: temperature, top-k, top-p, min-p, greedy.
//!
//! A token's mass is the integer ⌊p·2⁴⁰⌋. Sums of integers have no order, so a draw does not depend on how the
//! vocabulary is cut over blocks, threads or devices. Filters apply in the order above to the softmax at the temperature;
//! what is reported of a token is of the full softmax, in the bits in which scoring finds it.

use crate::kernel::simd::{exp, max, simd};
use crate::kernel::softmax::{COLUMNS, Scored, of_blocks, softmax};

/// How to choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    pub temperature: f64,
    pub top_k: Option<usize>,
    pub top_p: Option<f64>,
    pub min_p: Option<f64>,
    pub greedy: bool,
}

impl Choice {
    /// Chooses among `logits` `[V]` by the uniform number `u` in [0, 1). Returns the token and what scoring finds of it.
    pub fn pick(&self, logits: &[f32], u: f64) -> (u32, Scored) {
        let scale = (1.0 / self.temperature) as f32;
        let softmax = softmax(logits, scale);
        let lse = softmax.lse;
        let token = if self.greedy {
            most_probable(logits)
        } else if self.filters() {
            self.filtered(logits, Exponent { scale, lse }, u)
        } else {
            draw(logits, Exponent { scale, lse }, u)
        };
        (token, Scored { softmax, z: logits[token as usize] * scale })
    }

    fn filters(&self) -> bool {
        self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some()
    }

    /// Draws among the kept tokens, ordered by probability; equal ones in order of their ids.
    fn filtered(&self, logits: &[f32], exponent: Exponent, u: f64) -> u32 {
        let mut p = vec![0.0; logits.len()];
        probabilities(logits, exponent, &mut p);
        let (top, (_, total)) = (max(&p), at_least(&p, 0.0));
        let mut kept = self.candidates(&p, top, total);
        if let Some(k) = self.top_k {
            let n = Ranked::first(&mut kept, |count, _| count >= k);
            kept.truncate(n);
        }
        if let Some(share) = self.top_p {
            // The smallest set that holds at least this share of what is left.
            let total = if self.top_k.is_some() { Ranked::total(&kept) } else { total };
            let n = Ranked::first(&mut kept, |_, mass| mass as f64 >= share * total as f64);
            kept.truncate(n);
        }
        if let Some(share) = self.min_p {
            kept.retain(|token| token.mass() as f64 >= share * mass_of(top) as f64);
        }
        let passed = threshold(u, Ranked::total(&kept));
        let drawn = Ranked::first(&mut kept, |_, mass| mass > passed);
        drawn.checked_sub(1).map_or(0, |i| kept[i].token())
    }

    /// Every token down to some probability, in no order: few, and yet all that the filters may keep.
    fn candidates(&self, p: &[f32], top: f32, total: u64) -> Vec<Ranked> {
        let enough = |least: f32| {
            let (count, mass) = at_least(p, least);
            match *self {
                Self { top_k: Some(k), .. } => count >= k,
                Self { top_p: Some(share), .. } => mass as f64 >= share * total as f64,
                _ => (mass_of(least) as f64) < self.min_p.unwrap_or(0.0) * mass_of(top) as f64,
            }
        };
        // Beyond 2⁻⁴⁰ nothing has any mass.
        let cuts = (1..=10).map(|i| top * 0.0625_f32.powi(i));
        let least = cuts.into_iter().find(|&least| enough(least)).unwrap_or(0.0);
        (0..).zip(p).filter(|(_, p)| **p >= least).map(|(token, p)| Ranked::new(token, *p)).collect()
    }
}

/// A token by its probability: the greater comes first, of equally probable ones that of the lower id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked(u64);

impl Ranked {
    /// The bits of numbers that are not negative are in the numbers' order.
    fn new(token: u32, p: f32) -> Self {
        Self(u64::from(p.to_bits()) << 32 | u64::from(!token))
    }

    fn token(self) -> u32 {
        !(self.0 as u32)
    }

    fn mass(self) -> u64 {
        mass_of(f32::from_bits((self.0 >> 32) as u32))
    }

    fn total(tokens: &[Self]) -> u64 {
        tokens.iter().map(|token| token.mass()).sum()
    }

    /// The least n for which `passes(n, mass of the first n)` holds, or all; moves the first n to the front, the n-th
    /// last. Once it holds it must hold for every greater n. Sorts nothing: what is looked at halves in every turn.
    fn first(tokens: &mut [Self], passes: impl Fn(usize, u64) -> bool) -> usize {
        let (mut from, mut to, mut mass) = (0, tokens.len(), 0);
        while to - from > 1 {
            let middle = (from + to) / 2;
            tokens[from..to].select_nth_unstable_by(middle - from, |a, b| b.cmp(a));
            let upto = mass + Self::total(&tokens[from..middle]);
            if passes(middle, upto) {
                to = middle;
            } else {
                (from, mass) = (middle, upto);
            }
        }
        to
    }
}

/// How a logit becomes a probability: exp(logit · scale − lse).
#[derive(Clone, Copy)]
struct Exponent {
    scale: f32,
    lse: f32,
}

impl Exponent {
    #[inline(always)]
    fn of(self, logit: f32) -> f32 {
        exp(logit * self.scale - self.lse)
    }
}

/// The first token at which the cumulated mass passes u·total.
fn draw(logits: &[f32], exponent: Exponent, u: f64) -> u32 {
    let masses = of_blocks(logits, |_, block| mass(block, exponent));
    let mut left = threshold(u, masses.iter().sum());
    let mut at = 0;
    for mass in masses {
        if mass > left {
            break;
        }
        left -= mass;
        at += COLUMNS;
    }
    // Within the block by parts of it, within the part token by token.
    for (size, outer) in [(64, COLUMNS), (1, 64)] {
        for part in logits[at.min(logits.len())..].chunks(size).take(outer / size) {
            let mass = mass(part, exponent);
            if mass > left {
                break;
            }
            left -= mass;
            at += size;
        }
    }
    // Without any mass, which only logits that are not finite are, there is no such token.
    if at < logits.len() { at as u32 } else { 0 }
}

/// ⌊u·total⌋, exactly, for u of 53 bits: what a sum of masses has to pass.
fn threshold(u: f64, total: u64) -> u64 {
    const BITS: u32 = 53;
    let u = (u * (1u64 << BITS) as f64) as u128;
    ((u * u128::from(total)) >> BITS) as u64
}

/// The most probable token, of equally probable ones the first.
fn most_probable(logits: &[f32]) -> u32 {
    let top = max(logits);
    logits.iter().position(|logit| *logit == top).unwrap_or(0) as u32
}

/// ⌊p·2⁴⁰⌋
fn mass_of(p: f32) -> u64 {
    (p * (1u64 << 40) as f32) as u64
}

/// The 20 upper and the 20 lower bits of ⌊p·2⁴⁰⌋, for 0 ≤ p ≤ 1: numbers of 32 bits, which every instruction set converts.
/// Of what is no probability, because a logit is not finite, zeros.
#[inline(always)]
fn halves(p: f32) -> [u32; 2] {
    const HALF: f32 = (1u32 << 20) as f32;
    let scaled = if (0.0..2.0).contains(&p) { p * HALF } else { 0.0 };
    // Not `as`, whose care for what no integer can hold keeps a loop from wide instructions.
    // SAFETY: numbers from 0 to 2²¹, and what their fractions come to, from 0 to 2²⁰.
    unsafe {
        let upper: i32 = scaled.to_int_unchecked();
        let lower: i32 = ((scaled - upper as f32) * HALF).to_int_unchecked();
        [upper as u32, lower as u32]
    }
}

/// Sums of halves, lane by lane: none passes 32 bits within a block.
const LANES: usize = 16;

#[inline(always)]
fn joined([upper, lower]: [[u32; LANES]; 2]) -> u64 {
    let sum = |lanes: [u32; LANES]| lanes.into_iter().map(u64::from).sum::<u64>();
    (sum(upper) << 20) + sum(lower)
}

simd! {
    /// The mass of a block of logits, or of less.
    fn mass(block: &[f32], exponent: Exponent) -> u64 {
        let mut sums = [[0u32; LANES]; 2];
        let whole = block.chunks_exact(LANES);
        let rest = whole.remainder();
        for part in whole {
            for l in 0..LANES {
                let [upper, lower] = halves(exponent.of(part[l]));
                sums[0][l] += upper;
                sums[1][l] += lower;
            }
        }
        for (l, logit) in rest.iter().enumerate() {
            let [upper, lower] = halves(exponent.of(*logit));
            sums[0][l] += upper;
            sums[1][l] += lower;
        }
        joined(sums)
    }
}

simd! {
    fn probabilities(logits: &[f32], exponent: Exponent, p: &mut [f32]) {
        logits.iter().zip(p).for_each(|(logit, p)| *p = exponent.of(*logit));
    }
}

/// How many tokens have at least this probability, and their mass.
fn at_least(p: &[f32], least: f32) -> (usize, u64) {
    of_blocks(p, |_, block| block_at_least(block, least))
        .into_iter()
        .fold((0, 0), |(n, m), (count, mass)| (n + count as usize, m + mass))
}

simd! {
    fn block_at_least(block: &[f32], least: f32) -> (u32, u64) {
        let (mut sums, mut counts) = ([[0u32; LANES]; 2], [0u32; LANES]);
        for part in block.chunks(LANES) {
            for (l, p) in part.iter().enumerate() {
                let counted = u32::from(*p >= least);
                let [upper, lower] = halves(*p);
                counts[l] += counted;
                sums[0][l] += upper * counted;
                sums[1][l] += lower * counted;
            }
        }
        (counts.into_iter().sum(), joined(sums))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::simd::forced::at_every_level;
    use crate::tensor::rng::Key;

    const PLAIN: Choice = Choice { temperature: 1.0, top_k: None, top_p: None, min_p: None, greedy: false };

    fn support(choice: Choice, logits: &[f32]) -> Vec<u32> {
        let mut seen: Vec<u32> = (0..2000).map(|i| choice.pick(logits, i as f64 / 2000.0).0).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits: Vec<f32> = [0.1f32, 0.4, 0.2, 0.3].iter().map(|p| p.ln()).collect();
        assert_eq!(support(PLAIN, &logits), [0, 1, 2, 3]);
        assert_eq!(support(Choice { top_k: Some(2), ..PLAIN }, &logits), [1, 3]);
        assert_eq!(support(Choice { top_p: Some(0.65), ..PLAIN }, &logits), [1, 3]);
        assert_eq!(support(Choice { top_p: Some(0.75), ..PLAIN }, &logits), [1, 2, 3]);
        assert_eq!(support(Choice { min_p: Some(0.6), ..PLAIN }, &logits), [1, 3]);
        assert_eq!(support(Choice { greedy: true, ..PLAIN }, &logits), [1]);
        assert_eq!(
            support(Choice { top_p: Some(1e-9), ..PLAIN }, &logits),
            [1],
            "the most probable token always stays"
        );
    }

    #[test]
    fn the_logprob_is_that_of_the_full_softmax_at_the_temperature() {
        let choice = Choice { temperature: 2.0, top_k: Some(1), ..PLAIN };
        let (token, scored) = choice.pick(&[0.0, 2.0, 1.0], 0.3);
        let exact = 1.0 - (0f64.exp() + 1f64.exp() + 0.5f64.exp()).ln();
        assert_eq!(token, 1);
        assert!((f64::from(scored.logprob()) - exact).abs() < 1e-6);
    }

    /// Logits of a spread, some of them equal.
    fn logits(n: usize, spread: f64) -> Vec<f32> {
        (0..n as u64).map(|i| (spread * (Key::new(5).normal(i) * 16.0).round() / 16.0) as f32).collect()
    }

    /// The rule as it is said, token by token: everything sorted, integers of 128 bits.
    fn plainly(choice: Choice, logits: &[f32], u: f64) -> u32 {
        let scale = (1.0 / choice.temperature) as f32;
        let lse = softmax(logits, scale).lse;
        let p: Vec<f32> = logits.iter().map(|logit| exp(logit * scale - lse)).collect();
        let mass = |token: &usize| (f64::from(p[*token]) * 2f64.powi(40)).floor() as u128;
        let mut kept: Vec<usize> = (0..p.len()).collect();
        if choice.filters() {
            kept.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
        }
        kept.truncate(choice.top_k.unwrap_or(usize::MAX));
        if let Some(share) = choice.top_p {
            let total = kept.iter().map(mass).sum::<u128>() as f64;
            let mut before = 0;
            kept.retain(|token| {
                let keep = (before as f64) < share * total;
                before += mass(token);
                keep
            });
        }
        if let Some(share) = choice.min_p {
            let least = share * mass(&kept[0]) as f64;
            kept.retain(|token| mass(token) as f64 >= least);
        }
        let (total, u) = (kept.iter().map(mass).sum::<u128>(), (u * 2f64.powi(53)) as u128);
        let mut sum = 0;
        let passes = |token: &&usize| {
            sum += mass(token);
            sum << 53 > u * total
        };
        *kept.iter().find(passes).expect("the last sum passes") as u32
    }

    #[test]
    fn every_draw_follows_the_rule_at_every_level_and_number_of_threads() {
        let filters = [
            PLAIN,
            Choice { temperature: 0.7, ..PLAIN },
            Choice { top_k: Some(1), ..PLAIN },
            Choice { top_k: Some(40), ..PLAIN },
            Choice { top_k: Some(1 << 20), ..PLAIN },
            Choice { top_p: Some(0.9), ..PLAIN },
            Choice { top_p: Some(1.0), ..PLAIN },
            Choice { min_p: Some(0.05), ..PLAIN },
            Choice { min_p: Some(0.0), ..PLAIN },
            Choice { min_p: Some(1.0), ..PLAIN },
            Choice { top_k: Some(500), top_p: Some(0.8), min_p: Some(0.01), temperature: 1.5, ..PLAIN },
        ];
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
        for (n, spread) in [(1, 1.0), (5, 2.0), (700, 0.1), (5003, 3.0), (40_000, 8.0), (40_000, 0.02)] {
            let logits = logits(n, spread);
            for (i, choice) in filters.into_iter().enumerate() {
                for u in [0.0, Key::new(6).uniform(i as u64), 1.0 - f64::EPSILON / 2.0] {
                    let expected = plainly(choice, &logits, u);
                    let mut found = at_every_level(|_| choice.pick(&logits, u).0);
                    found.push(alone.install(|| choice.pick(&logits, u).0));
                    assert!(found.iter().all(|token| *token == expected), "{n} {choice:?} {u}: {found:?}, {expected}");
                }
            }
        }
    }

    #[test]
    fn masses_are_the_integers_that_they_are_said_to_be() {
        for p in [0.0, 1.0, 0.5, 0.1, 1e-3, 3.3e-7, 2f32.powi(-40), 1.999 * 2f32.powi(-40), 0.999 * 2f32.powi(-40)] {
            let [upper, lower] = halves(p).map(u64::from);
            let exact = (f64::from(p) * 2f64.powi(40)).floor() as u64;
            assert_eq!([(upper << 20) + lower, mass_of(p)], [exact; 2], "{p}");
        }
        // A draw stays below the total, and is exact where products pass 64 bits.
        assert_eq!(threshold(1.0 - f64::EPSILON / 2.0, 1 << 40), (1 << 40) - 1);
        assert_eq!(threshold(0.5, (1 << 40) + 1), 1 << 39);
        assert_eq!(threshold(0.0, 1 << 40), 0);
    }

    #[test]
    fn logits_that_are_not_finite_end_in_no_panic() {
        let filtered = Choice { top_p: Some(0.5), ..PLAIN };
        for choice in [PLAIN, filtered, Choice { greedy: true, ..PLAIN }, Choice { top_k: Some(3), ..PLAIN }] {
            for bad in [f32::NAN, f32::INFINITY] {
                for logits in [vec![bad; 5000], [vec![0.5; 4999], vec![bad]].concat()] {
                    assert!(!choice.pick(&logits, 0.7).1.logprob().is_finite(), "{choice:?} of {bad}");
                }
            }
            let one = [vec![f32::NEG_INFINITY; 4000], vec![1.0]].concat();
            let (token, scored) = choice.pick(&one, 0.7);
            assert_eq!((token, scored.logprob()), (4000, 0.0), "{choice:?}");
        }
    }
}
