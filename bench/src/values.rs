//! How the value of a series moves, from a seed, so that every run sends the same numbers.

/// A small, quick generator of pseudo-random numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Any seed will do.
    pub fn new(seed: u64) -> Self {
        // The state must not be 0; the odd constant spreads small seeds.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of `0..count`.
    pub fn below(&mut self, count: usize) -> usize {
        (self.unit() * count as f64) as usize
    }

    /// About normally distributed around 0 with deviation 1 (the sum of twelve uniform ones).
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// The shape of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// A random walk between two bounds, cut to an integer when it is read, as TSBS does.
    IntegerWalk {
        /// Lowest value.
        low: f64,
        /// Highest value.
        high: f64,
    },
    /// A random walk, read with so many decimals.
    DecimalWalk {
        /// Lowest value.
        low: f64,
        /// Highest value.
        high: f64,
        /// Standard deviation of a step.
        step: f64,
        /// Digits behind the point.
        decimals: i32,
    },
    /// Grows by an integer of about this mean.
    Counter {
        /// Mean growth.
        per_step: f64,
    },
    /// Grows by an integer within a twentieth of this mean, so that buckets of a histogram keep their
    /// order.
    Steady {
        /// Mean growth.
        per_step: f64,
    },
    /// Grows by hundredths, as CPU seconds do.
    Seconds {
        /// Mean growth.
        per_step: f64,
    },
    /// Never changes.
    Constant,
}

/// A series that moves.
#[derive(Clone, Debug)]
pub struct Source {
    shape: Shape,
    state: f64,
}

impl Source {
    /// A series somewhere in its range.
    pub fn new(shape: Shape, random: &mut Random) -> Self {
        let state = match shape {
            Shape::IntegerWalk { low, high } | Shape::DecimalWalk { low, high, .. } => {
                low + random.unit() * (high - low)
            }
            Shape::Counter { per_step } => (random.unit() * per_step * 10_000.0).floor(),
            Shape::Steady { per_step } => per_step * 1000.0,
            Shape::Seconds { per_step } => random.unit() * per_step * 10_000.0,
            Shape::Constant => (random.unit() * 16.0).floor() * 1024.0,
        };
        Self { shape, state }
    }

    /// Whether its values are integers.
    pub fn is_integer(&self) -> bool {
        match self.shape {
            Shape::IntegerWalk { .. }
            | Shape::Counter { .. }
            | Shape::Steady { .. }
            | Shape::Constant => true,
            Shape::DecimalWalk { .. } | Shape::Seconds { .. } => false,
        }
    }

    /// The next value.
    pub fn next(&mut self, random: &mut Random) -> f64 {
        match self.shape {
            Shape::IntegerWalk { low, high } => {
                self.state = (self.state + random.normal()).clamp(low, high);
                self.state.trunc()
            }
            Shape::DecimalWalk {
                low,
                high,
                step,
                decimals,
            } => {
                self.state = (self.state + random.normal() * step).clamp(low, high);
                let scale = 10f64.powi(decimals);
                (self.state * scale).round() / scale
            }
            Shape::Counter { per_step } => {
                self.state += (random.unit() * 2.0 * per_step).floor();
                self.state
            }
            Shape::Steady { per_step } => {
                self.state += (per_step * (0.95 + random.unit() * 0.1)).round();
                self.state
            }
            Shape::Seconds { per_step } => {
                self.state += random.unit() * 2.0 * per_step;
                (self.state * 100.0).round() / 100.0
            }
            Shape::Constant => self.state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_to_their_shape() {
        let mut random = Random::new(1);
        let (low, high) = (0.0, 100.0);
        let mut walk = Source::new(Shape::IntegerWalk { low, high }, &mut random);
        let mut counter = Source::new(Shape::Counter { per_step: 5.0 }, &mut random);
        let mut before = 0.0;
        for _ in 0..1000 {
            let value = walk.next(&mut random);
            assert!((low..=high).contains(&value) && value.fract() == 0.0);
            let value = counter.next(&mut random);
            assert!(value >= before && value.fract() == 0.0);
            before = value;
        }
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let run = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random.bits()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
