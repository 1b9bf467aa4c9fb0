//! Counter-based random numbers: every draw is a pure function of a key and a position (Philox 4x32-10,
//! Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//!
//! Owns no state: two callers with the same key and position see the same number, whatever the thread or batch.

/// A stream of random numbers, addressed by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key([u32; 2]);

impl Key {
    pub fn new(seed: u64) -> Self {
        Self([seed as u32, (seed >> 32) as u32])
    }

    /// The two words that it is, from which it can be made again.
    pub fn words(self) -> [u32; 2] {
        self.0
    }

    pub fn from_words(words: [u32; 2]) -> Self {
        Self(words)
    }

    /// The key of a sub-stream: `Key::new(seed).fold(step).fold(call)` and so on.
    pub fn fold(self, with: u64) -> Self {
        let out = philox([with as u32, (with >> 32) as u32, 0x5EED, 1], self.0);
        Self([out[0], out[1]])
    }

    /// 64 random bits.
    pub fn bits(self, position: u64) -> u64 {
        let out = philox([position as u32, (position >> 32) as u32, 0, 0], self.0);
        u64::from(out[0]) | u64::from(out[1]) << 32
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(self, position: u64) -> f64 {
        (self.bits(position) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal (Box–Muller; one draw per position).
    pub fn normal(self, position: u64) -> f64 {
        let out = philox([position as u32, (position >> 32) as u32, 1, 0], self.0);
        let unit = |a: u32, b: u32| ((u64::from(a) | u64::from(b) << 32) >> 11) as f64 / (1u64 << 53) as f64;
        let (u, v) = (1.0 - unit(out[0], out[1]), unit(out[2], out[3]));
        (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
    }

    /// Uniform in `0..n`. `n` must not be 0.
    pub fn below(self, position: u64, n: u64) -> u64 {
        ((u128::from(self.bits(position)) * u128::from(n)) >> 64) as u64
    }

    /// A random order of `0..n` (Fisher–Yates).
    pub fn permutation(self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64, i as u64 + 1) as usize);
        }
        order
    }
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn permutations_hold_every_index_once() {
        let mut order = Key::new(3).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn normals_have_unit_variance() {
        let key = Key::new(1).fold(7);
        let draws: Vec<f64> = (0..20_000).map(|i| key.normal(i)).collect();
        let mean = draws.iter().sum::<f64>() / 2e4;
        let var = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2e4;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.05, "mean {mean}, variance {var}");
    }
}
