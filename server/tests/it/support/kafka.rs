//! Real brokers for tests of the binary: `queue/tests/kafka/kafka` starts and stops them. Java 17 and
//! Maven are needed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use millrace_queue::Durability;
use millrace_queue::kafka::{ClientSettings, KafkaOptions};

use super::{Millrace, eventually};

/// Brokers in a directory of their own, stopped when dropped.
pub struct Cluster {
    dir: tempfile::TempDir,
    /// `host:port`, comma-separated.
    pub bootstrap: String,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../queue/tests/kafka/kafka")
}

impl Cluster {
    /// So many brokers: one, or three.
    pub fn start(brokers: u32) -> Self {
        // A port that was free when it was chosen may be taken before the broker binds it.
        (0..3)
            .find_map(|_| Self::try_start(brokers))
            .expect("the brokers did not start")
    }

    /// One broker that also listens with logins and TLS, for the user `millrace`.
    pub fn start_secure(password: &str) -> Self {
        let start = || {
            let mut command = Command::new(script());
            command.env("KAFKA_TEST_PASSWORD", password).arg("secure");
            Self::run_start(command, &[])
        };
        (0..3)
            .find_map(|_| start())
            .expect("the broker did not start")
    }

    /// Its directory: what it is reached by, logs, data.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn try_start(brokers: u32) -> Option<Self> {
        let mut command = Command::new(script());
        command.arg("start");
        Self::run_start(command, &[&brokers.to_string()])
    }

    fn run_start(mut command: Command, args: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let output = command
            .arg(dir.path())
            .args(args)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let bootstrap = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        output.status.success().then_some(Self { dir, bootstrap })
    }

    /// One broker that all tests of this binary share; each uses topics of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        static GUARD: OnceLock<()> = OnceLock::new();
        let cluster = SHARED.get_or_init(|| Self::start(1));
        GUARD.get_or_init(|| {
            // Statics are not dropped, so the broker is stopped when the process ends.
            extern "C" fn stop() {
                if let Some(cluster) = SHARED.get() {
                    cluster.run(&["stop"]);
                }
            }
            #[expect(
                unsafe_code,
                reason = "the standard library has no hook for the end of main"
            )]
            // SAFETY: `stop` is a plain function without arguments, as atexit wants it.
            let registered = unsafe { libc::atexit(stop) };
            assert_eq!(registered, 0, "the broker could not be stopped at the end");
        });
        cluster
    }

    fn run(&self, args: &[&str]) {
        let (command, rest) = args.split_first().unwrap();
        let status = Command::new(script())
            .arg(command)
            .arg(self.dir.path())
            .args(rest)
            .status()
            .unwrap();
        assert!(status.success(), "kafka {args:?}");
    }

    /// kill -9 of a broker, counted from 1.
    pub fn kill(&self, broker: u32) {
        self.run(&["kill", &broker.to_string()]);
    }

    /// Starts it again, on the port that it had.
    pub fn restart(&self, broker: u32) {
        self.run(&["restart", &broker.to_string()]);
    }

    /// Runs one of Kafka's own tools by its class; what it prints.
    pub fn tool(&self, class: &str, args: &[&str]) -> String {
        let output = Command::new(script())
            .arg("tool")
            .arg(self.dir.path())
            .arg(class)
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{class} {args:?}: {text}{stderr}");
        text
    }

    /// A topic that no other test uses: its settings, without the topic itself.
    pub fn topic(&self, name: &str) -> Topic {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let topic = format!("{name}-{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let settings = vec![
            "queue.backend=kafka".to_owned(),
            format!("queue.kafka.brokers={}", self.bootstrap),
            format!("queue.kafka.topic={topic}"),
            format!("queue.kafka.group={topic}-stores"),
            "queue.kafka.minimum_durability=process".to_owned(),
        ];
        Topic {
            name: topic,
            settings,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run(&["stop"]);
    }
}

/// A topic, and the settings of a millrace that uses it.
pub struct Topic {
    /// Its name. The consumer group is `<name>-stores`.
    pub name: String,
    settings: Vec<String>,
}

impl Topic {
    /// Creates it with `millrace queue create`.
    pub fn create(self, partitions: u32, replication: u32) -> Self {
        let output = self.queue_command(&[
            "create",
            "--partitions",
            &partitions.to_string(),
            "--replication",
            &replication.to_string(),
        ]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        self
    }

    /// `millrace queue …` on this topic.
    pub fn queue_command(&self, args: &[&str]) -> Output {
        self.command(&[&["queue"], args].concat())
    }

    /// Any command of the binary on this topic.
    pub fn command(&self, args: &[&str]) -> Output {
        let mut command = Millrace::command();
        command.args(args);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.output().unwrap()
    }

    /// A command that must succeed; its output.
    pub fn succeed(&self, args: &[&str]) -> String {
        let output = self.command(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// One that must fail; what it says.
    pub fn fail(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The topic as millrace's own queue, for records that no client would send.
    pub fn options(&self, brokers: &str) -> KafkaOptions {
        let mut options = KafkaOptions::new(&self.name, ClientSettings::new(brokers));
        options.minimum_durability = Durability::Process;
        options
    }

    /// The settings, `key=value`, with further ones.
    pub fn settings<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let own = self.settings.iter().map(String::as_str);
        own.chain(more.iter().copied()).collect()
    }

    /// Starts a millrace on it and waits until it is ready.
    pub fn start(&self, dir: &Path, more: &[&str]) -> Millrace {
        let server = Millrace::spawn(dir, &self.settings(more));
        // A start on a loaded machine, with the brokers' answers on top.
        eventually("ready", Duration::from_secs(120), || {
            let answer = server.client().get("/-/ready");
            (answer.status == 200).then_some(()).ok_or(answer.text)
        });
        server
    }
}
