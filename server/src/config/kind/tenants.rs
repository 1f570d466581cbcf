//! What limits of tenants may be.

use super::{Kind, Raw, quoted};

impl Kind for Option<u64> {
    const NAME: &'static str = "whole number or \"none\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text == "none" => Ok(None),
            raw => u64::read(raw)
                .map(Some)
                .map_err(|reason| format!("{reason}, or \"none\"")),
        }
    }

    fn to_toml(&self) -> String {
        self.as_ref().map_or_else(|| quoted("none"), Kind::to_toml)
    }
}

/// The status of a request beyond its tenant's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitedSetting {
    /// 429.
    TooManyRequests,
    /// 503.
    Unavailable,
}

impl Kind for RateLimitedSetting {
    const NAME: &'static str = "429 or 503";

    fn read(raw: &Raw) -> Result<Self, String> {
        match u64::read(raw) {
            Ok(429) => Ok(Self::TooManyRequests),
            Ok(503) => Ok(Self::Unavailable),
            Ok(_) | Err(_) => Err("must be 429 or 503".to_owned()),
        }
    }

    fn to_toml(&self) -> String {
        match self {
            Self::TooManyRequests => "429",
            Self::Unavailable => "503",
        }
        .to_owned()
    }
}
