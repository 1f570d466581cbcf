//! Parts of dates, in the proleptic Gregorian calendar and UTC.

/// Which part of a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Minute,
    Hour,
    DayOfWeek,
    DayOfMonth,
    DayOfYear,
    DaysInMonth,
    Month,
    Year,
}

impl Part {
    pub(super) fn from_function(name: &str) -> Option<Self> {
        Some(match name {
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day_of_week" => Self::DayOfWeek,
            "day_of_month" => Self::DayOfMonth,
            "day_of_year" => Self::DayOfYear,
            "days_in_month" => Self::DaysInMonth,
            "month" => Self::Month,
            "year" => Self::Year,
            _ => return None,
        })
    }

    /// The part of the moment `seconds` after the epoch; fractions are cut. What no i64 holds, NaN
    /// too, counts as its least value, as it does for Go on amd64.
    pub(super) fn of(self, seconds: f64) -> f64 {
        let fits = seconds >= i64::MIN as f64 && seconds < i64::MAX as f64;
        let seconds = if fits { seconds as i64 } else { i64::MIN };
        // Go counts from a year so early that any i64 of seconds is later, in a u64 that wraps
        // around for the first few centuries of them.
        let absolute = (seconds as u64).wrapping_add(ABSOLUTE_SECONDS);
        let days = (absolute / 86_400) as i64 - ABSOLUTE_DAYS;
        let second = (absolute % 86_400) as i64;
        let (year, month, day) = civil(days);
        let value = match self {
            Self::Minute => second % 3_600 / 60,
            Self::Hour => second / 3_600,
            // The epoch was a Thursday.
            Self::DayOfWeek => (days + 4).rem_euclid(7),
            Self::DayOfMonth => day,
            Self::DayOfYear => days - days_from_civil(year, 1, 1) + 1,
            Self::DaysInMonth => {
                let (next_year, next) = if month == 12 {
                    (year + 1, 1)
                } else {
                    (year, month + 1)
                };
                days_from_civil(next_year, next, 1) - days_from_civil(year, month, 1)
            }
            Self::Month => month,
            Self::Year => year,
        };
        value as f64
    }
}

/// Days from the 1st of March of the year -292,277,022,400, from which Go counts, to the epoch.
const ABSOLUTE_DAYS: i64 = 292_277_022_400 / 400 * 146_097 + 719_468;

/// The same in seconds, modulo 2^64.
const ABSOLUTE_SECONDS: u64 = (ABSOLUTE_DAYS as u64).wrapping_mul(86_400);

/// Year, month, day of a day counted from the epoch. The year is taken to begin in March, so that
/// the leap day is its last: then months have lengths that repeat every 153 days.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// A moment in whole seconds, as RFC 3339 writes it.
pub(super) fn rfc3339(ms: i64) -> String {
    let seconds = ms.div_euclid(1_000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3_600,
        second % 3_600 / 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_known_moments() {
        let parts = |seconds: f64| {
            [
                Part::Year,
                Part::Month,
                Part::DayOfMonth,
                Part::Hour,
                Part::Minute,
                Part::DayOfWeek,
                Part::DayOfYear,
                Part::DaysInMonth,
            ]
            .map(|p| p.of(seconds))
        };
        assert_eq!(parts(0.0), [1970.0, 1.0, 1.0, 0.0, 0.0, 4.0, 1.0, 31.0]);
        assert_eq!(
            parts(1_136_239_445.0),
            [2006.0, 1.0, 2.0, 22.0, 4.0, 1.0, 2.0, 31.0]
        );
        assert_eq!(
            parts(951_782_400.0),
            [2000.0, 2.0, 29.0, 0.0, 0.0, 2.0, 60.0, 29.0]
        );
        assert_eq!(
            parts(-1.0),
            [1969.0, 12.0, 31.0, 23.0, 59.0, 3.0, 365.0, 31.0]
        );
        assert_eq!(rfc3339(1_136_239_445_000), "2006-01-02T22:04:05Z");
    }

    #[test]
    fn absurd_moments_are_what_go_makes_of_them() {
        for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300] {
            assert_eq!(Part::DayOfMonth.of(seconds), 4.0, "{seconds}");
            assert_eq!(Part::DayOfWeek.of(seconds), 0.0, "{seconds}");
        }
    }

    #[test]
    fn calendar_round_trips() {
        for days in (-1_000_000..1_000_000).step_by(997) {
            let (year, month, day) = civil(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
