//! Whose data it is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a tenant: 1 to [`TenantId::MAX_BYTES`] characters out of `A-Z a-z 0-9 _ - .`,
/// not beginning with a dot. So it can stand in a path, a header and a log line as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// Long enough for a UUID with a prefix, short enough for a directory name.
    pub const MAX_BYTES: usize = 128;

    /// The tenant of everything that names none.
    #[must_use]
    pub fn anonymous() -> Self {
        Self(Arc::from("anonymous"))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tenant name that breaks the rules of [`TenantId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "tenant {name:?}: must be 1 to {max} characters of A-Z a-z 0-9 _ - . and not begin with a dot",
    max = TenantId::MAX_BYTES
)]
pub struct TenantError {
    /// The refused name.
    pub name: String,
}

impl FromStr for TenantId {
    type Err = TenantError;

    fn from_str(name: &str) -> Result<Self, TenantError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let ok = (1..=Self::MAX_BYTES).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(legal);
        if ok {
            Ok(Self(Arc::from(name)))
        } else {
            Err(TenantError {
                name: name.to_owned(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_safe_in_paths_pass() {
        for good in ["a", "team-7.prod_x", &"x".repeat(128)] {
            assert!(good.parse::<TenantId>().is_ok(), "{good}");
        }
        for bad in ["", ".hidden", "..", "a/b", "ä", "a b", &"x".repeat(129)] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad}");
        }
    }
}
