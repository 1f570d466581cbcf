//! What a stranger can make large, and what stops when nobody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millrace_fleet::wire::frame::FrameReader;
use millrace_fleet::{FleetOptions, FleetSource, ServeOptions};
use millrace_model::Labels;
use millrace_query::{
    CancelFlag, ReadContext, SampleColumns, Select, SeriesSource, SourceError, StoredSeries,
};

use crate::support::{
    Store, context, fleet, identity, options, read_all, runtime, source, table, until,
};
use crate::table::Table;

const ALL: [u32; 4] = [0, 1, 2, 3];

/// A hundred thousand series, and a count of those that were read.
#[derive(Debug, Default)]
struct Many {
    read: Arc<AtomicU64>,
    cancelled: Arc<AtomicU64>,
}

struct One(Labels, Arc<AtomicU64>);

impl StoredSeries for One {
    fn labels(&self) -> &Labels {
        &self.0
    }

    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        for i in 0..1000 {
            out.push(i * 10 + i % 3, (i as f64).sqrt());
        }
        Ok(())
    }
}

const SERIES: u64 = 100_000;

impl SeriesSource for Many {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        std::thread::spawn({
            let (cancel, cancelled) = (request.context.cancel.clone(), self.cancelled.clone());
            move || {
                until("the read is told that nobody waits", || {
                    cancel.is_cancelled()
                });
                cancelled.fetch_add(1, Ordering::SeqCst);
            }
        });
        let all = (0..SERIES).map(|n| {
            let labels = Labels::from_pairs([("instance", &*n.to_string())]).unwrap();
            Box::new(One(labels, self.read.clone())) as Box<dyn StoredSeries>
        });
        Ok(all.collect())
    }
}

fn many() -> (Store, Arc<AtomicU64>, Arc<AtomicU64>) {
    let store = Store::start("many", &Table::default(), &ALL);
    let source = Many::default();
    let (read, cancelled) = (source.read.clone(), source.cancelled.clone());
    *store.shards.source.lock() = Some(Arc::new(source));
    (store, read, cancelled)
}

fn request(timeout_ms: u64) -> String {
    format!(
        r#"{{"queue":"{}","partitions":[0],"tenant":"anonymous","timeout_ms":{timeout_ms},
        "ask":{{"select":{{"matchers":[],"start":0,"end":1}}}}}}"#,
        identity().id
    )
}

async fn ask(store: &Store, timeout_ms: u64) -> reqwest::Response {
    let http = crate::support::http();
    let url = format!("http://{}/internal/v1/read", store.address);
    http.post(url)
        .body(request(timeout_ms))
        .send()
        .await
        .unwrap()
}

#[test]
fn a_store_reads_no_further_than_its_client_and_stops_when_that_goes_away() {
    let (store, read, cancelled) = many();
    let response = runtime().block_on(async {
        let mut response = ask(&store, 60_000).await;
        response.chunk().await.unwrap().unwrap();
        response
    });
    until("it began", || read.load(Ordering::SeqCst) > 0);
    // What is under way is in the buffers of sockets; nothing near a hundred thousand series.
    until("it stands still", || {
        let before = read.load(Ordering::SeqCst);
        std::thread::park_timeout(Duration::from_millis(500));
        before == read.load(Ordering::SeqCst)
    });
    let last = read.load(Ordering::SeqCst);
    assert!(
        last < SERIES / 4,
        "{last} series were read ahead of the client"
    );
    assert_eq!(cancelled.load(Ordering::SeqCst), 0);
    drop(response);
    until("it is told", || cancelled.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_query_that_is_cancelled_stops_the_stores() {
    let (store, read, cancelled) = many();
    let fleet = source(&[&store]);
    let cancel = CancelFlag::default();
    let context = Arc::new(ReadContext::new(false, cancel.clone(), None));
    let asking = std::thread::spawn(move || read_all(&fleet, &context).map(|all| all.len()));
    until("it began", || read.load(Ordering::SeqCst) > 100);
    cancel.cancel();
    let error = asking.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("nobody waits"), "{error}");
    until("the store is told", || {
        cancelled.load(Ordering::SeqCst) == 1
    });
}

#[test]
fn the_deadline_goes_to_the_store_which_says_when_it_has_passed() {
    let (store, _, cancelled) = many();
    let body = runtime().block_on(async {
        let mut response = ask(&store, 300).await;
        let mut bytes = response.chunk().await.unwrap().unwrap().to_vec();
        // Too slow a reader, whom the store does not wait for.
        let mut ticks = tokio::time::interval(Duration::from_millis(600));
        ticks.tick().await;
        ticks.tick().await;
        while let Some(chunk) = response.chunk().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        bytes
    });
    let mut reader = FrameReader::default();
    reader.push(&body);
    let mut last = None;
    while let Some(frame) = reader.next_frame().unwrap() {
        last = Some(frame);
    }
    let text = String::from_utf8_lossy(&last.unwrap().body).into_owned();
    assert!(text.contains("too long"), "{text}");
    until("the work has ended", || {
        cancelled.load(Ordering::SeqCst) == 1
    });

    let fleet = source(&[&store]);
    let deadline = std::time::Instant::now() + Duration::from_millis(200);
    let context = Arc::new(ReadContext::new(
        false,
        CancelFlag::default(),
        Some(deadline),
    ));
    let error = read_all(&fleet, &context).unwrap_err().to_string();
    assert!(
        error.contains("in time") || error.contains("too long"),
        "{error}"
    );
}

#[test]
fn an_answer_over_the_memory_of_a_read_is_an_error_that_names_the_bound() {
    let table = table(200, 500);
    let stores = [
        Store::start("a", &table, &[0, 1]),
        Store::start("b", &table, &[2, 3]),
    ];
    let of_read = FleetOptions {
        max_read_bytes: 50_000,
        ..options()
    };
    let all = FleetSource::new(fleet(&[&stores[0], &stores[1]], of_read));
    match read_all(&all, &context()) {
        Err(SourceError::Limit { what, limit }) => {
            assert_eq!((what, limit), ("bytes of series from stores", 50_000));
        }
        other => panic!("{:?}", other.map(|all| all.len())),
    }
    let of_all = FleetOptions {
        max_buffer_bytes: 50_000,
        ..options()
    };
    let all = FleetSource::new(fleet(&[&stores[0], &stores[1]], of_all));
    let error = read_all(&all, &context()).unwrap_err().to_string();
    assert!(error.contains("50000 bytes"), "{error}");
    // What is given back can be used again: small answers fit, one after the other.
    let one = [millrace_model::Matcher::equal("instance", "host-1")];
    for _ in 0..50 {
        let range = millrace_model::TimeRange::ALL;
        let found = crate::support::read(&all, &one, range, &context()).unwrap();
        assert_eq!(found.len(), 1);
    }
}

#[test]
fn reads_beyond_the_places_of_a_store_are_refused_as_busy() {
    let options = ServeOptions {
        max_reads: 1,
        max_wait: Duration::from_millis(50),
        ..ServeOptions::default()
    };
    let store = Store::of("a", &Table::default(), &ALL, identity(), options);
    *store.shards.source.lock() = Some(Arc::new(Many::default()));
    runtime().block_on(async {
        let mut first = ask(&store, 60_000).await;
        first.chunk().await.unwrap().unwrap();
        let second = ask(&store, 60_000).await;
        assert_eq!(second.status(), 503);
        let text = second.text().await.unwrap();
        assert!(text.contains("busy") && text.contains("1 reads"), "{text}");
        drop(first);
    });
}
