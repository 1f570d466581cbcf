//! What happens when the queue is slow, full, broken or gone.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use millrace_ingest::{Ingest, IngestOptions};
use millrace_model::{Clock, ManualClock, Offset, PartitionId, QueueId, ShardKey, TimestampMs};
use millrace_queue::{
    AppendDone, AppendError, Appender, AppenderOptions, Durability, Producer, QueueIdentity,
};
use parking_lot::{Condvar, Mutex};
use prometheus::Registry;
use tower::ServiceExt;

use crate::rig::prompb::{self, WriteRequest};
use crate::rig::{NOW, Rig, SNAPPY_PROTOBUF};

/// A queue that appends when it is told to.
#[derive(Debug)]
struct HeldQueue {
    identity: QueueIdentity,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<(PartitionId, Vec<Bytes>, AppendDone)>,
    next: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Producer for HeldQueue {
    fn identity(&self) -> &QueueIdentity {
        &self.identity
    }

    fn durability(&self) -> Durability {
        Durability::Replicated
    }

    fn append(&self, partition: PartitionId, batches: Vec<Bytes>, done: AppendDone) {
        self.state.lock().waiting.push((partition, batches, done));
        self.changed.notify_all();
    }

    fn max_batch_bytes(&self) -> usize {
        1 << 20
    }
}

impl HeldQueue {
    /// Waits for an append and ends it.
    fn finish_one(&self, outcome: Result<(), AppendError>) {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            self.changed.wait(&mut state);
        }
        let (_, batches, done) = state.waiting.remove(0);
        let first = state.next;
        state.next += batches.len() as u64;
        let range: Range<Offset> = Offset(first)..Offset(state.next);
        drop(state);
        done(outcome.map(|()| range));
    }

    fn wait_for_append(&self) {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            self.changed.wait(&mut state);
        }
    }
}

