//! Files that hold while they stand: tokens, certificates. They are looked at once a second, and when
//! somebody asks for it (`reload`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_auth::tls::TlsReload;
use millrace_auth::{AuthError, TokenBook};
use millrace_log::fs::{Fs, read_all};
use parking_lot::{Mutex, RwLock};
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

use super::metrics::EdgeMetrics;
use super::open::StoreEdge;

/// How old what is in force may be.
const INTERVAL: Duration = Duration::from_secs(1);

// Five seconds are promised (docs/security.md), on a machine that has other things to do.
const _: () = assert!(INTERVAL.as_secs() <= 2);

/// A token in a file is shorter.
const MAX_TOKEN_BYTES: u64 = 4096;

/// A file with one token that this process shows to others.
pub struct TokenFile {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    token: Arc<RwLock<Option<String>>>,
}

impl std::fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl TokenFile {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or holds no text.
    pub fn open(fs: Arc<dyn Fs>, path: PathBuf) -> Result<Self, AuthError> {
        let file = Self {
            fs,
            path,
            token: Arc::default(),
        };
        file.reload()?;
        Ok(file)
    }

    /// What stands in it, for whoever shows it.
    #[must_use]
    pub fn token(&self) -> Arc<RwLock<Option<String>>> {
        self.token.clone()
    }

    fn reload(&self) -> Result<bool, AuthError> {
        let path = self.path.clone();
        let bytes = read_all(&*self.fs, &self.path, MAX_TOKEN_BYTES);
        let bytes = bytes.map_err(|source| AuthError::File { path, source })?;
        let text = String::from_utf8(bytes)
            .ok()
            .map(|text| text.trim().to_owned());
        let text =
            text.filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()));
        let Some(text) = text else {
            return Err(AuthError::Content {
                path: self.path.clone(),
                reason: "holds no token".to_owned(),
            });
        };
        let mut token = self.token.write();
        let changed = token.as_deref() != Some(&text);
        *token = Some(text);
        Ok(changed)
    }
}

/// What is looked at.
#[derive(Debug)]
pub struct Watched {
    book: Option<Arc<TokenBook>>,
    tls: Option<Arc<TlsReload>>,
    stores: StoreEdge,
    metrics: EdgeMetrics,
    /// What was wrong with each at the last look, so that it is told once.
    wrong: Mutex<[Option<String>; 4]>,
}

impl Watched {
    /// The tokens that others show, the certificates, and how this process speaks to stores.
    #[must_use]
    pub fn new(
        book: Option<Arc<TokenBook>>,
        tls: Option<Arc<TlsReload>>,
        stores: StoreEdge,
        metrics: EdgeMetrics,
    ) -> Self {
        Self {
            book,
            tls,
            stores,
            metrics,
            wrong: Mutex::default(),
        }
    }

    /// Looks at all of them; what is wrong, in words. Blocks on the disk.
    pub fn look(&self) -> Vec<String> {
        type Look<'a> = Box<dyn Fn() -> Result<bool, AuthError> + 'a>;
        let tokens = self
            .book
            .as_ref()
            .map(|book| Box::new(move || book.reload()) as Look<'_>);
        let tls = self
            .tls
            .as_ref()
            .map(|tls| Box::new(move || tls.reload()) as Look<'_>);
        let token = self.stores.token.as_ref();
        let token = token.map(|file| Box::new(move || file.reload()) as Look<'_>);
        let fleet_tls = self.stores.tls.as_ref();
        let fleet_tls = fleet_tls.map(|tls| Box::new(move || tls.reload()) as Look<'_>);
        let metrics = &self.metrics;
        let mut errors = Vec::new();
        let mut wrong = self.wrong.lock();
        let all = [
            ("tokens", tokens),
            ("tls", tls),
            ("fleet_token", token),
            ("fleet_tls", fleet_tls),
        ];
        for ((what, look), wrong) in all.into_iter().zip(wrong.iter_mut()) {
            let Some(look) = look else { continue };
            match look() {
                Ok(changed) => {
                    *wrong = None;
                    if changed {
                        metrics.reloads.with_label_values(&[what]).inc();
                        info!(what, "a changed file holds from now on");
                    }
                }
                Err(error) => {
                    metrics.reload_errors.with_label_values(&[what]).inc();
                    let error = error.to_string();
                    errors.push(error.clone());
                    if wrong.as_deref() != Some(&error) {
                        error!(
                            what,
                            error, "a changed file cannot be taken; what was there before holds"
                        );
                        *wrong = Some(error);
                    }
                }
            }
        }
        if let Some(book) = &self.book {
            metrics
                .tokens
                .set(i64::try_from(book.len()).unwrap_or(i64::MAX));
        }
        errors
    }
}

/// Looks at the files for as long as the process runs. Ends only with its task.
pub async fn watch(watched: Arc<Watched>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let watched = watched.clone();
        // What is wrong is in the log.
        let looking = tokio::task::spawn_blocking(move || drop(watched.look()));
        if let Err(error) = looking.await {
            error!(%error, "looking at changed files panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_log::fs::{OsFs, publish};

    #[test]
    fn a_token_that_is_shown_to_others_is_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        publish(&OsFs, &path, b"mr_canary\n").unwrap();
        let file = TokenFile::open(Arc::new(OsFs), path).unwrap();
        assert_eq!(file.token().read().as_deref(), Some("mr_canary"));
        let shown = format!("{file:?}");
        assert!(
            shown.contains("token") && !shown.contains("canary"),
            "{shown}"
        );
    }
}
