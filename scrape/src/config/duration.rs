//! Durations as Prometheus writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use millrace_model::parse_duration_ms;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration as `scrape_interval` has it: `15s`, `1m30s`, `500ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PromDuration(pub(crate) Duration);

/// From large to small, and whether a text uses the unit only if nothing is left below it.
const UNITS: [(&str, u64, bool); 7] = [
    ("y", 365 * 86_400_000, true),
    ("w", 7 * 86_400_000, true),
    ("d", 86_400_000, false),
    ("h", 3_600_000, false),
    ("m", 60_000, false),
    ("s", 1_000, false),
    ("ms", 1, false),
];

impl PromDuration {
    pub(crate) const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub(crate) fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl FromStr for PromDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ms = match text {
            "0" => Some(0),
            text => parse_duration_ms(text),
        };
        let ms = ms.ok_or_else(|| format!("not a valid duration string: {text:?}"))?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

impl fmt::Display for PromDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if ms == 0 {
            return f.write_str("0s");
        }
        for (unit, factor, only_exact) in UNITS {
            if only_exact && !ms.is_multiple_of(factor) {
                continue;
            }
            if ms >= factor {
                write!(f, "{}{unit}", ms / factor)?;
                ms %= factor;
            }
        }
        Ok(())
    }
}

impl Serialize for PromDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PromDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_prometheus_does() {
        for (text, ms, shown) in [
            ("0", 0, "0s"),
            ("15s", 15_000, "15s"),
            ("1m30s", 90_000, "1m30s"),
            ("90s", 90_000, "1m30s"),
            ("500ms", 500, "500ms"),
            ("1y", 31_536_000_000, "1y"),
            ("8d", 691_200_000, "8d"),
            ("2w", 1_209_600_000, "2w"),
            ("1h0m", 3_600_000, "1h"),
        ] {
            let read: PromDuration = text.parse().unwrap();
            assert_eq!(read.0, Duration::from_millis(ms), "{text}");
            assert_eq!(read.to_string(), shown, "{text}");
        }
        for text in [
            "",
            "1",
            "s",
            "1s1m",
            "1.5s",
            "-1s",
            "1x",
            "1s1s",
            "99999999999999999999s",
        ] {
            assert!(text.parse::<PromDuration>().is_err(), "{text}");
        }
    }
}
