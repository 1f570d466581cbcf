//! Reading one's own writes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use millrace_query::api::{ApiOptions, Freshness, FreshnessError};
use parking_lot::{Condvar, Mutex};

use crate::client::{Fixture, Reply, SLOW};

/// Positions are numbers; what is applied grows when the test says so.
#[derive(Debug, Default)]
struct Applied {
    at: Mutex<u64>,
    grown: Condvar,
    waiting: Mutex<u64>,
    arrived: Condvar,
}

impl Applied {
    fn grow_to(&self, at: u64) {
        *self.at.lock() = at;
        self.grown.notify_all();
    }

    fn wait_for_waiter(&self) {
        let mut waiting = self.waiting.lock();
        while *waiting == 0 {
            self.arrived.wait(&mut waiting);
        }
    }
}

impl Freshness for Applied {
    fn wait(&self, position: &str, timeout: Duration) -> Result<(), FreshnessError> {
        let wanted: u64 = position.parse().map_err(|_| FreshnessError::Malformed {
            reason: format!("{position:?} is no number"),
        })?;
        if !timeout.is_zero() {
            *self.waiting.lock() += 1;
            self.arrived.notify_all();
        }
        let mut at = self.at.lock();
        while *at < wanted {
            if timeout.is_zero() || self.grown.wait_for(&mut at, timeout).timed_out() {
                return Err(FreshnessError::NotReached {
                    waited: timeout,
                    reason: format!("applied up to {at}"),
                });
            }
        }
        Ok(())
    }

    fn as_of(&self) -> Option<String> {
        Some(self.at.lock().to_string())
    }
}

fn fixture(applied: &Arc<Applied>, timeout: Duration) -> Fixture {
    let options = ApiOptions {
        read_after_timeout: timeout,
        ..ApiOptions::default()
    };
    Fixture::with(options, applied.clone())
}

async fn read_after(f: &Fixture, position: &str) -> Reply {
    let request = Request::get("/api/v1/query?query=1&time=4")
        .header("Millrace-Read-After", position)
        .body(Body::empty())
        .unwrap();
    f.send(request).await
}

#[tokio::test]
async fn every_answer_says_how_fresh_it_is() {
    let applied = Arc::new(Applied::default());
    let f = fixture(&applied, Duration::from_secs(5));
    applied.grow_to(7);
    for target in [
        "query?query=1",
        "labels",
        "series",
        "rules",
        "nope",
        "query?query=1&time=x",
    ] {
        let reply = f.get(target).await;
        assert_eq!(reply.headers["millrace-as-of"], "7", "{target}");
    }
}

#[tokio::test]
async fn a_position_that_is_there_costs_nothing() {
    let applied = Arc::new(Applied::default());
    applied.grow_to(7);
    let f = fixture(&applied, Duration::from_secs(5));
    assert_eq!(read_after(&f, "7").await.status, 200);
    assert_eq!(
        *applied.waiting.lock(),
        0,
        "it was looked at, not waited for"
    );
}

#[tokio::test]
async fn a_query_waits_for_its_position() {
    let applied = Arc::new(Applied::default());
    let f = fixture(&applied, Duration::from_secs(60));
    let grown = applied.clone();
    let grower = std::thread::spawn(move || {
        grown.wait_for_waiter();
        grown.grow_to(3);
    });
    let reply = read_after(&f, "3").await;
    grower.join().unwrap();
    reply.is_data(r#"{"resultType":"scalar","result":[4,"2"]}"#);
    assert_eq!(reply.headers["millrace-as-of"], "3");
}

#[tokio::test]
async fn a_position_not_reached_is_refused_rather_than_answered_stale() {
    let applied = Arc::new(Applied::default());
    let f = fixture(&applied, Duration::from_millis(10));
    applied.grow_to(2);
    let reply = read_after(&f, "3").await;
    reply.is_error(
        503,
        "unavailable",
        "position not applied within 10ms: applied up to 2",
    );
    assert!(reply.headers.contains_key("retry-after"));
    assert!(
        f.engine.seen.lock().is_empty(),
        "it was evaluated all the same"
    );
}

#[tokio::test]
async fn a_malformed_position_is_400() {
    let applied = Arc::new(Applied::default());
    let f = fixture(&applied, Duration::from_secs(5));
    read_after(&f, "x").await.is_error(
        400,
        "bad_data",
        "invalid Millrace-Read-After: \"x\" is no number",
    );
    let f = Fixture::new();
    assert_eq!(
        read_after(&f, "7").await.status,
        400,
        "a source without a queue knows no positions"
    );
}

/// The freshness promised is that of the moment before evaluation.
#[tokio::test]
async fn as_of_is_taken_before_anything_is_read() {
    let applied = Arc::new(Applied::default());
    let f = fixture(&applied, Duration::from_secs(5));
    applied.grow_to(1);
    let engine = f.engine.clone();
    let grown = applied.clone();
    let grower = std::thread::spawn(move || {
        engine.wait_inside(1);
        grown.grow_to(2);
        engine.open_gate();
    });
    let reply = f.get(&format!("query?query={SLOW}")).await;
    grower.join().unwrap();
    assert_eq!(reply.headers["millrace-as-of"], "1");
}
