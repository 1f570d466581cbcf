//! The file of tokens (`docs/formats/tokens.md`): JSON, written whole under another name and renamed, so that
//! whoever reads it finds the old one or the new one.
//!
//! Invariants:
//! - who changes it holds the lock beside it from reading to renaming, so no change is lost;
//! - a token that is no longer good says so for three months, and is then taken out by the next change;
//! - whatever the file holds, there is room to revoke it.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millrace_log::fs::{Fs, FsLock, create_dir_durable, publish, read_all};
use millrace_model::TimestampMs;
use serde::{Deserialize, Serialize};

use crate::secret::SecretHash;
use crate::token::check;
use crate::{AuthError, ForTenant, Scope, Scopes, Secret, Token, TokenId, TokenState};

/// Some 20,000 tokens; no more are made.
const FULL_BYTES: u64 = 8 << 20;

/// Longest file that is read. A token becomes less than twice as long by being revoked.
pub(crate) const MAX_FILE_BYTES: u64 = 2 * FULL_BYTES;

/// How long a token that is no longer good is kept.
const KEPT_GONE: Duration = Duration::from_secs(90 * 24 * 3600);

const FORMAT: &str = "millrace-tokens";
const VERSION: u32 = 1;

/// How often and how long a change waits for another one.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u32,
    tokens: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    name: String,
    tenant: String,
    scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<(String, String)>,
    created_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
    sha256: String,
}

impl From<&Token> for Entry {
    fn from(token: &Token) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name.clone(),
            tenant: token.tenant.to_string(),
            scopes: token.scopes.iter().map(ToString::to_string).collect(),
            labels: token.labels.clone(),
            created_ms: token.created.0,
            expires_ms: token.expires.map(|time| time.0),
            revoked_ms: token.revoked.map(|time| time.0),
            replaces: token.replaces.as_ref().map(ToString::to_string),
            sha256: token.hash.to_hex(),
        }
    }
}

impl TryFrom<Entry> for Token {
    type Error = AuthError;

    fn try_from(entry: Entry) -> Result<Self, AuthError> {
        let scopes = entry.scopes.iter().map(|scope| scope.parse::<Scope>());
        let scopes = scopes.collect::<Result<Scopes, _>>()?;
        check(&entry.name, &scopes, &entry.labels)?;
        let hash = SecretHash::from_hex(&entry.sha256);
        Ok(Self {
            id: entry.id.parse()?,
            name: entry.name,
            tenant: entry.tenant.parse()?,
            scopes,
            labels: entry.labels,
            created: TimestampMs(entry.created_ms),
            expires: entry.expires_ms.map(TimestampMs),
            revoked: entry.revoked_ms.map(TimestampMs),
            replaces: entry.replaces.map(|id| id.parse()).transpose()?,
            hash: hash.ok_or_else(|| {
                AuthError::Invalid("sha256 must be 64 hexadecimal digits".to_owned())
            })?,
        })
    }
}

