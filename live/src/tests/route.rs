//! The route.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use millrace_query::api::Evaluate;
use millrace_query::{Engine, EngineOptions, Select, SeriesSource, SourceError, StoredSeries};
use tower::ServiceExt as _;

use super::world::record;
use super::*;

/// The engine reads selectors and evaluates nothing.
#[derive(Debug)]
struct Nothing;

impl SeriesSource for Nothing {
    fn select(&self, _: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        panic!("nobody queries")
    }
}

fn served(live: &Live) -> Router {
    let engine = Engine::new(Arc::new(Nothing), EngineOptions::default());
    let engine: Arc<dyn Evaluate> = Arc::new(engine);
    crate::router(live.clone(), engine)
}

async fn ask(live: &Live, query: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::get(format!("/api/v1/live{query}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    served(live).oneshot(request).await.unwrap()
}

/// Reads until the text has `until`.
async fn text(body: &mut Body, until: &str) -> String {
    let mut text = String::new();
    while !text.contains(until) {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
        let frame = frame.expect("in time").expect("more").unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    text
}

const SERIES_A: &str = "?match[]=%7Bseries%3D%22a%22%7D";

#[tokio::test]
async fn server_sent_events_carry_their_place_and_a_header_goes_on_from_it() {
    let world = World::new(1);
    let live = feed(&world, options());
    let response = ask(&live, SERIES_A, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let hello = text(&mut body, "\n\n").await;
    let queue = format!("{:032x}", 7);
    let head = format!("event: hello\nid: {queue}/0:0\nretry: ");
    assert!(hello.starts_with(&head), "{hello}");
    world.push(0, record("anonymous", &[("a", 1, 21.5)]));
    let samples = text(&mut body, "\n\n").await;
    assert_eq!(
        samples,
        format!(
            "event: samples\nid: {queue}/0:1\ndata: {{\"partition\":0,\"series\":[\
             {{\"metric\":{{\"__name__\":\"m\",\"series\":\"a\"}},\"samples\":[[1,\"21.5\"]]}}]}}\n\n"
        )
    );
    // The header counts, as a browser has the old URL.
    let at = format!("{queue}/0:0");
    let query = format!("{SERIES_A}&position={queue}/0:1");
    let response = ask(&live, &query, &[("last-event-id", &at)]).await;
    let again = text(&mut response.into_body(), "event: samples").await;
    assert!(again.contains(&format!("id: {queue}/0:0\n")), "{again}");
    live.close();
    let end = text(&mut body, "event: goodbye").await;
    assert!(end.contains("retry: "), "{end}");
}

#[tokio::test]
async fn wrong_questions_are_told_what_is_wrong() {
    let live = feed(&World::new(1), options());
    for (query, what) in [
        ("", "no match[] parameter provided"),
        ("?match[]=up%7B", "match[]: "),
        (
            "?match[]=%7Ba%3D~%22.*%22%7D",
            "at least one non-empty matcher",
        ),
        (
            "?match[]=up&position=here",
            "not a queue position: \"here\"",
        ),
    ] {
        let response = ask(&live, query, &[]).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errorType"], "bad_data");
        assert!(body["error"].as_str().unwrap().contains(what), "{body}");
    }
    assert_eq!(live.drained(Duration::ZERO).await, 0);
}

#[tokio::test]
async fn one_subscriber_too_many_is_asked_to_come_later() {
    let two = LiveOptions {
        max_subscribers: 2,
        ..options()
    };
    let live = feed(&World::new(1), two);
    let first = ask(&live, SERIES_A, &[]).await;
    let second = ask(&live, SERIES_A, &[]).await;
    let third = ask(&live, SERIES_A, &[]).await;
    assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(third.headers().contains_key("retry-after"));
    drop((first, third));
    assert_eq!(ask(&live, SERIES_A, &[]).await.status(), StatusCode::OK);
    drop(second);
}
