//! Pushgateway's paths: `/metrics/job/<job>{/<label>/<value>}`, with `@base64` behind a label's name for
//! values that a path cannot hold.
//!
//! A Pushgateway keeps the last push of each group and serves it for ever; here a push is samples
//! with a time. So PUT and POST both append, nothing is replaced, and there is nothing for
//! DELETE to withdraw: a group ends by not being pushed any more.

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use millrace_model::METRIC_NAME;

use super::respond;
use crate::Ingest;
use crate::metrics::Protocol;
use crate::report::excerpt;

/// Their routes; VictoriaMetrics has them below its own path too.
pub(super) const ROUTES: [&str; 4] = [
    "/metrics/job/{*group}",
    "/metrics/job@base64/{*group}",
    "/api/v1/import/prometheus/metrics/job/{*group}",
    "/api/v1/import/prometheus/metrics/job@base64/{*group}",
];

/// Any method on any of the [`ROUTES`].
pub(super) async fn handle(State(ingest): State<Ingest>, request: Request) -> Response {
    let labels = match grouping(request.uri().path()) {
        Ok(labels) => labels,
        Err(what) => return (StatusCode::BAD_REQUEST, format!("{what}\n")).into_response(),
    };
    match *request.method() {
        Method::POST | Method::PUT => {
            super::handle_labelled(ingest, Protocol::Pushgateway, request, labels).await
        }
        Method::DELETE => (
            StatusCode::ACCEPTED,
            "nothing to delete: pushed samples are history here and stay; \
             a group ends five minutes after its last push\n",
        )
            .into_response(),
        _ => respond::method_not_allowed("DELETE,POST,PUT"),
    }
}

/// The labels that a path names.
fn grouping(path: &str) -> Result<Vec<(String, String)>, String> {
    let at = path.find("/metrics/job").unwrap_or_default();
    let group = &path[at + "/metrics/".len()..];
    let mut parts = group.trim_end_matches('/').split('/');
    let mut labels: Vec<(String, String)> = Vec::new();
    while let Some(name) = parts.next() {
        let value = parts
            .next()
            .ok_or_else(|| format!("label {:?} of the path has no value", shown(name)))?;
        let (name, value) = match name.strip_suffix("@base64") {
            Some(name) => (name, base64(value)),
            None => (name, percent_decode(value)),
        };
        let value = value.ok_or_else(|| {
            let name = shown(name);
            format!("the value of label {name:?} of the path is not UTF-8 in its encoding")
        })?;
        let name = percent_decode(name).filter(|name| !name.is_empty() && name != METRIC_NAME);
        let name = name.ok_or("a label of the path has no usable name")?;
        if labels.iter().any(|(earlier, _)| *earlier == name) {
            return Err(format!("label {:?} comes twice in the path", shown(&name)));
        }
        if name == "job" && value.is_empty() {
            return Err("job name is required".to_owned());
        }
        labels.push((name, value));
    }
    Ok(labels)
}

fn shown(text: &str) -> String {
    excerpt(text.as_bytes())
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let hex = |b: u8| char::from(b).to_digit(16);
        rest = behind;
        if let (b'%', [high, low, behind @ ..]) = (byte, behind)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push((high * 16 + low) as u8);
            rest = behind;
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// Base64 as paths hold it; `=` alone is nothing.
fn base64(text: &str) -> Option<String> {
    String::from_utf8(crate::base64::decode(&percent_decode(text)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(path: &str) -> Result<Vec<(String, String)>, String> {
        grouping(path)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(n, v): &(&str, &str)| ((*n).to_owned(), (*v).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn paths_name_labels() {
        for (path, expect) in [
            ("/metrics/job/a", &[("job", "a")][..]),
            ("/metrics/job/a/", &[("job", "a")]),
            (
                "/metrics/job/a%2Fb/instance/h%20x",
                &[("job", "a/b"), ("instance", "h x")],
            ),
            (
                "/metrics/job/titan/name@base64/zqDPgc6_zrzOt864zrXPjc-C",
                &[("job", "titan"), ("name", "Προμηθεύς")],
            ),
            ("/metrics/job@base64/L3Zhci90bXA=", &[("job", "/var/tmp")]),
            (
                "/metrics/job/a/empty@base64/=",
                &[("job", "a"), ("empty", "")],
            ),
            (
                "/api/v1/import/prometheus/metrics/job/a/x/metrics",
                &[("job", "a"), ("x", "metrics")],
            ),
        ] {
            assert_eq!(labels(path).as_deref(), Ok(&pairs(expect)[..]), "{path}");
        }
    }

    #[test]
    fn paths_that_name_none_say_why() {
        for (path, words) in [
            ("/metrics/job/a/instance", "has no value"),
            ("/metrics/job/a/__name__/x", "no usable name"),
            ("/metrics/job/a/x/1/x/2", "comes twice"),
            ("/metrics/job@base64/=", "job name is required"),
            ("/metrics/job@base64/%%%", "not UTF-8"),
            ("/metrics/job/%FF", "not UTF-8"),
        ] {
            let error = labels(path).unwrap_err();
            assert!(error.contains(words), "{path}: {error}");
        }
    }
}
