//! A broker of its own, started and stopped by the repository's script.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process;

/// A running broker. Stopped when it is dropped.
#[derive(Debug)]
pub struct Broker {
    script: PathBuf,
    millrace: PathBuf,
    dir: tempfile::TempDir,
    bootstrap: String,
    pid: u32,
}

impl Broker {
    /// Starts one below `work_dir` and waits until it answers.
    pub fn start(script: &Path, millrace: &Path, work_dir: &Path) -> Result<Self> {
        let script = fs::canonicalize(script).with_context(|| script.display().to_string())?;
        let millrace =
            fs::canonicalize(millrace).with_context(|| millrace.display().to_string())?;
        let dir = tempfile::tempdir_in(work_dir)?;
        let output = Command::new(&script)
            .arg("start")
            .arg(dir.path())
            .arg("1")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "the broker did not start");
        let pid = fs::read_to_string(dir.path().join("1/pid"))?;
        Ok(Self {
            script,
            millrace,
            bootstrap: String::from_utf8(output.stdout)?.trim().to_owned(),
            pid: pid.trim().parse().context("the broker's process id")?,
            dir,
        })
    }

    /// CPU time that it has taken so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        process::cpu_seconds(self.pid)
    }

    /// Makes a topic, and returns the arguments of a millrace that uses it.
    pub fn topic(&self, name: &str, partitions: u32) -> Result<Vec<String>> {
        let settings = vec![
            "--set=queue.backend=kafka".to_owned(),
            format!("--set=queue.kafka.brokers={}", self.bootstrap),
            format!("--set=queue.kafka.topic={name}"),
            "--set=queue.kafka.minimum_durability=disk".to_owned(),
        ];
        let output = Command::new(&self.millrace)
            .args(["queue", "create", "--replication=1"])
            .arg(format!("--partitions={partitions}"))
            .args(&settings)
            .stdin(Stdio::null())
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "millrace queue create: {stderr}");
        Ok(settings)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let stopped = Command::new(&self.script)
            .arg("stop")
            .arg(self.dir.path())
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("the broker with process id {} was not stopped", self.pid);
        }
    }
}
