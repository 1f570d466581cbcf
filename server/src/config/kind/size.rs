//! Sizes as settings.

use std::fmt;

use super::{Kind, Raw, quoted};

/// A number of bytes: `64MiB`, `1.5GiB`, `500kB`, or a bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// The number as a length in memory.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit = unit.trim();
    let factor = match unit {
        "" => 1,
        unit => {
            BYTE_UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))?
                .1
        }
    };
    let number = number.replace('_', "");
    match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(factor),
        Some(_) => {
            let bytes = number.parse::<f64>().ok()? * factor as f64;
            // 2^53: beyond it a float no longer names a byte.
            (bytes.fract() == 0.0 && bytes < 9_007_199_254_740_992.0).then_some(bytes as u64)
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = BYTE_UNITS[..4]
            .iter()
            .find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        match binary {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Kind for Bytes {
    const NAME: &'static str = "size";

    fn read(raw: &Raw) -> Result<Self, String> {
        let value = match raw {
            Raw::Int(int) => u64::try_from(*int).ok(),
            Raw::Text(text) => parse_bytes(text),
            Raw::Float(_) | Raw::Bool(_) | Raw::List(_) => None,
        };
        value
            .map(Self)
            .ok_or_else(|| "must be a size such as \"64MiB\" or \"500kB\"".to_owned())
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Kind for Option<Bytes> {
    const NAME: &'static str = "size or \"none\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text == "none" => Ok(None),
            raw => Bytes::read(raw)
                .map(Some)
                .map_err(|reason| format!("{reason}, or \"none\"")),
        }
    }

    fn to_toml(&self) -> String {
        self.as_ref().map_or_else(|| quoted("none"), Kind::to_toml)
    }
}
