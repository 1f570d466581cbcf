//! Replayable randomness.

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    /// The same seed gives the same run.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of `MILLRACE_SEED`, or one of this moment; printed, so that a failure can be
    /// replayed.
    pub fn from_environment(test: &str) -> (Self, u64) {
        let seed = std::env::var("MILLRACE_SEED")
            .ok()
            .map(|text| text.parse().expect("MILLRACE_SEED is a number"))
            .unwrap_or_else(|| super::now_ms() as u64);
        println!("{test}: MILLRACE_SEED={seed}");
        (Self(seed), seed)
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    /// Any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.between(0, i as u64) as usize);
        }
    }
}
