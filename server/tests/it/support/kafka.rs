//! Real brokers for tests of the binary: `queue/tests/kafka/kafka` starts and stops them. Java 17 and
//! Maven are needed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use millrace_queue::Durability;
use millrace_queue::kafka::{ClientSettings, KafkaOptions};
use rustix::process::{Pid, Signal, kill_process};

use super::{Millrace, eventually};

/// Statics are not dropped, so their brokers are stopped when the process ends.
fn at_exit(stop: extern "C" fn()) {
    #[expect(
        unsafe_code,
        reason = "the standard library has no hook for the end of main"
    )]
    // SAFETY: `stop` is a plain function without arguments, as atexit wants it.
    let registered = unsafe { libc::atexit(stop) };
    assert_eq!(registered, 0, "the brokers could not be stopped at the end");
}

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
        extern "C" fn stop() {
            if let Some(cluster) = SHARED.get() {
                cluster.run(&["stop"]);
            }
        }
        GUARD.get_or_init(|| at_exit(stop));
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

    /// Waits until all brokers answer.
    pub fn wait(&self) {
        self.run(&["wait"]);
    }

    /// Sends a broker a signal: SIGSTOP stalls it without closing anything, SIGCONT ends that.
    pub fn signal(&self, broker: u32, signal: Signal) {
        let pid = std::fs::read_to_string(self.data(broker).join("../pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).expect("a pid is positive");
        kill_process(pid, signal).expect("it runs");
    }

    /// Where a broker keeps its topics.
    fn data(&self, broker: u32) -> PathBuf {
        self.dir.path().join(broker.to_string()).join("data")
    }

    /// Three brokers that the tests of this binary share one after the other: each may stop and kill
    /// them, and leaves them running.
    pub fn three() -> MutexGuard<'static, Self> {
        static THREE: OnceLock<Mutex<Cluster>> = OnceLock::new();
        static GUARD: OnceLock<()> = OnceLock::new();
        let cluster = THREE.get_or_init(|| Mutex::new(Self::start(3)));
        extern "C" fn stop() {
            // After a test that failed as well.
            if let Some(cluster) = THREE.get() {
                let cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
                cluster.run(&["stop"]);
            }
        }
        GUARD.get_or_init(|| at_exit(stop));
        let cluster = cluster
            .lock()
            .expect("an earlier test left them as it failed");
        cluster.wait();
        cluster
    }

    /// Runs one of Kafka's own tools by its class; what it prints.
    pub fn tool(&self, class: &str, args: &[&str]) -> String {
        self.tool_with_input(class, args, "")
    }

    /// The same, with something to read on its standard input.
    pub fn tool_with_input(&self, class: &str, args: &[&str], input: &str) -> String {
        let done = self.try_tool(class, args, input);
        done.unwrap_or_else(|said| panic!("{class} {args:?}: {said}"))
    }

    /// The same; an error is all that a tool that fails has said.
    pub fn try_tool(&self, class: &str, args: &[&str], input: &str) -> Result<String, String> {
        let mut tool = Command::new(script())
            .arg("tool")
            .arg(self.dir.path())
            .arg(class)
            .args(["--bootstrap-server", &self.bootstrap])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that does not read has ended, and its status says why.
        let _read = tool.stdin.take().unwrap().write_all(input.as_bytes());
        let output = tool.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(text + &String::from_utf8_lossy(&output.stderr))
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
            // A store that has just started still looks for its brokers.
            "query.read_after_timeout=50s".to_owned(),
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

    /// Runs a command as a status tells it (`millrace queue resume …`) on a data directory.
    pub fn obey(&self, dir: &Path, told: &str) -> String {
        let mut words = told.split_whitespace();
        assert_eq!(words.next(), Some("millrace"), "{told}");
        let mut command = Millrace::command();
        command.args(words).arg("--data-dir").arg(dir);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Deletes it, and makes another one of its name.
    pub fn make_again(&self, cluster: &Cluster) {
        let topic = ["--topic", self.name.as_str()];
        let tool = "org.apache.kafka.tools.TopicCommand";
        cluster.tool(tool, &[&["--delete"][..], &topic].concat());
        let said = eventually("the topic to go", Duration::from_secs(60), || {
            let output = self.queue_command(&["create", "--partitions", "1", "--replication", "1"]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let made = output.status.success() && said.contains("is created");
            made.then_some(said.clone()).ok_or(said + &stderr)
        });
        assert!(said.contains("adopt`"), "{said}");
    }

    /// Says that the topic that there is now is the queue, as the operator is told to.
    pub fn adopt(&self) {
        let output = self.queue_command(&["adopt"]);
        assert!(output.status.success(), "{output:?}");
    }

    /// Changes settings of it (`name=value`), as its operator would.
    pub fn configure(&self, cluster: &Cluster, settings: &str) {
        let entity = ["--entity-type", "topics", "--entity-name", &self.name];
        let change = ["--alter", "--add-config", settings];
        let args = [&entity[..], &change[..]].concat();
        cluster.tool("kafka.admin.ConfigCommand", &args);
    }

    /// Appends lines that are no batches, as somebody who has the wrong topic would.
    pub fn produce(&self, cluster: &Cluster, lines: &[&str]) {
        let tool = "org.apache.kafka.tools.ConsoleProducer";
        let input = lines.join("\n") + "\n";
        cluster.tool_with_input(tool, &["--topic", &self.name], &input);
    }

    /// Leader, replicas and replicas in sync of partition 0.
    pub fn partition(&self, cluster: &Cluster) -> (u32, Vec<u32>, Vec<u32>) {
        let tool = "org.apache.kafka.tools.TopicCommand";
        let text = cluster.tool(tool, &["--describe", "--topic", &self.name]);
        let words: Vec<&str> = text.split_whitespace().collect();
        let behind = |name: &str| {
            let at = words.iter().position(|word| *word == name);
            words[at.unwrap_or_else(|| panic!("no {name}: {text}")) + 1]
        };
        // None in sync is nothing at all, and the next word is another title.
        let numbers = |name: &str| {
            let found = behind(name).split(',');
            found.filter_map(|n| n.parse().ok()).collect()
        };
        let leader = behind("Leader:").parse().unwrap_or(0);
        (leader, numbers("Replicas:"), numbers("Isr:"))
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

    /// Starts a millrace on it.
    pub fn spawn(&self, dir: &Path, more: &[&str]) -> Millrace {
        Millrace::spawn(dir, &self.settings(more))
    }

    /// Starts a millrace on it and waits until it is ready.
    pub fn start(&self, dir: &Path, more: &[&str]) -> Millrace {
        let server = self.spawn(dir, more);
        // A start on a loaded machine, with the brokers' answers on top.
        eventually("ready", Duration::from_secs(120), || {
            let answer = server.client().get("/-/ready");
            (answer.status == 200).then_some(()).ok_or(answer.text)
        });
        server
    }
}
