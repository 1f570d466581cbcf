//! The targets and their rules.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt as _;
use millrace_model::{ManualClock, TenantId, TimestampMs};
use millrace_query::api::{self, AlwaysFresh, Api, ApiMetrics, ApiOptions, Companions};
use millrace_query::{
    CancelFlag, Engine, EngineOptions, QueryError, QueryOutcome, QueryRequest, QueryTime,
};
use prometheus::Registry;
use tower::ServiceExt as _;

use crate::decoders::DECODERS;
use crate::harness::Target;
use crate::source::{CountingSource, SAMPLES};

/// When queries are asked, in ms.
const NOW: i64 = 400_000;

/// The targets for queries, with their corpora; the last one must fail.
const QUERIES: [Named; 3] = [
    Named {
        name: "query_text",
        corpus: "fuzz/corpus/query_text",
        target: query_text,
    },
    Named {
        name: "request",
        corpus: "fuzz/corpus/request",
        target: request,
    },
    Named {
        name: "canary",
        // It lives on the queries.
        corpus: "fuzz/corpus/query_text",
        target: canary,
    },
];

/// A target with its name.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// The name.
    pub name: &'static str,
    /// Where its inputs are, from the root of the repository.
    pub corpus: &'static str,
    /// What is run.
    pub target: Target,
}

/// All targets. Those whose names begin with `canary` must fail.
#[must_use]
pub fn targets() -> Vec<Named> {
    DECODERS.iter().chain(&QUERIES).copied().collect()
}

/// So small that mutations reach the bounds, and the text's bounds as they are by default.
fn options() -> EngineOptions {
    EngineOptions {
        max_samples: 20_000,
        max_points_per_series: 200,
        max_memory_bytes: 4 << 20,
        threads: 1,
        ..EngineOptions::default()
    }
}

struct Rig {
    source: Arc<CountingSource>,
    engine: Engine,
}

thread_local! {
    // Per thread, so that the counts of tests that run beside each other stay apart.
    static RIG: RefCell<Rig> = RefCell::new({
        let source = Arc::new(CountingSource::default());
        Rig { engine: Engine::new(source.clone(), options()), source }
    });
}

fn asked(engine: &Engine, text: &str, time: QueryTime) -> Result<QueryOutcome, QueryError> {
    engine.query(&QueryRequest {
        tenant: TenantId::anonymous(),
        text: text.to_owned(),
        time,
        lookback: None,
        timeout: None,
        cancel: CancelFlag::default(),
        partial: false,
        point: Arc::default(),
    })
}

/// Any text is answered, or refused by the words of the user's fault; what is refused as bad has
/// read nothing, and nothing reads more than its selectors, once each.
///
/// # Panics
///
/// Where that does not hold.
pub fn query_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    RIG.with_borrow(|rig| {
        let range = QueryTime::Range {
            start: TimestampMs(NOW - 290_000),
            end: TimestampMs(NOW),
            step_ms: 10_000,
        };
        for time in [QueryTime::Instant(TimestampMs(NOW)), range] {
            rig.source.take_read();
            let outcome = asked(&rig.engine, &text, time);
            let read = rig.source.take_read();
            match outcome {
                Ok(_) | Err(QueryError::Execution(_)) => {}
                Err(QueryError::BadData(_)) => assert_eq!(read, 0, "read for a bad query"),
                Err(error) => panic!("not the user's fault: {error:?}"),
            }
            // A selector takes two bytes and more.
            let selectors = text.len().min(options().max_query_bytes) as u64 / 2 + 1;
            let bound = selectors * rig.source.samples();
            assert!(read <= bound, "{read} samples read, {bound} are enough");
            if text.len() > options().max_query_bytes {
                assert_eq!(read, 0, "read for a text over the bound");
            }
        }
    });
}

static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    let source = Arc::new(CountingSource::default());
    let engine = Engine::new(source.clone(), options());
    api::router(Api {
        engine: Arc::new(engine),
        source,
        clock: Arc::new(ManualClock::new(TimestampMs(NOW))),
        freshness: Arc::new(AlwaysFresh),
        companions: Companions::default(),
        options: ApiOptions::default(),
        metrics: ApiMetrics::new(&Registry::new()).expect("a registry of its own"),
    })
});

/// An answer to a whole request.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Of what type the body is.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Sends a request, given as a line `METHOD target`, lines of headers, an empty line and the body;
/// none if that is no request.
///
/// # Panics
///
/// If no runtime can be made.
#[must_use]
pub fn reply(data: &[u8]) -> Option<Reply> {
    let head_end = data.windows(2).position(|w| w == b"\n\n");
    let (head, body) = match head_end {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, &[][..]),
    };
    let mut lines = head.split(|b| *b == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let at = line.iter().position(|b| *b == b':')?;
        request = request.header(&line[..at], line[at + 1..].trim_ascii());
    }
    let request = request.body(Body::from(body.to_vec())).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime of one thread");
    runtime.block_on(async {
        let response = ROUTER.clone().oneshot(request).await.ok()?;
        let (parts, body) = response.into_parts();
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        Some(Reply {
            status: parts.status.as_u16(),
            content_type: content_type.unwrap_or_default().to_owned(),
            body: body.collect().await.ok()?.to_bytes().to_vec(),
        })
    })
}

/// Any request gets an answer that is not the server's fault, and JSON where it says so.
///
/// # Panics
///
/// Where that does not hold.
pub fn request(data: &[u8]) {
    let Some(reply) = reply(data) else {
        return;
    };
    let status = reply.status;
    assert!(
        (200..300).contains(&status) || (400..500).contains(&status) || status == 503,
        "status {status}: {}",
        String::from_utf8_lossy(&reply.body)
    );
    if !reply.content_type.starts_with("application/json") {
        return;
    }
    let json: serde_json::Value =
        serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("no JSON: {error}"));
    if status >= 400 && json["status"] == "error" {
        let text = json["error"].as_str();
        assert!(text.is_some_and(|text| !text.is_empty()), "no reason");
    }
}

/// A planted mistake: falls over a range that is not closed. It shows that the harness reaches what
/// lies a few mutations from the corpus, and that it says so.
///
/// # Panics
///
/// On such a text.
pub fn canary(data: &[u8]) {
    let open = data.windows(3).position(|w| w == b"[5m");
    let closed = open.is_none_or(|at| data[at..].contains(&b']'));
    assert!(closed, "the planted mistake was found");
    // Something of the data is looked at, so that nothing is optimised away.
    assert!(data.len() < usize::MAX - SAMPLES.unsigned_abs() as usize);
}
