//! The tokens that hold now, and what they say to a request.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use millrace_log::fs::Fs;
use millrace_model::{TenantId, TimestampMs};
use parking_lot::{Mutex, RwLock};

use crate::file::{MAX_FILE_BYTES, TokensFile, decode};
use crate::{AuthError, ForTenant, Scopes, Secret, Token, TokenId, TokenState};

/// Who a request is from.
#[derive(Clone, Debug)]
pub struct Identity {
    /// By which token.
    pub token: TokenId,
    /// The token's name.
    pub name: String,
    /// Whose data it is for.
    pub tenant: ForTenant,
    /// What it may do.
    pub scopes: Scopes,
    /// Labels that everything it writes gets, and everything it reads has.
    pub labels: Vec<(String, String)>,
}

impl Identity {
    /// The tenant of a request that comes with this header `X-Scope-OrgID`, if it is trusted.
    ///
    /// # Errors
    ///
    /// What is wrong, for a client: a token for any tenant needs that header.
    pub fn tenant(&self, header: Option<&str>, trusted: bool) -> Result<TenantId, String> {
        match (&self.tenant, header) {
            (ForTenant::One(tenant), Some(named)) if trusted && named != tenant.as_str() => {
                Err("X-Scope-OrgID names another tenant than the token".to_owned())
            }
            (ForTenant::One(tenant), _) => Ok(tenant.clone()),
            (ForTenant::Header, Some(named)) if trusted => {
                let tenant = named.parse::<TenantId>();
                tenant.map_err(|error| format!("X-Scope-OrgID: {error}"))
            }
            (ForTenant::Header, _) if !trusted => Err(
                "the token is for the tenant of X-Scope-OrgID, which auth.trust_tenant_header \
                 does not trust"
                    .to_owned(),
            ),
            (ForTenant::Header, _) => Err("X-Scope-OrgID must name the tenant".to_owned()),
        }
    }
}

/// Why a token is not taken. Clients are told no more than that it is not; logs and metrics say why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is no such token, or its secret is another one.
    Unknown,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl Denied {
    /// Its word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

type Tokens = HashMap<TokenId, Arc<Known>>;

#[derive(Debug)]
struct Known {
    token: Token,
    identity: Arc<Identity>,
}

/// The tokens of a file, read again when the file changes.
#[derive(Debug)]
pub struct TokenBook {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    tokens: RwLock<Arc<Tokens>>,
    /// The file as it was read last; `None` if it was not there.
    seen: Mutex<Option<Vec<u8>>>,
}

impl TokenBook {
    /// Opens the file. One that is not there yet holds no tokens.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or holds something else.
    pub fn open(fs: Arc<dyn Fs>, path: PathBuf) -> Result<Self, AuthError> {
        let book = Self {
            fs,
            path,
            tokens: RwLock::default(),
            seen: Mutex::default(),
        };
        let seen = book.read()?;
        if let Some(bytes) = &seen {
            book.take(bytes)?;
        }
        *book.seen.lock() = seen;
        Ok(book)
    }

    /// How many tokens there are, whatever their state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.read().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the file again if it has changed, and says whether it had.
    ///
    /// # Errors
    ///
    /// A file that is gone, cannot be read or holds something else. The old tokens stay in force.
    pub fn reload(&self) -> Result<bool, AuthError> {
        let mut seen = self.seen.lock();
        let now = self.read()?;
        if *seen == now {
            return Ok(false);
        }
        let Some(bytes) = now else {
            let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(AuthError::file(&self.path, gone));
        };
        self.take(&bytes)?;
        *seen = Some(bytes);
        Ok(true)
    }

    fn read(&self) -> Result<Option<Vec<u8>>, AuthError> {
        match millrace_log::fs::read_all(&*self.fs, &self.path, MAX_FILE_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(AuthError::file(&self.path, error)),
        }
    }

    fn take(&self, bytes: &[u8]) -> Result<(), AuthError> {
        let tokens = decode(bytes).map_err(|reason| AuthError::content(&self.path, reason))?;
        let known = |token: Token| {
            let identity = Arc::new(Identity {
                token: token.id.clone(),
                name: token.name.clone(),
                tenant: token.tenant.clone(),
                scopes: token.scopes.clone(),
                labels: token.labels.clone(),
            });
            (token.id.clone(), Arc::new(Known { token, identity }))
        };
        *self.tokens.write() = Arc::new(tokens.into_iter().map(known).collect());
        Ok(())
    }

    /// Who shows this token.
    ///
    /// # Errors
    ///
    /// Why it is not taken.
    pub fn check(&self, secret: &Secret, now: TimestampMs) -> Result<Arc<Identity>, Denied> {
        let known = self.tokens.read().get(secret.id()).cloned();
        let hash = secret.hash();
        // The id is no secret, so how long it takes to see that there is none gives nothing away.
        let known = known.filter(|known| known.token.hash.matches(&hash));
        let known = known.ok_or(Denied::Unknown)?;
        match known.token.state(now) {
            TokenState::Valid => Ok(known.identity.clone()),
            TokenState::Expired => Err(Denied::Expired),
            TokenState::Revoked => Err(Denied::Revoked),
        }
    }

    /// The file, for changes.
    #[must_use]
    pub fn file(&self) -> TokensFile {
        TokensFile::new(self.fs.clone(), self.path.clone())
    }
}

#[cfg(test)]
mod tests;
