//! Real brokers for one test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use millrace_queue::Durability;
use millrace_queue::kafka::{ClientSettings, KafkaError, KafkaOptions, KafkaQueue, TopicSpec};

/// Brokers in a directory of their own, stopped when dropped.
pub struct Cluster {
    dir: tempfile::TempDir,
    pub bootstrap: String,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/kafka")
}

impl Cluster {
    pub fn start(brokers: u32) -> Self {
        // A port that was free when it was chosen may be taken before the broker binds it.
        (0..3)
            .find_map(|_| Self::try_start(brokers))
            .expect("the brokers did not start")
    }

    /// One broker that also listens with logins, for the user `millrace`.
    pub fn start_secure(password: &str) -> Self {
        (0..3)
            .find_map(|_| Self::try_start_secure(password))
            .expect("the broker did not start")
    }

    fn try_start_secure(password: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(script())
            .env("KAFKA_TEST_PASSWORD", password)
            .arg("secure")
            .arg(dir.path())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        if !output.status.success() {
            return None;
        }
        let bootstrap = std::fs::read_to_string(dir.path().join("login")).unwrap();
        Some(Self {
            dir,
            bootstrap: bootstrap.trim().to_owned(),
        })
    }

    fn try_start(brokers: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(script())
            .args([
                "start".as_ref(),
                dir.path().as_os_str(),
                brokers.to_string().as_ref(),
            ])
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
            // Statics are not dropped, so the brokers are stopped when the process ends.
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
            assert_eq!(registered, 0, "the brokers could not be stopped at the end");
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

    pub fn kill(&self, broker: u32) {
        self.run(&["kill", &broker.to_string()]);
    }

    pub fn restart(&self, broker: u32) {
        self.run(&["restart", &broker.to_string()]);
    }

    /// Options for a topic that no other test uses.
    pub fn options(&self, name: &str) -> KafkaOptions {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let topic = format!("{name}-{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let mut options = KafkaOptions::new(topic, ClientSettings::new(&self.bootstrap));
        options.minimum_durability = Durability::Process;
        // A killed broker may be needed again before it is back in step with the others.
        options.delivery_timeout = Duration::from_secs(90);
        options
    }

    pub fn queue(&self, options: &KafkaOptions, partitions: u32, replication: u32) -> KafkaQueue {
        let spec = TopicSpec {
            partitions,
            replication,
            retention: Duration::from_secs(7 * 86_400),
        };
        KafkaQueue::create_topic(options, &spec).unwrap();
        open(options)
    }
}

/// Opens the queue, trying again while the brokers still tell one another of a new topic.
pub fn open(options: &KafkaOptions) -> KafkaQueue {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match KafkaQueue::open(options.clone()) {
            Ok(queue) => return queue,
            Err(KafkaError::NoTopic { .. }) if Instant::now() < deadline => {}
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run(&["stop"]);
    }
}
