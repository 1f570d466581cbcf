//! How much retention may let go in an hour.
//!
//! A mistaken setting, such as an age of an hour in the place of a year, is then noticed while most of the data
//! are still there. What goes by what was set for long is far below the bound: of a month of data, a seven-hundredth
//! in an hour.

use std::collections::VecDeque;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// What went in the last hour, by the monotonic clock. A restart begins with nothing.
#[derive(Debug, Default)]
pub(crate) struct HourlyBound {
    gone: VecDeque<(Duration, u64)>,
}

impl HourlyBound {
    /// Whether `bytes` may go at `now`, where `left` bytes are there still and so many `percent` of an hour's beginning
    /// may go. What comes first in an hour always may: a block can be larger than that share.
    pub(crate) fn admits(&mut self, bytes: u64, left: u64, percent: u8, now: Duration) -> bool {
        let over = |at: Duration| now.saturating_sub(at) >= HOUR;
        while self.gone.front().is_some_and(|(at, _)| over(*at)) {
            self.gone.pop_front();
        }
        let gone: u64 = self.gone.iter().map(|(_, bytes)| bytes).sum();
        let most = u128::from(left + gone) * u128::from(percent) / 100;
        percent >= 100 || gone == 0 || u128::from(gone + bytes) <= most
    }

    /// Notes that `bytes` went at `now`.
    pub(crate) fn note(&mut self, bytes: u64, now: Duration) {
        self.gone.push_back((now, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets go of as many blocks of `bytes` as may go.
    fn let_go(
        bound: &mut HourlyBound,
        left: &mut u64,
        bytes: u64,
        percent: u8,
        at: Duration,
    ) -> u64 {
        let mut blocks = 0;
        while *left >= bytes && bound.admits(bytes, *left, percent, at) {
            bound.note(bytes, at);
            *left -= bytes;
            blocks += 1;
        }
        blocks
    }

    #[test]
    fn a_tenth_goes_in_an_hour_however_often_it_is_looked() {
        let (mut bound, mut left) = (HourlyBound::default(), 1000);
        let at = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(let_go(&mut bound, &mut left, 10, 10, at(0)), 10);
        assert_eq!(let_go(&mut bound, &mut left, 10, 10, at(1)), 0);
        assert_eq!(let_go(&mut bound, &mut left, 10, 10, at(59)), 0);
        // Of the 900 that the next hour begins with.
        assert_eq!(let_go(&mut bound, &mut left, 10, 10, at(60)), 9);
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
}
