//! The audit log: one line of JSON for each administrative act, in a file that is only ever appended to.
//!
//! Invariants:
//! - a line is synced before [`AuditLog::note`] returns;
//! - several processes may write one file: each line is written under the lock beside it;
//! - a line that a crash tore is ended before the next one begins.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use millrace_log::fs::{Fs, FsFile, create_dir_durable};
use millrace_model::{Clock, TimestampMs};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::AuthError;
use crate::file::{dir_of, lock};

/// Who did something.
#[derive(Clone, Debug)]
pub enum Who {
    /// Whoever holds that token.
    Token {
        /// The token's id.
        id: String,
        /// The token's name.
        name: String,
    },
    /// A user of this machine, on the command line.
    User(u32),
    /// Nobody has asked for a token, or a good one was not shown.
    Anonymous,
}

/// What was done, or was to be done.
#[derive(Clone, Debug)]
pub struct Act {
    /// Who did it.
    pub who: Who,
    /// One word: `delete_series`, `token_revoke`.
    pub what: String,
    /// With which parameters, without secrets.
    pub detail: Value,
    /// The client's address, or `cli`.
    pub from: String,
    /// `done`, or `refused` or `failed` with the reason or status.
    pub outcome: String,
}

/// Where acts are noted.
#[derive(Debug)]
pub struct AuditLog {
    fs: Arc<dyn Fs>,
    clock: Arc<dyn Clock>,
    path: PathBuf,
    /// One line at a time of this process; other processes are kept away by the lock file.
    writing: Mutex<()>,
}

impl AuditLog {
    /// The log in that file, which is made with the first line.
    #[must_use]
    pub fn new(fs: Arc<dyn Fs>, clock: Arc<dyn Clock>, path: PathBuf) -> Self {
        Self {
            fs,
            clock,
            path,
            writing: Mutex::new(()),
        }
    }

    /// Appends a line and syncs it.
    ///
    /// # Errors
    ///
    /// A file that cannot be written: the act is then not in it.
    pub fn note(&self, act: &Act) -> Result<(), AuthError> {
        let mut text = line(act, self.clock.now());
        self.locked(|file, end| {
            if end > 0 && !ends_with_line(file, end)? {
                text.insert(0, '\n');
            }
            file.write_all_at(text.as_bytes(), end)?;
            file.sync_data()
        })
    }

    /// Makes the file if it is not there, and writes nothing: so that a file that cannot be written is seen
    /// before there is something to note.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn check(&self) -> Result<(), AuthError> {
        self.locked(|_, _| Ok(()))
    }

    /// Does something with the file and its length while no other process does.
    fn locked(
        &self,
        run: impl FnOnce(&dyn FsFile, u64) -> io::Result<()>,
    ) -> Result<(), AuthError> {
        let _one = self.writing.lock();
        let failed = |error| AuthError::file(&self.path, error);
        create_dir_durable(&*self.fs, dir_of(&self.path)).map_err(failed)?;
        let _locked = lock(&*self.fs, &self.path)?;
        let (file, end) = self.open().map_err(failed)?;
        run(&*file, end).map_err(failed)
    }

    fn open(&self) -> io::Result<(Box<dyn FsFile>, u64)> {
        match self.fs.open_rw(&self.path) {
            Ok(file) => {
                let end = file.len()?;
                Ok((file, end))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = self.fs.create_new(&self.path)?;
                self.fs.sync_dir(dir_of(&self.path))?;
                Ok((file, 0))
            }
            Err(error) => Err(error),
        }
    }
}

fn ends_with_line(file: &dyn FsFile, end: u64) -> io::Result<bool> {
    let mut last = [0];
    file.read_exact_at(&mut last, end - 1)?;
    Ok(last == *b"\n")
}

fn line(act: &Act, now: TimestampMs) -> String {
    let time = DateTime::from_timestamp_millis(now.0).map_or_else(
        || now.0.to_string(),
        |time| time.to_rfc3339_opts(SecondsFormat::Millis, true),
    );
    let who = match &act.who {
        Who::Token { id, name } => json!({"token": id, "name": name}),
        Who::User(uid) => json!({"uid": uid}),
        Who::Anonymous => json!("anonymous"),
    };
    let mut text = json!({
        "time": time,
        "who": who,
        "what": act.what,
        "detail": act.detail,
        "from": act.from,
        "outcome": act.outcome,
    })
    .to_string();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_log::fs::OsFs;
    use millrace_model::ManualClock;

    fn act(what: &str) -> Act {
        Act {
            who: Who::Token {
                id: "5f3a9c01d2e4".to_owned(),
                name: "ops".to_owned(),
            },
            what: what.to_owned(),
            detail: json!({"match[]": "up\n{}"}),
            from: "127.0.0.1:5".to_owned(),
            outcome: "done".to_owned(),
        }
    }

    fn log(dir: &tempfile::TempDir) -> AuditLog {
        let clock = Arc::new(ManualClock::new(TimestampMs(1_700_000_000_123)));
        AuditLog::new(Arc::new(OsFs), clock, dir.path().join("a/audit.jsonl"))
    }

    fn lines(log: &AuditLog) -> Vec<Value> {
        let text = std::fs::read_to_string(&log.path).unwrap();
        let parsed = text.lines().map(serde_json::from_str::<Value>);
        parsed.filter_map(Result::ok).collect()
    }

    #[test]
    fn each_act_is_one_line_that_says_who_what_when_and_where_from() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        log.note(&act("a")).unwrap();
        log.note(&act("b")).unwrap();
        let lines = lines(&log);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["what"], "b");
        let time = "2023-11-14T22:13:20.123Z";
        assert_eq!(
            lines[0],
            json!({
                "time": time, "who": {"token": "5f3a9c01d2e4", "name": "ops"}, "what": "a",
                "detail": {"match[]": "up\n{}"}, "from": "127.0.0.1:5", "outcome": "done",
            })
        );
    }

    #[test]
    fn a_torn_line_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        log.note(&act("a")).unwrap();
        let mut bytes = std::fs::read(&log.path).unwrap();
        bytes.truncate(bytes.len() - 9);
        std::fs::write(&log.path, bytes).unwrap();
        log.note(&act("b")).unwrap();
        let lines = lines(&log);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["what"], "b");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_seen_before_there_is_an_act() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        log.check().unwrap();
        assert!(lines(&log).is_empty());
        std::fs::remove_file(&log.path).unwrap();
        std::fs::create_dir(&log.path).unwrap();
        let error = log.check().unwrap_err().to_string();
        assert!(error.contains("audit.jsonl"), "{error}");
    }

    #[test]
    fn two_processes_write_one_log() {
        let dir = tempfile::tempdir().unwrap();
        let logs = [log(&dir), log(&dir)];
        std::thread::scope(|scope| {
            for log in &logs {
                scope.spawn(move || {
                    for n in 0..10 {
                        log.note(&act(&n.to_string())).unwrap();
                    }
                });
            }
        });
        assert_eq!(lines(&logs[0]).len(), 20);
    }
}
