//! What a setting's value may be: one trait, one implementation per type.
//!
//! **Invariant:** what [`Kind::to_toml`] writes, [`Kind::read`] reads back to the same value, so
//! the output of `millrace config` is itself a config file.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// A value as it was written, before its setting's type is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// A TOML string, or the text of an environment variable or flag.
    Text(String),
    /// A TOML integer.
    Int(i64),
    /// A TOML float.
    Float(f64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array.
    List(Vec<Raw>),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Int(int) => int.fmt(f),
            Self::Float(float) => float.fmt(f),
            Self::Bool(bool) => bool.fmt(f),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

/// The type of a setting.
pub trait Kind: Sized {
    /// What the reference page calls it.
    const NAME: &'static str;
    /// Whether the value as it was written must never be printed, not even in an error.
    /// [`to_toml`](Self::to_toml) of such a type shows nothing secret.
    const SECRET: bool = false;

    /// Takes a value as it was written.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as the end of a sentence.
    fn read(raw: &Raw) -> Result<Self, String>;

    /// The value as TOML.
    fn to_toml(&self) -> String;
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn text(raw: &Raw, example: &str) -> Result<String, String> {
    match raw {
        Raw::Text(text) => Ok(text.clone()),
        Raw::Int(_) | Raw::Float(_) | Raw::Bool(_) | Raw::List(_) => {
            Err(format!("must be a text such as {example:?}"))
        }
    }
}

impl Kind for bool {
    const NAME: &'static str = "true or false";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Bool(value) => Ok(*value),
            Raw::Text(text) if text == "true" => Ok(true),
            Raw::Text(text) if text == "false" => Ok(false),
            Raw::Text(_) | Raw::Int(_) | Raw::Float(_) | Raw::List(_) => {
                Err("must be true or false".to_owned())
            }
        }
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_number {
    ($($ty:ty),*) => {$(
        impl Kind for $ty {
            const NAME: &'static str = "whole number";

            fn read(raw: &Raw) -> Result<Self, String> {
                let value = match raw {
                    Raw::Int(int) => Self::try_from(*int).ok(),
                    Raw::Text(text) => text.replace('_', "").parse().ok(),
                    Raw::Float(_) | Raw::Bool(_) | Raw::List(_) => None,
                };
                value.ok_or_else(|| format!("must be a whole number from 0 to {}", Self::MAX))
            }

            fn to_toml(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
whole_number!(u32, u64, usize);

impl Kind for Option<PathBuf> {
    const NAME: &'static str = "path or \"none\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text == "none" => Ok(None),
            raw => PathBuf::read(raw).map(Some),
        }
    }

    fn to_toml(&self) -> String {
        self.as_ref().map_or_else(|| quoted("none"), Kind::to_toml)
    }
}

impl Kind for SocketAddr {
    const NAME: &'static str = "address:port";

    fn read(raw: &Raw) -> Result<Self, String> {
        const EXAMPLE: &str = "127.0.0.1:9009";
        let text = text(raw, EXAMPLE)?;
        // The one name that everybody tries, and that needs no resolver.
        let address = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text,
        };
        address
            .parse()
            .map_err(|_| format!("must be an IP address and a port such as {EXAMPLE:?}"))
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Kind for Option<SocketAddr> {
    const NAME: &'static str = "address:port or \"none\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text == "none" => Ok(None),
            raw => SocketAddr::read(raw).map(Some),
        }
    }

    fn to_toml(&self) -> String {
        self.as_ref().map_or_else(|| quoted("none"), Kind::to_toml)
    }
}

impl Kind for PathBuf {
    const NAME: &'static str = "path";

    fn read(raw: &Raw) -> Result<Self, String> {
        let text = text(raw, "./data")?;
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        Ok(text.into())
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Kind for Vec<String> {
    const NAME: &'static str = "list of texts";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::List(items) => items.iter().map(|item| text(item, "device")).collect(),
            Raw::Text(text) => Ok(text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect()),
            Raw::Int(_) | Raw::Float(_) | Raw::Bool(_) => {
                Err("must be a list such as [\"instance\", \"device\"]".to_owned())
            }
        }
    }

    fn to_toml(&self) -> String {
        let items: Vec<String> = self.iter().map(|item| quoted(item)).collect();
        format!("[{}]", items.join(", "))
    }
}

/// Which log events are written: a level, or levels by part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(pub String);

impl Kind for LogFilter {
    const NAME: &'static str = "log filter";

    fn read(raw: &Raw) -> Result<Self, String> {
        let text = text(raw, "info")?;
        tracing_subscriber::EnvFilter::builder()
            .parse(&text)
            .map_err(|_| {
                "must be error, warn, info, debug or trace, or a list such as \
                 \"info,millrace_store=debug\""
                    .to_owned()
            })?;
        Ok(Self(text))
    }

    fn to_toml(&self) -> String {
        quoted(&self.0)
    }
}

/// A number from 1 on, or what the machine suggests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoCount(pub Option<NonZeroUsize>);

impl AutoCount {
    /// The number, where `auto` is `suggested`.
    #[must_use]
    pub fn or(self, suggested: usize) -> usize {
        self.0.map_or(suggested, NonZeroUsize::get)
    }
}

impl Kind for AutoCount {
    const NAME: &'static str = "whole number or \"auto\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text == "auto" => Ok(Self(None)),
            raw => usize::read(raw)
                .ok()
                .and_then(NonZeroUsize::new)
                .map(|count| Self(Some(count)))
                .ok_or_else(|| "must be a whole number from 1 on, or \"auto\"".to_owned()),
        }
    }

    fn to_toml(&self) -> String {
        self.0
            .map_or_else(|| quoted("auto"), |count| count.to_string())
    }
}

impl Kind for String {
    const NAME: &'static str = "text";

    fn read(raw: &Raw) -> Result<Self, String> {
        text(raw, "_")
    }

    fn to_toml(&self) -> String {
        quoted(self)
    }
}

impl Kind for Option<String> {
    const NAME: &'static str = "text or \"none\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        Ok(Some(text(raw, "db")?).filter(|text| text != "none"))
    }

    fn to_toml(&self) -> String {
        quoted(self.as_deref().unwrap_or("none"))
    }
}

/// When the write-ahead log is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSyncSetting {
    /// After every write.
    Always,
    /// Only where it must be.
    Never,
    /// After this time.
    Interval(Duration),
}

