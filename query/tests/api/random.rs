//! Requests that nobody would send on purpose: whatever comes, the answer is JSON in the API's
//! shape, and never a failure of the server's own.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt;
use millrace_model::{ManualClock, TimestampMs};
use millrace_query::api::{self, AlwaysFresh, Api, ApiMetrics, ApiOptions, Companions};
use millrace_query::{Engine, EngineOptions};
use prometheus::Registry;
use proptest::prelude::*;
use tower::ServiceExt;

use crate::table::Table;

const PATHS: [&str; 13] = [
    "query",
    "query_range",
    "query_exemplars",
    "format_query",
    "parse_query",
    "series",
    "labels",
    "label/a/values",
    "label/U__a_2e_b/values",
    "metadata",
    "rules",
    "status/runtimeinfo",
    "nothing",
];

fn router() -> axum::Router {
    static ROUTER: OnceLock<axum::Router> = OnceLock::new();
    let make = || {
        let source = Arc::new(Table::default().with(
            &[("__name__", "up"), ("a", "b")],
            &[(0, 1.0), (15_000, f64::NAN), (30_000, 3.0)],
        ));
        api::router(Api {
            engine: Arc::new(Engine::new(source.clone(), EngineOptions::default())),
            source,
            clock: Arc::new(ManualClock::new(TimestampMs(30_000))),
            freshness: Arc::new(AlwaysFresh),
            options: ApiOptions::default(),
            companions: Companions::default(),
            metrics: ApiMetrics::new(&Registry::new()).unwrap(),
        })
    };
    ROUTER.get_or_init(make).clone()
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02x}"),
    };
    text.bytes().map(escape).collect()
}

/// Expressions made of the language's own words, and anything.
fn expression() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "up",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ":",
        ",",
        "5m",
        "1",
        "-",
        "+",
        "*",
        "^",
        "==",
        "bool",
        "sum",
        "by",
        "without",
        "rate",
        "topk",
        "offset",
        "@",
        "start()",
        "end()",
        "on",
        "group_left",
        "and",
        "or",
        "unless",
        "a=\"b\"",
        "a=~\".*\"",
        "\"",
        "'",
        "NaN",
        "Inf",
        "0x1",
        "label_replace",
        "quantile",
        "atan2",
        "#",
        "\\",
        "é",
        "time()",
        "vector",
        "1e999",
        "absent_over_time",
        "fill",
        "anchored",
        "smoothed",
        "step()",
        "limitk",
        "ignoring",
    ]);
    prop_oneof![
        prop::collection::vec(word, 0..12).prop_map(|words| words.join(" ")),
        ".{0,20}",
        Just("up".to_owned()),
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        expression(),
        "-?[0-9]{1,20}(\\.[0-9]{0,12})?(e-?[0-9]{1,3})?",
        "[0-9]{1,6}(y|w|d|h|m|s|ms)",
        Just(String::new()),
        Just("30".to_owned()),
        Just("1970-01-01T00:00:30.5Z".to_owned()),
        Just("9223372036854775807".to_owned()),
        Just("-292273086-05-16T16:47:06Z".to_owned()),
    ]
}

fn parameters() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "query",
        "query",
        "query",
        "time",
        "start",
        "end",
        "step",
        "timeout",
        "limit",
        "stats",
        "lookback_delta",
        "match[]",
        "metric",
        "limit_per_metric",
        "other",
    ]);
    let pair =
        (name, value()).prop_map(|(name, value)| format!("{}={}", escaped(name), escaped(&value)));
    let raw = "[ -~]{0,12}".prop_map(|text| {
        text.replace(
            [' ', '"', '<', '>', '#', '\\', '^', '`', '{', '|', '}'],
            "%",
        )
    });
    let any = prop_oneof![8 => pair, 1 => raw];
    prop::collection::vec(any, 0..7).prop_map(|pairs| pairs.join("&"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_request_gets_json_and_never_500(
        path in prop::sample::select(PATHS.to_vec()),
        post in any::<bool>(),
        in_url in parameters(),
        in_form in parameters(),
    ) {
        let target = format!("/api/v1/{path}?{in_url}");
        let builder = Request::builder().method(if post { "POST" } else { "GET" }).uri(&target);
        let request = builder
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(if post { in_form.clone() } else { String::new() }));
        // What is no address at all never gets as far as the router.
        prop_assume!(request.is_ok());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (status, text) = runtime.block_on(async {
            let response = router().oneshot(request.unwrap()).await.unwrap();
            let status = response.status().as_u16();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        });
        let json: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|error| TestCaseError::fail(format!("{error}: {text:?}")))?;
        let word = if status == 200 { "success" } else { "error" };
        prop_assert_eq!(&json["status"], word, "{}", status);
        prop_assert!([200, 400, 404, 405, 422, 503].contains(&status), "{} {}", status, json);
        if status == 200 {
            prop_assert!(json.get("data").is_some_and(|data| !data.is_null()), "{}", json);
        } else {
            prop_assert!(json["error"].as_str().is_some_and(|text| !text.is_empty()), "{}", json);
        }
    }
}
