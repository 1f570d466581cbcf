//! What goes wrong between the brokers and millrace, each with the outcome that `docs/kafka.md`
//! promises: the state, its text, the commands that resolve it, and that they do.
//!
//! In all of them a ledger holds: what was acknowledged is there, once and bit for bit, unless the
//! failure took it away by its nature; then exactly that is missing.

mod long_records;
mod made_again;
mod min_insync;
mod poison;
mod retention;
mod stalled;
mod truncated;

use std::path::Path;

use serde_json::Value;

use super::{PATIENCE, partitions};
use crate::kill::client;
use crate::kill::ledger::{Ledger, Numbered};
use crate::support::kafka::Topic;
use crate::support::{Answer, Client, Millrace, eventually, now_ms, vector};

/// Pushes numbered samples, and keeps book of what became of them.
struct Book {
    client: u32,
    ledger: Ledger,
    next: u64,
}

impl Book {
    fn new(client: u32) -> Self {
        Self {
            client,
            ledger: Ledger::new(client, now_ms() - 24 * 3_600_000),
            next: 0,
        }
    }

    /// One request, and what was answered; it is in the book as that says.
    fn try_push(&mut self, to: &Client, samples: u64) -> Answer {
        let numbers: Vec<u64> = (self.next..self.next + samples).collect();
        self.next += samples;
        self.ledger.intend(&numbers);
        let numbered: Vec<Numbered> = numbers.iter().map(|n| self.ledger.sample(*n)).collect();
        let body = client::as_json(self.client, &numbered).to_string();
        let headers = [("content-type", "application/json")];
        let answer = to.post("/api/v1/push", &headers, body);
        if answer.status == 200 {
            self.ledger.acknowledge(&numbers);
        }
        answer
    }

    /// So many requests that are acknowledged, each a record of its own.
    fn push(&mut self, to: &Client, requests: u64) {
        for _ in 0..requests {
            let answer = self.try_push(to, 10);
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }

    /// Pushes until it is acknowledged again. Whatever else is answered meanwhile says that it may
    /// be tried again.
    fn push_until_taken(&mut self, to: &Client) {
        eventually("an acknowledgement", PATIENCE, || {
            let answer = self.try_push(to, 1);
            if answer.status == 200 {
                return Ok(());
            }
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
            Err(answer.text)
        });
    }

    /// How many of this book's samples a store has.
    fn stored(&self, from: &Client) -> u64 {
        let of = format!("ledger{{client=\"{}\"}}", self.client);
        let found = vector(&from.query(&format!("sum(count_over_time({of}[25h]))"), None));
        found.get("{}").map_or(0, |count| *count as u64)
    }
}

/// Waits until the only partition has stopped for this reason, as `/-/ready` and the pipeline's
/// status say, and `docs/kafka.md` explains; its status.
fn wait_stopped(client: &Client, code: &str) -> Value {
    let found = eventually("the partition to stop", PATIENCE, || {
        let found = partitions(client);
        let stopped = found.iter().find(|p| p["code"] == code).cloned();
        stopped.ok_or_else(|| format!("{found:?}"))
    });
    assert_eq!(found["state"], "stopped", "{found}");
    let reason = found["reason"].as_str().expect("a reason");
    eventually("not ready any more", PATIENCE, || {
        let answer = client.get("/-/ready");
        let says = format!("out of order: shard 0 has stopped ({code}): {reason}");
        let told = answer.status == 503 && answer.text.contains(&says);
        told.then_some(()).ok_or(answer.text)
    });
    let docs = include_str!("../../../../../docs/kafka.md");
    assert!(docs.contains(&format!("### {code}\n")), "{code}");
    // What it has is answered.
    assert_eq!(client.get("/api/v1/query?query=ledger").status, 200);
    found
}

/// Waits until the process is ready again: trouble is looked at every now and then, so its end is
/// told a moment after it.
fn wait_ready(client: &Client) {
    eventually("ready again", PATIENCE, || {
        let answer = client.get("/-/ready");
        (answer.status == 200).then_some(()).ok_or(answer.text)
    });
}

/// The command that a stopped partition's status tells.
fn told(status: &Value, which: usize) -> &str {
    status["resolve"][which].as_str().expect("a command")
}

/// Stops a server that has a stopped shard, does what its status tells, and starts it again.
fn resolve(server: Millrace, topic: &Topic, dir: &Path, command: &str, more: &[&str]) -> Millrace {
    let (_status, stderr) = server.terminate();
    assert!(!stderr.contains("panicked"), "{stderr}");
    topic.obey(dir, command);
    let server = topic.start(dir, more);
    wait_running(&server.client());
    server
}

/// Waits until the only partition runs.
fn wait_running(client: &Client) {
    eventually("the shard to run", PATIENCE, || {
        let found = partitions(client).remove(0);
        (found["state"] == "running")
            .then_some(())
            .ok_or_else(|| found.to_string())
    });
}

/// What the manifest keeps of the change: (from, to) by offset.
fn last_gap(client: &Client) -> (u64, u64) {
    let found = partitions(client).remove(0);
    let gap = found["gaps"].as_array().and_then(|gaps| gaps.last());
    let gap = gap.unwrap_or_else(|| panic!("no gap: {found}"));
    assert_eq!(gap["cause"], "operator", "{found}");
    let offset = |name: &str| gap[name].as_u64().expect("an offset");
    (offset("from_offset"), offset("to_offset"))
}