impl Kind for WalSyncSetting {
    const NAME: &'static str = "duration, \"always\" or \"none\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text == "always" => Ok(Self::Always),
            Raw::Text(text) if text == "none" => Ok(Self::Never),
            raw => Duration::read(raw)
                .map(Self::Interval)
                .map_err(|reason| format!("{reason}, or \"always\" or \"none\"")),
        }
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Always => quoted("always"),
            Self::Never => quoted("none"),
            Self::Interval(interval) => interval.to_toml(),
        }
    }
}

/// A closed set of words as a setting.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident = $list:literal { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl Kind for $name {
            const NAME: &'static str = $list;

            fn read(raw: &Raw) -> Result<Self, String> {
                match raw {
                    $(Raw::Text(text) if text == $word => Ok(Self::$variant),)+
                    _ => Err(concat!("must be ", $list).to_owned()),
                }
            }

            fn to_toml(&self) -> String {
                quoted(match self { $(Self::$variant => $word),+ })
            }
        }
    };
}

words! {
    /// How a log event is written.
    LogFormat = "\"text\" or \"json\"" {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// What becomes of string fields of line protocol.
    StringFieldsSetting = "\"skip\" or \"reject\"" {
        /// Passed over and counted.
        Skip = "skip",
        /// Their line is refused.
        Reject = "reject",
    }
}

words! {
    /// How names of OTLP become names of Prometheus; its words.
    TranslationStrategySetting = "the name of a translation strategy" {
        /// Other characters become `_`, unit and type a suffix.
        UnderscoreEscapingWithSuffixes = "UnderscoreEscapingWithSuffixes",
        /// Other characters become `_`.
        UnderscoreEscapingWithoutSuffixes = "UnderscoreEscapingWithoutSuffixes",
        /// Unit and type become a suffix.
        NoUtf8EscapingWithSuffixes = "NoUTF8EscapingWithSuffixes",
        /// Names stay as they are.
        NoTranslation = "NoTranslation",
    }
}

words! {
    /// What becomes of delta temporality in OTLP.
    DeltaSetting = "\"accumulate\", \"store\" or \"refuse\"" {
        /// Stored as it is, and added up by queries.
        Accumulate = "accumulate",
        /// Stored as it is.
        Store = "store",
        /// Refused by name.
        Refuse = "refuse",
    }
}
mod duration;
mod fleet;
mod kafka;
mod secret;
mod size;
mod tenants;

pub use fleet::{Advertise, Roles};
pub use kafka::{DurabilitySetting, QueueBackend, SecurityProtocol};
pub use secret::{Properties, Secret};
pub use size::Bytes;
pub use tenants::RateLimitedSetting;

#[cfg(test)]
mod tests;
