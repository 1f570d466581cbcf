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

/// `GET|POST /query`: what clients of InfluxDB 1 say before they write. Any database is taken, so
/// there is nothing to create; data are read by PromQL.
pub(super) async fn query(uri: Uri, body: String) -> Response {
    let asked = [uri.query().unwrap_or_default(), &body]
        .iter()
        .find_map(|form| {
            let form = format!("/?{form}").parse::<Uri>().ok()?;
            let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&form).ok()?;
            let (_, statements) = pairs.into_iter().find(|(name, _)| name == "q")?;
            Some(statements)
        });
    let (status, body) = match answers(asked.as_deref().unwrap_or_default()) {
        Ok(results) => (StatusCode::OK, serde_json::json!({ "results": results })),
        Err(error) => (
            StatusCode::BAD_REQUEST,
            serde_json::json!({ "error": error }),
        ),
    };
    let mut response = (status, axum::Json(body)).into_response();
    add_headers(&mut response);
    response
}

fn answers(statements: &str) -> Result<Vec<serde_json::Value>, String> {
    let statements = statements.split(';').map(str::trim);
    let statements: Vec<&str> = statements.filter(|s| !s.is_empty()).collect();
    if statements.is_empty() {
        return Err("missing required parameter \"q\"".to_owned());
    }
    let answer = |(id, statement): (usize, &&str)| {
        let words: Vec<String> = statement
            .split_whitespace()
            .map(str::to_ascii_uppercase)
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["CREATE", "DATABASE", _, ..] => Ok(serde_json::json!({ "statement_id": id })),
            ["SHOW", "DATABASES"] => Ok(serde_json::json!({
                "statement_id": id,
                "series": [{ "name": "databases", "columns": ["name"], "values": [["millrace"]] }],
            })),
            _ => Err(format!(
                "only CREATE DATABASE and SHOW DATABASES are known here, not {:?}; \
                 data are read by PromQL at /api/v1/query",
                crate::report::excerpt(statement.as_bytes())
            )),
        }
    };
    statements.iter().enumerate().map(answer).collect()
}
