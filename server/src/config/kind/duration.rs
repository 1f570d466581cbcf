//! Durations as settings, in Prometheus's grammar.

use std::time::Duration;

use millrace_model::parse_duration_ms;

use super::{Kind, Raw, quoted};

fn show_duration(duration: Duration) -> String {
    let mut ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    // Weeks and years read worse than days: "30d", not "4w2d".
    for (unit, factor) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ] {
        if ms >= factor {
            text.push_str(&format!("{}{unit}", ms / factor));
            ms %= factor;
        }
    }
    text
}

const DURATION_EXAMPLE: &str = "\"30s\", \"10m\", \"1h30m\" or \"30d\"";

impl Kind for Duration {
    const NAME: &'static str = "duration";

    fn read(raw: &Raw) -> Result<Self, String> {
        let value = match raw {
            Raw::Text(text) => match text.trim() {
                "0" => Some(Duration::ZERO),
                text => parse_duration_ms(text).map(Duration::from_millis),
            },
            Raw::Int(_) | Raw::Float(_) | Raw::Bool(_) | Raw::List(_) => None,
        };
        value.ok_or_else(|| format!("must be a duration with its unit, such as {DURATION_EXAMPLE}"))
    }

    fn to_toml(&self) -> String {
        quoted(&show_duration(*self))
    }
}

impl Kind for Option<Duration> {
    const NAME: &'static str = "duration or \"none\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text == "none" => Ok(None),
            raw => Duration::read(raw)
                .map(Some)
                .map_err(|reason| format!("{reason}, or \"none\"")),
        }
    }

    fn to_toml(&self) -> String {
        self.as_ref().map_or_else(|| quoted("none"), Kind::to_toml)
    }
}

impl Kind for Vec<Duration> {
    const NAME: &'static str = "list of durations";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::List(items) => items.iter().map(Duration::read).collect(),
            Raw::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Duration::read(&Raw::Text(item.to_owned())))
                .collect(),
            Raw::Int(_) | Raw::Float(_) | Raw::Bool(_) => {
                Err("must be a list such as [\"5m\", \"1h\"]".to_owned())
            }
        }
    }

    fn to_toml(&self) -> String {
        let items: Vec<String> = self.iter().map(Kind::to_toml).collect();
        format!("[{}]", items.join(", "))
    }
}
