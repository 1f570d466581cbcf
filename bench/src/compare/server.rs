//! A server as a child process on a loopback port, in a directory of its own.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::System;
use crate::client::Client;

/// For a start, also after a crash.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks.
const POLL: Duration = Duration::from_millis(2);

/// A running server. Killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    system: System,
    binary: PathBuf,
    more: Vec<String>,
    dir: PathBuf,
    port: u16,
    child: Child,
}

/// What a binary says about its version; none if it cannot be run.
pub fn version(binary: &Path) -> Option<String> {
    let output = Command::new(binary)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

impl Server {
    /// Starts the server in the directory `dir` and waits until it is ready. A Prometheus takes `prometheus.yml` there,
    /// if there is one, and scrapes nothing otherwise.
    pub fn start(system: System, binary: &Path, more: &[String], dir: &Path) -> Result<Self> {
        let port = free_port()?;
        let configuration = dir.join("prometheus.yml");
        if system == System::Prometheus && !configuration.exists() {
            fs::write(configuration, "scrape_configs: []\n")?;
        }
        let child = spawn(system, binary, more, dir, port)?;
        let mut server = Self {
            system,
            binary: binary.to_owned(),
            more: more.to_vec(),
            dir: dir.to_owned(),
            port,
            child,
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Whose it is.
    pub fn system(&self) -> System {
        self.system
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its data are.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Kills it with SIGKILL and starts it again on what is left; returns when the process runs.
    /// Whether it is ready is another matter.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(self.system, &self.binary, &self.more, &self.dir, self.port)?;
        Ok(())
    }

    /// Stops it and starts it again with these arguments beside the usual ones; returns when it is
    /// ready.
    pub fn restart(&mut self, more: &[String]) -> Result<()> {
        self.more = more.to_vec();
        self.stop()?;
        self.child = spawn(self.system, &self.binary, &self.more, &self.dir, self.port)?;
        self.wait_until_ready()
    }

    /// Stops it, has the system forget what it knows of its files, and starts it again.
    pub fn restart_cold(&mut self) -> Result<()> {
        self.stop()?;
        self.forget_files()?;
        self.child = spawn(self.system, &self.binary, &self.more, &self.dir, self.port)?;
        self.wait_until_ready()
    }

    /// Asks it to end, and waits until it has: VictoriaMetrics writes its newest samples only then.
    fn stop(&mut self) -> Result<()> {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        )?;
        let deadline = Instant::now() + START_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                bail!("{} does not end", self.system.name());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Has the system forget the contents of its files, as far as they are on the disk and nobody
    /// has mapped them.
    pub fn forget_files(&self) -> Result<()> {
        let mut left = vec![self.data_dir()];
        while let Some(dir) = left.pop() {
            // Directories and files come and go while it runs.
            let entries = fs::read_dir(&dir).into_iter().flatten();
            for entry in entries.flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => left.push(entry.path()),
                    Ok(_) => {
                        if let Ok(file) = File::open(entry.path()) {
                            file.sync_all()?;
                            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
                        }
                    }
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// An error if the process has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} ended with {status}: {}",
                self.system.name(),
                self.last_words()
            );
        }
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let mut client = Client::new(&self.url())?;
        let path = match self.system {
            System::Millrace | System::Prometheus => "/-/ready",
            System::VictoriaMetrics => "/health",
        };
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            self.check_alive()?;
            match client.get(path) {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(_) | Err(_) if Instant::now() < deadline => std::thread::sleep(POLL),
                Ok(answer) => bail!("not ready: {} {}", answer.status, answer.excerpt()),
                Err(error) => return Err(error.context("not ready")),
            }
        }
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let text = fs::read(log_path(&self.dir)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("server.log")
}

/// A port that nothing listens on now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn spawn(system: System, binary: &Path, more: &[String], dir: &Path, port: u16) -> Result<Child> {
    let listen = format!("127.0.0.1:{port}");
    let data = dir.join("data");
    let data = data.to_str().context("the directory's name is not UTF-8")?;
    // The server gets a working directory of its own, which a relative path would be taken from. A
    // bare name is looked for in the search path.
    let binary = match binary.parent() {
        Some(parent) if parent != Path::new("") => fs::canonicalize(binary)?,
        Some(_) | None => binary.to_owned(),
    };
    let mut command = Command::new(&binary);
    match system {
        System::Millrace => {
            command.args(["--listen", &listen, "--data-dir", data]);
        }
        System::Prometheus => {
            let config = dir.join("prometheus.yml");
            command.arg("--config.file").arg(config).args([
                "--web.enable-remote-write-receiver",
                "--web.enable-admin-api",
                "--log.level=warn",
                &format!("--web.listen-address={listen}"),
                &format!("--storage.tsdb.path={data}"),
            ]);
        }
        System::VictoriaMetrics => {
            command.args([
                format!("-httpListenAddr={listen}"),
                format!("-storageDataPath={data}"),
                "-loggerLevel=WARN".to_owned(),
                // By default it hides the newest 30 s from queries.
                "-search.latencyOffset=0s".to_owned(),
            ]);
        }
    }
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_path(dir))?;
    command
        .args(more)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {}", binary.display()))
}
