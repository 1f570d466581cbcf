//! Scrapes that are not stored, or not even begun: they are counted, and told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_model::{Offset, PartitionId, QueueId, ShardKey};
use millrace_queue::{AppendDone, AppenderOptions, Durability, Producer, QueueIdentity};
use parking_lot::Mutex;

use crate::rig::{Reply, Rig, Target, eventually};

/// A queue that appends when it is told to.
#[derive(Debug)]
pub struct HeldQueue {
    identity: QueueIdentity,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    open: bool,
    appends: Vec<AppendDone>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

impl HeldQueue {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            identity: QueueIdentity {
                id: QueueId(1),
                partitions: 1,
                shard_key: ShardKey::default(),
            },
            waiting: Mutex::default(),
        })
    }

    fn appends(&self) -> usize {
        self.waiting.lock().appends.len()
    }

    /// Appends whatever waits, and what comes.
    fn open(&self) {
        let mut waiting = self.waiting.lock();
        waiting.open = true;
        for done in waiting.appends.drain(..) {
            done(Ok(Offset(0)..Offset(1)));
        }
    }
}

impl Producer for HeldQueue {
    fn identity(&self) -> &QueueIdentity {
        &self.identity
    }

    fn durability(&self) -> Durability {
        Durability::Process
    }

    fn append(&self, _: PartitionId, _: Vec<Bytes>, done: AppendDone) {
        let mut waiting = self.waiting.lock();
        match waiting.open {
            true => done(Ok(Offset(0)..Offset(1))),
            false => waiting.appends.push(done),
        }
    }

    fn max_batch_bytes(&self) -> usize {
        1 << 20
    }
}

fn config(interval: &str, targets: &[&Target], more: &str) -> String {
    let targets: Vec<_> = targets.iter().map(|t| t.address.to_string()).collect();
    format!(
        "scrape_configs:\n- job_name: j\n  scrape_interval: {interval}\n  scrape_timeout: {interval}\n  \
         static_configs: [{{targets: {targets:?}}}]\n{more}"
    )
}

#[tokio::test]
async fn a_scrape_that_the_queue_does_not_take_is_counted_and_told_at_its_target() {
    let target = Target::start(Reply::Text("a 1\n")).await;
    let small = AppenderOptions {
        max_pending_bytes: 16,
        ..AppenderOptions::default()
    };
    let rig = Rig::with(&config("200ms", &[&target], ""), small);
    let lost = || rig.metric("millrace_scrape_lost_total", Some("batch_too_large"));
    eventually("scrapes are lost", || lost() >= 2.0).await;
    let errors = rig.errors();
    assert!(errors[0].starts_with("the scrape is lost: "), "{errors:?}");
    assert_eq!(rig.metric("millrace_scrape_scrapes_total", None), 0.0);
}

#[tokio::test]
async fn scrapes_that_are_not_begun_are_counted() {
    let target = Target::start(Reply::Text("a 1\n")).await;
    let (queue, options) = (HeldQueue::new(), AppenderOptions::default());
    let rig = Rig::on(
        queue.clone(),
        &config("100ms", &[&target], ""),
        options,
        &[],
    );
    eventually("a scrape waits for the queue", || queue.appends() == 1).await;
    let since = Instant::now();
    let long = Duration::from_millis(500);
    eventually("some intervals have passed", || since.elapsed() > long).await;
    assert_eq!(target.asked().len(), 1);
    queue.open();
    let skipped = || rig.metric("millrace_scrape_skipped_total", None);
    eventually("they are counted", || skipped() >= 3.0).await;
    assert_eq!(rig.metric("millrace_scrape_lost_total", None), 0.0);
}

#[tokio::test]
async fn too_many_targets_fail_all_scrapes_of_their_job() {
    let (a, b) = (
        Target::start(Reply::Text("a 1\n")).await,
        Target::start(Reply::Text("b 1\n")).await,
    );
    let config = |limit: usize| config("200ms", &[&a, &b], &format!("  target_limit: {limit}\n"));
    let rig = Rig::start(&config(1));
    let says = "target_limit exceeded (number of targets: 2, limit: 1)";
    eventually("both say so", || rig.errors() == [says, says]).await;
    assert_eq!((a.asked().len(), b.asked().len()), (0, 0));
    rig.reload(&config(2)).unwrap();
    eventually("both are well", || rig.errors() == ["", ""]).await;
}

#[tokio::test]
async fn a_scrape_that_the_end_of_the_process_cuts_is_counted() {
    let target = Target::start(Reply::Wait).await;
    let rig = Rig::start(&config("2s", &[&target], ""));
    eventually("it is asked", || target.asked().len() == 1).await;
    rig.scraper.stop().await;
    let stopped = rig.metric("millrace_scrape_lost_total", Some("stopped"));
    assert_eq!(stopped, 1.0);
}
