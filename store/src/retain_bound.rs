//! How much retention may let go in an hour.
//!
//! A mistaken setting, such as an age of an hour in the place of a year, is then noticed while most of the data
//! are still there. What goes by what was set for long is no more than what comes meanwhile, and that may always go:
//! otherwise a store with an age of few hours, or as many bytes as it may have, would grow beyond it for ever.

use std::collections::VecDeque;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// What was there and what went in the last hour, by the monotonic clock. A restart begins with nothing.
#[derive(Debug, Default)]
pub(crate) struct HourlyBound {
    looks: VecDeque<Look>,
}

/// One time that retention looked for what has had its time.
#[derive(Debug)]
struct Look {
    at: Duration,
    /// Bytes that were there.
    there: u64,
    /// Bytes of them that it let go.
    gone: u64,
}

impl HourlyBound {
    /// Begins to look, at `now`, when so many bytes are there.
    pub(crate) fn look(&mut self, there: u64, now: Duration) {
        let over = |look: &Look| now.saturating_sub(look.at) >= HOUR;
        while self.looks.front().is_some_and(over) {
            self.looks.pop_front();
        }
        let (at, gone) = (now, 0);
        self.looks.push_back(Look { at, there, gone });
    }

    /// Whether `bytes` may go beside what has gone, where so many `percent` of what was there an hour ago may, and as
    /// much as came since. What comes first in an hour always may: a block can be larger than that.
    pub(crate) fn admits(&self, bytes: u64, percent: u8) -> bool {
        let (Some(first), Some(last)) = (self.looks.front(), self.looks.back()) else {
            return true;
        };
        let gone: u64 = self.looks.iter().map(|look| look.gone).sum();
        let before: u64 = gone - last.gone;
        let came = (last.there + before).saturating_sub(first.there);
        let most = u128::from(first.there) * u128::from(percent) / 100 + u128::from(came);
        percent >= 100 || gone == 0 || u128::from(gone + bytes) <= most
    }

    /// Notes that `bytes` went.
    pub(crate) fn note(&mut self, bytes: u64) {
        if let Some(last) = self.looks.back_mut() {
            last.gone += bytes;
        }
    }

    /// Forgets what went: somebody has asked for it.
    pub(crate) fn forget(&mut self) {
        self.looks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    /// Lets go of as many blocks of `bytes` as may go.
    fn let_go(
        bound: &mut HourlyBound,
        left: &mut u64,
        bytes: u64,
        percent: u8,
        at: Duration,
    ) -> u64 {
        let mut blocks = 0;
        bound.look(*left, at);
        while *left >= bytes && bound.admits(bytes, percent) {
            bound.note(bytes);
            *left -= bytes;
            blocks += 1;
        }
        blocks
    }

    #[test]
    fn a_tenth_goes_in_an_hour_however_often_it_is_looked() {
        let (mut bound, mut left) = (HourlyBound::default(), 1000);
        assert_eq!(let_go(&mut bound, &mut left, 10, 10, minutes(0)), 10);
        assert_eq!(let_go(&mut bound, &mut left, 10, 10, minutes(1)), 0);
        assert_eq!(let_go(&mut bound, &mut left, 10, 10, minutes(59)), 0);
        // Of the 900 that the next hour begins with.
        assert_eq!(let_go(&mut bound, &mut left, 10, 10, minutes(60)), 9);
        assert_eq!(left, 810);
    }

    #[test]
    fn one_block_goes_in_an_hour_however_large() {
        let (mut bound, mut left) = (HourlyBound::default(), 100);
        assert_eq!(let_go(&mut bound, &mut left, 40, 10, HOUR), 1);
        assert_eq!(let_go(&mut bound, &mut left, 40, 10, 2 * HOUR), 1);
    }

    #[test]
    fn a_hundred_percent_is_no_bound() {
        let (mut bound, mut left) = (HourlyBound::default(), 100);
        assert_eq!(let_go(&mut bound, &mut left, 1, 100, HOUR), 100);
    }

    #[test]
    fn what_comes_in_an_hour_may_go_in_it() {
        // Of six hours that are kept each is a sixth, in blocks of a minute.
        let (mut bound, mut left, most) = (HourlyBound::default(), 3600, 3600);
        for minute in 0..300 {
            left += 10;
            bound.look(left, minutes(minute));
            while left > most && bound.admits(10, 10) {
                bound.note(10);
                left -= 10;
            }
            assert_eq!(left, most, "minute {minute}");
        }
        // It is no more than that.
        left += 10;
        assert!(let_go(&mut bound, &mut left, 10, 10, minutes(300)) <= 37);
    }

    #[test]
    fn what_was_asked_for_does_not_count() {
        let (mut bound, mut left) = (HourlyBound::default(), 1000);
        assert_eq!(let_go(&mut bound, &mut left, 10, 100, minutes(0)), 100);
        bound.forget();
        left = 100;
        assert_eq!(let_go(&mut bound, &mut left, 1, 10, minutes(1)), 10);
    }
}
