//! Samples per second.

use std::time::Duration;

use parking_lot::Mutex;

/// A rate, and how far it may be passed for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) per_second: u64,
    pub(crate) burst: u64,
}

/// A bucket of tokens, one a sample. A request is taken while there is a token, and may then leave a
/// debt, so that large requests are not starved: in any time `t` no more than `rate * t + burst` samples
/// and one request are taken.
#[derive(Debug, Default)]
pub(crate) struct Bucket(Mutex<Option<State>>);

#[derive(Clone, Copy, Debug)]
struct State {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// A rate of next to nothing shall not make clients wait for days.
    const LONGEST_WAIT: Duration = Duration::from_secs(3600);

    /// Takes `samples`, at a moment of the monotonic clock; 0 only asks.
    ///
    /// # Errors
    ///
    /// How long it takes until there is a token again.
    pub(crate) fn take(&self, rate: Rate, samples: u64, now: Duration) -> Result<(), Duration> {
        let burst = rate.burst.max(1) as f64;
        let per_second = rate.per_second as f64;
        let mut state = self.0.lock();
        let last = state.unwrap_or(State {
            tokens: burst,
            at: now,
        });
        let earned = now.saturating_sub(last.at).as_secs_f64() * per_second;
        let tokens = (last.tokens + earned).min(burst);
        let at = now.max(last.at);
        if tokens < 1.0 {
            *state = Some(State { tokens, at });
            let wait = (1.0 - tokens) / per_second;
            let longest = Self::LONGEST_WAIT.as_secs_f64();
            return Err(Duration::from_secs_f64(wait.min(longest)));
        }
        let tokens = tokens - samples as f64;
        *state = Some(State { tokens, at });
        Ok(())
    }

    /// Gives back samples that were taken. What that is over the burst is lost with the next take.
    pub(crate) fn give_back(&self, samples: u64) {
        if let Some(state) = &mut *self.0.lock() {
            state.tokens += samples as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 100,
        burst: 300,
    };

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let bucket = Bucket::default();
        for _ in 0..3 {
            bucket.take(RATE, 100, at(5.0)).unwrap();
        }
        assert_eq!(bucket.take(RATE, 0, at(5.0)), Err(at(0.01)));
        // One large request is taken on a single token, and paid for afterwards.
        bucket.take(RATE, 1000, at(5.5)).unwrap();
        let wait = bucket.take(RATE, 1, at(5.5)).unwrap_err();
        assert!((wait.as_secs_f64() - 9.51).abs() < 1e-6, "{wait:?}");
        assert!(bucket.take(RATE, 1, at(15.0)).is_err());
        bucket.take(RATE, 1, at(15.02)).unwrap();
    }

    #[test]
    fn what_is_given_back_is_there_again_but_not_beyond_the_burst() {
        let bucket = Bucket::default();
        bucket.take(RATE, 300, at(5.0)).unwrap();
        bucket.give_back(300);
        bucket.take(RATE, 300, at(5.0)).unwrap();
        bucket.give_back(1000);
        bucket.take(RATE, 300, at(5.0)).unwrap();
        assert!(bucket.take(RATE, 1, at(5.0)).is_err());
    }

    #[test]
    fn in_the_long_run_it_is_the_rate() {
        let bucket = Bucket::default();
        let mut taken = 0;
        for tick in 0..60_000 {
            let now = at(f64::from(tick) / 1000.0);
            if bucket.take(RATE, 7, now).is_ok() {
                taken += 7;
            }
        }
        let expect = 60 * 100 + 300;
        assert!((expect - 7..=expect + 7).contains(&taken), "{taken}");
    }

    #[test]
    fn a_rate_of_nothing_takes_its_burst_and_waits_long_but_not_for_ever() {
        let none = Rate {
            per_second: 0,
            burst: 1,
        };
        let bucket = Bucket::default();
        bucket.take(none, 1, at(0.0)).unwrap();
        assert_eq!(bucket.take(none, 1, at(1e6)), Err(Bucket::LONGEST_WAIT));
    }

    #[test]
    fn a_clock_that_stands_still_earns_nothing() {
        let bucket = Bucket::default();
        bucket.take(RATE, 300, at(9.0)).unwrap();
        assert!(bucket.take(RATE, 1, at(9.0)).is_err());
        assert!(bucket.take(RATE, 1, at(8.0)).is_err());
    }
}
