//! Timestamps: units, texts, bounds.
//!
//! All are truncated to whole milliseconds towards the past (`-1 ns` is in the millisecond −1).

use millrace_model::TimestampMs;

use crate::IngestError;
use crate::number::parse_i64;
use crate::report::excerpt;

/// The unit of a timestamp that is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Nanoseconds.
    Nanos,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
    /// Whatever the number's size suggests, as InfluxDB 3 guesses it; whole numbers only.
    Auto,
}

impl Precision {
    /// The unit that `?precision=` names.
    ///
    /// # Errors
    ///
    /// [`IngestError::BadParameter`] for a word that names none.
    pub fn parse(text: &str) -> Result<Self, IngestError> {
        Ok(match text {
            "n" | "ns" => Self::Nanos,
            "u" | "us" | "µ" | "µs" => Self::Micros,
            "ms" => Self::Millis,
            "s" => Self::Seconds,
            "m" => Self::Minutes,
            "h" => Self::Hours,
            other => {
                return Err(IngestError::BadParameter {
                    name: "precision",
                    got: excerpt(other.as_bytes()),
                    expected: "one of ns, us, ms, s, m, h",
                });
            }
        })
    }

    /// The unit that `?precision=` of InfluxDB 3 names.
    ///
    /// # Errors
    ///
    /// [`IngestError::BadParameter`] for a word that names none.
    pub fn parse_v3(text: &str) -> Result<Self, IngestError> {
        Ok(match text {
            "auto" => Self::Auto,
            "nanosecond" | "ns" | "n" => Self::Nanos,
            "microsecond" | "us" | "u" => Self::Micros,
            "millisecond" | "ms" => Self::Millis,
            "second" | "s" => Self::Seconds,
            other => {
                return Err(IngestError::BadParameter {
                    name: "precision",
                    got: excerpt(other.as_bytes()),
                    expected: "one of auto, nanosecond, microsecond, millisecond, second",
                });
            }
        })
    }

    /// The unit in which a number of this size is a moment of our time.
    fn guess(count: i64) -> Self {
        match count.unsigned_abs() {
            ..5_000_000_000 => Self::Seconds,
            5_000_000_000..5_000_000_000_000 => Self::Millis,
            5_000_000_000_000..5_000_000_000_000_000 => Self::Micros,
            _ => Self::Nanos,
        }
    }

    /// `count` of this unit since the epoch; `None` beyond what milliseconds in 64 bits hold.
    #[inline]
    pub(crate) fn to_ms(self, count: i64) -> Option<TimestampMs> {
        Some(TimestampMs(match self {
            Self::Nanos => count.div_euclid(1_000_000),
            Self::Micros => count.div_euclid(1_000),
            Self::Millis => count,
            Self::Seconds => count.checked_mul(1_000)?,
            Self::Minutes => count.checked_mul(60_000)?,
            Self::Hours => count.checked_mul(3_600_000)?,
            Self::Auto => return Self::guess(count).to_ms(count),
        }))
    }

    fn nanos(self) -> Option<i128> {
        Some(match self {
            Self::Nanos => 1,
            Self::Micros => 1_000,
            Self::Millis => 1_000_000,
            Self::Seconds => 1_000_000_000,
            Self::Minutes => 60_000_000_000,
            Self::Hours => 3_600_000_000_000,
            Self::Auto => return None,
        })
    }

    /// The moment of a JSON number with fraction or exponent, computed on its decimal digits, so
    /// that `1795233600.123` seconds are exactly 1795233600123 ms. `text` is a JSON number.
    pub(crate) fn decimal_to_ms(self, text: &[u8]) -> Option<TimestampMs> {
        let (number, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(at) => (&text[..at], parse_i64(&text[at + 1..])?),
            None => (text, 0),
        };
        let (whole, fraction) = match number.iter().position(|b| *b == b'.') {
            Some(at) => (&number[..at], &number[at + 1..]),
            None => (number, &number[..0]),
        };
        let negative = whole.first() == Some(&b'-');
        let mut mantissa = 0i128;
        for digit in whole.iter().chain(fraction).filter(|b| **b != b'-') {
            mantissa = mantissa
                .checked_mul(10)?
                .checked_add(i128::from(digit - b'0'))?;
        }
        if negative {
            mantissa = -mantissa;
        }
        let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        let power = |n: i64| 10i128.checked_pow(u32::try_from(n).ok()?);
        let ms = if exponent >= 0 {
            mantissa
                .checked_mul(power(exponent)?)?
                .checked_mul(self.nanos()?)?
                .div_euclid(1_000_000)
        } else {
            let divisor = power(exponent.checked_neg()?)?.checked_mul(1_000_000)?;
            mantissa.checked_mul(self.nanos()?)?.div_euclid(divisor)
        };
        i64::try_from(ms).ok().map(TimestampMs)
    }
}

