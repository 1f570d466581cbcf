//! `/federate`: what a Prometheus scrapes from us.

use axum::body::Body;
use http::Request;
use millrace_model::stale_nan;
use millrace_query::api::ApiOptions;

use crate::client::{Fixture, NOW, Reply, Sender};
use crate::table::Table;

fn table() -> Table {
    let minute = 60_000;
    Table::default()
        .with(
            &[("__name__", "up"), ("instance", "b:9100"), ("job", "node")],
            &[(NOW - minute, 0.0), (NOW - 1, 1.0), (NOW + 1, 7.0)],
        )
        .with(
            &[("__name__", "up"), ("job", "a\"\\\n")],
            &[(NOW, 1_234_567.0)],
        )
        .with(&[("__name__", "old")], &[(NOW - 6 * minute, 1.0)])
        .with(&[("__name__", "edge")], &[(NOW - 5 * minute, f64::NAN)])
        .with(
            &[("__name__", "gone")],
            &[(NOW - 2 * minute, 1.0), (NOW - minute, stale_nan())],
        )
        .with(&[("job", "nameless")], &[(NOW, 1.0)])
        .with(
            &[("__name__", "http.requests"), ("täg", "<&>")],
            &[(NOW, -0.0)],
        )
}

async fn ask(query: &str, accept: &str) -> Reply {
    let f = Fixture::over(table(), ApiOptions::default());
    let request = Request::get(format!("/federate{query}"))
        .header("accept", accept)
        .body(Body::empty())
        .unwrap();
    Sender(f.router.clone()).send(request).await
}

#[tokio::test]
async fn the_newest_samples_are_grouped_by_metric_with_their_own_timestamps() {
    let reply = ask("?match[]=%7B__name__!=%22%22%7D", "*/*").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(
        reply.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let expect = format!(
        r#"# TYPE edge untyped
edge{{instance=""}} NaN {}
# TYPE http_requests untyped
http_requests{{t_g="<&>",instance=""}} -0 {NOW}
# TYPE up untyped
up{{instance="b:9100",job="node"}} 1 {}
up{{job="a\"\\\n",instance=""}} 1.234567e+06 {NOW}
"#,
        NOW - 300_000,
        NOW - 1,
    );
    assert_eq!(reply.text, expect);
}

#[tokio::test]
async fn a_client_that_knows_quoted_names_gets_them() {
    let accept = "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.1";
    let reply = ask("?match[]=%7B%22http.requests%22%7D", accept).await;
    assert_eq!(
        reply.headers["content-type"],
        "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
    );
    let expect = format!(
        "# TYPE \"http.requests\" untyped\n\
         {{\"http.requests\",\"täg\"=\"<&>\",instance=\"\"}} -0 {NOW}\n"
    );
    assert_eq!(reply.text, expect);
}

#[tokio::test]
async fn several_selectors_are_merged_and_each_series_comes_once() {
    let reply = ask("?match[]=up&match[]=%7Bjob=%22node%22%7D&match[]=edge", "").await;
    let lines: Vec<_> = reply.text.lines().map(|line| &line[..3]).collect();
    assert_eq!(lines, ["# T", "edg", "# T", "up{", "up{"], "{}", reply.text);
}

#[tokio::test]
async fn no_selector_selects_nothing_and_a_wrong_one_is_400() {
    let reply = ask("", "").await;
    assert_eq!((reply.status.as_u16(), reply.text.as_str()), (200, ""));
    assert_eq!(ask("?match[]=up%7B", "").await.status, 400);
    assert_eq!(ask("?match[]=%7Ba=~%22.*%22%7D", "").await.status, 400);
}
