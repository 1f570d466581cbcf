//! Scripts of other origins: `Access-Control-Allow-Origin` and the preflight before it.

use axum::body::Body;
use http::Request;
use millrace_query::api::{ApiOptions, CorsOrigin};

use crate::client::{Fixture, Reply, Sender};
use crate::table::Table;

async fn ask(pattern: Option<&str>, method: &str, origin: Option<&str>) -> Reply {
    let f = Fixture::over(
        Table::default(),
        ApiOptions {
            cors_origin: pattern.map(|pattern| CorsOrigin::new(pattern).unwrap()),
            ..ApiOptions::default()
        },
    );
    let mut request = Request::builder()
        .method(method)
        .uri("/api/v1/query?query=1");
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    let request = request.body(Body::empty()).unwrap();
    Sender(f.router.clone()).send(request).await
}

fn allowed(reply: &Reply) -> Option<&str> {
    let value = reply.headers.get("access-control-allow-origin");
    value.map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn nobody_is_allowed_unless_the_setting_says_so() {
    let reply = ask(None, "GET", Some("http://evil.example")).await;
    assert_eq!((reply.status.as_u16(), allowed(&reply)), (200, None));
    assert!(!reply.headers.contains_key("vary"));
}

#[tokio::test]
async fn everybody_or_those_that_match_as_a_whole_are_allowed() {
    let origin = "https://grafana.example";
    let reply = ask(Some(".*"), "GET", Some(origin)).await;
    assert_eq!(allowed(&reply), Some("*"));
    assert_eq!(reply.headers["vary"], "Origin");
    assert_eq!(reply.headers["access-control-expose-headers"], "Date");
    let some = Some("https?://(grafana|dash)\\.example");
    assert_eq!(allowed(&ask(some, "GET", Some(origin)).await), Some(origin));
    let other = Some("https://grafana.example.evil");
    assert_eq!(allowed(&ask(some, "GET", other).await), None);
    assert_eq!(allowed(&ask(some, "GET", None).await), None);
}

#[tokio::test]
async fn a_preflight_is_answered_with_204_and_the_methods() {
    let reply = ask(Some(".*"), "OPTIONS", Some("http://a")).await;
    assert_eq!(reply.status, 204);
    assert_eq!(reply.text, "");
    assert_eq!(
        reply.headers["access-control-allow-methods"],
        "GET, POST, OPTIONS"
    );
    assert_eq!(
        reply.headers["access-control-allow-headers"],
        "Accept, Authorization, Content-Type, Origin"
    );
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let reply = ask(None, "HEAD", None).await;
    assert_eq!((reply.status.as_u16(), reply.text.as_str()), (200, ""));
    assert_eq!(reply.headers["content-type"], "application/json");
}
