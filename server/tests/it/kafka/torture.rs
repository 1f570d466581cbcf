//! kill -9 of anything in a fleet on three brokers, under load, with the ledger of `kill`.
//!
//! One ingest, two stores, one query; replication 3, min.insync 2. Brokers, ingest, stores and query
//! die at random moments, sometimes two of them at a time. Whatever was acknowledged must be there at
//! the end, once and bit for bit. While a store is away, its shards are missing and nothing else is.
//!
//! 5 kills by default. `MILLRACE_FLEET_KILLS=60 MILLRACE_FLEET_SECONDS=600` for the full run: at least
//! so many kills, and at least so long.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::kill::client::{Clients, Protocol, Style, Target};
use crate::kill::ledger::Ledger;
use crate::support::kafka::{Cluster, Topic};
use crate::support::{Client, Millrace, Rng, eventually};

/// A whole fleet and its brokers come back on two busy processors.
const PATIENCE: Duration = Duration::from_secs(180);

const CLIENTS: &[(Protocol, Style)] = &[
    (Protocol::RemoteWrite, Style::InOrder),
    (Protocol::RemoteWrite, Style::Disordered),
    (Protocol::Json, Style::GivesUp),
    (Protocol::Line, Style::InOrder),
];

/// A process that comes back at the same address.
struct Node {
    name: &'static str,
    dir: PathBuf,
    address: String,
    settings: Vec<String>,
    running: Option<Millrace>,
}

impl Node {
    fn new(
        name: &'static str,
        dir: PathBuf,
        address: String,
        topic: &Topic,
        more: &[&str],
    ) -> Self {
        let settings = topic.settings(more);
        Self {
            name,
            dir,
            address,
            settings: settings.into_iter().map(str::to_owned).collect(),
            running: None,
        }
    }

    fn start(&mut self) {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        // The system may take a moment to give the port back.
        let server = eventually(self.name, PATIENCE, || {
            Millrace::try_spawn_at(&self.dir, &self.address, &settings)
        });
        self.running = Some(server);
    }

    fn kill(&mut self) {
        let server = self.running.take().expect("it runs");
        let stderr = server.kill();
        assert!(!stderr.contains("panicked"), "{}:\n{stderr}", self.name);
    }

    fn client(&self) -> Client {
        self.running.as_ref().expect("it runs").client()
    }
}

/// An address that nobody listens on.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

const INGEST: usize = 0;
const STORES: [usize; 2] = [1, 2];
const QUERY: usize = 3;

struct Fleet {
    nodes: Vec<Node>,
    cluster: Cluster,
    topic: String,
    target: Arc<Target>,
    /// Full answers, and partial ones while a store was away.
    answers: (u32, u32),
    /// Processes that died while a broker was dead.
    also: u32,
}

impl Fleet {
    fn start(dir: &std::path::Path, target: Arc<Target>) -> Self {
        let cluster = Cluster::start(3);
        let topic = cluster.topic("torture").create(4, 3);
        let topic_name = topic.name.clone();
        let replicated = "queue.kafka.minimum_durability=replicated";
        let addresses: Vec<String> = (0..4).map(|_| free_address()).collect();
        let stores = format!("fleet.stores={},{}", addresses[1], addresses[2]);
        let small = [
            "store.memtable_bytes=4MiB",
            "store.memtable_max_age=2s",
            "store.wal_segment_bytes=64KiB",
            "store.block_window=1m",
        ];
        let node = |name, at: usize, more: &[&str]| {
            let settings = [&[replicated, "log.level=info"], more].concat();
            Node::new(
                name,
                dir.join(name),
                addresses[at].clone(),
                &topic,
                &settings,
            )
        };
        let store = |name, at: usize, ordinal: &str| {
            let own = ["roles=store", "cluster.nodes=2", ordinal];
            node(name, at, &[&own[..], &small[..]].concat())
        };
        let nodes = vec![
            node("ingest", INGEST, &["roles=ingest"]),
            store("store-0", STORES[0], "cluster.ordinal=0"),
            store("store-1", STORES[1], "cluster.ordinal=1"),
            node("query", QUERY, &["roles=query", &stores]),
        ];
        let mut fleet = Self {
            nodes,
            cluster,
            topic: topic_name,
            target,
            answers: (0, 0),
            also: 0,
        };
        for node in &mut fleet.nodes {
            node.start();
        }
        fleet.wait_ready(0..4);
        fleet
            .target
            .serve(&format!("http://{}", fleet.nodes[INGEST].address));
        fleet
    }

