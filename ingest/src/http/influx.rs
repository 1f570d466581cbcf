//! What clients of InfluxDB ask besides writing.

use axum::extract::Query;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

/// Clients look here for what they may expect. This names the API that is spoken, that of
/// InfluxDB 1.8, since some read it as a version and go by it.
const VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-influxdb-version"),
    HeaderValue::from_static("1.8.10"),
);
/// What really answers.
const BUILD: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-influxdb-build"),
    HeaderValue::from_static(concat!("millrace-", env!("CARGO_PKG_VERSION"))),
);

/// Adds the headers that every answer to a client of InfluxDB has.
pub(super) fn add_headers(response: &mut Response) {
    for (name, value) in [VERSION, BUILD] {
        response.headers_mut().insert(name, value);
    }
}

/// `GET|HEAD /ping`: 204, or with `verbose=true` 200 and the version.
pub(super) async fn ping(uri: Uri) -> Response {
    let params = Query::<Vec<(String, String)>>::try_from_uri(&uri);
    let verbose = params.is_ok_and(|Query(pairs)| {
        let says_no = |value: &str| matches!(value, "" | "0" | "false");
        pairs
            .iter()
            .any(|(n, value)| n == "verbose" && !says_no(value))
    });
    let mut response = if verbose {
        let body = serde_json::json!({ "version": env!("CARGO_PKG_VERSION") });
        axum::Json(body).into_response()
    } else {
        StatusCode::NO_CONTENT.into_response()
    };
    add_headers(&mut response);
    response
}

/// `GET /health`, as InfluxDB 2 answers it. It says that requests are taken, nothing more; for
/// readiness there is `/-/ready`.
pub(super) async fn health() -> Response {
    let body = serde_json::json!({
        "name": "millrace",
        "message": "ready for writes",
        "status": "pass",
        "checks": [],
        "version": env!("CARGO_PKG_VERSION"),
    });
    let mut response = axum::Json(body).into_response();
    add_headers(&mut response);
    response
}