fn held(options: AppenderOptions) -> (axum::Router, Arc<HeldQueue>, Appender) {
    let queue = Arc::new(HeldQueue {
        identity: QueueIdentity {
            id: QueueId(7),
            partitions: 1,
            shard_key: ShardKey::default(),
        },
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    let registry = Registry::new();
    let appender = Appender::new(Arc::clone(&queue) as Arc<dyn Producer>, options, &registry);
    let clock = Arc::new(ManualClock::new(TimestampMs(NOW)));
    let ingest = Ingest::new(
        IngestOptions::default(),
        appender.clone(),
        clock as Arc<dyn Clock>,
        &registry,
    );
    (ingest.router(), queue, appender)
}

fn write(body: &str) -> Request<Body> {
    Request::post("/write")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

fn retry_after(response: &axum::response::Response) -> u64 {
    let value = response.headers().get("retry-after").expect("Retry-After");
    value.to_str().unwrap().parse().unwrap()
}

/// Waits on a thread of its own, so that the runtime goes on.
async fn blocking(queue: &Arc<HeldQueue>, act: impl FnOnce(&HeldQueue) + Send + 'static) {
    let queue = Arc::clone(queue);
    tokio::task::spawn_blocking(move || act(&queue))
        .await
        .unwrap();
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_durable() {
    let (router, queue, _appender) = held(AppenderOptions::default());
    let request = tokio::spawn(router.oneshot(write("m value=1")));
    blocking(&queue, HeldQueue::wait_for_append).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!request.is_finished());
    blocking(&queue, |queue| queue.finish_one(Ok(()))).await;
    let response = request.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.headers()["millrace-durability"], "replicated");
    let position = response.headers()["millrace-position"].to_str().unwrap();
    assert!(position.ends_with("7/0:1"), "{position}");
}

#[tokio::test]
async fn too_much_pending_is_503_with_retry_after() {
    let options = AppenderOptions {
        max_pending_bytes: 200,
        ..AppenderOptions::default()
    };
    let (router, queue, _appender) = held(options);
    let body = format!("m,a={} value=1", "x".repeat(60));
    let first = tokio::spawn(router.clone().oneshot(write(&body)));
    blocking(&queue, HeldQueue::wait_for_append).await;
    let mut waits = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let response = router.clone().oneshot(write(&body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        waits.insert(retry_after(&response));
    }
    assert!(waits.len() > 1, "those refused together come back together");
    assert!(waits.iter().all(|wait| (1..=5).contains(wait)), "{waits:?}");
    blocking(&queue, |queue| queue.finish_one(Ok(()))).await;
    assert_eq!(
        first.await.unwrap().unwrap().status(),
        StatusCode::NO_CONTENT
    );
    // And then there is room again.
    let next = tokio::spawn(router.oneshot(write(&body)));
    blocking(&queue, |queue| queue.finish_one(Ok(()))).await;
    assert_eq!(
        next.await.unwrap().unwrap().status(),
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn a_failed_append_is_503_and_metadata_are_sent_again() {
    let (router, queue, _appender) = held(AppenderOptions::default());
    let request = WriteRequest {
        timeseries: vec![],
        metadata: vec![prompb::MetricMetadata {
            metric_family_name: "up".to_owned(),
            ..prompb::MetricMetadata::default()
        }],
    };
    let post = || {
        let mut builder = Request::post("/api/v1/write");
        for (name, value) in SNAPPY_PROTOBUF {
            builder = builder.header(*name, *value);
        }
        let body = Body::from(prompb::body(&request));
        tokio::spawn(router.clone().oneshot(builder.body(body).unwrap()))
    };
    let failed = post();
    let error = AppendError::Failed {
        partition: PartitionId(0),
        reason: "the disk is gone".to_owned(),
    };
    blocking(&queue, |queue| queue.finish_one(Err(error))).await;
    let response = failed.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!((1..=5).contains(&retry_after(&response)));
    // The lane may be done for; whatever it does, the metadata must come again.
    let again = post();
    blocking(&queue, |queue| queue.finish_one(Ok(()))).await;
    assert_eq!(
        again.await.unwrap().unwrap().status(),
        StatusCode::NO_CONTENT
    );
    // Now they are known, and nothing is appended.
    let known = post().await.unwrap().unwrap();
    assert_eq!(known.status(), StatusCode::NO_CONTENT);
    assert!(known.headers().get("millrace-position").is_none());
}

#[tokio::test]
async fn a_client_that_leaves_takes_nothing_with_it() {
    let (router, queue, _appender) = held(AppenderOptions::default());
    let request = WriteRequest {
        timeseries: vec![prompb::series(&[("__name__", "up")], &[(NOW, 1.0)])],
        metadata: vec![prompb::MetricMetadata {
            metric_family_name: "up".to_owned(),
            ..prompb::MetricMetadata::default()
        }],
    };
    let body = prompb::body(&request);
    let post = |body: Vec<u8>| {
        let request = Request::post("/api/v1/write").body(Body::from(body));
        tokio::spawn(router.clone().oneshot(request.unwrap()))
    };
    let left = post(body.clone());
    blocking(&queue, HeldQueue::wait_for_append).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    blocking(&queue, |queue| queue.finish_one(Ok(()))).await;
    // What goes on without the client is awake now, or will be once the threads behind it had their
    // turn: this runtime has but one.
    for _ in 0..100 {
        blocking(&queue, |_| std::thread::yield_now()).await;
    }
    // The append was noted: metadata that are durable are not sent again.
    let only_metadata = prompb::body(&WriteRequest {
        timeseries: vec![],
        ..request
    });
    // (If they were, this would wait for an append that nobody ends.)
    let patience = std::time::Duration::from_secs(30);
    let response = tokio::time::timeout(patience, post(only_metadata)).await;
    let response = response.expect("nothing is appended").unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert!(response.headers().get("millrace-position").is_none());
    assert!(queue.state.lock().waiting.is_empty());
}

#[tokio::test]
async fn a_closed_queue_is_503() {
    let (router, _queue, appender) = held(AppenderOptions::default());
    tokio::task::spawn_blocking(move || appender.close())
        .await
        .unwrap();
    let response = router.oneshot(write("m value=1")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    retry_after(&response);
}

#[tokio::test]
async fn memory_for_bodies_is_bounded() {
    let options = IngestOptions {
        decode_memory_bytes: 1000,
        ..IngestOptions::default()
    };
    let rig = Rig::with(options, AppenderOptions::default());
    let body = |len: usize| {
        let mut body = b"m value=1\n#".to_vec();
        body.resize(len, b'x');
        body
    };
    assert_eq!(
        rig.post("/write", &[], body(1000)).await.status,
        StatusCode::NO_CONTENT
    );
    let answer = rig.post("/write", &[], body(1001)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        answer.text().contains("ingest.decode_memory_bytes"),
        "{}",
        answer.text()
    );
    assert!(!answer.header("retry-after").is_empty());
    // Decoded bytes count too.
    let packed = snap::raw::Encoder::new().compress_vec(&body(990)).unwrap();
    assert!(packed.len() > 10);
    let encoded = [("content-encoding", "snappy")];
    let answer = rig.post("/write", &encoded, packed).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(rig.metric("millrace_ingest_decode_memory_bytes", &[]), 0.0);
}

#[tokio::test]
async fn more_than_the_queue_takes_at_once_is_413() {
    let options = AppenderOptions {
        max_pending_bytes: 100,
        ..AppenderOptions::default()
    };
    let rig = Rig::with(IngestOptions::default(), options);
    let answer = rig
        .post("/write", &[], format!("m,a={} value=1", "x".repeat(200)))
        .await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(
        answer.text().contains("queue.max_pending_bytes"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_large_request_is_spread_over_batches() {
    let options = AppenderOptions {
        max_batch_bytes: 8 << 10,
        ..AppenderOptions::default()
    };
    let rig = Rig::with(IngestOptions::default(), options);
    let body: String = (0..2_000)
        .map(|i| format!("m,host=h{i} a=1,b=2\n"))
        .collect();
    let answer = rig.post("/write", &[], body).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    assert_eq!(rig.values().len(), 4_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_requests_lose_and_repeat_nothing() {
    let rig = Arc::new(Rig::new());
    let mut tasks = Vec::new();
    for client in 0..8 {
        let rig = Arc::clone(&rig);
        tasks.push(tokio::spawn(async move {
            for i in 0..50i64 {
                let at = NOW - i;
                let body = format!("m,client=c{client},host=h{} value={i} {at}000000\n", i % 7);
                let answer = rig.post("/write", &[], body).await;
                assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let values = rig.values();
    assert_eq!(values.len(), 8 * 7);
    for client in 0..8 {
        let mut all: Vec<_> = (0..7)
            .flat_map(|host| {
                values[&format!("m{{client=\"c{client}\", host=\"h{host}\"}}")].clone()
            })
            .collect();
        all.sort_by_key(|sample| sample.0);
        let expect: Vec<_> = (0..50).rev().map(|i| (NOW - i, i as f64)).collect();
        assert_eq!(all, expect);
    }
}