    fn wait_ready(&self, nodes: impl IntoIterator<Item = usize>) {
        for at in nodes {
            let (node, begun) = (&self.nodes[at], Instant::now());
            let client = node.client();
            loop {
                let answer = client.get("/-/ready");
                if answer.status == 200 {
                    break;
                }
                if begun.elapsed() > PATIENCE {
                    let tool = "org.apache.kafka.tools.TopicCommand";
                    let topic = self
                        .cluster
                        .tool(tool, &["--describe", "--topic", &self.topic]);
                    panic!("waited for {}: {}\n{topic}", node.name, answer.text);
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// One death and return. Returns what died.
    fn kill_something(&mut self, rng: &mut Rng) -> &'static str {
        let victim = rng.between(0, 6) as usize;
        if victim >= self.nodes.len() {
            let broker = (victim - self.nodes.len() + 1) as u32;
            self.cluster.kill(broker);
            thread::sleep(Duration::from_millis(rng.between(100, 4000)));
            // IMPORTANT: nobody is waited for before the broker is back. It may be the last one that
            // was in sync, if the others were killed shortly before, and then its partitions have no
            // leader without it.
            if rng.one_in(3) {
                let second = rng.between(0, 3) as usize;
                self.die(second, rng, false);
                self.also += 1;
            }
            self.cluster.restart(broker);
            return "a broker";
        }
        self.die(victim, rng, true);
        self.nodes[victim].name
    }

    fn die(&mut self, victim: usize, rng: &mut Rng, patient: bool) {
        if victim == INGEST {
            self.target.gone();
        }
        self.nodes[victim].kill();
        if patient && STORES.contains(&victim) {
            self.one_store_is_away(victim);
        }
        thread::sleep(Duration::from_millis(rng.between(0, 1500)));
        self.nodes[victim].start();
        if victim == INGEST {
            self.target
                .serve(&format!("http://{}", self.nodes[INGEST].address));
        }
        if patient && rng.one_in(2) {
            self.wait_ready([victim]);
        }
    }

    /// The rest answers when it is asked for as much; else the answer says what is missing.
    fn one_store_is_away(&mut self, victim: usize) {
        let client = self.nodes[QUERY].client();
        let path = "/api/v1/query?query=count(ledger)&partial_response=true";
        let other = STORES.into_iter().find(|at| *at != victim);
        self.wait_ready(other);
        eventually("a partial answer", PATIENCE, || {
            let answer = client.get(path);
            let partial = answer.status == 200 && answer.text.contains("\"warnings\"");
            partial.then_some(()).ok_or(answer.text)
        });
        self.answers.1 += 1;
        eventually("a refusal", PATIENCE, || {
            let answer = client.get("/api/v1/query?query=count(ledger)");
            (answer.status == 503).then_some(()).ok_or(answer.text)
        });
    }

    /// All is up again: nothing is missing any more.
    fn answers_again(&mut self) {
        self.wait_ready(0..4);
        let client = self.nodes[QUERY].client();
        eventually("a full answer", PATIENCE, || {
            let answer = client.get("/api/v1/query?query=count(ledger)");
            (answer.status == 200).then_some(()).ok_or(answer.text)
        });
        self.answers.0 += 1;
    }

    /// Everything that the brokers have is applied.
    fn wait_applied(&self) {
        for store in STORES {
            super::wait_applied(&self.nodes[store].client());
        }
    }
}

#[test]
fn a_fleet_on_three_brokers_survives_the_death_of_anything() {
    let kills: u32 = std::env::var("MILLRACE_FLEET_KILLS").map_or(5, |text| {
        text.parse().expect("MILLRACE_FLEET_KILLS is a number")
    });
    let least = std::env::var("MILLRACE_FLEET_SECONDS").map_or(0, |text| {
        text.parse().expect("MILLRACE_FLEET_SECONDS is a number")
    });
    let (mut rng, seed) = Rng::from_environment("fleet");
    let dir = tempfile::tempdir().unwrap();
    let target = Arc::new(Target::default());
    let mut fleet = Fleet::start(dir.path(), target.clone());
    let clients = Clients::start(CLIENTS, seed, &target);

    let started = Instant::now();
    let mut died = std::collections::BTreeMap::new();
    let mut done = 0;
    while done < kills || started.elapsed() < Duration::from_secs(least) {
        done += 1;
        *died.entry(fleet.kill_something(&mut rng)).or_insert(0) += 1;
        if rng.one_in(2) {
            fleet.answers_again();
        }
        thread::sleep(Duration::from_millis(rng.between(200, 2000)));
    }
    fleet.answers_again();
    let ledgers = clients.ledgers();
    let took = started.elapsed();
    fleet.wait_applied();
    let query = fleet.nodes[QUERY].client();
    for ledger in &ledgers {
        ledger.check(&query);
    }

    let mut latencies: Vec<Duration> = ledgers
        .iter()
        .flat_map(|ledger| ledger.latencies.iter().map(|(_, took)| *took))
        .collect();
    latencies.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    let acked: usize = ledgers.iter().map(Ledger::acknowledged).sum();
    let unknown: usize = ledgers.iter().map(Ledger::unknown).sum();
    println!(
        "fleet: {done} kills in {took:?} ({died:?}, and {} more while a broker was dead); {acked} samples acknowledged, {unknown} of \
         unknown outcome; every acknowledged one is there once; writes acknowledged after {:?} \
         (p50), {:?} (p99); {} full answers, {} partial ones while a store was away",
        fleet.also,
        at(0.5),
        at(0.99),
        fleet.answers.0,
        fleet.answers.1
    );
    assert!(acked > 50 * kills as usize, "too little load: {acked}");
}