/// The moment that an RFC 3339 text names, e.g. `2026-11-21T12:00:00.5+01:00`.
pub(crate) fn parse_rfc3339(text: &str) -> Option<TimestampMs> {
    let moment = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    Some(TimestampMs(moment.timestamp_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finer_units_are_truncated_towards_the_past() {
        let ms = |p: Precision, n| p.to_ms(n).map(|t| t.0);
        assert_eq!(ms(Precision::Nanos, 1_999_999), Some(1));
        assert_eq!(ms(Precision::Nanos, -1), Some(-1));
        assert_eq!(ms(Precision::Micros, 1_999), Some(1));
        assert_eq!(ms(Precision::Millis, i64::MIN), Some(i64::MIN));
        assert_eq!(ms(Precision::Hours, 1), Some(3_600_000));
        assert_eq!(ms(Precision::Seconds, i64::MAX), None);
    }

    #[test]
    fn every_unit_has_its_words() {
        for (words, unit) in [
            (&["n", "ns"][..], Precision::Nanos),
            (&["u", "us", "µ"], Precision::Micros),
            (&["ms"], Precision::Millis),
            (&["s"], Precision::Seconds),
            (&["m"], Precision::Minutes),
            (&["h"], Precision::Hours),
        ] {
            for word in words {
                assert_eq!(Precision::parse(word).unwrap(), unit);
            }
        }
        let error = Precision::parse("fortnight").unwrap_err();
        assert!(error.to_string().contains("fortnight"), "{error}");
    }

    #[test]
    fn auto_guesses_by_size() {
        for (count, ms) in [
            (4_999_999_999, 4_999_999_999_000),
            (5_000_000_000, 5_000_000_000),
            (4_999_999_999_999, 4_999_999_999_999),
            (5_000_000_000_000, 5_000_000_000),
            (4_999_999_999_999_999, 4_999_999_999_999),
            (5_000_000_000_000_000, 5_000_000_000),
            (-1, -1000),
        ] {
            assert_eq!(
                Precision::Auto.to_ms(count).map(|t| t.0),
                Some(ms),
                "{count}"
            );
        }
        assert_eq!(Precision::parse_v3("auto").unwrap(), Precision::Auto);
        assert!(Precision::parse_v3("hour").is_err());
    }

    #[test]
    fn decimals_are_exact() {
        for (text, unit, ms) in [
            (
                "1795233600.123",
                Precision::Seconds,
                Some(1_795_233_600_123),
            ),
            (
                "1795233600.1239",
                Precision::Seconds,
                Some(1_795_233_600_123),
            ),
            ("-0.0001", Precision::Seconds, Some(-1)),
            ("1.5e3", Precision::Millis, Some(1_500)),
            ("1.7952336e12", Precision::Millis, Some(1_795_233_600_000)),
            ("15e-1", Precision::Millis, Some(1)),
            ("1e400", Precision::Millis, None),
            ("1e-400", Precision::Millis, None),
            ("1e99999999999999999999", Precision::Millis, None),
        ] {
            assert_eq!(
                unit.decimal_to_ms(text.as_bytes()).map(|t| t.0),
                ms,
                "{text}"
            );
        }
    }

    #[test]
    fn rfc3339_with_offsets_and_fractions() {
        for (text, ms) in [
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("1970-01-01T01:00:00.5004+01:00", Some(500)),
            ("1969-12-31T23:59:59.9999Z", Some(-1)),
            ("1970-01-01", None),
            ("yesterday", None),
        ] {
            assert_eq!(parse_rfc3339(text).map(|t| t.0), ms, "{text}");
        }
    }
}
