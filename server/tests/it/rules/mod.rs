//! Rules and alerts beside a real Prometheus and a real Alertmanager.
//!
//! Runs where these programs are on the path; with `CI` set they must be.

mod alerts;
mod mixin;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::prometheus::{Running, free_port, program, spawn};
use crate::support::{Client, eventually};

/// Longest that one of the programs may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// The programs, or `None` where they are not and need not be.
fn programs(wanted: &[&[&str]]) -> Option<Vec<PathBuf>> {
    let found: Vec<_> = wanted.iter().map(|names| program(names)).collect();
    if found.iter().all(Option::is_some) {
        return found.into_iter().collect();
    }
    let text = format!("not all of {wanted:?} are on the path: {found:?}");
    assert!(std::env::var_os("CI").is_none(), "{text}");
    println!("NOT RUN: {text}");
    None
}

/// A real Prometheus.
struct Prometheus {
    _running: Running,
    client: Client,
}

impl Prometheus {
    /// Starts on `config`, and waits until it is ready.
    fn start(program: &Path, dir: &Path, config: &Path, more: &[&str]) -> Self {
        let port = free_port();
        let tsdb = format!("--storage.tsdb.path={}", dir.join("tsdb").display());
        let running = spawn(
            Command::new(program)
                .arg(format!("--config.file={}", config.display()))
                .arg(tsdb)
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .arg("--web.enable-lifecycle")
                .args(more),
            &dir.join("prometheus.log"),
        );
        let url = format!("http://127.0.0.1:{port}");
        wait_for(&url, "/-/ready");
        Self {
            _running: running,
            client: Client::new(&url),
        }
    }
}

/// Waits until a program answers 200.
fn wait_for(url: &str, path: &str) {
    let client = Client::new(url);
    eventually(url, PATIENCE, || {
        match client.send("GET", path, &[], Vec::new()) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.text),
            Err(error) => Err(error.to_string()),
        }
    });
}
