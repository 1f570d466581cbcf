//! A scraper, targets for it, and the queue behind it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_ingest::{Ingest, IngestOptions};
use millrace_log::SystemClock;
use millrace_log::fs::sim::SimFs;
use millrace_log::fs::{OsFs, publish};
use millrace_model::TenantId;
use millrace_queue::{Appender, AppenderOptions, EmbeddedOptions, EmbeddedQueue, Producer};
use millrace_scrape::{ScrapeError, Scraper, ScraperOptions};
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How long something may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Rig {
    pub scraper: Scraper,
    registry: Registry,
    dir: tempfile::TempDir,
}

impl Rig {
    /// A scraper of this configuration, in front of a queue in memory.
    pub fn start(yaml: &str) -> Self {
        Self::with(yaml, AppenderOptions::default())
    }

    pub fn with(yaml: &str, options: AppenderOptions) -> Self {
        let queue = EmbeddedQueue::open(
            Arc::new(SimFs::new()),
            Arc::new(SystemClock),
            Path::new("/queue"),
            EmbeddedOptions::default(),
            &Registry::new(),
        );
        Self::on(queue.unwrap().producer(), yaml, options, &[])
    }

    /// The same in front of any queue, with further files beside the configuration.
    pub fn on(
        producer: Arc<dyn Producer>,
        yaml: &str,
        options: AppenderOptions,
        files: &[(&str, &str)],
    ) -> Self {
        let (registry, dir) = (Registry::new(), tempfile::tempdir().unwrap());
        for (name, text) in files {
            write(&dir.path().join(name), text);
        }
        let clock = Arc::new(SystemClock);
        let ingest = Ingest::new(
            IngestOptions::default(),
            Appender::new(producer, options, &registry),
            clock.clone(),
            &registry,
        );
        let config_file = dir.path().join("scrape.yml");
        write(&config_file, yaml);
        let options = ScraperOptions {
            config_file,
            tenant: TenantId::anonymous(),
            machine: "test".to_owned(),
        };
        let scraper = Scraper::start(options, ingest, clock, Arc::new(OsFs), &registry);
        Self {
            scraper: scraper.unwrap(),
            registry,
            dir,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn reload(&self, yaml: &str) -> Result<(), ScrapeError> {
        write(self.scraper.config_file(), yaml);
        self.scraper.reload()
    }

    /// The sum of a metric over all labels, or over those with this value of any label.
    pub fn metric(&self, name: &str, value: Option<&str>) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.into_iter().flat_map(|family| family.get_metric());
        let wanted = metrics.filter(|metric| {
            let mut labels = metric.get_label().iter();
            value.is_none_or(|value| labels.any(|label| label.value() == value))
        });
        wanted.map(|metric| metric.get_counter().get_value()).sum()
    }

    /// Errors of the targets, in order of their URLs.
    pub fn errors(&self) -> Vec<String> {
        let targets = self.scraper.active();
        targets
            .into_iter()
            .map(|target| target.last_error)
            .collect()
    }
}

pub fn write(path: &Path, text: &str) {
    publish(&OsFs, path, text.as_bytes()).unwrap();
}

/// Waits until something is so.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        pause().await;
    }
}

#[expect(clippy::disallowed_methods, reason = "between two looks")]
async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// What a target does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    Text(&'static str),
    Redirect(String),
    /// Nothing, until it is told something else.
    Wait,
}

/// A question to a target.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    /// With names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// A target on the loopback.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    replies: watch::Sender<BTreeMap<&'static str, Reply>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    asked: Vec<Asked>,
}

impl Target {
    /// One that answers so at `/metrics`.
    pub async fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let this = Self {
            address: listener.local_addr().unwrap(),
            replies: watch::Sender::new(BTreeMap::from([("/metrics", reply)])),
            seen: Arc::default(),
        };
        let target = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                target.seen.lock().connections += 1;
                let target = target.clone();
                tokio::spawn(async move { target.serve(stream).await });
            }
        });
        this
    }

    pub fn set(&self, path: &'static str, reply: Reply) {
        self.replies
            .send_modify(|replies| drop(replies.insert(path, reply)));
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().connections
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.seen.lock().asked.clone()
    }

    /// Answers until the connection is closed.
    async fn serve(&self, stream: tokio::net::TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let asked = read(&mut stream).await?;
            // A job can ask for another reply than that of the path.
            let key = asked.headers.get("x-reply").unwrap_or(&asked.path).clone();
            self.seen.lock().asked.push(asked);
            let mut replies = self.replies.subscribe();
            let waits = |replies: &BTreeMap<_, _>| matches!(replies.get(&*key), Some(Reply::Wait));
            let replies = replies.wait_for(|replies| !waits(replies));
            let reply = replies.await.ok()?.get(&*key).cloned();
            let answer = match reply {
                Some(Reply::Text(text)) => {
                    let length = text.len();
                    format!(
                        "200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{text}"
                    )
                }
                Some(Reply::Redirect(to)) => {
                    format!("302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
                }
                Some(Reply::Wait) | None => "404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            let answer = format!("HTTP/1.1 {answer}");
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
    }
}

async fn read(stream: &mut BufReader<tokio::net::TcpStream>) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let header = |line: &String| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_lowercase(), value.trim().to_owned()))
    };
    Some(Asked {
        path: lines.first()?.split(' ').nth(1)?.to_owned(),
        headers: lines[1..].iter().filter_map(header).collect(),
    })
}
