//! A running millrace.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Client;

/// Longest that a start, a recovery or a stop may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A millrace of this build, killed when dropped.
pub struct Millrace {
    child: Child,
    /// `http://127.0.0.1:port`
    pub url: String,
    banner: String,
    stderr: Option<std::thread::JoinHandle<String>>,
}

impl Millrace {
    /// The command, with an environment that sets nothing.
    pub fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MILLRACE_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Starts on `dir` and a free port, and waits until it listens.
    pub fn spawn(dir: &Path, set: &[&str]) -> Self {
        Self::try_spawn(dir, set).unwrap_or_else(|stderr| panic!("no start:\n{stderr}"))
    }

    /// The same; what it said on standard error if it ended instead.
    pub fn try_spawn(dir: &Path, set: &[&str]) -> Result<Self, String> {
        Self::try_spawn_as(Self::command(), dir, set)
    }

    /// Starts where no file can grow beyond so many KiB, and waits until it is ready.
    pub fn start_with_file_limit(dir: &Path, kib: u32, set: &[&str]) -> Self {
        // An ignored signal stays ignored in what is executed, so that the write fails instead.
        let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
        let mut command = Command::new("bash");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_millrace")]);
        let server = Self::try_spawn_as(command, dir, set)
            .unwrap_or_else(|stderr| panic!("no start:\n{stderr}"));
        server.wait_ready();
        server
    }

    /// Starts at an address of its own, to be found there again after a restart.
    #[cfg(feature = "kafka")]
    pub fn try_spawn_at(dir: &Path, address: &str, set: &[&str]) -> Result<Self, String> {
        Self::try_spawn_on(Self::command(), dir, address, set)
    }

    fn try_spawn_as(command: Command, dir: &Path, set: &[&str]) -> Result<Self, String> {
        Self::try_spawn_on(command, dir, "127.0.0.1:0", set)
    }

    fn try_spawn_on(
        mut command: Command,
        dir: &Path,
        address: &str,
        set: &[&str],
    ) -> Result<Self, String> {
        command.args(["--listen", address, "--data-dir"]).arg(dir);
        for pair in set {
            command.args(["--set", pair]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary is there");
        let mut stderr = child.stderr.take().expect("piped");
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            // What has come until the pipe breaks is what there is.
            let _read = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let stdout = child.stdout.take().expect("piped");
        let (lines, received) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        let Ok(first) = received.recv_timeout(PATIENCE) else {
            // It has ended, or hangs: either way the kill is harmless.
            let _gone = child.kill();
            child.wait().expect("a child can be waited for");
            return Err(stderr.join().expect("the reader does not panic"));
        };
        let url = first
            .split_whitespace()
            .last()
            .expect("the first line ends with the URL")
            .to_owned();
        assert!(url.contains("://127.0.0.1:"), "{first}");
        let mut banner = first;
        while let Ok(line) = received.recv_timeout(PATIENCE) {
            banner.push('\n');
            banner.push_str(&line);
            if line.starts_with("  more ") {
                break;
            }
        }
        Ok(Self {
            child,
            url,
            banner,
            stderr: Some(stderr),
        })
    }

    /// Starts and waits until it is ready.
    pub fn start(dir: &Path, set: &[&str]) -> Self {
        let server = Self::spawn(dir, set);
        server.wait_ready();
        server
    }

    /// What it printed at its start.
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// Waits until `/-/ready` says so.
    pub fn wait_ready(&self) {
        let client = self.client();
        eventually("ready", PATIENCE, || {
            let answer = client.get("/-/ready");
            (answer.status == 200).then_some(()).ok_or(answer.text)
        });
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(&self.url)
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9, and everything that it wrote to standard error.
    pub fn kill(mut self) -> String {
        self.child.kill().expect("it is our child, dead or alive");
        self.child.wait().expect("a child can be waited for");
        self.take_stderr()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid is positive");
        kill_process(pid, signal).expect("it runs");
    }

    /// SIGTERM; its exit code and standard error.
    pub fn terminate(self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for its end; its exit code and standard error.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = wait_exit(&mut self.child, PATIENCE);
        (status, self.take_stderr())
    }

    fn take_stderr(&mut self) -> String {
        let reader = self.stderr.take().expect("taken once");
        reader.join().expect("the reader does not panic")
    }
}

impl Drop for Millrace {
    fn drop(&mut self) {
        // Most tests have ended it already; an error says just that.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
        if let Some(reader) = self.stderr.take()
            && std::thread::panicking()
        {
            let stderr = reader.join().unwrap_or_default();
            let lines: Vec<&str> = stderr.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            println!("the end of the log of {}:\n{}", self.url, last.join("\n"));
        }
    }
}

/// Waits for a child's end.
pub fn wait_exit(child: &mut Child, patience: Duration) -> ExitStatus {
    eventually("the end of a process", patience, || {
        let ended = child.try_wait().expect("a child can be waited for");
        ended.ok_or_else(|| "it still runs".to_owned())
    })
}

/// Asks until there is an answer; fails with the last refusal when patience ends.
pub fn eventually<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match ask() {
            Ok(value) => return value,
            Err(refusal) => {
                assert!(
                    Instant::now() < deadline,
                    "waited {patience:?} for {what}: {refusal}"
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Runs a command of the binary that must succeed; its output.
pub fn succeed(args: &[&str]) -> String {
    let output = Millrace::command().args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs one that must fail; what it says.
pub fn fail(args: &[&str]) -> String {
    let output = Millrace::command().args(args).output().unwrap();
    assert!(!output.status.success(), "{args:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

/// Copies a directory with everything in it.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
