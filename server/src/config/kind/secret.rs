//! Values that must not be seen, and settings of librdkafka among which some must not be.

use std::fmt;

use super::{Kind, Raw, quoted, text};

/// What stands in place of a secret.
const MASK: &str = "***";

/// A text that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Option<String>);

impl Secret {
    /// The secret itself, if one was given. For its use, not for messages.
    #[must_use]
    pub fn reveal(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { MASK } else { "none" })
    }
}

impl Kind for Secret {
    const NAME: &'static str = "secret or \"none\"";
    const SECRET: bool = true;

    fn read(raw: &Raw) -> Result<Self, String> {
        match text(raw, "none")?.as_str() {
            "none" => Ok(Self(None)),
            "" => Err("must not be empty".to_owned()),
            MASK => Err(
                "stands here in place of the secret, as `millrace config` prints it; put the \
                 secret itself into a file or into the environment"
                    .to_owned(),
            ),
            secret => Ok(Self(Some(secret.to_owned()))),
        }
    }

    fn to_toml(&self) -> String {
        quoted(if self.0.is_some() { MASK } else { "none" })
    }
}

/// Settings of librdkafka that pass through: `name=value` each, none of them secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(pub Vec<(String, String)>);

/// Parts of the names of librdkafka's settings whose values are secrets, or hold some.
const SECRET_NAMES: [&str; 8] = [
    "credential",
    "jaas",
    "oauthbearer.config",
    "passphrase",
    "password",
    ".pem",
    "secret",
    "ssl_key",
];

impl Properties {
    /// Takes one `name=value` apart.
    ///
    /// # Errors
    ///
    /// What is wrong with it, without the value.
    pub fn split(item: &str) -> Result<(String, String), String> {
        let (name, value) = item
            .split_once('=')
            .ok_or_else(|| "each item must be name=value".to_owned())?;
        let name = name.trim();
        if name.is_empty() {
            return Err("each item must be name=value".to_owned());
        }
        Ok((name.to_owned(), value.trim().to_owned()))
    }
}

impl Kind for Properties {
    const NAME: &'static str = "list of name=value";
    // What was written may hold a secret that does not belong here.
    const SECRET: bool = true;

    fn read(raw: &Raw) -> Result<Self, String> {
        let mut properties = Vec::new();
        for item in Vec::<String>::read(raw)? {
            let (name, value) = Self::split(&item)?;
            if SECRET_NAMES.iter().any(|part| name.contains(part)) {
                return Err(format!(
                    "{name:?} may hold a secret, which would be seen here; put it into the file \
                     that queue.kafka.properties_file names"
                ));
            }
            properties.push((name, value));
        }
        Ok(Self(properties))
    }

    fn to_toml(&self) -> String {
        let items = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        items.collect::<Vec<_>>().to_toml()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn a_secret_is_never_printed_and_its_mask_is_none() {
        let secret = Secret::read(&raw("canary")).unwrap();
        assert_eq!(secret.reveal(), Some("canary"));
        let shown = format!("{secret:?} {}", secret.to_toml());
        assert_eq!(shown, "*** \"***\"");
        assert_eq!(Secret::read(&raw("none")).unwrap().to_toml(), "\"none\"");
        assert!(Secret::read(&raw("***")).is_err());
        assert!(Secret::read(&raw("")).is_err());
    }

    #[test]
    fn properties_are_pairs_and_secrets_are_sent_elsewhere() {
        let properties = Properties::read(&raw("client.rack=a, debug = broker")).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expect = [pair("client.rack", "a"), pair("debug", "broker")];
        assert_eq!(properties.0, expect);
        assert_eq!(
            properties.to_toml(),
            "[\"client.rack=a\", \"debug=broker\"]"
        );
        for name in [
            "sasl.password",
            "ssl.key.pem",
            "sasl.oauthbearer.client.secret",
        ] {
            let refused = Properties::read(&raw(&format!("{name}=canary"))).unwrap_err();
            assert!(
                refused.contains(name) && !refused.contains("canary"),
                "{refused}"
            );
        }
        assert!(Properties::read(&raw("canary")).is_err());
    }
}