/// Reads the bytes of a file of tokens.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Token>, String> {
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if document.format != FORMAT {
        return Err(format!(
            "no file of tokens: its format is {:?}",
            document.format
        ));
    }
    if document.version != VERSION {
        return Err(format!(
            "version {} of the format; this millrace knows {VERSION}",
            document.version
        ));
    }
    let mut tokens: Vec<Token> = Vec::with_capacity(document.tokens.len());
    let mut ids = HashSet::new();
    for entry in document.tokens {
        let id = entry.id.clone();
        let token = Token::try_from(entry).map_err(|error| format!("token {id:?}: {error}"))?;
        if !ids.insert(token.id.clone()) {
            return Err(format!("token {id:?} is there twice"));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

/// The bytes of a file of these tokens.
pub(crate) fn encode(tokens: &[Token]) -> Vec<u8> {
    let document = Document {
        format: FORMAT.to_owned(),
        version: VERSION,
        tokens: tokens.iter().map(Entry::from).collect(),
    };
    let mut bytes = serde_json::to_vec_pretty(&document).expect("texts and numbers become JSON");
    bytes.push(b'\n');
    bytes
}

/// What a new token shall be.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// For people.
    pub name: String,
    /// Whose data it is for.
    pub tenant: ForTenant,
    /// What it may do.
    pub scopes: Scopes,
    /// Labels that everything it writes gets, and everything it reads has.
    pub labels: Vec<(String, String)>,
    /// From when on it is refused.
    pub expires: Option<TimestampMs>,
}

/// A file of tokens, to be looked at and changed.
#[derive(Clone, Debug)]
pub struct TokensFile {
    fs: Arc<dyn Fs>,
    path: PathBuf,
}

impl TokensFile {
    /// The file under that name, which need not be there.
    #[must_use]
    pub fn new(fs: Arc<dyn Fs>, path: PathBuf) -> Self {
        Self { fs, path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tokens, in the order of their making.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or holds something else.
    pub fn list(&self) -> Result<Vec<Token>, AuthError> {
        match read_all(&*self.fs, &self.path, MAX_FILE_BYTES) {
            Ok(bytes) => decode(&bytes).map_err(|reason| AuthError::content(&self.path, reason)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(AuthError::file(&self.path, error)),
        }
    }

    /// Makes a token. What is returned is the only copy of its secret.
    ///
    /// # Errors
    ///
    /// A token that cannot be, or a file that cannot be written.
    pub fn create(&self, new: NewToken, now: TimestampMs) -> Result<Secret, AuthError> {
        check(&new.name, &new.scopes, &new.labels)?;
        check_life(&new, now)?;
        let secret = Secret::generate()?;
        let token = token(&secret, new, now, None);
        self.change(now, FULL_BYTES, |tokens| {
            tokens.push(token);
            Ok(())
        })?;
        Ok(secret)
    }

    /// Revokes a token; one that is revoked stays as it is.
    ///
    /// # Errors
    ///
    /// No such token, or a file that cannot be written.
    pub fn revoke(&self, id: &str, now: TimestampMs) -> Result<(), AuthError> {
        self.change(now, MAX_FILE_BYTES, |tokens| {
            let token = find(tokens, id)?;
            token.revoked.get_or_insert(now);
            Ok(())
        })
    }

    /// Makes a token that may do what the token `id` may, which then expires after `overlap`. A life that
    /// is not given is as long as the old token's was.
    ///
    /// # Errors
    ///
    /// No such token, one that is no longer good or was rotated before, or a file that cannot be written.
    pub fn rotate(
        &self,
        id: &str,
        overlap: Duration,
        life: Option<Duration>,
        now: TimestampMs,
    ) -> Result<Secret, AuthError> {
        let secret = Secret::generate()?;
        self.change(now, FULL_BYTES, |tokens| {
            let after = tokens.iter().find(|token| {
                let replaced = token.replaces.as_ref();
                replaced.is_some_and(|replaced| replaced.as_str() == id)
            });
            // Its end is no longer that of its own life.
            if let Some(after) = after {
                let text = format!("token {id} was replaced by {}; rotate that one", after.id);
                return Err(AuthError::Invalid(text));
            }
            let old = find(tokens, id)?;
            let state = old.state(now);
            if state != TokenState::Valid {
                let text = format!("token {id} is {}; create a new one", state.as_str());
                return Err(AuthError::Invalid(text));
            }
            let lived = old
                .expires
                .and_then(|end| u64::try_from(end.0.saturating_sub(old.created.0)).ok())
                .map(Duration::from_millis);
            let new = NewToken {
                name: old.name.clone(),
                tenant: old.tenant.clone(),
                scopes: old.scopes.clone(),
                labels: old.labels.clone(),
                expires: life.or(lived).map(|life| now.saturating_add(life)),
            };
            check_life(&new, now)?;
            let ends = now.saturating_add(overlap);
            old.expires = Some(old.expires.map_or(ends, |before| before.min(ends)));
            let replaces = old.id.clone();
            tokens.push(token(&secret, new, now, Some(replaces)));
            Ok(())
        })?;
        Ok(secret)
    }

    fn change(
        &self,
        now: TimestampMs,
        max_bytes: u64,
        change: impl FnOnce(&mut Vec<Token>) -> Result<(), AuthError>,
    ) -> Result<(), AuthError> {
        let failed = |error| AuthError::file(&self.path, error);
        create_dir_durable(&*self.fs, dir_of(&self.path)).map_err(failed)?;
        let _locked = lock(&*self.fs, &self.path)?;
        let mut tokens = self.list()?;
        change(&mut tokens)?;
        tokens.retain(|token| {
            let gone = [token.revoked, token.expires].into_iter().flatten().min();
            gone.is_none_or(|gone| gone >= now.saturating_sub(KEPT_GONE))
        });
        let bytes = encode(&tokens);
        if bytes.len() as u64 > max_bytes {
            let reason = format!("it is full: it would have more than {max_bytes} bytes");
            return Err(AuthError::content(&self.path, reason));
        }
        publish(&*self.fs, &self.path, &bytes).map_err(failed)
    }
}

/// The directory in which a file is.
pub(crate) fn dir_of(path: &Path) -> &Path {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    dir.unwrap_or_else(|| Path::new("."))
}

/// Locks the file beside `path` against other processes, and waits for them for a while.
pub(crate) fn lock(fs: &dyn Fs, path: &Path) -> Result<Box<dyn FsLock>, AuthError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    for _ in 0..LOCK_TRIES {
        match fs.lock(&name) {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::park_timeout(LOCK_PAUSE);
            }
            Err(error) => return Err(AuthError::file(&name, error)),
        }
    }
    Err(AuthError::Busy {
        path: path.to_owned(),
    })
}

fn check_life(new: &NewToken, now: TimestampMs) -> Result<(), AuthError> {
    match new.expires {
        Some(expires) if expires <= now => Err(AuthError::Invalid(
            "it would have expired already".to_owned(),
        )),
        Some(_) | None => Ok(()),
    }
}

fn find<'a>(tokens: &'a mut [Token], id: &str) -> Result<&'a mut Token, AuthError> {
    let found = tokens.iter_mut().find(|token| token.id.as_str() == id);
    // What is given instead of an id may be a whole token: it is not repeated.
    found.ok_or_else(|| AuthError::UnknownToken {
        id: id.chars().take(16).collect(),
    })
}

fn token(secret: &Secret, new: NewToken, now: TimestampMs, replaces: Option<TokenId>) -> Token {
    Token {
        id: secret.id().clone(),
        name: new.name,
        tenant: new.tenant,
        scopes: new.scopes,
        labels: new.labels,
        created: now,
        expires: new.expires,
        revoked: None,
        replaces,
        hash: secret.hash(),
    }
}

#[cfg(test)]
mod tests;
