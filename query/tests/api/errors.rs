//! Every refusal, with its code and its words.

use millrace_query::QueryError;

use crate::client::{Fixture, PANIC, request};

#[tokio::test]
async fn bad_parameters_are_named_in_prometheus_words() {
    let f = Fixture::new();
    // What a Prometheus answers to the same requests, but for the two that it takes.
    let cases = [
        (
            "query?query=up&time=x",
            r#"invalid parameter "time": Invalid time value for 'time': cannot parse "x" to a valid timestamp"#,
        ),
        (
            "query?query=up&time=NaN",
            r#"invalid parameter "time": Invalid time value for 'time': cannot parse "NaN" to a valid timestamp"#,
        ),
        (
            "query?query=up&timeout=x",
            r#"invalid parameter "timeout": cannot parse "x" to a valid duration"#,
        ),
        (
            "query?query=up&lookback_delta=x",
            r#"error parsing lookback delta duration: cannot parse "x" to a valid duration"#,
        ),
        (
            "query?query=up&limit=-1",
            r#"invalid parameter "limit": limit must be non-negative"#,
        ),
        (
            "query?query=up&limit=x",
            r#"invalid parameter "limit": cannot parse "x" to a whole number"#,
        ),
        (
            "query_range?query=up&start=x&end=2&step=1",
            r#"invalid parameter "start": cannot parse "x" to a valid timestamp"#,
        ),
        (
            "query_range?query=up&end=2&step=1",
            r#"invalid parameter "start": cannot parse "" to a valid timestamp"#,
        ),
        (
            "query_range?query=up&start=1&step=1",
            r#"invalid parameter "end": cannot parse "" to a valid timestamp"#,
        ),
        (
            "query_range?query=up&start=2&end=1&step=1",
            r#"invalid parameter "end": end timestamp must not be before start time"#,
        ),
        (
            "query_range?query=up&start=1&end=2",
            r#"invalid parameter "step": cannot parse "" to a valid duration"#,
        ),
        (
            "query_range?query=up&start=1&end=2&step=1x",
            r#"invalid parameter "step": cannot parse "1x" to a valid duration"#,
        ),
        (
            "query_range?query=up&start=1&end=2&step=1e20",
            r#"invalid parameter "step": cannot parse "1e20" to a valid duration. It overflows int64"#,
        ),
        (
            "query_range?query=up&start=1&end=2&step=0",
            r#"invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer"#,
        ),
        (
            "query_range?query=up&start=1&end=2&step=-1",
            r#"invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer"#,
        ),
        (
            "query_range?query=up&start=1&end=2&step=0.0001",
            r#"invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer"#,
        ),
        (
            "query_range?query=up&start=0&end=11001&step=1",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
        (
            "query_range?query=up&start=-9223372036854775&end=9223372036854775&step=1y",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
        ("series", "no match[] parameter provided"),
        (
            "series?match[]=%7B%7D",
            r#"invalid parameter "match[]": match[] must contain at least one non-empty matcher"#,
        ),
        (
            "series?match[]=up&start=x",
            r#"invalid parameter "start": cannot parse "x" to a valid timestamp"#,
        ),
        (
            "labels?match[]=%7Ba=~%22.*%22%7D",
            "match[] must contain at least one non-empty matcher",
        ),
        (
            "labels?end=x",
            r#"invalid parameter "end": cannot parse "x" to a valid timestamp"#,
        ),
        (
            "labels?limit=-1",
            r#"invalid parameter "limit": limit must be non-negative"#,
        ),
        ("label/U__/values", r#"invalid label name: """#),
        ("metadata?limit=x", "limit must be a number"),
        (
            "metadata?limit_per_metric=x",
            "limit_per_metric must be a number",
        ),
        (
            "query_exemplars?query=up&start=2&end=1",
            "end timestamp must not be before start timestamp",
        ),
        (
            "query?query=%zz",
            r#"error parsing form values: invalid URL escape "%zz""#,
        ),
    ];
    for (target, error) in cases {
        f.get(target).await.is_error(400, "bad_data", error);
    }
    assert!(
        f.engine.seen.lock().is_empty(),
        "a refused request was evaluated"
    );
    f.get("query_range?query=1&start=0&end=11000&step=1")
        .await
        .json();
    assert_eq!(f.engine.seen.lock().len(), 1, "11,000 steps are allowed");
}

#[tokio::test]
async fn match_takes_series_selectors_only() {
    let f = Fixture::new();
    for text in [
        "rate(up[1m])",
        "up%5B1m%5D",
        "1",
        "up%20offset%205m",
        "up%20@%201",
        "%22a%22",
    ] {
        let reply = f.get(&format!("labels?match[]={text}")).await;
        assert_eq!(reply.status, 400, "{text}: {}", reply.text);
        assert_eq!(reply.json()["errorType"], "bad_data", "{}", reply.text);
    }
}

#[tokio::test]
async fn an_expression_that_cannot_be_read_is_blamed_on_its_parameter() {
    let f = Fixture::new();
    let text = "1:5: parse error: unclosed left parenthesis";
    f.engine
        .answer("q", Err(QueryError::BadData(text.to_owned())));
    let expect = format!("invalid parameter \"query\": {text}");
    f.get("query?query=q")
        .await
        .is_error(400, "bad_data", &expect);
    f.get("query_range?query=q&start=0&end=1&step=1")
        .await
        .is_error(400, "bad_data", &expect);
    for endpoint in ["format_query", "parse_query"] {
        let reply = f.get(&format!("{endpoint}?query=sum(")).await;
        reply.is_error(400, "bad_data", &expect);
    }
}

#[tokio::test]
async fn every_kind_of_failure_has_its_code() {
    let f = Fixture::new();
    let text = || "why".to_owned();
    let cases = [
        (QueryError::Execution(text()), 422, "execution"),
        (QueryError::Timeout(text()), 503, "timeout"),
        (QueryError::Canceled(text()), 499, "canceled"),
        (QueryError::Unavailable(text()), 503, "unavailable"),
        (QueryError::Internal(text()), 500, "internal"),
    ];
    for (error, status, kind) in cases {
        f.engine.answer("q", Err(error));
        let reply = f.get("query?query=q").await;
        reply.is_error(status, kind, "why");
        let retry = reply.headers.get("retry-after");
        assert_eq!(retry.is_some(), kind == "unavailable", "{kind}: {retry:?}");
    }
}

#[tokio::test]
async fn a_panic_is_the_requests_own_500() {
    let f = Fixture::new();
    for _ in 0..20 {
        let reply = f.get(&format!("query?query={PANIC}")).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["errorType"]),
            (500, &"internal".into())
        );
    }
    assert_eq!(f.get("query?query=1").await.status, 200);
}

#[tokio::test]
async fn unknown_paths_are_404_in_the_apis_shape() {
    let f = Fixture::new();
    for path in [
        "nope",
        "label/x",
        "query/deeper",
        "status/nope",
        "suggestions",
    ] {
        let error = format!("no such path: /api/v1/{path}");
        f.get(path).await.is_error(404, "not_found", &error);
        f.post(path, "a=b").await.is_error(404, "not_found", &error);
    }
}

/// Grafana's frontend asks with POST first and takes 405 to mean that it should use GET.
#[tokio::test]
async fn a_wrong_method_is_405_with_the_right_ones() {
    let f = Fixture::new();
    for path in [
        "label/a/values",
        "metadata",
        "rules",
        "alerts",
        "targets",
        "status/buildinfo",
    ] {
        let reply = f.post(path, "a=b").await;
        let error = format!("/api/v1/{path} does not take POST");
        reply.is_error(405, "method_not_allowed", &error);
        assert_eq!(reply.headers["allow"], "GET,HEAD", "{path}");
    }
    let reply = f.send(request("DELETE", "query", "")).await;
    reply.is_error(
        405,
        "method_not_allowed",
        "/api/v1/query does not take DELETE",
    );
    assert_eq!(reply.headers["allow"], "GET,HEAD,POST");
}
