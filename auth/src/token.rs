//! What a token allows.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use millrace_model::{METRIC_NAME, TenantId, TimestampMs};

use crate::AuthError;
use crate::secret::{SecretHash, TokenId};

/// Something that a token may do. None of them includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Push samples of its tenant.
    Write,
    /// Query samples of its tenant.
    Read,
    /// The server's own figures and state: metrics, status, settings without secrets.
    Monitor,
    /// Everything that changes or shows the whole server, whatever tenant: deletes, dead letters,
    /// records of the queue, replays, snapshots.
    Admin,
    /// The protocol by which query processes read stores, for all tenants. For millrace itself.
    Fleet,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Write,
        Self::Read,
        Self::Monitor,
        Self::Admin,
        Self::Fleet,
    ];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Monitor => "monitor",
            Self::Admin => "admin",
            Self::Fleet => "fleet",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = AuthError;

    fn from_str(text: &str) -> Result<Self, AuthError> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| {
            AuthError::Invalid(format!(
                "no scope {text:?}; there are write, read, monitor, admin and fleet"
            ))
        })
    }
}

/// Several scopes.
pub type Scopes = BTreeSet<Scope>;

/// Whose data a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForTenant {
    /// One tenant's.
    One(TenantId),
    /// That of the header `X-Scope-OrgID`, where the configuration trusts it. For a proxy that has
    /// checked its clients itself.
    Header,
}

impl fmt::Display for ForTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(tenant) => tenant.fmt(f),
            Self::Header => f.write_str("*"),
        }
    }
}

impl FromStr for ForTenant {
    type Err = AuthError;

    fn from_str(text: &str) -> Result<Self, AuthError> {
        if text == "*" {
            return Ok(Self::Header);
        }
        let tenant = text.parse::<TenantId>();
        tenant
            .map(Self::One)
            .map_err(|error| AuthError::Invalid(error.to_string()))
    }
}

/// A token as it is kept: all but its secret.
#[derive(Clone, Debug)]
pub struct Token {
    /// Names it.
    pub id: TokenId,
    /// For people.
    pub name: String,
    /// Whose data it is for.
    pub tenant: ForTenant,
    /// What it may do.
    pub scopes: Scopes,
    /// Labels that everything it writes gets, and that everything it reads has.
    pub labels: Vec<(String, String)>,
    /// When it was made.
    pub created: TimestampMs,
    /// From when on it is refused.
    pub expires: Option<TimestampMs>,
    /// When it was revoked.
    pub revoked: Option<TimestampMs>,
    /// The token that it was made to replace.
    pub replaces: Option<TokenId>,
    /// Of its secret.
    pub hash: SecretHash,
}

/// Whether a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It is.
    Valid,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl TokenState {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl Token {
    /// Whether it is good at that time.
    #[must_use]
    pub fn state(&self, now: TimestampMs) -> TokenState {
        if self.revoked.is_some() {
            TokenState::Revoked
        } else if self.expires.is_some_and(|expires| now >= expires) {
            TokenState::Expired
        } else {
            TokenState::Valid
        }
    }
}

/// Longest name of a token.
const NAME_BYTES: usize = 128;

/// Whether a token of these parts can be.
///
/// # Errors
///
/// [`AuthError::Invalid`] with what is wrong.
pub(crate) fn check(
    name: &str,
    scopes: &Scopes,
    labels: &[(String, String)],
) -> Result<(), AuthError> {
    let invalid = |text: String| Err(AuthError::Invalid(text));
    if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
        return invalid(format!(
            "a token's name is 1 to {NAME_BYTES} bytes without control characters"
        ));
    }
    if scopes.is_empty() {
        return invalid("a token needs a scope: write, read, monitor, admin or fleet".to_owned());
    }
    let all_tenants = [Scope::Admin, Scope::Fleet];
    let whole = all_tenants.iter().find(|scope| scopes.contains(scope));
    if let (Some(scope), false) = (whole, labels.is_empty()) {
        return invalid(format!(
            "{scope} concerns all tenants, and forced labels would not bind it"
        ));
    }
    for (at, (label, value)) in labels.iter().enumerate() {
        let first = label.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let legal = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !first || !legal || label == METRIC_NAME {
            return invalid(format!(
                "{label:?} cannot be a forced label: letters, digits and _, not {METRIC_NAME}"
            ));
        }
        if value.is_empty() {
            return invalid(format!("the forced label {label:?} has no value"));
        }
        if labels[..at].iter().any(|(earlier, _)| earlier == label) {
            return invalid(format!("the forced label {label:?} comes twice"));
        }
    }
    Ok(())
}
