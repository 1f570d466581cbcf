//! Times and durations as clients write them, without the drift that a detour over `f64` brings:
//! `1435781451.781` is exactly that many milliseconds.

use chrono::DateTime;
use millrace_model::{TimestampMs, parse_duration_ms};

/// How client libraries in Go write "from the beginning" and "to the end": years that RFC 3339
/// does not know. Their moments in ms.
const FIRST_TIME: (&str, i64) = ("-292273086-05-16T16:47:06Z", -9_223_309_901_257_974_000);
const LAST_TIME: (&str, i64) = (
    "292277025-08-18T07:12:54.999999999Z",
    9_223_309_901_257_974_999,
);

/// Seconds, possibly with a fraction or an exponent, or RFC 3339. A fraction of a millisecond is
/// rounded in the first form and cut off in the second, as in Prometheus.
pub(super) fn timestamp(text: &str) -> Option<TimestampMs> {
    if let Some(decimal) = Decimal::parse(text) {
        return decimal.scaled(3, Round::Nearest).map(TimestampMs);
    }
    if let Some(seconds) = float(text) {
        return whole((seconds * 1e3).round()).map(TimestampMs);
    }
    for (name, ms) in [FIRST_TIME, LAST_TIME] {
        if text == name {
            return Some(TimestampMs(ms));
        }
    }
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    Some(TimestampMs(time.timestamp_millis()))
}

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DurationError {
    #[error("cannot parse {0:?} to a valid duration")]
    Syntax(String),
    #[error("cannot parse {0:?} to a valid duration. It overflows int64")]
    Overflow(String),
}

/// Seconds, or `1h30m` with units falling from `y` to `ms`, each at most once. In nanoseconds;
/// finer is cut off.
pub(super) fn duration_ns(text: &str) -> Result<i64, DurationError> {
    let overflow = || DurationError::Overflow(text.to_owned());
    if let Some(decimal) = Decimal::parse(text) {
        return decimal.scaled(9, Round::Down).ok_or_else(overflow);
    }
    if let Some(seconds) = float(text) {
        return whole((seconds * 1e9).trunc()).ok_or_else(overflow);
    }
    let ms = parse_duration_ms(text).and_then(|ms| i64::try_from(ms).ok());
    ms.and_then(|ms| ms.checked_mul(1_000_000))
        .ok_or_else(|| DurationError::Syntax(text.to_owned()))
}

/// What `f64` reads and is finite; not the words for infinity that it reads as well.
fn float(text: &str) -> Option<f64> {
    let seconds: f64 = text.parse().ok()?;
    seconds.is_finite().then_some(seconds)
}

fn whole(value: f64) -> Option<i64> {
    // The bounds are powers of two and so exact.
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    (-BOUND..BOUND).contains(&value).then_some(value as i64)
}

/// A number written as digits with at most one point, no exponent.
struct Decimal<'a> {
    negative: bool,
    integer: &'a str,
    fraction: &'a str,
}

#[derive(Clone, Copy)]
enum Round {
    /// Halves away from zero.
    Nearest,
    /// Towards zero.
    Down,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        let some = !integer.is_empty() || !fraction.is_empty();
        (some && all_digits(integer) && all_digits(fraction)).then_some(Self {
            negative,
            integer,
            fraction,
        })
    }

    /// The number times ten to the power of `places`, as a whole number.
    fn scaled(&self, places: usize, round: Round) -> Option<i64> {
        let digit = |b: u8| i128::from(b - b'0');
        let mut value: i128 = 0;
        for b in self.integer.bytes() {
            value = value.checked_mul(10)?.checked_add(digit(b))?;
        }
        let mut fraction = self.fraction.bytes();
        for _ in 0..places {
            let next = fraction.next().map_or(0, digit);
            value = value.checked_mul(10)?.checked_add(next)?;
        }
        if let Round::Nearest = round {
            value += i128::from(fraction.next().is_some_and(|b| b >= b'5'));
        }
        i64::try_from(if self.negative { -value } else { value }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_to_the_millisecond() {
        let cases = [
            ("0", 0),
            ("4", 4_000),
            ("1435781451.781", 1_435_781_451_781),
            ("1435781451.7815", 1_435_781_451_782),
            ("-1.0005", -1_001),
            ("+.5", 500),
            ("5.", 5_000),
            ("1e3", 1_000_000),
            ("1.5e-3", 2),
            // What Grafana sends to query_exemplars: milliseconds where seconds belong.
            ("1790000000000", 1_790_000_000_000_000),
            ("2015-07-01T20:10:51.781Z", 1_435_781_451_781),
            ("2015-07-01T22:10:51.7819+02:00", 1_435_781_451_781),
            ("1969-12-31T23:59:59.999Z", -1),
            (FIRST_TIME.0, FIRST_TIME.1),
            (LAST_TIME.0, LAST_TIME.1),
        ];
        for (text, ms) in cases {
            assert_eq!(timestamp(text), Some(TimestampMs(ms)), "{text}");
        }
        for text in [
            "",
            ".",
            "-",
            "x",
            "1x",
            "NaN",
            "inf",
            "1e400",
            "99999999999999999999",
            "1.2.3",
            "2015-07-01",
            "1 ",
        ] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn durations_come_as_seconds_or_with_units() {
        let cases = [
            ("0", 0),
            ("15", 15_000_000_000),
            ("0.29", 290_000_000),
            ("0.0015", 1_500_000),
            ("-1", -1_000_000_000),
            ("1e-3", 1_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1y2w3d4h5m6s7ms", 33_019_506_007_000_000),
            ("7ms", 7_000_000),
        ];
        for (text, ns) in cases {
            assert_eq!(duration_ns(text), Ok(ns), "{text}");
        }
        for text in [
            "",
            "x",
            "1m1h",
            "1h1h",
            "h",
            "1.5h",
            "1 h",
            "-1h",
            "99999999999y",
            "NaN",
        ] {
            assert_eq!(
                duration_ns(text),
                Err(DurationError::Syntax(text.to_owned())),
                "{text}"
            );
        }
        for text in ["1e20", "99999999999"] {
            assert_eq!(
                duration_ns(text),
                Err(DurationError::Overflow(text.to_owned())),
                "{text}"
            );
        }
    }
}
