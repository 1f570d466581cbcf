//! From the embedded queue to Kafka under load.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use crate::kill::client::{Clients, Protocol, Style, Target};
use crate::kill::ledger::Ledger;
use crate::support::kafka::{Cluster, Topic};
use crate::support::{Millrace, Rng, eventually};

const CLIENTS: &[(Protocol, Style)] = &[
    (Protocol::RemoteWrite, Style::InOrder),
    (Protocol::RemoteWrite, Style::Disordered),
    (Protocol::Line, Style::GivesUp),
];

/// So small that the old queue forgets records, and that blocks are written.
const SMALL: &[&str] = &[
    "queue.partitions=2",
    "queue.segment_bytes=64KiB",
    "store.memtable_bytes=2MiB",
    "store.memtable_max_age=500ms",
    "store.block_window=1m",
];

fn migrate(topic: &Topic, dir: &Path, url: Option<&str>) -> Output {
    let dir = dir.to_str().unwrap();
    let mut args = vec!["migrate", "--data-dir", dir];
    args.extend(url.into_iter().flat_map(|url| ["--url", url]));
    topic.queue_command(&args)
}

fn succeed(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_migration_under_load_loses_and_repeats_nothing() {
    let topic = Cluster::shared().topic("migrate").create(2, 1);
    let (_, seed) = Rng::from_environment("migrate");
    let dir = tempfile::tempdir().unwrap();
    let target = Arc::new(Target::default());
    let server = Millrace::start(dir.path(), SMALL);
    target.serve(&server.url);
    let clients = Clients::start(CLIENTS, seed, &target);
    let busy = |server: &Millrace, least: u64| {
        let client = server.client();
        eventually("load", Duration::from_secs(60), || {
            let status = client.get("/api/v1/status/pipeline").json();
            let partitions = status["data"]["partitions"].as_array().unwrap().clone();
            let least_end = partitions
                .iter()
                .map(|p| p["end_offset"].as_u64().unwrap_or(0))
                .min();
            (least_end > Some(least))
                .then_some(())
                .ok_or_else(|| format!("{partitions:?}"))
        });
    };

    // While it works, twice: the second copy goes on where the first one ended.
    for least in [20, 60] {
        busy(&server, least);
        let said = succeed(&migrate(&topic, dir.path(), Some(&server.url)));
        assert!(said.contains("run this again without --url"), "{said}");
    }
    busy(&server, 80);
    // Nobody may have the directory open while the store is moved.
    let refused = migrate(&topic, dir.path(), None);
    assert!(!refused.status.success());
    target.gone();
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
    let said = succeed(&migrate(&topic, dir.path(), None));
    assert!(said.contains("2 shards moved"), "{said}");
    // Once more does nothing.
    let said = succeed(&migrate(&topic, dir.path(), None));
    assert!(said.contains("0 records copied, 0 shards moved"), "{said}");

    let server = topic.start(dir.path(), &SMALL[1..]);
    target.serve(&server.url);
    busy(&server, 150);
    let ledgers = clients.ledgers();
    super::wait_applied(&server.client());
    for ledger in &ledgers {
        ledger.check(&server.client());
    }
    let acked: usize = ledgers.iter().map(Ledger::acknowledged).sum();
    println!("migrate: {acked} samples acknowledged before and after, each there once");

    // Copies never come behind what is newer.
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
    let refused = migrate(&topic, dir.path(), None);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(
        stderr.contains("something else writes to topic"),
        "{stderr}"
    );
}
