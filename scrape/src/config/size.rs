//! Sizes as Prometheus writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes: `10MB`, `512KiB`. Units are powers of 1024, whichever way they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

const UNITS: [(&str, u32); 11] = [
    ("B", 0),
    ("KB", 10),
    ("KiB", 10),
    ("MB", 20),
    ("MiB", 20),
    ("GB", 30),
    ("GiB", 30),
    ("TB", 40),
    ("TiB", 40),
    ("PB", 50),
    ("PiB", 50),
];

impl Size {
    pub(crate) fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("not a valid size such as 10MB: {text:?}");
        if text == "0" {
            return Ok(Self(0));
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(bad)?
            .1;
        let number: u64 = number.parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |shift: &u32| self.0.is_multiple_of(1 << shift);
        let units = [
            (50, "PB"),
            (40, "TB"),
            (30, "GB"),
            (20, "MB"),
            (10, "KB"),
            (0, "B"),
        ];
        match units.iter().find(|(shift, _)| self.0 > 0 && exact(shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => f.write_str("0B"),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes, shown) in [
            ("0", 0, "0B"),
            ("0B", 0, "0B"),
            ("10MB", 10 << 20, "10MB"),
            ("512KiB", 512 << 10, "512KB"),
            ("100B", 100, "100B"),
        ] {
            let read: Size = text.parse().unwrap();
            assert_eq!(
                (read.0, read.to_string().as_str()),
                (bytes, shown),
                "{text}"
            );
        }
        for text in ["", "10", "MB", "-1B", "1XB", "99999999PB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
